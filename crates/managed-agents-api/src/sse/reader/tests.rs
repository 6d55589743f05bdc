use proptest::prelude::*;

use super::*;
use crate::{ErrorType, sse};

fn frames(max_bytes: usize, chunks: &[&[u8]]) -> Result<Vec<(String, String)>, FrameTooLong> {
    let mut reader = Reader::new(max_bytes);
    let mut frames = Vec::new();
    for chunk in chunks {
        reader.feed(chunk)?;
        while let Some(frame) = reader.next_frame() {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            frames.push((text(frame.event), text(frame.data)));
        }
    }
    Ok(frames)
}

#[track_caller]
fn check(stream: &str, expected: &[(&str, &str)]) {
    let found = frames(1000, &[stream.as_bytes()]).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(e, d)| (e.as_str(), d.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn lines_are_read_as_browsers_read_them() {
    check("data: a\n\n", &[("", "a")]);
    check("\u{feff}data:a\r\rdata\r\n\r\n", &[("", "a"), ("", "")]);
    check(": c\nevent: x\n\ndata: b\n\n", &[("", "b")]);
    check(
        "event: x\nevent: y\ndata:  a\nid: 1\ndata: b\n\n",
        &[("y", " a\nb")],
    );
    check("data: unfinished\n", &[]);
    check("retry: 1\nother\n\n\n\ndata: a\n\n", &[("", "a")]);
}

#[test]
fn a_frame_has_a_bound() {
    let fits = format!("data: {}\n\n", "x".repeat(93));
    assert_eq!(frames(100, &[fits.repeat(9).as_bytes()]).unwrap().len(), 9);
    let long = format!("data: {}", "x".repeat(95));
    assert_eq!(
        frames(100, &[long.as_bytes()]).unwrap_err(),
        FrameTooLong { max_bytes: 100 }
    );
    let lines = "x\n".repeat(51);
    assert!(frames(100, &[lines.as_bytes()]).is_err());
}

#[test]
fn a_frame_is_an_event_a_ping_or_an_error() {
    let message = |event: &str, data: &str| {
        Frame {
            event: event.into(),
            data: data.into(),
        }
        .message()
    };
    let event: Event = serde_json::from_str(r#"{"type":"later","n":1e400}"#).unwrap();
    for name in ["", "message", "later"] {
        let read = message(name, event.as_str()).unwrap();
        assert_eq!(read, Message::Event(event.clone()));
    }
    assert_eq!(message("ping", "x").unwrap(), Message::Ping);
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    let Message::Error(envelope) = message("error", error).unwrap() else {
        panic!("no error");
    };
    assert_eq!(envelope.error.kind, ErrorType::Overloaded);
    assert!(message("", "[]").is_err());
    let bytes = Frame {
        event: Vec::new(),
        data: b"{\"a\":\"\xff\"}".to_vec(),
    };
    assert!(bytes.message().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written is read, with any line ends and in any pieces.
    #[test]
    fn any_cutting_reads_the_same(
        texts in prop::collection::vec("[a-z\\\\\"é\n\r]{0,12}", 0..6),
        ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        mark in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let events: Vec<Event> = texts
            .iter()
            .map(|text| {
                let text = serde_json::to_string(text).unwrap();
                // A line end between members is a frame of several lines.
                serde_json::from_str(&format!("{{\"type\":\"x\",\n\"text\":{text}}}")).unwrap()
            })
            .collect();
        let mut stream = String::from(if mark { "\u{feff}" } else { "" });
        for event in &events {
            stream += sse::PING;
            stream += &sse::frame(event);
        }
        let stream = stream.replace('\n', ending).into_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.sort_unstable();
        let (mut reader, mut read, mut from) = (Reader::new(1000), Vec::new(), 0);
        for place in places.into_iter().chain([stream.len()]) {
            reader.feed(&stream[from..place]).unwrap();
            from = place;
            while let Some(frame) = reader.next_frame() {
                match frame.message().unwrap() {
                    Message::Event(event) => read.push(event),
                    Message::Ping => {}
                    Message::Error(error) => panic!("{error:?}"),
                }
            }
        }
        prop_assert_eq!(read, events);
    }
}
