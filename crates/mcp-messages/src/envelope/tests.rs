use proptest::prelude::*;

use super::*;

/// The kind, the id and the method of a message, or the kind of error.
fn read(text: &str) -> String {
    match Message::parse(text.as_bytes()) {
        Ok(Message::Request { id, method, .. }) => format!("request {id} {method}"),
        Ok(Message::Notification { method, .. }) => format!("notification {method}"),
        Ok(Message::Response { id, result }) => format!("response {id} {result}"),
        Ok(Message::Error { id, error }) => format!("error {id:?} {error}"),
        Err(error) => match error {
            EnvelopeError::Utf8(_) => "utf8".into(),
            EnvelopeError::Json(_) => "json".into(),
            EnvelopeError::TooDeep => "too deep".into(),
            EnvelopeError::Version => "version".into(),
            EnvelopeError::Id => "id".into(),
            EnvelopeError::Shape => "shape".into(),
        },
    }
}

#[track_caller]
fn check(rest: &str, expect: &str) {
    assert_eq!(
        read(&format!(r#"{{"jsonrpc":"2.0",{rest}}}"#)),
        expect,
        "{rest}"
    );
}

#[test]
fn the_four_kinds() {
    check(r#""id":1,"method":"ping""#, "request 1 ping");
    check(r#""method":"ping""#, "notification ping");
    check(
        r#""id":1,"result":{ "a" : 1.0 }"#,
        r#"response 1 { "a" : 1.0 }"#,
    );
    check(r#""id":1,"result":null"#, "response 1 null");
    check(r#""id":1,"error":{}"#, "error Some(1) {}");
    check(r#""id":null,"error":{}"#, "error None {}");
    check(r#""error":{}"#, "error None {}");
}

#[test]
fn ids_stay_as_they_were_written() {
    for id in [
        "18446744073709551615",
        "1.0",
        "-1",
        "1e2",
        r#""""#,
        r#""\u0061""#,
        r#""7""#,
    ] {
        check(
            &format!(r#""id":{id},"method":"m""#),
            &format!("request {id} m"),
        );
    }
    for id in ["null", "true", "[]", "{}"] {
        check(&format!(r#""id":{id},"method":"m""#), "id");
        check(&format!(r#""id":{id},"result":1"#), "id");
    }
    check(r#""result":1"#, "id");
}

#[test]
fn legal_but_unusual_messages_pass() {
    check(
        r#""id":1,"method":"m","params":[1,2],"vendor":{"x":1}"#,
        "request 1 m",
    );
    check(
        r#""id":1,"method":"tools/\u0063all""#,
        "request 1 tools/call",
    );
    check(r#""\u0069d":1,"method":"m""#, "request 1 m");
    check(
        r#""id":1,"method":"m","params":{"text":"\ud800","big":1e400}"#,
        "request 1 m",
    );
    assert_eq!(
        read(" \r\n{ \"method\" : \"m\" , \"jsonrpc\" : \"2.0\" }\n"),
        "notification m"
    );
}

#[test]
fn a_key_of_the_envelope_that_occurs_twice_is_refused() {
    for twice in [
        r#""id":1,"id":1,"method":"m""#,
        r#""id":1,"method":"a","method":"b""#,
        r#""id":1,"method":"a","meth\u006fd":"b""#,
        r#""id":1,"method":"m","params":{},"params":{}"#,
        r#""id":1,"result":1,"result":2"#,
        r#""jsonrpc":"2.0","method":"m""#,
    ] {
        check(twice, "json");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    check(r#""id":1,"method":"m","result":1"#, "shape");
    check(r#""id":1,"result":1,"error":{}"#, "shape");
    check(r#""id":1"#, "shape");
    check(r#""id":1,"method":3"#, "shape");
    check(r#""id":1,"method":null"#, "shape");
    check(r#""id":1,"method":"\ud800""#, "shape");
    for (text, expect) in [
        (r#"{"id":1,"method":"m"}"#, "version"),
        (r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, "version"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, "version"),
        ("", "shape"),
        ("[]", "shape"),
        (r#"["2.0",1,"m"]"#, "shape"),
        ("3", "shape"),
        ("{", "json"),
        (r#"{"jsonrpc":"2.0","method":"m"} x"#, "json"),
        (r#"{"jsonrpc":"2.0","method":"m""#, "json"),
    ] {
        assert_eq!(read(text), expect, "{text}");
    }
    assert!(matches!(
        Message::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}"),
        Err(EnvelopeError::Utf8(_))
    ));
}

#[test]
fn batches() {
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#;
    let two = r#"{"jsonrpc":"2.0","method":"b"}"#;
    let text = format!(" [{one}, {two}]");
    let body = Body::parse(text.as_bytes()).unwrap();
    let methods: Vec<_> = body
        .messages()
        .iter()
        .map(|message| message.method().unwrap())
        .collect();
    assert_eq!(methods, ["a", "b"]);
    assert!(matches!(Body::parse(one.as_bytes()), Ok(Body::Single(_))));
    assert!(matches!(Body::parse(b"[]"), Err(EnvelopeError::Shape)));
    assert!(matches!(
        Body::parse(format!("[[{one}]]").as_bytes()),
        Err(EnvelopeError::Shape)
    ));
}

#[test]
fn depth_is_limited_without_recursion() {
    let nested = |depth: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"m","params":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert_eq!(read(&nested(MAX_DEPTH - 1)), "notification m");
    assert_eq!(read(&nested(MAX_DEPTH)), "too deep");
    assert_eq!(read(&nested(1_000_000)), "too deep");
    let wide = format!(
        r#"{{"jsonrpc":"2.0","method":"m","params":[{}1]}}"#,
        "[],".repeat(1000)
    );
    assert_eq!(read(&wide), "notification m");
    let quoted = format!(
        r#"{{"jsonrpc":"2.0","method":"m","params":["\"{}\\"]}}"#,
        "[{".repeat(1000)
    );
    assert_eq!(read(&quoted), "notification m");
}

/// Depth as a recursive reader would count it.
fn depth_of(value: &serde_json::Value) -> usize {
    if let Some(items) = value.as_array() {
        return 1 + items.iter().map(depth_of).max().unwrap_or(0);
    }
    let deepest =
        |fields: &serde_json::Map<_, _>| 1 + fields.values().map(depth_of).max().unwrap_or(0);
    value.as_object().map_or(0, deepest)
}

/// The official examples, where they are at hand: `MCP_SCHEMA_DIR` names a folder with `2026-07-28/examples`.
#[test]
fn official_examples() {
    let Some(folder) = std::env::var_os("MCP_SCHEMA_DIR") else {
        println!("MCP_SCHEMA_DIR is not set: the official examples were not read");
        return;
    };
    let mut messages = 0;
    for kind in
        std::fs::read_dir(std::path::Path::new(&folder).join("2026-07-28/examples")).unwrap()
    {
        for example in std::fs::read_dir(kind.unwrap().path()).unwrap() {
            let bytes = std::fs::read(example.unwrap().path()).unwrap();
            if !bytes.windows(9).any(|part| part == b"\"jsonrpc\"") {
                continue;
            }
            let message = Message::parse(&bytes).unwrap();
            message.peek().unwrap();
            messages += 1;
        }
    }
    assert!(messages >= 32, "{messages}");
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
        let _ = Body::parse(&bytes);
    }

    #[test]
    fn perturbed_messages_are_judged_without_panic(at in 0_usize..120, with: u8, cut in 0_usize..120) {
        let mut bytes = br#"[{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","_meta":{"progressToken":[1,{}]}}}]"#.to_vec();
        let place = at % bytes.len();
        bytes[place] = with;
        if let Ok(body) = Body::parse(&bytes) {
            for message in body.messages() {
                let _ = message.peek();
            }
        }
        bytes.truncate(cut);
        let _ = Body::parse(&bytes);
    }

    #[test]
    fn depth_is_counted_as_a_recursive_reader_counts(
        texts in proptest::collection::vec("[\\\\\"\\[{}\\]a]{0,6}", 8), opening: u64, limit in 0_usize..6,
    ) {
        let mut value = serde_json::json!([]);
        for (at, text) in texts.iter().enumerate() {
            value = match (opening >> (2 * at)) & 3 {
                0 => serde_json::json!([text, value]),
                1 => serde_json::json!({text: value, "x": text}),
                2 => serde_json::json!([text]),
                _ => serde_json::json!({"a": [[]], text: value}),
            };
        }
        let text = value.to_string();
        prop_assert_eq!(is_deeper_than(&text, limit), depth_of(&value) > limit);
    }

    #[test]
    fn serde_json_agrees_on_what_is_found(id: i64, method in "[a-z/\"\\\\\u{e9}]{0,12}", text in ".{0,40}") {
        let value = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": text}});
        let bytes = serde_json::to_vec(&value).unwrap();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.id().unwrap().as_json(), id.to_string());
        prop_assert_eq!(message.method().unwrap(), method);
        prop_assert_eq!(message.peek().unwrap().name.unwrap(), text);
    }
}
