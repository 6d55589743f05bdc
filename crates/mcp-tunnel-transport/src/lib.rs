//! MCP tunnel sessions over tokio and TLS.
#![forbid(unsafe_code)]

mod accept;
mod backoff;
mod close;
mod config;
pub mod dial;
mod driver;
mod ending;
mod greeting;
mod link;
#[cfg(feature = "local-ca")]
pub mod local_ca;
mod offer;
mod outbox;
mod read_ahead;
mod shared;
mod stream;
mod target;
mod timer;
pub mod tls;
mod uplink;

pub use accept::{AcceptError, Incoming, PendingLink, accept};
pub use backoff::Backoff;
pub use close::CloseReason;
pub use config::{LinkConfig, READ_BUFFER, UplinkConfig, WRITE_BATCH};
pub use driver::LinkDriver;
pub use link::{IncomingStream, Link, OpenError};
pub use offer::{Answer, AnswerError, Offer, OfferError};
pub use read_ahead::ReadAhead;
pub use stream::{RecvStream, SendStream, Stream, StreamError};
pub use target::{DEFAULT_PORT, EdgeAddress, EdgeHost, Target, TargetError};
pub use tls::Exporter;
pub use uplink::{LostReason, Uplink, UplinkEvent};
