//! Two ends joined by a virtual link, in virtual time.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    Agreed, Config, Connection, ConnectionError, EdgeHandshake, Event, Features, GatewayEvent,
    GatewayHandshake, OpenHeader, ReadError, ResetCode, Resumable, RouteName, SessionId, StreamId,
    StreamKind, Transmit, WriteError,
};

/// Any instant: only differences count.
#[expect(
    clippy::disallowed_methods,
    reason = "the only way to make an Instant; time then moves by hand"
)]
pub(super) fn epoch() -> Instant {
    Instant::now()
}

/// One end: a session, its input so far, its events so far.
pub(super) struct End {
    pub(super) connection: Connection,
    pub(super) input: BytesMut,
    pub(super) events: VecDeque<Event>,
    pub(super) failed: Option<ConnectionError>,
}

impl End {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            input: BytesMut::new(),
            events: VecDeque::new(),
            failed: None,
        }
    }

    pub(super) fn feed(&mut self, now: Instant, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        if let Err(error) = self.connection.handle_input(now, &mut self.input) {
            self.failed = Some(error);
        }
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Whether this has happened since the last time it was asked.
    pub(super) fn saw(&mut self, event: &Event) -> bool {
        self.collect();
        let at = self.events.iter().position(|other| other == event);
        at.is_some_and(|at| self.events.remove(at).is_some())
    }

    /// Everything there is to send.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Transmit::new(64 * 1024);
        let mut bytes = Vec::new();
        while self.connection.poll_transmit(now, &mut out) {
            let mut wire = out.copy_to_bytes(out.remaining());
            bytes.extend_from_slice(&wire);
            wire.clear();
        }
        bytes
    }

    pub(super) fn open(&mut self, first: &'static [u8]) -> StreamId {
        let mut first = Bytes::from_static(first);
        let id = self.connection.open(http(), &mut first).unwrap();
        assert!(first.is_empty());
        id
    }

    pub(super) fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, WriteError> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        self.connection
            .send_stream(id)
            .ok_or(WriteError::Closed)?
            .write(&mut bytes)
    }

    pub(super) fn finish(&mut self, id: StreamId) {
        self.connection.send_stream(id).unwrap().finish().unwrap();
    }

    pub(super) fn reset(&mut self, id: StreamId, code: ResetCode) {
        self.connection.send_stream(id).unwrap().reset(code);
    }

    pub(super) fn stop(&mut self, id: StreamId, code: ResetCode) {
        self.connection.recv_stream(id).unwrap().stop(code);
    }

    pub(super) fn read(&mut self, id: StreamId) -> Result<Option<Bytes>, ReadError> {
        self.connection
            .recv_stream(id)
            .ok_or(ReadError::Closed)?
            .read(usize::MAX)
    }

    /// Reads what is there: the bytes, and how it ended.
    pub(super) fn read_all(&mut self, id: StreamId) -> (Vec<u8>, Result<(), ReadError>) {
        let mut bytes = Vec::new();
        loop {
            match self.read(id) {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => return (bytes, Ok(())),
                Err(error) => return (bytes, Err(error)),
            }
        }
    }

    /// The id of the next stream that the peer opened.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        let at = self
            .events
            .iter()
            .position(|event| matches!(event, Event::Opened { .. }))?;
        match self.events.remove(at) {
            Some(Event::Opened { id, .. }) => Some(id),
            _ => None,
        }
    }
}

pub(super) fn http() -> OpenHeader {
    OpenHeader::new(StreamKind::Http, RouteName::default_route())
}

/// Something to write, which differs for each `start`.
pub(super) fn pattern(start: u8, length: usize) -> Bytes {
    let byte = |at: usize| (at % 251).to_le_bytes()[0].wrapping_mul(31);
    let bytes = (0..length).map(|at| byte(at).wrapping_add(start));
    bytes.collect::<Vec<_>>().into()
}

/// Both ends, and the time.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) gateway: End,
    pub(super) edge: End,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Config::default(), Config::default())
    }

    pub(super) fn with(gateway: Config, edge: Config) -> Self {
        let now = epoch();
        let (gateway, edge) = (Arc::new(gateway), Arc::new(edge));
        let mut dialling =
            GatewayHandshake::new(now, gateway, Bytes::from_static(b"proof"), "test").unwrap();
        let mut accepting = EdgeHandshake::new(now, Arc::clone(&edge), "test").unwrap();
        let (mut to_edge, mut to_gateway) = (Transmit::new(1 << 20), Transmit::new(1 << 20));
        dialling.poll_transmit(now, &mut to_edge);
        let mut input = BytesMut::from(to_edge.copy_to_bytes(to_edge.remaining()));
        let hello = accepting.handle_input(now, &mut input).unwrap().unwrap();
        assert_eq!(hello.credential, "proof");
        let edge = accepting.admit(now, edge, &mut to_gateway).unwrap();
        let mut input = BytesMut::from(to_gateway.copy_to_bytes(to_gateway.remaining()));
        let mut active = false;
        while let Some(event) = dialling.handle_input(now, &mut input).unwrap() {
            active |= matches!(event, GatewayEvent::Active(_));
        }
        assert!(active);
        // What is left is for the session: the edge's first ping.
        let mut gateway = End::new(dialling.into_connection(now).unwrap());
        gateway.feed(now, &input);
        Self {
            now,
            gateway,
            edge: End::new(edge),
        }
    }

    /// A pair whose session survives its link, for a minute.
    pub(super) fn resumable(gateway: Config, edge: Config) -> Self {
        let mut pair = Self::with(gateway.clone(), edge.clone());
        let resumable = Resumable::new(SessionId::new([7; 16]), Duration::from_secs(60));
        for (end, config) in [(&mut pair.gateway, gateway), (&mut pair.edge, edge)] {
            let agreed = Agreed {
                features: Features::RESUME,
                resumable: Some(resumable),
                ..*end.connection.agreed()
            };
            *end = End::new(Connection::new(pair.now, agreed, Arc::new(config)));
        }
        pair
    }

    /// The link is gone, with whatever was on it; the sessions know.
    pub(super) fn cut(&mut self) {
        for end in [&mut self.gateway, &mut self.edge] {
            end.connection.detach(self.now).unwrap();
            end.input.clear();
        }
    }

    /// A new link: both sides say how far they have come, and go on.
    pub(super) fn resume(&mut self) {
        let gateway = self.gateway.connection.position().unwrap();
        let edge = self.edge.connection.position().unwrap();
        self.gateway.connection.attach(self.now, edge).unwrap();
        self.edge.connection.attach(self.now, gateway).unwrap();
    }

    /// Carries what each end has to send once; says whether anything was.
    pub(super) fn step(&mut self) -> bool {
        let to_edge = self.gateway.drain(self.now);
        let to_gateway = self.edge.drain(self.now);
        if !to_edge.is_empty() {
            self.edge.feed(self.now, &to_edge);
        }
        if !to_gateway.is_empty() {
            self.gateway.feed(self.now, &to_gateway);
        }
        !to_edge.is_empty() || !to_gateway.is_empty()
    }

    /// Carries until neither end has anything to send.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the two ends never come to rest");
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.gateway.connection.handle_timeout(self.now);
        self.edge.connection.handle_timeout(self.now);
    }
}
