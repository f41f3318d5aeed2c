//! Compiled components on disk: private to this host, named by content, checked against our own record before native code is mapped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::error::EngineError;
use crate::limit::{CACHE_BYTES_MAX, COMPILE_KILLS_MAX, COMPILED_BYTES_MAX, TEXT_BYTES_MAX};
use crate::source::hex;
use crate::text::chain_of;
use crate::trust::Signature;

/// How the names of marks end.
const COMPILING: &str = "compiling";

/// The directory of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    /// Of the engine that compiles and runs: files of another one are never looked at.
    compatibility: String,
    /// By stem: how often hosts before this one were killed while they compiled it.
    kills: BTreeMap<String, u32>,
}

/// That a component is being compiled: a file that only a killed host leaves behind.
#[derive(Debug)]
pub(crate) struct Compiling(PathBuf);

impl Drop for Compiling {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What is recorded of a compiled component, beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `sha256:<hex>` of the component.
    pub(crate) source: String,
    /// `sha256:<hex>` of the compiled file.
    pub(crate) compiled: String,
    /// Of the compiled file.
    pub(crate) bytes: u64,
    /// How long it took.
    pub(crate) compile_ms: u64,
}

impl Cache {
    /// Opens or makes the directory. It must be ours alone: what lies in it is run as native code.
    pub(crate) fn open(dir: &Path, engine: &wasmtime::Engine) -> Result<Self, EngineError> {
        let unusable = |why: String| EngineError::CacheDir {
            path: dir.to_owned(),
            why,
        };
        fs::create_dir_all(dir).map_err(|e| unusable(e.to_string()))?;
        let found = fs::symlink_metadata(dir).map_err(|e| unusable(e.to_string()))?;
        if !found.is_dir() {
            return Err(unusable("it is not a directory".to_owned()));
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(unusable(
                "it belongs to another user: make one that is this user's".to_owned(),
            ));
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|e| unusable(e.to_string()))?;
        let mut cache = Self {
            dir: dir.to_owned(),
            compatibility: compatibility_of(engine),
            kills: BTreeMap::new(),
        };
        cache.remove_leftovers();
        cache.kills = cache.interrupted();
        Ok(cache)
    }

    /// Marks that compiling begins, until the answer is dropped. The error says that it has ended hosts, or their memory, too often.
    pub(crate) fn compiling(&self, digest: &str) -> Result<Compiling, String> {
        let stem = self.stem(digest);
        let mark = self.dir.join(format!("{stem}.{COMPILING}"));
        let kills = self.kills.get(&stem).copied().unwrap_or(0);
        if kills >= COMPILE_KILLS_MAX {
            return Err(format!(
                "the compiler was killed: {kills} times a host ended while it compiled this component, as one without memory does; \
                 remove {} to have it tried again by the next host that starts",
                mark.display()
            ));
        }
        let pid = std::process::id();
        let since = started(pid).unwrap_or_default();
        let text = format!("{} {pid} {since}", kills.saturating_add(1));
        if let Err(error) = write_private(&mark, text.as_bytes()) {
            tracing::warn!(%error, "a component that ends this host would be compiled again");
        }
        Ok(Compiling(mark))
    }

    /// What hosts were compiling when they were killed.
    fn interrupted(&self) -> BTreeMap<String, u32> {
        let marks = self.files().filter_map(|(path, _)| {
            let is_mark = path.extension().is_some_and(|e| e == COMPILING);
            let stem = path.file_stem().filter(|_| is_mark)?.to_str()?.to_owned();
            let text = String::from_utf8(read_private(&path).ok()?).ok()?;
            let mut parts = text.split_whitespace();
            let count: u32 = parts.next()?.parse().ok()?;
            let pid = parts.next().and_then(|pid| pid.parse().ok());
            // One that is still at work was not killed; those before it were.
            let is_alive = pid
                .and_then(started)
                .is_some_and(|since| parts.next() == Some(&since));
            Some((stem, count.saturating_sub(u32::from(is_alive))))
        });
        marks.collect()
    }

    /// Where the compiler may write before the result is put into the cache.
    pub(crate) fn scratch(&self, digest: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.dir
            .join(format!("{}.{process}.{next}.tmp", self.stem(digest)))
    }

    /// The compiled component, when it is there and whole. Anything else is removed and counts as not there.
    pub(crate) fn find(
        &self,
        engine: &wasmtime::Engine,
        digest: &str,
    ) -> Option<(Component, Entry)> {
        let (code, record) = self.paths(digest);
        if !code.exists() {
            return None;
        }
        let loaded = load(engine, &code, &record, digest);
        match loaded {
            Ok(found) => {
                let _ = File::open(&code).and_then(|f| f.set_modified(SystemTime::now()));
                Some(found)
            }
            Err(why) => {
                tracing::warn!(digest, why, "dropped a compiled component");
                let _ = fs::remove_file(&record);
                let _ = fs::remove_file(&code);
                None
            }
        }
    }

    /// What has just been put into the cache; the error says why this engine cannot run it.
    pub(crate) fn kept(
        &self,
        engine: &wasmtime::Engine,
        digest: &str,
    ) -> Result<(Component, Entry), String> {
        let (code, record) = self.paths(digest);
        load(engine, &code, &record, digest)
    }

    /// Takes over what the compiler wrote to [`Cache::scratch`], and makes room.
    pub(crate) fn keep(&self, digest: &str, scratch: &Path, took: Duration) -> Result<(), String> {
        let (code, record) = self.paths(digest);
        let compiled = read_private(scratch)?;
        let entry = Entry {
            source: digest.to_owned(),
            compiled: format!("sha256:{}", hex(&Sha256::digest(&compiled))),
            bytes: u64::try_from(compiled.len()).unwrap_or(u64::MAX),
            compile_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        let text = serde_json::to_vec(&entry).map_err(|e| e.to_string())?;
        let note = scratch.with_extension("json.tmp");
        write_private(&note, &text).map_err(|e| e.to_string())?;
        fs::rename(&note, &record).map_err(|e| e.to_string())?;
        fs::rename(scratch, &code).map_err(|e| e.to_string())?;
        self.evict(&code);
        Ok(())
    }

    /// Keeps a component as it is, with its signatures: a version that has to answer calls again may be in no source any more.
    pub(crate) fn keep_source(
        &self,
        digest: &str,
        wasm: &[u8],
        signatures: &[Signature],
    ) -> Result<(), String> {
        let Some(path) = self.source_path(digest) else {
            return Err(format!("{digest:?} is not a digest"));
        };
        let text = serde_json::to_vec(signatures).map_err(|e| e.to_string())?;
        write_private(&path.with_extension("signatures"), &text).map_err(|e| e.to_string())?;
        let kept = fs::metadata(&path).map_or(0, |meta| meta.len());
        if u64::try_from(wasm.len()).is_ok_and(|length| length == kept) {
            let touched = File::open(&path).and_then(|f| f.set_modified(SystemTime::now()));
            return touched.map_err(|e| e.to_string());
        }
        write_private(&path, wasm).map_err(|e| e.to_string())?;
        self.evict(&path);
        Ok(())
    }

    /// Whether there is something to be had for this digest.
    pub(crate) fn has_source(&self, digest: &str) -> bool {
        self.source_path(digest).is_some_and(|path| path.exists())
    }

    /// A component that was kept, with its signatures. Whether it is what its digest says is for the caller to see.
    pub(crate) fn source(&self, digest: &str) -> Option<(Vec<u8>, Vec<Signature>)> {
        let path = self.source_path(digest)?;
        let wasm = read_private(&path).ok()?;
        let signatures = read_private(&path.with_extension("signatures")).ok()?;
        Some((wasm, serde_json::from_slice(&signatures).ok()?))
    }

    /// Only for what is a digest: it may come from a status that others can write.
    fn source_path(&self, digest: &str) -> Option<PathBuf> {
        let name = digest.strip_prefix("sha256:")?;
        let is_digest = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest.then(|| self.dir.join(format!("{name}.wasm")))
    }

    fn stem(&self, digest: &str) -> String {
        let name = digest.trim_start_matches("sha256:");
        format!("{name}-{}", self.compatibility)
    }

    fn paths(&self, digest: &str) -> (PathBuf, PathBuf) {
        let stem = self.stem(digest);
        (
            self.dir.join(format!("{stem}.cwasm")),
            self.dir.join(format!("{stem}.json")),
        )
    }

    /// Removes the least recently used files until all fit. A file that is mapped stays usable after its removal.
    fn evict(&self, newest: &Path) {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = self
            .files()
            .filter(|(path, _)| {
                let is_large = path
                    .extension()
                    .is_some_and(|e| e == "cwasm" || e == "wasm");
                is_large && path != newest
            })
            .map(|(path, meta)| {
                (
                    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    meta.len(),
                    path,
                )
            })
            .collect();
        files.sort();
        let kept = fs::metadata(newest).map_or(0, |meta| meta.len());
        let mut total = files
            .iter()
            .fold(kept, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        for (_, bytes, path) in files {
            if total <= CACHE_BYTES_MAX {
                return;
            }
            for note in ["json", "signatures"] {
                let _ = fs::remove_file(path.with_extension(note));
            }
            let _ = fs::remove_file(&path);
            total = total.saturating_sub(bytes);
        }
    }

    /// Files of compilations that a stopped host left behind.
    fn remove_leftovers(&self) {
        let old = Duration::from_secs(3600);
        for (path, meta) in self.files() {
            let is_old = meta
                .modified()
                .ok()
                .and_then(|m| m.elapsed().ok())
                .is_some_and(|age| age > old);
            if is_old && path.extension().is_some_and(|e| e == "tmp") {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
        fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
    }
}

fn load(
    engine: &wasmtime::Engine,
    code: &Path,
    record: &Path,
    digest: &str,
) -> Result<(Component, Entry), String> {
    let entry: Entry = serde_json::from_slice(&read_private(record)?).map_err(|e| e.to_string())?;
    let compiled = read_private(code)?;
    if entry.source != digest {
        return Err("it is of another component".to_owned());
    }
    if entry.compiled != format!("sha256:{}", hex(&Sha256::digest(&compiled))) {
        return Err("it is not what was recorded".to_owned());
    }
    drop(compiled);
    Ok((map(engine, code)?, entry))
}

#[expect(
    unsafe_code,
    reason = "maps native code: the file is in a directory of mode 0700 that is ours, was written by our own compiler, has just \
              been compared with its recorded digest, and is only ever replaced by rename; the engine refuses files of other \
              versions and settings itself"
)]
fn map(engine: &wasmtime::Engine, code: &Path) -> Result<Component, String> {
    // SAFETY: see the reason above.
    unsafe { Component::deserialize_file(engine, code) }.map_err(|e| chain_of(&e, TEXT_BYTES_MAX))
}

/// Reads a file that nobody else can have written.
fn read_private(path: &Path) -> Result<Vec<u8>, String> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| e.to_string())?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err("it is not a file of this user".to_owned());
    }
    if meta.mode() & 0o022 != 0 {
        return Err("others can write to it".to_owned());
    }
    if meta.len() > COMPILED_BYTES_MAX {
        return Err(format!("it has more than {COMPILED_BYTES_MAX} bytes"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Writes a new file that only this user can read and write, replacing an older one.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// When a process started, in ticks since the machine did; `None` when there is none. With it a number means one process only.
fn started(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may have spaces and brackets; what follows has not. The start is the 22nd field of all.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// Names the engine's version and settings.
fn compatibility_of(engine: &wasmtime::Engine) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
