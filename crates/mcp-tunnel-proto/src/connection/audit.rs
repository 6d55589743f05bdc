//! What must be true of a session that carries nothing, for tests.

use super::Connection;
use crate::config::ACK_EVERY;

impl Connection {
    /// Everything that is still held although no stream is left and all was carried; nothing, if all is well.
    pub(crate) fn leaks(&self) -> Vec<&'static str> {
        let replay = self.replay.as_deref();
        let checks = [
            ("a stream", self.streams.is_empty()),
            ("a stream in the schedule", self.schedule.is_empty()),
            (
                "a stream that waits to be cancelled",
                self.schedule.is_nothing_paced(),
            ),
            ("bytes to send", self.buffered == 0),
            ("memory for wide windows", self.memory.is_no_window_wide()),
            ("session credit", self.window.is_all_consumed()),
            ("slots of the peer", self.streams.window.is_all_consumed()),
            ("slots of its own", self.streams.is_none_of_ours_live()),
            (
                "an ending stream",
                replay.is_none_or(|replay| replay.is_no_stream_ending()),
            ),
            (
                "more for the next link than what is not worth an ACK",
                self.retained() < ACK_EVERY,
            ),
            (
                "frames for the next link that do not add up",
                replay.is_none_or(|replay| replay.adds_up()),
            ),
        ];
        let held = checks.into_iter().filter(|(_, good)| !good);
        held.map(|(what, _)| what).collect()
    }
}
