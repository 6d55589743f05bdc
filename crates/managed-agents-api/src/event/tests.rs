use super::*;
use crate::ContentBlock;

fn raw(text: &str) -> RawJson {
    RawJson::from_text(text.to_owned()).unwrap()
}

/// The events that a worker must read, as the specification spells them.
const WORKER_READS: [&str; 13] = [
    r#"{"type":"agent.tool_use","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","name":"bash","input":{"command":"ls"},"evaluated_permission":"allow","evaluation":{"type":"always_allow"},"session_thread_id":null}"#,
    r#"{"type":"agent.tool_use","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","name":"bash","input":{},"evaluated_permission":"ask","evaluation":{"type":"auto","evaluated_permission":{"type":"ask","reason_code":"r"}},"session_thread_id":null}"#,
    r#"{"type":"agent.custom_tool_use","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","name":"lookup_order","input":{},"session_thread_id":null}"#,
    r#"{"type":"user.tool_result","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","tool_use_id":"sevt_0","content":[],"is_error":false}"#,
    r#"{"type":"user.custom_tool_result","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","custom_tool_use_id":"sevt_0","content":[],"is_error":false}"#,
    r#"{"type":"user.tool_confirmation","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","tool_use_id":"sevt_0","result":"allow"}"#,
    r#"{"type":"user.interrupt","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z"}"#,
    r#"{"type":"session.status_running","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z"}"#,
    r#"{"type":"session.status_rescheduled","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z"}"#,
    r#"{"type":"session.status_idle","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","stop_reason":{"type":"requires_action","event_ids":["sevt_0"]},"stop_details":null}"#,
    r#"{"type":"session.status_terminated","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z"}"#,
    r#"{"type":"session.deleted","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z"}"#,
    r#"{"type":"session.thread_status_terminated","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z","session_thread_id":"sthr_1","agent_name":"a"}"#,
];

#[test]
fn what_a_worker_reads_survives_its_typed_view() {
    for text in WORKER_READS {
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert!(!matches!(event.kind(), EventType::Other(_)), "{text}");
        let body = event.body().unwrap();
        assert_eq!(&body.event_type(), event.kind());
        let again = Event::new(event.id(), event.processed_at(), &body).unwrap();
        assert_eq!(again.as_str(), text);
    }
}

#[test]
fn every_type_has_a_view() {
    assert_eq!(EventType::ALL.len(), 44);
    let members = r#""content":[],"tool_use_id":"t","custom_tool_use_id":"t","mcp_tool_use_id":"t","result":"deny",
        "description":"d","name":"n","mcp_server_name":"m","input":{},"from_session_thread_id":"s","to_session_thread_id":"s",
        "stop_reason":{"type":"end_turn"},"usage":{},"error":{"type":"unknown_error","message":"m","retry_status":{"type":"terminal"}},
        "session_thread_id":"s","model_request_start_id":"s","outcome_id":"o","event":{"id":"e","type":"agent.message"},
        "event_id":"e","delta":{"type":"content_delta","content":{"type":"text","text":"t"}}"#;
    for kind in EventType::ALL {
        let event =
            Event::parse(raw(&format!(r#"{{"type":"{kind}","id":"e",{members}}}"#))).unwrap();
        assert_eq!(event.kind(), kind);
        let body = event.body().unwrap();
        assert_eq!(&body.event_type(), kind);
        let again: EventBody = RawJson::of(&body).unwrap().parse().unwrap();
        assert_eq!(again, body);
    }
}

#[test]
fn an_unknown_type_is_kept_as_it_came() {
    let text = r#"{"n": 1e400, "type":"later.kind", "id":"sevt_9", "processed_at":null}"#;
    let event: Event = serde_json::from_str(text).unwrap();
    assert_eq!(event.kind(), &EventType::Other("later.kind".into()));
    assert_eq!(event.processed_at(), None);
    let EventBody::Other(unknown) = event.body().unwrap() else {
        panic!("a known type");
    };
    assert_eq!(
        (unknown.kind.as_str(), unknown.raw.as_str()),
        ("later.kind", text)
    );
    assert!(!format!("{event:?}").contains("1e400"));
}

#[test]
fn a_stamp_changes_id_and_time_alone() {
    let sent = raw(
        r#"{"x": 12345678901234567890.10, "processed_at":"1999-01-01T00:00:00Z", "type":"user.message","id":"mine", "content":[ {"type":"text","text":"a\u0041"} ]}"#,
    );
    let stored = Event::stamp(&sent, "sevt_1", None).unwrap();
    assert_eq!(
        stored.as_str(),
        r#"{"type":"user.message","id":"sevt_1","processed_at":null,"x":12345678901234567890.10,"content":[ {"type":"text","text":"a\u0041"} ]}"#
    );
    let taken_up = stored.with_processed_at(Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(taken_up.processed_at(), Some(Timestamp::UNIX_EPOCH));
    assert_eq!(
        taken_up.as_str(),
        stored.as_str().replace("null", r#""1970-01-01T00:00:00Z""#)
    );
}

#[test]
fn what_is_said_twice_or_not_at_all_is_refused() {
    for sent in [
        r#"{"type":"user.message","type":"user.interrupt"}"#,
        r#"{"type":"user.message","content":[],"content":[]}"#,
        r#"{"content":[]}"#,
        r#"{"type":1}"#,
        "[]",
        "null",
    ] {
        assert!(Event::stamp(&raw(sent), "sevt_1", None).is_err(), "{sent}");
    }
    assert!(Event::parse(raw(r#"{"id":"a","id":"b"}"#)).is_err());
    assert!(Event::parse(raw(r#"{"processed_at":"noon"}"#)).is_err());
}

#[test]
fn a_request_holds_bodies() {
    let request = SendEvents::of(&[EventBody::UserToolResult(UserToolResult {
        tool_use_id: "sevt_1".into(),
        content: vec![ContentBlock::text("done")],
        is_error: Some(false),
    })])
    .unwrap();
    assert_eq!(
        serde_json::to_string(&request).unwrap(),
        r#"{"events":[{"type":"user.tool_result","tool_use_id":"sevt_1","content":[{"type":"text","text":"done"}],"is_error":false}]}"#
    );
}
