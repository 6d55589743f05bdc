//! `session`, as an administrator types it.

use managed_agents_client::api::{
    ContentBlock, EventBody, EventFilter, EventType, HeartbeatQuery, PollQuery, StopWork,
    UserToolResult, WorkData,
};
use managed_agents_client::{Client, ClientConfig};

use crate::cloud::{Folder, errors, text};

/// A worker of one session: answers each bash call, without running it.
async fn worker(address: String, environment: String, key: String, calls: usize) {
    let config = ClientConfig::bearer(address, key.into());
    let client = Client::new(config).expect("a client");
    let queue = client.work(&environment);
    let query = PollQuery {
        block_ms: Some(PollQuery::BLOCK_MS_MAX),
        ..PollQuery::default()
    };
    let work = loop {
        if let Some(work) = queue
            .poll(&query, Some("test"))
            .await
            .expect("a queue")
            .work
        {
            break work;
        }
    };
    queue.ack(&work.id).await.expect("taken");
    let first = HeartbeatQuery::first();
    queue.heartbeat(&work.id, &first).await.expect("a lease");
    let WorkData::Session(session) = &work.data else {
        panic!("{work:?}");
    };
    let events = client.events(&session.id);
    let mut follow = events.follow();
    let mut answered = 0;
    while answered < calls {
        let event = follow.next().await.expect("an event").expect("no end");
        if event.kind() != &EventType::AgentToolUse {
            continue;
        }
        answered += 1;
        let result = EventBody::UserToolResult(UserToolResult {
            tool_use_id: event.id().to_owned(),
            content: vec![ContentBlock::text(format!("answer {answered}\u{1b}[2J"))],
            is_error: Some(answered == 2),
        });
        events.send(&[result]).await.expect("a taken result");
    }
    queue
        .stop(&work.id, &StopWork::forced())
        .await
        .expect("stopped");
    let all = events.page(&EventFilter::default()).await.expect("a page");
    assert!(all.data.len() > 3);
}

#[test]
fn a_session_shows_its_calls_or_why_nothing_goes_on() {
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let environment = folder.json(&["environment", "create", "rack"]);
    let id = environment["id"].as_str().expect("an id").to_owned();
    let late = folder.run(&["session", "run", "true", "--wait", "5"]);
    assert_eq!(late.status.code(), Some(4), "{}", text(&late));
    let why = errors(&late);
    assert!(why.contains("tool calls wait for a worker"), "{why}");
    assert!(why.contains("no worker asked for work"), "{why}");
    let (_, session) = why.split_once("session show ").expect("a next step");
    let session = session.trim().to_owned();
    let shown = text(&folder.run(&["session", "show", &session]));
    assert!(shown.contains("\n$ true\n"), "{shown}");
    assert!(
        shown.contains("Nothing goes on: tool calls wait"),
        "{shown}"
    );

    let made = folder.json(&["environment-key", "create", "test"]);
    let key = made["key"].as_str().expect("a key").to_owned();
    let address = cloud.address("api");
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        // The first session's call, then those of the second message.
        let serving = worker(address, id, key, 3);
        let long = std::time::Duration::from_secs(60);
        let served = runtime.block_on(async { tokio::time::timeout(long, serving).await });
        served.expect("three calls");
    });
    let script = folder.path().join("script.json");
    let calls =
        r#"[{"name":"bash","input":{"command":"a"}},{"name":"bash","input":{"command":"b"}}]"#;
    std::fs::write(&script, calls).expect("a file");
    let script = script.to_str().expect("a path");
    let run = folder.run(&["session", "run", "--session", &session, "--script", script]);
    serving.join().expect("a worker that is content");
    let told = text(&run);
    assert_eq!(run.status.code(), Some(1), "a call failed: {told}");
    assert!(
        told.contains("$ a\nanswer 2\u{fffd}[2J\n(failed)\n$ b\nanswer 3"),
        "{told}"
    );
    assert!(told.contains("agent:\n  Done: 2 calls."), "{told}");
    assert!(
        told.ends_with(&format!("session run --session {session} COMMAND\n")),
        "{told}"
    );
    let shown = folder.json(&["session", "show", &session]);
    assert_eq!(shown["session"]["status"], "idle");
}
