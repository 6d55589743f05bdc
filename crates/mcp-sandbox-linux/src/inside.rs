//! The file helper: runs in a fork of init, as the commands' user.
//!
//! A request is one line of JSON on standard input, then bytes; the answer is
//! one line of JSON on standard output, then bytes. Everything that it touches
//! is inside the sandbox, so that a hostile file tree can only fool itself.

use std::fs::{self, File};
use std::io::{self, BufRead as _, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layer;

/// A request of the executor itself; every other line goes to the file tools.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    Put { path: String, executable: bool },
    Get { path: String, limit: u64 },
    PutArchive { path: String },
    PutLayer { path: String, gzip: bool },
    GetArchive { path: String, limit: u64 },
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Missing,
    TooLarge,
    Refused(String),
}

/// Serves one request; returns the exit code.
pub(crate) fn run() -> i32 {
    match panic::catch_unwind(serve) {
        Ok(Ok(())) => 0,
        Ok(Err(_)) => 1,
        Err(_) => 101,
    }
}

fn serve() -> io::Result<()> {
    let input = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let mut input = io::BufReader::with_capacity(64 * 1024, input);
    let mut line = String::new();
    input.by_ref().take(64 << 20).read_line(&mut line)?;
    let mut output = io::stdout().lock();
    match serde_json::from_str(&line) {
        Ok(request) => answer(request, &mut input, &mut output)?,
        Err(_) => mcp_sandbox_tools::files::serve(&line, &mut output)?,
    }
    output.flush()
}

fn answer(request: Request, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let outcome = match request {
        Request::Put { path, executable } => {
            put(Path::new(&path), executable, input).map(|()| Vec::new())
        }
        Request::Get { path, limit } => get(Path::new(&path), limit),
        Request::PutArchive { path } => unpack(Path::new(&path), input).map(|()| Vec::new()),
        Request::PutLayer { path, gzip } => {
            layer::unpack(Path::new(&path), input, gzip).map(|()| Vec::new())
        }
        Request::GetArchive { path, limit } => pack(Path::new(&path), limit),
    };
    let (answer, body) = match outcome {
        Ok(body) => (Answer::Done, body),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Answer::Missing, Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => (Answer::TooLarge, Vec::new()),
        Err(error) => (Answer::Refused(error.to_string()), Vec::new()),
    };
    serde_json::to_writer(&mut *output, &answer)?;
    output.write_all(b"\n")?;
    output.write_all(&body)
}

fn put(path: &Path, executable: bool, input: &mut impl Read) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(libc::O_NONBLOCK);
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    io::copy(input, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn get(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut options = fs::OpenOptions::new();
    // Opening a FIFO must not wait for a writer.
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

/// Unpacks below `path`: no entry may lead out of it, no special files, plain modes.
pub(crate) fn unpack(path: &Path, input: &mut impl Read) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let root = path.canonicalize()?;
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let known = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link();
        let meta = kind.is_pax_global_extensions() || kind.is_pax_local_extensions();
        if meta {
            continue;
        }
        if !known {
            return Err(io::Error::other("archive holds a special file"));
        }
        entry.set_preserve_permissions(false);
        entry.set_preserve_mtime(true);
        entry.set_unpack_xattrs(false);
        // Refuses paths that leave the root, also by links made earlier.
        if !entry.unpack_in(&root)? {
            return Err(io::Error::other("archive entry leads out of the directory"));
        }
    }
    Ok(())
}

fn pack(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let name = PathBuf::from(path.file_name().unwrap_or_else(|| ".".as_ref()));
    let mut archive = tar::Builder::new(Limited {
        bytes: Vec::new(),
        limit,
    });
    archive.follow_symlinks(false);
    if fs::symlink_metadata(path)?.is_dir() {
        archive.append_dir_all(&name, path)?;
    } else {
        archive.append_path_with_name(path, &name)?;
    }
    Ok(archive.into_inner()?.bytes)
}

/// A buffer that refuses to grow beyond its limit.
struct Limited {
    bytes: Vec<u8>,
    limit: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
