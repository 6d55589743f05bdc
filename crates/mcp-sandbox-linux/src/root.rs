//! The private root: a template per launcher, a copy per sandbox.
//!
//! The launcher builds the template once in its own mount namespace: a small
//! read-only tmpfs with the host's (or a folder's) programs bound read-only, a
//! generated `/etc`, six device nodes and empty places for the rest. A sandbox
//! takes a copy of that tree, adds what is its own (`/proc`, terminals, one
//! size-limited tmpfs, the workspace) and makes it its root.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use mcp_sandbox_executor::{Layer, LayerState};
use rustix::fs::{CWD, Mode, chownat, mkdirat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{Gid, Uid};

use crate::config::{Config, RootSource};
use crate::pipes::Outlets;
use crate::plan::{AGENT, EffectiveLimits, HOME, SETUP, WORKSPACE};
use crate::step::{Step as _, StepError};
use crate::sys;

/// Attributes of everything that comes from the host.
const BOUND: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);
/// Attributes of everything that may be written.
const WRITABLE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Where programs are.
pub(crate) const PROGRAMS: &[&str] = &[
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix", "gnu",
];

/// Where the template may be attached: places that nobody mounts from.
const PLACES: &[&str] = &[
    "/dev/shm", "/media", "/srv", "/mnt", "/boot", "/home", "/opt",
];

/// Parts of `/etc` that programs need and that say nothing about the host.
pub(crate) const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "environment.d",
    "fonts",
    "gitconfig",
    "inputrc",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "nodejs",
    "npmrc",
    "os-release",
    "pip.conf",
    "pki",
    "perl",
    "profile.d",
    "protocols",
    "python3",
    "rpc",
    "services",
    "ssl",
    "terminfo",
    "timezone",
    "vim",
    "xdg",
];

pub(crate) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that are hidden, and directories that are hidden or read-only.
const HIDDEN_FILES: &[&str] = &[
    "kcore",
    "keys",
    "key-users",
    "kallsyms",
    "kmsg",
    "sysrq-trigger",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "config.gz",
    "cmdline",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
];
const HIDDEN_DIRS: &[&str] = &[
    "acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty",
];

/// A finished template.
#[derive(Debug)]
pub(crate) struct Template {
    at: PathBuf,
}

/// What a sandbox adds to its copy of the template.
#[derive(Debug)]
pub(crate) struct Additions {
    /// Detached mounts and the places they go to.
    pub(crate) mounts: Vec<(OwnedFd, String)>,
    /// The workspace is one of them; else it is ephemeral.
    pub(crate) workspace: bool,
    pub(crate) limits: EffectiveLimits,
}

impl Template {
    /// Builds it. The caller is alone in its mount namespace.
    pub(crate) fn build(config: &Config) -> Result<Self, StepError> {
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .step("keep mounts from the host's sight")?;
        let at = place(config)
            .ok_or(io::ErrorKind::NotFound)
            .step("find a place for the root")?;
        let options = c"size=8m,nr_inodes=4k,mode=755";
        mount(
            "tmpfs",
            &at,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            options,
        )
        .step("mount a private root")?;
        let template = Self { at };
        match &config.root {
            RootSource::Host => template.add_host().step("bind the host's programs")?,
            RootSource::Folder(folder) => {
                template.add_folder(folder).step("bind the root folder")?
            }
            RootSource::Layout(_) => Err(io::ErrorKind::Unsupported).step("unpack the image")?,
        }
        template.add_devices().step("bind devices")?;
        template
            .add_places(config)
            .step("make places to mount on")?;
        template
            .add_etc(&config.root, config.allow_host_network)
            .step("fill /etc")?;
        let root = tree(CWD, &template.at, OpenTreeFlags::empty()).step("open the private root")?;
        sys::set_mount_attributes(
            root.as_fd(),
            u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
            false,
            None,
        )
        .step("make the root read-only")?;
        Ok(template)
    }

    /// Makes a copy the root of this process. The caller is the first process of
    /// new user, mount and pid namespaces, and root there as far as it can be.
    pub(crate) fn enter(&self, additions: Additions) -> Result<Vec<Layer>, StepError> {
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .step("detach from the launcher's mounts")?;
        let root = tree(
            CWD,
            &self.at,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE,
        )
        .step("copy the private root")?;
        attach(root.as_fd(), CWD, &self.at).step("attach the private root")?;
        rustix::process::fchdir(root.as_fd()).step("enter the private root")?;
        let mut layers = Vec::new();
        layers.push(mount_proc().step("mount /proc")?);
        mount_scratch(&additions).step("mount scratch space")?;
        mount_terminals().step("mount terminals")?;
        for (fd, target) in &additions.mounts {
            let target = target.trim_start_matches('/');
            attach(fd.as_fd(), CWD, Path::new(target)).step("attach a mount")?;
        }
        rustix::process::pivot_root(".", ".").step("pivot the root")?;
        unmount(".", UnmountFlags::DETACH).step("detach the old root")?;
        rustix::process::chdir("/").step("enter the root")?;
        layers.push(Layer::in_force(
            "root",
            "private, read-only; host unmounted",
        ));
        Ok(layers)
    }

    /// A directory of named pipes that is nowhere in a sandbox. The caller is alone in its mount namespace.
    pub(crate) fn outlets(&self) -> io::Result<Outlets> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in [("size", "64k"), ("nr_inodes", "16k"), ("mode", "700")] {
            fsconfig_set_string(&context, name, value)?;
        }
        fsconfig_create(&context)?;
        let make = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, WRITABLE)?;
        // Attached for a moment: some kernels copy no mount that never was.
        let at = self.at.join("run");
        attach(make.as_fd(), CWD, &at)?;
        let give = tree(CWD, &at, OpenTreeFlags::OPEN_TREE_CLONE);
        unmount(&at, UnmountFlags::DETACH)?;
        let give = give?;
        restrict(give.as_fd(), false, None, false)?;
        Ok(Outlets { make, give })
    }

    fn add_host(&self) -> io::Result<()> {
        for name in PROGRAMS {
            self.add_entry(&Path::new("/").join(name), name)?;
        }
        Ok(())
    }

    fn add_folder(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !matches!(
                &*name,
                "proc"
                    | "sys"
                    | "dev"
                    | "tmp"
                    | "run"
                    | "workspace"
                    | "setup"
                    | "home"
                    | "lost+found"
            ) {
                self.add_entry(&entry.path(), &name)?;
            }
        }
        Ok(())
    }

    /// Binds a directory, copies a link or a small file; nothing if it is absent.
    fn add_entry(&self, source: &Path, name: &str) -> io::Result<()> {
        let target = self.at.join(name);
        let Ok(kind) = fs::symlink_metadata(source) else {
            return Ok(());
        };
        if kind.is_symlink() {
            return symlink(fs::read_link(source)?, target);
        }
        if kind.is_dir() {
            fs::create_dir(&target)?;
            let copy = tree(
                CWD,
                source,
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE,
            )?;
            sys::set_mount_attributes(copy.as_fd(), u64::from(BOUND.bits()), true, None)?;
            return attach(copy.as_fd(), CWD, &target);
        }
        if kind.is_file() && kind.len() <= 1 << 20 {
            copy_file(source, &target);
        }
        Ok(())
    }

    fn add_devices(&self) -> io::Result<()> {
        let dev = self.at.join("dev");
        fs::create_dir(&dev)?;
        for name in DEVICES {
            let target = dev.join(name);
            fs::write(&target, "")?;
            let copy = tree(
                CWD,
                &Path::new("/dev").join(name),
                OpenTreeFlags::OPEN_TREE_CLONE,
            )?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            sys::set_mount_attributes(copy.as_fd(), u64::from(attributes.bits()), false, None)?;
            attach(copy.as_fd(), CWD, &target)?;
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            symlink(to, dev.join(name))?;
        }
        Ok(())
    }

    fn add_places(&self, config: &Config) -> io::Result<()> {
        let own = [
            "/proc",
            "/dev/pts",
            "/dev/shm",
            "/tmp",
            "/run",
            "/.scratch",
            WORKSPACE,
            SETUP,
            HOME,
        ];
        let mounts = config.mounts.iter().map(|mount| mount.target.as_str());
        for place in own.into_iter().chain(mounts) {
            fs::create_dir_all(self.at.join(place.trim_start_matches('/')))?;
        }
        let var = self.at.join("var");
        if !var.exists() {
            fs::create_dir(&var)?;
            symlink("/tmp", var.join("tmp"))?;
            symlink("/run", var.join("run"))?;
        }
        Ok(())
    }

    fn add_etc(&self, root: &RootSource, network: bool) -> io::Result<()> {
        let etc = self.at.join("etc");
        if *root != RootSource::Host && etc.exists() {
            return Ok(());
        }
        fs::create_dir(&etc)?;
        for name in ETC {
            self.add_entry(&Path::new("/etc").join(name), &format!("etc/{name}"))?;
        }
        if network {
            copy_file(Path::new("/etc/resolv.conf"), &etc.join("resolv.conf"));
        }
        for (name, text) in [
            ("passwd", PASSWD),
            ("group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"),
            ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
            ("hostname", "sandbox\n"),
            (
                "nsswitch.conf",
                "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
            ),
            ("host.conf", "multi on\n"),
        ] {
            fs::write(etc.join(name), text)?;
        }
        Ok(())
    }
}

const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\n\
    agent:x:1000:1000:agent:/home/agent:/bin/bash\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

/// A detached copy of what is at `path` (no links are followed in its last part),
/// or the mount there itself.
pub(crate) fn tree(dir: BorrowedFd<'_>, path: &Path, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    Ok(open_tree(dir, path, flags)?)
}

/// A detached copy of what a descriptor refers to.
pub(crate) fn tree_of(fd: BorrowedFd<'_>, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = flags
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(fd, "", flags)?)
}

/// Sets the attributes of a mount that a sandbox may write, or not.
pub(crate) fn restrict(
    mount: BorrowedFd<'_>,
    writable: bool,
    id_map: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let attributes = if writable { WRITABLE } else { BOUND };
    sys::set_mount_attributes(mount, u64::from(attributes.bits()), recursive, id_map)
}

fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    Ok(move_mount(
        mount,
        "",
        dir,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

fn place(config: &Config) -> Option<PathBuf> {
    let mut used = config
        .mounts
        .iter()
        .map(|m| Path::new(&m.source))
        .collect::<Vec<_>>();
    used.extend(config.state_dir.as_deref());
    if let RootSource::Folder(folder) | RootSource::Layout(folder) = &config.root {
        used.push(folder);
    }
    let free = |place: &&&str| used.iter().all(|path| !path.starts_with(place));
    PLACES
        .iter()
        .filter(free)
        .map(PathBuf::from)
        .find(|place| place.is_dir())
}

/// Copies a file if it can be read; what the launcher may not read stays out.
fn copy_file(source: &Path, target: &Path) {
    let mut content = Vec::new();
    let read = fs::File::open(source).and_then(|file| file.take(1 << 20).read_to_end(&mut content));
    let readable_by_all =
        fs::metadata(source).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0);
    if read.is_ok() && readable_by_all {
        let _ = fs::write(target, content);
    }
}

/// The one writable file system of a sandbox, limited in bytes and files.
fn mount_scratch(additions: &Additions) -> io::Result<()> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", additions.limits.disk_bytes.to_string())?;
    fsconfig_set_string(&context, "nr_inodes", additions.limits.inodes.to_string())?;
    fsconfig_set_string(&context, "mode", "755")?;
    fsconfig_create(&context)?;
    let scratch = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, WRITABLE)?;
    attach(scratch.as_fd(), CWD, Path::new(".scratch"))?;
    let mut parts = vec![
        ("tmp", "tmp", 0o1777),
        ("shm", "dev/shm", 0o1777),
        ("run", "run", 0o755),
    ];
    parts.push(("home", HOME.trim_start_matches('/'), 0o700));
    if !additions.workspace {
        parts.push(("workspace", WORKSPACE.trim_start_matches('/'), 0o755));
    }
    for (name, target, mode) in parts {
        mkdirat(&scratch, name, Mode::from_raw_mode(0o700))?;
        rustix::fs::chmodat(
            &scratch,
            name,
            Mode::from_raw_mode(mode),
            rustix::fs::AtFlags::empty(),
        )?;
        chownat(
            &scratch,
            name,
            Some(Uid::from_raw(AGENT)),
            Some(Gid::from_raw(AGENT)),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )?;
        let part = tree(
            CWD,
            &Path::new(".scratch").join(name),
            OpenTreeFlags::OPEN_TREE_CLONE,
        )?;
        attach(part.as_fd(), CWD, Path::new(target))?;
    }
    Ok(unmount(".scratch", UnmountFlags::DETACH)?)
}

fn mount_terminals() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    // Owned by the commands' user, so that they can open their terminal again by name.
    let options = c"newinstance,ptmxmode=0666,mode=600,uid=1000,gid=1000";
    Ok(mount("devpts", "dev/pts", "devpts", flags, options)?)
}

/// A `/proc` of this pid namespace with what it says about the host hidden.
fn mount_proc() -> io::Result<Layer> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Read-only: no command writes into another one's memory, not even where Landlock is missing.
    match mount("proc", "proc", "proc", flags | MountFlags::RDONLY, None) {
        Ok(()) => {}
        Err(rustix::io::Errno::PERM) => {
            return Ok(Layer::lacking(
                "proc",
                LayerState::Partial,
                "this container hides parts of /proc, so a fresh one is refused",
                "nothing: /proc is empty inside, and tools such as ps do not work",
                "run the container with an unmasked /proc",
            ));
        }
        Err(error) => return Err(error.into()),
    }
    for name in HIDDEN_FILES {
        bind_over(Path::new("dev/null"), &Path::new("proc").join(name))?;
    }
    for name in HIDDEN_DIRS {
        let target = Path::new("proc").join(name);
        if target.is_dir() {
            mount(
                "tmpfs",
                &target,
                "tmpfs",
                flags | MountFlags::RDONLY,
                c"size=4k,nr_inodes=2",
            )?;
        }
    }
    let sys = tree(CWD, Path::new("proc/sys"), OpenTreeFlags::OPEN_TREE_CLONE)?;
    restrict(sys.as_fd(), false, None, false)?;
    attach(sys.as_fd(), CWD, Path::new("proc/sys"))?;
    Ok(Layer::in_force(
        "proc",
        "own processes only; host details hidden, /proc/sys read-only",
    ))
}

fn bind_over(source: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        return Ok(());
    }
    let copy = tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE)?;
    attach(copy.as_fd(), CWD, target)
}
