//! Two ends of a link in memory, with a round trip of 60 ms that takes no time.
//!
//! The core does no IO and reads no clock, so a whole download can be simulated, always with the same outcome. Run it
//! with `cargo run -p embed --example proto_pair`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use bytes::{Buf, Bytes, BytesMut};
use mcp_tunnel_proto::{
    Config, Connection, EdgeHandshake, Event, GatewayHandshake, OpenHeader, ReadError, RouteName,
    StreamId, StreamKind, Transmit, WriteError,
};

const ONE_WAY: Duration = Duration::from_millis(30);
const DOWNLOAD: usize = 8 * 1024 * 1024;

/// One end, and what is on its way to it.
struct End {
    session: Connection,
    arriving: VecDeque<(Instant, Bytes)>,
    input: BytesMut,
}

impl End {
    fn new(session: Connection) -> Self {
        Self {
            session,
            arriving: VecDeque::new(),
            input: BytesMut::new(),
        }
    }

    /// Everything this end has to send sets out for `peer`.
    fn send_to(&mut self, now: Instant, peer: &mut Self) {
        let mut out = Transmit::new(64 * 1024);
        while self.session.poll_transmit(now, &mut out) {
            let bytes = out.copy_to_bytes(out.remaining());
            peer.arriving.push_back((now + ONE_WAY, bytes));
        }
    }

    fn receive(&mut self, now: Instant) -> anyhow::Result<()> {
        while self.arriving.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, bytes)) = self.arriving.pop_front() {
                self.input.extend_from_slice(&bytes);
                self.session.handle_input(now, &mut self.input)?;
            }
        }
        self.session.handle_timeout(now);
        Ok(())
    }

    /// When something will happen here.
    fn next(&self) -> Option<Instant> {
        let arrival = self.arriving.front().map(|(at, _)| *at);
        arrival.into_iter().chain(self.session.poll_timeout()).min()
    }
}

/// HELLO each way, then the edge admits whatever comes.
fn handshake(now: Instant) -> anyhow::Result<(End, End)> {
    let config = Arc::new(Config::default());
    let mut out = Transmit::new(64 * 1024);
    let credential = Bytes::from_static(b"proof");
    let mut gateway = GatewayHandshake::new(now, Arc::clone(&config), credential, "gateway 1")?;
    let mut edge = EdgeHandshake::new(now, Arc::clone(&config), "edge 1")?;
    gateway.poll_transmit(now, &mut out);
    let mut input = BytesMut::from(out.copy_to_bytes(out.remaining()));
    let hello = edge.handle_input(now, &mut input)?.context("no hello")?;
    println!("edge     hears {} on side {}", hello.agent, hello.side);
    let edge = edge
        .admit(now, config, &mut out)
        .map_err(|_| anyhow!("the edge was not ready"))?;
    let mut input = BytesMut::from(out.copy_to_bytes(out.remaining()));
    while let Some(event) = gateway.handle_input(now, &mut input)? {
        println!("gateway  hears {}", short(&format!("{event:?}")));
    }
    let gateway = gateway
        .into_connection(now)
        .map_err(|_| anyhow!("the gateway was not admitted"))?;
    Ok((End::new(gateway), End::new(edge)))
}

fn short(text: &str) -> &str {
    text.split(['(', ' ']).next().unwrap_or(text)
}

/// The gateway's application: reads the request, then writes as much of the download as there is room for.
fn serve(session: &mut Connection, left: &mut usize) -> anyhow::Result<()> {
    let mut stream: Option<StreamId> = None;
    while let Some(event) = session.poll_event() {
        match event {
            Event::Opened { id, header } => {
                let request = session.recv_stream(id).context("gone")?.read(1024)?;
                println!("gateway  opened {id} for {:?}: {request:?}", header.route);
                stream = Some(id);
            }
            Event::Writable { id } => stream = Some(id),
            _ => {}
        }
    }
    let Some(id) = stream else { return Ok(()) };
    while *left > 0 {
        let mut piece = Bytes::from(vec![7; (*left).min(64 * 1024)]);
        match session.send_stream(id).context("gone")?.write(&mut piece) {
            Ok(accepted) => *left -= accepted,
            Err(WriteError::Blocked) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    session.send_stream(id).context("gone")?.finish()?;
    println!("gateway  has written everything");
    Ok(())
}

pub(crate) fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    let (mut gateway, mut edge) = handshake(start)?;

    let header = OpenHeader::new(StreamKind::Http, RouteName::parse("files")?);
    let mut request = Bytes::from_static(b"GET /big");
    let id = edge.session.open(header, &mut request)?;
    edge.session.send_stream(id).context("gone")?.finish()?;

    let (mut now, mut left, mut received) = (start, DOWNLOAD, 0);
    loop {
        serve(&mut gateway.session, &mut left)?;
        while edge.session.poll_event().is_some() {}
        let finished = loop {
            let mut reader = edge.session.recv_stream(id).context("gone")?;
            match reader.read(usize::MAX) {
                Ok(Some(piece)) => received += piece.len(),
                Ok(None) => break true,
                Err(ReadError::Blocked) => break false,
                Err(error) => return Err(error.into()),
            }
        };
        if finished {
            break;
        }
        gateway.send_to(now, &mut edge);
        edge.send_to(now, &mut gateway);
        // Nothing happens until the next arrival or alarm: the clock jumps there.
        let next = gateway.next().into_iter().chain(edge.next()).min();
        now = next.context("nothing will ever happen")?.max(now);
        gateway.receive(now)?;
        edge.receive(now)?;
    }
    let took = now.duration_since(start);
    println!("edge     has {received} bytes after {took:?} of virtual time");
    ensure!(received == DOWNLOAD, "bytes were lost");
    ensure!(took < Duration::from_secs(2), "the windows did not widen");
    Ok(())
}
