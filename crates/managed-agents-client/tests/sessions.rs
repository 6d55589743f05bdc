//! Work, events and skills against a server that answers what a test wrote down.

use managed_agents_client::api::{
    Begun, ContentBlock, Event, EventBody, EventFilter, EventType, HeartbeatQuery, PollQuery,
    StopWork, StreamFilter, UserToolResult, WorkState, sse,
};
use managed_agents_client::{Client, ClientConfig, ClientError, Stopped};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const KEY: &str = "mce_a-secret-that-no-output-may-show";
const WORK: &str = r#"{"type":"work","id":"work_1","environment_id":"env_1","data":{"type":"healthcheck","n":1},
    "metadata":{},"state":"queued","created_at":"2026-11-24T07:00:00Z","acknowledged_at":null,"started_at":null,
    "latest_heartbeat_at":null,"stop_requested_at":null,"stopped_at":null,"secret":"c2VjcmV0"}"#;
const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

async fn client() -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = ClientConfig::bearer(format!("http://{address}"), SecretString::from(KEY));
    let client = Client::new(config.timeout(Duration::from_secs(20))).expect("a client");
    (client, listener)
}

/// Takes one connection and the head and body of its request.
async fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().await.expect("a connection");
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then_some(value)
            });
            if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                return (socket, text);
            }
        }
        let read = socket.read_buf(&mut seen).await.expect("a request");
        assert_ne!(read, 0, "the client hung up");
    }
}

/// Answers each connection with the next of `answers`; gives back the requests it saw.
async fn serve<const N: usize>(listener: &TcpListener, answers: [String; N]) -> [String; N] {
    let mut requests = [const { String::new() }; N];
    for (answer, seen) in answers.iter().zip(&mut requests) {
        let (mut socket, text) = request(listener).await;
        *seen = text;
        let sent = socket.write_all(answer.as_bytes()).await;
        sent.expect("an open connection");
    }
    requests
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn refusal(status: &str, headers: &str, error: &str) -> String {
    let body = format!(r#"{{"type":"error","error":{error},"request_id":"req_1"}}"#);
    answer(status, headers, &body)
}

fn event(id: &str) -> String {
    format!(
        "event: agent.message\ndata: {{\"type\":\"agent.message\",\"id\":\"{id}\",\"content\":[]}}\n\n"
    )
}

#[tokio::test]
async fn a_poll_takes_every_form_of_no_work() {
    let (client, listener) = client().await;
    let answers = [
        answer("200 OK", "", "null"),
        answer("200 OK", "", ""),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned(),
        answer("200 OK", "mcp-sandbox-poll: immediate\r\n", WORK),
    ];
    let query = PollQuery {
        block_ms: Some(999),
        reclaim_older_than_ms: None,
    };
    let polls = async {
        let queue = client.work("env_1");
        for _ in 0..3 {
            let poll = queue.poll(&query, Some("rack-7")).await.expect("an answer");
            assert!(poll.work.is_none() && !poll.immediate);
        }
        queue.poll(&query, None).await.expect("an answer")
    };
    let (requests, poll) = tokio::join!(serve(&listener, answers), polls);
    let first = &requests[0];
    assert!(first.starts_with("GET /v1/environments/env_1/work/poll?block_ms=999 HTTP/1.1\r\n"));
    for header in [
        format!("authorization: Bearer {KEY}\r\n"),
        "anthropic-worker-id: rack-7\r\n".to_owned(),
        "anthropic-beta: managed-agents-2026-04-01\r\n".to_owned(),
    ] {
        assert!(first.contains(&header), "{first}");
    }
    assert!(!first.contains("x-api-key") && !requests[3].contains("worker-id"));
    let work = poll.work.expect("an item");
    assert!(poll.immediate);
    assert_eq!(work.data.kind(), "healthcheck");
    assert_eq!(work.secret.expect("a secret").expose_secret(), "c2VjcmV0");
}

#[tokio::test]
async fn a_lost_lease_says_where_the_item_stands() {
    let (client, listener) = client().await;
    let beat = r#"{"type":"work_heartbeat","last_heartbeat":"2026-11-24T07:00:00.5+00:00","lease_extended":true,"state":"active","ttl_seconds":60}"#;
    let lost = r#"{"type":"invalid_request_error","message":"Heartbeat precondition failed","details":{
        "error_code":"heartbeat_precondition_failed","current_state":{"state":"queued","last_heartbeat":null,"ttl_seconds":120}}}"#;
    let answers = [
        answer("200 OK", "", beat),
        refusal("412 Precondition Failed", "x-should-retry: false\r\n", lost),
    ];
    let beats = async {
        let queue = client.work("env_1");
        let first = HeartbeatQuery::first();
        let beat = queue.heartbeat("work_1", &first).await.expect("a lease");
        let next = HeartbeatQuery::after(beat.last_heartbeat);
        queue.heartbeat("work_1", &next).await.expect_err("lost")
    };
    let (requests, lost) = tokio::join!(serve(&listener, answers), beats);
    let place = "POST /v1/environments/env_1/work/work_1/heartbeat?expected_last_heartbeat=";
    assert!(requests[0].starts_with(&format!("{place}NO_HEARTBEAT HTTP/1.1\r\n")));
    assert!(
        requests[0].contains("content-length: 0\r\n"),
        "{}",
        requests[0]
    );
    assert!(requests[1].starts_with(&format!("{place}2026-11-24T07%3A00%3A00.5%2B00%3A00 ")));
    assert!(!lost.is_passing());
    let refused = lost.refusal().expect("a refusal");
    assert_eq!(
        (refused.status, refused.code()),
        (412, Some("heartbeat_precondition_failed"))
    );
    let details = refused.details.as_ref().expect("details");
    let state = details.current_state.as_ref().expect("a state");
    assert_eq!(
        (&state.state, state.ttl_seconds),
        (&WorkState::Queued, Some(120))
    );
}

#[tokio::test]
async fn a_stop_takes_every_answer_that_means_stopped() {
    let (client, listener) = client().await;
    let conflict = r#"{"type":"conflict_error","message":"it has stopped"}"#;
    let answers = [
        answer("200 OK", "", WORK),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned(),
        refusal("409 Conflict", "x-should-retry: false\r\n", conflict),
        refusal(
            "503 Busy",
            "retry-after: 7\r\nretry-after-ms: 1500\r\n",
            conflict,
        ),
    ];
    let stops = async {
        let queue = client.work("env_1");
        let now = queue.stop("work_1", &StopWork::forced()).await;
        assert!(matches!(now, Ok(Stopped::Now(Some(_)))));
        let now = queue.stop("work_1", &StopWork::default()).await;
        assert!(matches!(now, Ok(Stopped::Now(None))));
        let before = queue.stop("work_1", &StopWork::forced()).await;
        assert!(matches!(before, Ok(Stopped::Before)));
        queue
            .stop("work_1", &StopWork::forced())
            .await
            .expect_err("busy")
    };
    let (requests, busy) = tokio::join!(serve(&listener, answers), stops);
    assert!(requests[0].ends_with("\r\n\r\n{\"force\":true}"));
    assert!(requests[1].ends_with("\r\n\r\n{}"));
    let refused = busy.refusal().expect("a refusal");
    assert_eq!(refused.retry_after, Some(Duration::from_millis(1500)));
    assert!(busy.is_passing());
}

#[tokio::test]
async fn events_are_sent_and_listed_as_text() {
    let (client, listener) = client().await;
    let stored = r#"{"type":"user.tool_result","id":"sevt_2","n": 1e400}"#;
    let later = r#"{"type":"later.kind", "id":"sevt_3"}"#;
    let answers = [
        answer("200 OK", "", &format!(r#"{{"data":[{stored}]}}"#)),
        answer(
            "200 OK",
            "",
            &format!(r#"{{"data":[{stored},{later}],"next_page":"p"}}"#),
        ),
        answer("200 OK", "", r#"{"begun_before":["sevt_1"]}"#),
    ];
    let calls = async {
        let events = client.events("sesn_1");
        let result = EventBody::UserToolResult(UserToolResult {
            tool_use_id: "sevt_1".into(),
            content: vec![ContentBlock::text("done")],
            is_error: Some(false),
        });
        let sent = events.send(&[result]).await.expect("an answer");
        assert_eq!(sent[0].as_str(), stored);
        let filter = EventFilter {
            limit: Some(1000),
            types: vec![EventType::AgentToolUse],
            ..EventFilter::default()
        };
        let page = events.page(&filter).await.expect("a page");
        assert_eq!(page.data[1].as_str(), later);
        let begun = Begun {
            tool_use_ids: vec!["sevt_1".into()],
        };
        let before = client.work("env_1").begun("work_1", &begun).await;
        assert_eq!(before.expect("an answer").begun_before, ["sevt_1"]);
    };
    let (requests, ()) = tokio::join!(serve(&listener, answers), calls);
    assert!(requests[0].ends_with(
        r#"{"events":[{"type":"user.tool_result","tool_use_id":"sevt_1","content":[{"type":"text","text":"done"}],"is_error":false}]}"#
    ));
    let list = "GET /v1/sessions/sesn_1/events?limit=1000&types%5B%5D=agent.tool_use HTTP/1.1\r\n";
    assert!(requests[1].starts_with(list), "{}", requests[1]);
}

#[tokio::test]
async fn a_stream_loses_nothing_when_a_wait_is_given_up() {
    let (client, listener) = client().await;
    let events = client.events("sesn_1");
    let opened = async {
        let (mut socket, head) = request(&listener).await;
        assert!(head.contains("accept: text/event-stream\r\n"), "{head}");
        socket.write_all(STREAM.as_bytes()).await.expect("the head");
        socket
    };
    let filter = StreamFilter::default();
    let (mut socket, stream) = tokio::join!(opened, events.stream(&filter));
    let mut stream = stream.expect("a stream");
    let text = [event("sevt_1"), sse::PING.to_owned(), event("sevt_2")].concat();
    let mut seen = Vec::new();
    for piece in text.as_bytes().chunks(7) {
        socket.write_all(piece).await.expect("a reader");
        // Whatever of it has come is read, and then the wait is given up.
        tokio::select! {
            biased;
            event = stream.next() => seen.push(event.expect("an event").expect("no end")),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(socket);
    while let Some(event) = stream.next().await.expect("a readable stream") {
        seen.push(event);
    }
    let seen: Vec<&str> = seen.iter().map(Event::id).collect();
    assert_eq!(seen, ["sevt_1", "sevt_2"]);
    assert!(matches!(stream.next().await, Ok(None)), "an end is an end");
}

/// What `text`, sent after the head of a stream, makes of `next`, until its end or second error.
async fn read(head: &str, text: String, silence: Duration) -> Vec<String> {
    let (client, listener) = client().await;
    let filter = StreamFilter::default();
    let served = async {
        let (mut socket, _) = request(&listener).await;
        socket.write_all(head.as_bytes()).await.expect("the head");
        socket.write_all(text.as_bytes()).await.ok();
        if silence < Duration::from_secs(1) {
            // Stays open until the client leaves.
            let left = socket.read(&mut [0]).await;
            assert_eq!(left.unwrap_or_default(), 0);
        }
    };
    let reading = async {
        let stream = client.events("sesn_1").stream(&filter).await;
        let mut stream = stream.expect("a stream").silence(silence);
        let mut seen = Vec::new();
        for _ in 0..4 {
            match stream.next().await {
                Ok(Some(event)) => seen.push(event.id().to_owned()),
                Ok(None) => break,
                Err(error) => seen.push(error.to_string()),
            }
        }
        seen
    };
    tokio::join!(served, reading).1
}

#[tokio::test]
async fn a_stream_says_how_it_ended() {
    let long = Duration::from_secs(20);
    let text = format!("{}data: nothing\n\n{}", event("a"), event("b"));
    let seen = read(STREAM, text, long).await;
    assert_eq!(seen, ["a", "a frame of the stream holds no event", "b"]);

    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"try later"},"request_id":"req_7"}"#;
    let text = format!("event: error\ndata: {error}\n\n");
    let seen = read(STREAM, text, long).await;
    assert_eq!(
        seen,
        ["try later (overloaded_error, status 529, request req_7)"]
    );

    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let seen = read(cut, "5\r\ndata".to_owned(), long).await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].starts_with("calling 127.0.0.1:"), "{seen:?}");

    let seen = read(STREAM, event("a"), Duration::from_millis(300)).await;
    assert_eq!(seen[0], "a");
    assert!(seen[1].starts_with("nothing came from"), "{seen:?}");
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn following_gives_each_event_once_over_lost_streams() {
    let (client, listener) = client().await;
    let page = |ids: &[&str], next: &str| {
        let events: Vec<String> = ids
            .iter()
            .map(|id| {
                let at = "2026-11-24T07:00:00Z";
                format!(
                    r#"{{"type":"agent.message","id":"{id}","processed_at":"{at}","content":[]}}"#
                )
            })
            .collect();
        let body = format!(r#"{{"data":[{}],"next_page":{next}}}"#, events.join(","));
        answer("200 OK", "", &body)
    };
    let busy = refusal("503 Busy", "", r#"{"type":"api_error","message":"busy"}"#);
    let end = "event: session.deleted\ndata: {\"type\":\"session.deleted\",\"id\":\"z\"}\n\n";
    let answers = [
        format!("{STREAM}{}", event("b")),
        page(&["a"], r#""p""#),
        page(&["b", "c"], "null"),
        busy,
        format!("{STREAM}{}{end}", event("e")),
        page(&["c", "d"], "null"),
    ];
    let following = async {
        let mut follow = client.events("sesn_1").follow();
        let mut seen = Vec::new();
        while let Some(event) = follow.next().await.expect("an event") {
            seen.push(event.id().to_owned());
        }
        seen
    };
    let (requests, seen) = tokio::join!(serve(&listener, answers), following);
    assert_eq!(seen, ["a", "b", "c", "d", "e", "z"]);
    assert!(
        requests[2].contains("/events?limit=100&page=p "),
        "{}",
        requests[2]
    );
    // What is new, and a little more: not all of it once more.
    let again = requests[5].lines().next().expect("a line");
    assert!(
        again.contains("created_at") && again.contains("06%3A59%3A30Z"),
        "{again}"
    );
}

#[tokio::test]
async fn following_ends_where_the_session_is_out_of_reach() {
    let (client, listener) = client().await;
    let gone = refusal(
        "404 Not Found",
        "",
        r#"{"type":"not_found_error","message":"none"}"#,
    );
    let mut follow = client.events("sesn_1").follow();
    let (_, refused) = tokio::join!(serve(&listener, [gone]), follow.next());
    assert_eq!(refused.expect_err("a refusal").status(), Some(404));
}

#[tokio::test]
async fn a_skill_is_read_up_to_a_bound() {
    let (client, listener) = client().await;
    let version = r#"{"type":"skill_version","id":"skver_1","skill_id":"skill_1","name":"n","description":"d","created_at":"2026-11-24T07:00:00Z"}"#;
    let answers = [
        answer("200 OK", "", version),
        answer("200 OK", "", "archive"),
        answer("200 OK", "", "archive"),
    ];
    let calls = async {
        let skills = client.skills();
        let version = skills
            .version("skill_1", "latest")
            .await
            .expect("a version");
        let content = skills.content("skill_1", &version.id).await.expect("bytes");
        assert_eq!(content.bytes(7).await.expect("room"), b"archive");
        let content = skills.content("skill_1", &version.id).await.expect("bytes");
        content.bytes(6).await.expect_err("one byte too many")
    };
    let (requests, long) = tokio::join!(serve(&listener, answers), calls);
    assert!(
        matches!(long, ClientError::TooLong { limit: 6 }),
        "{long:?}"
    );
    assert!(requests[1].starts_with("GET /v1/skills/skill_1/versions/skver_1/content HTTP/1.1"));
    assert!(!requests[1].contains("anthropic-beta"));
}

#[tokio::test]
async fn another_credential_takes_the_place_of_the_first() {
    let (client, listener) = client().await;
    let token = SecretString::from("mci_token");
    let other = client.with_bearer(&token).expect("a client");
    let stats = r#"{"type":"work_queue_stats","depth":1,"pending":0,"oldest_queued_at":null,"workers_polling":2}"#;
    let answers = [answer("200 OK", "", stats)];
    let (requests, stats) = tokio::join!(serve(&listener, answers), async {
        other.work("env_1").stats().await
    });
    assert_eq!(stats.expect("an answer").workers_polling, Some(2));
    assert!(requests[0].contains("authorization: Bearer mci_token\r\n"));
    assert!(!requests[0].contains(KEY));
    assert!(!format!("{other:?}").contains("mci_token"));
}
