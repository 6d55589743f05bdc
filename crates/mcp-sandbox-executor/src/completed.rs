use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Exit, Process, ProcessEvent, SandboxError, Signal};

/// A command that has ended already: for providers whose `exec` answers once.
#[derive(Clone, Debug)]
pub struct Completed(VecDeque<ProcessEvent>);

impl Completed {
    /// Its output was written to files, which are read from their start: unlike pipes
    /// they hold no call for a child in the background.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn of_files(
        stdout: File,
        stderr: File,
        exit: Exit,
        limit: Option<u64>,
    ) -> io::Result<Self> {
        // One byte more than fits, so that it is said that there was more.
        let most = limit.map_or(u64::MAX, |limit| limit.saturating_add(1));
        let read = |mut file: File| {
            let mut bytes = Vec::new();
            file.rewind()?;
            file.take(most).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(Bytes::from(bytes))
        };
        Ok(Self::new(read(stdout)?, read(stderr)?, exit, limit))
    }

    /// Its whole output, which is cut to `limit` bytes in all, and how it ended.
    pub fn new(stdout: Bytes, stderr: Bytes, exit: Exit, limit: Option<u64>) -> Self {
        let mut room = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let mut events = VecDeque::new();
        let mut cut = false;
        for (bytes, event) in [
            (stdout, ProcessEvent::Stdout as fn(Bytes) -> ProcessEvent),
            (stderr, ProcessEvent::Stderr),
        ] {
            let kept = bytes.slice(..bytes.len().min(room));
            room -= kept.len();
            cut |= kept.len() < bytes.len();
            if !kept.is_empty() {
                events.push_back(event(kept));
            }
        }
        events.extend(cut.then_some(ProcessEvent::Truncated));
        events.push_back(ProcessEvent::Exit(exit));
        Self(events)
    }
}

#[async_trait]
impl Process for Completed {
    async fn next_event(&mut self) -> Result<Option<ProcessEvent>, SandboxError> {
        Ok(self.0.pop_front())
    }

    async fn signal(&mut self, _signal: Signal) -> Result<(), SandboxError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: Option<u64>, expect: &[ProcessEvent]) {
        let (stdout, stderr) = (Bytes::from_static(b"abc"), Bytes::from_static(b"de"));
        let completed = Completed::new(stdout, stderr, Exit::Code(1), limit);
        assert_eq!(completed.0, expect, "{limit:?}");
    }

    #[test]
    fn output_is_cut_to_the_limit_and_that_is_said() {
        let out = |bytes| ProcessEvent::Stdout(Bytes::from_static(bytes));
        let err = |bytes| ProcessEvent::Stderr(Bytes::from_static(bytes));
        let exit = || ProcessEvent::Exit(Exit::Code(1));
        check(None, &[out(b"abc"), err(b"de"), exit()]);
        check(Some(5), &[out(b"abc"), err(b"de"), exit()]);
        check(
            Some(4),
            &[out(b"abc"), err(b"d"), ProcessEvent::Truncated, exit()],
        );
        check(Some(0), &[ProcessEvent::Truncated, exit()]);
    }
}
