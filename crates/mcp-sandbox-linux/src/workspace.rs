//! Named workspaces on the host: made, found, listed and deleted by descriptor.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use mcp_sandbox_executor::{Layer, LayerState, WorkspaceName};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chownat, fstat, mkdirat, openat2, statat,
};
use rustix::mount::OpenTreeFlags;
use rustix::process::{Gid, Uid};

use crate::config::{Config, Owner};
use crate::message::DeleteOutcome;
use crate::plan::AGENT;
use crate::root;
use crate::uids::UidRange;

/// Owner of workspaces at T1 where the host has no user `mcp-sandbox`.
const OWNER: Owner = Owner {
    uid: 64_200,
    gid: 64_200,
};

/// The folder of all workspaces, if there is one.
#[derive(Debug)]
pub(crate) struct Workspaces {
    folder: Option<OwnedFd>,
    /// As root: whose they are on disk.
    owner: Option<Owner>,
    id_mapped: bool,
}

impl Workspaces {
    /// Opens or makes a folder of the state directory.
    ///
    /// Owners can only be mapped where the workspace is mounted.
    pub(crate) fn open(
        config: &Config,
        name: &str,
        as_root: bool,
        mounted: bool,
    ) -> io::Result<Self> {
        let owner = as_root.then(|| config.owner.unwrap_or_else(default_owner));
        let Some(state) = &config.state_dir else {
            return Ok(Self {
                folder: None,
                owner,
                id_mapped: as_root && mounted,
            });
        };
        let path = state.join(name);
        {
            use std::os::unix::fs::DirBuilderExt as _;
            // Others of the host may pass, not list: the workspaces themselves are 0700.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(&path)?;
        }
        let resolve = ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat2(CWD, &path, flags, Mode::empty(), resolve)?;
        let id_mapped = as_root && mounted && can_map(&folder);
        Ok(Self {
            folder: Some(folder),
            owner,
            id_mapped,
        })
    }

    /// Whether the file system maps owners, so that any range of ids will do.
    pub(crate) fn id_mapped(&self) -> bool {
        self.id_mapped
    }

    /// Whether it is so, for the report.
    pub(crate) fn layer(&self) -> Layer {
        if self.owner.is_none() {
            return Layer::in_force("workspaces", "owned by the caller");
        }
        if self.id_mapped {
            return Layer::in_force(
                "workspaces",
                "id-mapped: files keep their owner on the host",
            );
        }
        Layer::lacking(
            "workspaces",
            LayerState::Partial,
            "no id-mapped mounts on this file system: each workspace keeps a range of ids of its own",
            "nothing; files on the host belong to ids of that range",
            "Linux 5.12 or newer, and a state directory on ext4, xfs, btrfs or tmpfs",
        )
    }

    /// The range of ids that a workspace's files belong to, where owners are not mapped.
    pub(crate) fn recorded_range(&self, name: &WorkspaceName) -> Option<UidRange> {
        if self.id_mapped {
            return None;
        }
        let stat = statat(
            self.folder.as_ref()?,
            name.as_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .ok()?;
        UidRange::containing(stat.st_uid)
    }

    /// Opens a workspace, made if absent, without following links.
    pub(crate) fn folder(
        &self,
        name: &WorkspaceName,
        range: Option<UidRange>,
    ) -> io::Result<OwnedFd> {
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
        match mkdirat(folder, name.as_str(), Mode::RWXU) {
            Ok(()) => self.give_away(folder, name, range)?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat2(folder, name.as_str(), flags, Mode::empty(), resolve)?;
        if self.owner.is_some() && fstat(&opened)?.st_uid == 0 {
            return Err(io::Error::other(
                "it belongs to root, which no sandbox may write as",
            ));
        }
        Ok(opened)
    }

    /// Names of all workspaces.
    pub(crate) fn list(&self) -> Vec<WorkspaceName> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let entries = fs::read_dir(path_of(folder))
            .into_iter()
            .flatten()
            .flatten();
        let mut names = entries
            .filter_map(|entry| WorkspaceName::parse(entry.file_name().to_str()?).ok())
            .collect::<Vec<_>>();
        names.sort();
        names
    }

    /// Whether there is one of this name.
    pub(crate) fn has(&self, name: &WorkspaceName) -> bool {
        let found = self
            .folder
            .as_ref()
            .map(|f| statat(f, name.as_str(), AtFlags::SYMLINK_NOFOLLOW));
        matches!(found, Some(Ok(_)))
    }

    /// Gives one another name, unless that is taken.
    pub(crate) fn rename(&self, from: &WorkspaceName, to: &WorkspaceName) -> io::Result<()> {
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(
            folder,
            from.as_str(),
            folder,
            to.as_str(),
            flags,
        )?)
    }

    /// Removes a workspace. No process may use it.
    pub(crate) fn delete(&self, name: &WorkspaceName) -> DeleteOutcome {
        let Some(folder) = &self.folder else {
            return DeleteOutcome::Missing;
        };
        match statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => return DeleteOutcome::Failed,
            Err(_) => return DeleteOutcome::Missing,
        }
        // The standard library removes by descriptor and follows no link on the way.
        match fs::remove_dir_all(path_of(folder).join(name.as_str())) {
            Ok(()) => DeleteOutcome::Done,
            Err(_) => DeleteOutcome::Failed,
        }
    }

    fn give_away(
        &self,
        folder: &OwnedFd,
        name: &WorkspaceName,
        range: Option<UidRange>,
    ) -> io::Result<()> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let (uid, gid) = match range {
            Some(range) if !self.id_mapped => (range.base() + AGENT, range.base() + AGENT),
            _ => (owner.uid, owner.gid),
        };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(chownat(
            folder,
            name.as_str(),
            uid,
            gid,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// The user that the service becomes and that owns workspaces, by name or by number.
pub(crate) fn default_owner() -> Owner {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.strip_prefix("mcp-sandbox:")?.split(':').skip(1);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0 && gid != 0).then_some(Owner { uid, gid })
    });
    named.unwrap_or(OWNER)
}

fn path_of(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// Tries to map an owner on a copy of the folder's mount.
fn can_map(folder: &OwnedFd) -> bool {
    let try_it = || {
        let maps = crate::plan::IdMaps {
            uid_map: format!("{} {} 1\n", OWNER.uid, UidRange::nth(0).base()),
            gid_map: format!("{} {} 1\n", OWNER.gid, UidRange::nth(0).base()),
            separate_init: true,
        };
        let namespace = crate::ids::user_namespace(&maps)?;
        let copy = root::tree_of(folder.as_fd(), OpenTreeFlags::empty())?;
        root::restrict(copy.as_fd(), true, Some(namespace.as_fd()), false)
    };
    try_it().is_ok()
}
