//! Sandboxes: made, found, kept, stopped and destroyed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_sandbox_executor::{
    Command, CreateError, Exit, KillReason, Label, Mount, Network, ProcessEvent, SandboxError,
    Workspace, WorkspaceName,
};

use super::commands::finish;
use crate::case::{Case, Context, Result, cases, ensure, sh};

pub(crate) const CASES: &[Case] = cases![false;
    "S01" "a sandbox is found by its labels and its id while it lives" listing;
    "S02" "what is destroyed is gone, and destroying it again is no error" destroyed;
    "S03" "a command under which the sandbox is destroyed says so" destroyed_under;
    "S04" "a sandbox ends with its time to live, unless kept alive" time_to_live;
    "S05" "a suspended sandbox stands still and goes on" suspend;
    "S06" "a named workspace outlives its sandbox, an ephemeral one does not" workspaces;
    "S07" "what cannot be given is refused, never silently left out" refused;
    "S08" "the layers of isolation are reported" layers;
    "S09" "nothing is left of twenty sandboxes" nothing_left;
];

async fn listing(context: &Context<'_>) -> Result {
    context.need(context.capabilities.listing, "listing")?;
    let spec = crate::spec().with_label("case", "S01");
    let sandbox = context.sandbox_of(spec).await?;
    let other = context.sandbox().await?;
    let label = [Label {
        name: "case".to_owned(),
        value: "S01".to_owned(),
    }];
    let found = context.executor.list(&label).await?;
    ensure!(
        found.len() == 1 && found[0].id == sandbox.info().id,
        "{found:?}"
    );
    let again = context.executor.attach(&sandbox.info().id).await?;
    sh(&*sandbox, "echo mark > mark").await?;
    ensure!(
        sh(&*again, "cat mark").await?.text() == "mark",
        "attached to another one"
    );
    sandbox.destroy().await?;
    ensure!(
        context.executor.list(&label).await?.is_empty(),
        "still listed"
    );
    let gone = context.executor.attach(&again.info().id).await.err();
    ensure!(matches!(gone, Some(CreateError::NotFound)), "{gone:?}");
    finish(other).await
}

async fn destroyed(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    sandbox.destroy().await?;
    sandbox.destroy().await?;
    let exec = sandbox.exec(Command::new(["true"])).await.err();
    ensure!(matches!(exec, Some(SandboxError::Gone)), "{exec:?}");
    let keep = sandbox.keep_alive(Duration::from_secs(1)).await.err();
    ensure!(matches!(keep, Some(SandboxError::Gone)), "{keep:?}");
    Ok(None)
}

async fn destroyed_under(context: &Context<'_>) -> Result {
    context.need_streaming()?;
    let sandbox = context.sandbox().await?;
    let mut process = sandbox
        .exec(Command::new(["sh", "-c", "echo up; sleep 60"]))
        .await?;
    process.next_event().await?;
    sandbox.destroy().await?;
    let end = process.next_event().await?;
    let expect = Some(ProcessEvent::Exit(Exit::Killed(KillReason::Destroyed)));
    ensure!(end == expect, "{end:?}");
    Ok(None)
}

async fn time_to_live(context: &Context<'_>) -> Result {
    let spec = crate::spec().with_time_to_live(Duration::from_millis(400));
    let (short, long) = (
        context.sandbox_of(spec.clone()).await?,
        context.sandbox_of(spec).await?,
    );
    long.keep_alive(Duration::from_secs(60)).await?;
    let mut process = short.exec(Command::new(["sleep", "60"])).await?;
    let started = Instant::now();
    let end = process.next_event().await?;
    let expect = Some(ProcessEvent::Exit(Exit::Killed(KillReason::Destroyed)));
    ensure!(end == expect, "{end:?}");
    ensure!(
        started.elapsed() < Duration::from_secs(3),
        "it lived for {:?}",
        started.elapsed()
    );
    ensure!(
        sh(&*long, "echo on").await?.text() == "on",
        "the one kept alive is gone"
    );
    finish(long).await
}

async fn suspend(context: &Context<'_>) -> Result {
    context.need(context.capabilities.persistence.suspend, "suspending")?;
    let sandbox = context.sandbox().await?;
    let script = "while :; do echo x >> ticks; sleep 0.01; done";
    let process = sandbox.exec(Command::new(["sh", "-c", script])).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    sandbox.suspend().await?;
    // The sandbox's own side cannot answer while it stands still, so it is judged by its clock.
    let stood = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    sandbox.resume().await?;
    let before = stood.elapsed();
    let count = || async { Ok::<_, crate::case::Stop>(sandbox.get("ticks", 1 << 20).await?.len()) };
    let first = count().await?;
    ensure!(
        first > 0 && first < 120,
        "{first} bytes of ticks after {before:?}"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure!(count().await? > first, "it does not go on");
    drop(process);
    finish(sandbox).await
}

async fn workspaces(context: &Context<'_>) -> Result {
    context.need(
        context.capabilities.persistence.workspaces,
        "named workspaces",
    )?;
    let unique = format!("conformance-{}", std::process::id());
    let name =
        WorkspaceName::parse(&unique).map_err(|e| crate::case::Stop::Failed(e.to_string()))?;
    let spec = crate::spec().with_workspace(Workspace::Named(name));
    let first = context.sandbox_of(spec.clone()).await?;
    first.put("kept", Bytes::from_static(b"yes"), false).await?;
    sh(&*first, "mkdir -p d; echo x > d/y; chmod 600 d/y").await?;
    first.destroy().await?;
    let second = context.sandbox_of(spec).await?;
    ensure!(second.get("kept", 10).await? == "yes", "not kept");
    let got = sh(&*second, "cat d/y && rm -r kept d && touch again && ls -A").await?;
    ensure!(got.text() == "x\nagain", "{got:?}");
    let plain = context.sandbox().await?;
    ensure!(
        sh(&*plain, "ls -A").await?.text().is_empty(),
        "an ephemeral workspace is not empty"
    );
    plain.destroy().await?;
    finish(second).await
}

async fn refused(context: &Context<'_>) -> Result {
    let mount = crate::spec().with_mount(Mount::read_only("/", "/everything"));
    let got = context.executor.create(mount).await.map(drop);
    ensure!(got.is_err(), "mounting the host's root was accepted");
    use mcp_sandbox_executor::NetworkKind;
    if !context.capabilities.network.contains(&NetworkKind::Open) {
        let open = crate::spec().with_network(Network::Host);
        let got = context.executor.create(open).await.map(drop);
        ensure!(
            got.is_err(),
            "the host's network was given though it is not a capability"
        );
    }
    let mut image = crate::spec();
    image.image = Some("no-such-image".to_owned());
    ensure!(
        context.executor.create(image).await.is_err(),
        "an unknown image was accepted"
    );
    Ok(None)
}

async fn layers(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    for layer in &sandbox.info().layers {
        use mcp_sandbox_executor::LayerState;
        let explained = layer.state == LayerState::InForce || !layer.exposes.is_empty();
        ensure!(!layer.name.is_empty() && explained, "{layer:?}");
    }
    finish(sandbox).await
}

async fn nothing_left(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let before = host.holdings().ok_or(crate::case::Stop::NotObservable)?;
    for _ in 0..20 {
        let sandbox = context.sandbox().await?;
        let script =
            "setsid sh -c 'sleep 721 & sleep 722' & (sleep 723 &) ; mkdir -p x; echo y > x/y";
        sh(&*sandbox, script).await?;
        let during = host.holdings().unwrap_or_default();
        ensure!(
            during.len() > before.len(),
            "the host view sees nothing of a live sandbox"
        );
        sandbox.destroy().await?;
        let after = host.holdings().unwrap_or_default();
        ensure!(after == before, "left: {after:?}, before: {before:?}");
    }
    ensure!(
        host.runs("sleep\u{0}72") != Some(true),
        "a process survived"
    );
    Ok(None)
}
