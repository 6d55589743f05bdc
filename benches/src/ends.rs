//! The frame codec, and both ends of a session over it without any IO.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use mcp_tunnel_proto::{
    Config, Connection, EdgeHandshake, Features, Frame, GatewayHandshake, OpenHeader, Resumable,
    RouteName, SessionId, StreamId, StreamKind, Transmit, decode,
};

/// What one read of the transport brings.
const BATCH: usize = 64 * 1024;

/// A read's worth of DATA frames with `size` bytes of payload each.
pub fn frames(size: usize) -> (BytesMut, usize) {
    let frame = data(size);
    let mut wire = BytesMut::new();
    let count = (BATCH / (size + 8)).max(1);
    for _ in 0..count {
        frame.encode(&mut wire).expect("the frame fits");
    }
    (wire, count)
}

fn data(size: usize) -> Frame {
    Frame::Data {
        id: StreamId::new(2).expect("an id"),
        payload: Bytes::from(vec![7; size]),
        fin: false,
    }
}

/// Decodes whatever is in `input`.
pub fn decode_all(input: &mut BytesMut) {
    while let Ok(Some(frame)) = decode(input, u16::MAX) {
        black_box(frame);
    }
}

/// Both ends of a session with one open stream and windows that never fill.
pub struct Ends {
    gateway: Connection,
    edge: Connection,
    stream: StreamId,
    out: Transmit,
    input: BytesMut,
    payload: Bytes,
    now: Instant,
}

impl Ends {
    /// A session that ends with its link, for payloads of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self::with(size, Features::NONE)
    }

    /// The same with a session that survives its link: frames are kept until acknowledged.
    pub fn resumable(size: usize) -> Self {
        Self::with(size, Features::RESUME)
    }

    fn with(size: usize, features: Features) -> Self {
        let now = Instant::now();
        let config = Arc::new(
            Config::default()
                .set_stream_window(1 << 60)
                .set_session_window(1 << 60)
                .set_send_buffer(1 << 20)
                .set_features(features),
        );
        let mut out = Transmit::new(BATCH);
        let mut gateway = GatewayHandshake::new(now, Arc::clone(&config), Bytes::new(), "bench")
            .expect("a short hello");
        let mut edge =
            EdgeHandshake::new(now, Arc::clone(&config), "bench").expect("a short hello");
        gateway.poll_transmit(now, &mut out);
        edge.handle_input(now, &mut carry(&mut out))
            .expect("a good hello");
        let resumable = Resumable::new(SessionId::new([1; 16]), Duration::from_secs(60));
        let mut edge = edge
            .admit_resumable(now, config, Some(resumable), &mut out)
            .expect("greeted");
        let mut input = carry(&mut out);
        while gateway
            .handle_input(now, &mut input)
            .expect("good")
            .is_some()
        {}
        let mut gateway = gateway.into_connection(now).expect("admitted");
        let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        let stream = edge.open(header, &mut Bytes::new()).expect("a slot");
        edge.poll_transmit(now, &mut out);
        gateway
            .handle_input(now, &mut carry(&mut out))
            .expect("good");
        Self {
            gateway,
            edge,
            stream,
            out,
            input: BytesMut::with_capacity(2 * BATCH),
            payload: Bytes::from(vec![7; size]),
            now,
        }
    }

    /// The gateway sends one frame.
    pub fn send(&mut self) {
        let mut payload = self.payload.clone();
        let mut stream = self.gateway.send_stream(self.stream).expect("open");
        stream.write(&mut payload).expect("room");
        self.gateway.poll_transmit(self.now, &mut self.out);
    }

    /// The gateway sends one frame to nowhere.
    pub fn transmit(&mut self) {
        self.send();
        let length = self.out.remaining();
        self.out.advance(length);
    }

    /// A frame from application to application; the copy into the read buffer is the socket's.
    pub fn exchange(&mut self) {
        self.send();
        self.input.reserve(self.out.remaining());
        while self.out.has_remaining() {
            let chunk = self.out.chunk();
            self.input.extend_from_slice(chunk);
            let length = chunk.len();
            self.out.advance(length);
        }
        self.edge
            .handle_input(self.now, &mut self.input)
            .expect("good");
        while self.edge.poll_event().is_some() {}
        while self.gateway.poll_event().is_some() {}
        let mut stream = self.edge.recv_stream(self.stream).expect("open");
        while let Ok(Some(piece)) = stream.read(usize::MAX) {
            black_box(piece);
        }
        if self.edge.wants_transmit() {
            self.edge.poll_transmit(self.now, &mut self.out);
            self.gateway
                .handle_input(self.now, &mut carry(&mut self.out))
                .expect("good");
        }
    }
}

fn carry(out: &mut Transmit) -> BytesMut {
    BytesMut::from(out.copy_to_bytes(out.remaining()))
}
