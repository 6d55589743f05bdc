//! What the programs do to the machine they run on: sockets, files, a full disk.

use crate::{until, with_fixture};
use anyhow::{Result, ensure};
use http::Method;
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{FixtureOptions, FixtureServer},
    process::listening_sockets,
    stack::{CloudOptions, Gateway, SOON, Stack},
    tools::{Need, have},
};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

#[tokio::test]
async fn a_gateway_holds_no_listening_socket() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    Caller::dev(&stack)?.echo().await?;
    let pid = stack.gateway.process().pid().expect("it runs");
    assert_eq!(listening_sockets(pid)?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn the_admin_listener_is_loopback_only() -> Result<()> {
    let (fixture, stack) = with_fixture().await?;
    let server = fixture.address().to_string();
    let open = ["--mcp-server", &server, "--admin", "0.0.0.0:0"];
    let mut gateway = Gateway::start(&stack.tunnel.token, &open)?;
    let status = gateway.exit(SOON).await?;
    assert_eq!(status.code(), Some(2), "{}", gateway.process().log().text());

    let local = ["--mcp-server", &server, "--admin", "127.0.0.1:0"];
    let gateway = Gateway::start(&stack.tunnel.token, &local)?;
    let pid = gateway.process().pid().expect("it runs");
    let one = async || listening_sockets(pid).is_ok_and(|sockets| sockets.len() == 1);
    assert!(until(SOON, one).await, "{:?}", listening_sockets(pid));
    let sockets = listening_sockets(pid)?;
    assert!(sockets[0].contains(" 0100007F:"), "{sockets:?}");
    Ok(())
}

#[tokio::test]
async fn secret_files_are_for_their_owner_only() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    let mut checked = 0;
    for entry in fs::read_dir(stack.cloud.data())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let public = ["ca.pem", "serving.json"];
        if public.contains(&name.as_str()) || entry.file_type()?.is_dir() {
            continue;
        }
        let mode = entry.metadata()?.permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{name} is open to others: {mode:o}");
        checked += 1;
    }
    assert!(checked >= 3, "admin key, master key and database at least");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_under_the_console_leaves_calls_alone() -> Result<()> {
    if !have(&[Need::Root]) {
        return Ok(());
    }
    let Some(disk) = SmallDisk::mount("8m") else {
        mcp_tunnel_testkit::tools::skip("a small file system cannot be mounted here");
        return Ok(());
    };
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let mut options = CloudOptions::default();
    options.data = Some(disk.path().join("data"));
    let mut stack = Stack::start(options, &[&fixture.address().to_string()]).await?;
    let caller = Caller::https(&stack, "mcp")?;
    caller.echo().await?;

    disk.fill()?;
    let create = async |stack: &Stack| {
        let mut body = json!({ "display_name": "x".repeat(250) });
        body["metadata"] = json!(null);
        stack
            .cloud
            .api(
                Method::POST,
                "/v1/tunnels",
                Some(json!({ "display_name": body["display_name"] })),
            )
            .await
    };
    let mut refused = false;
    for _ in 0..200 {
        if let Err(error) = create(&stack).await {
            let text = format!("{error:#}");
            assert!(text.contains(" 500 ") || text.contains(" 503 "), "{text}");
            assert!(text.contains("\"type\":\"error\""), "{text}");
            refused = true;
            break;
        }
    }
    assert!(refused, "the disk is full and every write succeeded");
    caller.echo().await?;

    // A gateway that comes back is let in from the snapshot, disk or no disk.
    stack.gateway.kill().await?;
    stack.gateway.start_again()?;
    let works = async || caller.echo().await.is_ok();
    assert!(
        until(SOON, works).await,
        "{}",
        stack.cloud.process().log().text()
    );

    disk.free()?;
    let writes = async || create(&stack).await.is_ok();
    assert!(
        until(SOON, writes).await,
        "no write succeeds after the disk has room again"
    );
    drop(stack);
    Ok(())
}

/// A tmpfs of a few MiB, unmounted when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path());
        mount.status().ok()?.success().then_some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut filler = fs::File::create(self.filler())?;
        for size in [64 << 10, 4 << 10, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        ensure!(filler.metadata()?.len() > 0, "nothing fitted");
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold files there.
        let mut unmount = std::process::Command::new("umount");
        let _ = unmount.arg("-l").arg(self.path()).status();
    }
}
