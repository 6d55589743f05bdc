//! The two ends as programs: sockets, handshakes, and the session between them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};

use super::net::{Id, Net, Rng};
use crate::{
    Config, Connection, EdgeHandshake, GatewayEvent, GatewayHandshake, Position, Refusal,
    RefusalCode, Resumable, Resume, SessionId, Side, Transmit, config::ACK_EVERY,
};

const SESSION: SessionId = SessionId::new([7; 16]);

/// Stands for the MAC over the new link's exporter: no claim can be carried over to another link.
fn proof(side: Side, link: Id, epoch: u32, position: u64) -> [u8; 32] {
    let mut proof = [u8::from(side == Side::Edge); 32];
    proof[..8].copy_from_slice(&u64::try_from(link).unwrap().to_be_bytes());
    proof[8..12].copy_from_slice(&epoch.to_be_bytes());
    proof[12..20].copy_from_slice(&position.to_be_bytes());
    proof
}

/// One end of a link with a handshake on it, or the session.
struct Socket {
    link: Id,
    input: BytesMut,
    out: Transmit,
}

impl Socket {
    fn new(link: Id) -> Self {
        Self {
            link,
            input: BytesMut::new(),
            out: Transmit::new(6000),
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self, now: Instant, side: Side, net: &mut Net, rng: &mut Rng) {
        let length = net.room(self.link, side).min(self.out.remaining());
        if length > 0 {
            let bytes = self.out.copy_to_bytes(length);
            net.send(now, self.link, side, &bytes, rng);
        }
    }
}

/// The session's half of an end.
pub(super) struct Host {
    pub(super) side: Side,
    pub(super) connection: Option<Connection>,
    socket: Option<Socket>,
}

impl Host {
    const fn new(side: Side) -> Self {
        Self {
            side,
            connection: None,
            socket: None,
        }
    }

    fn hear(&mut self, now: Instant, net: &mut Net) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Some(socket) = &mut self.socket {
            for piece in net.arrived(now, socket.link, self.side) {
                socket.input.extend_from_slice(&piece);
                let _ = connection.handle_input(now, &mut socket.input);
            }
        }
        connection.handle_timeout(now);
        let dead = self
            .socket
            .as_ref()
            .is_some_and(|socket| net.is_dead(now, socket.link, self.side));
        if dead {
            let _ = connection.detach(now);
        }
        if !connection.is_attached() || connection.is_closed() {
            self.let_go(now, net);
        }
    }

    fn let_go(&mut self, now: Instant, net: &mut Net) {
        if let Some(socket) = self.socket.take() {
            net.close(now, socket.link, self.side);
        }
    }

    fn say(&mut self, now: Instant, net: &mut Net, rng: &mut Rng) {
        let (Some(connection), Some(socket)) = (&mut self.connection, &mut self.socket) else {
            return;
        };
        loop {
            socket.write(now, self.side, net, rng);
            if !socket.out.is_empty() || !connection.poll_transmit(now, &mut socket.out) {
                return;
            }
        }
    }

    /// What holds at any time.
    pub(super) fn check(&self) {
        if let Some(connection) = &self.connection {
            assert!(connection.retained() <= 64 * 1024 + ACK_EVERY + 2000);
            assert!(connection.buffered() <= 20_000 + 6 * 16 * 1024);
            assert!(connection.live_streams() <= 6);
        }
    }

    fn next_time(&self, now: Instant) -> Option<Instant> {
        let next = self.connection.as_ref()?.poll_timeout()?;
        // A ping that is due and finds no room in the socket: look again, as a driver does.
        let again = now + Duration::from_secs(1);
        Some(if next <= now { again } else { next })
    }

    /// The session goes on over this socket.
    fn attach(&mut self, now: Instant, mut socket: Socket, position: u64) {
        let connection = self.connection.as_mut().expect("a session");
        connection.attach(now, Position::new(position)).unwrap();
        let _ = connection.handle_input(now, &mut socket.input);
        self.socket = Some(socket);
    }
}

/// A gateway: dials until it has a link, one attempt after another.
pub(super) struct Gateway {
    pub(super) host: Host,
    config: Arc<Config>,
    attempt: Option<(Socket, Box<GatewayHandshake>, Instant)>,
    epoch: u32,
    dial_at: Instant,
}

impl Gateway {
    pub(super) fn new(now: Instant, config: Config) -> Self {
        Self {
            host: Host::new(Side::Gateway),
            config: Arc::new(config),
            attempt: None,
            epoch: 0,
            dial_at: now,
        }
    }

    pub(super) fn dial(&mut self, now: Instant, net: &mut Net, rng: &mut Rng) {
        let over = self
            .attempt
            .as_ref()
            .is_some_and(|(_, _, until)| *until <= now);
        if over {
            self.give_up(now, net, rng);
        }
        let wanted = match &self.host.connection {
            None => true,
            Some(connection) => !connection.is_attached() && !connection.is_closed(),
        };
        if !wanted || self.attempt.is_some() || now < self.dial_at {
            return;
        }
        let link = net.dial(now, rng);
        let (config, credential) = (Arc::clone(&self.config), Bytes::from_static(b"proof"));
        let handshake = match &self.host.connection {
            None => GatewayHandshake::new(now, config, credential, "sim"),
            Some(connection) => {
                self.epoch += 1;
                let position = connection.position().expect("a position").as_u64();
                let proof = proof(Side::Gateway, link, self.epoch, position);
                let resume = Resume::new(self.epoch, position, proof);
                GatewayHandshake::resuming(now, config, credential, "sim", SESSION, resume)
            }
        };
        let least = if self.epoch == 0 { 6000 } else { 300 };
        let patience = Duration::from_millis(rng.between(least, 6000));
        let handshake = Box::new(handshake.unwrap());
        self.attempt = Some((Socket::new(link), handshake, now + patience));
    }

    fn give_up(&mut self, now: Instant, net: &mut Net, rng: &mut Rng) {
        if let Some((socket, _, _)) = self.attempt.take()
            && rng.chance(50)
        {
            // The edge may hear of it, or go on to believe in it.
            net.close(now, socket.link, Side::Gateway);
        }
        self.dial_at = now + Duration::from_millis(rng.between(1, 800));
    }

    pub(super) fn hear(&mut self, now: Instant, net: &mut Net) {
        self.host.hear(now, net);
        let Some((mut socket, mut handshake, until)) = self.attempt.take() else {
            return;
        };
        let mut pieces = net.arrived(now, socket.link, Side::Gateway).into_iter();
        let failed = loop {
            match handshake.handle_input(now, &mut socket.input) {
                Ok(Some(GatewayEvent::Active(_))) => {
                    return self.activate(now, socket, *handshake, pieces);
                }
                Ok(Some(GatewayEvent::Resumed(said))) => {
                    let proven = proof(Side::Edge, socket.link, self.epoch, said.position);
                    assert_eq!(said.proof, proven, "another link's answer");
                    pieces.for_each(|piece| socket.input.extend_from_slice(&piece));
                    return self.host.attach(now, socket, said.position);
                }
                Ok(Some(GatewayEvent::Refused(_))) | Err(_) => break true,
                Ok(Some(_)) => {}
                Ok(None) => match pieces.next() {
                    Some(piece) => socket.input.extend_from_slice(&piece),
                    None => break handshake.handle_timeout(now).is_err(),
                },
            }
        };
        if failed || net.is_dead(now, socket.link, Side::Gateway) {
            net.close(now, socket.link, Side::Gateway);
            self.dial_at = now + Duration::from_millis(200);
        } else {
            self.attempt = Some((socket, handshake, until));
        }
    }

    fn activate(
        &mut self,
        now: Instant,
        mut socket: Socket,
        handshake: GatewayHandshake,
        pieces: impl Iterator<Item = Vec<u8>>,
    ) {
        assert!(self.host.connection.is_none(), "a second session");
        pieces.for_each(|piece| socket.input.extend_from_slice(&piece));
        let mut connection = handshake.into_connection(now).unwrap();
        let _ = connection.handle_input(now, &mut socket.input);
        self.host.connection = Some(connection);
        self.host.socket = Some(socket);
    }

    pub(super) fn say(&mut self, now: Instant, net: &mut Net, rng: &mut Rng) {
        self.host.say(now, net, rng);
        if let Some((socket, handshake, _)) = &mut self.attempt {
            handshake.poll_transmit(now, &mut socket.out);
            socket.write(now, Side::Gateway, net, rng);
        }
    }

    pub(super) fn next_time(&self, now: Instant) -> Option<Instant> {
        let attempt = self.attempt.as_ref();
        let attempt = attempt.map(|(_, handshake, until)| {
            handshake.poll_timeout().map_or(*until, |at| at.min(*until))
        });
        let dial = attempt.is_none().then_some(self.dial_at);
        // What has passed wakes nobody, and hides nothing that is to come.
        let times = [attempt, dial, self.host.next_time(now)];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// An edge: takes any number of connections, and judges their claims.
pub(super) struct Edge {
    pub(super) host: Host,
    config: Arc<Config>,
    keep: Duration,
    greeting: Vec<(Socket, Box<EdgeHandshake>)>,
    /// Of the last claim that it took.
    epoch: u32,
}

impl Edge {
    pub(super) fn new(config: Config, keep: Duration) -> Self {
        Self {
            host: Host::new(Side::Edge),
            config: Arc::new(config),
            keep,
            greeting: Vec::new(),
            epoch: 0,
        }
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn accept(&mut self, now: Instant, link: Id) {
        let handshake = EdgeHandshake::new(now, Arc::clone(&self.config), "sim").unwrap();
        self.greeting.push((Socket::new(link), Box::new(handshake)));
    }

    pub(super) fn hear(&mut self, now: Instant, net: &mut Net) {
        self.host.hear(now, net);
        for (mut socket, mut handshake) in std::mem::take(&mut self.greeting) {
            let mut hello = None;
            let mut failed = handshake.handle_timeout(now).is_err();
            let mut pieces = net.arrived(now, socket.link, Side::Edge).into_iter();
            for piece in pieces.by_ref() {
                socket.input.extend_from_slice(&piece);
                match handshake.handle_input(now, &mut socket.input) {
                    Ok(None) => {}
                    Ok(said) => {
                        hello = said;
                        break;
                    }
                    Err(_) => failed = true,
                }
            }
            if failed || net.is_dead(now, socket.link, Side::Edge) {
                net.close(now, socket.link, Side::Edge);
            } else if hello.is_some() {
                pieces.for_each(|piece| socket.input.extend_from_slice(&piece));
                self.judge(now, socket, handshake, net);
            } else {
                self.greeting.push((socket, handshake));
            }
        }
    }

    fn judge(
        &mut self,
        now: Instant,
        mut socket: Socket,
        mut handshake: Box<EdgeHandshake>,
        net: &mut Net,
    ) {
        let alive = self
            .host
            .connection
            .as_ref()
            .is_some_and(|c| !c.is_closed());
        match handshake.claimed().copied() {
            Some(claim) if alive && claim.epoch > self.epoch => {
                let proven = proof(Side::Gateway, socket.link, claim.epoch, claim.position);
                assert_eq!(claim.proof, proven, "another link's claim");
                self.epoch = claim.epoch;
                let connection = self.host.connection.as_mut().expect("a session");
                connection.detach(now).unwrap();
                self.host.let_go(now, net);
                let connection = self.host.connection.as_ref().expect("a session");
                let position = connection.position().expect("a position").as_u64();
                let proof = proof(Side::Edge, socket.link, claim.epoch, position);
                let answer = Resume::new(claim.epoch, position, proof);
                handshake.resume(now, answer, &mut socket.out).unwrap();
                self.host.attach(now, socket, claim.position);
            }
            None if self.host.connection.is_none() => {
                let kept = Resumable::new(SESSION, self.keep);
                let config = Arc::clone(&self.config);
                let admitted = handshake.admit_resumable(now, config, Some(kept), &mut socket.out);
                let mut connection = admitted.unwrap();
                let _ = connection.handle_input(now, &mut socket.input);
                self.host.connection = Some(connection);
                self.host.socket = Some(socket);
            }
            _ => {
                let code = RefusalCode::SESSION;
                handshake.refuse(Refusal::new(code, ""));
                self.greeting.push((socket, handshake));
            }
        }
    }

    pub(super) fn say(&mut self, now: Instant, net: &mut Net, rng: &mut Rng) {
        self.host.say(now, net, rng);
        for (socket, handshake) in &mut self.greeting {
            handshake.poll_transmit(now, &mut socket.out);
            socket.write(now, Side::Edge, net, rng);
        }
    }

    pub(super) fn next_time(&self, now: Instant) -> Option<Instant> {
        let greeting = self.greeting.iter();
        let greeting = greeting.filter_map(|(_, handshake)| handshake.poll_timeout());
        let times = greeting.chain(self.host.next_time(now));
        times.filter(|at| *at > now).min()
    }
}
