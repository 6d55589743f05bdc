//! The process that makes sandboxes: one thread, no network, no parsing of
//! anything from inside a sandbox.
//!
//! It is a re-execution of the program, started before anything else happened
//! in it. It ends when the service closes its socket, and takes every sandbox
//! with it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::build::{Built, Ends, Foundation};
use crate::config::Config;
use crate::message::{Born, EndReason, Found, FromLauncher, Refusal, ToLauncher};
use crate::sys;
use crate::{reap, tier, wire};

/// Name under which the launcher is executed.
pub(crate) const NAME: &str = "mcp-sandbox-launcher";

/// A live sandbox.
#[derive(Debug)]
struct Alive {
    built: Built,
    pidfd: OwnedFd,
    deadline: Option<Instant>,
    why: EndReason,
}

#[derive(Debug)]
struct Launcher {
    control: OwnedFd,
    foundation: Foundation,
    alive: HashMap<u64, Alive>,
}

/// Runs the launcher on the socket that is its standard input.
pub(crate) fn run() -> io::Result<()> {
    let Some(control) = sys::inherited_fd(0) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let control = detach_input(control)?;
    let children = sys::child_signals()?;
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    let Some(first) = wire::receive::<ToLauncher>(control.as_fd()).map_err(io::Error::other)?
    else {
        return Ok(());
    };
    let ToLauncher::Configure(config) = first.message else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (foundation, found) = match settle(*config) {
        Ok(settled) => settled,
        Err(reasons) => {
            return wire::send(control.as_fd(), &FromLauncher::NotPossible { reasons }, &[])
                .map_err(io::Error::other);
        }
    };
    let outlets = foundation.outlets().into_iter();
    let outlets = outlets.flat_map(|outlets| [outlets.make.as_fd(), outlets.give.as_fd()]);
    wire::send(
        control.as_fd(),
        &FromLauncher::Configured(Box::new(found)),
        &outlets.collect::<Vec<_>>(),
    )
    .map_err(io::Error::other)?;
    let mut launcher = Launcher {
        control,
        foundation,
        alive: HashMap::new(),
    };
    let ended = launcher.serve(&children);
    launcher.end_all();
    ended
}

/// Keeps the socket away from the number that children inherit as input.
fn detach_input(control: OwnedFd) -> io::Result<OwnedFd> {
    let moved = rustix::io::fcntl_dupfd_cloexec(&control, 3)?;
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    // Number 0 is the null device now and stays so.
    std::mem::forget(control);
    Ok(moved)
}

/// Finds the strongest tier in which a sandbox can really be built.
fn settle(config: Config) -> Result<(Foundation, Found), Vec<String>> {
    let mut fell = tier::ruled_out(&config);
    let required = config.require_tier;
    for attempt in tier::attempts(&config) {
        if required.is_some_and(|required| attempt.tier() > required) {
            fell.push(format!(
                "{} is required",
                required.map_or_else(String::new, |t| t.to_string())
            ));
            break;
        }
        match Foundation::lay(config.clone(), attempt).and_then(|mut foundation| {
            let layers = foundation.prove()?;
            Ok((foundation, layers))
        }) {
            Ok((foundation, layers)) => {
                let found = foundation.found(fell, layers);
                return Ok((foundation, found));
            }
            Err(error) => {
                let cure = tier::cure(&error.step);
                fell.push(format!(
                    "{attempt}: {}: {} (cure: {cure})",
                    error.step, error.error
                ));
            }
        }
    }
    Err(fell)
}

impl Launcher {
    fn serve(&mut self, children: &OwnedFd) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(&self.control, PollFlags::IN),
                PollFd::new(children, PollFlags::IN),
            ];
            match poll(&mut fds, self.until_deadline().as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let (asked, died) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if died {
                let _ = rustix::io::read(children, &mut [0; 128]);
                self.reap()?;
            }
            self.expire();
            if asked {
                let got =
                    wire::receive::<ToLauncher>(self.control.as_fd()).map_err(io::Error::other)?;
                let Some(got) = got else { return Ok(()) };
                self.handle(got.message)?;
            }
        }
    }

    fn handle(&mut self, message: ToLauncher) -> io::Result<()> {
        match message {
            // Only the first message may configure.
            ToLauncher::Configure(_) => Err(io::ErrorKind::InvalidData.into()),
            ToLauncher::Create(request) => {
                let id = request.id;
                if self.alive.contains_key(&id) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                match self.foundation.build(&request) {
                    Ok((built, ends, born)) => self.keep(id, built, &ends, born, request.ttl_ms),
                    Err(refusal) => self.say(&FromLauncher::Refused { id, refusal }),
                }
            }
            ToLauncher::Destroy { id } => {
                if let Some(alive) = self.alive.get_mut(&id) {
                    alive.kill(EndReason::Asked);
                    return Ok(());
                }
                self.say(&FromLauncher::Destroyed {
                    id,
                    why: EndReason::Died,
                })
            }
            ToLauncher::KeepAlive { id, ttl_ms } => {
                if let Some(alive) = self.alive.get_mut(&id) {
                    alive.deadline = Instant::now().checked_add(Duration::from_millis(ttl_ms));
                }
                Ok(())
            }
            ToLauncher::Freeze { id, frozen } => {
                let group = self
                    .alive
                    .get(&id)
                    .and_then(|alive| alive.built.group.as_ref());
                let done = group.is_some_and(|group| group.freeze(frozen));
                self.say(&FromLauncher::Frozen { id, done })
            }
            ToLauncher::KillTree { id, pid } => {
                let init = self.alive.get(&id).map(|alive| alive.built.pid);
                if init.is_some_and(|init| reap::descends(pid, init)) {
                    reap::kill_tree(pid);
                }
                Ok(())
            }
            ToLauncher::Setup { request, step } => {
                let done = self.foundation.setup_step(step);
                self.say(&FromLauncher::SetupIs { request, done })
            }
            ToLauncher::ListWorkspaces { request } => {
                let names = self.foundation.workspaces.list();
                self.say(&FromLauncher::Workspaces { request, names })
            }
            ToLauncher::DeleteWorkspace { request, name } => {
                let used = self
                    .alive
                    .values()
                    .any(|a| a.built.workspace.as_ref() == Some(&name));
                let outcome = self.foundation.delete_workspace(&name, used);
                self.say(&FromLauncher::Deleted { request, outcome })
            }
        }
    }

    fn keep(
        &mut self,
        id: u64,
        built: Built,
        ends: &Ends,
        born: Born,
        ttl_ms: Option<u64>,
    ) -> io::Result<()> {
        let pid = rustix::process::Pid::from_raw(built.pid).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let file = built
            .group
            .as_ref()
            .and_then(|group| fs::File::open(group.out_of_memory_file()?).ok());
        let mut fds = vec![ends.control.as_fd(), ends.host.as_fd()];
        fds.extend(file.as_ref().map(|file| file.as_fd()));
        let deadline = ttl_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        self.alive.insert(
            id,
            Alive {
                built,
                pidfd,
                deadline,
                why: EndReason::Died,
            },
        );
        wire::send(
            self.control.as_fd(),
            &FromLauncher::Created { id, born },
            &fds,
        )
        .map_err(io::Error::other)
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, _)) = sys::reap() {
            let found = self.alive.iter().find(|(_, alive)| alive.built.pid == pid);
            let Some(id) = found.map(|(id, _)| *id) else {
                continue;
            };
            if let Some(alive) = self.alive.remove(&id) {
                self.end_strays();
                self.foundation.clear(alive.built);
                self.say(&FromLauncher::Destroyed { id, why: alive.why })?;
            }
        }
        Ok(())
    }

    /// Kills what a dead init has left to this process, which only happens without
    /// pid namespaces.
    fn end_strays(&self) {
        if !self.foundation.adopts() {
            return;
        }
        let inits = self
            .alive
            .values()
            .map(|alive| alive.built.pid)
            .collect::<Vec<_>>();
        let own = std::process::id().cast_signed();
        for child in reap::children(own)
            .into_iter()
            .filter(|child| !inits.contains(child))
        {
            reap::kill_tree(child);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for alive in self.alive.values_mut() {
            if alive.deadline.is_some_and(|deadline| deadline <= now) {
                alive.deadline = None;
                alive.kill(EndReason::Expired);
            }
        }
    }

    fn until_deadline(&self) -> Option<Timespec> {
        let next = self
            .alive
            .values()
            .filter_map(|alive| alive.deadline)
            .min()?;
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    /// Kills every sandbox and waits for each: nothing outlives the launcher.
    fn end_all(&mut self) {
        for alive in self.alive.values_mut() {
            alive.kill(EndReason::Asked);
        }
        for (_, alive) in self.alive.drain() {
            let mut fds = [PollFd::new(&alive.pidfd, PollFlags::IN)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
            self.foundation.clear(alive.built);
        }
        self.end_strays();
        while sys::reap().is_some() {}
        self.foundation.close();
    }

    fn say(&self, message: &FromLauncher) -> io::Result<()> {
        wire::send(self.control.as_fd(), message, &[]).map_err(io::Error::other)
    }
}

impl Alive {
    fn kill(&mut self, why: EndReason) {
        if self.why == EndReason::Died {
            self.why = why;
        }
        if let Some(group) = &self.built.group {
            group.freeze(false);
            group.kill();
        }
        if self.built.adopts {
            reap::kill_descendants(self.built.pid);
        }
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Step {
            step: "talk to the sandbox".to_owned(),
            error: error.to_string(),
        }
    }
}
