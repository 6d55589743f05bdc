//! The programs: one cloud, several workers, and what is seen of them from outside.

use super::{Chance, SessionsSoak, effects, effects::Effects};
use crate::{
    process::{self, Process, resident_bytes},
    stack::{Cloud, CloudOptions, SOON},
};
use anyhow::{Context, Result, ensure};
use http::Method;
use managed_agents_client::{Client, ClientConfig};
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

/// Workers that share a folder, as those of one host do.
const SHARING: usize = 2;
/// Sandboxes of one worker at once.
const SANDBOXES: &str = "8";
/// How long the dead stay dead.
const DEAD: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(800));
/// A worker of which nothing was heard for so long loses its sessions: the least that the cloud allows.
const LEASE_SECONDS: &str = "5";
/// The user that commands in sandboxes are outside, where the worker is started by root.
const UNPRIVILEGED: u32 = 1000;

pub(super) struct Fleet {
    pub(super) cloud: Cloud,
    pub(super) workers: Vec<Worker>,
    pub(super) environment: String,
    pub(super) agent: String,
    pub(super) effects: Effects,
    pub(super) cloud_memory: Seen,
    pub(super) cloud_kills: u64,
    /// Workers that ended although nobody wanted it.
    pub(super) faults: Vec<String>,
    key: String,
    folder: TempDir,
    /// Every process of a worker that was ever seen.
    pids: BTreeSet<u32>,
}

pub(super) struct Worker {
    process: Process,
    folder: PathBuf,
    pub(super) memory: Seen,
    pub(super) kills: u64,
}

/// Resident bytes of a program, over all its processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) most: u64,
    pub(super) last: u64,
}

impl Seen {
    fn look(&mut self, process: &Process) {
        let bytes = process.pid().and_then(|pid| resident_bytes(pid).ok());
        if let Some(bytes) = bytes {
            *self = Self {
                most: self.most.max(bytes),
                last: bytes,
            };
        }
    }
}

/// Whether sandboxes can be made here.
///
/// # Errors
/// Why not.
pub(super) async fn possible() -> Result<()> {
    let mut command = process::command("mcp-sandbox")?;
    command.args(["exec", "--", "true"]);
    let mut trial = Process::start("mcp-sandbox exec", command)?;
    let status = trial.exit(SOON).await?;
    ensure!(status.success(), "{}", trial.log().text());
    Ok(())
}

impl Fleet {
    pub(super) async fn start(soak: &SessionsSoak) -> Result<Self> {
        let options = CloudOptions {
            dev_ingresses: Vec::new(),
            arguments: vec!["--lease".to_owned(), LEASE_SECONDS.to_owned()],
            ..CloudOptions::default()
        };
        let cloud = Cloud::start(options).await?;
        let folder = tempfile::tempdir()?;
        // Workers give up root, and have to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let effects = folder.path().join("effects");
        fs::create_dir(&effects)?;
        if geteuid().is_root() {
            chown(&effects, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let made = json!({"name": "soak", "config": {"type": "self_hosted"}});
        let made = cloud
            .api(Method::POST, "/v1/environments", Some(made))
            .await?;
        let environment = text(&made, "id")?;
        let path = format!("/v1/environments/{environment}/keys");
        let key = cloud
            .api(Method::POST, &path, Some(json!({"name": "worker"})))
            .await?;
        let agent = json!({"name": "soak", "model": "scripted", "tools": [{"type": "agent_toolset_20260401"}]});
        let agent = cloud.api(Method::POST, "/v1/agents", Some(agent)).await?;
        let mut fleet = Self {
            cloud,
            workers: Vec::new(),
            environment,
            agent: text(&agent, "id")?,
            effects: Effects::new(&effects),
            cloud_memory: Seen::default(),
            cloud_kills: 0,
            faults: Vec::new(),
            key: text(&key, "key")?,
            folder,
            pids: BTreeSet::new(),
        };
        for number in 0..soak.workers {
            let folder = fleet
                .folder
                .path()
                .join(format!("host-{}", number / SHARING));
            let process = fleet.launch(&folder)?;
            let (memory, kills) = (Seen::default(), 0);
            fleet.workers.push(Worker {
                process,
                folder,
                memory,
                kills,
            });
        }
        Ok(fleet)
    }

    pub(super) fn client(&self) -> Result<Client> {
        let url = format!("http://{}", self.cloud.addresses().api);
        let key = self.cloud.admin_key()?.into();
        Ok(Client::new(ClientConfig::new(url, key))?)
    }

    fn launch(&self, folder: &Path) -> Result<Process> {
        let mut command: Command = process::command("mcp-sandbox")?;
        let mount = format!(
            "{}:{}",
            self.folder.path().join("effects").display(),
            effects::INSIDE
        );
        command.args([
            "--log-format",
            "json",
            "worker",
            "--max-sessions",
            SANDBOXES,
        ]);
        command.args([
            "--max-idle",
            "1s",
            "--sandbox-idle",
            "0s",
            "--mount",
            &mount,
        ]);
        command.arg("--workdir").arg(folder);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ANTHROPIC_") {
                command.env_remove(name);
            }
        }
        let url = format!("http://{}", self.cloud.addresses().api);
        command
            .env("ANTHROPIC_BASE_URL", url)
            .env("ANTHROPIC_ENVIRONMENT_ID", &self.environment)
            .env("ANTHROPIC_ENVIRONMENT_KEY", &self.key);
        Process::start("mcp-sandbox worker", command)
    }

    /// Kills a worker, the cloud, or several at once, with -9, and starts them again.
    pub(super) async fn strike(&mut self, chance: &mut Chance) -> Result<()> {
        self.sample();
        let (cloud, workers) = match chance.below(8) {
            0 => (true, 0),
            1 => (true, 2),
            2 => (false, 2),
            _ => (false, 1),
        };
        let mut victims = BTreeSet::new();
        for _ in 0..workers {
            victims.insert(chance.below(self.workers.len()));
        }
        for victim in &victims {
            let worker = self.workers.get_mut(*victim).context("no such worker")?;
            worker.process.kill().await?;
            worker.kills += 1;
        }
        if cloud {
            self.cloud.kill().await?;
            self.cloud_kills += 1;
        }
        sleep(chance.between(DEAD)).await;
        if cloud {
            self.cloud.start_again().await?;
        }
        for victim in victims {
            let folder = self.workers.get(victim).map(|worker| worker.folder.clone());
            let process = self.launch(&folder.context("no such worker")?)?;
            if let Some(worker) = self.workers.get_mut(victim) {
                worker.process = process;
            }
        }
        Ok(())
    }

    /// Looks at memory, and at which processes there are.
    pub(super) fn sample(&mut self) {
        self.cloud_memory.look(self.cloud.process());
        for worker in &mut self.workers {
            worker.memory.look(&worker.process);
            if worker.process.pid().is_none_or(is_dead) && self.faults.is_empty() {
                let log = worker.process.log().text();
                let from = log.len().saturating_sub(4000);
                let tail = String::from_utf8_lossy(&log.as_bytes()[from..]);
                self.faults
                    .push(format!("a worker ended by itself:\n{tail}"));
            }
        }
        self.pids.extend(of_ours());
    }

    /// Bytes of the cloud's databases.
    pub(super) fn database_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.cloud.data())
            .into_iter()
            .flatten()
            .flatten();
        let sizes = entries.filter_map(|entry| {
            let is_database = entry.file_name().to_string_lossy().contains(".db");
            is_database.then(|| entry.metadata().ok()).flatten()
        });
        sizes.map(|found| found.len()).sum()
    }

    /// Asks everything to end, and looks at what is left of it.
    ///
    /// # Errors
    /// A worker ends badly; a process or a control group is left.
    pub(super) async fn stop(&mut self) -> Result<()> {
        for worker in &self.workers {
            worker.process.signal(Signal::TERM)?;
        }
        for worker in &mut self.workers {
            let status = worker.process.exit(SOON).await?;
            ensure!(
                status.success(),
                "a worker ended with {status}:\n{}",
                worker.process.log().text()
            );
        }
        let status = self.cloud.stop(SOON).await?;
        ensure!(status.success(), "the cloud ended with {status}");
        let deadline = Instant::now() + SOON;
        loop {
            let left: Vec<u32> = of_ours().collect();
            let groups = groups_of(&self.pids);
            if left.is_empty() && groups.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "left: processes {left:?}, groups {groups:?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Whether a child has ended and was not waited for.
fn is_dead(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains("Z (zombie)"))
}

/// Processes that run this workspace's `mcp-sandbox`: workers, launchers, first processes of sandboxes.
fn of_ours() -> impl Iterator<Item = u32> {
    let program = process::binary("mcp-sandbox")
        .and_then(|path| Ok(path.canonicalize()?))
        .ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let runs = fs::read_link(entry.path().join("exe")).ok();
        (runs.is_some() && runs == program).then_some(pid)
    })
}

/// Control groups of launchers among `pids`.
fn groups_of(pids: &BTreeSet<u32>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut look = vec![(PathBuf::from("/sys/fs/cgroup"), 6)];
    while let Some((folder, depth)) = look.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let launcher = name
                .strip_prefix("mcp-sandbox-")
                .and_then(|rest| rest.split('-').next()?.parse().ok());
            if launcher.is_some_and(|launcher: u32| pids.contains(&launcher)) {
                found.push(entry.path());
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                look.push((entry.path(), depth - 1));
            }
        }
    }
    found
}

fn text(value: &Value, member: &str) -> Result<String> {
    let text = value[member].as_str();
    text.map(str::to_owned)
        .with_context(|| format!("{member} in {value}"))
}
