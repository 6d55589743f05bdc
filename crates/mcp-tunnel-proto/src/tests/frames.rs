//! Every frame: golden bytes, round trip, claimed length, perturbed bytes.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::pair::http;
use crate::{
    Activation, Admission, CloseCode, EncodeError, Features, Frame, GoAway, HEADER, Hello,
    LastStream, Limits, OpenHeader, Refusal, RefusalCode, ResetCode, Resumable, Resume,
    ResumeClaim, RouteName, SessionId, Side, StreamId, StreamKind, TraceContext, Urgency,
    Violation, decode, kind,
};

pub(super) fn id(raw: u64) -> StreamId {
    StreamId::new(raw).unwrap()
}

pub(super) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(&mut out).unwrap();
    out.to_vec()
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("hex digits only")).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes only: {text}");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn limits() -> Limits {
    Limits::new(16_384, 65_536, 8_388_608, 1024)
}

fn full_hello() -> Hello {
    let config = crate::Config::default().set_features(Features::from_bits(3));
    let mut hello = Hello::new(Side::Gateway, &config, Bytes::from_static(b"\x01\x02\x03"));
    hello.limits = limits();
    hello.max_version = 2;
    hello.resume = Some(ResumeClaim::new(SessionId::new([0xaa; 16]), 7));
    hello.agent = "gateway 0.1.0".to_owned();
    hello
}

fn full_header() -> OpenHeader {
    let mut header = OpenHeader::new(StreamKind::Http, RouteName::parse("files").unwrap());
    header.urgency = Urgency::Bulk;
    header.deadline = Some(Duration::from_secs(30));
    header.trace = Some(TraceContext::new([0x11; 16], [0x22; 8], 1));
    header.metadata = Bytes::from_static(b"meta");
    header
}

/// One of each, with the names they have in `vectors/frames.txt`.
pub(super) fn samples() -> Vec<(&'static str, Frame)> {
    let edge_hello = Hello {
        limits: limits(),
        ..Hello::new(Side::Edge, &crate::Config::default(), Bytes::new())
    };
    let goaway = GoAway {
        drain_millis: 30_000,
        text: "restart".to_owned(),
        ..GoAway::new(LastStream::Any, CloseCode::SHUTDOWN)
    };
    vec![
        (
            "hello of a gateway, everything in it",
            Frame::Hello(Box::new(full_hello())),
        ),
        (
            "hello of an edge, only what is required",
            Frame::Hello(Box::new(edge_hello)),
        ),
        (
            "admission pending",
            Frame::Admission(Box::new(Admission::Pending {
                approval_code: "K7QF-2M9X".to_owned(),
            })),
        ),
        (
            "admission active",
            Frame::Admission(Box::new(Admission::Active(Activation::new(limits())))),
        ),
        (
            "admission active, resumable for 60 s",
            Frame::Admission(Box::new(Admission::Active(Activation {
                resumable: Some(Resumable::new(
                    SessionId::new([0xaa; 16]),
                    Duration::from_secs(60),
                )),
                ..Activation::new(limits())
            }))),
        ),
        (
            "admission refused",
            Frame::Admission(Box::new(Admission::Refused(
                Refusal::new(RefusalCode::OVERLOADED, "try later")
                    .retry_after(Duration::from_millis(1500)),
            ))),
        ),
        (
            "admission refused, bare",
            Frame::Admission(Box::new(Admission::Refused(Refusal::new(
                RefusalCode::RETIRED,
                "",
            )))),
        ),
        ("resume", Frame::Resume(Resume::new(8, 123_456, [0x55; 32]))),
        ("ack", Frame::Ack(123_456)),
        ("ping", Frame::Ping(7)),
        ("pong", Frame::Pong(7)),
        ("session credit", Frame::SessionCredit(16_777_216)),
        (
            "stream credit",
            Frame::StreamCredit {
                id: id(5),
                limit: 131_072,
            },
        ),
        ("streams credit", Frame::StreamsCredit(2048)),
        (
            "close",
            Frame::Close {
                code: CloseCode::FRAME_SIZE,
                text: "frame longer than announced limit".to_owned(),
            },
        ),
        (
            "open, default route, nothing more",
            Frame::Open {
                id: id(2),
                header: Box::new(http()),
                first: Bytes::new(),
                fin: false,
            },
        ),
        (
            "open, everything in the head, first payload",
            Frame::Open {
                id: id(0x01_0203_0406),
                header: Box::new(full_header()),
                first: Bytes::from_static(b"GET"),
                fin: false,
            },
        ),
        (
            "open and end",
            Frame::Open {
                id: id(4),
                header: Box::new(http()),
                first: Bytes::from_static(b"GET / "),
                fin: true,
            },
        ),
        (
            "data",
            Frame::Data {
                id: id(2),
                payload: Bytes::from_static(b"hello"),
                fin: false,
            },
        ),
        (
            "last data",
            Frame::Data {
                id: id(2),
                payload: Bytes::from_static(b"bye"),
                fin: true,
            },
        ),
        (
            "empty end",
            Frame::Data {
                id: StreamId::MAX,
                payload: Bytes::new(),
                fin: true,
            },
        ),
        (
            "reset",
            Frame::Reset {
                id: id(2),
                code: ResetCode::REFUSED,
            },
        ),
        (
            "stop, application code",
            Frame::Stop {
                id: id(3),
                code: ResetCode::application(9),
            },
        ),
        ("goaway, warning", Frame::GoAway(Box::new(goaway))),
        (
            "goaway, final",
            Frame::GoAway(Box::new(GoAway::new(
                LastStream::UpTo(id(8)),
                CloseCode::SHUTDOWN,
            ))),
        ),
        (
            "goaway, nothing was taken",
            Frame::GoAway(Box::new(GoAway::new(
                LastStream::Nothing,
                CloseCode::WITHDRAWN,
            ))),
        ),
    ]
}

/// The frame in the words of the vectors.
fn describe(frame: &Frame) -> String {
    match frame {
        Frame::Hello(h) => describe_hello(h),
        Frame::Admission(a) => describe_admission(a),
        Frame::Resume(r) => format!(
            "RESUME epoch={} position={} proof={}",
            r.epoch,
            r.position,
            hex(&r.proof)
        ),
        Frame::Ack(n) => format!("ACK position={n}"),
        Frame::Ping(n) => format!("PING number={n}"),
        Frame::Pong(n) => format!("PONG number={n}"),
        Frame::SessionCredit(n) => format!("SESSION_CREDIT limit={n}"),
        Frame::StreamCredit { id, limit } => format!("STREAM_CREDIT stream={id} limit={limit}"),
        Frame::StreamsCredit(n) => format!("STREAMS_CREDIT count={n}"),
        Frame::Close { code, text } => format!("CLOSE code={} text={text:?}", code.as_u32()),
        Frame::Open {
            id,
            header,
            first,
            fin,
        } => {
            let name = if *fin { "OPEN_FIN" } else { "OPEN" };
            format!(
                "{name} stream={id} {} first={}",
                describe_header(header),
                hex(first)
            )
        }
        Frame::Data { id, payload, fin } => {
            let name = if *fin { "DATA_FIN" } else { "DATA" };
            format!("{name} stream={id} payload={}", hex(payload))
        }
        Frame::Reset { id, code } => format!("RESET stream={id} code={}", code.as_u32()),
        Frame::Stop { id, code } => format!("STOP stream={id} code={}", code.as_u32()),
        Frame::GoAway(g) => {
            let last = match g.last {
                LastStream::Any => "any".to_owned(),
                LastStream::Nothing => "none".to_owned(),
                LastStream::UpTo(id) => id.to_string(),
            };
            let code = g.code.as_u32();
            format!(
                "GOAWAY last={last} code={code} drain_ms={} text={:?}",
                g.drain_millis, g.text
            )
        }
        Frame::Ignored { kind, length } => format!("IGNORED type={kind:#04x} length={length}"),
    }
}

fn describe_limits(l: &Limits) -> String {
    format!(
        "max_frame={} stream_window={} session_window={} max_streams={}",
        l.max_frame, l.stream_window, l.session_window, l.max_streams
    )
}

fn describe_hello(h: &Hello) -> String {
    let resume = h.resume.map_or_else(
        || "-".to_owned(),
        |claim| format!("{}/{}", hex(claim.session.as_bytes()), claim.epoch),
    );
    format!(
        "HELLO side={} versions={}-{} features={} {} credential={} resume={resume} agent={:?}",
        h.side,
        h.min_version,
        h.max_version,
        h.features.bits(),
        describe_limits(&h.limits),
        hex(&h.credential),
        h.agent
    )
}

fn describe_admission(a: &Admission) -> String {
    match a {
        Admission::Pending { approval_code } => format!("ADMISSION pending code={approval_code}"),
        Admission::Active(active) => {
            let session = active.resumable.map_or_else(
                || "-".to_owned(),
                |r| format!("{}/{}s", hex(r.session.as_bytes()), r.keep.as_secs()),
            );
            format!(
                "ADMISSION active {} session={session}",
                describe_limits(&active.limits)
            )
        }
        Admission::Refused(refusal) => format!(
            "ADMISSION refused code={} retry_after_ms={} text={:?}",
            refusal.code.as_u32(),
            refusal
                .retry_after
                .map_or_else(|| "-".to_owned(), |d| d.as_millis().to_string()),
            refusal.text
        ),
    }
}

fn describe_header(h: &OpenHeader) -> String {
    let kind = match h.kind {
        StreamKind::Http => "http".to_owned(),
        StreamKind::Tls => "tls".to_owned(),
        StreamKind::Unknown(raw) => raw.to_string(),
    };
    let urgency = match h.urgency {
        Urgency::Interactive => 0,
        Urgency::Bulk => 1,
        Urgency::Background => 2,
    };
    let deadline = h
        .deadline
        .map_or_else(|| "-".to_owned(), |d| d.as_millis().to_string());
    let trace = h.trace.map_or_else(
        || "-".to_owned(),
        |t| format!("{}/{}/{}", hex(&t.trace_id), hex(&t.span_id), t.flags),
    );
    format!(
        "kind={kind} urgency={urgency} route={:?} deadline_ms={deadline} trace={trace} metadata={}",
        h.route.as_str(),
        hex(&h.metadata)
    )
}

/// The records of a file of vectors: lines `key: value`, blank lines between records, `#` comments.
pub(super) fn records(text: &str) -> Vec<Vec<(String, String)>> {
    text.split("\n\n")
        .map(|record| {
            record
                .lines()
                .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
                .map(|line| {
                    let (key, value) = line.split_once(':').expect("key: value");
                    (key.trim().to_owned(), value.trim().to_owned())
                })
                .collect::<Vec<_>>()
        })
        .filter(|record| !record.is_empty())
        .collect()
}

fn field<'a>(record: &'a [(String, String)], key: &str) -> &'a str {
    let found = record.iter().find(|(k, _)| k == key);
    &found.unwrap_or_else(|| panic!("no {key} in {record:?}")).1
}

fn decode_one(bytes: &[u8]) -> Result<Option<Frame>, Violation> {
    let mut input = BytesMut::from(bytes);
    let frame = decode(&mut input, 16_384)?;
    if frame.is_some() {
        assert!(input.is_empty(), "a frame leaves nothing behind");
    }
    Ok(frame)
}

/// FRAME-1, FRAME-4, CREDIT-1: the bytes of every frame are those of the vectors, both ways.
#[test]
fn frames_match_their_vectors() {
    let vectors = records(include_str!("../../vectors/frames.txt"));
    let samples = samples();
    let mut fresh = String::new();
    for (name, frame) in &samples {
        let bytes = hex(&bytes_of(frame));
        writeln!(
            fresh,
            "name: {name}\nmeans: {}\nbytes: {bytes}\n",
            describe(frame)
        )
        .unwrap();
    }
    assert_eq!(vectors.len(), samples.len(), "the file should be\n{fresh}");
    let mut kinds = BTreeSet::new();
    for (vector, (name, frame)) in vectors.iter().zip(&samples) {
        let bytes = unhex(field(vector, "bytes"));
        assert_eq!(field(vector, "name"), *name);
        let decoded = decode_one(&bytes).unwrap().unwrap();
        assert_eq!(describe(&decoded), field(vector, "means"), "{name}");
        assert_eq!(&decoded, frame, "{name}");
        assert_eq!(hex(&bytes_of(&decoded)), hex(&bytes), "{name}");
        kinds.insert(bytes[0]);
    }
    let all: BTreeSet<u8> = (kind::HELLO..=kind::CLOSE)
        .chain(kind::OPEN..=kind::GOAWAY)
        .collect();
    assert_eq!(kinds, all, "every type has a vector");
}

/// FRAME-3, PARAM-1, PARAM-2, PARAM-3, TEXT-1, HELLO-2, HELLO-3, OPEN-5, OPEN-6, ADMISSION-4, DATA-1.
#[test]
fn malformed_frames_match_their_vectors() {
    for vector in records(include_str!("../../vectors/malformed.txt")) {
        let name = field(&vector, "name");
        let outcome = decode_one(&unhex(field(&vector, "bytes")));
        let violation = outcome.expect_err(name);
        let code = format!("{:#04x}", violation.close_code().as_u32());
        assert_eq!(code, field(&vector, "code"), "{name}: {violation}");
    }
}

/// FRAME-5, PARAM-2, OPEN-7, OPEN-8, HELLO-6: what a later version may add.
#[test]
fn extensions_match_their_vectors() {
    for vector in records(include_str!("../../vectors/extensions.txt")) {
        let frame = decode_one(&unhex(field(&vector, "bytes")))
            .unwrap()
            .unwrap();
        assert_eq!(
            describe(&frame),
            field(&vector, "means"),
            "{}",
            field(&vector, "name")
        );
    }
}

/// FRAME-2: a claimed length is judged by the header alone, and a frame is waited for whole.
#[test]
fn claimed_length_is_judged_before_the_payload() {
    for (name, frame) in samples() {
        let bytes = bytes_of(&frame);
        for cut in 0..bytes.len() {
            let mut input = BytesMut::from(&bytes[..cut]);
            assert_eq!(decode(&mut input, 16_384), Ok(None), "{name} cut at {cut}");
            assert_eq!(input.len(), cut, "an incomplete frame stays");
        }
        let mut long = bytes;
        long[1..3].copy_from_slice(&16_385_u16.to_be_bytes());
        let mut input = BytesMut::from(&long[..HEADER]);
        assert_eq!(
            decode(&mut input, 16_384),
            Err(Violation::FrameSize),
            "{name}"
        );
    }
}

#[test]
fn frames_that_do_not_fit_are_refused_and_leave_nothing() {
    let mut header = http();
    header.metadata = Bytes::from(vec![0; 2048]);
    let mut hello = full_hello();
    hello.credential = Bytes::from(vec![0; 4096]);
    let open = Frame::Open {
        id: id(1),
        header: Box::new(header),
        first: Bytes::new(),
        fin: false,
    };
    let data = Frame::Data {
        id: id(1),
        payload: Bytes::from(vec![0; 65_536]),
        fin: false,
    };
    for frame in [open, data, Frame::Hello(Box::new(hello))] {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(frame.encode(&mut out), Err(EncodeError::TooLong));
        assert_eq!(out, "before");
    }
    let ignored = Frame::Ignored {
        kind: 0x80,
        length: 0,
    };
    assert_eq!(
        ignored.encode(&mut BytesMut::new()),
        Err(EncodeError::Ignored)
    );
}

/// TEXT-1: text is clipped and cleaned on the way out, so that a peer never has to refuse it.
#[test]
fn own_text_is_clipped_at_a_character() {
    let text = format!("line\nbreak {}", "ü".repeat(200));
    let frame = Frame::Close {
        code: CloseCode::NO_ERROR,
        text,
    };
    let Some(Frame::Close { text, .. }) = decode_one(&bytes_of(&frame)).unwrap() else {
        panic!("not a CLOSE");
    };
    assert!(text.starts_with("linebreak ü"));
    assert_eq!(text.len(), 256);
}

#[test]
fn credentials_and_proofs_stay_out_of_debug() {
    let mut hello = full_hello();
    hello.credential = Bytes::from_static(b"verysecret");
    let text = format!(
        "{:?} {:?}",
        Frame::Hello(Box::new(hello)),
        Resume::new(1, 2, [0x55; 32])
    );
    assert!(
        !text.contains("verysecret") && !text.contains("85, 85"),
        "{text}"
    );
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = (1..=StreamId::MAX.as_u64()).prop_map(id);
    let payload = prop::collection::vec(any::<u8>(), 1..2000).prop_map(Bytes::from);
    prop_oneof![
        any::<u64>().prop_map(Frame::Ping),
        (0..1_u64 << 62).prop_map(Frame::SessionCredit),
        (stream.clone(), 0..1_u64 << 62).prop_map(|(id, limit)| Frame::StreamCredit { id, limit }),
        (stream.clone(), payload.clone(), any::<bool>())
            .prop_map(|(id, payload, fin)| Frame::Data { id, payload, fin }),
        (stream.clone(), any::<u32>()).prop_map(|(id, code)| Frame::Reset {
            id,
            code: ResetCode::from_u32(code)
        }),
        (
            stream,
            "[a-z0-9]{0,63}",
            payload.clone(),
            payload,
            any::<Option<u32>>()
        )
            .prop_map(|(id, route, metadata, first, deadline)| {
                let mut header =
                    OpenHeader::new(StreamKind::Tls, RouteName::parse(&route).unwrap());
                header.metadata = metadata.slice(..metadata.len().min(1800));
                header.deadline = deadline.map(|ms| Duration::from_millis(ms.into()));
                Frame::Open {
                    id,
                    header: Box::new(header),
                    first,
                    fin: false,
                }
            }),
        prop::sample::select(samples()).prop_map(|(_, frame)| frame),
    ]
}

proptest! {
    #[test]
    fn any_frame_survives_the_round_trip(frame in any_frame()) {
        prop_assert_eq!(decode_one(&bytes_of(&frame)), Ok(Some(frame)));
    }

    #[test]
    fn perturbed_bytes_never_panic(
        frame in any_frame(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&frame);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let mut input = BytesMut::from(&bytes[..]);
        if let Ok(Some(frame)) = decode(&mut input, 16_384)
            && !matches!(frame, Frame::Ignored { .. })
        {
            // Whatever was understood can be said again.
            prop_assert_eq!(decode_one(&bytes_of(&frame)), Ok(Some(frame)));
        }
    }
}
