//! The gateway's side of a new link: a credential offered, and the edge's answer to it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_tunnel_proto::{EncodeError, GatewayEvent, GatewayHandshake, Position, Refusal, Resume};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{
    CloseReason, Exporter, Link, LinkConfig, LinkDriver,
    config::TLS_BUFFER,
    greeting::Greeting,
    resume::Replacement,
    shared::Shared,
    timer::now,
    tls::{ExporterError, ResumeKey},
};

/// A gateway's HELLO on a finished TLS connection, before the edge has answered.
///
/// [`Uplink`](crate::Uplink) makes offers by itself; this is for a check, for tests, and for connections of another
/// kind. Dropping it closes the connection.
pub struct Offer<IO> {
    greeting: Box<Greeting<TlsStream<IO>, GatewayHandshake>>,
    config: LinkConfig,
    /// The edge has said that a person must approve: from here on only silence ends the wait.
    pending: bool,
    /// The session that this connection is for, and what the proof of the edge's answer covers.
    resuming: Option<(Arc<Shared>, Exporter)>,
}

/// What an edge says to an offer.
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "moved once in a link's life")]
pub enum Answer<IO> {
    /// A person has to approve; `offer` stays, and its next answer may be any of these.
    Pending {
        /// What the gateway shows to that person.
        approval_code: String,
        /// To wait on.
        offer: Offer<IO>,
    },
    /// The link carries streams as soon as the driver runs.
    Active {
        /// To accept streams from.
        link: Link,
        /// To be run.
        driver: LinkDriver<TlsStream<IO>>,
    },
    /// The session that the offer was for goes on over this connection.
    Resumed,
    /// The edge refused, and closes the connection.
    Refused(Refusal),
}

/// Why an offer could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// TLS came up in a form that cannot carry a link.
    #[error("the connection cannot carry a link")]
    Exporter(#[from] ExporterError),
    /// The session has a connection, has ended, or does not outlive its connection.
    #[error("there is no session to go on with")]
    NotDetached,
    /// The credential does not fit HELLO.
    #[error("the credential is too long")]
    Credential(#[from] EncodeError),
}

/// Why an offer got no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The edge said nothing in time.
    #[error("the edge did not answer the credential within {after:?}")]
    TimedOut {
        /// The configured time.
        after: Duration,
    },
    /// The edge took up a session without proving that it knows its first connection.
    #[error("the edge does not know the session that it took up")]
    NotProven,
    /// The link ended.
    #[error("the link ended before it was active")]
    Ended(#[from] CloseReason),
}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static> Offer<IO> {
    /// Prepares HELLO with `credential`, which signs the connection's [`Exporter`] and is opaque here.
    ///
    /// # Errors
    ///
    /// See [`OfferError`].
    pub fn new(
        mut tls: TlsStream<IO>,
        credential: Bytes,
        config: &LinkConfig,
    ) -> Result<Self, OfferError> {
        let _fit_for_a_link = Exporter::of(tls.get_ref().1)?;
        tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        let protocol = config.protocol().clone();
        let handshake = GatewayHandshake::new(now(), protocol, credential, config.agent())?;
        Ok(Self {
            greeting: Box::new(Greeting::new(tls, handshake, config)),
            config: config.clone(),
            pending: false,
            resuming: None,
        })
    }

    /// The same for the session of `link`, which has lost its connection. The answer is [`Answer::Resumed`] if the edge
    /// goes on with it; any other answer is as to an offer without a session, and whoever made it ends the old one.
    ///
    /// # Errors
    ///
    /// See [`OfferError`].
    pub fn resuming(
        mut tls: TlsStream<IO>,
        credential: Bytes,
        config: &LinkConfig,
        link: &Link,
    ) -> Result<Self, OfferError> {
        let exporter = Exporter::of(tls.get_ref().1)?;
        tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        let shared = link.shared();
        let (session, resume) = shared.claim(&exporter).ok_or(OfferError::NotDetached)?;
        let protocol = config.protocol().clone();
        let agent = config.agent();
        let handshake =
            GatewayHandshake::resuming(now(), protocol, credential, agent, session, resume)?;
        Ok(Self {
            greeting: Box::new(Greeting::new(tls, handshake, config)),
            config: config.clone(),
            pending: false,
            resuming: Some((Arc::clone(shared), exporter)),
        })
    }

    /// Sends HELLO and waits for the edge's answer; answers pings meanwhile.
    ///
    /// The first answer must come within [`LinkConfig::set_answer_timeout`]; one that follows
    /// [`Answer::Pending`] may take as long as the edge is heard.
    ///
    /// # Errors
    ///
    /// See [`AnswerError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn answer(mut self) -> Result<Answer<IO>, AnswerError> {
        let after = self.config.answer_timeout();
        let event = if self.pending {
            self.next().await
        } else {
            match timeout(after, self.next()).await {
                Ok(event) => event,
                Err(_elapsed) => return Err(AnswerError::TimedOut { after }),
            }
        };
        match event {
            Ok(GatewayEvent::Pending { approval_code }) => {
                self.pending = true;
                Ok(Answer::Pending {
                    approval_code,
                    offer: self,
                })
            }
            Ok(GatewayEvent::Refused(refusal)) => Ok(Answer::Refused(refusal)),
            Ok(GatewayEvent::Resumed(resume)) => self.reattach(&resume),
            Ok(_active) => self.activate(),
            Err(reason) => {
                self.greeting.end(self.config.close_timeout()).await;
                Err(reason.into())
            }
        }
    }

    async fn next(&mut self) -> Result<GatewayEvent, CloseReason> {
        loop {
            match self.greeting.next().await? {
                GatewayEvent::Hello(_) => {}
                event => return Ok(event),
            }
        }
    }

    fn activate(self) -> Result<Answer<IO>, AnswerError> {
        let Greeting {
            io,
            handshake,
            input,
            outbox,
            ..
        } = *self.greeting;
        let key = ResumeKey::of(io.get_ref().1).ok();
        let connection = handshake
            .into_connection(now())
            .map_err(|_| CloseReason::Abandoned)?;
        let (link, driver) = LinkDriver::start(io, input, outbox, connection, key, &self.config);
        let driver = driver.watch_sleep(self.config.sleep_watch());
        Ok(Answer::Active { link, driver })
    }

    /// RESUME-3: nothing that is retained moves before the edge has proven that it knows the session.
    fn reattach(self, resume: &Resume) -> Result<Answer<IO>, AnswerError> {
        let (shared, exporter) = self.resuming.ok_or(AnswerError::NotProven)?;
        if !shared.is_answered(&exporter, resume) {
            return Err(AnswerError::NotProven);
        }
        let Greeting {
            io, input, outbox, ..
        } = *self.greeting;
        shared.replace(Replacement {
            io: Box::new(io),
            input,
            outbox,
            peer: Position::new(resume.position),
        })?;
        Ok(Answer::Resumed)
    }
}

impl<IO> fmt::Debug for Offer<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
