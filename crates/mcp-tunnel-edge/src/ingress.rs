//! Where calls come in: services over any HTTP request, whoever serves it.

pub(crate) mod address;
pub(crate) mod caller;
pub(crate) mod dev;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

pub use self::dev::{DevIngress, DevTarget, DevTargetError};
use crate::Shared;
use crate::exchange::BoxError;
use crate::exchange::answer::IngressBody;
use crate::exchange::upload::Upload;
use crate::exchange::{Admitted, relay};
use crate::failure::{self, Failure};
use crate::gate::Ticket;
use crate::measures;

/// What a listener knows about the connection that a request came on; put into the request's extensions.
///
/// Without it the edge takes the request for one over TLS from an unknown address.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    address: SocketAddr,
    scheme: &'static str,
    ticket: Option<Ticket>,
}

impl PeerInfo {
    /// A peer on a connection without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            scheme: "http",
            ticket: None,
        }
    }

    /// A peer on a TLS connection.
    pub fn tls(address: SocketAddr) -> Self {
        Self {
            address,
            scheme: "https",
            ticket: None,
        }
    }

    /// The place at the gate that the first admitted request, or an accepted link's proof, gives back.
    #[must_use]
    pub fn with_ticket(mut self, ticket: Ticket) -> Self {
        self.ticket = Some(ticket);
        self
    }

    /// The peer's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn proven(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.proven();
        }
    }
}

/// Why a request goes no further than the ingress.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// One answer for all reasons; this one is for logs.
    Refused(&'static str),
    Failed(Failure),
    /// The development ingress does not serve this host.
    Misdirected,
    /// The development ingress does not serve pages of this origin.
    ForeignOrigin(String),
}

/// The ingress for callers: by host name or path, with a caller key. Clones are cheap.
///
/// A [`Service`] over any request; its answer's body is an [`IngressBody`]. It never fails: what goes wrong is an
/// answer.
#[derive(Clone)]
pub struct Ingress {
    shared: Arc<Shared>,
}

impl fmt::Debug for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingress").finish_non_exhaustive()
    }
}

impl Ingress {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// The answer of an ingress, to come. Dropping it aborts the call.
pub struct IngressFuture {
    answer: Pin<Box<dyn Future<Output = Response<IngressBody>> + Send>>,
}

impl fmt::Debug for IngressFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngressFuture").finish_non_exhaustive()
    }
}

impl Future for IngressFuture {
    type Output = Result<Response<IngressBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map(Ok)
    }
}

impl<B> Service<Request<B>> for Ingress
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<IngressBody>;
    type Error = Infallible;
    type Future = IngressFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> IngressFuture {
        let (parts, body) = request.into_parts();
        let admitted = caller::admit(&self.shared, &parts);
        answer(Arc::clone(&self.shared), admitted, parts, Upload::new(body))
    }
}

/// What both kinds of ingress do with a request that has been judged.
pub(crate) fn answer(
    shared: Arc<Shared>,
    admitted: Result<Admitted, Turned>,
    parts: Parts,
    upload: Upload,
) -> IngressFuture {
    let answer = async move {
        let turned = match admitted {
            Ok(admitted) => return relay(&shared, admitted, parts, upload).await,
            Err(turned) => turned,
        };
        // A short body that has been read leaves the connection fit for the next request. Asking for one that the
        // caller holds back would tell it to send.
        if !parts.headers.contains_key(EXPECT) {
            upload.gather().await;
        }
        match turned {
            Turned::Refused(reason) => {
                tracing::debug!(reason, "caller refused");
                measures::caller_refused(reason);
                failure::refusal()
            }
            Turned::Failed(failure) => {
                measures::call_failed(failure.label());
                failure.answer(&upload.prefix(std::time::Duration::ZERO).await)
            }
            Turned::Misdirected => failure::misdirected(),
            Turned::ForeignOrigin(origin) => {
                measures::caller_refused("foreign_origin");
                failure::foreign_origin(&origin)
            }
        }
    };
    IngressFuture {
        answer: Box::pin(answer),
    }
}
