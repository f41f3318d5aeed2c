//! Writes container images as one archive of OCI's image layout: each image is a manifest, a
//! configuration and a single layer, uncompressed. The same content gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::toolchain::catalog::hex;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The size of a tar archive's records.
const BLOCK_BYTES: u64 = 512;

/// What a file of an image has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// That of a file on disk; `true` where it may be run.
    Disk(PathBuf, bool),
    /// A symbolic link to this.
    Link(String),
}

/// A container image: one layer of files, owned by root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerImage {
    /// The full name, with host and tag.
    pub(super) name: String,
    /// What it runs.
    pub(super) entrypoint: Option<String>,
    /// As whom it runs; root where nobody is named.
    pub(super) user: Option<&'static str>,
    /// Absolute paths with what is there. Directories above them are made.
    pub(super) files: BTreeMap<String, Content>,
}

/// The name of this computer's processor in image configurations.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes all images as one archive.
pub(super) fn write(images: &[ContainerImage], out: impl Write) -> io::Result<()> {
    let mut tar = Tar { out };
    let mut written = BTreeSet::new();
    let mut manifests = Vec::new();
    tar.dir("blobs/")?;
    tar.dir("blobs/sha256/")?;
    for image in images {
        let mut measure = Measure::default();
        layer(image, &mut measure)?;
        let layer_bytes = measure.bytes;
        let layer_digest = hex(&measure.hash.finalize());
        if written.insert(layer_digest.clone()) {
            tar.header(&blob(&layer_digest), Kind::File(0o644, layer_bytes))?;
            let mut count = Measure::default();
            layer(image, Both(&mut tar.out, &mut count))?;
            if hex(&count.hash.finalize()) != layer_digest {
                return Err(io::Error::other(format!(
                    "files of {} changed while they were read",
                    image.name
                )));
            }
            tar.pad(layer_bytes)?;
        }
        let config = tar.json(&configuration(image, &layer_digest), &mut written)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor(
                "application/vnd.oci.image.layer.v1.tar",
                &(layer_digest, layer_bytes),
            )],
        });
        let manifest = tar.json(&manifest, &mut written)?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        if let Some(entry) = entry.as_object_mut() {
            let names = json!({ "io.containerd.image.name": image.name });
            entry.insert("annotations".to_owned(), names);
            let platform = json!({ "architecture": architecture(), "os": "linux" });
            entry.insert("platform".to_owned(), platform);
        }
        manifests.push(entry);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    tar.file("index.json", index.to_string().as_bytes())?;
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.end()
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(media_type: &str, (digest, bytes): &(String, u64)) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes })
}

fn configuration(image: &ContainerImage, layer_digest: &str) -> Value {
    let mut run = json!({ "Env": [PATH], "WorkingDir": "/" });
    if let (Some(run), Some(entrypoint)) = (run.as_object_mut(), &image.entrypoint) {
        run.insert("Entrypoint".to_owned(), json!([entrypoint]));
    }
    if let (Some(run), Some(user)) = (run.as_object_mut(), image.user) {
        run.insert("User".to_owned(), json!(user));
    }
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created_by": "capstan local images" }],
    })
}

/// The layer's archive.
fn layer(image: &ContainerImage, out: impl Write) -> io::Result<()> {
    let mut tar = Tar { out };
    let mut dirs = BTreeSet::from(["tmp/".to_owned()]);
    for path in image.files.keys() {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            dirs.extend(path.get(..=end).map(str::to_owned));
        }
    }
    // In order, a directory comes before what is in it.
    for dir in &dirs {
        tar.dir(dir)?;
    }
    for (path, content) in &image.files {
        let path = path.trim_start_matches('/');
        match content {
            Content::Link(target) => tar.header(path, Kind::Link(target))?,
            Content::Disk(source, is_program) => {
                let failed = |failure: io::Error| {
                    io::Error::new(failure.kind(), format!("{}: {failure}", source.display()))
                };
                let file = File::open(source).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                let mode = if *is_program { 0o755 } else { 0o644 };
                tar.header(path, Kind::File(mode, bytes))?;
                let copied = io::copy(&mut file.take(bytes), &mut tar.out)?;
                if copied != bytes {
                    return Err(failed(io::ErrorKind::UnexpectedEof.into()));
                }
                tar.pad(bytes)?;
            }
        }
    }
    tar.end()
}

enum Kind<'a> {
    File(u32, u64),
    Dir(u32),
    Link(&'a str),
}

/// A tar archive in POSIX' `ustar` format.
struct Tar<W> {
    out: W,
}

impl<W: Write> Tar<W> {
    fn header(&mut self, path: &str, kind: Kind<'_>) -> io::Result<()> {
        let (mode, bytes, flag, target) = match kind {
            Kind::File(mode, bytes) => (mode, bytes, b"0", ""),
            Kind::Dir(mode) => (mode, 0, b"5", ""),
            Kind::Link(target) => (0o777, 0, b"2", target),
        };
        let (prefix, name) = split(path)?;
        let (mode, bytes) = (format!("{mode:07o}"), format!("{bytes:011o}"));
        let fields: [(&[u8], usize); 16] = [
            (name.as_bytes(), 100),
            (mode.as_bytes(), 8),
            (b"0000000", 8), // owner
            (b"0000000", 8), // group
            (bytes.as_bytes(), 12),
            (b"00000000000", 12), // modified in 1970, always
            (b"        ", 8),     // the sum counts itself as blanks
            (flag, 1),
            (target.as_bytes(), 100),
            (b"ustar", 6),
            (b"00", 2),
            (b"", 32), // owner's name
            (b"", 32), // group's name
            (b"0000000", 8),
            (b"0000000", 8),
            (prefix.as_bytes(), 155),
        ];
        let mut block = Vec::with_capacity(512);
        for (value, width) in fields {
            if value.len() > width {
                return Err(too_long(path));
            }
            let end = block.len().saturating_add(width);
            block.extend_from_slice(value);
            block.resize(end, 0);
        }
        block.resize(512, 0);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        for (place, digit) in block.iter_mut().skip(148).zip(sum.bytes()) {
            *place = digit;
        }
        self.out.write_all(&block)
    }

    fn dir(&mut self, path: &str) -> io::Result<()> {
        let mode = if path == "tmp/" { 0o1777 } else { 0o755 };
        self.header(path, Kind::Dir(mode))
    }

    fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let bytes = content.len() as u64;
        self.header(path, Kind::File(0o644, bytes))?;
        self.out.write_all(content)?;
        self.pad(bytes)
    }

    /// Writes a blob that is small JSON, if it is not there yet; its digest and length.
    fn json(&mut self, value: &Value, written: &mut BTreeSet<String>) -> io::Result<(String, u64)> {
        let text = value.to_string();
        let digest = hex(&Sha256::digest(text.as_bytes()));
        if written.insert(digest.clone()) {
            self.file(&blob(&digest), text.as_bytes())?;
        }
        Ok((digest, text.len() as u64))
    }

    /// Fills the last record of a file with so many bytes.
    fn pad(&mut self, bytes: u64) -> io::Result<()> {
        let rest = bytes.checked_rem(BLOCK_BYTES).unwrap_or_default();
        if rest != 0 {
            let padding = BLOCK_BYTES.saturating_sub(rest);
            io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 1024])?;
        self.out.flush()
    }
}

/// The two parts of a header that a path goes into.
fn split(path: &str) -> io::Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let mut slashes = path.match_indices('/');
    let fits = slashes.find_map(|(place, _)| {
        let name = path.get(place.checked_add(1)?..)?;
        (name.len() <= 100 && !name.is_empty()).then_some((path.get(..place)?, name))
    });
    fits.ok_or_else(|| too_long(path))
}

fn too_long(path: &str) -> io::Error {
    io::Error::other(format!("the path {path} does not fit into an archive"))
}

/// Counts and hashes what is written to it.
#[derive(Default)]
struct Measure {
    hash: Sha256,
    bytes: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to two places.
struct Both<'a, W>(&'a mut W, &'a mut Measure);

impl<W: Write> Write for Both<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
