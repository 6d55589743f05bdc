//! Random interleavings of clients, workers, expiries and crashes, on the store and on a
//! small model of it: no item is lost, none has two live holders, none is stuck.

use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::{
    AgentId, EnvironmentId, EnvironmentKeyHash, EnvironmentKeyId, EventId, SessionId, ThreadId,
    WorkId, WorkspaceId,
};
use proptest::prelude::*;

use crate::store::*;

const SESSIONS: usize = 3;
const WORKERS: usize = 3;
const LEASE: i64 = 60_000;
const RECLAIM: i64 = 5_000;

#[derive(Clone, Debug)]
enum Op {
    /// The loop makes a call.
    Call(usize),
    Poll(usize),
    Ack(usize),
    /// With the item token, or with the environment key alone.
    Beat(usize, bool),
    Answer(usize, bool),
    Stop(usize, bool),
    OperatorStop(usize, bool),
    /// An operator answers the oldest call, and so lets the session go on.
    OperatorAnswer(usize),
    /// A worker forgets everything.
    Crash(usize),
    /// The server is killed and started again.
    Restart,
    Wait(i64),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let (session, worker) = (0..SESSIONS, 0..WORKERS);
    prop_oneof![
        3 => session.clone().prop_map(Op::Call),
        6 => worker.clone().prop_map(Op::Poll),
        6 => worker.clone().prop_map(Op::Ack),
        4 => (worker.clone(), any::<bool>()).prop_map(|(w, t)| Op::Beat(w, t)),
        4 => (worker.clone(), any::<bool>()).prop_map(|(w, t)| Op::Answer(w, t)),
        3 => (worker.clone(), any::<bool>()).prop_map(|(w, f)| Op::Stop(w, f)),
        1 => (session.clone(), any::<bool>()).prop_map(|(s, f)| Op::OperatorStop(s, f)),
        1 => session.prop_map(Op::OperatorAnswer),
        2 => worker.prop_map(Op::Crash),
        1 => Just(Op::Restart),
        4 => prop_oneof![Just(1_000), Just(6_000), Just(61_000)].prop_map(Op::Wait),
        4 => Just(Op::Sweep),
    ]
}

/// An item, as it should be.
#[derive(Clone, Debug)]
struct Item {
    id: WorkId,
    state: WorkState,
    epoch: u64,
    available: i64,
    reserved: Option<i64>,
    beat: Option<i64>,
    lease: Option<i64>,
    token_used: bool,
    by_operator: bool,
}

impl Item {
    fn new(id: WorkId, available: i64) -> Self {
        Self {
            id,
            state: WorkState::Queued,
            epoch: 0,
            available,
            reserved: None,
            beat: None,
            lease: None,
            token_used: false,
            by_operator: false,
        }
    }

    fn held(&self) -> bool {
        matches!(
            self.state,
            WorkState::Starting | WorkState::Active | WorkState::Stopping
        )
    }
}

/// A session, as it should be.
#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    /// Calls without a result.
    open: Vec<EventId>,
    live: Option<Item>,
    attempts: u32,
    held: bool,
}

/// What a worker remembers of its claim.
#[derive(Clone, Copy, Debug)]
struct Claimed {
    session: usize,
    item: WorkId,
    epoch: u64,
    beat: Option<i64>,
    /// Until when nobody else may hold the session.
    mine_until: i64,
}

struct World {
    store: SqliteStore,
    file: SqliteConfig,
    environment: EnvironmentId,
    key: EnvironmentKeyId,
    now: i64,
    sessions: Vec<Session>,
    workers: [Option<Claimed>; WORKERS],
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConfig::new(folder.path().join("model.db"));
        let mut world = Self {
            store: SqliteStore::open(&file).await.unwrap(),
            file,
            environment: EnvironmentId::new(1, &[0; 10]),
            key: EnvironmentKeyId::new(1, &[0; 10]),
            now: 1_790_000_000_000,
            sessions: Vec::new(),
            workers: [None; WORKERS],
            _folder: folder,
        };
        let change = Change::new("audit_1", workspace(), "tester", world.at());
        let environment = NewEnvironment {
            id: world.environment,
            name: "e".to_owned(),
            description: None,
            kind: EnvironmentKind::SelfHosted,
            config: "{}".to_owned(),
            metadata: Metadata::default(),
        };
        world
            .store
            .create_environment(&change, environment, 9)
            .await
            .unwrap();
        let key = NewEnvironmentKey {
            id: world.key,
            environment: world.environment,
            hash: EnvironmentKeyHash::from_bytes([1; 32]),
            name: "k".to_owned(),
        };
        let mut change = change;
        change.audit_id = "audit_2".to_owned();
        world
            .store
            .create_environment_key(&change, key, 9)
            .await
            .unwrap();
        for _ in 0..SESSIONS {
            world.begin().await;
        }
        world
    }

    async fn begin(&mut self) {
        let at = self.tick();
        let new = NewSession {
            id: SessionId::new(at, &[0; 10]),
            thread: ThreadId::new(at, &[0; 10]),
            environment: self.environment,
            agent: "{}".to_owned(),
            agent_id: AgentId::new(1, &[0; 10]),
            agent_version: 1,
            title: None,
            metadata: Metadata::default(),
            resources: "[]".to_owned(),
            events: Vec::new(),
            work: WorkId::new(at, &[0; 10]),
        };
        self.sessions.push(Session {
            id: new.id,
            open: Vec::new(),
            live: Some(Item::new(new.work, self.now)),
            attempts: 0,
            held: false,
        });
        self.store
            .create_session(&workspace(), self.at(), new)
            .await
            .unwrap();
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        u64::try_from(self.now).unwrap()
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now).unwrap()
    }

    fn acting(&self, authority: Authority) -> Acting {
        Acting {
            workspace: workspace(),
            authority,
            now: self.at(),
        }
    }

    fn operator(&self) -> Acting {
        self.acting(Authority::Operator {
            actor: "o".to_owned(),
        })
    }

    /// A worker's credential: its token, or the key alone.
    fn worker(&self, claim: Claimed, token: bool) -> Acting {
        self.acting(if token {
            Authority::Item {
                work: claim.item,
                epoch: claim.epoch,
            }
        } else {
            Authority::EnvironmentKey {
                key: self.key,
                environment: self.environment,
            }
        })
    }

    const fn path(&self, work: WorkId) -> ItemPath {
        ItemPath {
            environment: self.environment,
            work,
        }
    }

    async fn run(&mut self, op: &Op) {
        match *op {
            Op::Call(session) => self.call(session).await,
            Op::Poll(worker) => self.poll(worker).await,
            Op::Ack(worker) => self.ack(worker).await,
            Op::Beat(worker, token) => self.beat(worker, token).await,
            Op::Answer(worker, token) => self.answer(worker, token).await,
            Op::Stop(worker, force) => self.stop(worker, force).await,
            Op::OperatorStop(session, force) => self.operator_stop(session, force).await,
            Op::OperatorAnswer(session) => self.operator_answer(session).await,
            Op::Crash(worker) => self.workers[worker] = None,
            Op::Restart => self.store = SqliteStore::open(&self.file).await.unwrap(),
            Op::Wait(ms) => self.now += ms,
            Op::Sweep => while self.sweep().await {},
        }
        self.compare().await;
    }

    async fn append(
        &self,
        session: usize,
        writer: Writer,
        event: NewEvent,
        needs_worker: bool,
    ) -> Result<Appended, StoreError> {
        let id = self.sessions[session].id;
        let position = self
            .store
            .session(&self.operator(), id)
            .await
            .unwrap()
            .position;
        let append = Append {
            session: id,
            writer,
            position,
            taken_up: Vec::new(),
            events: vec![event],
            status: SessionStatus::Idle,
            needs_worker,
            due: None,
            work: WorkId::new(u64::try_from(self.now).unwrap(), &[0; 10]),
        };
        self.store.append(append).await
    }

    fn event(&mut self, kind: &str, answers: Option<EventId>) -> NewEvent {
        NewEvent {
            id: EventId::new(self.tick(), &[0; 10]),
            kind: kind.to_owned(),
            processed: true,
            answers: answers.map(|call| call.to_string()),
            body: "{}".to_owned(),
        }
    }

    async fn call(&mut self, session: usize) {
        let event = self.event("agent.tool_use", None);
        let call = event.id;
        let writer = Writer::Loop { now: self.at() };
        self.append(session, writer, event, true).await.unwrap();
        let now = self.now;
        let model = &mut self.sessions[session];
        model.open.push(call);
        if model.live.is_none() && !model.held && model.attempts <= ATTEMPTS_MOST {
            model.live = Some(Item::new(
                WorkId::new(u64::try_from(now).unwrap(), &[0; 10]),
                now,
            ));
        }
    }

    async fn poll(&mut self, worker: usize) {
        let now = self.now;
        let claim = Claim {
            workspace: workspace(),
            environment: self.environment,
            key: self.key,
            worker: Some(format!("w{worker}")),
            now: self.at(),
            reclaim: SignedDuration::from_millis(RECLAIM),
        };
        let polled = self.store.poll(&claim).await.unwrap();
        let waits = |item: &&mut Item| {
            item.state == WorkState::Queued
                && item.available <= now
                && item.reserved.is_none_or(|at| at + RECLAIM <= now)
        };
        let live = self
            .sessions
            .iter_mut()
            .filter_map(|session| session.live.as_mut());
        let expected = live.filter(waits).min_by_key(|item| item.id);
        let Polled::Item(polled) = polled else {
            return assert!(expected.is_none(), "nothing came, but {expected:?} waits");
        };
        let item = expected.expect("only what waits is handed out");
        item.epoch += 1;
        (item.reserved, item.token_used) = (Some(now), false);
        assert_eq!((polled.id, polled.epoch), (item.id, item.epoch));
        let session = self
            .sessions
            .iter()
            .position(|one| one.id == polled.session)
            .unwrap();
        self.workers[worker] = Some(Claimed {
            session,
            item: polled.id,
            epoch: polled.epoch,
            beat: None,
            mine_until: 0,
        });
    }

    /// The item of a claim, where it is still the live one of its session.
    fn live(&mut self, claim: Claimed) -> Option<&mut Item> {
        let live = self.sessions[claim.session].live.as_mut();
        live.filter(|item| item.id == claim.item)
    }

    async fn ack(&mut self, worker: usize) {
        let Some(claim) = self.workers[worker] else {
            return;
        };
        let now = self.now;
        let lease = SignedDuration::from_millis(LEASE);
        let acting = self.worker(claim, false);
        let acked = self
            .store
            .acknowledge(&acting, self.path(claim.item), lease)
            .await;
        let free = |item: &&mut Item| item.state == WorkState::Queued && item.reserved.is_some();
        let expected = self.live(claim).filter(free);
        assert_eq!(acked.is_ok(), expected.is_some(), "{acked:?}");
        let Some(item) = expected else { return };
        (item.state, item.lease) = (WorkState::Starting, Some(now + LEASE));
        // Another one may have been handed the item meanwhile: then the token is dead already.
        if item.epoch == claim.epoch {
            self.hold(worker, now + LEASE);
        }
    }

    /// From now on `worker` may run what the session asks for: nobody else may.
    fn hold(&mut self, worker: usize, until: i64) {
        let now = self.now;
        let session = self.workers[worker].expect("it has a claim").session;
        for (other, claim) in self.workers.iter().enumerate() {
            let Some(claim) = claim.filter(|claim| claim.session == session) else {
                continue;
            };
            assert!(
                other == worker || claim.mine_until <= now,
                "two live holders"
            );
        }
        if let Some(claim) = &mut self.workers[worker] {
            claim.mine_until = until;
        }
    }

    async fn beat(&mut self, worker: usize, token: bool) {
        let Some(claim) = self.workers[worker] else {
            return;
        };
        let now = self.now;
        let expected = claim.beat.map_or(Expected::None, |at| {
            Expected::At(Timestamp::from_millisecond(at).unwrap())
        });
        let lease = SignedDuration::from_millis(LEASE);
        let acting = self.worker(claim, token);
        let beaten = self
            .store
            .heartbeat(&acting, self.path(claim.item), expected, lease)
            .await;
        let extends = match self.live(claim) {
            None => return assert!(beaten.is_err() || !beaten.unwrap().extended),
            Some(item) if token && item.epoch != claim.epoch => false,
            Some(item) if !token && item.token_used && item.held() => false,
            Some(item) => {
                // A token that is accepted at all shuts the key out, even where the beat is not.
                let runs = matches!(item.state, WorkState::Starting | WorkState::Active);
                let extends = runs && item.beat == claim.beat;
                item.token_used |= token && (extends || item.state == WorkState::Stopping);
                if extends {
                    item.state = WorkState::Active;
                    item.beat = Some(now.max(item.beat.map_or(i64::MIN, |beat| beat + 1)));
                    item.lease = Some(now + LEASE);
                }
                extends
            }
        };
        let extended = beaten.as_ref().is_ok_and(|beaten| beaten.extended);
        assert_eq!(extended, extends, "{beaten:?}");
        match beaten {
            Ok(beaten) if extended => {
                if let Some(claim) = &mut self.workers[worker] {
                    claim.beat = beaten.work.heartbeat_at.map(Timestamp::as_millisecond);
                }
                if self
                    .live(claim)
                    .is_some_and(|item| item.epoch == claim.epoch)
                {
                    self.hold(worker, now + LEASE);
                }
            }
            Ok(_) => {}
            // Told that the item is not its own, it gives up.
            Err(_) => self.workers[worker] = None,
        }
    }

    async fn answer(&mut self, worker: usize, token: bool) {
        let Some(claim) = self.workers[worker] else {
            return;
        };
        let Some(call) = self.sessions[claim.session].open.first().copied() else {
            return;
        };
        let event = self.event("user.tool_result", Some(call));
        let more = self.sessions[claim.session].open.len() > 1;
        let writer = Writer::Client(self.worker(claim, token));
        let sent = self.append(claim.session, writer, event, more).await;
        let allowed = match (&self.sessions[claim.session].live, token) {
            (Some(item), true) => item.id == claim.item && item.epoch == claim.epoch && item.held(),
            (None, true) => false,
            (Some(item), false) => !(item.token_used && item.held()),
            (None, false) => true,
        };
        assert_eq!(sent.is_ok(), allowed, "{sent:?}");
        if !allowed {
            return;
        }
        if token && let Some(item) = self.live(claim) {
            item.token_used = true;
        }
        self.answered(claim.session, false);
    }

    fn answered(&mut self, session: usize, by_operator: bool) {
        let now = self.now;
        let model = &mut self.sessions[session];
        model.open.remove(0);
        model.attempts = 0;
        model.held &= !by_operator;
        if !model.open.is_empty() && model.live.is_none() && !model.held {
            model.live = Some(Item::new(
                WorkId::new(u64::try_from(now).unwrap(), &[0; 10]),
                now,
            ));
        }
    }

    async fn operator_answer(&mut self, session: usize) {
        let Some(call) = self.sessions[session].open.first().copied() else {
            return;
        };
        let event = self.event("user.tool_result", Some(call));
        let more = self.sessions[session].open.len() > 1;
        let writer = Writer::Client(self.operator());
        self.append(session, writer, event, more).await.unwrap();
        self.answered(session, true);
    }

    async fn stop(&mut self, worker: usize, force: bool) {
        let Some(claim) = self.workers[worker] else {
            return;
        };
        let (order, successor) = self.order(force);
        let acting = self.worker(claim, true);
        let stopped = self.store.stop(&acting, self.path(claim.item), order).await;
        let epoch = claim.epoch;
        let allowed = self.live(claim).is_some_and(|item| item.epoch == epoch);
        assert_eq!(stopped.is_ok(), allowed, "{stopped:?}");
        if allowed {
            self.live(claim).expect("it is there").token_used = true;
            self.ordered(claim.session, force, false, successor);
        }
        if force {
            self.workers[worker] = None;
        }
    }

    async fn operator_stop(&mut self, session: usize, force: bool) {
        let Some(item) = self.sessions[session].live.clone() else {
            return;
        };
        let (order, successor) = self.order(force);
        self.store
            .stop(&self.operator(), self.path(item.id), order)
            .await
            .unwrap();
        self.ordered(session, force, true, successor);
    }

    fn order(&mut self, force: bool) -> (StopOrder, WorkId) {
        let successor = WorkId::new(self.tick(), &[0; 10]);
        let grace = SignedDuration::from_millis(LEASE);
        (
            StopOrder {
                force,
                reason: None,
                grace,
                successor,
            },
            successor,
        )
    }

    fn ordered(&mut self, session: usize, force: bool, by_operator: bool, successor: WorkId) {
        let now = self.now;
        let item = self.sessions[session].live.as_mut().expect("it is there");
        item.by_operator |= by_operator;
        if force || item.state == WorkState::Queued {
            self.finish(session, successor);
        } else if item.state != WorkState::Stopping {
            (item.state, item.lease) = (WorkState::Stopping, Some(now + LEASE));
        }
    }

    fn finish(&mut self, session: usize, successor: WorkId) {
        let now = self.now;
        let ended = self.sessions[session].live.take().expect("it is there");
        for claim in self.workers.iter_mut().flatten() {
            if claim.item == ended.id {
                claim.mine_until = 0;
            }
        }
        let model = &mut self.sessions[session];
        model.held = ended.by_operator;
        if ended.by_operator || model.open.is_empty() {
            return;
        }
        model.attempts += 1;
        if model.attempts <= ATTEMPTS_MOST {
            model.live = Some(Item::new(successor, now + wait(model.attempts)));
        }
    }

    /// One lease that ran out, if there is one.
    async fn sweep(&mut self) -> bool {
        let successor = WorkId::new(self.tick(), &[0; 10]);
        let now = self.now;
        let expired = self.store.expire(self.at(), successor).await.unwrap();
        let lapsed = |session: &Session| {
            let lease = session.live.as_ref().and_then(|item| item.lease);
            lease.is_some_and(|lease| lease <= now)
        };
        let Some(expired) = expired else {
            assert!(!self.sessions.iter().any(lapsed), "a lease ran out unseen");
            return false;
        };
        let session = self
            .sessions
            .iter()
            .position(|one| one.id == expired.session)
            .unwrap();
        assert!(lapsed(&self.sessions[session]), "{expired:?} still holds");
        let model = &mut self.sessions[session];
        let item = model.live.as_mut().expect("it is there");
        if item.state == WorkState::Stopping {
            self.finish(session, successor);
        } else {
            model.attempts += 1;
            let (id, epoch, by_operator) = (item.id, item.epoch + 1, item.by_operator);
            let fresh = Item::new(id, now + wait(model.attempts));
            model.live = Some(Item {
                epoch,
                by_operator,
                ..fresh
            });
        }
        true
    }

    /// The store is what the model is.
    async fn compare(&self) {
        for model in &self.sessions {
            let found = self
                .store
                .session(&self.operator(), model.id)
                .await
                .unwrap();
            assert_eq!(found.needs_worker, !model.open.is_empty());
            assert_eq!((found.attempts, found.held), (model.attempts, model.held));
            let live = found.work.filter(|work| work.state != WorkState::Stopped);
            assert_eq!(
                live.as_ref().map(|work| work.id),
                model.live.as_ref().map(|item| item.id)
            );
            let (Some(live), Some(item)) = (live, &model.live) else {
                // Nothing is lost: without an item nothing waits, or somebody was told.
                assert!(model.open.is_empty() || model.held || model.attempts > ATTEMPTS_MOST);
                continue;
            };
            let found = self
                .store
                .work(&self.operator(), self.path(live.id))
                .await
                .unwrap();
            let expected = (
                item.state,
                item.epoch,
                item.token_used,
                item.lease,
                item.beat,
            );
            let ms = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
            let (lease, beat) = (ms(found.lease_until), ms(found.heartbeat_at));
            assert_eq!(
                (found.state, found.epoch, found.token_used, lease, beat),
                expected
            );
        }
    }

    /// One good worker ends everything that nobody was told of.
    async fn settle(&mut self) {
        self.workers = [None; WORKERS];
        for _ in 0..1000 {
            self.now += 1_000;
            while self.sweep().await {}
            self.poll(0).await;
            self.ack(0).await;
            while let Some(claim) = self.workers[0] {
                if self.sessions[claim.session].open.is_empty() {
                    break;
                }
                self.answer(0, true).await;
            }
            self.stop(0, true).await;
            self.compare().await;
            let waits = |session: &Session| !session.open.is_empty() && session.live.is_some();
            if !self.sessions.iter().any(waits) {
                return;
            }
        }
        panic!("something is stuck: {:?}", self.sessions);
    }
}

fn workspace() -> WorkspaceId {
    WorkspaceId::parse("home").unwrap()
}

fn wait(attempts: u32) -> i64 {
    i64::try_from(back_off(attempts).as_millis()).unwrap()
}

type Metadata = std::collections::BTreeMap<String, String>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_item_is_lost_shared_or_stuck(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.run(op).await;
            }
            world.settle().await;
        });
    }
}
