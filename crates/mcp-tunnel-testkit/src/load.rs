//! A load generator: many connections, one HTTP/1.1 request after another on each.
//!
//! It parses no more of an answer than its length, so that what it costs is small beside what it
//! measures on the same machine.

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
    time::timeout,
};

/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

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
        connect(self.address, self.tls.as_ref()).await
    }
}

/// Calls on `connections` connections for `duration`, each as fast as answers come.
///
/// # Errors
/// A call fails or is not answered with 200.
pub async fn calls(target: &LoadTarget, connections: usize, duration: Duration) -> Result<Sample> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(target.connect().await.context("connecting")?);
    }
    let (request, start) = (target.call(), Instant::now());
    let mut tasks = JoinSet::new();
    for mut wire in open {
        let request = request.clone();
        tasks.spawn(async move {
            let (mut latencies, mut buffer) = (Vec::new(), Vec::with_capacity(16 << 10));
            while start.elapsed() < duration {
                let sent = Instant::now();
                wire.write_all(&request).await?;
                timeout(ANSWER_DEADLINE, answer(&mut wire, &mut buffer)).await??;
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

/// Downloads `path` once; the time that took.
///
/// # Errors
/// The answer is not 200 or does not have `bytes` bytes.
pub async fn download(target: &LoadTarget, path: &str, bytes: usize) -> Result<Duration> {
    let mut wire = target.connect().await?;
    let start = Instant::now();
    wire.write_all(&target.get(path)).await?;
    let mut buffer = Vec::with_capacity(256 << 10);
    let received = timeout(ANSWER_DEADLINE, answer(&mut wire, &mut buffer)).await??;
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
