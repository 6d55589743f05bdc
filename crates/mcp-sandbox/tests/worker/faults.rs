//! What the platform does, and what goes wrong on the way.

use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::json;

use crate::platform::{ENVIRONMENT, Platform, text_of};
use crate::program::{Program, bare, possible, workdir};

fn quick() -> serde_json::Value {
    json!({"command": "echo ok"})
}

fn slow() -> serde_json::Value {
    json!({"command": "echo started > started; sleep 60; echo finished > finished"})
}

#[tokio::test(flavor = "multi_thread")]
async fn no_content_no_secret_and_unknown_kinds_of_work_are_borne() {
    if !possible("no_content_no_secret_and_unknown_kinds_of_work_are_borne").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    let health = {
        let mut inside = platform.inside();
        inside.no_content = true;
        inside.no_secret = true;
        let health = inside.enqueue_data("none", json!({"type": "healthcheck", "n": 1}));
        inside.session("sesn_1");
        health
    };
    let worker = Program::worker(&platform, workdir.path(), &[]);
    assert_eq!(
        platform.call("sesn_1", "bash", quick()).await,
        ("ok".to_owned(), false)
    );
    assert_eq!(platform.inside().item_state(&health), "stopped");
    let (code, log) = worker.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(platform.inside().is_over("sesn_1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_dropped_streams_lose_and_double_nothing() {
    if !possible("slow_and_dropped_streams_lose_and_double_nothing").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.slow_streams = true;
        inside.session("sesn_1");
        inside.fail(Method::GET, "/events/stream", 500, 1);
        inside.fail(Method::GET, "/events", 503, 1);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    for number in 0..4 {
        platform
            .until("a stream", |inside| {
                (inside.streams("sesn_1") > 0).then_some(())
            })
            .await;
        let input = json!({"command": format!("echo {number} >> effects; echo {number}")});
        let call = {
            let mut inside = platform.inside();
            if number == 2 {
                // Called while nobody listens: only the history tells.
                inside.drop_streams("sesn_1");
            }
            inside.tool_use("sesn_1", "bash", input)
        };
        assert_eq!(
            text_of(&platform.result("sesn_1", &call).await).0,
            number.to_string()
        );
        if number % 2 == 0 {
            platform.inside().drop_streams("sesn_1");
        }
    }
    let (effects, _) = platform
        .call("sesn_1", "bash", json!({"command": "cat effects"}))
        .await;
    assert_eq!(effects, "0\n1\n2\n3");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_kills_the_call_posts_nothing_and_stops_nothing() {
    if !possible("a_lost_lease_kills_the_call_posts_nothing_and_stops_nothing").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.ttl = 2;
        inside.session("sesn_1");
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let call = platform.inside().tool_use("sesn_1", "bash", slow());
    started(&platform, workdir.path()).await;
    let posts = platform.inside().count("POST", "/events");
    platform.inside().fail(Method::POST, "/heartbeat", 412, 1);
    platform
        .until("the end of the call", |inside| {
            (inside.streams("sesn_1") == 0).then_some(())
        })
        .await;
    let item = platform.inside().item_of("sesn_1");
    {
        let inside = platform.inside();
        assert_eq!(
            inside.count("POST", "/events"),
            posts,
            "something was posted"
        );
        assert_eq!(inside.count("POST", "/stop"), 0);
        assert_eq!(inside.item_state(&item), "active");
    }
    // The next holder of this host knows that it was begun.
    platform.inside().requeue(&item);
    let (text, is_error) = text_of(&platform.result("sesn_1", &call).await);
    assert!(
        is_error && text.contains("interrupted, may have run"),
        "{text}"
    );
    let (files, _) = platform
        .call("sesn_1", "bash", json!({"command": "ls"}))
        .await;
    assert_eq!(files, "started");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_sigterm_cancel_the_call_and_answer_it() {
    if !possible("stop_and_sigterm_cancel_the_call_and_answer_it").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.ttl = 2;
        inside.session("sesn_1");
        inside.session("sesn_2");
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let asked = platform.inside().tool_use("sesn_1", "bash", slow());
    let termed = platform.inside().tool_use("sesn_2", "bash", slow());
    started(&platform, workdir.path()).await;
    let item = platform.inside().item_of("sesn_1");
    platform.inside().set_item_state(&item, "stopping");
    let (text, is_error) = text_of(&platform.result("sesn_1", &asked).await);
    assert!(is_error && text.contains("cancelled"), "{text}");
    platform
        .until("the end of the item", |inside| {
            (inside.item_state(&item) == "stopped").then_some(())
        })
        .await;
    let began = Instant::now();
    let (code, log) = worker.terminate().await;
    assert!(began.elapsed() < Duration::from_secs(25));
    assert_eq!(code, Some(0), "{log}");
    let (text, is_error) = text_of(&platform.result("sesn_2", &termed).await);
    assert!(is_error && text.contains("cancelled"), "{text}");
    assert!(platform.inside().is_over("sesn_2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_kills_the_call_and_keeps_the_session() {
    if !possible("an_interrupt_kills_the_call_and_keeps_the_session").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let call = platform.inside().tool_use("sesn_1", "bash", slow());
    started(&platform, workdir.path()).await;
    platform
        .inside()
        .event("sesn_1", json!({"type": "user.interrupt"}));
    platform.inside().end_turn("sesn_1");
    let (files, _) = platform
        .call("sesn_1", "bash", json!({"command": "ls"}))
        .await;
    assert!(files.ends_with("started"), "{files}");
    assert_eq!(platform.inside().results("sesn_1", &call).len(), 0);
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_item_token_falls_back_to_the_environment_key() {
    if !possible("an_expired_item_token_falls_back_to_the_environment_key").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    platform.call("sesn_1", "bash", quick()).await;
    platform.inside().fail(Method::POST, "/events", 401, 1);
    assert_eq!(platform.call("sesn_1", "bash", quick()).await.0, "ok");
    let last = platform
        .inside()
        .requests
        .iter()
        .rfind(|line| line.contains("POST") && line.contains("/events"))
        .cloned();
    assert!(last.unwrap().ends_with("canary"), "the environment key");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_refused_for_good_ends_an_item_that_still_waits_for_it() {
    if !possible("a_result_refused_for_good_ends_an_item_that_still_waits_for_it").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.session("sesn_1");
        inside.fail(Method::POST, "/events", 400, 1);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let call =
        platform
            .inside()
            .tool_use("sesn_1", "bash", json!({"command": "echo x >> effects"}));
    platform
        .until("the end of the item", |inside| {
            inside.is_over("sesn_1").then_some(())
        })
        .await;
    // Whoever has it next answers, and runs nothing again.
    platform.inside().enqueue("sesn_1");
    let (text, is_error) = text_of(&platform.result("sesn_1", &call).await);
    assert!(is_error && text.contains("refused"), "{text}");
    let (effects, _) = platform
        .call("sesn_1", "bash", json!({"command": "cat effects"}))
        .await;
    assert_eq!(effects, "x");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmations_are_awaited_and_others_tools_are_left_alone() {
    if !possible("confirmations_are_awaited_and_others_tools_are_left_alone").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let (asks, denied, search) = {
        let mut inside = platform.inside();
        let asks = inside.tool_use_with("sesn_1", "bash", quick(), "ask");
        let denied = inside.tool_use_with("sesn_1", "bash", quick(), "deny");
        let search = inside.tool_use("sesn_1", "web_search", json!({"query": "x"}));
        (asks, denied, search)
    };
    platform.call("sesn_1", "bash", quick()).await;
    assert!(platform.inside().result("sesn_1", &asks).is_none());
    let said = json!({"type": "user.tool_confirmation", "tool_use_id": asks, "result": "allow"});
    platform.inside().event("sesn_1", said);
    platform.result("sesn_1", &asks).await;
    for call in [denied, search] {
        assert!(platform.inside().result("sesn_1", &call).is_none());
    }
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_memory_stores_is_refused_and_told_why() {
    if !possible("a_session_with_memory_stores_is_refused_and_told_why").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.session("sesn_1");
        let store = json!([{"type": "memory_store", "memory_store_id": "memstore_1", "access": "read_write"}]);
        inside.with_resources("sesn_1", store);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let (text, is_error) = platform.call("sesn_1", "bash", quick()).await;
    assert!(is_error && text.contains("memory store"), "{text}");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_item_and_a_queue_out_of_reach_are_borne() {
    if !possible("a_redelivered_item_and_a_queue_out_of_reach_are_borne").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    let item = {
        let mut inside = platform.inside();
        inside.fail(Method::GET, "/poll", 529, 1);
        inside.fail(Method::POST, "/ack", 500, 3);
        inside.session("sesn_1");
        inside.item_of("sesn_1")
    };
    let worker = Program::worker(&platform, workdir.path(), &[]);
    platform
        .until("the failed ack", |inside| {
            (inside.count("POST", "/ack") > 0).then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    platform.inside().heal();
    platform.inside().requeue(&item);
    assert_eq!(platform.call("sesn_1", "bash", quick()).await.0, "ok");
    // What is no answer of a queue is borne too, once the queue has answered.
    platform.inside().fail(Method::GET, "/poll", 200, 1);
    platform
        .until("the garbled poll", |inside| {
            inside.faults_are_over().then_some(())
        })
        .await;
    platform.inside().session("sesn_2");
    assert_eq!(platform.call("sesn_2", "bash", quick()).await.0, "ok");
    let (code, log) = worker.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_address_in_a_secret_is_not_followed() {
    if !possible("a_foreign_address_in_a_secret_is_not_followed").await {
        return;
    }
    let (platform, other, workdir) = (Platform::start().await, Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.api_base_url = Some(other.url());
        inside.session("sesn_1");
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    platform
        .until("the end of the item", |inside| {
            inside.is_over("sesn_1").then_some(())
        })
        .await;
    let (_, log) = worker.terminate().await;
    assert!(log.contains("secret names"), "{log}");
    assert_eq!(other.inside().requests, Vec::<String>::new());
    assert_eq!(platform.inside().count("GET", "/sesn_1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_and_plain_http_end_the_worker_with_the_reason() {
    if !possible("a_refused_key_and_plain_http_end_the_worker_with_the_reason").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    let with_key = |key: &str, url: &str| {
        let mut command = bare();
        command
            .arg("worker")
            .env("ANTHROPIC_ENVIRONMENT_ID", ENVIRONMENT);
        command
            .env("ANTHROPIC_ENVIRONMENT_KEY", key)
            .env("ANTHROPIC_BASE_URL", url);
        Program::spawn(command, workdir.path())
    };
    let (code, log) = with_key("sk-ant-oat01-revoked-secret", &platform.url())
        .end()
        .await;
    assert_eq!(code, Some(3), "{log}");
    assert!(!log.contains("revoked-secret"), "{log}");
    let (code, log) = with_key("sk-ant-api03-secret", &platform.url()).end().await;
    assert_eq!(code, Some(2), "{log}");
    assert!(
        log.contains("environment key") && !log.contains("secret"),
        "{log}"
    );
    let (code, log) = with_key("sk-ant-oat01-x", "http://192.0.2.1:80")
        .end()
        .await;
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("plain HTTP"), "{log}");
}

/// Waits until a slow call has made its first file. The workspace is the worker's own: only root sees it from here.
pub(crate) async fn started(platform: &Platform, workdir: &std::path::Path) {
    let workspaces = workdir.join("workspaces");
    platform
        .until("the start of the call", |_| {
            let folders = std::fs::read_dir(&workspaces).ok()?.flatten();
            let all = folders
                .map(|folder| folder.path().join("started").exists())
                .collect::<Vec<_>>();
            (!all.is_empty() && all.iter().all(|started| *started)).then_some(())
        })
        .await;
}
