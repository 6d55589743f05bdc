use super::*;
use crate::Waiting;
use crate::scene::{Scene, TOOLSET, confirmation, result, script};
use managed_agents_api::{Confirmation, UserToolConfirmation};

/// The names of a script's calls, turn by turn, or what is wrong with it.
fn read(text: &str) -> String {
    match Script::find(text) {
        Ok(script) => {
            let turns = script.turns.iter().map(|turn| {
                let names: Vec<_> = turn.iter().map(|call| call.name.as_str()).collect();
                names.join("+")
            });
            turns.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_last_block_for_json_counts() {
    let block = |said: &str, name: &str| format!("```{said}\n[{{\"name\":\"{name}\"}}]\n```\n");
    assert_eq!(
        read(&[block("json", "a"), block("json", "b")].concat()),
        "b"
    );
    assert_eq!(read(&[block("JSON x", "a"), block("", "b")].concat()), "a");
    assert_eq!(read(&[block("", "a"), block("text", "b")].concat()), "a");
    let longer = read("~~~~json\n[]\n~~~\n~~~~");
    assert!(longer.contains("trailing characters"), "{longer}");
    assert_eq!(
        read("  ```json\r\n[[{\"name\":\"a\"},{\"name\":\"b\"}],[]]\r\n  ```"),
        "a+b"
    );
    assert_eq!(
        read("```json\n[{\"name\":\"a\"}]"),
        "a",
        "to the end of the text"
    );
    assert_eq!(read("```json\n[]\n```"), "");
}

#[test]
fn what_is_wrong_is_said() {
    let fenced = |json: &str| read(&format!("```json\n{json}\n```"));
    assert!(read("do something").contains("no fenced JSON block"));
    assert!(fenced("{}").contains("is no list (invalid type"));
    assert!(fenced("[").contains("EOF while parsing"));
    assert!(fenced(r#"[{"name":"a"}, 3]"#).contains("entry 2 of the list is no call"));
    assert!(fenced(r#"[{"tool":"a"}]"#).contains("unknown field `tool`"));
    assert!(fenced(r#"[{"name":"a b"}]"#).contains("entry 1 of the list needs a name"));
    assert!(fenced(r#"[{"name":"a","input":[]}]"#).contains("an object as input"));
    let many = vec![r#"{"name":"a"}"#; 201].join(",");
    assert!(fenced(&format!("[{many}]")).contains("more than 200 calls"));
}

#[test]
fn arguments_arrive_as_they_were_written() {
    let text = r#"{"n": 12345678901234567890.10, "s":"\u0041"}"#;
    let script = Script::find(&format!(
        "```json\n[{{\"name\":\"a\",\"input\":{text}}}]\n```"
    ));
    assert_eq!(script.unwrap().turns[0][0].input.as_str(), text);
}

#[test]
fn a_message_without_a_script_is_answered_with_the_way_to_write_one() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&EventBody::user_text("hello")).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    assert!(scene.last_words().contains("```json"));
    // The answer is no script either, should somebody send it back.
    scene
        .send(&EventBody::user_text(scene.last_words()))
        .unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    assert_eq!(
        scene
            .kinds()
            .iter()
            .filter(|kind| *kind == "tool_use")
            .count(),
        0
    );
}

#[test]
fn the_closing_message_quotes_each_result() {
    let mut scene = Scene::new(
        r#"{"type":"agent_toolset_20260401","configs":[{"name":"read","permission_policy":{"type":"always_ask"}}]}"#,
    );
    scene
        .send(&script(
            r#"[[{"name":"bash"},{"name":"read"},{"name":"web_search"},{"name":"none"}]]"#,
        ))
        .unwrap();
    let calls = scene.calls();
    scene.send(&result(&calls[0], "```\nout\n")).unwrap();
    let mut denial = confirmation(&calls[1], Confirmation::Deny);
    if let EventBody::UserToolConfirmation(UserToolConfirmation { deny_message, .. }) = &mut denial
    {
        *deny_message = Some("not today".into());
    }
    scene.send(&denial).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    let words = scene.last_words();
    assert_eq!(
        words.replace("the scripted agent has none", "…"),
        "Done: 4 calls.\n\n1. bash: ok\n````text\n```\nout\n````\n\n2. read: denied\n```text\nnot today\n```\n\n\
         3. web_search: error\n```text\nweb_search runs on a server with a model; …\n```\n\n4. none: denied"
    );
}

#[test]
fn the_closing_message_stays_small() {
    let mut scene = Scene::new(TOOLSET);
    let calls = vec![r#"{"name":"bash"}"#; 20].join(",");
    scene.send(&script(&format!("[[{calls}]]"))).unwrap();
    for call in scene.calls() {
        scene.send(&result(&call, &"é`".repeat(100_000))).unwrap();
    }
    assert_eq!(scene.settle(), Waiting::Idle);
    let words = scene.last_words();
    assert!(words.len() < 70_000, "{}", words.len());
    assert!(
        words.contains("(4095 of 300000 bytes)"),
        "{}",
        &words[4000..4300]
    );
    assert!(words.contains("20. bash: ok"));
}

#[test]
fn several_messages_taken_up_together_run_one_after_the_other() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&script(r#"[{"name":"bash"}]"#)).unwrap();
    let first = scene.calls();
    scene.send(&script(r#"[{"name":"read"}]"#)).unwrap();
    scene.send(&script(r#"[{"name":"glob"}]"#)).unwrap();
    scene.send(&result(&first[0], "x")).unwrap();
    let mut names = Vec::new();
    while let Waiting::Calls(calls) = scene.settle() {
        names.push(scene.ledger.call(&calls[0]).unwrap().name.clone());
        scene.send(&result(&calls[0], "x")).unwrap();
    }
    assert_eq!(names, ["read", "glob"]);
}
