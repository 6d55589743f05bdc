//! Long runs under which nothing may fail and nothing may grow.

use crate::{
    caller::Caller,
    fixture::{FixtureOptions, FixtureServer},
    process::resident_bytes,
    relay::Relay,
    stack::{Cloud, CloudOptions, Gateway},
};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};

/// Every so many calls of a client is a slow one with progress.
const SLOW_EVERY: u64 = 8;

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

/// What a soak of the link came to; without an error, no call has failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkReport {
    /// Calls that were answered, every one as it should be.
    pub calls: u64,
    /// How often the link was cut.
    pub cuts: u64,
    /// How often the gateway said that the link goes on.
    pub resumed: u64,
    /// Resident bytes of the cloud a quarter into the run, and at its end.
    pub cloud: [u64; 2],
    /// The same of the gateway.
    pub gateway: [u64; 2],
}

impl fmt::Display for LinkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let [(cloud, cloud_end), (gateway, gateway_end)] =
            [self.cloud, self.gateway].map(|[early, end]| (mib(early), mib(end)));
        write!(
            f,
            "{} calls, none failed; {} cuts, {} resumed; cloud {cloud} to {cloud_end} MiB, gateway \
             {gateway} to {gateway_end} MiB",
            self.calls, self.cuts, self.resumed
        )
    }
}

/// Runs it with programs of its own.
///
/// # Errors
/// A call fails, is answered with anything but its own answer, or runs more or less than once.
pub async fn link(soak: LinkSoak) -> Result<LinkReport> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let tunnel = cloud.create_tunnel("soak").await?;
    let relay = Relay::start(cloud.addresses().edge).await?;
    let (server, edge) = (fixture.address().to_string(), relay.address().to_string());
    let gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server, "--edge", &edge])?;
    cloud.approve(&tunnel).await?;

    let caller = Caller::plain(cloud.dev_url(0))?;
    let (over, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut clients = JoinSet::new();
    for number in 0..soak.clients {
        let (caller, over, calls) = (caller.clone(), Arc::clone(&over), Arc::clone(&calls));
        clients.spawn(async move {
            let mut turn = number as u64;
            while !over.load(Ordering::Relaxed) {
                call(&caller, turn)
                    .await
                    .with_context(|| format!("client {number}, call {turn}"))?;
                turn += 1;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    let resident = || {
        let pids = [cloud.process().pid(), gateway.process().pid()];
        let [cloud, gateway] = pids.map(|pid| resident_bytes(pid.context("it has ended")?));
        Ok::<_, anyhow::Error>((cloud?, gateway?))
    };
    let run = async {
        let mut early = None;
        let mut left = soak.duration;
        while !left.is_zero() {
            sleep(soak.cut_every.min(left)).await;
            left = left.saturating_sub(soak.cut_every);
            relay.cut();
            if early.is_none() && left <= soak.duration * 3 / 4 {
                early = Some(resident()?);
            }
        }
        over.store(true, Ordering::Relaxed);
        early.context("too short")
    };
    let finish = async {
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok::<_, anyhow::Error>(())
    };
    let ((cloud_early, gateway_early), ()) = tokio::try_join!(run, finish)
        .with_context(|| format!("the gateway wrote:\n{}", gateway.process().log().text()))?;
    let (cloud_end, gateway_end) = resident()?;
    let calls = calls.load(Ordering::Relaxed);
    let ran = fixture.counters();
    ensure!(
        (ran.started, ran.finished, ran.cancelled) == (calls, calls, 0),
        "{calls} calls, but {ran:?}"
    );
    let resumed = gateway
        .process()
        .log()
        .text()
        .matches("resumed after")
        .count();
    Ok(LinkReport {
        calls,
        cuts: relay.cuts(),
        resumed: resumed as u64,
        cloud: [cloud_early, cloud_end],
        gateway: [gateway_early, gateway_end],
    })
}

async fn call(caller: &Caller, turn: u64) -> Result<()> {
    if !turn.is_multiple_of(SLOW_EVERY) {
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
