//! The admin listener: `/healthz`, `/readyz`, `/metrics`, on loopback or not at all.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::telemetry::TelemetryError;

/// Whether the program can do its work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, and why, in a few words.
    NotReady(&'static str),
}

/// A bound admin listener that does not serve yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
}

impl Admin {
    /// Binds `address`, which must be loopback.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotLoopback`] before anything is bound; [`AdminError::Bind`] when the address is taken.
    ///
    /// # Cancel safety
    ///
    /// Nothing stays bound when the future is dropped.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        if !address.ip().is_loopback() {
            return Err(AdminError::NotLoopback { address });
        }
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self { listener }),
            Err(source) => Err(AdminError::Bind { address, source }),
        }
    }

    /// The address that it listens on, with the real port if 0 was asked for.
    ///
    /// # Errors
    ///
    /// As the operating system answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then drops what is open.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all its connections.
    pub async fn run(
        self,
        readiness: watch::Receiver<Readiness>,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let page = Arc::new(Pages { readiness, metrics });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((socket, _)) => { connections.spawn(serve(socket, Arc::clone(&page))); }
                    // Out of descriptors, most likely: the pause keeps this loop from spinning.
                    Err(error) => {
                        tracing::warn!(%error, "admin listener cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// The metrics of this process, rendered for Prometheus.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the process-wide recorder behind the `metrics` macros.
    ///
    /// # Errors
    ///
    /// When a recorder was installed before.
    pub fn install() -> Result<Self, TelemetryError> {
        let (recorder, metrics) = Self::detached();
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::AlreadyInstalled)?;
        Ok(metrics)
    }

    /// A recorder that is not installed, for programs and tests that scope their own.
    #[must_use]
    pub fn detached() -> (PrometheusRecorder, Self) {
        // Only an empty list of buckets would be refused.
        let builder = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        (recorder, Self(handle))
    }

    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Why the admin listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address is reachable from elsewhere.
    #[error("admin address {address} is not loopback: use 127.0.0.1:PORT or [::1]:PORT")]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The operating system refused the address.
    #[error("binding admin address {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

struct Pages {
    readiness: watch::Receiver<Readiness>,
    metrics: Metrics,
}

impl Pages {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !names_loopback(request) {
            return text(
                StatusCode::FORBIDDEN,
                "the admin listener answers to loopback names only\n",
            );
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match *self.readiness.borrow() {
                Readiness::Ready => text(StatusCode::OK, "ready\n"),
                Readiness::NotReady(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {why}\n"),
                ),
            },
            "/metrics" => text(StatusCode::OK, self.metrics.render()),
            _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz or /metrics\n"),
        }
    }
}

/// A web page that had its own name re-pointed at loopback would send that name.
fn names_loopback<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Some(authority) = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<http::uri::Authority>().ok())
    else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

async fn serve(socket: TcpStream, pages: Arc<Pages>) {
    let answer = service_fn(|request| {
        let response = pages.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), answer);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection");
    }
}

/// Of every histogram, in seconds: from a call on the same machine to a tool that works for minutes.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0,
];

/// More than any scraper needs; the next one waits in the listen queue.
const MAX_CONNECTIONS: usize = 16;
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Running {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        recorder: PrometheusRecorder,
        tasks: JoinSet<()>,
        stop: CancellationToken,
    }

    async fn start() -> Running {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = admin.local_addr().unwrap();
        let (readiness, watched) = watch::channel(Readiness::NotReady("no link"));
        let (recorder, metrics) = Metrics::detached();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(admin.run(watched, metrics, stop.clone()));
        Running {
            address,
            readiness,
            recorder,
            tasks,
            stop,
        }
    }

    async fn exchange(address: SocketAddr, method: &str, path: &str, host: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_engine_and_health_does_not() {
        let running = start().await;
        let answer = exchange(running.address, "GET", "/readyz", "localhost").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: no link\n"),
            "{answer}"
        );
        assert!(
            exchange(running.address, "GET", "/healthz", "[::1]:1")
                .await
                .starts_with("HTTP/1.1 200")
        );
        running.readiness.send_replace(Readiness::Ready);
        assert!(
            exchange(running.address, "GET", "/readyz", "127.0.0.1:9")
                .await
                .starts_with("HTTP/1.1 200")
        );
    }

    #[tokio::test]
    async fn metrics_are_rendered_for_prometheus() {
        let running = start().await;
        metrics::with_local_recorder(&running.recorder, || {
            metrics::counter!("exchanges_total").increment(3)
        });
        let answer = exchange(running.address, "GET", "/metrics", "localhost").await;
        assert!(answer.contains("exchanges_total 3"), "{answer}");
    }

    #[tokio::test]
    async fn a_rebound_name_and_other_methods_are_refused() {
        let running = start().await;
        assert!(
            exchange(running.address, "GET", "/metrics", "evil.example")
                .await
                .starts_with("HTTP/1.1 403")
        );
        assert!(
            exchange(running.address, "POST", "/healthz", "localhost")
                .await
                .starts_with("HTTP/1.1 405")
        );
    }

    #[tokio::test]
    async fn stop_closes_the_listener() {
        let mut running = start().await;
        running.stop.cancel();
        running.tasks.join_next().await.unwrap().unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
    }

    #[tokio::test]
    async fn anything_but_loopback_is_refused_before_binding() {
        for address in [
            "0.0.0.0:0",
            "[::]:0",
            "192.0.2.1:9000",
            "[::ffff:127.0.0.1]:0",
        ] {
            let error = Admin::bind(address.parse().unwrap()).await.unwrap_err();
            assert!(matches!(error, AdminError::NotLoopback { .. }), "{error}");
            assert!(error.to_string().contains("use 127.0.0.1:PORT"));
        }
    }

    #[tokio::test]
    async fn a_taken_address_names_itself() {
        let running = start().await;
        let error = Admin::bind(running.address).await.unwrap_err();
        assert!(error.to_string().contains(&running.address.to_string()));
    }
}
