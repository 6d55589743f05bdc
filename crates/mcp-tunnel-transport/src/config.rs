//! Deadlines and bounds of a link and of the uplink that keeps one up.

use std::{sync::Arc, time::Duration};

use mcp_tunnel_proto::{Config, Features, QUANTUM};
use rustls::ClientConfig;

use crate::{
    MemoryBudget,
    backoff::{Backoff, Pace},
    dial::TcpOptions,
};

/// Deadlines of one link, around the limits of its protocol.
///
/// # Memory
///
/// Beyond what the protocol's [`Config`] states, a driver holds at most two read buffers of [`READ_BUFFER`] bytes, one
/// batch of [`WRITE_BATCH`] bytes and a frame (slices of what the application wrote), and rustls' own buffers: a TLS
/// record received and 96 KiB to send. What that states per process as `m` is the [`MemoryBudget`], which all clones of a
/// configuration share: with `n` links and `o` open streams on them, at most
/// `n * (4 MiB + 512 KiB + 400 KiB) + o * (4 * 64 KiB + 19 KiB) + 4 * 256 MiB` with the defaults of both, if every peer
/// does its worst; an idle link costs some 40 KiB. Read buffers are given back while the link is idle. Before a peer has proven
/// anything it is allowed one HELLO of 4 KiB and [`hello_timeout`](Self::set_hello_timeout), and nothing is
/// allocated for it beyond that.
///
/// Setters clamp; none can fail.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    protocol: Arc<Config>,
    agent: Arc<str>,
    hello_timeout: Duration,
    answer_timeout: Duration,
    write_stall: Duration,
    open_timeout: Duration,
    close_timeout: Duration,
    keep: Duration,
    memory: MemoryBudget,
    sleep_watch: Duration,
}

/// Bytes that a driver reads ahead at most before it hands them to the protocol, part of a frame included.
pub const READ_BUFFER: usize = 64 * 1024;

/// Bytes of frames that a driver gathers at most before it writes them.
pub const WRITE_BATCH: usize = 64 * 1024;

/// What TLS may hold that is encrypted and not written, in bytes.
///
/// A batch ends after the frame that fills it: with room for one frame and the control frames more, it is always one
/// write, without a record of a few bytes behind it.
pub(crate) const TLS_BUFFER: usize = WRITE_BATCH + 2 * QUANTUM;

impl LinkConfig {
    /// The windows, stream counts and ping times of the protocol.
    #[must_use]
    pub fn set_protocol(self, protocol: Config) -> Self {
        let protocol = Arc::new(offering(protocol, self.keep));
        Self { protocol, ..self }
    }

    /// How long a session outlives its connection, at most, for a new one to go on with it. Default zero: it does not,
    /// and a lost connection fails its streams. Whole seconds on the wire.
    ///
    /// An edge tells its gateways; a gateway goes by the shorter of the two. Both ends must want it. Raised, streams of a
    /// peer that is gone for good wait for longer before they fail, and what the protocol's
    /// [`Config`] calls *retained* and *received* is held as long.
    #[must_use]
    pub fn set_keep(self, keep: Duration) -> Self {
        let protocol = Arc::new(offering((*self.protocol).clone(), keep));
        Self {
            protocol,
            keep,
            ..self
        }
    }

    /// Memory for wide windows and much that is retained, shared with all other links that have the same budget. Default: 256
    /// MiB for this configuration and its clones.
    ///
    /// Lowered, fewer bulk streams are fast over long round trips at a time, and none stands still. Raised, readers that
    /// stop make the process hold that much more.
    #[must_use]
    pub fn set_memory(self, memory: MemoryBudget) -> Self {
        Self { memory, ..self }
    }

    /// How often the side that has dialled looks whether the machine has slept meanwhile: then the connection is dead, or a
    /// ping tells, without waiting for silence. An uplink without a link looks as often whether the machine has slept or its
    /// way to the edge has changed, and dials at once. Default 1 s; zero: never, where [`Link::slept`](crate::Link::slept) is called
    /// instead. Raised, that much later after it wakes.
    #[must_use]
    pub fn set_sleep_watch(self, interval: Duration) -> Self {
        Self {
            sleep_watch: interval,
            ..self
        }
    }

    /// Name and version that HELLO carries for diagnostics, as in `mcp-tunnel-gateway/0.1.0`. Default: this crate's.
    #[must_use]
    pub fn set_agent(self, agent: &str) -> Self {
        Self {
            agent: agent.into(),
            ..self
        }
    }

    /// How long the peer's HELLO may take, from the end of the TLS handshake. Default 5 s; at least 10 ms.
    ///
    /// Raised, a peer without any credential holds a socket and 4 KiB for longer.
    #[must_use]
    pub fn set_hello_timeout(self, timeout: Duration) -> Self {
        Self {
            hello_timeout: at_least(timeout),
            ..self
        }
    }

    /// How long the edge may take to answer the credential. Default 10 s; at least 10 ms. A link that is pending has
    /// been answered.
    #[must_use]
    pub fn set_answer_timeout(self, timeout: Duration) -> Self {
        Self {
            answer_timeout: at_least(timeout),
            ..self
        }
    }

    /// How long a write may make no progress before the link counts as dead. Default 15 s; at least 10 ms.
    ///
    /// Raised, a peer that stops reading holds what is queued for it for longer; it is bounded all the same.
    #[must_use]
    pub fn set_write_stall(self, timeout: Duration) -> Self {
        Self {
            write_stall: at_least(timeout),
            ..self
        }
    }

    /// How long [`open`](crate::Link::open) waits while the peer allows no further stream. Default 10 s.
    #[must_use]
    pub fn set_open_timeout(self, timeout: Duration) -> Self {
        Self {
            open_timeout: timeout,
            ..self
        }
    }

    /// How long the last bytes of a closing link may take. Default 2 s; at least 10 ms.
    #[must_use]
    pub fn set_close_timeout(self, timeout: Duration) -> Self {
        Self {
            close_timeout: at_least(timeout),
            ..self
        }
    }

    pub(crate) fn protocol(&self) -> &Arc<Config> {
        &self.protocol
    }

    pub(crate) fn agent(&self) -> &str {
        &self.agent
    }

    pub(crate) fn hello_timeout(&self) -> Duration {
        self.hello_timeout
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    pub(crate) fn write_stall(&self) -> Duration {
        self.write_stall
    }

    pub(crate) fn open_timeout(&self) -> Duration {
        self.open_timeout
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        self.close_timeout
    }

    pub(crate) fn keep(&self) -> Duration {
        self.keep
    }

    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    pub(crate) fn sleep_watch(&self) -> Duration {
        self.sleep_watch
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            protocol: Arc::new(Config::default()),
            agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).into(),
            hello_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            write_stall: Duration::from_secs(15),
            open_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            keep: Duration::ZERO,
            memory: MemoryBudget::new(256 * 1024 * 1024),
            sleep_watch: Duration::from_secs(1),
        }
    }
}

/// A session that is not kept is not offered for resumption either.
fn offering(protocol: Config, keep: Duration) -> Config {
    protocol.set_features(if keep.is_zero() {
        Features::NONE
    } else {
        Features::RESUME
    })
}

/// How an uplink dials, waits and ends.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    tls: Arc<ClientConfig>,
    link: LinkConfig,
    tcp: TcpOptions,
    connect_timeout: Duration,
    credential_timeout: Duration,
    backoff: Backoff,
    kept_pace: Pace,
    retry_after_cap: Duration,
    healthy_after: Duration,
    resumed_at_once_after: Duration,
    drain_timeout: Duration,
}

impl UplinkConfig {
    /// Defaults around a TLS configuration, usually of [`tls::client_config`](crate::tls::client_config).
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            link: LinkConfig::default(),
            tcp: TcpOptions::default(),
            connect_timeout: Duration::from_secs(10),
            credential_timeout: Duration::from_secs(5),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            kept_pace: Pace::new(Duration::from_millis(500)),
            retry_after_cap: Duration::from_secs(300),
            healthy_after: Duration::from_secs(30),
            resumed_at_once_after: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
        }
    }

    /// Deadlines and limits of each link.
    #[must_use]
    pub fn set_link(self, link: LinkConfig) -> Self {
        Self { link, ..self }
    }

    /// Options of each socket.
    #[must_use]
    pub fn set_tcp(self, tcp: TcpOptions) -> Self {
        Self { tcp, ..self }
    }

    /// How long each of resolving, connecting and TLS may take. Default 10 s; at least 10 ms.
    #[must_use]
    pub fn set_connect_timeout(self, timeout: Duration) -> Self {
        Self {
            connect_timeout: at_least(timeout),
            ..self
        }
    }

    /// How long the caller may take to [`present`](crate::Uplink::present) a credential. Default 5 s, the same as
    /// an edge waits for it.
    #[must_use]
    pub fn set_credential_timeout(self, timeout: Duration) -> Self {
        Self {
            credential_timeout: at_least(timeout),
            ..self
        }
    }

    /// First and longest wait between attempts, before jitter; see [`Backoff`]. Default 500 ms and 30 s. Connecting for a
    /// session that is kept has a [pace](Self::set_kept_pace) of its own.
    #[must_use]
    pub fn set_backoff(self, base: Duration, cap: Duration) -> Self {
        Self {
            backoff: Backoff::new(base, cap),
            ..self
        }
    }

    /// The longest time between two attempts to connect while a session without a connection is kept, whether an attempt
    /// was refused or is still unanswered: up to four are under way at an address. Drawn from the upper half. Default 500
    /// ms, or four round trips where those are longer; at least 20 ms.
    ///
    /// That is how long after the return of the network the first attempt that can succeed begins, at most. Lowered, a
    /// gateway whose edge is away sends that many more SYNs for as long as the session is kept; an edge has one TLS
    /// handshake of it at a time all the same.
    #[must_use]
    pub fn set_kept_pace(self, longest: Duration) -> Self {
        Self {
            kept_pace: Pace::new(longest),
            ..self
        }
    }

    /// The longest `retry_after` of an edge that is obeyed. Default 5 min.
    ///
    /// Raised, a confused edge keeps gateways away for longer than people wait.
    #[must_use]
    pub fn set_retry_after_cap(self, cap: Duration) -> Self {
        Self {
            retry_after_cap: cap,
            ..self
        }
    }

    /// How long a link must have been active before its loss starts the back-off over. Default 30 s.
    #[must_use]
    pub fn set_healthy_after(self, healthy: Duration) -> Self {
        Self {
            healthy_after: healthy,
            ..self
        }
    }

    /// How long a connection must have lasted for its loss to be answered by another attempt at once, where its session is
    /// kept. Default 1 s; the loss of a younger one is answered after a wait.
    ///
    /// Lowered, an edge that takes connections and drops them is dialled that much faster.
    #[must_use]
    pub fn set_resumed_at_once_after(self, lasted: Duration) -> Self {
        Self {
            resumed_at_once_after: lasted,
            ..self
        }
    }

    /// How long running streams may take once [`drain`](crate::Uplink::drain) was asked for. Default 30 s.
    #[must_use]
    pub fn set_drain_timeout(self, timeout: Duration) -> Self {
        Self {
            drain_timeout: timeout,
            ..self
        }
    }

    pub(crate) fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    pub(crate) fn link(&self) -> &LinkConfig {
        &self.link
    }

    pub(crate) fn tcp(&self) -> &TcpOptions {
        &self.tcp
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn credential_timeout(&self) -> Duration {
        self.credential_timeout
    }

    pub(crate) fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    pub(crate) fn kept_pace(&self) -> Pace {
        self.kept_pace
    }

    pub(crate) fn retry_after_cap(&self) -> Duration {
        self.retry_after_cap
    }

    pub(crate) fn healthy_after(&self) -> Duration {
        self.healthy_after
    }

    pub(crate) fn resumed_at_once_after(&self) -> Duration {
        self.resumed_at_once_after
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }
}

/// Zero would end a link before it began.
fn at_least(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(10))
}
