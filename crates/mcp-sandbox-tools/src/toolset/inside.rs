//! What a worker does inside a sandbox besides the agent's calls.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::input::{FileInput, UnpackInput, UsageInput};
use crate::toolset::{CallError, Toolset};
use crate::{Block, ToolResult};

impl Toolset {
    /// Absolute path of the working directory inside.
    #[must_use]
    pub fn working_dir(&self) -> &str {
        &self.places.working_dir
    }

    /// Unpacks a ZIP, tar or gzipped tar archive of at most 64 MiB inside the sandbox, to a directory that is replaced. A
    /// single directory around everything is left out; links and special files are skipped. An archive that leads out of
    /// the directory or holds too much (256 MiB, 10,000 entries) is an answer with `is_error`, and leaves nothing.
    ///
    /// # Errors
    /// As [`Toolset::call`].
    ///
    /// # Cancel safety
    /// A dropped call is killed; part of the archive may be there, beside the directory.
    pub async fn unpack(&self, archive: Bytes, into: &str) -> Result<ToolResult, CallError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let archive_path = format!(
            "{}/.mcp-sandbox-archive-{number}",
            self.sandbox.info().temp_dir
        );
        self.sandbox.put(&archive_path, archive, false).await?;
        let call = UnpackInput {
            archive: archive_path,
            into: into.to_owned(),
        };
        self.file(FileInput::Unpack(call)).await
    }

    /// Bytes of disk that the working directory holds, as counted inside.
    ///
    /// # Errors
    /// As [`Toolset::call`]; [`CallError::Helper`] also when it cannot be counted.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn usage(&self) -> Result<u64, CallError> {
        let path = self.places.working_dir.clone();
        let result = self.file(FileInput::Usage(UsageInput { path })).await?;
        match result.content.as_slice() {
            [Block::Text { text }] if !result.is_error => {
                text.parse().map_err(|_| CallError::Helper)
            }
            _ => Err(CallError::Helper),
        }
    }
}
