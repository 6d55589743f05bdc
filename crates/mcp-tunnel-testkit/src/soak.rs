//! Long runs under which nothing may fail and nothing may grow.

pub mod sessions;

use crate::{
    caller::Caller,
    fixture::{CallCounters, FixtureOptions, FixtureServer},
    process::resident_bytes,
    relay::Relay,
    stack::{Cloud, CloudOptions, Gateway},
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Every so many calls of a client is a slow one with progress.
const SLOW_EVERY: u64 = 8;
/// Rows of the table.
const SAMPLES: u32 = 20;
/// Failures that are told of; all are counted.
const TOLD: usize = 5;
/// What either program may grow by between the second quarter of a run and the last, bytes: what an allocator keeps.
const GROWTH: u64 = 16 << 20;

/// Clients that call without a pause over a link that is cut again and again.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LinkSoak {
    /// Clients that call at the same time.
    pub clients: usize,
    /// How long they begin new calls.
    pub duration: Duration,
    /// From one cut to the next.
    pub cut_every: Duration,
}

impl LinkSoak {
    /// So many clients for so long, and a cut every two seconds.
    #[must_use]
    pub fn new(clients: usize, duration: Duration) -> Self {
        Self {
            clients,
            duration,
            cut_every: Duration::from_secs(2),
        }
    }
}

/// What a soak of the link came to.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LinkReport {
    /// Clients that called at the same time.
    pub clients: usize,
    /// Calls that were answered, every one as it should be.
    pub calls: u64,
    /// Calls that were not.
    pub failed: u64,
    /// The first few of those, in words.
    pub failures: Vec<String>,
    /// What ran at the server.
    pub ran: CallCounters,
    /// How often the link was cut.
    pub cuts: u64,
    /// How often the gateway said that the link goes on.
    pub resumed: u64,
    /// The longest call that was to be answered at once.
    pub slowest_ms: u64,
    /// From the start to the end, evenly.
    pub samples: Vec<Sample>,
}

/// How things stand at one time of a run; counts are from its start.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Sample {
    /// Since the start.
    pub seconds: u64,
    /// As in the report.
    pub calls: u64,
    /// As in the report.
    pub failed: u64,
    /// As in the report.
    pub cuts: u64,
    /// Of the cloud, in memory.
    pub cloud_bytes: u64,
    /// Of the gateway.
    pub gateway_bytes: u64,
}

impl LinkReport {
    /// Whether every call was answered, and ran once.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn check_calls(&self) -> Result<()> {
        let Self { calls, failed, .. } = self;
        ensure!(*failed == 0, "{failed} calls failed: {:#?}", self.failures);
        let ran = self.ran;
        ensure!(
            (ran.started, ran.finished, ran.cancelled) == (*calls, *calls, 0),
            "{calls} calls, but {ran:?}"
        );
        Ok(())
    }

    /// Whether both programs took no more memory at the end than before; for runs of minutes.
    ///
    /// # Errors
    /// One has grown.
    pub fn check_growth(&self) -> Result<()> {
        for (program, grown) in self.growth() {
            ensure!(grown < GROWTH, "the {program} has grown by {grown} bytes");
        }
        Ok(())
    }

    /// From the second quarter to the last, on average.
    fn growth(&self) -> [(&'static str, u64); 2] {
        let quarter = self.samples.len() / 4;
        let mean = |from: usize, bytes: fn(&Sample) -> u64| {
            let some = self.samples.iter().skip(from).take(quarter);
            some.map(bytes).sum::<u64>() / quarter.max(1) as u64
        };
        let grown = |bytes| {
            let last = self.samples.len() - quarter;
            mean(last, bytes).saturating_sub(mean(quarter, bytes))
        };
        [
            ("cloud", grown(|one| one.cloud_bytes)),
            ("gateway", grown(|one| one.gateway_bytes)),
        ]
    }
}

impl fmt::Display for LinkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>8} {:>9} {:>7} {:>6} {:>10} {:>12}",
            "seconds", "calls", "failed", "cuts", "cloud MiB", "gateway MiB"
        )?;
        for one in &self.samples {
            writeln!(
                f,
                "{:>8} {:>9} {:>7} {:>6} {:>10} {:>12}",
                one.seconds,
                one.calls,
                one.failed,
                one.cuts,
                one.cloud_bytes >> 20,
                one.gateway_bytes >> 20
            )?;
        }
        let [(_, cloud), (_, gateway)] = self.growth();
        write!(
            f,
            "{} clients: {} calls, {} failed; {} cuts, {} resumed; slowest quick call {} ms; grown by {} and {} MiB",
            self.clients,
            self.calls,
            self.failed,
            self.cuts,
            self.resumed,
            self.slowest_ms,
            cloud >> 20,
            gateway >> 20
        )
    }
}

/// What the clients have seen so far.
#[derive(Debug, Default)]
struct Tally {
    over: AtomicBool,
    calls: AtomicU64,
    failed: AtomicU64,
    slowest_ms: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn fail(&self, told: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let failures = self.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        if failures.len() < TOLD {
            failures.push(told);
        }
    }

    /// One client: a call after the other until all is over.
    async fn client(self: Arc<Self>, number: usize, caller: Caller) {
        let mut turn = number as u64;
        while !self.over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let called = call(&caller, turn).await;
            let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            match called {
                Ok(()) => {
                    self.calls.fetch_add(1, Ordering::Relaxed);
                    if !is_slow(turn) {
                        self.slowest_ms.fetch_max(took, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    self.fail(format!(
                        "client {number}, call {turn}, {took} ms: {error:#}"
                    ));
                }
            }
            turn += 1;
        }
    }
}

/// The programs of a run.
struct Programs {
    fixture: FixtureServer,
    cloud: Cloud,
    relay: Relay,
    gateway: Gateway,
}

impl Programs {
    async fn start() -> Result<Self> {
        let fixture = FixtureServer::start(FixtureOptions::default()).await?;
        let cloud = Cloud::start(CloudOptions::default()).await?;
        let tunnel = cloud.create_tunnel("soak").await?;
        let relay = Relay::start(cloud.addresses().edge).await?;
        let (server, edge) = (fixture.address().to_string(), relay.address().to_string());
        let gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server, "--edge", &edge])?;
        cloud.approve(&tunnel).await?;
        Ok(Self {
            fixture,
            cloud,
            relay,
            gateway,
        })
    }

    fn sample(&self, tally: &Tally, since: Instant) -> Result<Sample> {
        let resident = |pid: Option<u32>| resident_bytes(pid.context("it has ended")?);
        Ok(Sample {
            seconds: since.elapsed().as_secs(),
            calls: tally.calls.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            cuts: self.relay.cuts(),
            cloud_bytes: resident(self.cloud.process().pid())?,
            gateway_bytes: resident(self.gateway.process().pid())?,
        })
    }

    /// Cuts and samples until the run is over.
    async fn run(&self, soak: &LinkSoak, tally: &Tally) -> Result<Vec<Sample>> {
        let start = Instant::now();
        let (mut samples, sample_every) = (Vec::new(), soak.duration / SAMPLES);
        let (mut cut, mut sample) = (start + soak.cut_every, start + sample_every);
        while start.elapsed() < soak.duration {
            sleep_until(cut.min(sample)).await;
            let now = Instant::now();
            if now >= cut {
                self.relay.cut();
                cut += soak.cut_every;
            }
            if now >= sample {
                samples.push(self.sample(tally, start)?);
                sample += sample_every;
            }
        }
        Ok(samples)
    }
}

/// Runs it with programs of its own.
///
/// # Errors
/// A program does not start, or ends; of calls that fail the report tells.
pub async fn link(soak: LinkSoak) -> Result<LinkReport> {
    let programs = Programs::start().await?;
    let caller = Caller::plain(programs.cloud.dev_url(0))?;
    let tally = Arc::<Tally>::default();
    let mut clients = JoinSet::new();
    for number in 0..soak.clients {
        clients.spawn(Arc::clone(&tally).client(number, caller.clone()));
    }
    let log = programs.gateway.process().log();
    let samples = programs.run(&soak, &tally).await;
    let samples = samples.with_context(|| format!("the gateway wrote:\n{}", log.text()))?;
    tally.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let failures = tally.failures.lock();
    Ok(LinkReport {
        clients: soak.clients,
        calls: tally.calls.load(Ordering::Relaxed),
        failed: tally.failed.load(Ordering::Relaxed),
        failures: failures.unwrap_or_else(PoisonError::into_inner).clone(),
        ran: programs.fixture.counters(),
        cuts: programs.relay.cuts(),
        resumed: log.text().matches("resumed after").count() as u64,
        slowest_ms: tally.slowest_ms.load(Ordering::Relaxed),
        samples,
    })
}

fn is_slow(turn: u64) -> bool {
    turn.is_multiple_of(SLOW_EVERY)
}

async fn call(caller: &Caller, turn: u64) -> Result<()> {
    if !is_slow(turn) {
        return caller.echo().await;
    }
    let arguments = json!({ "seconds": 1.0, "steps": 4 });
    let answer = caller.call("slow", arguments).await?;
    let steps = answer.body.matches("\"progress\":").count();
    ensure!(
        steps == 4 && answer.body.contains("took 1 s in 4 steps"),
        "{} {}",
        answer.status,
        answer.body
    );
    Ok(())
}
