//! What every peer can do: a connection of many conduits, each of bytes both ways.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::task::JoinSet;

use crate::scene::{ClientIo, ServerIo};

/// One way to carry conduits over a connection.
pub trait Mux: 'static {
    /// In tables.
    const NAME: &'static str;
    /// Whether it comes with socket options of its own.
    const TUNED: bool = false;
    /// The caller's end; clones are the same.
    type Client: Clone + Send + Sync + 'static;
    /// A conduit as its opener holds it.
    type Near: Conduit;
    /// A conduit as the other side holds it.
    type Far: Conduit;

    /// Runs the server's end and hands each conduit to `taken`, until the connection ends.
    fn serve(io: ServerIo, taken: impl FnMut(Self::Far) + Send) -> impl Future<Output = ()> + Send;

    /// The caller's end; `tasks` owns what must run in the background.
    fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> impl Future<Output = Self::Client> + Send;

    /// Opens a conduit with its first bytes; `last` ends them.
    fn open(
        client: &Self::Client,
        first: Bytes,
        last: bool,
    ) -> impl Future<Output = io::Result<Self::Near>> + Send;
}

/// Bytes both ways. Dropping it before its end aborts it.
pub trait Conduit: Send + 'static {
    /// Sends `piece`; `last` ends the direction.
    fn send(&mut self, piece: Bytes, last: bool) -> impl Future<Output = io::Result<()>> + Send;

    /// Receives what has come; of length zero at the end.
    fn recv(&mut self) -> impl Future<Output = io::Result<Received>> + Send;
}

/// The front of what was received, and how much it was.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// In bytes.
    pub length: usize,
    head: [u8; ASK],
}

/// Length of an [`Ask`].
const ASK: usize = 9;

/// The longest piece that is sent at once.
pub const PIECE: usize = 64 * 1024;

/// What one turn of [`Ask::Echo`] carries each way.
pub const ECHO: usize = 1024;

impl Received {
    /// What is worth keeping of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut head = [0; ASK];
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        let length = bytes.len();
        Self { length, head }
    }
}

/// What the opener of a conduit wants of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Bytes without end.
    Bulk,
    /// [`ECHO`] bytes for each [`ECHO`] bytes.
    Echo,
    /// So many bytes once the request has ended.
    Call(usize),
}

impl Ask {
    /// A request of `size` bytes.
    pub fn encode(self, size: usize) -> Bytes {
        let (kind, length) = match self {
            Self::Bulk => (b'b', 0),
            Self::Echo => (b'e', 0),
            Self::Call(length) => (b'c', length as u64),
        };
        let mut request = BytesMut::zeroed(size.max(ASK));
        let mut head = request.as_mut();
        head.put_u8(kind);
        head.put_u64(length);
        request.freeze()
    }

    fn decode(received: &Received) -> Option<Self> {
        let (kind, length) = received.head.split_first()?;
        let length = u64::from_be_bytes(length.try_into().ok()?);
        match kind {
            b'b' => Some(Self::Bulk),
            b'e' => Some(Self::Echo),
            b'c' => Some(Self::Call(usize::try_from(length).ok()?)),
            _ => None,
        }
    }
}

/// `length` bytes, at most [`PIECE`].
pub fn zeros(length: usize) -> Bytes {
    static ZEROS: [u8; PIECE] = [0; PIECE];
    Bytes::from_static(&ZEROS).slice(..length.min(PIECE))
}

/// The server's part of every load.
pub async fn answer<C: Conduit>(mut conduit: C) {
    // Callers of bulk go when they have seen enough.
    let _gone = try_answer(&mut conduit).await;
}

async fn try_answer<C: Conduit>(conduit: &mut C) -> io::Result<()> {
    let first = conduit.recv().await?;
    match Ask::decode(&first) {
        Some(Ask::Bulk) => loop {
            conduit.send(zeros(PIECE), false).await?;
        },
        Some(Ask::Echo) => {
            let mut owed = first.length;
            loop {
                while owed >= ECHO {
                    conduit.send(zeros(ECHO), false).await?;
                    owed -= ECHO;
                }
                match conduit.recv().await?.length {
                    0 => return conduit.send(Bytes::new(), true).await,
                    more => owed += more,
                }
            }
        }
        Some(Ask::Call(length)) => {
            while conduit.recv().await?.length > 0 {}
            conduit.send(zeros(length), true).await
        }
        None => Ok(()),
    }
}
