//! One stream, one call: hyper's server on the stream, a pooled connection to the MCP server.
//!
//! ```text
//!   stream ──> one HTTP/1.1 request ──> head: checked, rewritten ──> upstream ──> MCP server
//!          <── answer, never kept alive <── head: hop-by-hop fields gone <──────────┘
//! ```
//!
//! Bodies pass as they are and as they come. An answer that breaks off ends as a reset of the stream, and a reset by
//! the edge closes the connection to the server at once.

mod failure;
mod head;
mod primed;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mcp_diagnostics::telemetry::chain;
use mcp_messages::{RequestId, RequestIdFinder};
use mcp_tunnel_proto::TraceContext;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use self::failure::Failure;
use self::primed::Primed;
use crate::measures;
use crate::upstream::{Answer, Upstream, UpstreamBody};
use crate::upstreams::Upstreams;

/// The body of a call on its way to the MCP server.
pub(crate) type RequestBody = Primed<Incoming>;

type ResponseBody = Either<Primed<UpstreamBody>, Full<Bytes>>;

/// What a stream's head says about the call that it carries.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The route's name; empty for the default one.
    pub(crate) route: String,
    /// Until when the MCP server must have begun its answer.
    pub(crate) deadline: Duration,
    /// For a request that says nothing of its own about it.
    pub(crate) trace: Option<TraceContext>,
}

/// Serves the one request of a stream until its answer is complete or `aborted` resolves.
///
/// Gives the stream back when the answer broke off, so that the caller can reset it: closing it would look like an end.
///
/// # Cancel safety
///
/// Dropping the future drops the stream and closes the connection to the MCP server.
pub(crate) async fn serve<IO>(
    io: IO,
    call: Call,
    upstreams: &Upstreams,
    aborted: impl Future<Output = ()>,
) -> Result<(), Broken<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let answer = service_fn(|request| async {
        Ok::<_, Infallible>(answer(request, &call, upstreams).await)
    });
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        // The edge may end its half with the request; giving up is a reset.
        .half_close(true)
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(READ_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(io), answer);
    tokio::select! {
        biased;
        ended = &mut connection => ended.map_err(|source| Broken::Failed {
            io: connection.into_parts().io.into_inner(),
            source,
        }),
        () = aborted => Err(Broken::Aborted),
    }
}

/// Why a call has no complete answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken<IO> {
    /// The edge gave up.
    #[error("the edge gave the call up")]
    Aborted,
    /// The request was malformed, or the answer broke off; the stream must be reset.
    #[error("the call broke off")]
    Failed {
        /// The stream, neither ended nor reset.
        io: IO,
        /// hyper's reason; that of a server is further down its chain.
        #[source]
        source: hyper::Error,
    },
}

async fn answer(
    request: Request<Incoming>,
    call: &Call,
    upstreams: &Upstreams,
) -> Response<ResponseBody> {
    match forward(request, call, upstreams).await {
        Ok(response) => response.map(Either::Left),
        Err(Refused { failure, id }) => {
            measures::failed(failure.name());
            failure.response(id).map(Either::Right)
        }
    }
}

/// A call that ends here, and its JSON-RPC id as far as it could be found.
struct Refused {
    failure: Failure,
    id: Option<RequestId>,
}

impl Refused {
    async fn new<B>(failure: Failure, body: B) -> Self
    where
        B: Body<Data = Bytes> + Unpin,
    {
        Self {
            failure,
            id: find_id(body).await,
        }
    }
}

async fn forward(
    request: Request<Incoming>,
    call: &Call,
    upstreams: &Upstreams,
) -> Result<Response<Primed<UpstreamBody>>, Refused> {
    let began = Instant::now();
    let (mut parts, body) = request.into_parts();
    let upstream = match admit(&parts, call, upstreams) {
        Ok(upstream) => upstream,
        Err(failure) => return Err(Refused::new(failure, body).await),
    };
    let probed = parts
        .headers
        .get(PROBE_FIELD)
        .is_some_and(|value| value == "1");
    head::to_server(&mut parts, upstream.server());
    head::trace(&mut parts, call.trace);
    let request = Request::from_parts(parts, Primed::prime(body).await);
    let answer = obtain(upstream, request, call).await?;
    let took = began.elapsed();
    upstream.measures().answered(took);
    let timing = probed.then(|| server_timing(took, &answer));
    let (mut parts, body) = answer.response.into_parts();
    head::to_edge(&mut parts);
    parts
        .headers
        .extend(timing.map(|timing| (SERVER_TIMING, timing)));
    debug!(status = parts.status.as_u16(), "MCP server answers");
    Ok(Response::from_parts(parts, Primed::prime(body).await))
}

/// The server's answer, in time, or what the caller is told instead.
async fn obtain(
    upstream: &Arc<Upstream>,
    request: Request<RequestBody>,
    call: &Call,
) -> Result<Answer, Refused> {
    let at_hand = request.body().at_hand();
    match timeout(call.deadline, upstream.send(request)).await {
        Ok(Ok(answer)) if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err(Refused::new(Failure::switched_protocols(), at_hand).await)
        }
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(unanswered)) => {
            warn!(error = %chain(&unanswered.error), "MCP server does not answer");
            let failure = Failure::send(&unanswered.error);
            Err(match unanswered.request {
                Some(request) => Refused::new(failure, request.into_body()).await,
                None => Refused::new(failure, at_hand).await,
            })
        }
        Err(_) => {
            warn!(deadline = ?call.deadline, "MCP server is late");
            Err(Refused::new(Failure::late(), at_hand).await)
        }
    }
}

/// The server that a head may go to.
fn admit<'a>(
    parts: &request::Parts,
    call: &Call,
    upstreams: &'a Upstreams,
) -> Result<&'a Arc<Upstream>, Failure> {
    head::check(parts).map_err(|error| {
        warn!(%error, "the edge sent a head that is refused");
        Failure::head(error)
    })?;
    let upstream = upstreams.find(&call.route).ok_or_else(Failure::no_route)?;
    if !head::is_exposed(upstream.server(), &parts.method, &parts.uri) {
        return Err(Failure::not_exposed());
    }
    Ok(upstream)
}

/// The id of the request in a body; a body that is slow or long before its id has none.
async fn find_id<B>(mut body: B) -> Option<RequestId>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut finder = RequestIdFinder::new(ID_SEARCH_BYTES);
    let read = async {
        while !finder.is_done()
            && let Some(Ok(frame)) = body.frame().await
        {
            finder.feed(frame.data_ref().map_or(&[], |data| data));
        }
    };
    let _ = timeout(ID_SEARCH_DEADLINE, read).await;
    finder.id().cloned()
}

/// Milliseconds in the gateway itself, for a new connection, and in the server until its head.
fn server_timing(total: Duration, answer: &Answer) -> HeaderValue {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let own = total
        .saturating_sub(answer.server)
        .saturating_sub(answer.connect.unwrap_or_default());
    let connect = answer.connect.map_or_else(String::new, |connect| {
        format!(", connect;dur={:.3}", ms(connect))
    });
    let text = format!(
        "gateway;dur={:.3}{connect}, mcp-server;dur={:.3}",
        ms(own),
        ms(answer.server)
    );
    HeaderValue::from_str(&text).expect("digits and plain words")
}

const PROBE_FIELD: HeaderName = HeaderName::from_static("mcp-tunnel-probe");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The edge sends a head in one go; a stream without one holds a place for no longer than this.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Longest head, and most bytes read ahead of a body.
const READ_BUFFER: usize = 64 * 1024;
const MAX_HEADERS: usize = 256;

/// Of a call that fails no more than this is read.
const ID_SEARCH_BYTES: usize = 256 * 1024;
const ID_SEARCH_DEADLINE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
