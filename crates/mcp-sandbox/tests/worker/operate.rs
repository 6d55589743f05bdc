//! What an operator does with a worker.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::faults::started;
use crate::platform::{ENVIRONMENT, KEY, Platform, text_of};
use crate::program::{Program, bare, command, output, possible, workdir};

#[tokio::test(flavor = "multi_thread")]
async fn ps_logs_and_stop_reach_the_worker_of_this_user() {
    if !possible("ps_logs_and_stop_reach_the_worker_of_this_user").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    platform
        .call(
            "sesn_1",
            "bash",
            json!({"command": "echo secret-argument; exit 3"}),
        )
        .await;
    let call = platform.inside().tool_use(
        "sesn_1",
        "bash",
        json!({"command": "touch started; sleep 60"}),
    );
    started(&platform, workdir.path()).await;
    let ask = async |arguments: &[&str]| {
        let mut command = bare();
        command.args(arguments).arg("--workdir").arg(workdir.path());
        let output = output(command).await;
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, text) = ask(&["ps", "--json"]).await;
    assert_eq!(code, Some(0));
    let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&row["session"], &row["state"]),
        (&json!("sesn_1"), &json!("running"))
    );
    assert_eq!((&row["tool"], &row["calls"]), (&json!("bash"), &json!(1)));
    let (_, table) = ask(&["ps"]).await;
    assert!(
        table.starts_with("SESSION") && table.contains("running"),
        "{table}"
    );
    let (code, log) = ask(&["logs", "sesn_1"]).await;
    assert_eq!(code, Some(0));
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["tool"], &line["exit"], &line["is_error"]),
        (&json!("bash"), &json!(3), &json!(true))
    );
    assert!(
        line["ms"].is_u64() && line["bytes"].as_u64().unwrap() > 50,
        "{line}"
    );
    assert!(!log.contains("secret-argument"), "{log}");
    assert_eq!(ask(&["logs", "sesn_2"]).await.0, Some(1));
    assert_eq!(ask(&["stop", "sesn_2"]).await.0, Some(1));
    assert_eq!(ask(&["stop", "sesn_1"]).await.0, Some(0));
    let (text, is_error) = text_of(&platform.result("sesn_1", &call).await);
    assert!(is_error && text.contains("cancelled"), "{text}");
    platform
        .until("the end of the item", |inside| {
            inside.is_over("sesn_1").then_some(())
        })
        .await;
    let mut elsewhere = bare();
    elsewhere.args(["ps", "--workdir", "/nonexistent"]);
    let elsewhere = output(elsewhere).await;
    assert_eq!(elsewhere.status.code(), Some(2));
    let said = String::from_utf8(elsewhere.stderr).unwrap();
    assert!(
        said.contains("no worker has run with --workdir /nonexistent"),
        "{said}"
    );
    // Another user cannot even see the socket.
    let folder = workdir.path().join("worker");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&folder).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_tells_health_readiness_and_metrics() {
    if !possible("the_admin_listener_tells_health_readiness_and_metrics").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &["--admin", "127.0.0.1:0"]);
    let address = worker.said("admin", "address").await;
    platform
        .call("sesn_1", "bash", json!({"command": "echo x"}))
        .await;
    let get = async |path: &str| {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").await.contains("mcp_worker_sessions 1"));
    // Counted just after the result was posted.
    while !get("/metrics").await.contains("mcp_worker_calls_total{") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_the_queue_and_claims_nothing() {
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let check = async |key: &str| {
        let mut command = bare();
        command.args([
            "check",
            "--json",
            "--environment-id",
            ENVIRONMENT,
            "--base-url",
            &platform.url(),
        ]);
        command
            .env("ANTHROPIC_ENVIRONMENT_KEY", key)
            .arg("--workdir")
            .arg(workdir.path());
        let output = output(command).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let lines = report["lines"].as_array().unwrap().clone();
        lines
            .into_iter()
            .filter(|line| line["hop"] == "queue" || line["hop"] == "environment")
            .collect::<Vec<_>>()
    };
    let lines = check(KEY).await;
    let text = lines
        .iter()
        .map(|line| line["text"].as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        text.contains(ENVIRONMENT)
            && text.contains(&platform.url())
            && text.contains("1 items wait"),
        "{text}"
    );
    assert_eq!(platform.inside().count("GET", "/poll"), 0);
    platform.inside().fail(Method::GET, "/stats", 401, 1);
    let lines = check("sk-ant-oat01-other").await;
    assert!(
        lines.iter().any(|line| line["status"] == "fail"),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn run_serves_one_claimed_item_and_ends() {
    if !possible("run_serves_one_claimed_item_and_ends").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    let (item, secret) = {
        use base64::Engine as _;
        let mut inside = platform.inside();
        inside.session("sesn_1");
        let secret = json!({"sessions_token": "sk-ant-req-item1", "api_base_url": platform.url()});
        let secret = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(secret.to_string());
        let item = inside.item_of("sesn_1");
        inside.set_item_state(&item, "starting");
        (item, secret)
    };
    let mut command = command(&platform, workdir.path());
    command
        .env_remove("ANTHROPIC_ENVIRONMENT_KEY")
        .args(["run", "--max-idle", "300ms"]);
    command
        .env("ANTHROPIC_WORK_ID", &item)
        .env("ANTHROPIC_SESSION_ID", "sesn_1");
    command.env("ANTHROPIC_WORK_SECRET", secret);
    let run = Program::spawn(command, workdir.path());
    assert_eq!(
        platform
            .call("sesn_1", "bash", json!({"command": "echo ok"}))
            .await
            .0,
        "ok"
    );
    platform.inside().end_turn("sesn_1");
    let (code, log) = run.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(platform.inside().item_state(&item), "stopped");
    assert_eq!(platform.inside().count("GET", "/poll"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_share_a_folder_hand_a_session_over() {
    if !possible("two_workers_that_share_a_folder_hand_a_session_over").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let first = Program::worker(
        &platform,
        workdir.path(),
        &["--max-idle", "100ms", "--max-sessions", "1"],
    );
    platform
        .call("sesn_1", "bash", json!({"command": "touch a"}))
        .await;
    platform.inside().end_turn("sesn_1");
    platform
        .until("the end of the item", |inside| {
            inside.is_over("sesn_1").then_some(())
        })
        .await;
    // The first one is busy with another session, so that the second gets this one's next item.
    platform.inside().session("sesn_2");
    let busy = platform
        .inside()
        .tool_use("sesn_2", "bash", json!({"command": "sleep 60"}));
    platform
        .until("the claim", |inside| inside.is_waiting().then_some(()))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = Program::worker(&platform, workdir.path(), &[]);
    platform.inside().enqueue("sesn_1");
    let (files, _) = platform
        .call("sesn_1", "bash", json!({"command": "ls"}))
        .await;
    assert_eq!(files, "a");
    second.terminate().await;
    first.terminate().await;
    platform.result("sesn_2", &busy).await;
}
