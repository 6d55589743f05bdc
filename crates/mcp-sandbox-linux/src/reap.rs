//! Killing families of processes.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A killed process is gone within this time, unless the kernel itself is stuck in it.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    pid: i32,
    parent: i32,
    session: i32,
}

/// Kills a process with its group, session and descendants.
///
/// Each is stopped before its children are looked for, so that none can flee.
pub(crate) fn kill_tree(leader: i32) {
    if let Some(pid) = Pid::from_raw(leader) {
        let _ = kill_process_group(pid, Signal::STOP);
    }
    for pid in family(leader) {
        signal(pid, Signal::KILL);
    }
    if let Some(pid) = Pid::from_raw(leader) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    signal(leader, Signal::KILL);
}

/// Kills every descendant of a process that adopts its orphans, and not itself, and
/// waits until they are gone.
pub(crate) fn kill_descendants(ancestor: i32) {
    for _ in 0..TRIES {
        let family = family(ancestor);
        if family.is_empty() {
            return;
        }
        for pid in family {
            signal(pid, Signal::KILL);
        }
        thread::sleep(PAUSE);
    }
}

/// Whether a process descends from another one.
pub(crate) fn descends(pid: i32, ancestor: i32) -> bool {
    let all = live_processes().collect::<Vec<_>>();
    let mut at = pid;
    for _ in 0..all.len() {
        match all.iter().find(|seen| seen.pid == at) {
            Some(seen) if seen.parent == ancestor => return true,
            Some(seen) => at = seen.parent,
            None => return false,
        }
    }
    false
}

/// Live children of a process.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    live_processes()
        .filter(|seen| seen.parent == parent)
        .map(|seen| seen.pid)
        .collect()
}

/// Live descendants of a process and members of its session, each stopped.
fn family(leader: i32) -> Vec<i32> {
    let mut known = vec![leader];
    loop {
        let before = known.len();
        for Seen {
            pid,
            parent,
            session,
        } in live_processes()
        {
            if !known.contains(&pid) && (known.contains(&parent) || known.contains(&session)) {
                signal(pid, Signal::STOP);
                known.push(pid);
            }
        }
        if known.len() == before {
            known.remove(0);
            return known;
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid).filter(|pid| !pid.is_init()) {
        let _ = kill_process(pid, signal);
    }
}

/// Every process but zombies and the first.
fn live_processes() -> impl Iterator<Item = Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        (state != "Z" && pid != 1).then_some(Seen {
            pid,
            parent,
            session,
        })
    })
}
