//! Sessions on a real cloud with real workers, all of which are killed again and again.
//!
//! ```text
//!  clients ── create, follow ──► mcp-cloud ◄── poll, post ── mcp-sandbox worker … ── sandboxes ── effects
//!     │                             ▲ kill -9                   ▲ kill -9                           │
//!     └── each call one result ─────┴──── at random, by a seed ─┘          each effect at most once ┘
//! ```

mod effects;
mod fleet;
mod report;

use crate::tools::skip;
use anyhow::{Context, Result, bail, ensure};
use effects::{Effects, Tally};
use fleet::Fleet;
use managed_agents_api::{
    CreateSession, Event, EventBody, EventFilter, Order, RawJson, SessionFilter, SessionStatus,
    StopReason,
};
use managed_agents_client::{Client, ClientError};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

pub use report::{Memory, SessionsReport};

/// Sessions that are made and followed at the same time; each has a stream.
const IN_FLIGHT: usize = 256;
/// Between two tries of a call that may succeed later.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two lines of progress.
const SHOW: Duration = Duration::from_secs(5);
/// How long the queue may take to be empty once every session has ended.
const EMPTY: Duration = Duration::from_secs(120);

/// Sessions under violence.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionsSoak {
    /// Sessions in all.
    pub sessions: usize,
    /// Worker processes; two each share a folder, as on one host.
    pub workers: usize,
    /// Calls of each session that have an effect.
    pub calls: usize,
    /// How long anything is killed, at most; none: nothing is.
    pub violence: Duration,
    /// From one kill to the next: at least, at most.
    pub pause: (Duration, Duration),
    /// When it is given up.
    pub limit: Duration,
    /// What chance is made of.
    pub seed: u64,
    /// Whether progress is shown on the standard error stream.
    pub loud: bool,
}

impl SessionsSoak {
    /// So many sessions and workers, kills for so long, five calls each.
    #[must_use]
    pub fn new(sessions: usize, workers: usize, violence: Duration, seed: u64) -> Self {
        Self {
            sessions,
            workers,
            calls: 5,
            violence,
            pause: (Duration::from_millis(500), Duration::from_secs(3)),
            limit: violence + Duration::from_secs(1200),
            seed,
            loud: false,
        }
    }
}

/// Numbers by a seed: the same seed, the same numbers.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number: splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    pub(crate) fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        let span = most.saturating_sub(least).as_millis();
        let span = usize::try_from(span).unwrap_or(usize::MAX);
        least + Duration::from_millis(self.below(span.saturating_add(1)) as u64)
    }
}

/// Runs it with programs of its own. `None` where no sandbox can be made here, which is said loudly.
///
/// # Errors
/// An effect came twice, a call has no result or two, a session does not end, something is left: the first few of all
/// that went wrong.
pub async fn sessions(soak: SessionsSoak) -> Result<Option<SessionsReport>> {
    if let Err(why) = fleet::possible().await {
        skip(&format!("no sandbox can be made here: {why:#}"));
        return Ok(None);
    }
    let mut fleet = Fleet::start(&soak).await?;
    let scene = Arc::new(Scene {
        client: fleet.client()?,
        agent: fleet.agent.clone(),
        environment: fleet.environment.clone(),
        effects: fleet.effects.clone(),
        ended: AtomicUsize::new(0),
        verified: Mutex::default(),
    });
    let began = Instant::now();
    let mut outcome = struggle(&soak, &mut fleet, &scene).await?;
    let took = began.elapsed();
    outcome.add(strays(&scene).await);
    let queue = empty_queue(&scene).await;
    fleet.sample();
    let left = fleet.stop().await;
    outcome.faults.append(&mut fleet.faults);
    outcome.faults.extend(queue.err().map(|e| format!("{e:#}")));
    outcome.faults.extend(left.err().map(|e| format!("{e:#}")));
    if !outcome.faults.is_empty() {
        let many = outcome.faults.len();
        outcome.faults.truncate(8);
        bail!(
            "seed {}: {many} faults\n{}",
            soak.seed,
            outcome.faults.join("\n")
        );
    }
    Ok(Some(report::of(
        &soak,
        &fleet,
        outcome.tally,
        &outcome.times,
        took,
    )))
}

/// What all sessions share.
struct Scene {
    client: Client,
    agent: String,
    environment: String,
    effects: Effects,
    ended: AtomicUsize,
    /// Sessions that were looked through.
    verified: Mutex<HashSet<String>>,
}

/// What came of many sessions.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    /// How long each session took.
    times: Vec<Duration>,
    faults: Vec<String>,
}

impl Outcome {
    fn take(&mut self, ended: Result<(Tally, Duration)>) {
        match ended {
            Ok((tally, time)) => {
                self.tally.add(&tally);
                self.times.push(time);
            }
            Err(error) => self.faults.push(format!("{error:#}")),
        }
    }

    fn add(&mut self, others: Result<Vec<Result<Tally>>>) {
        match others {
            Ok(others) => {
                for other in others {
                    match other {
                        Ok(tally) => {
                            self.tally.add(&tally);
                            self.tally.strays += 1;
                        }
                        Err(error) => self.faults.push(format!("{error:#}")),
                    }
                }
            }
            Err(error) => self.faults.push(format!("{error:#}")),
        }
    }
}

/// All sessions, and kills beside them, until every session has ended.
async fn struggle(soak: &SessionsSoak, fleet: &mut Fleet, scene: &Arc<Scene>) -> Result<Outcome> {
    let (began, gate) = (Instant::now(), Arc::new(Semaphore::new(IN_FLIGHT)));
    let mut running = JoinSet::new();
    for number in 0..soak.sessions {
        let (scene, gate, soak) = (Arc::clone(scene), Arc::clone(&gate), *soak);
        running.spawn(async move {
            let _permit = gate.acquire().await?;
            let began = Instant::now();
            let tally = scene.session(&soak, number).await;
            scene.ended.fetch_add(1, Ordering::Relaxed);
            tally.map(|tally| (tally, began.elapsed()))
        });
    }
    let mut chance = Chance::new(soak.seed);
    let mut kill_at = began + chance.between(soak.pause);
    let mut show = interval(SHOW);
    show.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outcome = Outcome::default();
    loop {
        let violent = began.elapsed() < soak.violence;
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(ended) => outcome.take(ended?),
                None => return Ok(outcome),
            },
            () = sleep_until(kill_at), if violent => {
                fleet.strike(&mut chance).await?;
                kill_at = Instant::now() + chance.between(soak.pause);
            }
            _ = show.tick() => {
                fleet.sample();
                if soak.loud {
                    report::progress(soak, fleet, scene.ended.load(Ordering::Relaxed), &outcome.tally, began.elapsed());
                }
            }
            () = sleep_until(began + soak.limit) => {
                running.shutdown().await;
                let ended = scene.ended.load(Ordering::Relaxed);
                outcome.faults.push(format!("after {:?} {ended} of {} sessions have ended", soak.limit, soak.sessions));
                outcome.faults.extend(scene.stuck().await);
                return Ok(outcome);
            }
        }
    }
}

impl Scene {
    /// One session from its making to its end, looked through.
    async fn session(&self, soak: &SessionsSoak, number: usize) -> Result<Tally> {
        let mut chance = Chance::new(soak.seed ^ (number as u64 + 1).wrapping_mul(0x1_0000_01b3));
        let mut tries = 0;
        let id = loop {
            // Each try has effects of its own: of one whose answer was lost nobody knows whether it was carried out.
            let name = format!("{number}-{tries}");
            match self.create(&name, soak.calls, &mut chance).await {
                Ok(id) => break id,
                Err(error) if error.is_passing() => sleep(PAUSE).await,
                Err(error) => return Err(error).context("making a session"),
            }
            tries += 1;
        };
        self.to_its_end(&id).await
    }

    async fn create(
        &self,
        name: &str,
        calls: usize,
        chance: &mut Chance,
    ) -> Result<String, ClientError> {
        let script = effects::script(name, calls, chance);
        let text = format!("```json\n{script}\n```");
        let message = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let mut session = CreateSession::new(&self.agent, &self.environment);
        session.metadata = Some(BTreeMap::from([(NAME.to_owned(), name.to_owned())]));
        session.initial_events = RawJson::of(&message).ok().map(|message| vec![message]);
        Ok(self.client.sessions().create(&session).await?.id)
    }

    /// Follows a session until its turn has ended, looks it through and archives it.
    async fn to_its_end(&self, id: &str) -> Result<Tally> {
        let events = self.client.events(id);
        let mut follow = events.follow();
        let mut followed = Vec::new();
        loop {
            let event = follow.next().await;
            let event = event.with_context(|| format!("following {id}"))?;
            let event = event.with_context(|| format!("{id} was over before its turn"))?;
            let over = is_end_of_turn(&event);
            followed.push(event);
            if over {
                break;
            }
        }
        drop(follow);
        let session = insist(|| self.client.sessions().retrieve(id)).await?;
        let name = session
            .metadata
            .get(NAME)
            .context("a session without a name")?;
        ensure!(
            session.status == SessionStatus::Idle,
            "{id} is {:?}",
            session.status
        );
        let listed = self.history(id).await?;
        let ids = |events: &[Event]| {
            events
                .iter()
                .map(|event| event.id().to_owned())
                .collect::<Vec<_>>()
        };
        ensure!(
            ids(&followed) == ids(&listed),
            "{id}: followed {:?}, listed {:?}",
            ids(&followed),
            ids(&listed)
        );
        let values = listed.iter().map(|event| event.raw().parse::<Value>());
        let values: Vec<Value> = values.collect::<Result<_, _>>()?;
        let tally = self
            .effects
            .judge(name, &values)
            .with_context(|| format!("session {id}"))?;
        // The item may still be held: its worker has to notice.
        insist(|| self.client.sessions().archive(id)).await?;
        self.verified.lock().await.insert(id.to_owned());
        Ok(tally)
    }

    async fn history(&self, id: &str) -> Result<Vec<Event>> {
        let mut filter = EventFilter {
            limit: Some(1000),
            ..EventFilter::default()
        };
        let mut all = Vec::new();
        loop {
            let page = insist(|| self.client.events(id).page(&filter)).await?;
            all.extend(page.data);
            match page.next_page {
                Some(next) => filter.page = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Sessions that are not archived: id, and what the server says about each.
    async fn open(&self) -> Result<Vec<(String, String)>> {
        let mut filter = SessionFilter {
            limit: Some(100),
            order: Some(Order::Asc),
            ..SessionFilter::default()
        };
        let mut all = Vec::new();
        loop {
            let page = insist(|| self.client.sessions().page(&filter)).await?;
            let told = |session: &managed_agents_api::Session| {
                format!("{}: {:?}, {:?}", session.id, session.status, session.worker)
            };
            all.extend(
                page.data
                    .iter()
                    .map(|session| (session.id.clone(), told(session))),
            );
            match page.next_page {
                Some(next) => filter.page = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn stuck(&self) -> Vec<String> {
        let open = self.open().await.unwrap_or_default();
        open.into_iter().map(|(_, told)| told).collect()
    }
}

/// Sessions that were made although nobody heard so.
async fn strays(scene: &Scene) -> Result<Vec<Result<Tally>>> {
    let mut all = Vec::new();
    for (id, _) in scene.open().await? {
        if !scene.verified.lock().await.contains(&id) {
            let ended = tokio::time::timeout(EMPTY, scene.to_its_end(&id)).await;
            all.push(ended.unwrap_or_else(|_| bail!("{id}, of which nobody heard, does not end")));
        }
    }
    Ok(all)
}

/// Waits until no item is left that is not stopped.
async fn empty_queue(scene: &Scene) -> Result<()> {
    let deadline = Instant::now() + EMPTY;
    loop {
        let stats = insist(|| scene.client.work(&scene.environment).stats()).await?;
        if stats.depth == 0 && stats.pending == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the queue still has {} and {}",
            stats.depth,
            stats.pending
        );
        sleep(PAUSE).await;
    }
}

/// Repeats a call that may be repeated until it succeeds.
async fn insist<T, F: Future<Output = Result<T, ClientError>>>(call: impl Fn() -> F) -> Result<T> {
    loop {
        match call().await {
            Err(error) if error.is_passing() => sleep(PAUSE).await,
            done => return Ok(done?),
        }
    }
}

fn is_end_of_turn(event: &Event) -> bool {
    matches!(event.body(), Ok(EventBody::SessionStatusIdle(idle)) if matches!(idle.stop_reason, StopReason::EndTurn(_)))
}

/// The member of a session's metadata that says whose effects are its.
const NAME: &str = "effects";
