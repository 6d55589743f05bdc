//! A load generator: many connections, one HTTP/1.1 request after another on each.
//!
//! It parses no more of an answer than its length, so that what it costs is small beside what it
//! measures on the same machine. No wait in it is without a bound, and an answer that is late is told of while it is.

use crate::wire::{Wire, connect};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rustls_pki_types::ServerName;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long one answer may take, from the first byte of its request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
/// How long a connection may take to come about, TLS included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// After this time, and each time that it passes again, an answer is told of as late.
const LATE: Duration = Duration::from_secs(10);

/// Where the requests go.
#[derive(Clone)]
#[non_exhaustive]
pub struct LoadTarget {
    /// The address to dial.
    pub address: SocketAddr,
    /// TLS and the name to ask for.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// `Host`.
    pub host: String,
    /// The path of the MCP endpoint.
    pub path: String,
    /// More headers, each a whole line.
    pub headers: Vec<String>,
}

impl std::fmt::Debug for LoadTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The headers may hold a caller key.
        f.debug_struct("LoadTarget")
            .field("address", &self.address)
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What came out of one run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sample {
    /// Time from request to whole answer, sorted.
    pub latencies: Vec<Duration>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl LoadTarget {
    /// Plain HTTP to `address`, path `/mcp`.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            host: address.to_string(),
            path: "/mcp".to_owned(),
            headers: Vec::new(),
        }
    }

    /// A modern `tools/call` of `echo`.
    fn call(&self) -> Bytes {
        let body = concat!(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","#,
            r#""arguments":{"text":"hello"},"_meta":{"#,
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
            r#""io.modelcontextprotocol/clientCapabilities":{}}}}"#
        );
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
             mcp-method: tools/call\r\nmcp-name: echo\r\ncontent-length: {}\r\n",
            self.path,
            self.host,
            body.len()
        );
        self.finish(&mut head);
        Bytes::from(head + body)
    }

    fn get(&self, path: &str) -> Bytes {
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        self.finish(&mut head);
        Bytes::from(head)
    }

    fn finish(&self, head: &mut String) {
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
    }

    async fn connect(&self) -> Result<Box<dyn Wire>> {
        timeout(CONNECT_DEADLINE, connect(self.address, self.tls.as_ref()))
            .await
            .with_context(|| format!("no connection to {} in {CONNECT_DEADLINE:?}", self.address))?
    }
}

/// An answer that has not come yet.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Late {
    /// Which of the connections waits for it, from 0.
    pub connection: usize,
    /// How many answers that connection had before.
    pub answered: usize,
    /// Since its request.
    pub waited: Duration,
}

/// Calls on `connections` connections for `duration`, each as fast as answers come; `late` hears of every answer that
/// takes long.
///
/// # Errors
/// A connection does not come about, a call fails, is not answered with 200, or not in two minutes.
pub async fn calls(
    target: &LoadTarget,
    connections: usize,
    duration: Duration,
    late: impl Fn(Late) + Clone + Send + Sync + 'static,
) -> Result<Sample> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(target.connect().await.context("connecting")?);
    }
    let (request, start) = (target.call(), Instant::now());
    let mut tasks = JoinSet::new();
    for (connection, mut wire) in open.into_iter().enumerate() {
        let (request, late) = (request.clone(), late.clone());
        tasks.spawn(async move {
            let (mut latencies, mut buffer) = (Vec::new(), Vec::with_capacity(16 << 10));
            while start.elapsed() < duration {
                let sent = Instant::now();
                let call = async {
                    wire.write_all(&request).await?;
                    answer(&mut wire, &mut buffer).await
                };
                let answered = latencies.len();
                watched(call, |waited| {
                    late(Late {
                        connection,
                        answered,
                        waited,
                    });
                })
                .await
                .with_context(|| format!("call {answered} of connection {connection}"))?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut sample = Sample::default();
    while let Some(done) = tasks.join_next().await {
        sample.latencies.extend(done??);
    }
    sample.elapsed = start.elapsed();
    sample.latencies.sort_unstable();
    ensure!(!sample.latencies.is_empty(), "not one call was answered");
    Ok(sample)
}

/// What `answer` comes to, within [`ANSWER_DEADLINE`]; `late` hears how long it has taken, each time that [`LATE`] has
/// passed.
async fn watched<T>(answer: impl Future<Output = Result<T>>, late: impl Fn(Duration)) -> Result<T> {
    let sent = Instant::now();
    let tell = async {
        loop {
            sleep(LATE).await;
            late(sent.elapsed());
        }
    };
    tokio::select! {
        biased;
        answered = timeout(ANSWER_DEADLINE, answer) => {
            answered.with_context(|| format!("no answer in {ANSWER_DEADLINE:?}"))?
        }
        () = tell => bail!("the watch has ended"),
    }
}

/// Downloads `path` once; the time that took. `late` hears of it while it takes long.
///
/// # Errors
/// The answer is not 200, does not have `bytes` bytes, or not in two minutes.
pub async fn download(
    target: &LoadTarget,
    path: &str,
    bytes: usize,
    late: impl Fn(Late),
) -> Result<Duration> {
    let mut wire = target.connect().await?;
    let (start, mut buffer) = (Instant::now(), Vec::with_capacity(256 << 10));
    let answer = async {
        wire.write_all(&target.get(path)).await?;
        answer(&mut wire, &mut buffer).await
    };
    let received = watched(answer, |waited| {
        late(Late {
            connection: 0,
            answered: 0,
            waited,
        });
    })
    .await?;
    ensure!(
        received == bytes,
        "{received} bytes came instead of {bytes}"
    );
    Ok(start.elapsed())
}

impl Sample {
    /// The latency below which the fraction `quantile` of the calls stayed.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into what is there"
        )]
        let index = (last as f64 * quantile.clamp(0.0, 1.0)).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// Calls per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Reads one answer; the length of its body.
async fn answer(
    wire: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut Vec<u8>,
) -> Result<usize> {
    let head = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end;
        }
        ensure!(wire.read_buf(buffer).await? > 0, "closed before an answer");
    };
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?.to_ascii_lowercase();
    ensure!(
        text.starts_with("http/1.1 200 "),
        "not answered with 200: {text}"
    );
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok());
    buffer.drain(..head + 4);
    match length {
        Some(length) => counted(wire, buffer, length).await,
        None if text.contains("transfer-encoding: chunked") => chunked(wire, buffer).await,
        None => bail!("an answer without a length: {text}"),
    }
}

async fn counted(
    wire: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut Vec<u8>,
    length: usize,
) -> Result<usize> {
    let mut received = 0;
    loop {
        let now = buffer.len().min(length - received);
        buffer.drain(..now);
        received += now;
        if received == length {
            return Ok(length);
        }
        ensure!(wire.read_buf(buffer).await? > 0, "closed within an answer");
    }
}

async fn chunked(
    wire: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut Vec<u8>,
) -> Result<usize> {
    let mut received = 0;
    loop {
        let end = loop {
            if let Some(end) = find(buffer, b"\r\n") {
                break end;
            }
            ensure!(wire.read_buf(buffer).await? > 0, "closed within an answer");
        };
        let size = std::str::from_utf8(buffer.get(..end).unwrap_or_default())?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16)?;
        buffer.drain(..end + 2);
        counted(wire, buffer, size + 2).await?;
        received += size;
        if size == 0 {
            return Ok(received);
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A server that says nothing is told of each ten seconds and given up after two minutes.
    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_told_of_and_given_up_in_time() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = |waited: Duration| heard.lock().unwrap().push(waited.as_secs());
        let start = tokio::time::Instant::now();
        let silent = watched(std::future::pending::<Result<()>>(), told).await;
        assert!(silent.is_err());
        assert_eq!(start.elapsed(), ANSWER_DEADLINE);
        assert_eq!(heard.lock().unwrap().len(), 11);
        let prompt = watched(async { Ok(7) }, |_| panic!("not late")).await;
        assert_eq!(prompt.unwrap(), 7);
    }
}
