//! The core on plain threads and blocking sockets: no async runtime, one thread an end.
//!
//! Run it with `cargo run -p embed --example proto_threads`.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use std::{sync::Arc, thread};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use mcp_tunnel_proto::{
    CloseCode, Config, Connection, ConnectionError, EdgeHandshake, Event, GatewayHandshake,
    OpenHeader, RouteName, StreamId, StreamKind, Transmit,
};

/// A blocking socket, what was read from it, and what it is to send.
struct Link(TcpStream, BytesMut, Transmit);

impl Link {
    /// Writes everything, then reads once, but waits no longer than until `alarm`; without one it only writes.
    fn turn(&mut self, alarm: Option<Instant>) -> anyhow::Result<()> {
        let Self(socket, input, out) = self;
        while out.has_remaining() {
            let written = socket.write(out.chunk())?;
            out.advance(written);
        }
        let Some(alarm) = alarm else { return Ok(()) };
        let wait = alarm.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut buffer = [0; 16 * 1024];
        match socket.read(&mut buffer) {
            Ok(0) => bail!("the connection ended"),
            Ok(length) => input.extend_from_slice(&buffer[..length]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Runs a session until it ends; `on_message` is the application.
    fn run(
        mut self,
        mut session: Connection,
        on_message: impl Fn(&mut Connection, StreamId, Bytes) -> anyhow::Result<()>,
    ) -> anyhow::Result<ConnectionError> {
        loop {
            let mut ended = None;
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Opened { id, .. } | Event::Readable { id } => {
                        if let Some(message) = read(&mut session, id) {
                            on_message(&mut session, id, message)?;
                        }
                    }
                    Event::Closed(error) => ended = Some(error),
                    _ => {}
                }
            }
            while session.poll_transmit(Instant::now(), &mut self.2) {
                self.turn(None)?;
            }
            if let Some(error) = ended {
                return Ok(error);
            }
            self.turn(session.poll_timeout())?;
            session.handle_timeout(Instant::now());
            // How it went comes as an event too.
            let _ = session.handle_input(Instant::now(), &mut self.1);
        }
    }
}

/// The one message of a stream, once it is there; with it goes the end.
fn read(session: &mut Connection, id: StreamId) -> Option<Bytes> {
    let mut recv = session.recv_stream(id)?;
    let message = recv.read(usize::MAX).ok()?;
    let _end = recv.read(usize::MAX);
    message
}

/// The gateway dials, and answers with the caller's own words in upper case.
fn gateway(mut link: Link) -> anyhow::Result<ConnectionError> {
    let mut waiting = GatewayHandshake::new(Instant::now(), Arc::default(), Bytes::new(), "")?;
    let session = loop {
        waiting.poll_transmit(Instant::now(), &mut link.2);
        link.turn(waiting.poll_timeout())?;
        waiting.handle_timeout(Instant::now())?;
        while (waiting.handle_input(Instant::now(), &mut link.1)?).is_some() {}
        match waiting.into_connection(Instant::now()) {
            Ok(session) => break session,
            Err(not_yet) => waiting = not_yet,
        }
    };
    link.run(session, |session, id, message| {
        let mut send = session.send_stream(id).context("gone")?;
        send.write(&mut Bytes::from(message.to_ascii_uppercase()))?;
        Ok(send.finish()?)
    })
}

/// The edge accepts, admits, makes a call, and closes once it is answered.
fn edge(mut link: Link) -> anyhow::Result<ConnectionError> {
    let config: Arc<Config> = Arc::default();
    let mut waiting = EdgeHandshake::new(Instant::now(), Arc::clone(&config), "")?;
    while (waiting.handle_input(Instant::now(), &mut link.1)?).is_none() {
        link.turn(waiting.poll_timeout())?;
    }
    let admitted = waiting.admit(Instant::now(), config, &mut link.2);
    let mut session = admitted.map_err(|_| anyhow!("not ready"))?;
    let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
    let id = session.open(header, &mut Bytes::from_static(b"ping"))?;
    session.send_stream(id).context("gone")?.finish()?;
    link.run(session, |session, _, message| {
        ensure!(message == "PING", "a wrong answer");
        session.close(CloseCode::NO_ERROR, "");
        Ok(())
    })
}

pub(crate) fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let link = |socket| Link(socket, BytesMut::new(), Transmit::new(64 * 1024));
    let dialled = link(TcpStream::connect(listener.local_addr()?)?);
    let gateway = thread::spawn(|| gateway(dialled));
    println!("edge    ended: {}", edge(link(listener.accept()?.0))?);
    let ended = gateway.join().map_err(|_| anyhow!("it panicked"))??;
    println!("gateway ended: {ended}");
    Ok(())
}
