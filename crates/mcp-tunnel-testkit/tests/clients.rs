//! Third-party clients through the HTTPS ingress, let in and refused.

use anyhow::{Context, Result};
use http::StatusCode;
use mcp_tunnel_testkit::{
    drivers::{Driver, Target},
    fixture::{FixtureOptions, FixtureServer},
    process::Process,
    recorder::{Recorded, Recorder},
    rmcp_client::http_client,
    stack::{CloudOptions, SOON, Stack},
    tools::{self, Need, free_port, have},
};
use tokio::process::Command;

async fn stack(fixture: &FixtureServer) -> Result<Stack> {
    Stack::start(CloudOptions::default(), &[&fixture.address().to_string()]).await
}

fn target(stack: &Stack, url: String) -> Target {
    let mut target = Target::new(url);
    target.ca = Some(stack.cloud.ca());
    target.headers = vec![stack.caller_header()];
    target
}

#[tokio::test]
async fn every_client_calls_through_https_with_a_caller_key() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let stack = stack(&fixture).await?;
    let target = target(&stack, stack.cloud.path_url(&stack.tunnel, "mcp"));
    for driver in Driver::STREAMABLE_HTTP {
        if !have(driver.needs()) {
            continue;
        }
        let outcome = driver.drive(&target).await?;
        assert!(outcome.ok, "{driver:?}: {outcome:?}");
        assert_eq!(outcome.text, "hello", "{driver:?}");
        assert!(outcome.tools.contains(&"add".to_owned()), "{driver:?}");
        let era = match driver {
            Driver::PythonAuto | Driver::PythonModern => "2026-07-28",
            Driver::TypeScript2Auto | Driver::RmcpModern => "2026-07-28",
            Driver::Inspector | Driver::InspectorModern => "",
            _ => "2025-11-25",
        };
        assert_eq!(outcome.era, era, "{driver:?}");
    }
    Ok(())
}

#[tokio::test]
async fn clients_call_by_host_name_too() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let stack = stack(&fixture).await?;
    let mut target = target(&stack, stack.cloud.host_url(&stack.tunnel, "mcp", "/mcp"));
    target.resolve = Some(stack.tunnel.domain.clone());
    for driver in [
        Driver::PythonAuto,
        Driver::TypeScript1,
        Driver::TypeScript2Auto,
        Driver::Inspector,
        Driver::RmcpModern,
    ] {
        if !have(driver.needs()) {
            continue;
        }
        let outcome = driver.drive(&target).await?;
        assert!(outcome.ok, "{driver:?}: {outcome:?}");
        assert_eq!(outcome.text, "hello", "{driver:?}");
    }
    Ok(())
}

#[tokio::test]
async fn progress_arrives_while_a_call_runs() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let stack = stack(&fixture).await?;
    let mut target = target(&stack, stack.cloud.path_url(&stack.tunnel, "mcp"));
    target.tool = "slow".to_owned();
    target.arguments = serde_json::json!({ "seconds": 0.5, "steps": 5 });
    for driver in [
        Driver::PythonLegacy,
        Driver::PythonModern,
        Driver::TypeScript1,
    ] {
        if !have(driver.needs()) {
            continue;
        }
        let outcome = driver.drive(&target).await?;
        assert!(outcome.ok, "{driver:?}: {outcome:?}");
        assert_eq!(outcome.progress, 5, "{driver:?}");
    }
    Ok(())
}

#[tokio::test]
async fn http_and_sse_of_2024_goes_through_a_host_name() -> Result<()> {
    if !have(&[Need::Node, Need::Python]) {
        return Ok(());
    }
    let port = free_port()?;
    let mut command = Command::new(tools::node().context("no Node.js")?);
    command
        .env("PORT", port.to_string())
        .arg(tools::modules("node").join("@modelcontextprotocol/server-everything/dist/index.js"))
        .arg("sse");
    let server = Process::start("server-everything", command)?;
    server
        .line(SOON, |line| line.contains(&port.to_string()))
        .await?;
    let stack = Stack::start(CloudOptions::default(), &[&format!("localhost:{port}")]).await?;
    let mut target = target(&stack, stack.cloud.host_url(&stack.tunnel, "mcp", "/sse"));
    target.resolve = Some(stack.tunnel.domain.clone());
    target.arguments = serde_json::json!({ "message": "hello" });
    let outcome = Driver::PythonSse.drive(&target).await?;
    assert!(outcome.ok, "{outcome:?}");
    assert!(outcome.text.contains("hello"), "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn a_refused_caller_starts_no_oauth_and_keeps_its_era() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let stack = stack(&fixture).await?;
    let wrong = format!("Bearer mck_{}", "0".repeat(52));
    for headers in [vec![], vec![("Mcp-Tunnel-Authorization".to_owned(), wrong)]] {
        for driver in Driver::STREAMABLE_HTTP {
            if have(driver.needs()) {
                refused(&stack, driver, headers.clone()).await?;
            }
        }
    }
    assert_eq!(fixture.counters().started, 0);
    Ok(())
}

async fn refused(stack: &Stack, driver: Driver, headers: Vec<(String, String)>) -> Result<()> {
    let origin = stack.cloud.ingress_origin();
    let client = http_client(Some(&stack.cloud.ca()), None, &origin)?;
    let recorder = Recorder::start(client, &origin).await?;
    let path = format!("/t/{}/mcp/mcp", stack.tunnel.id);
    let mut target = Target::new(recorder.url(&path));
    target.headers = headers;
    let outcome = driver.drive(&target).await?;
    assert!(!outcome.ok, "{driver:?}: {outcome:?}");

    let requests = recorder.recorded();
    let asked = |one: &Recorded| {
        (one.target == path)
            .then(|| one.rpc_method.clone())
            .flatten()
    };
    let asked: Vec<_> = requests.iter().map(asked).collect();
    let methods: Vec<_> = asked.iter().map(Option::as_deref).collect();
    let expected: &[Option<&str>] = match driver {
        Driver::PythonAuto => &[Some("server/discover"), Some("initialize")],
        Driver::PythonModern => &[Some("tools/list")],
        Driver::TypeScript2Auto | Driver::InspectorModern | Driver::RmcpModern => {
            &[Some("server/discover")]
        }
        _ => &[Some("initialize")],
    };
    assert_eq!(methods, expected, "{driver:?}: {requests:#?}");
    assert!(
        requests
            .iter()
            .all(|one| one.status == StatusCode::FORBIDDEN),
        "{driver:?}"
    );

    // The probing modes of the TypeScript client replace the text of any 403 by one of their own.
    let hidden = driver == Driver::InspectorModern;
    let shown = if hidden {
        "HTTP 403"
    } else {
        "caller key is missing"
    };
    assert!(
        outcome.error.contains(shown),
        "{driver:?}: {}",
        outcome.error
    );
    Ok(())
}
