//! A root file system out of an image: unpacked once inside a sandbox, kept by the image's digest.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mcp_sandbox_executor::{Sandbox as _, SandboxError, SandboxSpec};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::info;

use crate::config::{Config, RootSource, Tier};
use crate::image::{Image, ImageError, LayerBlob};
use crate::inside::Request;
use crate::message::{SetupStep, SetupUse};
use crate::plan::SETUP;
use crate::sandbox::LinuxSandbox;
use crate::service::{LinuxExecutor, StartError};
use crate::{setup, setups, transfer};

/// A layer is read and hashed in pieces of this size, a few ahead.
const PIECE: usize = 256 * 1024;
const AHEAD: usize = 4;

/// Makes sure that the image's root file system is there; returns where.
pub(crate) async fn ensure(config: &Config, layout: &Path) -> Result<PathBuf, StartError> {
    let state = config.state_dir.clone().ok_or(ImageError::NoStateDir)?;
    let folder = layout.to_owned();
    let image = spawn_blocking(move || Image::read(&folder)).await;
    let image = image.map_err(|error| StartError::Spawn(io::Error::other(error)))??;
    let mut building = config.clone();
    building.root = RootSource::Host;
    building.mounts.clear();
    building.setup = Some(format!("unpack {}", image.digest));
    let kept = state
        .join("setup")
        .join(setups::kept_name(&building).unwrap_or_default());
    // A launcher of its own: the root of another one cannot change any more.
    let executor = Box::pin(LinuxExecutor::launch(building)).await?;
    let report = executor.report();
    if report.tier == Tier::T3 {
        let reasons = report.fell;
        return Err(ImageError::NoNamespaces { reasons }.into());
    }
    let failed = |source| ImageError::Unpack {
        digest: image.digest.clone(),
        source,
    };
    let step = async |step| {
        let done = setup::step(executor.shared(), step).await;
        done.map_err(|error| failed(error.into()))
    };
    if step(SetupStep::Has).await? {
        return Ok(kept);
    }
    info!(digest = %image.digest, layers = image.layers.len(), "unpacking an image");
    let sandbox = executor
        .shared()
        .create(SandboxSpec::new(), SetupUse::Build)
        .await;
    let sandbox = sandbox.map_err(|error| failed(error.into()))?;
    let mut outcome = Ok(());
    for layer in &image.layers {
        outcome = unpack(&sandbox, layer).await;
        if outcome.is_err() {
            break;
        }
    }
    let destroyed = sandbox.destroy().await;
    if outcome.is_ok() && destroyed.is_ok() && step(SetupStep::Keep).await? {
        return Ok(kept);
    }
    step(SetupStep::Drop).await?;
    outcome?;
    Err(failed("what was unpacked could not be kept".into()).into())
}

/// Hands a layer to the sandbox; what it says counts only if the layer is what its digest says.
async fn unpack(sandbox: &LinuxSandbox, layer: &LayerBlob) -> Result<(), ImageError> {
    let mut file = layer.open()?;
    let (pieces, stream) = mpsc::channel(AHEAD);
    let mut reading = JoinSet::new();
    reading.spawn_blocking(move || {
        let mut hash = Sha256::new();
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let got = (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
            if got == 0 {
                return Ok(hash);
            }
            hash.update(&piece);
            // Nobody listens any more: the rest still counts for the digest.
            let _ = pieces.blocking_send(Bytes::from(piece));
        }
    });
    let request = Request::PutLayer {
        path: SETUP.to_owned(),
        gzip: layer.gzip,
    };
    let unpacked = transfer::put_stream(sandbox, &request, stream).await;
    let hash: io::Result<Sha256> = match reading.join_next().await {
        Some(Ok(read)) => read,
        _ => Err(io::ErrorKind::Interrupted.into()),
    };
    let hash = hash.map_err(|source| ImageError::Read {
        path: layer.path.clone(),
        source,
    })?;
    if !layer.is(hash) {
        return Err(layer.changed());
    }
    unpacked.map_err(|error: SandboxError| ImageError::Unpack {
        digest: layer.digest.clone(),
        source: error.into(),
    })
}
