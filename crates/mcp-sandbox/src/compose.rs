//! From arguments to an executor, a sandbox's specification and a worker's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use mcp_sandbox_executor::{Limits, Mount, Network, SandboxSpec};
use mcp_sandbox_linux::Config;
use mcp_sandbox_worker::WorkerConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::SecretString;

use crate::args::{NetworkArg, QueueArgs, SandboxArgs};

/// Files with one credential or a list of variables are small.
const FILE_BYTES: u64 = 1024 * 1024;

/// What the operator allows: exactly what this command line asks for.
pub(crate) fn config(args: &SandboxArgs) -> anyhow::Result<Config> {
    let mut config = Config::new();
    for mount in &args.mount {
        fs::metadata(&mount.source).with_context(|| {
            let source = &mount.source;
            format!("--mount {source}: name a file or directory of this host")
        })?;
        config = config.with_mount(mount.clone())?;
    }
    if let Some(root) = &args.rootfs {
        config = config.with_root_folder(root)?;
    }
    let unpacks = |root: &PathBuf| root.join("oci-layout").exists();
    if args.setup.is_some() || args.rootfs.as_ref().is_some_and(unpacks) {
        config = config.with_state_dir(state_dir(args.state_dir.as_deref())?)?;
    }
    if let Some(path) = &args.setup {
        let script =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        config = config.with_setup(script);
    }
    if args.network == NetworkArg::Host {
        config = config.dangerous_host_network();
    }
    if let Some(tier) = args.require_tier {
        config = config.require_tier(tier);
    }
    Ok(config)
}

/// What each sandbox is like.
pub(crate) fn spec(args: &SandboxArgs) -> anyhow::Result<SandboxSpec> {
    let mut limits = Limits::default();
    limits.memory_bytes = args.memory;
    limits.cpu_millis = args.cpus;
    limits.disk_bytes = args.disk;
    limits.processes = args.processes;
    let mut spec = SandboxSpec::new().with_limits(limits);
    if args.network == NetworkArg::Host {
        spec = spec.with_network(Network::Host);
    }
    for mount in &args.mount {
        spec = spec.with_mount(mount.clone());
    }
    for path in &args.env_file {
        for (name, value) in
            variables(&small_file(path)?).with_context(|| format!("reading {}", path.display()))?
        {
            spec = spec.with_env(name, value);
        }
    }
    for (name, value) in &args.env {
        spec = spec.with_env(name, value);
    }
    Ok(spec)
}

/// Where things are kept: as given, else where this user keeps such things.
pub(crate) fn state_dir(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let state = given.map(Path::to_owned).or_else(default_state_dir);
    let state = state.context("no home directory; give --workdir")?;
    Ok(std::path::absolute(state)?)
}

/// The worker's own folder.
pub(crate) fn worker_folder(state: &Path) -> PathBuf {
    state.join("worker")
}

/// A worker's configuration as far as the queue goes; `None` where no environment was named.
pub(crate) fn queue(args: &QueueArgs, folder: &Path) -> anyhow::Result<Option<WorkerConfig>> {
    let Some(environment) = args.environment_id.as_deref().filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let mut config = WorkerConfig::new(&args.base_url, environment, folder)?;
    if let Some(key) = key(args)? {
        config = config.with_key(key)?;
    }
    if let Some(path) = &args.ca_file {
        let roots = CertificateDer::pem_file_iter(path)
            .with_context(|| format!("reading {}", path.display()))?
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("reading {}", path.display()))?;
        ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
        config = config.with_roots(roots);
    }
    Ok(Some(config))
}

/// A secret from a file that nobody else may read.
fn secret_file(path: &Path) -> anyhow::Result<SecretString> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .permissions()
        .mode();
    ensure!(
        mode & 0o004 == 0,
        "every user of this host may read {}: chmod 600 it",
        path.display()
    );
    Ok(small_file(path)?.trim().to_owned().into())
}

/// Whoever claims work needs a key, and is told so before anything is made.
pub(crate) fn require_key(args: &QueueArgs) -> anyhow::Result<()> {
    let given = args.environment_key_file.is_some() || args.environment_key.is_some();
    let named = args.environment_id.is_some();
    ensure!(
        given || !named,
        "which key? give --environment-key-file FILE or ANTHROPIC_ENVIRONMENT_KEY \
         (`mcp-cloud environment-key create NAME` makes one)"
    );
    Ok(())
}

fn key(args: &QueueArgs) -> anyhow::Result<Option<SecretString>> {
    secret(
        args.environment_key.as_ref(),
        args.environment_key_file.as_deref(),
        ("--environment-key", "ANTHROPIC_ENVIRONMENT_KEY"),
    )
}

/// A secret from its file, or else from its argument or variable; an empty one is none.
pub(crate) fn secret(
    given: Option<&SecretString>,
    file: Option<&Path>,
    (argument, variable): (&str, &str),
) -> anyhow::Result<Option<SecretString>> {
    use secrecy::ExposeSecret as _;
    if let Some(path) = file {
        return secret_file(path).map(Some);
    }
    let given = given.map(|secret| secret.expose_secret().trim());
    let given = given.filter(|secret| !secret.is_empty());
    if given.is_some() && on_command_line(argument) {
        tracing::warn!(
            "others on this machine can read {argument} in the process list: use {argument}-file FILE or {variable}"
        );
    }
    Ok(given.map(SecretString::from))
}

fn on_command_line(argument: &str) -> bool {
    let given = |word: std::ffi::OsString| {
        let word = word.to_string_lossy().into_owned();
        word.strip_prefix(argument)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    std::env::args_os().any(given)
}

fn small_file(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
    file.take(FILE_BYTES)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(text)
}

/// Lines NAME=VALUE; empty ones and those that start with `#` say nothing.
fn variables(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = lines.map(|line| match line.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => anyhow::bail!("each line must be NAME=VALUE"),
    });
    split.collect()
}

fn default_state_dir() -> Option<PathBuf> {
    let from = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if from("HOME").is_none_or(|home| home == Path::new("/root")) {
        return Some(PathBuf::from("/var/lib/mcp-sandbox"));
    }
    let state =
        from("XDG_STATE_HOME").or_else(|| from("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("mcp-sandbox"))
}

/// What a container's operator mounted below `/mnt`, granted as it is mounted; nothing outside of a container.
pub(crate) fn container_mounts() -> Vec<Mount> {
    let inside = std::process::id() == 1
        || ["/.dockerenv", "/run/.containerenv"]
            .iter()
            .any(|mark| Path::new(mark).exists());
    if !inside {
        return Vec::new();
    }
    mounts_below_mnt(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn mounts_below_mnt(table: &str) -> Vec<Mount> {
    let mut mounts = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(4);
            let (place, options) = (fields.next()?, fields.next()?);
            // Blanks and the like are written as octal numbers: such a place is left out.
            let plain = place.starts_with("/mnt/") && !place.contains('\\');
            let read_only = options.split(',').any(|option| option == "ro");
            plain.then(|| match read_only {
                true => Mount::read_only(place, place),
                false => Mount::read_write(place, place),
            })
        })
        .collect::<Vec<_>>();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts.dedup_by(|a, b| a.target == b.target);
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_container_keep_their_access() {
        let table = "1 0 0:1 / / rw - overlay overlay rw\n\
            2 1 8:1 /data /mnt/data rw,relatime - ext4 /dev/x rw\n\
            3 1 8:1 /x /mnt/tools ro,relatime - ext4 /dev/x rw\n\
            4 1 8:1 /x /mnt/with\\040blank rw - ext4 /dev/x rw\n\
            5 1 8:1 /x /etc/hosts rw - ext4 /dev/x rw\n\
            6 1 8:1 /x /mnt rw - ext4 /dev/x rw\n";
        let expect = [
            Mount::read_write("/mnt/data", "/mnt/data"),
            Mount::read_only("/mnt/tools", "/mnt/tools"),
        ];
        assert_eq!(mounts_below_mnt(table), expect);
        assert!(mounts_below_mnt("nonsense").is_empty());
    }

    #[test]
    fn files_of_variables_are_read() {
        let text = "# comment\nA=1\n\n B=x=y \n";
        let expect = [("A", "1"), ("B", "x=y")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(variables(text).unwrap(), expect);
        assert!(variables("A").is_err() && variables("=x").is_err());
    }
}
