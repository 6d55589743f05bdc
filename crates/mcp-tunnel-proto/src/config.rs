//! Limits and times, each with its default and what it costs.

use std::time::Duration;

use crate::{Features, Limits, QUANTUM, hello::MIN_MAX_FRAME, wire::MAX_OFFSET};

/// Limits and times of one side of a link.
///
/// # Memory
///
/// With `s` = [`max_streams`](Self::max_streams) + [`max_opened_streams`](Self::max_opened_streams), a
/// session holds at most
///
/// ```text
/// received   s * stream_window + shared_window                       (times 4, see below)
/// to send    session_send_buffer + s * 16 KiB + one Transmit
/// retained   max_retained + s * 2 KiB                                (only if the session survives its link)
/// fixed      s * about 700 bytes + 16 KiB of small payloads + 4 KiB of HELLO + one partial frame
/// ```
///
/// Of this, `shared_window` and what `max_retained` adds to `retained` are taken only while the link carries so much,
/// and may be kept within one bound for all sessions of a process:
/// [`Connection::allow_memory`](crate::Connection::allow_memory). With `n` sessions, `o` streams open on all of them and that
/// bound `m`, a process holds at most
///
/// ```text
/// received   o * stream_window + m                                   (times 4)
/// to send    n * session_send_buffer + o * 16 KiB
/// retained   n * retained + o * 2 KiB + m - what of m is received
/// ```
///
/// The factor: payloads of 1 KiB and more are slices of the transport's read buffer and keep it alive. A
/// stream that already has unread bytes gets copies below 16 KiB, so that with read buffers of 64 KiB
/// a slice pins at most four times itself, and a first slice at most one read buffer a stream. Payloads below 1 KiB are
/// copied and share pieces of 16 KiB, which is four times the least `stream_window`; so is what is retained of frames that carry
/// less than 1 KiB: it lies in a ring that grows by doubling, with 24 bytes for each frame.
///
/// Setters clamp to what the protocol allows; none can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    max_frame: u16,
    stream_window: u64,
    wide_stream_window: u64,
    max_stream_window: u64,
    shared_window: u64,
    session_window: u64,
    max_session_window: u64,
    retained: u64,
    max_retained: u64,
    max_streams: u32,
    max_opened_streams: u32,
    send_buffer: usize,
    session_send_buffer: usize,
    ping_interval: Duration,
    silence: Duration,
    least_silence: Duration,
    features: Features,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_frame: 16 * 1024,
            stream_window: 4 * QUANTUM as u64,
            wide_stream_window: 64 * QUANTUM as u64,
            max_stream_window: 32 * MIB,
            shared_window: 64 * MIB,
            session_window: 8 * MIB,
            max_session_window: 64 * MIB,
            retained: 2 * ACK_EVERY,
            max_retained: 64 * MIB,
            max_streams: 1024,
            max_opened_streams: 1024,
            send_buffer: 256 * 1024,
            session_send_buffer: 4 * 1024 * 1024,
            ping_interval: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            least_silence: Duration::from_secs(4),
            features: Features::NONE,
        }
    }
}

/// Setters, chained.
impl Config {
    /// Payload of one frame that this side accepts, in bytes. Default 16 KiB: one TLS record; 4 KiB to
    /// 65,535. Costs one partial frame of this size. Raised, a peer's frame delays others for longer.
    #[must_use]
    pub const fn set_max_frame(mut self, bytes: u16) -> Self {
        self.max_frame = if bytes < MIN_MAX_FRAME {
            MIN_MAX_FRAME
        } else {
            bytes
        };
        self
    }

    /// Payload that a peer may send on a new stream unasked, in bytes. Default 4 quanta, just under 64 KiB:
    /// most calls fit, and bulk is cut into whole frames. At least 4 KiB. Costs as much per stream. Raised, every open stream may hold that much more.
    #[must_use]
    pub const fn set_stream_window(mut self, bytes: u64) -> Self {
        self.stream_window = clamp(bytes, 4096, MAX_OFFSET);
        self
    }

    /// The first window of a stream that turns out to need a wide one, in bytes, taken from the shared window. Default 64
    /// quanta, just under 1 MiB: 130 Mbit/s at 60 ms. Where round trips are short it is what 10 Gbit/s carry in two of
    /// them. Raised, fewer streams get it. The window then stays as it is, unless
    /// [`set_max_stream_window`](Self::set_max_stream_window) is called after this.
    #[must_use]
    pub const fn set_wide_stream_window(mut self, bytes: u64) -> Self {
        self.wide_stream_window = clamp(bytes, 4096, MAX_OFFSET);
        self.max_stream_window = self.wide_stream_window;
        self
    }

    /// The most that a stream's window grows to, in bytes, taken from the shared window. Default 32 MiB: 2 Gbit/s at
    /// 60 ms. A window is doubled as long as more than half of it is read in a round trip, and halved when less than an
    /// eighth is.
    #[must_use]
    pub const fn set_max_stream_window(mut self, bytes: u64) -> Self {
        self.max_stream_window = clamp(bytes, self.wide_stream_window, MAX_OFFSET);
        self
    }

    /// What all wide windows of a session may add, in bytes. Default 64 MiB. Costs as much per session, as far as
    /// [`allow_memory`](crate::Connection::allow_memory) lets it: readers fill it by reading fast once and then stopping. No
    /// stream gets more of it than it leaves.
    #[must_use]
    pub const fn set_shared_window(mut self, bytes: u64) -> Self {
        self.shared_window = clamp(bytes, 0, MAX_OFFSET);
        self
    }

    /// Encoded bytes that the peer may have on the way at the start, in bytes. Default 8 MiB: 800 Mbit/s at 60 ms; at least
    /// 64 KiB. Credit returns on arrival, so that slow readers never hold it: it costs nothing here, and bounds what the
    /// *peer* retains for resumption. The window then stays as it is, unless
    /// [`set_max_session_window`](Self::set_max_session_window) is called after this.
    #[must_use]
    pub const fn set_session_window(mut self, bytes: u64) -> Self {
        self.session_window = clamp(bytes, 64 * 1024, MAX_OFFSET);
        self.max_session_window = self.session_window;
        self
    }

    /// The most that the session's window grows to, as a stream's does, in bytes. Default 64 MiB.
    #[must_use]
    pub const fn set_max_session_window(mut self, bytes: u64) -> Self {
        self.max_session_window = clamp(bytes, self.session_window, MAX_OFFSET);
        self
    }

    /// Bytes sent and not acknowledged that a session which survives its link may always keep, beside heads and ends.
    /// Default 512 KiB, and at least that: twice what a peer may leave unacknowledged (ACK-3), so that it always has enough
    /// to acknowledge. Costs as much per session while its link stands still. Payload beyond it waits, whatever credit the
    /// peer gives.
    #[must_use]
    pub const fn set_retained(mut self, bytes: u64) -> Self {
        self.retained = clamp(bytes, 2 * ACK_EVERY, MAX_OFFSET);
        if self.max_retained < self.retained {
            self.max_retained = self.retained;
        }
        self
    }

    /// The most that this grows to while the peer acknowledges and payload waits for it all the same, in bytes. Default
    /// 64 MiB: what a link of 2 Gbit/s carries in 250 ms. A peer that acknowledges nothing gets none of it.
    #[must_use]
    pub const fn set_max_retained(mut self, bytes: u64) -> Self {
        self.max_retained = clamp(bytes, self.retained, MAX_OFFSET);
        self
    }

    /// Streams that the peer may have open at a time. Default 1,024. Each costs about 700 bytes and a stream
    /// window. Raised, a peer makes the application work on that many at once.
    #[must_use]
    pub const fn set_max_streams(mut self, streams: u32) -> Self {
        self.max_streams = streams;
        self
    }

    /// Streams that this side has open at a time, whatever the peer allows. Default 1,024. Costs as above.
    #[must_use]
    pub const fn set_max_opened_streams(mut self, streams: u32) -> Self {
        self.max_opened_streams = streams;
        self
    }

    /// What a stream accepts ahead of the link, in bytes. Default 256 KiB; at least 16 KiB. The peer's credit
    /// bounds it too: nothing is accepted that the peer has not made room for.
    #[must_use]
    pub fn set_send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = bytes.max(QUANTUM);
        self
    }

    /// What all streams together accept ahead of the link, in bytes. Default 4 MiB. Beyond it each stream
    /// may still hold one quantum of 16 KiB, so that none starves.
    #[must_use]
    pub const fn set_session_send_buffer(mut self, bytes: usize) -> Self {
        self.session_send_buffer = bytes;
        self
    }

    /// Time without a byte after which a ping asks whether the peer is there. Default 5 s; at least 10 ms. 16 bytes each
    /// way. While bytes arrive, there is one ping in six intervals, which measures the round trip.
    #[must_use]
    pub fn set_ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Silence after which the link counts as dead at the latest. Default 15 s. Any byte ends it. At least twice the ping
    /// interval when used.
    #[must_use]
    pub const fn set_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// The least time that the answer to a ping may take before a link whose session survives it counts as dead. Default
    /// 4 s: four segments lost in a row on most links.
    ///
    /// The time is four times what round trips take with their variation, or this if it is more, and a second for each 128
    /// KiB that are on the way before the ping; never beyond [`set_silence`](Self::set_silence). With the defaults a quiet
    /// link is found dead after 9 s. Lowered, a busy machine or a bad radio link changes connections for nothing.
    #[must_use]
    pub const fn set_least_silence(mut self, silence: Duration) -> Self {
        self.least_silence = silence;
        self
    }

    /// Optional features to offer. Default none.
    #[must_use]
    pub const fn set_features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }
}

const MIB: u64 = 1024 * 1024;

/// ACK-3: so many unacknowledged bytes are worth a frame of their own.
pub(crate) const ACK_EVERY: u64 = MIB / 4;

const fn clamp(value: u64, least: u64, most: u64) -> u64 {
    if value < least {
        least
    } else if value > most {
        most
    } else {
        value
    }
}

/// What is set.
impl Config {
    /// What HELLO announces.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits::new(
            self.max_frame,
            self.stream_window,
            self.session_window,
            self.max_streams.into(),
        )
    }

    /// See [`set_max_frame`](Self::set_max_frame).
    #[must_use]
    pub const fn max_frame(&self) -> u16 {
        self.max_frame
    }

    /// See [`set_stream_window`](Self::set_stream_window).
    #[must_use]
    pub const fn stream_window(&self) -> u64 {
        self.stream_window
    }

    /// See [`set_wide_stream_window`](Self::set_wide_stream_window); never below the stream window.
    #[must_use]
    pub fn wide_stream_window(&self) -> u64 {
        self.wide_stream_window.max(self.stream_window)
    }

    /// See [`set_max_stream_window`](Self::set_max_stream_window); never below the wide stream window.
    #[must_use]
    pub fn max_stream_window(&self) -> u64 {
        self.max_stream_window.max(self.wide_stream_window())
    }

    /// See [`set_shared_window`](Self::set_shared_window).
    #[must_use]
    pub const fn shared_window(&self) -> u64 {
        self.shared_window
    }

    /// See [`set_session_window`](Self::set_session_window).
    #[must_use]
    pub const fn session_window(&self) -> u64 {
        self.session_window
    }

    /// See [`set_max_session_window`](Self::set_max_session_window).
    #[must_use]
    pub const fn max_session_window(&self) -> u64 {
        self.max_session_window
    }

    /// See [`set_retained`](Self::set_retained).
    #[must_use]
    pub const fn retained(&self) -> u64 {
        self.retained
    }

    /// See [`set_max_retained`](Self::set_max_retained).
    #[must_use]
    pub const fn max_retained(&self) -> u64 {
        self.max_retained
    }

    /// See [`set_max_streams`](Self::set_max_streams).
    #[must_use]
    pub const fn max_streams(&self) -> u32 {
        self.max_streams
    }

    /// See [`set_max_opened_streams`](Self::set_max_opened_streams).
    #[must_use]
    pub const fn max_opened_streams(&self) -> u32 {
        self.max_opened_streams
    }

    /// See [`set_send_buffer`](Self::set_send_buffer).
    #[must_use]
    pub const fn send_buffer(&self) -> usize {
        self.send_buffer
    }

    /// See [`set_session_send_buffer`](Self::set_session_send_buffer).
    #[must_use]
    pub const fn session_send_buffer(&self) -> usize {
        self.session_send_buffer
    }

    /// See [`set_ping_interval`](Self::set_ping_interval).
    #[must_use]
    pub const fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    /// See [`set_silence`](Self::set_silence).
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.silence.max(self.ping_interval.saturating_mul(2))
    }

    /// See [`set_least_silence`](Self::set_least_silence).
    #[must_use]
    pub const fn least_silence(&self) -> Duration {
        self.least_silence
    }

    /// See [`set_features`](Self::set_features).
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }
}
