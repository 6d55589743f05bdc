use proptest::prelude::*;

use super::*;

fn find(body: &[u8], limit: usize, size: usize) -> Option<String> {
    let mut finder = RequestIdFinder::new(limit);
    for chunk in body.chunks(size) {
        finder.feed(chunk);
    }
    finder.id().map(ToString::to_string)
}

#[track_caller]
fn check(body: &str, expect: Option<&str>) {
    for size in [1, 3, body.len().max(1)] {
        assert_eq!(
            find(body.as_bytes(), 4096, size).as_deref(),
            expect,
            "{body}"
        );
    }
}

#[test]
fn the_id_is_found_wherever_it_stands() {
    check(r#"{"jsonrpc":"2.0","id":7,"method":"m"}"#, Some("7"));
    check(r#" { "id" : "a\"b" , "x":1}"#, Some(r#""a\"b""#));
    check(
        r#"{"params":{"id":1,"a":["}",{"id":2}],"s":"\\\"id\":3"},"id":4}"#,
        Some("4"),
    );
    check(
        r#"{"a":true,"b":null,"c":-1.5e3,"d":[],"e":{},"f":"", "id":18446744073709551616}"#,
        Some("18446744073709551616"),
    );
    check(r#"{"\u0069d":5}"#, Some("5"));
    check("{\"id\":6\n}", Some("6"));
}

#[test]
fn what_is_no_id_is_not_repeated() {
    check("", None);
    check("[]", None);
    check(r#"[{"id":1}]"#, None);
    check("{}", None);
    check(r#"{"method":"notifications/x"}"#, None);
    check(r#"{"id":null}"#, None);
    check(r#"{"id":{"id":1}}"#, None);
    check(r#"{"id":tru}"#, None);
    check(r#"{"id":01}"#, None);
    check(r#"{"id":"\q"}"#, None);
    check(r#"{"id":1"#, None);
    check(r#"{"xid":1,"id2":2}"#, None);
    check(r#"{"id" 1}"#, None);
    check("{\"id\":\"\u{1}\"}", None);
    assert_eq!(find(b"{\"id\":\"\xff\"}", 100, 100), None);
}

#[test]
fn bounds() {
    let far = format!(r#"{{"params":"{}","id":1}}"#, "x".repeat(5000));
    check(&far, None);
    assert_eq!(find(far.as_bytes(), 6000, 100).as_deref(), Some("1"));
    let longest = format!("\"{}\"", "x".repeat(MAX_ID_BYTES - 2));
    check(&format!(r#"{{"id":{longest}}}"#), Some(&longest));
    check(
        &format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ID_BYTES - 1)),
        None,
    );
    check(
        &format!(r#"{{"id":{}}}"#, "1".repeat(MAX_ID_BYTES + 1)),
        None,
    );
    check(
        &format!(r#"{{"{}":0,"id":1}}"#, "k".repeat(1000)),
        Some("1"),
    );
}

#[test]
fn only_checked_tokens_are_ids() {
    for good in ["1", "-1", "1.0", "\"\"", "\"ü\""] {
        assert_eq!(RequestId::parse(good).unwrap().as_json(), good);
    }
    for bad in [
        "",
        "1 ",
        " 1",
        "null",
        "{}",
        "\"a",
        "\"a\",\"b\"",
        "1,2",
        "\"\n\"",
    ] {
        assert!(RequestId::parse(bad).is_none(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_are_judged_alike(bytes: Vec<u8>, size in 1_usize..9) {
        prop_assert_eq!(find(&bytes, 64, size), find(&bytes, 64, bytes.len().max(1)));
    }

    #[test]
    fn it_agrees_with_a_whole_parser(before in proptest::collection::btree_map("[a-z\"\\\\{},]{0,4}", ".{0,12}", 0..4), id: i64, size in 1_usize..9) {
        let mut object = serde_json::Map::new();
        for (key, value) in before {
            object.insert(key, serde_json::json!([{"id": value}]));
        }
        object.insert("id".into(), id.into());
        let body = serde_json::to_vec(&object).unwrap();
        prop_assert_eq!(find(&body, 100_000, size), Some(id.to_string()));
    }
}
