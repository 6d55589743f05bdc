//! Sessions as scripts: bytes in, events and bytes out, from `vectors/sessions.txt`.

use bytes::Bytes;

use super::{
    frames::{hex, id, records, unhex},
    pair::{End, Pair, http},
};
use crate::{Event, OpenHeader, ReadError, ResetCode, Side, StreamId};

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn stream(text: &str) -> StreamId {
    id(number(text))
}

fn code(text: &str) -> ResetCode {
    ResetCode::from_u32(u32::try_from(number(text)).unwrap())
}

fn describe(event: &Event) -> String {
    match event {
        Event::Opened {
            id,
            header: OpenHeader { route, .. },
        } => format!("opened {id} {route}"),
        Event::Readable { id } => format!("readable {id}"),
        Event::Writable { id } => format!("writable {id}"),
        Event::Reset { id, code } => format!("reset {id} {}", code.as_u32()),
        Event::Stopped { id, code } => format!("stopped {id} {}", code.as_u32()),
        Event::StreamClosed { id } => format!("closed {id}"),
        Event::StreamsAvailable => "streams available".to_owned(),
        Event::GoAway { last, .. } => format!("goaway {last:?}"),
        Event::Drained => "drained".to_owned(),
        Event::Detached => "detached".to_owned(),
        Event::Rtt(_) => "rtt".to_owned(),
        Event::Closed(_) => "session closed".to_owned(),
    }
    .trim_end()
    .to_owned()
}

fn read(end: &mut End, id: StreamId) -> String {
    match end.read(id) {
        Ok(Some(piece)) => hex(&piece),
        Ok(None) => "end".to_owned(),
        Err(ReadError::Blocked) => "blocked".to_owned(),
        Err(ReadError::Reset(code)) => format!("reset {}", code.as_u32()),
        Err(ReadError::Closed) => "closed".to_owned(),
    }
}

/// What the application does: `open HEX`, `write ID HEX`, `finish ID`, `reset ID CODE`, `stop ID CODE`.
fn act(end: &mut End, words: &[&str]) {
    match *words {
        ["open", payload] => {
            let mut first = Bytes::from(unhex(payload));
            end.connection.open(http(), &mut first).unwrap();
        }
        ["write", id, payload] => {
            let payload = unhex(payload);
            assert_eq!(end.write(stream(id), &payload), Ok(payload.len()));
        }
        ["finish", id] => end.finish(stream(id)),
        ["reset", id, why] => end.reset(stream(id), code(why)),
        ["stop", id, why] => end.stop(stream(id), code(why)),
        _ => panic!("no such action: {words:?}"),
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn sessions_match_their_vectors() {
    for record in records(include_str!("../../vectors/sessions.txt")) {
        let mut steps = record.iter();
        let (_, name) = steps.next().unwrap();
        let (_, side) = steps.next().unwrap();
        let side = match side.as_str() {
            "gateway" => Side::Gateway,
            "edge" => Side::Edge,
            other => panic!("{other}"),
        };
        let mut pair = Pair::new();
        pair.run();
        let now = pair.now;
        let end = match side {
            Side::Gateway => &mut pair.gateway,
            Side::Edge => &mut pair.edge,
        };
        end.collect();
        end.events.clear();
        for (at, (step, value)) in steps.enumerate() {
            let words: Vec<&str> = value.split_whitespace().collect();
            match step.as_str() {
                "in" => end.feed(now, &unhex(value)),
                "repeat" => {
                    let times = usize::try_from(number(words[0])).unwrap();
                    end.feed(now, &unhex(words[1]).repeat(times));
                }
                "do" => act(end, &words),
                "out" => assert_eq!(
                    hex(&end.drain(now)),
                    hex(&unhex(value)),
                    "{name}, step {at}"
                ),
                "read" => {
                    let got = read(end, stream(words[0]));
                    assert_eq!(got, words[1..].join(" "), "{name}, step {at}");
                }
                "event" => {
                    end.collect();
                    let event = end.events.pop_front().map(|event| describe(&event));
                    assert_eq!(event.as_deref(), Some(value.as_str()), "{name}, step {at}");
                }
                other => panic!("{name}: no such step: {other}"),
            }
        }
        end.collect();
        assert!(end.events.is_empty(), "{name}: {:?}", end.events);
        assert_eq!(hex(&end.drain(now)), "", "{name}");
    }
}
