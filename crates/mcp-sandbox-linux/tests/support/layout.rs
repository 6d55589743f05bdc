//! An image in OCI layout, made of a busybox.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A folder with such an image.
pub(crate) struct Layout {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

/// What each makes of a good image must be refused.
pub(crate) const DAMAGES: &[fn(&Layout)] = &[
    |image| flip(&image.layers[0]),
    |image| flip(&image.layers[1]),
    |image| fs::write(&image.layers[1], "short").unwrap(),
    |image| fs::write(image.path().join("index.json"), "{").unwrap(),
    |image| image.write(&[tar(&[("../../outside", 0o644, b"x", "")])]),
    |image| image.write(&[b"no archive at all".repeat(100)]),
    |image| image.index(&json!({"manifests": []})),
    |image| {
        fs::remove_file(&image.layers[0]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &image.layers[0]).unwrap();
    },
];

/// Changes one byte in the middle.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

impl Layout {
    /// A lower layer as tar, an upper one as gzip that hides and replaces files.
    pub(crate) fn of_busybox(busybox: &Path) -> Self {
        let program = fs::read(busybox).unwrap();
        let lower = tar(&[
            ("bin/busybox", 0o6755, &program, ""),
            ("bin/sh", 0, b"", "busybox"),
            ("bin/cat", 0, b"", "/bin/busybox"),
            ("bin/ls", 0, b"", "busybox"),
            ("bin/stat", 0, b"", "busybox"),
            ("bin/touch", 0, b"", "busybox"),
            ("bin/readlink", 0, b"", "busybox"),
            ("etc/mark", 0o600, b"lower\n", ""),
            ("etc/lower", 0o600, b"lower\n", ""),
            ("etc/gone", 0o600, b"gone\n", ""),
        ]);
        let upper = tar(&[
            ("etc/mark", 0o600, b"upper\n", ""),
            ("etc/.wh.gone", 0o600, b"", ""),
        ]);
        let mut image = Self {
            dir: tempfile::tempdir().unwrap(),
            layers: Vec::new(),
        };
        let version = r#"{"imageLayoutVersion": "1.0.0"}"#;
        fs::write(image.path().join("oci-layout"), version).unwrap();
        fs::create_dir_all(image.path().join("blobs/sha256")).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&upper).unwrap();
        let layers = [lower, gzip.finish().unwrap()];
        image.write(&layers);
        image.layers = layers.iter().map(|layer| image.blob_path(layer)).collect();
        image
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn remove_layers(&self) {
        self.layers
            .iter()
            .for_each(|layer| fs::remove_file(layer).unwrap());
    }

    fn write(&self, layers: &[Vec<u8>]) {
        let media =
            ["tar", "tar+gzip"].map(|kind| format!("application/vnd.oci.image.layer.v1.{kind}"));
        let layers = layers
            .iter()
            .zip(media)
            .map(|(layer, media)| self.blob(layer, &media));
        let manifest = json!({"schemaVersion": 2, "layers": layers.collect::<Vec<_>>()});
        let manifest = self.blob(
            manifest.to_string().as_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        self.index(&json!({"schemaVersion": 2, "manifests": [manifest]}));
    }

    fn index(&self, index: &serde_json::Value) {
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    fn blob(&self, bytes: &[u8], media: &str) -> serde_json::Value {
        let path = self.blob_path(bytes);
        fs::write(&path, bytes).unwrap();
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        json!({"mediaType": media, "digest": digest, "size": bytes.len()})
    }

    fn blob_path(&self, bytes: &[u8]) -> PathBuf {
        let digest = Sha256::digest(bytes);
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.path().join("blobs/sha256").join(name)
    }
}

/// Entries: path, mode, content, and the target of a link.
fn tar(entries: &[(&str, u32, &[u8], &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, content, link) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        if !link.is_empty() {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}
