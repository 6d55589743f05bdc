//! Who goes first, and that nobody waits for ever.

use bytes::Bytes;

use super::pair::{Pair, http};
use crate::{Config, Frame, QUANTUM, StreamId, Urgency};

/// The order in which payload leaves, a batch of the transport's at a time.
fn payload_order(pair: &mut Pair, batches: usize) -> Vec<(StreamId, usize)> {
    let mut order = Vec::new();
    for _ in 0..batches {
        let mut out = crate::Transmit::new(1);
        if !pair.gateway.connection.poll_transmit(pair.now, &mut out) {
            break;
        }
        let mut bytes = bytes::BytesMut::new();
        while bytes::Buf::has_remaining(&out) {
            let chunk = bytes::Buf::chunk(&out);
            let length = chunk.len();
            bytes.extend_from_slice(chunk);
            bytes::Buf::advance(&mut out, length);
        }
        while let Some(frame) = crate::decode(&mut bytes, u16::MAX).unwrap() {
            if let Frame::Data { id, payload, .. } = frame {
                order.push((id, payload.len()));
            }
        }
    }
    order
}

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

/// SCHED-2: one bulk stream and 100 small calls: no call waits for more than one quantum of the bulk.
#[test]
fn one_bulk_and_a_hundred_small_calls() {
    let config = Config::default()
        .set_stream_window(1 << 20)
        .set_send_buffer(1 << 20);
    let mut pair = Pair::with(config.clone(), config);
    let bulk = open(&mut pair, Urgency::Interactive);
    let small: Vec<StreamId> = (0..100)
        .map(|_| open(&mut pair, Urgency::Interactive))
        .collect();
    pair.gateway.write(bulk, &vec![0; 1 << 20]).unwrap();
    // The bulk stream has begun before any call is there.
    let begun = payload_order(&mut pair, 3);
    assert_eq!(begun, [(bulk, QUANTUM); 3]);
    for id in &small {
        pair.gateway.write(*id, &[1; 500]).unwrap();
    }
    let order = payload_order(&mut pair, 1000);
    let last_small = order.iter().rposition(|(id, _)| *id != bulk).unwrap();
    let bulk_before = order[..last_small]
        .iter()
        .filter(|(id, _)| *id == bulk)
        .count();
    assert_eq!(bulk_before, 1, "one quantum of the rival, then every call");
    let bulk_in_all = order.iter().filter(|(id, _)| *id == bulk).count();
    assert_eq!(begun.len() + bulk_in_all, (1_usize << 20).div_ceil(QUANTUM));
}

/// SCHED-3: interactive first, but bulk and background are not starved.
#[test]
fn urgent_streams_go_first_and_starve_nobody() {
    let config = Config::default()
        .set_stream_window(1 << 20)
        .set_send_buffer(1 << 20)
        .set_session_send_buffer(4 << 20);
    let mut pair = Pair::with(config.clone(), config);
    let streams = [Urgency::Background, Urgency::Bulk, Urgency::Interactive]
        .map(|urgency| open(&mut pair, urgency));
    for id in streams {
        pair.gateway.write(id, &vec![0; 1 << 20]).unwrap();
    }
    let order = payload_order(&mut pair, 60);
    let share = |id: StreamId| order.iter().filter(|(other, _)| *other == id).count();
    let [background, bulk, interactive] = streams.map(share);
    assert_eq!(order[0].0, streams[2]);
    assert!(interactive > 40, "{interactive}");
    assert!(bulk >= 5 && background >= 5, "{bulk} {background}");
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
    let mut bytes = bytes::BytesMut::from(&pair.gateway.drain(pair.now)[..]);
    let mut kinds = Vec::new();
    while let Some(frame) = crate::decode(&mut bytes, u16::MAX).unwrap() {
        kinds.push(frame.kind());
    }
    assert_eq!(kinds, [0x40, 0x44, 0x42, 0x42, 0x42, 0x42]);
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
