//! Who goes first, and that nobody waits for ever.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::pair::{Pair, http};
use crate::{Config, Frame, QUANTUM, StreamId, Transmit, Urgency};

/// The frames of the gateway's next write, if that is full with the first of them, and their length in bytes.
fn next_write(pair: &mut Pair) -> (Vec<Frame>, usize) {
    let mut out = Transmit::new(1);
    pair.gateway.connection.poll_transmit(pair.now, &mut out);
    let length = out.remaining();
    let mut bytes = BytesMut::from(out.copy_to_bytes(length));
    let mut frames = Vec::new();
    while let Some(frame) = crate::decode(&mut bytes, u16::MAX).unwrap() {
        frames.push(frame);
    }
    (frames, length)
}

/// The stream and the payload bytes of OPEN and DATA.
fn payload_of(frame: &Frame) -> Option<(StreamId, usize)> {
    if let Frame::Data { id, payload, .. } = frame {
        return Some((*id, payload.len()));
    }
    if let Frame::Open { id, first, .. } = frame {
        return Some((*id, first.len()));
    }
    None
}

/// The order in which payload leaves, so many frames of it at most.
fn payload_order(pair: &mut Pair, frames: usize) -> Vec<(StreamId, usize)> {
    let mut order = Vec::new();
    for _ in 0..frames {
        let (frames, length) = next_write(pair);
        if length == 0 {
            break;
        }
        order.extend(frames.iter().filter_map(payload_of));
    }
    order
}

/// A stream of the edge's that the gateway may write to.
fn open(pair: &mut Pair, urgency: Urgency) -> StreamId {
    let mut header = http();
    header.urgency = urgency;
    let id = pair
        .edge
        .connection
        .open(header, &mut Bytes::new())
        .unwrap();
    pair.run();
    id
}

/// A stream of the gateway's own, with first payload.
fn open_here(pair: &mut Pair, urgency: Urgency, length: usize) -> StreamId {
    let mut header = http();
    header.urgency = urgency;
    let mut first = Bytes::from(vec![0; length]);
    pair.gateway.connection.open(header, &mut first).unwrap()
}

fn wide(window: u64) -> Config {
    let bytes = usize::try_from(window).unwrap();
    Config::default()
        .set_stream_window(window)
        .set_send_buffer(bytes)
        .set_session_send_buffer(8 * bytes)
}

/// SCHED-2: one bulk stream and 100 small calls on a link of 10 MB/s: each call has left one quantum of the bulk and
/// the small calls that wait already after it was made, whenever that was.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn one_bulk_and_a_hundred_small_calls() {
    let config = wide(4 << 20);
    let mut pair = Pair::with(config.clone(), config);
    let bulk = open(&mut pair, Urgency::Interactive);
    let calls: Vec<StreamId> = (0..100)
        .map(|_| open(&mut pair, Urgency::Interactive))
        .collect();
    pair.gateway.write(bulk, &vec![0; 4 << 20]).unwrap();
    let per_byte = |bytes: usize| Duration::from_nanos(100) * u32::try_from(bytes).unwrap();
    let start = pair.now;
    // A quantum takes 1.6 ms; calls come 0.37 ms after each other.
    let mut coming: Vec<(Instant, StreamId)> = calls
        .into_iter()
        .zip(0_u32..100)
        .map(|(id, at)| (start + Duration::from_micros(370) * at, id))
        .rev()
        .collect();
    let mut waiting: BTreeMap<StreamId, (Instant, usize)> = BTreeMap::new();
    let mut bulk_sent = 0;
    while !(coming.is_empty() && waiting.is_empty()) {
        while let Some((made, id)) = coming.pop_if(|(made, _)| *made <= pair.now) {
            pair.gateway.write(id, &[1; 500]).unwrap();
            waiting.insert(id, (made, waiting.len()));
        }
        let (frames, length) = next_write(&mut pair);
        pair.now += per_byte(length);
        for frame in frames {
            let Frame::Data { id, payload, .. } = frame else {
                continue;
            };
            match waiting.remove(&id) {
                Some((made, before)) => {
                    // Itself, those before it, and one that may have been on its way when it came.
                    let bound = per_byte(QUANTUM + 8 + (before + 2) * 508);
                    assert!(pair.now - made <= bound, "{:?} {before}", pair.now - made);
                }
                None => bulk_sent += payload.len(),
            }
        }
    }
    assert!(
        bulk_sent >= 20 * QUANTUM,
        "and the bulk goes on: {bulk_sent}"
    );
}

/// SCHED-3: interactive first, but bulk and background are not starved: one turn in nine of what is above.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn urgent_streams_go_first_and_starve_nobody() {
    let config = wide(8 << 20);
    let mut pair = Pair::with(config.clone(), config);
    let streams = [Urgency::Background, Urgency::Bulk, Urgency::Interactive]
        .map(|urgency| open(&mut pair, urgency));
    for id in streams {
        pair.gateway.write(id, &vec![0; 8 << 20]).unwrap();
    }
    let order = payload_order(&mut pair, 243);
    let share = |id: StreamId| order.iter().filter(|(other, _)| *other == id).count();
    assert_eq!(order[0].0, streams[2]);
    assert_eq!(streams.map(share), [3, 24, 216]);
}

/// SCHED-3: with many urgent streams the others wait for a round of them, no longer.
#[test]
fn a_round_of_urgent_streams_lets_one_other_go() {
    let config = wide(1 << 20);
    let mut pair = Pair::with(config.clone(), config);
    let urgent: Vec<StreamId> = (0..20)
        .map(|_| open(&mut pair, Urgency::Interactive))
        .collect();
    let bulk = open(&mut pair, Urgency::Bulk);
    for id in urgent.iter().chain([&bulk]) {
        pair.gateway.write(*id, &[0; 200_000]).unwrap();
    }
    let order = payload_order(&mut pair, 110);
    let places: Vec<usize> = (0..order.len()).filter(|at| order[*at].0 == bulk).collect();
    // Eight quanta at first, when nobody had waited yet.
    assert_eq!(places, [8, 29, 50, 71, 92]);
}

/// SCHED-1: control overtakes whatever payload waits.
#[test]
fn control_overtakes_payload() {
    let mut pair = Pair::new();
    let bulk = open(&mut pair, Urgency::Interactive);
    let other = open(&mut pair, Urgency::Interactive);
    pair.gateway.write(bulk, &[0; 60_000]).unwrap();
    pair.gateway.open(b"");
    pair.gateway.reset(other, crate::ResetCode::INTERNAL);
    let mut bytes = BytesMut::from(&pair.gateway.drain(pair.now)[..]);
    let mut kinds = Vec::new();
    while let Some(frame) = crate::decode(&mut bytes, u16::MAX).unwrap() {
        kinds.push(frame.kind());
    }
    assert_eq!(kinds, [0x40, 0x44, 0x42, 0x42, 0x42, 0x42]);
}

/// SCHED-1: new streams with first payload do not keep the old ones waiting, however many come.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn a_stream_of_opens_starves_nobody() {
    let config = wide(4 << 20);
    let mut pair = Pair::with(config.clone(), config);
    let bulk = open(&mut pair, Urgency::Interactive);
    pair.gateway.write(bulk, &vec![0; 4 << 20]).unwrap();
    let mut order = Vec::new();
    for _ in 0..100 {
        open_here(&mut pair, Urgency::Interactive, QUANTUM - 5);
        order.extend(payload_order(&mut pair, 2));
    }
    let share = order.iter().filter(|(id, _)| *id == bulk).count();
    assert_eq!(share, 100, "every other turn");
    // All at once are all before its next turn but one.
    let many: Vec<StreamId> = (0..50)
        .map(|_| open_here(&mut pair, Urgency::Interactive, QUANTUM - 5))
        .collect();
    let order = payload_order(&mut pair, 53);
    let last = order.iter().position(|(id, _)| *id == many[49]).unwrap();
    let before = order[..last].iter().filter(|(id, _)| *id == bulk).count();
    assert!(before <= 1, "{before}");
}

/// SCHED-3: first payload travels in OPEN only if no more urgent stream waits.
#[test]
fn less_urgent_opens_leave_their_payload_behind() {
    let mut pair = Pair::new();
    let urgent = open(&mut pair, Urgency::Interactive);
    pair.gateway.write(urgent, &[0; 1000]).unwrap();
    let bulk = open_here(&mut pair, Urgency::Bulk, 900);
    let alike = open_here(&mut pair, Urgency::Interactive, 800);
    let order = payload_order(&mut pair, 10);
    assert_eq!(
        order,
        [(bulk, 0), (alike, 800), (urgent, 1000), (bulk, 900)]
    );
}

#[test]
fn streams_of_one_urgency_take_turns() {
    let mut pair = Pair::new();
    let ids: Vec<StreamId> = (0..3).map(|_| open(&mut pair, Urgency::Bulk)).collect();
    for id in &ids {
        pair.gateway.write(*id, &[0; 40_000]).unwrap();
    }
    let order: Vec<StreamId> = payload_order(&mut pair, 9)
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(order, [ids.clone(), ids.clone(), ids].concat());
}

/// SCHED-2: a turn is a quantum, however long the peer's frames may be.
#[test]
fn a_turn_is_a_quantum_in_short_frames_too() {
    let edge = Config::default().set_max_frame(4096);
    let mut pair = Pair::with(Config::default(), edge);
    let ids: Vec<StreamId> = (0..2).map(|_| open(&mut pair, Urgency::Bulk)).collect();
    for id in &ids {
        pair.gateway.write(*id, &[0; 40_000]).unwrap();
    }
    let order = payload_order(&mut pair, 8);
    let turn = |id| [4096, 4096, 4096, QUANTUM - 3 * 4096].map(|length| (id, length));
    assert_eq!(order, [turn(ids[0]), turn(ids[1])].concat());
}

/// h2 0.4.1: little session credit goes round: nobody is ever more than a turn behind.
#[test]
fn little_session_credit_starves_nobody() {
    let edge = Config::default().set_session_window(64 * 1024);
    let mut pair = Pair::with(Config::default(), edge);
    let ids: Vec<StreamId> = (0..10).map(|_| open(&mut pair, Urgency::Bulk)).collect();
    for id in &ids {
        pair.gateway.write(*id, &[0; 60_000]).unwrap();
    }
    let mut sent: BTreeMap<StreamId, usize> = ids.iter().map(|id| (*id, 0)).collect();
    while send_one(&mut pair, &mut sent) {
        let (least, most) = (sent.values().min(), sent.values().max());
        assert!(most.unwrap() - least.unwrap() <= QUANTUM, "{sent:?}");
    }
    assert!(sent.values().all(|sent| *sent == 60_000), "{sent:?}");
}

#[derive(Debug, Clone, Copy)]
struct Rival {
    urgency: Urgency,
    length: usize,
    /// Opened by the side that sends, so that it begins with OPEN.
    own: bool,
}

fn urgency() -> impl Strategy<Value = Urgency> {
    prop::sample::select(vec![
        Urgency::Interactive,
        Urgency::Bulk,
        Urgency::Background,
    ])
}

fn rival() -> impl Strategy<Value = Rival> {
    (urgency(), 1_usize..60_000, any::<bool>()).prop_map(|(urgency, length, own)| Rival {
        urgency,
        length,
        own,
    })
}

/// Sends one write's frames and carries the credit that they give rise to back; adds what each stream sent.
fn send_one(pair: &mut Pair, sent: &mut BTreeMap<StreamId, usize>) -> bool {
    let mut out = Transmit::new(1);
    let any = pair.gateway.connection.poll_transmit(pair.now, &mut out);
    let mut bytes = BytesMut::from(out.copy_to_bytes(out.remaining()));
    pair.edge.feed(pair.now, &bytes);
    assert_eq!(pair.edge.failed, None);
    while let Some(frame) = crate::decode(&mut bytes, u16::MAX).unwrap() {
        if let Some((id, length)) = payload_of(&frame) {
            *sent.entry(id).or_default() += length;
        }
    }
    let back = pair.edge.drain(pair.now);
    pair.gateway.feed(pair.now, &back);
    any || !back.is_empty()
}

proptest! {
    /// SCHED-2, SCHED-3: a call that fits a quantum waits for one quantum of each rival of its urgency, whether it was
    /// there before, is new or comes later, and for one of all less urgent ones together; in frames of any length, with
    /// plenty of session credit or little.
    #[test]
    fn no_call_waits_for_more_than_a_quantum_per_rival(
        rivals in prop::collection::vec(rival(), 1..30),
        late in prop::collection::vec(rival(), 0..10),
        call in (urgency(), 1_usize..=QUANTUM),
        begun in 0_usize..60,
        short_frames in any::<bool>(),
        little_credit in any::<bool>(),
    ) {
        let mut edge = Config::default();
        if short_frames {
            edge = edge.set_max_frame(4096);
        }
        if little_credit {
            edge = edge.set_session_window(64 * 1024);
        }
        let mut pair = Pair::with(Config::default(), edge);
        let (call_urgency, call_length) = call;
        let call = open(&mut pair, call_urgency);
        let mut urgencies = BTreeMap::new();
        let theirs: Vec<(Rival, StreamId)> = rivals
            .iter()
            .filter(|rival| !rival.own)
            .map(|rival| (*rival, open(&mut pair, rival.urgency)))
            .collect();
        for (rival, id) in theirs {
            pair.gateway.write(id, &vec![0; rival.length]).unwrap();
            urgencies.insert(id, rival.urgency);
        }
        for rival in rivals.iter().filter(|rival| rival.own) {
            let id = open_here(&mut pair, rival.urgency, rival.length);
            urgencies.insert(id, rival.urgency);
        }
        let mut sent = BTreeMap::new();
        for _ in 0..begun {
            send_one(&mut pair, &mut sent);
        }
        sent.clear();
        pair.gateway.write(call, &vec![0; call_length]).unwrap();
        let mut late = late.into_iter();
        while sent.get(&call).is_none_or(|sent| *sent < call_length) {
            if let Some(rival) = late.next() {
                let id = open_here(&mut pair, rival.urgency, rival.length);
                urgencies.insert(id, rival.urgency);
            }
            prop_assert!(send_one(&mut pair, &mut sent), "stuck");
        }
        let mut less_urgent = 0;
        for (id, sent) in sent.into_iter().filter(|(id, _)| *id != call) {
            if urgencies[&id] == call_urgency {
                prop_assert!(sent <= QUANTUM, "{id} sent {sent}");
            } else if urgencies[&id] > call_urgency {
                less_urgent += sent;
            }
        }
        prop_assert!(less_urgent <= QUANTUM, "the less urgent sent {less_urgent}");
    }
}
