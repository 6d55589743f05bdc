//! Files in and out, by the file helper inside the sandbox.

use bytes::{Bytes, BytesMut};
use mcp_sandbox_executor::{Command, Process as _, ProcessEvent, SandboxError};
use tokio::sync::mpsc;

use crate::inside::{Answer, Request};
use crate::process::LinuxProcess;
use crate::sandbox::LinuxSandbox;

/// The answer's first line is short; a longer one is a lie.
const ANSWER_BYTES: u64 = 64 * 1024;

pub(crate) async fn put(
    sandbox: &LinuxSandbox,
    path: &str,
    content: Bytes,
    executable: bool,
) -> Result<(), SandboxError> {
    let request = Request::Put {
        path: valid(path)?,
        executable,
    };
    call(sandbox, &request, content, 0).await.map(drop)
}

pub(crate) async fn get(
    sandbox: &LinuxSandbox,
    path: &str,
    limit: u64,
) -> Result<Bytes, SandboxError> {
    call(
        sandbox,
        &Request::Get {
            path: valid(path)?,
            limit,
        },
        Bytes::new(),
        limit,
    )
    .await
}

pub(crate) async fn put_archive(
    sandbox: &LinuxSandbox,
    path: &str,
    tar: Bytes,
) -> Result<(), SandboxError> {
    call(sandbox, &Request::PutArchive { path: valid(path)? }, tar, 0)
        .await
        .map(drop)
}

pub(crate) async fn get_archive(
    sandbox: &LinuxSandbox,
    path: &str,
    limit: u64,
) -> Result<Bytes, SandboxError> {
    call(
        sandbox,
        &Request::GetArchive {
            path: valid(path)?,
            limit,
        },
        Bytes::new(),
        limit,
    )
    .await
}

fn valid(path: &str) -> Result<String, SandboxError> {
    if path.is_empty() || path.contains('\0') {
        return Err(SandboxError::Invalid { what: "path" });
    }
    Ok(path.to_owned())
}

/// A request whose body comes in pieces.
pub(crate) async fn put_stream(
    sandbox: &LinuxSandbox,
    request: &Request,
    mut body: mpsc::Receiver<Bytes>,
) -> Result<(), SandboxError> {
    let mut process = begin(sandbox, request, 0).await?;
    while let Some(piece) = body.recv().await {
        process.write_stdin(piece).await?;
    }
    finish(process, 0).await.map(drop)
}

async fn call(
    sandbox: &LinuxSandbox,
    request: &Request,
    body: Bytes,
    limit: u64,
) -> Result<Bytes, SandboxError> {
    let mut process = begin(sandbox, request, limit).await?;
    process.write_stdin(body).await?;
    finish(process, limit).await
}

async fn begin(
    sandbox: &LinuxSandbox,
    request: &Request,
    limit: u64,
) -> Result<LinuxProcess, SandboxError> {
    let mut line = serde_json::to_vec(request).map_err(|e| SandboxError::Backend(e.into()))?;
    line.push(b'\n');
    let mut command = Command::file_helper();
    command.output_bytes = Some(limit.saturating_add(ANSWER_BYTES));
    let mut process = sandbox.start(command).await?;
    process.write_stdin(line.into()).await?;
    Ok(process)
}

async fn finish(mut process: LinuxProcess, limit: u64) -> Result<Bytes, SandboxError> {
    process.close_stdin().await?;
    let mut output = BytesMut::new();
    while let Some(event) = process.next_event().await? {
        match event {
            ProcessEvent::Stdout(bytes) => output.extend_from_slice(&bytes),
            ProcessEvent::Exit(exit) if !exit.success() => {
                return Err(SandboxError::File("the file helper ended early".into()));
            }
            _ => {}
        }
    }
    let end = output
        .iter()
        .position(|b| *b == b'\n')
        .ok_or(SandboxError::Lost)?;
    let mut rest = output.freeze();
    let line = rest.split_to(end);
    let body = rest.split_off(1);
    match serde_json::from_slice(&line) {
        Ok(Answer::Done) if body.len() as u64 <= limit => Ok(body),
        Ok(Answer::Missing) => Err(SandboxError::FileNotFound),
        Ok(Answer::TooLarge) => Err(SandboxError::Limit {
            what: "size of the file",
        }),
        Ok(Answer::Refused(why)) => Err(SandboxError::File(why.into())),
        _ => Err(SandboxError::Lost),
    }
}
