//! An image in the OCI layout: which layers it has, judged before anything of it is unpacked.
//!
//! `oci-layout`, `index.json` and `blobs/sha256/…` are read by the service, bounded and by their digests; layers are only
//! hashed here, and unpacked inside a sandbox ([`layer`](crate::layer)).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Largest index, manifest or version file.
const DOCUMENT_BYTES: u64 = 4 << 20;
/// More layers than any builder makes.
const LAYERS: usize = 256;
/// An index may refer to an index; deeper than this it is a trap.
const DEPTH: usize = 3;

/// Why a layout is no image that can be used here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file of the layout could not be read.
    #[error("image: reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A document is not what the format says, or too large.
    #[error("image: {path} is not a valid {what}")]
    Document {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// A file does not have the content that its digest says.
    #[error("image: {path} does not have the size or the digest that it should")]
    Digest {
        /// The file.
        path: PathBuf,
    },
    /// None of the manifests, or several, are for this machine.
    #[error("image: {found} manifests for linux/{architecture}; there must be one")]
    Choice {
        /// How many there are.
        found: usize,
        /// What this machine is.
        architecture: &'static str,
    },
    /// A layer is of a kind that is not unpacked.
    #[error("image: layers of type {media_type} are not supported (tar and tar+gzip are)")]
    MediaType {
        /// Its type.
        media_type: String,
    },
    /// Layers could not be unpacked.
    #[error("image: unpacking {digest}")]
    Unpack {
        /// The layer.
        digest: String,
        /// What went wrong, inside or here.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no place to keep what is unpacked.
    #[error("image: an image in OCI layout needs a state directory")]
    NoStateDir,
    /// Without namespaces no sandbox has a root of its own.
    #[error("image: a root file system needs namespaces, which cannot be made here: {}", reasons.join("; "))]
    NoNamespaces {
        /// Why each stronger tier fell.
        reasons: Vec<String>,
    },
}

/// An image: the digest of its manifest, and its layers from the lowest up.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) digest: String,
    pub(crate) layers: Vec<LayerBlob>,
}

/// A layer as its manifest describes it.
#[derive(Clone, Debug)]
pub(crate) struct LayerBlob {
    pub(crate) path: PathBuf,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) gzip: bool,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

/// Whether a folder is such a layout.
pub(crate) fn is_layout(folder: &Path) -> bool {
    folder.join("oci-layout").is_file() && folder.join("index.json").is_file()
}

impl Image {
    /// Reads the layout's only image for this machine.
    pub(crate) fn read(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join("index.json");
        let mut index: Index = parse(&path, &document(&path)?, "index")?;
        for _ in 0..DEPTH {
            let chosen = choose(index.manifests)?;
            let (path, bytes) = blob(folder, &chosen)?;
            if chosen.media_type.ends_with("index.v1+json")
                || chosen.media_type.ends_with("manifest.list.v2+json")
            {
                index = parse(&path, &bytes, "index")?;
                continue;
            }
            let manifest: Manifest = parse(&path, &bytes, "manifest")?;
            if manifest.layers.len() > LAYERS {
                return Err(ImageError::Document {
                    path,
                    what: "manifest",
                });
            }
            let layers = manifest.layers.iter().map(|layer| describe(folder, layer));
            return Ok(Self {
                digest: chosen.digest,
                layers: layers.collect::<Result<_, _>>()?,
            });
        }
        Err(ImageError::Document {
            path,
            what: "index",
        })
    }
}

impl LayerBlob {
    /// Opens it, no link followed.
    pub(crate) fn open(&self) -> Result<File, ImageError> {
        let file = open(&self.path)?;
        match file.metadata() {
            Ok(meta) if meta.len() == self.size => Ok(file),
            _ => Err(self.changed()),
        }
    }

    pub(crate) fn changed(&self) -> ImageError {
        ImageError::Digest {
            path: self.path.clone(),
        }
    }

    /// Whether this is the digest that it should have.
    pub(crate) fn is(&self, hash: Sha256) -> bool {
        self.digest == format!("sha256:{}", hex(&hash.finalize()))
    }
}

fn choose(manifests: Vec<Descriptor>) -> Result<Descriptor, ImageError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |found: &Descriptor| match &found.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => true,
    };
    let mut found = manifests.into_iter().filter(fits).collect::<Vec<_>>();
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (one, more) => Err(ImageError::Choice {
            found: more + usize::from(one.is_some()),
            architecture,
        }),
    }
}

fn describe(folder: &Path, layer: &Descriptor) -> Result<LayerBlob, ImageError> {
    let kind = layer.media_type.as_str();
    let gzip = match kind.rsplit_once(['+', '.']) {
        Some((_, "gzip")) => true,
        Some((_, "tar")) => false,
        _ => {
            return Err(ImageError::MediaType {
                media_type: kind.chars().take(100).collect(),
            });
        }
    };
    Ok(LayerBlob {
        path: blob_path(folder, &layer.digest)?,
        digest: layer.digest.clone(),
        size: layer.size,
        gzip,
    })
}

/// Where a blob lies: a digest is hexadecimal, and so never a path.
fn blob_path(folder: &Path, digest: &str) -> Result<PathBuf, ImageError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or("");
    let plain = hex.len() == 64
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let path = folder.join("blobs/sha256");
    if plain {
        Ok(path.join(hex))
    } else {
        let what = "sha256 digest";
        Err(ImageError::Document { path, what })
    }
}

fn blob(folder: &Path, descriptor: &Descriptor) -> Result<(PathBuf, Vec<u8>), ImageError> {
    let path = blob_path(folder, &descriptor.digest)?;
    let bytes = document(&path)?;
    let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
    if bytes.len() as u64 != descriptor.size || digest != descriptor.digest {
        return Err(ImageError::Digest { path });
    }
    Ok((path, bytes))
}

fn document(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(DOCUMENT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > DOCUMENT_BYTES {
        return Err(ImageError::Document {
            path: path.to_owned(),
            what: "document, it is too large",
        });
    }
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, ImageError> {
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    file.map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse<'a, T: Deserialize<'a>>(
    path: &Path,
    bytes: &'a [u8],
    what: &'static str,
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|_| ImageError::Document {
        path: path.to_owned(),
        what,
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_digest(digest: &str, good: bool) {
        assert_eq!(blob_path(Path::new("/x"), digest).is_ok(), good, "{digest}");
    }

    #[test]
    fn a_digest_is_no_path() {
        check_digest(&format!("sha256:{}", "a1".repeat(32)), true);
        check_digest(&format!("sha256:{}", "A1".repeat(32)), false);
        check_digest(&format!("sha512:{}", "a1".repeat(32)), false);
        check_digest(&format!("sha256:{}/..", "a1".repeat(31)), false);
        check_digest("sha256:../../../../etc/passwd", false);
        check_digest("", false);
    }

    #[track_caller]
    fn check_layer(media_type: &str, gzip: Option<bool>) {
        let layer = Descriptor {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{}", "00".repeat(32)),
            size: 1,
            platform: None,
        };
        let got = describe(Path::new("/x"), &layer);
        assert_eq!(got.ok().map(|layer| layer.gzip), gzip, "{media_type}");
    }

    #[test]
    fn only_tar_and_gzip_are_unpacked() {
        check_layer("application/vnd.oci.image.layer.v1.tar", Some(false));
        check_layer("application/vnd.oci.image.layer.v1.tar+gzip", Some(true));
        check_layer(
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Some(true),
        );
        check_layer("application/vnd.oci.image.layer.v1.tar+zstd", None);
        check_layer("", None);
    }

    #[test]
    fn the_manifest_for_this_machine_is_chosen() {
        let of = |platform: Option<&str>| Descriptor {
            media_type: String::new(),
            digest: platform.unwrap_or("any").to_owned(),
            size: 0,
            platform: platform.map(|architecture| Platform {
                architecture: architecture.to_owned(),
                os: "linux".to_owned(),
            }),
        };
        let chosen = choose(vec![of(Some("amd64")), of(Some("arm64")), of(Some("none"))]);
        assert!(["amd64", "arm64"].contains(&chosen.unwrap().digest.as_str()));
        assert_eq!(choose(vec![of(None)]).unwrap().digest, "any");
        for several in [vec![], vec![of(None), of(None)], vec![of(Some("none"))]] {
            assert!(matches!(choose(several), Err(ImageError::Choice { .. })));
        }
    }
}
