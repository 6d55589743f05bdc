//! A tool never runs twice, and each call gets exactly one result, whenever the worker is killed.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;

use crate::platform::{Platform, text_of};
use crate::program::{Program, possible, workdir};

/// Appends a line per effect, so that doubles show.
fn effect(number: u32) -> serde_json::Value {
    json!({"command": format!("echo {number} >> effects; sleep 0.02; echo done {number}")})
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_each_effect_happens_at_most_once() {
    if !possible("killed_at_random_each_effect_happens_at_most_once").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let mut calls = Vec::new();
    let mut worker = Program::worker(&platform, workdir.path(), &[]);
    // A sleep of another length each time cuts at another place.
    for number in 0..12_u32 {
        let call = platform.inside().tool_use("sesn_1", "bash", effect(number));
        calls.push(call);
        tokio::time::sleep(Duration::from_millis(u64::from(number * 37 % 250))).await;
        worker.kill().await;
        let item = platform.inside().item_of("sesn_1");
        platform.inside().requeue(&item);
        worker = Program::worker(&platform, workdir.path(), &[]);
    }
    let mut ran = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        let (text, is_error) = text_of(&platform.result("sesn_1", call).await);
        if is_error {
            assert!(text.contains("interrupted, may have run"), "{text}");
        } else {
            assert_eq!(text, format!("done {number}"));
            ran.push(number);
        }
    }
    let (effects, _) = platform
        .call("sesn_1", "bash", json!({"command": "cat effects"}))
        .await;
    worker.terminate().await;
    let mut effects = effects
        .lines()
        .filter_map(|line| line.parse::<usize>().ok())
        .collect::<Vec<_>>();
    effects.sort_unstable();
    let mut once = effects.clone();
    once.dedup();
    assert_eq!(effects, once, "an effect happened twice");
    assert!(
        ran.iter().all(|number| effects.contains(number)),
        "{ran:?} {effects:?}"
    );
    for call in &calls {
        assert_eq!(platform.inside().results("sesn_1", call).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_posted_is_posted_later_and_not_made_again() {
    if !possible("a_result_that_cannot_be_posted_is_posted_later_and_not_made_again").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.session("sesn_1");
        inside.fail(Method::POST, "/events", 500, 1_000_000);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let call = platform.inside().tool_use("sesn_1", "bash", effect(1));
    platform
        .until("a try to post", |inside| {
            (inside.count("POST", "/events") > 0).then_some(())
        })
        .await;
    worker.kill().await;
    {
        let mut inside = platform.inside();
        inside.heal();
        let item = inside.item_of("sesn_1");
        inside.requeue(&item);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    assert_eq!(
        text_of(&platform.result("sesn_1", &call).await),
        ("done 1".to_owned(), false)
    );
    let (effects, _) = platform
        .call("sesn_1", "bash", json!({"command": "cat effects"}))
        .await;
    assert_eq!(effects, "1");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_learns_that_a_result_was_taken_the_files_are_not_denied() {
    if !possible("killed_before_it_learns_that_a_result_was_taken_the_files_are_not_denied").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.session("sesn_1");
        inside.fail_late(Method::POST, "/events", 1);
        inside.fail(Method::POST, "/events", 500, 1_000_000);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let call = platform.inside().tool_use("sesn_1", "bash", effect(1));
    platform.result("sesn_1", &call).await;
    worker.kill().await;
    {
        let mut inside = platform.inside();
        inside.heal();
        let item = inside.item_of("sesn_1");
        inside.requeue(&item);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let effects = platform
        .call("sesn_1", "bash", json!({"command": "cat effects"}))
        .await;
    assert_eq!(effects, ("1".to_owned(), false));
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_console_tells_another_host_which_calls_were_begun() {
    if !possible("our_console_tells_another_host_which_calls_were_begun").await {
        return;
    }
    let (platform, here, there) = (Platform::start().await, workdir(), workdir());
    {
        let mut inside = platform.inside();
        inside.immediate = true;
        inside.session("sesn_1");
    }
    let worker = Program::worker(&platform, here.path(), &[]);
    let call = platform
        .inside()
        .tool_use("sesn_1", "bash", json!({"command": "sleep 60"}));
    platform
        .until("the begin", |inside| {
            inside.begun.contains_key(&call).then_some(())
        })
        .await;
    worker.kill().await;
    let item = platform.inside().item_of("sesn_1");
    platform.inside().requeue(&item);
    let worker = Program::worker(&platform, there.path(), &[]);
    let (text, is_error) = text_of(&platform.result("sesn_1", &call).await);
    assert!(
        is_error && text.contains("interrupted, may have run"),
        "{text}"
    );
    assert!(text.starts_with("[this is a new workspace"), "{text}");
    let (text, _) = platform
        .call("sesn_1", "bash", json!({"command": "touch there; echo ok"}))
        .await;
    assert_eq!(text, "ok", "it was said once");
    // Back on the first host there is nothing of what was made meanwhile: its workspace is an earlier one, or a new one
    // where the kill came before the tool.
    worker.terminate().await;
    platform.inside().enqueue("sesn_1");
    let worker = Program::worker(&platform, here.path(), &[]);
    let (text, _) = platform
        .call("sesn_1", "bash", json!({"command": "ls; echo ok"}))
        .await;
    assert!(
        text.starts_with("[this is a") && text.ends_with(" are not here]\nok"),
        "{text}"
    );
    assert!(!text.contains("there\n"), "{text}");
    let (text, _) = platform
        .call("sesn_1", "bash", json!({"command": "echo ok"}))
        .await;
    assert_eq!(text, "ok");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_console_s_word_no_tool_starts() {
    if !possible("without_the_console_s_word_no_tool_starts").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    {
        let mut inside = platform.inside();
        inside.immediate = true;
        inside.session("sesn_1");
        inside.fail(Method::POST, "/begun", 503, 2);
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let call = platform.inside().tool_use("sesn_1", "bash", effect(1));
    let result = platform.result("sesn_1", &call).await;
    assert_eq!(text_of(&result).0, "done 1");
    let order = platform.inside().requests.clone();
    let at = |end: &str| {
        order
            .iter()
            .rposition(|line| {
                line.split(' ')
                    .nth(1)
                    .is_some_and(|path| path.ends_with(end))
            })
            .unwrap()
    };
    assert!(platform.inside().count("POST", "/begun") >= 3);
    assert!(at("/begun") < at("/events"), "{order:#?}");
    worker.terminate().await;
}
