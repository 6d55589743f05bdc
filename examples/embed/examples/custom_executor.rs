//! An executor of one's own, judged by the public suite.
//!
//! It runs commands in a folder of the host: it isolates nothing, says so, and shows
//! what a provider whose `exec` answers once has to write.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{fs, io, os::unix::process::ExitStatusExt as _, time::Duration};

use bytes::Bytes;
use mcp_sandbox_executor::{
    Capabilities, Command, Completed, CreateError, Executor, Exit, Isolation, KillReason, Process,
    Program, Sandbox, SandboxError, SandboxId, SandboxInfo, SandboxSpec,
};
use tokio::{process, sync::watch, time::timeout};

struct Host;
struct Folder(
    SandboxInfo,
    tempfile::TempDir,
    SandboxSpec,
    watch::Sender<bool>,
);

#[async_trait::async_trait]
impl Executor for Host {
    fn capabilities(&self) -> Capabilities {
        Capabilities::minimal("host", Isolation::Nothing)
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn Sandbox>, CreateError> {
        let mut plain = SandboxSpec::new();
        (plain.labels, plain.env) = (spec.labels.clone(), spec.env.clone());
        if spec != plain {
            return Err(CreateError::Unsupported {
                what: "more than a folder",
            });
        }
        let folder = tempfile::tempdir().map_err(|e| CreateError::Backend(e.into()))?;
        let id = SandboxId::parse("host-1").map_err(|e| CreateError::Backend(e.into()))?;
        let info = SandboxInfo::new(id, folder.path().to_string_lossy());
        Ok(Box::new(Folder(
            info,
            folder,
            spec,
            watch::Sender::new(true),
        )))
    }
}

#[async_trait::async_trait]
impl Sandbox for Folder {
    fn info(&self) -> &SandboxInfo {
        &self.0
    }

    async fn exec(&self, command: Command) -> Result<Box<dyn Process>, SandboxError> {
        self.keep_alive(Duration::ZERO).await?;
        let Program::Argv(argv) = &command.program else {
            return Err(SandboxError::Unsupported {
                what: "run the file helper",
            });
        };
        let [name, rest @ ..] = argv.as_slice() else {
            return Err(SandboxError::Invalid {
                what: "command line",
            });
        };
        let dir = command.working_dir.as_ref().unwrap_or(&self.0.working_dir);
        fs::read_dir(dir).map_err(|_| SandboxError::WorkingDirectory)?;
        // Files and not pipes: a background child that holds them does not hold the call.
        let streams = || {
            Ok::<_, io::Error>([
                tempfile::NamedTempFile::new()?,
                tempfile::NamedTempFile::new()?,
            ])
        };
        let [out, err] = streams().map_err(failed)?;
        let mut child = process::Command::new(name);
        child
            .args(rest)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(&self.2.env)
            .envs(&command.env);
        child
            .current_dir(dir)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        child
            .stdout(out.reopen().map_err(failed)?)
            .stderr(err.reopen().map_err(failed)?);
        let mut child = child.spawn().map_err(failed)?;
        let limit = command.timeout.unwrap_or(Duration::from_secs(3600));
        let exit = match timeout(limit, child.wait()).await {
            Ok(status) => {
                status
                    .map_err(failed)
                    .map(|status| match (status.code(), status.signal()) {
                        (Some(code), _) => Exit::Code(u8::try_from(code).unwrap_or(255)),
                        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
                    })?
            }
            Err(_) => Exit::Killed(KillReason::Timeout),
        };
        let read =
            |file: tempfile::NamedTempFile| fs::read(file.path()).map(Bytes::from).map_err(failed);
        Ok(Box::new(Completed::new(
            read(out)?,
            read(err)?,
            exit,
            command.output_bytes,
        )))
    }

    async fn put(&self, path: &str, content: Bytes, executable: bool) -> Result<(), SandboxError> {
        let path = self.1.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| fs::write(&path, content))
            .map_err(failed)?;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .map_err(failed)
    }

    async fn get(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        let path = self.1.path().join(path);
        let inside = match path.canonicalize() {
            Ok(path) => path.starts_with(self.1.path()) && path.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SandboxError::FileNotFound);
            }
            Err(error) => return Err(failed(error)),
        };
        match fs::metadata(&path).map_err(failed)?.len() {
            _ if !inside => Err(SandboxError::File("not a file of this folder".into())),
            size if size > limit => Err(SandboxError::Limit {
                what: "size of the file",
            }),
            _ => fs::read(path).map(Bytes::from).map_err(failed),
        }
    }

    async fn keep_alive(&self, _ttl: Duration) -> Result<(), SandboxError> {
        if *self.3.borrow() {
            Ok(())
        } else {
            Err(SandboxError::Gone)
        }
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.3.send_replace(false);
        Ok(())
    }
}

fn failed(error: io::Error) -> SandboxError {
    match error.kind() {
        io::ErrorKind::NotFound => SandboxError::ProgramNotFound,
        io::ErrorKind::PermissionDenied => SandboxError::ProgramNotExecutable,
        io::ErrorKind::InvalidInput => SandboxError::Invalid {
            what: "command line or path",
        },
        _ => SandboxError::Backend(error.into()),
    }
}

/// Runs the functional cases.
#[tokio::main]
pub(crate) async fn main() {
    let outcome = mcp_sandbox_conformance::Suite::new(&Host)
        .functional_only()
        .run()
        .await;
    print!("{outcome}");
    assert!(outcome.passed());
}
