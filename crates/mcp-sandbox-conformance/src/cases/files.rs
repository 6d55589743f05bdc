//! Files and archives in and out.

use std::time::Duration;

use bytes::Bytes;
use mcp_sandbox_executor::{Sandbox, SandboxError};
use tokio::time::timeout;

use super::commands::finish;
use crate::case::{Case, Context, Result, Stop, cases, ensure, sh};

pub(crate) const CASES: &[Case] = cases![false;
    "D01" "files go in and come out unchanged" round_trip;
    "D02" "an executable file is one" executable;
    "D03" "a missing file and one that is too large are errors of their own" limits;
    "D04" "file names are data: line ends, dashes, quotes, 255 bytes" names;
    "D05" "reading what is no regular file ends soon" special_files;
    "D06" "archives go in and come out" archives;
];

async fn round_trip(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    for size in [0, 1, 4096, 3_000_000] {
        let content = Bytes::from((0..=255).cycle().take(size).collect::<Vec<u8>>());
        sandbox.put("new/dir/file", content.clone(), false).await?;
        let back = sandbox.get("new/dir/file", 4_000_000).await?;
        ensure!(back == content, "{size} bytes came back as {}", back.len());
    }
    let path = format!("{}/new/dir/file", sandbox.info().working_dir);
    let seen = sh(&*sandbox, &format!("wc -c < '{path}'")).await?.text();
    ensure!(seen.trim() == "3000000", "{seen}");
    finish(sandbox).await
}

async fn executable(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    sandbox
        .put("tool", Bytes::from_static(b"#!/bin/sh\necho ran\n"), true)
        .await?;
    let got = sh(&*sandbox, "./tool").await?.text();
    ensure!(got == "ran", "{got}");
    finish(sandbox).await
}

async fn limits(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let missing = sandbox.get("no/such/file", 10).await;
    ensure!(
        matches!(missing, Err(SandboxError::FileNotFound)),
        "{missing:?}"
    );
    sandbox
        .put("eleven", Bytes::from_static(b"12345678901"), false)
        .await?;
    let large = sandbox.get("eleven", 10).await;
    ensure!(
        matches!(large, Err(SandboxError::Limit { .. })),
        "{large:?}"
    );
    ensure!(
        sandbox.get("eleven", 11).await?.len() == 11,
        "the limit itself is refused"
    );
    let nul = sandbox.get("a\0b", 10).await;
    ensure!(matches!(nul, Err(SandboxError::Invalid { .. })), "{nul:?}");
    finish(sandbox).await
}

async fn names(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let long = "l".repeat(255);
    for name in [
        "a\nb",
        "-rf",
        "it's \"$x\" `y`",
        "*?[x]",
        "\u{1F600}",
        &long,
    ] {
        sandbox
            .put(name, Bytes::copy_from_slice(name.as_bytes()), false)
            .await?;
        let back = sandbox.get(name, 1000).await?;
        ensure!(back == name.as_bytes(), "{name:?}");
    }
    finish(sandbox).await
}

async fn special_files(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    sh(
        &*sandbox,
        "mkfifo pipe; ln -s /dev/zero zero; truncate -s 1T sparse 2>/dev/null; mkdir dir",
    )
    .await?;
    for name in [
        "pipe",
        "zero",
        "sparse",
        "dir",
        "/proc/kmsg",
        "/dev/zero",
        "/dev/tty",
    ] {
        let got = timeout(Duration::from_secs(3), sandbox.get(name, 1000)).await;
        let Ok(got) = got else {
            return Err(Stop::Failed(format!("reading {name} does not end")));
        };
        ensure!(got.is_err(), "{name} was read: {got:?}");
    }
    finish(sandbox).await
}

async fn archives(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    sh(
        &*sandbox,
        "mkdir -p from/a; echo one > from/a/one; ln -s one from/a/link; chmod 755 from/a/one",
    )
    .await?;
    let packed = match sandbox.get_archive("from", 1 << 20).await {
        Err(SandboxError::Unsupported { .. }) => {
            return Err(Stop::Skip(crate::lacks("archives", &context.capabilities)));
        }
        packed => packed?,
    };
    sandbox.put_archive("to", packed.clone()).await?;
    let got = sh(
        &*sandbox,
        "cat to/from/a/link; test -x to/from/a/one && echo x",
    )
    .await?
    .text();
    ensure!(got == "one\nx", "{got}");
    let small = sandbox.get_archive("from", 100).await;
    ensure!(
        matches!(small, Err(SandboxError::Limit { .. })),
        "{small:?}"
    );
    finish(sandbox).await
}

/// A tar archive of entries: name, kind, link target, mode, content.
pub(super) fn tar(entries: &[(&str, u8, &str, u32, &[u8])]) -> Bytes {
    let mut out = Vec::new();
    for (name, kind, link, mode, content) in entries {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0001750\0");
        put(116, b"0001750\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[*kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum = header.iter().map(|b| u32::from(*b)).sum::<u32>();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out.into()
}

/// Unpacks and says whether a path exists afterwards.
pub(super) async fn unpack_then_exists(
    sandbox: &dyn Sandbox,
    archive: Bytes,
    path: &str,
) -> Result<bool> {
    match sandbox.put_archive("unpacked", archive).await {
        Err(SandboxError::Unsupported { .. }) => {
            return Err(Stop::Skip("the backend unpacks no archives".to_owned()));
        }
        // Refusing the whole archive is as good as skipping the entry.
        Ok(()) | Err(SandboxError::File(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(
        sh(sandbox, &format!("test -e '{path}' || test -L '{path}'"))
            .await?
            .exit
            .success(),
    )
}
