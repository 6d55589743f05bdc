//! MCP tunnel sessions over tokio and TLS.
//!
//! A *link* is one TLS connection that a gateway inside a private network dials out to an edge in the cloud; *streams*
//! run both ways over it. This crate is the IO around [`mcp_tunnel_proto`]: it dials, secures, admits, drives, watches
//! and replaces links.
//!
//! ```text
//!        gateway                                                        edge
//!   Uplink ── dial ─────────────── TLS 1.3 ──────────────────── accept ◄── TlsStream
//!     │  Dialled (exporter) ► present ─── HELLO, credential ────────► Incoming
//!     │  Pending ◄────────────────── approval code ──────────────────── pend ► PendingLink
//!     │  Active  ◄────────────────────── limits ─────────────────────── admit
//!     ▼                                                                    ▼
//!   Link ◄═════ LinkDriver ═════ frames in TLS records ═════ LinkDriver ═════► Link
//!     accept, open ► Stream: AsyncRead + AsyncWrite, finish, reset
//! ```
//!
//! # Example
//!
//! Both ends in one program, over memory.
//!
#![cfg_attr(feature = "local-ca", doc = "```")]
#![cfg_attr(not(feature = "local-ca"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::SystemTime};
//!
//! use bytes::Bytes;
//! use mcp_tunnel_proto::{OpenHeader, RouteName, StreamKind};
//! use mcp_tunnel_transport::{Answer, LinkConfig, Offer, accept, local_ca::LocalCa, tls};
//! use rustls::sign::SingleCertAndKey;
//! use tokio_rustls::{TlsAcceptor, TlsConnector};
//!
//! let ca = LocalCa::generate("tunnel.localhost", SystemTime::now())?;
//! let certificate = SingleCertAndKey::from(ca.issue(SystemTime::now())?.certified_key()?);
//! let server = TlsAcceptor::from(tls::server_config(Arc::new(certificate))?);
//! let client = TlsConnector::from(tls::client_config(tls::Trust::PinnedCa(ca.pin()))?);
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let config = LinkConfig::default();
//!
//! // The edge admits whoever knows the word, and calls it.
//! let edge = async {
//!     let incoming = accept(server.accept(far).await?, &config).await?;
//!     assert_eq!(incoming.credential(), "a word");
//!     let (link, driver) = incoming.admit()?;
//!     let call = async {
//!         let header = OpenHeader::new(StreamKind::Http, RouteName::parse("mcp")?);
//!         let mut stream = link.open(header, Bytes::from_static(b"ping")).await?;
//!         stream.finish()?;
//!         let answer = stream.read_chunk().await?;
//!         drop(link); // the last one: the link closes
//!         Ok::<_, Box<dyn std::error::Error>>(answer)
//!     };
//!     let (answer, _closed) = tokio::join!(call, driver.run());
//!     answer
//! };
//! // The gateway answers.
//! let gateway = async {
//!     let tls = client.connect("edge.tunnel.localhost".try_into()?, near).await?;
//!     let offer = Offer::new(tls, Bytes::from_static(b"a word"), &config)?;
//!     let Answer::Active { link, driver } = offer.answer().await? else {
//!         return Err("not admitted".into());
//!     };
//!     let serve = async {
//!         while let Some(mut incoming) = link.accept().await {
//!             incoming.stream.write_chunk(Bytes::from_static(b"pong")).await?;
//!             incoming.stream.finish()?;
//!         }
//!         Ok::<_, Box<dyn std::error::Error>>(())
//!     };
//!     let (served, _closed) = tokio::join!(serve, driver.run());
//!     served
//! };
//! let (answer, served) = tokio::join!(edge, gateway);
//! served?;
//! assert_eq!(answer?.as_deref(), Some(&b"pong"[..]));
//! # Ok(()) }
//! ```
//!
//! # What it promises
//!
//! - An end is an end: a stream reads to EOF only where the peer finished it. A reset, a dropped handle and a lost link
//!   are errors with a [`StreamError`] inside.
//! - Frames that are ready together leave in one run of TLS records and one write, and a batch that is read wakes each
//!   task once. A call that is written at once is one write each way.
//! - With [`LinkConfig::set_keep`] a session outlives its connection: streams wait, the gateway dials again, and every byte
//!   arrives once and in order. Without it, or after that time, a lost connection fails its streams.
//! - A slow reader stalls its own stream; what a peer can make this side hold is stated at [`LinkConfig`]. Windows grow with
//!   what a link carries, for all links within one [`MemoryBudget`].
//! - Every wait has a deadline, every public future says whether it may be dropped, and nothing is spawned but the
//!   drivers that an [`Uplink`] owns.
//!
//! # What it does not do
//!
//! - It does not read credentials: whoever accepts an [`Incoming`] judges it, against its [`Exporter`].
//! - It does not listen, and resolves certificates through rustls' `ResolvesServerCert` only.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `local-ca` | no | `local_ca`: a private authority, constrained to one domain and loopback |
#![forbid(unsafe_code)]

mod accept;
mod backoff;
mod carrier;
mod close;
mod config;
pub mod dial;
mod driver;
mod ending;
mod greeting;
mod inbox;
mod link;
#[cfg(feature = "local-ca")]
pub mod local_ca;
mod memory;
mod offer;
mod outbox;
mod read_ahead;
mod resume;
mod shared;
mod sleep;
mod stream;
mod target;
mod timer;
pub mod tls;
mod uplink;

pub use accept::{AcceptError, Incoming, PendingLink, Unresumed, accept};
pub use backoff::Backoff;
pub use close::CloseReason;
pub use config::{LinkConfig, READ_BUFFER, UplinkConfig, WRITE_BATCH};
pub use driver::LinkDriver;
pub use link::{IncomingStream, Link, OpenError};
pub use memory::MemoryBudget;
pub use offer::{Answer, AnswerError, Offer, OfferError};
pub use read_ahead::ReadAhead;
pub use resume::ClaimError;
pub use stream::{RecvStream, SendStream, Stream, StreamError};
pub use target::{DEFAULT_PORT, EdgeAddress, EdgeHost, Target, TargetError};
pub use tls::Exporter;
pub use uplink::{LostReason, Uplink, UplinkEvent};
