//! Whether the shell has read the line that it was given, all of it and nothing else.
//!
//! A process that an earlier command has left behind may hold the shell's input and read from it. It cannot put anything in, but
//! what it takes out is missing: at worst, what remains of a line is another command. So the shell repeats what it reads, on
//! the stream on which it alone is heard, and nothing that it says afterwards counts unless that is the line.

use super::marks::find;

/// What the shell may say before it repeats a line: complaints from the end of the call before.
const JUNK_BYTES: usize = 64 * 1024;

/// Waits for the repetition of one line.
#[derive(Debug)]
pub(super) struct Echo {
    line: Vec<u8>,
    /// What a mark of this call begins with.
    mark: Vec<u8>,
    held: Vec<u8>,
    state: EchoState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EchoState {
    Awaited,
    Heard,
    /// The shell answers, and it is not to this line.
    Another,
}

impl Echo {
    pub(super) fn new(line: &str, nonce: &str) -> Self {
        Self {
            line: line.as_bytes().to_vec(),
            mark: format!("@{nonce}:").into_bytes(),
            held: Vec::new(),
            state: EchoState::Awaited,
        }
    }

    /// Takes what the shell says; returns what it says after the line.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.state == EchoState::Heard {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        if let Some(at) = find(&self.held, &self.line) {
            self.state = EchoState::Heard;
            return self.held.split_off(at + self.line.len());
        }
        if find(&self.held, &self.mark).is_some() {
            self.state = EchoState::Another;
        }
        let keep = self.line.len() + JUNK_BYTES;
        if self.held.len() > keep {
            self.held.drain(..self.held.len() - keep);
        }
        Vec::new()
    }

    pub(super) fn state(&self) -> EchoState {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "eval 'a\nb';end N\n";

    #[track_caller]
    fn check(said: &str, after: &str, state: EchoState) {
        for size in 1..=said.len().max(1) {
            let mut echo = Echo::new(LINE, "N");
            let chunks = said.as_bytes().chunks(size);
            let got: Vec<u8> = chunks.flat_map(|chunk| echo.feed(chunk)).collect();
            assert_eq!(String::from_utf8_lossy(&got), after, "in pieces of {size}");
            assert_eq!(echo.state(), state);
        }
    }

    #[test]
    fn only_the_whole_line_is_the_line() {
        check("", "", EchoState::Awaited);
        check(&format!("junk\n{LINE}"), "", EchoState::Heard);
        check(&format!("{LINE}[[: @N:s0:"), "[[: @N:s0:", EchoState::Heard);
        check("eval 'b';end N\n[[: @N:s0:", "", EchoState::Another);
        check("end N\n@N:s0:", "", EchoState::Another);
        check("@N", "", EchoState::Awaited);
        check(&LINE[1..], "", EchoState::Awaited);
    }

    #[test]
    fn a_flood_before_the_line_is_not_held() {
        let mut echo = Echo::new(LINE, "N");
        for _ in 0..100 {
            echo.feed(&[b'x'; 4096]);
            assert!(echo.held.len() <= JUNK_BYTES + LINE.len());
        }
        assert_eq!(echo.feed(LINE.as_bytes()), b"");
        assert_eq!(echo.state(), EchoState::Heard);
    }
}
