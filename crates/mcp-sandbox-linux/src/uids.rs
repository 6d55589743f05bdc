//! Private ranges of user ids, one per sandbox, locked between processes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use crate::sys;

/// 65,536 consecutive user ids (and the same group ids).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UidRange(u32);

/// A range in use. The lock lives as long as any copy of the descriptor, so that
/// it also covers an init that outlives its launcher for a moment.
#[derive(Debug)]
pub(crate) struct LockedRange {
    pub(crate) range: UidRange,
    _lock: OwnedFd,
}

/// Where ranges may lie.
#[derive(Debug)]
pub(crate) struct Ranges {
    taken: Vec<(u64, u64)>,
    next: u32,
}

impl UidRange {
    pub(crate) const SIZE: u32 = 65_536;
    /// Below lie ordinary users and the usual `/etc/subuid`.
    const FIRST: u32 = 0x0100_0000;
    const COUNT: u32 = 4096;

    pub(crate) const fn nth(index: u32) -> Self {
        Self(index % Self::COUNT)
    }

    /// The range whose id `id` is, if any.
    pub(crate) fn containing(id: u32) -> Option<Self> {
        let index = id.checked_sub(Self::FIRST)? / Self::SIZE;
        (index < Self::COUNT).then_some(Self(index))
    }

    pub(crate) const fn base(self) -> u32 {
        Self::FIRST + self.0 * Self::SIZE
    }
}

impl Ranges {
    /// Avoids what the host has given away in `/etc/subuid` and `/etc/subgid`.
    pub(crate) fn of_host() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::avoiding(&(read("/etc/subuid") + &read("/etc/subgid")))
    }

    fn avoiding(delegated: &str) -> Self {
        let parse = |line: &str| {
            let mut parts = line.split(':').skip(1).map(|n| n.trim().parse::<u64>());
            match (parts.next(), parts.next()) {
                (Some(Ok(start)), Some(Ok(count))) => Some((start, start.saturating_add(count))),
                _ => None,
            }
        };
        Self {
            taken: delegated.lines().filter_map(parse).collect(),
            next: 0,
        }
    }

    /// Locks a free range; `None` when all are in use.
    pub(crate) fn lock_any(&mut self) -> io::Result<Option<LockedRange>> {
        for _ in 0..UidRange::COUNT {
            let range = UidRange::nth(self.next);
            self.next = (self.next + 1) % UidRange::COUNT;
            if let Some(locked) = self.lock(range)? {
                // Low indices are used again first, so that what is cached for them is used.
                self.next = 0;
                return Ok(Some(locked));
            }
        }
        Ok(None)
    }

    /// Locks this range; `None` when it is in use or given away.
    pub(crate) fn lock(&self, range: UidRange) -> io::Result<Option<LockedRange>> {
        let (start, end) = (u64::from(range.base()), u64::from(range.base()) + 65_536);
        if self
            .taken
            .iter()
            .any(|(from, to)| *from < end && start < *to)
        {
            return Ok(None);
        }
        let lock = OwnedFd::from(lock_file()?);
        let locked = sys::lock_byte(lock.as_fd(), i64::from(range.0))?;
        Ok(locked.then_some(LockedRange { range, _lock: lock }))
    }
}

/// One file for all processes of the host; only root can open it.
fn lock_file() -> io::Result<File> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let dir = Path::new("/run/mcp-sandbox");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join("uid-ranges"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_and_reversible() {
        for index in [0, 1, 4095] {
            let range = UidRange::nth(index);
            assert_eq!(UidRange::containing(range.base()), Some(range));
            assert_eq!(UidRange::containing(range.base() + 65_535), Some(range));
            assert_ne!(UidRange::containing(range.base() + 65_536), Some(range));
        }
        assert_eq!(UidRange::containing(1000), None);
    }

    #[test]
    fn delegated_ranges_are_avoided() {
        let base = UidRange::nth(0).base();
        let ranges = Ranges::avoiding(&format!("alice:{}:10\nbad\nbob:x:1\n", base + 100));
        assert!(ranges.lock(UidRange::nth(0)).unwrap().is_none());
    }
}
