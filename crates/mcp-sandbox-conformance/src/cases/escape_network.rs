//! Escapes by the network and by sockets.

use super::commands::finish;
use crate::case::{Case, Context, Result, Stop, cases, ensure};
use crate::probe::{attempt, attempt_in, control};

pub(crate) const CASES: &[Case] = cases![true;
    "N01" "the host's loopback and foreign addresses are out of reach, at once" network;
    "N03" "sockets of the host cannot be reached by name or path" unix_sockets;
    "N05" "no socket but unix, internet and routing ones can be made" families;
];

async fn network(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let port = host.port().ok_or(Stop::NotObservable)?.to_string();
    let sandbox = context.sandbox().await?;
    let before = host.reached();
    let got = attempt_in(&*sandbox, "network", &[&port]).await?;
    ensure!(
        host.reached() == before,
        "the host's listener was reached: {}",
        got.text()
    );
    ensure!(
        got.text().starts_with("held"),
        "{} {}",
        got.text(),
        got.errors()
    );
    finish(sandbox).await?;
    let shown = control(context, "network", &[&port], |said| {
        said.starts_with("open")
    });
    ensure!(
        host.reached() > before || shown.is_some(),
        "the control did not reach the listener"
    );
    Ok(shown)
}

async fn unix_sockets(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let (name, path) = host.sockets().ok_or(Stop::NotObservable)?;
    let name = format!("@{name}");
    let sandbox = context.sandbox().await?;
    let before = host.reached();
    let inside = format!("/proc/1/root{path}");
    let known = [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/dbus/system_bus_socket",
        "/tmp/.X11-unix/X0",
    ];
    let mut addresses = vec![name.as_str(), &path, &inside];
    addresses.extend(known);
    let got = attempt_in(&*sandbox, "unix", &addresses).await?;
    ensure!(
        host.reached() == before,
        "a socket of the host was reached: {}",
        got.text()
    );
    ensure!(got.text().starts_with("held"), "{}", got.text());
    finish(sandbox).await?;
    Ok(control(context, "unix", &[&name, &path], |said| {
        said.starts_with("open")
    }))
}

async fn families(context: &Context<'_>) -> Result {
    attempt(context, "families", &[]).await
}
