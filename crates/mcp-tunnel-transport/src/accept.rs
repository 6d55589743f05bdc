//! The edge's side of a new link: heard, then admitted, kept pending, or refused.

use std::fmt;

use bytes::Bytes;
use mcp_tunnel_proto::{
    EdgeHandshake, EncodeError, Hello, Position, Refusal, Resumable, SessionId,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{
    ClaimError, CloseReason, Exporter, Link, LinkConfig, LinkDriver,
    config::TLS_BUFFER,
    greeting::Greeting,
    resume::Replacement,
    timer::now,
    tls::{ExporterError, ResumeKey},
};

/// Why a connection did not become an [`Incoming`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// TLS came up in a form that cannot carry a link.
    #[error("the connection cannot carry a link")]
    Exporter(#[from] ExporterError),
    /// The configured agent text does not fit HELLO.
    #[error("the configured hello is too long")]
    Hello(#[from] EncodeError),
    /// The peer's HELLO did not come in time.
    #[error("no hello within {after:?}")]
    TimedOut {
        /// The configured time.
        after: std::time::Duration,
    },
    /// The link ended before HELLO, or by it.
    #[error("the link ended before it was accepted")]
    Ended(#[from] CloseReason),
}

/// A gateway that has said HELLO and waits for an answer.
///
/// Whoever accepted it judges [`credential`](Self::credential) against [`exporter`](Self::exporter) and decides.
/// Dropping it closes the connection without an answer.
pub struct Incoming<IO> {
    greeting: Box<Greeting<TlsStream<IO>, EdgeHandshake>>,
    hello: Hello,
    exporter: Exporter,
    config: LinkConfig,
}

/// A gateway whose claim to a session does not hold: to be refused with
/// [`RefusalCode::SESSION`](mcp_tunnel_proto::RefusalCode::SESSION), or admitted to a new one.
#[derive(Debug, thiserror::Error)]
#[error("the session is not resumed: {error}")]
#[non_exhaustive]
pub struct Unresumed<IO> {
    /// The gateway.
    pub incoming: Incoming<IO>,
    /// Why.
    pub error: ClaimError,
}

/// A gateway that waits for a person to approve it.
///
/// The link is up, answers pings and carries no stream. [`closed`](Self::closed) must be polled for that. Dropping it
/// closes the connection.
pub struct PendingLink<IO> {
    incoming: Incoming<IO>,
}

/// Hears a gateway out on a finished TLS connection.
///
/// Takes at most 4 KiB and [`LinkConfig::set_hello_timeout`]; nothing is looked up and nothing allocated beyond. A
/// connection without TLS 1.3, ALPN `mcp-tunnel/1` and a full handshake is refused before it is read.
///
/// # Errors
///
/// See [`AcceptError`]. A peer that broke the protocol is told so before this returns, within
/// [`LinkConfig::set_close_timeout`].
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub async fn accept<IO>(
    mut tls: TlsStream<IO>,
    config: &LinkConfig,
) -> Result<Incoming<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let exporter = Exporter::of(tls.get_ref().1)?;
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    let handshake = EdgeHandshake::new(now(), config.protocol().clone(), config.agent())?;
    let mut greeting = Box::new(Greeting::new(tls, handshake, config));
    match timeout(config.hello_timeout(), greeting.next()).await {
        Ok(Ok(hello)) => Ok(Incoming {
            greeting,
            hello,
            exporter,
            config: config.clone(),
        }),
        Ok(Err(reason)) => {
            greeting.end(config.close_timeout()).await;
            Err(reason.into())
        }
        Err(_elapsed) => Err(AcceptError::TimedOut {
            after: config.hello_timeout(),
        }),
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Incoming<IO> {
    /// Admits the gateway: the link carries streams as soon as the driver runs.
    ///
    /// # Errors
    ///
    /// How the link ended, if it did; never for a link that was not pending.
    pub fn admit(mut self) -> Result<(Link, LinkDriver<TlsStream<IO>>), CloseReason> {
        let protocol = self.config.protocol().clone();
        let key = ResumeKey::of(self.greeting.io.get_ref().1).ok();
        let out = &mut self.greeting.outbox.transmit;
        let connection = self
            .greeting
            .handshake
            .admit_resumable(now(), protocol, new_session(&self.config), out)
            .map_err(|_| CloseReason::Abandoned)?;
        let Greeting {
            io, input, outbox, ..
        } = *self.greeting;
        Ok(LinkDriver::start(
            io,
            input,
            outbox,
            connection,
            key,
            &self.config,
        ))
    }

    /// Goes on with the session of `link` over this connection, in place of the one that it had; its driver takes over.
    /// Whoever calls this has judged [`credential`](Self::credential), and that it is of the session's own gateway; the
    /// proof of the claim is checked here.
    ///
    /// # Errors
    ///
    /// Gives the gateway back, with why its claim does not hold.
    pub fn resume(self, link: &Link) -> Result<(), Box<Unresumed<IO>>>
    where
        IO: Send + 'static,
    {
        let claimed = self.greeting.handshake.claimed().copied();
        let (Some(session), Some(claim)) = (self.claim(), claimed) else {
            let error = ClaimError::OtherSession;
            return Err(Box::new(Unresumed {
                incoming: self,
                error,
            }));
        };
        let shared = link.shared();
        let answer = match shared.admit_claim(session, &claim, &self.exporter) {
            Ok(answer) => answer,
            Err(error) => {
                return Err(Box::new(Unresumed {
                    incoming: self,
                    error,
                }));
            }
        };
        let Greeting {
            io,
            handshake,
            input,
            mut outbox,
            ..
        } = *self.greeting;
        // The claim was there, and nothing else was said: the handshake has no reason to refuse.
        let _ = handshake.resume(now(), answer, &mut outbox.transmit);
        // A session that has ended meanwhile closes the connection.
        let _ = shared.replace(Replacement {
            io: Box::new(io),
            input,
            outbox,
            peer: Position::new(claim.position),
        });
        Ok(())
    }

    /// Keeps the link up until a person has decided; `approval_code` is what the gateway shows meanwhile.
    ///
    /// At most 64 bytes of printable ASCII; the rest is cut off. It leaves once
    /// [`closed`](PendingLink::closed) is polled.
    pub fn pend(mut self, approval_code: &str) -> PendingLink<IO> {
        self.greeting.handshake.pend(approval_code);
        PendingLink { incoming: self }
    }

    /// Refuses the gateway and ends the connection, within [`LinkConfig::set_close_timeout`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; the gateway may not hear why.
    pub async fn refuse(mut self, refusal: Refusal) {
        self.greeting.handshake.refuse(refusal);
        self.greeting.end(self.config.close_timeout()).await;
    }
}

impl<IO> Incoming<IO> {
    /// What the gateway presents; opaque here, at most 3.5 KiB.
    pub fn credential(&self) -> &Bytes {
        &self.hello.credential
    }

    /// The session that the gateway wants to go on with: see [`resume`](Self::resume). Any other answer is as if it had
    /// claimed none, and fails the streams of that session at the gateway.
    pub fn claim(&self) -> Option<SessionId> {
        self.hello.resume.map(|claim| claim.session)
    }

    /// What the credential must have signed.
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// Name and version that the gateway's program states; may be empty, and is no proof of anything.
    pub fn agent(&self) -> &str {
        &self.hello.agent
    }

    /// The connection under TLS, for its addresses.
    pub fn io(&self) -> &IO {
        self.greeting.io.get_ref().0
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> PendingLink<IO> {
    /// Waits for the gateway to go away or fall silent; sends the pending answer and answers pings meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Once it has returned it returns the same again.
    pub async fn closed(&mut self) -> CloseReason {
        loop {
            if let Err(reason) = self.incoming.greeting.next().await {
                return reason;
            }
        }
    }

    /// As [`Incoming::admit`].
    ///
    /// # Errors
    ///
    /// How the link ended, if it did meanwhile.
    pub fn admit(self) -> Result<(Link, LinkDriver<TlsStream<IO>>), CloseReason> {
        if let Some(reason) = self.incoming.greeting.ended() {
            return Err(reason.clone());
        }
        self.incoming.admit()
    }

    /// Changes the approval code that the gateway shows.
    pub fn pend_again(&mut self, approval_code: &str) {
        self.incoming.greeting.handshake.pend(approval_code);
    }

    /// As [`Incoming::refuse`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; the gateway may not hear why.
    pub async fn refuse(self, refusal: Refusal) {
        self.incoming.refuse(refusal).await;
    }
}

impl<IO> PendingLink<IO> {
    /// As [`Incoming::credential`].
    pub fn credential(&self) -> &Bytes {
        self.incoming.credential()
    }

    /// As [`Incoming::exporter`].
    pub fn exporter(&self) -> &Exporter {
        self.incoming.exporter()
    }

    /// Smoothed round-trip time, once a ping was answered.
    pub fn rtt(&self) -> Option<std::time::Duration> {
        self.incoming.greeting.handshake.rtt()
    }
}

impl<IO> fmt::Debug for Incoming<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("hello", &self.hello)
            .finish_non_exhaustive()
    }
}

impl<IO> fmt::Debug for PendingLink<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLink")
            .field("hello", &self.incoming.hello)
            .finish_non_exhaustive()
    }
}

/// A name for the session, if it is to outlive its connection. Without an entropy source it does not.
fn new_session(config: &LinkConfig) -> Option<Resumable> {
    let mut name = [0; 16];
    if config.keep().is_zero() || getrandom::fill(&mut name).is_err() {
        return None;
    }
    Some(Resumable::new(SessionId::new(name), config.keep()))
}
