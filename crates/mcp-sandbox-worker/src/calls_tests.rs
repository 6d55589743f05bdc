use proptest::prelude::*;

use super::*;

const TOOLS: &[&str] = &["bash", "read"];

fn call(id: &str, tool: &str, permission: Permission, thread: Option<&str>) -> Observation {
    Observation::Call(Call {
        id: id.to_owned(),
        tool: tool.to_owned(),
        input: Value::Null,
        permission,
        thread: thread.map(str::to_owned),
    })
}

fn bash(id: &str) -> Observation {
    call(id, "bash", Permission::Allow, None)
}

fn ask(id: &str) -> Observation {
    call(id, "bash", Permission::Ask, None)
}

fn answered(id: &str) -> Observation {
    Observation::Answered {
        call: id.to_owned(),
    }
}

fn confirmed(id: &str, allowed: bool) -> Observation {
    Observation::Confirmed {
        call: id.to_owned(),
        allowed,
    }
}

fn interrupted(thread: Option<&str>) -> Observation {
    Observation::Interrupted {
        thread: thread.map(str::to_owned),
    }
}

/// Events named by their place, except calls, whose event is the call.
fn fold(events: &[Observation]) -> Calls {
    let mut calls = Calls::new(TOOLS);
    for (place, event) in events.iter().enumerate() {
        let id = match event {
            Observation::Call(call) => call.id.clone(),
            _ => format!("e{place}"),
        };
        calls.apply(&id, event.clone());
    }
    calls
}

#[track_caller]
fn check(events: &[Observation], ready: Option<&str>, waiting: usize) {
    let calls = fold(events);
    let next = calls.next_ready().map(|call| call.id.as_str());
    assert_eq!((next, calls.waiting()), (ready, waiting), "{events:?}");
}

#[test]
fn calls_run_in_their_order_until_they_are_answered() {
    check(&[], None, 0);
    check(&[bash("a"), bash("b")], Some("a"), 2);
    check(&[bash("a"), bash("b"), answered("a")], Some("b"), 1);
    check(&[bash("a"), answered("a"), bash("a")], None, 0);
    check(&[answered("a"), bash("a")], None, 0);
}

#[test]
fn what_asks_waits_for_its_confirmation() {
    check(&[ask("a")], None, 1);
    check(&[ask("a"), bash("b")], Some("b"), 2);
    check(&[ask("a"), confirmed("a", true)], Some("a"), 1);
    check(&[ask("a"), confirmed("a", false)], None, 0);
    check(&[confirmed("a", true), ask("a")], Some("a"), 1);
    check(&[confirmed("a", false), ask("a")], None, 0);
    check(&[call("a", "bash", Permission::Deny, None)], None, 0);
}

#[test]
fn tools_of_others_are_left_to_them() {
    let search = call("w", "web_search", Permission::Allow, None);
    check(&[search.clone(), bash("a")], Some("a"), 1);
    let calls = fold(&[search, answered("w"), Observation::TurnEnded]);
    assert!(calls.is_idle() && calls.last_answered().is_none());
}

#[test]
fn a_confirmation_or_another_s_answer_is_waited_for() {
    let needs = |ids: &[&str]| Observation::NeedsAction {
        calls: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let waits = |events: &[Observation], expect: bool| {
        assert_eq!(fold(events).waits_for_others(), expect, "{events:?}");
    };
    waits(&[ask("a")], false);
    waits(&[ask("a"), needs(&["a"])], true);
    waits(&[ask("a"), bash("b"), needs(&["a", "b"])], false);
    waits(&[needs(&["custom"])], true);
    // The server has not said yet what it waits for after the answer.
    waits(&[bash("a"), needs(&["a"]), answered("a")], false);
    waits(
        &[ask("a"), bash("b"), needs(&["a", "b"]), answered("b")],
        false,
    );
    waits(&[ask("a"), bash("b"), answered("b"), needs(&["a"])], true);
    waits(&[ask("a"), needs(&["a"]), confirmed("a", true)], false);
    waits(&[ask("a"), needs(&["a"]), confirmed("a", false)], false);
    waits(&[ask("a"), needs(&["a"]), Observation::Active], false);
}

#[test]
fn an_interrupt_voids_what_was_called_before_it() {
    check(&[bash("a"), ask("b"), interrupted(None)], None, 0);
    check(&[bash("a"), interrupted(None), bash("b")], Some("b"), 1);
    let sub = call("s", "read", Permission::Allow, Some("t"));
    check(
        &[bash("a"), sub.clone(), interrupted(Some("t"))],
        Some("a"),
        1,
    );
    let ended = Observation::ThreadEnded {
        thread: "t".to_owned(),
    };
    check(&[sub.clone(), ended.clone()], None, 0);
    check(&[ended, sub], None, 0);
}

#[test]
fn a_second_look_at_an_interrupt_spares_later_calls() {
    let mut calls = Calls::new(TOOLS);
    calls.apply("a", bash("a"));
    calls.apply("i", interrupted(None));
    calls.apply("b", bash("b"));
    calls.apply("i", interrupted(None));
    assert!(calls.awaits("b") && !calls.awaits("a"));
}

#[test]
fn idle_is_when_the_turn_is_over_and_nothing_waits() {
    let idle = |events: &[Observation]| fold(events).is_idle();
    assert!(!idle(&[]));
    assert!(idle(&[bash("a"), answered("a"), Observation::TurnEnded]));
    assert!(!idle(&[ask("a"), Observation::TurnEnded]));
    assert!(!idle(&[Observation::TurnEnded, Observation::Active]));
    assert!(idle(&[Observation::TurnEnded, Observation::Other]));
    assert!(!idle(&[Observation::NeedsAction { calls: vec![] }]));
    assert!(fold(&[bash("a"), Observation::SessionEnded]).ended());
}

#[test]
fn a_server_that_waits_for_what_is_done_is_noticed() {
    let needs = Observation::NeedsAction {
        calls: vec!["a".to_owned()],
    };
    let mut calls = fold(&[bash("a"), needs]);
    assert!(!calls.stuck_on("a"));
    calls.finish("a");
    assert!(calls.stuck_on("a"));
    calls.apply("r", Observation::Active);
    assert!(!calls.stuck_on("a"));
}

#[test]
fn memory_is_bounded() {
    let mut calls = Calls::new(TOOLS);
    for number in 0..NewestIds::MOST + WAITING + 10 {
        let id = format!("c{number}");
        calls.apply(&id, bash(&id));
    }
    assert_eq!(calls.waiting(), WAITING);
    assert!(!calls.seen.contains("c0"));
}

fn event() -> impl Strategy<Value = Observation> {
    let id = prop::sample::select(vec!["a", "b", "c", "d"]);
    prop_oneof![
        3 => id.clone().prop_map(bash),
        2 => id.clone().prop_map(ask),
        2 => id.clone().prop_map(answered),
        2 => (id, any::<bool>()).prop_map(|(id, allowed)| confirmed(id, allowed)),
        1 => Just(interrupted(None)),
        1 => Just(Observation::TurnEnded),
        1 => Just(Observation::Active),
    ]
}

proptest! {
    /// However far the stream was read before the history is read again, nothing changes.
    #[test]
    fn history_may_be_read_again_at_any_time(events in prop::collection::vec(event(), 0..24), from in 0_usize..24) {
        let once = fold(&events);
        let mut twice = fold(&events);
        for (place, event) in events.iter().enumerate().skip(from) {
            let id = match event {
                Observation::Call(call) => call.id.clone(),
                _ => format!("e{place}"),
            };
            twice.apply(&id, event.clone());
        }
        let of = |calls: &Calls| (calls.next_ready().cloned(), calls.waiting(), calls.is_idle());
        prop_assert_eq!(of(&once), of(&twice));
    }

    /// What is ready was neither answered nor broken off since it was called, and may run.
    #[test]
    fn only_what_waits_is_ready(events in prop::collection::vec(event(), 0..24)) {
        let calls = fold(&events);
        for (call, _) in calls.waiting.values().filter(|(_, ready)| *ready) {
            let first = events.iter().position(|event| matches!(event, Observation::Call(c) if c.id == call.id));
            let first = first.unwrap_or(usize::MAX);
            let after = &events[first..];
            prop_assert!(!events.contains(&answered(&call.id)));
            prop_assert!(!after.contains(&interrupted(None)));
            let allowed = call.permission == Permission::Allow || events.contains(&confirmed(&call.id, true));
            prop_assert!(allowed);
        }
    }
}
