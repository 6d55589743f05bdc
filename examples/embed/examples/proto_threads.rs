//! The core on plain threads and blocking sockets: no async runtime, one thread an end.
//!
//! Run it with `cargo run -p embed --example proto_threads`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use mcp_tunnel_proto::{
    CloseCode, Config, Connection, ConnectionError, EdgeHandshake, Event, GatewayHandshake,
    OpenHeader, RouteName, StreamId, StreamKind, Transmit,
};

const CALLS: usize = 20;

/// A blocking socket, and what was read from it.
struct Link {
    socket: TcpStream,
    input: BytesMut,
    out: Transmit,
}

impl Link {
    fn new(socket: TcpStream) -> anyhow::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            input: BytesMut::new(),
            out: Transmit::new(64 * 1024),
        })
    }

    fn write(&mut self) -> anyhow::Result<()> {
        while self.out.has_remaining() {
            let written = self.socket.write(self.out.chunk())?;
            self.out.advance(written);
        }
        Ok(())
    }

    /// Reads once, but waits no longer than until `alarm`.
    fn read(&mut self, alarm: Option<Instant>) -> anyhow::Result<()> {
        let wait = alarm.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        self.socket.set_read_timeout(wait)?;
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(anyhow!("the connection ended")),
            Ok(length) => {
                self.input.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs a session until it ends; `on_event` is the application.
    fn run(
        mut self,
        mut session: Connection,
        mut on_event: impl FnMut(&mut Connection, Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<ConnectionError> {
        loop {
            let mut ended = None;
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Closed(error) => ended = Some(error),
                    event => on_event(&mut session, event)?,
                }
            }
            while session.poll_transmit(Instant::now(), &mut self.out) {
                self.write()?;
            }
            match ended {
                Some(error) => return Ok(error),
                None if session.is_closed() => continue,
                None => self.read(session.poll_timeout())?,
            }
            session.handle_timeout(Instant::now());
            // How it went comes as an event too.
            let _ = session.handle_input(Instant::now(), &mut self.input);
        }
    }
}

/// Reads what is there; `Some` once the stream has ended.
fn read(session: &mut Connection, id: StreamId) -> Option<Bytes> {
    let mut recv = session.recv_stream(id)?;
    let piece = recv.read(usize::MAX).ok()??;
    let _end = recv.read(usize::MAX);
    Some(piece)
}

/// The gateway dials and answers every call with its own words in upper case.
fn gateway(socket: TcpStream) -> anyhow::Result<ConnectionError> {
    let mut link = Link::new(socket)?;
    let mut handshake = GatewayHandshake::new(Instant::now(), Arc::default(), Bytes::new(), "")?;
    let session = loop {
        handshake.poll_transmit(Instant::now(), &mut link.out);
        link.write()?;
        link.read(handshake.poll_timeout())?;
        handshake.handle_timeout(Instant::now())?;
        while handshake
            .handle_input(Instant::now(), &mut link.input)?
            .is_some()
        {}
        match handshake.into_connection(Instant::now()) {
            Ok(session) => break session,
            Err(waiting) => handshake = waiting,
        }
    };
    link.run(session, |session, event| {
        if let Event::Opened { id, .. } = event
            && let Some(request) = read(session, id)
        {
            let mut answer = Bytes::from(request.to_ascii_uppercase());
            let mut send = session.send_stream(id).ok_or_else(|| anyhow!("gone"))?;
            send.write(&mut answer)?;
            send.finish()?;
        }
        Ok(())
    })
}

/// The edge accepts, admits, and makes calls one after another.
fn edge(socket: TcpStream) -> anyhow::Result<ConnectionError> {
    let mut link = Link::new(socket)?;
    let config: Arc<Config> = Arc::default();
    let mut handshake = EdgeHandshake::new(Instant::now(), Arc::clone(&config), "")?;
    while handshake
        .handle_input(Instant::now(), &mut link.input)?
        .is_none()
    {
        link.read(handshake.poll_timeout())?;
    }
    let admitted = handshake.admit(Instant::now(), config, &mut link.out);
    let mut session = admitted.map_err(|_| anyhow!("not ready"))?;
    let (started, mut answers) = (Instant::now(), 0);
    call(&mut session)?;
    link.run(session, move |session, event| {
        if let Event::Readable { id } = event
            && let Some(answer) = read(session, id)
        {
            ensure!(answer == "PING", "a wrong answer");
            answers += 1;
            if answers < CALLS {
                call(session)?;
            } else {
                println!("{CALLS} calls in {:?}", started.elapsed());
                session.close(CloseCode::NO_ERROR, "");
            }
        }
        Ok(())
    })
}

fn call(session: &mut Connection) -> anyhow::Result<()> {
    let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
    let id = session.open(header, &mut Bytes::from_static(b"ping"))?;
    session
        .send_stream(id)
        .ok_or_else(|| anyhow!("gone"))?
        .finish()?;
    Ok(())
}

pub(crate) fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let dialled = thread::spawn(move || gateway(TcpStream::connect(address)?));
    println!("edge     ended: {}", edge(listener.accept()?.0)?);
    let ended = dialled
        .join()
        .map_err(|_| anyhow!("the gateway panicked"))??;
    println!("gateway  ended: {ended}");
    Ok(())
}
