//! Control groups: version 2, version 1, or both side by side.
//!
//! Each sandbox gets one group per hierarchy that has a controller we use, below
//! a group of this launcher, below the group that the launcher itself is in: root
//! of the host has that, and so has whoever was given a subtree (systemd:
//! `Delegate=yes`). Version 2 also kills and freezes, even where it has no
//! controllers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::geteuid;

use crate::plan::EffectiveLimits;

const PREFIX: &str = "mcp-sandbox-";
/// Where the service itself goes in a group that was given to it alone.
const SERVICE: &str = "mcp-sandbox-service";

/// The hierarchies that can be used, with this launcher's group in each.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    /// Version 1: controller and our group.
    v1: Vec<(String, PathBuf)>,
    /// Version 2: our group and its controllers.
    v2: Option<(PathBuf, Vec<String>)>,
}

/// The groups of one sandbox.
#[derive(Debug)]
pub(crate) struct Group {
    dirs: Vec<PathBuf>,
    v2: Option<PathBuf>,
    out_of_memory: Option<PathBuf>,
}

/// A hierarchy as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    dir: PathBuf,
    /// Where the hierarchy begins, as far as it can be seen.
    top: PathBuf,
    /// `None`: version 2.
    controller: Option<String>,
}

impl Hierarchies {
    /// Finds the hierarchies, removes what dead launchers left, makes our groups.
    ///
    /// Fails unless memory and number of processes can be limited.
    pub(crate) fn open() -> io::Result<Self> {
        let found = find(
            &fs::read_to_string("/proc/self/mountinfo")?,
            &fs::read_to_string("/proc/self/cgroup")?,
        );
        let instance = instance_name(std::process::id())?;
        let mut all = Self {
            v1: Vec::new(),
            v2: None,
        };
        let mut version_2 = None;
        for Found {
            dir,
            top,
            controller,
        } in found
        {
            remove_leftovers(&dir);
            let ours = dir.join(&instance);
            match controller {
                Some(name) if matches!(name.as_str(), "memory" | "pids" | "cpu") => {
                    fs::create_dir(&ours)?;
                    all.v1.push((name, ours));
                }
                Some(_) => {}
                None => version_2 = Some((dir, top)),
            }
        }
        if let Some((dir, top)) = version_2 {
            all.v2 = open_v2(&dir, dir.join(&instance));
            // A group with processes of others gives nothing to groups below it; root makes one beside it.
            let lacking = !all.has("memory") || !all.has("pids");
            if lacking && top != dir && geteuid().is_root() {
                all.remove_v2();
                remove_leftovers(&top);
                all.v2 = open_v2(&top, top.join(&instance));
            }
        }
        if all.has("memory") && all.has("pids") {
            Ok(all)
        } else {
            all.remove();
            Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no memory and pids controllers",
            ))
        }
    }

    /// Whether a controller is there.
    pub(crate) fn has(&self, controller: &str) -> bool {
        let v2 = self
            .v2
            .as_ref()
            .is_some_and(|(_, list)| list.iter().any(|c| c == controller));
        v2 || self.v1.iter().any(|(name, _)| name == controller)
    }

    /// Whether groups can be stopped and killed as a whole.
    pub(crate) fn can_freeze(&self) -> bool {
        self.v2.is_some()
    }

    /// In words, for a report.
    pub(crate) fn describe(&self) -> String {
        let v1 = self.v1.iter().map(|(name, _)| format!("{name} (v1)"));
        let v2 = self
            .v2
            .iter()
            .flat_map(|(_, list)| list.iter().map(|c| format!("{c} (v2)")));
        let kill = self.v2.iter().map(|_| "kill and freeze (v2)".to_owned());
        v1.chain(v2).chain(kill).collect::<Vec<_>>().join(", ")
    }

    /// Makes and limits the groups of a sandbox.
    pub(crate) fn create(&self, id: u64, limits: &EffectiveLimits) -> io::Result<Group> {
        let mut group = Group {
            dirs: Vec::new(),
            v2: None,
            out_of_memory: None,
        };
        match self.fill(&mut group, id, limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove();
                Err(error)
            }
        }
    }

    fn fill(&self, group: &mut Group, id: u64, limits: &EffectiveLimits) -> io::Result<()> {
        for (controller, parent) in &self.v1 {
            let dir = group.make(parent, id)?;
            match controller.as_str() {
                "memory" => {
                    write(&dir, "memory.limit_in_bytes", limits.memory_bytes)?;
                    // Absent where swap is not accounted; then there is none to limit.
                    let _ = write(&dir, "memory.memsw.limit_in_bytes", limits.memory_bytes);
                    group.out_of_memory = Some(dir.join("memory.oom_control"));
                }
                "pids" => write(&dir, "pids.max", limits.processes)?,
                _ => {
                    if let Some(millis) = limits.cpu_millis {
                        write(&dir, "cpu.cfs_quota_us", u64::from(millis) * 100)?;
                    }
                }
            }
        }
        let Some((parent, controllers)) = &self.v2 else {
            return Ok(());
        };
        let dir = group.make(parent, id)?;
        for controller in controllers {
            match controller.as_str() {
                "memory" => {
                    write(&dir, "memory.max", limits.memory_bytes)?;
                    let _ = write(&dir, "memory.swap.max", 0);
                    let _ = write(&dir, "memory.oom.group", 0);
                    group.out_of_memory = Some(dir.join("memory.events"));
                }
                "pids" => write(&dir, "pids.max", limits.processes)?,
                "cpu" => {
                    if let Some(millis) = limits.cpu_millis {
                        write(
                            &dir,
                            "cpu.max",
                            format!("{} 100000", u64::from(millis) * 100),
                        )?;
                    }
                }
                _ => {}
            }
        }
        group.v2 = Some(dir);
        Ok(())
    }

    fn remove_v2(&mut self) {
        if let Some((dir, _)) = self.v2.take() {
            remove_dir(&dir);
        }
    }

    /// Removes this launcher's groups; those of sandboxes must be gone.
    pub(crate) fn remove(&self) {
        let v2 = self.v2.iter().map(|(dir, _)| dir);
        for dir in self.v1.iter().map(|(_, dir)| dir).chain(v2) {
            remove_dir(dir);
        }
    }
}

impl Group {
    /// Moves a process in.
    pub(crate) fn attach(&self, pid: i32) -> io::Result<()> {
        self.dirs
            .iter()
            .try_for_each(|dir| write(dir, "cgroup.procs", pid))
    }

    /// Kills everything inside at once, where the kernel can.
    pub(crate) fn kill(&self) {
        if let Some(dir) = &self.v2 {
            // Before Linux 5.14 the file is absent; the end of init kills all the same.
            let _ = write(dir, "cgroup.kill", 1);
        }
    }

    /// Stops or continues everything inside.
    pub(crate) fn freeze(&self, frozen: bool) -> bool {
        self.v2
            .as_ref()
            .is_some_and(|dir| write(dir, "cgroup.freeze", u8::from(frozen)).is_ok())
    }

    /// The file whose `oom_kill` counts kills for lack of memory.
    pub(crate) fn out_of_memory_file(&self) -> Option<&Path> {
        self.out_of_memory.as_deref()
    }

    /// Removes the groups; nothing may live in them.
    pub(crate) fn remove(&self) {
        self.dirs.iter().for_each(|dir| remove_dir(dir));
    }

    fn make(&mut self, parent: &Path, id: u64) -> io::Result<PathBuf> {
        let dir = parent.join(id.to_string());
        fs::create_dir(&dir)?;
        self.dirs.push(dir.clone());
        Ok(dir)
    }
}

/// `oom_kill` in `memory.events` or `memory.oom_control`.
pub(crate) fn out_of_memory_kills(text: &str) -> u64 {
    let count = |line: &str| {
        line.strip_prefix("oom_kill ")
            .and_then(|n| n.trim().parse().ok())
    };
    text.lines().find_map(count).unwrap_or(0)
}

/// Our group in the version 2 hierarchy, with the controllers that it really has.
fn open_v2(parent: &Path, ours: PathBuf) -> Option<(PathBuf, Vec<String>)> {
    fs::create_dir(&ours).ok()?;
    let offered = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    let mut controllers = Vec::new();
    for name in offered
        .split_whitespace()
        .filter(|n| matches!(*n, "memory" | "pids" | "cpu"))
    {
        let enable = |dir: &Path| write(dir, "cgroup.subtree_control", format!("+{name}"));
        let enabled = match enable(parent) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && is_ours_alone(parent) => {
                move_down(parent).and_then(|()| enable(parent))
            }
            enabled => enabled,
        };
        if enabled.and_then(|()| enable(&ours)).is_ok() {
            controllers.push(name.to_owned());
        }
    }
    Some((ours, controllers))
}

/// Whether a group has no processes but this one and the service.
fn is_ours_alone(dir: &Path) -> bool {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    members
        .lines()
        .all(|pid| pid.parse().is_ok_and(|pid: u32| own.contains(&pid)))
}

/// Moves the processes of a group to one below it: the kernel divides no group that has processes.
fn move_down(dir: &Path) -> io::Result<()> {
    let below = dir.join(SERVICE);
    match fs::create_dir(&below) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let members = fs::read_to_string(dir.join("cgroup.procs"))?;
    members
        .lines()
        .try_for_each(|pid| write(&below, "cgroup.procs", pid))
}

/// The directory of this process's group in every hierarchy.
pub(crate) fn find(mountinfo: &str, own: &str) -> Vec<Found> {
    let mut found = Vec::<Found>::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else {
            continue;
        };
        let mut kind = kind.split(' ');
        let controller = match (kind.next(), kind.nth(1)) {
            (Some("cgroup2"), _) => None,
            (Some("cgroup"), Some(options)) => {
                let known = |option: &&str| matches!(*option, "memory" | "pids" | "cpu");
                let Some(controller) = options.split(',').find(known) else {
                    continue;
                };
                Some(controller.to_owned())
            }
            _ => continue,
        };
        let group = own_group(own, controller.as_deref()).unwrap_or("/");
        let below = group.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        let inside = Path::new(point).join(below.trim_start_matches('/'));
        let dir = if inside.is_dir() || cfg!(test) {
            inside
        } else {
            PathBuf::from(point)
        };
        if !found.iter().any(|f| f.controller == controller) {
            let top = PathBuf::from(point);
            found.push(Found {
                dir,
                top,
                controller,
            });
        }
    }
    found
}

fn own_group<'a>(own: &'a str, controller: Option<&str>) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let matches = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|c| c == name),
        };
        matches.then_some(path)
    })
}

/// A name that says which process it belongs to, safe against reused ids.
pub(crate) fn instance_name(pid: u32) -> io::Result<String> {
    let started = started_at(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(format!("{PREFIX}{pid}-{started}"))
}

/// Whether a name is that of a launcher that no longer lives.
pub(crate) fn is_left_over(name: &str) -> bool {
    let parts = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'));
    let Some((pid, started)) = parts else {
        return false;
    };
    let (Ok(pid), Ok(started)) = (pid.parse(), started.parse::<u64>()) else {
        return false;
    };
    started_at(pid) != Some(started)
}

/// When a process started, if it lives: a zombie holds nothing any more.
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// Kills and removes the groups of launchers that no longer live.
fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(is_left_over) {
            continue;
        }
        let path = entry.path();
        let _ = write(&path, "cgroup.kill", 1);
        for child in fs::read_dir(&path).into_iter().flatten().flatten() {
            if child.path().is_dir() {
                remove_dir(&child.path());
            }
        }
        remove_dir(&path);
    }
}

/// Removes a group; the last process may still be on its way out.
fn remove_dir(dir: &Path) {
    for _ in 0..200 {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                thread::sleep(Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

fn write(dir: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    fs::write(dir.join(file), value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mountinfo: &str, own: &str, expect: &[(Option<&str>, &str)]) {
        let found = find(mountinfo, own);
        let got = found
            .iter()
            .map(|f| (f.controller.as_deref(), f.dir.to_str().unwrap()));
        assert_eq!(got.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn hybrid_hierarchies_are_found() {
        check(
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "8:pids:/\n4:memory:/a/b\n0::/c\n",
            &[
                (Some("memory"), "/sys/fs/cgroup/memory/a/b"),
                (Some("pids"), "/sys/fs/cgroup/pids/"),
                (None, "/sys/fs/cgroup/unified/c"),
            ],
        );
    }

    #[test]
    fn version_2_in_a_container_is_found() {
        check(
            "41 31 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "0::/docker/x/y\n",
            &[(None, "/sys/fs/cgroup/y")],
        );
    }

    #[test]
    fn joined_controllers_count_for_the_first() {
        check(
            "1 1 0:1 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
            "2:cpu,cpuacct:/x\n",
            &[(Some("cpu"), "/c/cpu,cpuacct/x")],
        );
    }

    #[test]
    fn kills_for_lack_of_memory_are_counted() {
        assert_eq!(
            out_of_memory_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            3
        );
        assert_eq!(
            out_of_memory_kills("low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0"),
            1
        );
        assert_eq!(out_of_memory_kills(""), 0);
    }
}
