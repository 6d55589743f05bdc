//! A gateway played by a test: the protocol's state machine over an in-memory TLS connection, told what to do.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mcp_tunnel_proto::{
    CloseCode, Config, Connection, ConnectionError, Event, GatewayEvent, GatewayHandshake,
    OpenHeader, Refusal, ResetCode, StreamId, Transmit,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::client::TlsStream;

/// What a gateway sees of its link.
#[derive(Debug)]
pub(super) enum Seen {
    Pending(String),
    Active,
    Refused(Refusal),
    Data(StreamId, Bytes),
    End(StreamId),
    Reset(StreamId, ResetCode),
    Stopped(StreamId, ResetCode),
    GoAway(CloseCode),
    /// With what the edge said, if it said anything.
    Closed(Option<String>),
}

/// What a test tells its gateway.
#[derive(Debug)]
enum Order {
    Write(StreamId, Bytes),
    Finish(StreamId),
    Reset(StreamId, ResetCode),
    Stop(StreamId, ResetCode),
    GoAway,
    /// Asks for the bytes that are written and not sent.
    Unsent(StreamId, oneshot::Sender<usize>),
    /// Drops the connection without a word.
    Vanish,
    /// Reads and writes no more, and keeps the connection.
    Freeze,
}

/// The test's hold on its gateway. Dropping it makes the gateway vanish.
pub(super) struct Gateway {
    orders: mpsc::Sender<Order>,
    seen: mpsc::Receiver<Seen>,
    /// Seen, but not what was waited for.
    put_aside: VecDeque<Seen>,
    heads: Heads,
}

/// What the edge said of each stream that it opened, oldest first.
type Heads = Arc<Mutex<Vec<OpenHeader>>>;

impl Gateway {
    /// The next thing seen; panics if nothing comes in a minute, of virtual time mostly.
    pub(super) async fn next(&mut self) -> Seen {
        if let Some(seen) = self.put_aside.pop_front() {
            return seen;
        }
        let minute = Duration::from_secs(60);
        let seen = tokio::time::timeout(minute, self.seen.recv()).await;
        seen.expect("something is seen").expect("the gateway runs")
    }

    /// The next thing seen within a time, if any.
    pub(super) async fn next_within(&mut self, time: Duration) -> Option<Seen> {
        tokio::time::timeout(time, self.next()).await.ok()
    }

    /// The next thing seen that `pick` takes; the rest stays in order.
    pub(super) async fn until<T>(&mut self, mut pick: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut aside = VecDeque::new();
        loop {
            let seen = self.next().await;
            if let Some(picked) = pick(&seen) {
                aside.append(&mut self.put_aside);
                self.put_aside = aside;
                return picked;
            }
            aside.push_back(seen);
        }
    }

    /// What the edge said of the stream that it opened last.
    pub(super) fn last_head(&self) -> OpenHeader {
        let heads = self.heads.lock().unwrap();
        heads.last().expect("a stream was opened").clone()
    }

    /// The approval code of a pending link.
    pub(super) async fn pending(&mut self) -> String {
        match self.next().await {
            Seen::Pending(code) => code,
            other => panic!("not pending: {other:?}"),
        }
    }

    pub(super) async fn active(&mut self) {
        let seen = self.next().await;
        assert!(matches!(seen, Seen::Active), "not active: {seen:?}");
    }

    pub(super) async fn refused(&mut self) -> Refusal {
        match self.next().await {
            Seen::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The next request up to the end of its head, or of its body where `content-length` tells it.
    pub(super) async fn request(&mut self) -> (StreamId, String) {
        let mut text = String::new();
        let mut stream = None;
        loop {
            let (id, data) = self
                .until(|seen| match seen {
                    Seen::Data(id, data) if stream.is_none_or(|stream| stream == *id) => {
                        Some((*id, data.clone()))
                    }
                    Seen::Closed(_) => panic!("closed instead of a request"),
                    _ => None,
                })
                .await;
            stream = Some(id);
            text.push_str(&String::from_utf8_lossy(&data));
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if length.is_none_or(|length| body.len() >= length.parse().unwrap()) {
                return (id, text);
            }
        }
    }

    pub(super) async fn reset_of(&mut self, stream: StreamId) -> ResetCode {
        self.until(|seen| match seen {
            Seen::Reset(id, code) | Seen::Stopped(id, code) if *id == stream => Some(*code),
            _ => None,
        })
        .await
    }

    pub(super) async fn closed(&mut self) -> Option<String> {
        self.until(|seen| match seen {
            Seen::Closed(text) => Some(text.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn going_away(&mut self) -> CloseCode {
        self.until(|seen| match seen {
            Seen::GoAway(code) => Some(*code),
            _ => None,
        })
        .await
    }

    pub(super) async fn write(&self, stream: StreamId, text: impl Into<Bytes>) {
        self.order(Order::Write(stream, text.into())).await;
    }

    /// A whole answer, in one go.
    pub(super) async fn answer(&self, stream: StreamId, answer: &str) {
        self.write(stream, answer.to_owned()).await;
        self.order(Order::Finish(stream)).await;
    }

    pub(super) async fn reset(&self, stream: StreamId, code: ResetCode) {
        self.order(Order::Reset(stream, code)).await;
    }

    /// Wants no more of what the edge sends on a stream.
    pub(super) async fn stop(&self, stream: StreamId, code: ResetCode) {
        self.order(Order::Stop(stream, code)).await;
    }

    pub(super) async fn go_away(&self) {
        self.order(Order::GoAway).await;
    }

    pub(super) async fn vanish(&self) {
        self.order(Order::Vanish).await;
    }

    pub(super) async fn freeze(&self) {
        self.order(Order::Freeze).await;
    }

    /// How many bytes of what was written the edge has not taken.
    pub(super) async fn unsent(&self, stream: StreamId) -> usize {
        let (tell, told) = oneshot::channel();
        self.order(Order::Unsent(stream, tell)).await;
        told.await.expect("the gateway runs")
    }

    async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("the gateway runs");
    }
}

/// The gateway's own side, for its task.
pub(super) struct Engine {
    tls: TlsStream<DuplexStream>,
    orders: mpsc::Receiver<Order>,
    seen: mpsc::Sender<Seen>,
    input: BytesMut,
    unsent: HashMap<StreamId, (VecDeque<Bytes>, bool)>,
    heads: Heads,
}

/// A gateway on a finished TLS connection; the engine runs in a task of the caller.
pub(super) fn gateway(tls: TlsStream<DuplexStream>) -> (Gateway, Engine) {
    let (orders, ordered) = mpsc::channel(64);
    let (see, seen) = mpsc::channel(65_536);
    let heads = Heads::default();
    let engine = Engine {
        tls,
        orders: ordered,
        seen: see,
        input: BytesMut::new(),
        unsent: HashMap::new(),
        heads: Arc::clone(&heads),
    };
    (
        Gateway {
            orders,
            seen,
            put_aside: VecDeque::new(),
            heads,
        },
        engine,
    )
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Engine {
    pub(super) async fn run(mut self, credential: Bytes) {
        let closed = match self.greet(credential).await {
            Some(connection) => self.serve(connection).await,
            None => None,
        };
        let _ = self.seen.send(Seen::Closed(closed)).await;
    }

    async fn see(&self, seen: Seen) {
        let _ = self.seen.send(seen).await;
    }

    async fn greet(&mut self, credential: Bytes) -> Option<Connection> {
        let config = Arc::new(Config::default());
        let mut handshake = GatewayHandshake::new(now(), config, credential, "test").unwrap();
        let mut out = Transmit::new(65_536);
        loop {
            handshake.poll_transmit(now(), &mut out);
            self.tls.write_all_buf(&mut out).await.ok()?;
            self.tls.flush().await.ok()?;
            match handshake.handle_input(now(), &mut self.input).ok()? {
                Some(GatewayEvent::Active(_)) => {
                    self.see(Seen::Active).await;
                    return handshake.into_connection(now()).ok();
                }
                Some(GatewayEvent::Pending { approval_code }) => {
                    self.see(Seen::Pending(approval_code)).await;
                }
                Some(GatewayEvent::Refused(refusal)) => self.see(Seen::Refused(refusal)).await,
                Some(_) => {}
                None => {
                    let deadline = handshake.poll_timeout()?;
                    tokio::select! {
                        read = self.tls.read_buf(&mut self.input) => {
                            if read.ok()? == 0 {
                                return None;
                            }
                        }
                        () = sleep_until(deadline.into()) => handshake.handle_timeout(now()).ok()?,
                        order = self.orders.recv() => match order? {
                            Order::Freeze => std::future::pending().await,
                            _ => return None,
                        },
                    }
                }
            }
        }
    }

    async fn serve(&mut self, mut connection: Connection) -> Option<String> {
        let mut out = Transmit::new(65_536);
        loop {
            let _ = connection.handle_input(now(), &mut self.input);
            connection.handle_timeout(now());
            if let Some(closed) = self.take_events(&mut connection).await {
                return Some(closed);
            }
            while connection.poll_transmit(now(), &mut out) {
                self.tls.write_all_buf(&mut out).await.ok()?;
            }
            self.tls.write_all_buf(&mut out).await.ok()?;
            self.tls.flush().await.ok()?;
            let deadline = connection.poll_timeout()?;
            tokio::select! {
                read = self.tls.read_buf(&mut self.input) => {
                    if read.ok()? == 0 {
                        return None;
                    }
                }
                () = sleep_until(deadline.into()) => {}
                order = self.orders.recv() => match order? {
                    Order::Write(id, data) => {
                        self.unsent.entry(id).or_default().0.push_back(data);
                        self.send(&mut connection, id);
                    }
                    Order::Finish(id) => {
                        self.unsent.entry(id).or_default().1 = true;
                        self.send(&mut connection, id);
                    }
                    Order::Reset(id, code) => {
                        if let Some(stream) = connection.send_stream(id) {
                            stream.reset(code);
                        }
                        if let Some(stream) = connection.recv_stream(id) {
                            stream.stop(code);
                        }
                    }
                    Order::Stop(id, code) => {
                        if let Some(stream) = connection.recv_stream(id) {
                            stream.stop(code);
                        }
                    }
                    Order::Unsent(id, tell) => {
                        let unsent = self.unsent.get(&id);
                        let _ = tell.send(unsent.map_or(0, |(chunks, _)| chunks.iter().map(Bytes::len).sum()));
                    }
                    Order::GoAway => connection.go_away(CloseCode::SHUTDOWN, None, ""),
                    Order::Vanish => return None,
                    Order::Freeze => std::future::pending().await,
                },
            }
        }
    }

    fn send(&mut self, connection: &mut Connection, id: StreamId) {
        let Some((chunks, finished)) = self.unsent.get_mut(&id) else {
            return;
        };
        while let Some(chunk) = chunks.front_mut() {
            let Some(mut stream) = connection.send_stream(id) else {
                return;
            };
            if stream.write(chunk).is_err() {
                return;
            }
            if chunk.is_empty() {
                chunks.pop_front();
            }
        }
        if *finished {
            self.unsent.remove(&id);
            if let Some(stream) = connection.send_stream(id) {
                let _ = stream.finish();
            }
        }
    }

    /// The edge's word of farewell, once it has said it.
    async fn take_events(&mut self, connection: &mut Connection) -> Option<String> {
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Opened { id, .. } | Event::Readable { id } => {
                    if let Event::Opened { header, .. } = event {
                        self.heads.lock().unwrap().push(header);
                    }
                    while let Some(mut stream) = connection.recv_stream(id) {
                        match stream.read(65_536) {
                            Ok(Some(data)) => self.see(Seen::Data(id, data)).await,
                            Ok(None) => self.see(Seen::End(id)).await,
                            Err(_) => break,
                        }
                    }
                }
                Event::Writable { id } => self.send(connection, id),
                Event::Reset { id, code } => self.see(Seen::Reset(id, code)).await,
                Event::Stopped { id, code } => self.see(Seen::Stopped(id, code)).await,
                Event::GoAway { code, .. } => self.see(Seen::GoAway(code)).await,
                Event::Closed(ConnectionError::ClosedByPeer { code, text }) => {
                    return Some(format!("{code}: {text}"));
                }
                Event::Closed(error) => return Some(error.to_string()),
                _ => {}
            }
        }
        None
    }
}
