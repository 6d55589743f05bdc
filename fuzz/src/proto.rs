//! Frames, handshakes and sessions of `mcp-tunnel-proto`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use mcp_tunnel_proto::{
    CloseCode, Config, Connection, ConnectionError, EdgeHandshake, Event, Features, Frame,
    GatewayEvent, GatewayHandshake, OpenHeader, ReadError, ResetCode, Resumable, RouteName,
    SessionId, Side, StreamId, StreamKind, Transmit, Urgency, decode,
};

/// Frames one after another; what is understood can be said again and means the same.
pub(crate) fn frame(bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(frame)) = decode(&mut input, 16_384) {
        if matches!(frame, Frame::Ignored { .. }) {
            continue;
        }
        let mut again = BytesMut::new();
        frame
            .encode(&mut again)
            .expect("what was received can be sent");
        assert_eq!(decode(&mut again, 16_384), Ok(Some(frame)));
        assert!(again.is_empty());
    }
}

/// A peer's first bytes; the first byte says which side hears them and how they are cut.
pub(crate) fn hello(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let size = usize::from(choice >> 1).max(1);
    if choice & 1 == 0 {
        hello_to_edge(bytes, size);
    } else {
        hello_to_gateway(bytes, size);
    }
}

fn hello_to_edge(bytes: &[u8], size: usize) {
    let now = Instant::now();
    let mut edge = EdgeHandshake::new(now, Arc::default(), "fuzz").expect("a short hello");
    let (mut input, mut out) = (BytesMut::new(), Transmit::new(1 << 16));
    let mut greeted = false;
    for chunk in bytes.chunks(size) {
        input.extend_from_slice(chunk);
        loop {
            match edge.handle_input(now, &mut input) {
                Ok(Some(_)) => {
                    greeted = true;
                    edge.pend("CODE");
                }
                Ok(None) => break,
                Err(_) => {
                    edge.poll_transmit(now, &mut out);
                    assert!(edge.handle_input(now, &mut input).is_err());
                    return;
                }
            }
        }
        assert!(input.len() <= 4096, "an unproven peer holds at most 4 KiB");
        edge.poll_transmit(now, &mut out);
        out.clear();
    }
    assert_eq!(edge.admit(now, Arc::default(), &mut out).is_ok(), greeted);
}

fn hello_to_gateway(bytes: &[u8], size: usize) {
    let now = Instant::now();
    let mut gateway =
        GatewayHandshake::new(now, Arc::default(), Bytes::new(), "fuzz").expect("a short hello");
    let (mut input, mut out) = (BytesMut::new(), Transmit::new(1 << 16));
    let mut active = false;
    for chunk in bytes.chunks(size) {
        input.extend_from_slice(chunk);
        while !active {
            match gateway.handle_input(now, &mut input) {
                Ok(Some(event)) => active = matches!(event, GatewayEvent::Active(_)),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        gateway.poll_transmit(now, &mut out);
        out.clear();
    }
    if let Ok(mut session) = gateway.into_connection(now) {
        let _ = session.handle_input(now, &mut input);
        while session.poll_event().is_some() {}
    }
}

/// A hostile peer: bytes of its choice, cut as the first byte says, to a session whose application reads and answers. 255:
/// each piece comes 300 times, which is more than some budgets.
pub(crate) fn peer(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let times = if *choice == u8::MAX { 300 } else { 1 };
    let (mut session, _, now) = sessions();
    let (mut input, mut out) = (BytesMut::new(), Transmit::new(1 << 16));
    let mut ended = 0;
    let chunks = bytes.chunks(usize::from(*choice).max(1));
    for chunk in chunks.flat_map(|chunk| std::iter::repeat_n(chunk, times)) {
        input.extend_from_slice(chunk);
        let failed = session.handle_input(now, &mut input).err();
        while let Some(event) = session.poll_event() {
            match event {
                Event::Opened { id, .. } | Event::Readable { id } => serve(&mut session, id),
                Event::Closed(_) => ended += 1,
                _ => {}
            }
        }
        while session.poll_transmit(now, &mut out) {
            if let Some(ConnectionError::PeerMisbehaved(violation)) = &failed {
                assert_eq!(closed_with(&mut out), Some(violation.close_code()));
            }
            out.clear();
        }
        assert!(session.live_streams() <= 8 + 8);
        assert!(session.buffered() <= 1 << 20);
        if failed.is_some() {
            break;
        }
    }
    assert!(ended <= 1);
}

/// The code of the CLOSE that is the first to be sent.
fn closed_with(out: &mut Transmit) -> Option<CloseCode> {
    let mut bytes = BytesMut::from(out.copy_to_bytes(out.remaining()));
    match decode(&mut bytes, u16::MAX) {
        Ok(Some(Frame::Close { code, .. })) => Some(code),
        _ => None,
    }
}

/// An application that echoes what it reads and ends when the peer does.
fn serve(session: &mut Connection, id: StreamId) {
    while let Some(mut recv) = session.recv_stream(id) {
        match recv.read(1000) {
            Ok(Some(mut piece)) => {
                if let Some(mut send) = session.send_stream(id) {
                    let _ = send.write(&mut piece);
                }
            }
            Ok(None) => {
                if let Some(send) = session.send_stream(id) {
                    let _ = send.finish();
                }
            }
            Err(ReadError::Blocked) => return,
            Err(_) => {
                if let Some(send) = session.send_stream(id) {
                    send.reset(ResetCode::INTERNAL);
                }
                return;
            }
        }
    }
}

/// Operations on two honest ends, broken links among them, two bytes each; every stream's bytes arrive in order, and neither end is ever blamed.
pub(crate) fn session(bytes: &[u8]) {
    let mut world = World::new();
    for op in bytes.chunks_exact(2) {
        world.apply(op[0], op[1]);
    }
    world.settle();
}

fn config() -> Config {
    Config::default()
        .set_max_frame(4096)
        .set_stream_window(3000)
        .set_wide_stream_window(6000)
        .set_shared_window(8000)
        .set_session_window(64 * 1024)
        .set_max_streams(8)
        .set_max_opened_streams(8)
        .set_features(Features::RESUME)
}

/// A gateway's and an edge's session, past the handshake.
fn sessions() -> (Connection, Connection, Instant) {
    let now = Instant::now();
    let config = Arc::new(config());
    let mut out = Transmit::new(1 << 16);
    let mut gateway = GatewayHandshake::new(now, Arc::clone(&config), Bytes::new(), "fuzz")
        .expect("a short hello");
    let mut edge = EdgeHandshake::new(now, Arc::clone(&config), "fuzz").expect("a short hello");
    gateway.poll_transmit(now, &mut out);
    let mut input = BytesMut::from(out.copy_to_bytes(out.remaining()));
    edge.handle_input(now, &mut input).expect("a good hello");
    let resumable = Resumable::new(SessionId::new([1; 16]), Duration::from_secs(60));
    let edge = edge
        .admit_resumable(now, config, Some(resumable), &mut out)
        .expect("greeted");
    let mut input = BytesMut::from(out.copy_to_bytes(out.remaining()));
    while gateway
        .handle_input(now, &mut input)
        .expect("a good answer")
        .is_some()
    {}
    let gateway = gateway.into_connection(now).expect("admitted");
    (gateway, edge, now)
}

struct World {
    ends: [Connection; 2],
    inputs: [BytesMut; 2],
    wires: [VecDeque<u8>; 2],
    now: Instant,
    /// Streams that an end's application has opened or accepted.
    known: [Vec<StreamId>; 2],
    /// How many bytes an end has written to and read from a stream: their values follow from their places.
    written: BTreeMap<(usize, StreamId), usize>,
    read: BTreeMap<(usize, StreamId), usize>,
}

const SIDES: [Side; 2] = [Side::Gateway, Side::Edge];

fn value(id: StreamId, at: usize) -> u8 {
    let mixed = at.wrapping_mul(31) ^ usize::try_from(id.as_u64()).unwrap_or(0);
    mixed.to_le_bytes()[0]
}

impl World {
    fn new() -> Self {
        let (gateway, edge, now) = sessions();
        Self {
            ends: [gateway, edge],
            inputs: Default::default(),
            wires: Default::default(),
            now,
            known: Default::default(),
            written: BTreeMap::new(),
            read: BTreeMap::new(),
        }
    }

    fn apply(&mut self, op: u8, argument: u8) {
        let end = usize::from(op >> 7);
        let length = usize::from(argument) * 20 + 1;
        let which = usize::from(op >> 4 & 7);
        let stream = self.known[end].iter().rev().nth(which).copied();
        match (op & 15, stream) {
            (0 | 1, _) => self.open(end, length),
            (2..=4, Some(id)) => self.write(end, id, length),
            (5, Some(id)) => {
                if let Some(send) = self.ends[end].send_stream(id) {
                    let _ = send.finish();
                }
            }
            (6, Some(id)) => {
                if let Some(send) = self.ends[end].send_stream(id) {
                    send.reset(ResetCode::CANCELLED);
                }
            }
            (7 | 8, Some(id)) => {
                self.read(end, id, length);
            }
            (9, Some(id)) => {
                if let Some(recv) = self.ends[end].recv_stream(id) {
                    recv.stop(ResetCode::CANCELLED);
                }
            }
            (10 | 11, _) => self.send(end),
            (12 | 13, _) => self.deliver(end, length),
            (14, _) if argument >= 224 => self.cut(),
            (14, _) => self.now += Duration::from_millis(argument.into()),
            (15, _) if argument > 250 => {
                self.ends[end].go_away(CloseCode::SHUTDOWN, None, "");
            }
            _ => {}
        }
    }

    /// The link breaks with all that is on it; there is a new one at once.
    fn cut(&mut self) {
        let positions: Vec<_> = self.ends.iter().map(Connection::position).collect();
        for end in 0..2 {
            self.wires[end].clear();
            self.inputs[end].clear();
            self.ends[end].detach(self.now).expect("resumable");
            let peer = positions[1 - end].expect("resumable");
            self.ends[end].attach(self.now, peer).expect("honest");
        }
    }

    fn open(&mut self, end: usize, length: usize) {
        let mut header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        header.urgency = match length % 3 {
            0 => Urgency::Interactive,
            1 => Urgency::Bulk,
            _ => Urgency::Background,
        };
        if let Ok(id) = self.ends[end].open(header, &mut Bytes::new()) {
            assert_eq!(id.opener(), SIDES[end]);
            self.known[end].push(id);
            self.write(end, id, length);
        }
    }

    fn write(&mut self, end: usize, id: StreamId, length: usize) {
        let written = self.written.entry((end, id)).or_default();
        let payload: Vec<u8> = (*written..*written + length)
            .map(|at| value(id, at))
            .collect();
        if let Some(mut send) = self.ends[end].send_stream(id)
            && let Ok(taken) = send.write_slice(&payload)
        {
            *written += taken;
        }
    }

    fn read(&mut self, end: usize, id: StreamId, length: usize) -> bool {
        let read = self.read.entry((end, id)).or_default();
        let Some(mut recv) = self.ends[end].recv_stream(id) else {
            return false;
        };
        match recv.read(length) {
            Ok(Some(piece)) => {
                for byte in piece {
                    assert_eq!(byte, value(id, *read), "{id} at {read}");
                    *read += 1;
                }
                true
            }
            Ok(None) => {
                let written = self.written.get(&(1 - end, id)).copied();
                assert_eq!(Some(*read), written.or(Some(0)), "{id} ended early");
                false
            }
            Err(_) => false,
        }
    }

    /// Carries and reads until neither end has anything to say.
    fn rest(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for end in 0..2 {
                self.send(end);
                moved |= !self.wires[end].is_empty();
                self.deliver(1 - end, usize::MAX);
                for id in self.known[1 - end].clone() {
                    while self.read(1 - end, id, 1000) {}
                }
            }
        }
    }

    fn send(&mut self, end: usize) {
        let mut out = Transmit::new(4096);
        while self.ends[end].poll_transmit(self.now, &mut out) {
            let bytes = out.copy_to_bytes(out.remaining());
            self.wires[end].extend(bytes);
        }
    }

    fn deliver(&mut self, end: usize, length: usize) {
        let wire = &mut self.wires[1 - end];
        let length = length.min(wire.len());
        self.inputs[end].extend(wire.drain(..length));
        let outcome = self.ends[end].handle_input(self.now, &mut self.inputs[end]);
        outcome.expect("an honest peer is never blamed");
        while let Some(event) = self.ends[end].poll_event() {
            if let Event::Opened { id, .. } = event {
                assert_eq!(id.opener(), SIDES[1 - end]);
                self.known[end].push(id);
            }
        }
    }

    /// Carries and reads everything, lets go of every stream: both tables are empty in the end.
    fn settle(&mut self) {
        self.rest();
        for end in 0..2 {
            for id in self.known[end].clone() {
                if let Some(send) = self.ends[end].send_stream(id) {
                    send.reset(ResetCode::CANCELLED);
                }
                if let Some(recv) = self.ends[end].recv_stream(id) {
                    recv.stop(ResetCode::CANCELLED);
                }
            }
        }
        self.rest();
        for end in &self.ends {
            assert_eq!(end.live_streams(), 0);
            assert_eq!(end.buffered(), 0);
        }
    }
}
