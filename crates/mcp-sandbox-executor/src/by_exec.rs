//! Files in and out of a sandbox that can only run commands: what [`Sandbox::put`] and [`Sandbox::get`] do by default.
//!
//! A `sh`, `base64`, `mkdir`, `cat`, `chmod` and `wc` inside are enough. Content travels on command lines, in pieces that every
//! Linux takes, so that no input is needed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::{Command, Exit, ProcessEvent, Sandbox, SandboxError};

/// Bytes of one command line: its text is a third longer, and may have 128 KiB.
const PIECE: usize = 72 * 1024;

const BEGIN: &str = r#"d=${1%/*}; [ -z "$d" ] || mkdir -p "$d" && : > "$1" && chmod "$2" "$1""#;
const APPEND: &str = r#"printf %s "$2" | base64 -d >> "$1""#;
/// The statuses say why there is no content. What has no size is empty, or a file of the kernel that may never end.
const READ: &str = r#"[ -e "$1" ] || exit 101; [ -f "$1" ] || exit 102
if [ -s "$1" ]; then [ "$(wc -c < "$1")" -le "$2" ] || exit 103; exec cat "$1"; fi
timeout 1 head -c "$(($2 + 1))" "$1" || exit 102"#;
const MISSING: Exit = Exit::Code(101);
const NO_FILE: Exit = Exit::Code(102);
const LARGE: Exit = Exit::Code(103);

pub(crate) async fn put<S: Sandbox + ?Sized>(
    sandbox: &S,
    path: &str,
    content: &Bytes,
    executable: bool,
) -> Result<(), SandboxError> {
    let path = &argument(path)?;
    let mode = if executable { "755" } else { "644" };
    wrote(run(sandbox, [BEGIN, path, mode], 0).await?)?;
    for piece in content.chunks(PIECE) {
        let text = BASE64_STANDARD.encode(piece);
        wrote(run(sandbox, [APPEND, path, &text], 0).await?)?;
    }
    Ok(())
}

pub(crate) async fn get<S: Sandbox + ?Sized>(
    sandbox: &S,
    path: &str,
    limit: u64,
) -> Result<Bytes, SandboxError> {
    let path = &argument(path)?;
    let ended = run(sandbox, [READ, path, &limit.to_string()], limit).await?;
    let large = SandboxError::Limit {
        what: "size of the file",
    };
    match ended.exit {
        // It has grown meanwhile.
        Exit::Code(0) if ended.output.len() as u64 > limit => Err(large),
        Exit::Code(0) => Ok(ended.output.into()),
        MISSING => Err(SandboxError::FileNotFound),
        NO_FILE => Err(SandboxError::File("not a regular file".into())),
        LARGE => Err(large),
        _ => Err(SandboxError::File(ended.error.into())),
    }
}

struct Ended {
    output: Vec<u8>,
    error: String,
    exit: Exit,
}

async fn run<S: Sandbox + ?Sized>(
    sandbox: &S,
    [script, first, second]: [&str; 3],
    limit: u64,
) -> Result<Ended, SandboxError> {
    let command = Command::new(["sh", "-c", script, "sh", first, second]);
    // Room for a message, and for the byte that is too much.
    let command = command.with_output_bytes(limit.saturating_add(4096));
    let mut process = sandbox.exec(command).await?;
    let (mut output, mut error) = (Vec::new(), Vec::new());
    while let Some(event) = process.next_event().await? {
        match event {
            ProcessEvent::Stdout(bytes) => output.extend_from_slice(&bytes),
            ProcessEvent::Stderr(bytes) => error.extend_from_slice(&bytes),
            ProcessEvent::Truncated => {}
            ProcessEvent::Exit(exit) => {
                let error = String::from_utf8_lossy(&error).trim().to_owned();
                return Ok(Ended {
                    output,
                    error,
                    exit,
                });
            }
        }
    }
    Err(SandboxError::Lost)
}

fn wrote(ended: Ended) -> Result<(), SandboxError> {
    if ended.exit.success() {
        Ok(())
    } else {
        Err(SandboxError::File(ended.error.into()))
    }
}

/// A path that is no option and has a directory.
fn argument(path: &str) -> Result<String, SandboxError> {
    if path.is_empty() || path.contains('\0') {
        return Err(SandboxError::Invalid { what: "path" });
    }
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Ok(format!("./{path}"))
    }
}
