//! A server that is killed at any instant has kept whatever it answered.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::common::{OPERATOR, World, bash, message, result, text};

/// What the child is told by, and what it does then instead of being a test.
const FILE: &str = "SESSIONS_OF_A_SERVER_TO_BE_KILLED";

const LEASE: SignedDuration = SignedDuration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sessions.db");
    let mut answered = Vec::new();
    for lines in [5, 20, 50] {
        answered.extend(killed_after(&file, lines));
    }
    let mut world = World::at(&file, |config| config.with_lease(LEASE)).await;
    let mut sessions: HashMap<String, Vec<Value>> = HashMap::new();
    for line in &answered {
        let said: Vec<&str> = line.split(' ').collect();
        match said[..] {
            ["environment", environment, key] => {
                // The newest one; sessions of the others are ended by their user, below.
                (world.environment, world.key) = (environment.to_owned(), key.to_owned());
            }
            ["event", session, event] => {
                if !sessions.contains_key(session) {
                    sessions.insert(session.to_owned(), world.events(session).await);
                }
                let kept = sessions[session].iter().any(|kept| kept["id"] == event);
                assert!(kept, "{event} of {session} was answered and is lost");
            }
            _ => panic!("{line}"),
        }
    }
    assert!(sessions.len() > 3, "too little happened: {answered:?}");
    for session in sessions.keys() {
        end(&world, session).await;
    }
}

/// Ends a session: each of its calls has one result, wherever it was when the server died.
async fn end(world: &World, session: &str) {
    loop {
        let settled = |last: &Value| last["type"] == "session.status_idle";
        let last = world.until(session, settled).await;
        let Some(calls) = last["stop_reason"]["event_ids"].as_array() else {
            break;
        };
        let call = calls[0].as_str().expect("an id");
        let sent = world.send(session, OPERATOR, result(call, "ended")).await;
        assert_eq!(sent.status, 200, "{}", sent.body);
        let id = text(&sent.body["data"][0], "id");
        world
            .until(session, |last| last["id"] != id && settled(last))
            .await;
    }
    let events = world.events(session).await;
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(of("agent.tool_use"), of("user.tool_result"));
    let shown = world.get(&format!("/v1/sessions/{session}")).await.body;
    assert_eq!(shown["status"], "idle", "{shown}");
}

/// What a server answered before it was killed.
fn killed_after(file: &Path, lines: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("a program"))
        .args([
            "--exact",
            "killed::the_server_that_is_killed",
            "--nocapture",
        ])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut said = Vec::new();
    for line in output.lines() {
        let line = line.expect("a line");
        // The harness says where it is, on the same line as the first answer.
        if let Some(at) = line.find("answered ") {
            said.push(line[at + "answered ".len()..].to_owned());
        }
        if said.len() == lines {
            child.kill().expect("it is killed");
        }
    }
    child.wait().expect("it ended");
    assert!(said.len() >= lines, "it ended by itself: {said:?}");
    said
}

/// The child: applications and a worker, until it is killed. As a test of its own it has
/// nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_is_killed() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    let mut world = World::at(Path::new(&file), |config| config.with_lease(LEASE)).await;
    (world.environment, world.key) = world.environment("self_hosted").await;
    println!("answered environment {} {}", world.environment, world.key);
    let say = |session: &str, sent: &Value| {
        println!("answered event {session} {}", text(&sent["data"][0], "id"));
    };
    let applications = async {
        loop {
            let session = world.session().await;
            let script = message(&json!([bash("a"), bash("b")]));
            let sent = world.send(&session, OPERATOR, script).await;
            say(&session, &sent.body);
        }
    };
    let worker = async {
        loop {
            let held = world.held().await;
            for _ in 0..2 {
                let calls = world.calls(&held.session).await;
                let sent = world
                    .send(&held.session, &held.token, result(&calls[0], "x"))
                    .await;
                say(&held.session, &sent.body);
            }
            world
                .work(&held, "stop", &held.token, json!({"force": true}))
                .await;
        }
    };
    let forever = async { tokio::join!(applications, worker) };
    let _ = tokio::time::timeout(Duration::from_secs(60), forever).await;
}
