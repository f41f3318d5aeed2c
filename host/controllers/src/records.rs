//! Records of plugin calls in a directory of the host: few, bounded, readable by nobody else.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_engine::{CallRecord, RecordSink};

/// Bytes of one record: what the engine takes into one, as JSON with its white space.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Records that wait for the disk at the same time: each holds up to 4 MiB.
const PENDING_MAX: usize = 8;

/// Where records are kept. The oldest go first.
#[derive(Debug)]
pub struct RecordDir {
    dir: PathBuf,
    keep: usize,
    count: AtomicU64,
    writing: Mutex<()>,
    /// Records that wait for the disk, and those that did not wait.
    pending: AtomicUsize,
    dropped: AtomicU64,
}

impl RecordDir {
    /// A directory, made when it is missing and private to this user, in which at most `keep` records stay.
    ///
    /// # Errors
    /// When the directory cannot be made or is not one.
    pub fn open(dir: &Path, keep: usize) -> Result<Arc<Self>, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", dir.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| wrong(&error))?;
        let found = list(dir).map_err(|error| wrong(&error))?;
        let newest = found.last().and_then(|path| number(path));
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            keep: keep.max(1),
            count: AtomicU64::new(newest.map_or(0, |newest| newest.saturating_add(1))),
            writing: Mutex::new(()),
            pending: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Whether there is room for one more record to wait.
    fn admit(&self) -> bool {
        let room = |pending: usize| (pending < PENDING_MAX).then(|| pending.saturating_add(1));
        let admitted = self
            .pending
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        if admitted.is_err() {
            let dropped = self
                .dropped
                .fetch_add(1, Ordering::Relaxed)
                .saturating_add(1);
            if dropped.is_power_of_two() {
                tracing::warn!(
                    dropped,
                    "records of calls are dropped: the disk is slower than the calls"
                );
            }
        }
        admitted.is_ok()
    }

    fn write(&self, record: &CallRecord) -> std::io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_vec_pretty(record)?;
        if text.len() > RECORD_BYTES_MAX {
            return Err(std::io::Error::other("it is too large"));
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name: String = format!("{}-{}", record.plugin, record.function)
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(120)
            .collect();
        let path = self.dir.join(format!("{number:010}-{name}.json"));
        // Whole or not at all: somebody may be copying what is there.
        let part = path.with_extension("part");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(&text)?;
        fs::rename(&part, &path)?;
        let found = list(&self.dir)?;
        let surplus = found.len().saturating_sub(self.keep);
        for old in found.iter().take(surplus) {
            fs::remove_file(old)?;
        }
        Ok(())
    }
}

/// Records in a directory, the oldest first.
///
/// # Errors
/// When it cannot be read.
pub fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .filter(|path| number(path).is_some())
        .collect();
    found.sort_by_key(|path| number(path));
    Ok(found)
}

/// Place of a record among all.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.split_once('-')?.0.parse().ok()
}

/// Writes records of calls without holding the call up.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(pub(crate) Arc<RecordDir>);

impl RecordSink for Recorder {
    fn keep(&self, record: CallRecord) {
        let dir = Arc::clone(&self.0);
        if !dir.admit() {
            return;
        }
        let write = move || {
            let written = dir.write(&record);
            dir.pending.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = written {
                tracing::warn!(
                    plugin = record.plugin, object = record.object, call = record.function, %error,
                    "the record of a call cannot be written"
                );
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(threads) => drop(threads.spawn_blocking(write)),
            Err(_) => write(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use capstan_engine::RECORD_FORM;
    use serde_json::json;

    use super::*;

    fn record(object: &str) -> CallRecord {
        serde_json::from_value(json!({
            "form": RECORD_FORM, "plugin": "upgrade-x", "object": object, "digest": "sha256:1", "wit": "0.1",
            "function": "plan-upgrade", "seed": "", "secrets": [], "input": {}, "imports": [], "outcome": {},
        }))
        .unwrap()
    }

    #[test]
    fn only_few_records_wait_for_the_disk() {
        let dir = std::env::temp_dir().join(format!("capstan-pending-{}", std::process::id()));
        let kept = RecordDir::open(&dir, 2).unwrap();
        let admitted = (0..100).filter(|_| kept.admit()).count();
        assert_eq!(admitted, PENDING_MAX);
        assert_eq!(kept.dropped.load(Ordering::Relaxed), 92);
        kept.pending.fetch_sub(1, Ordering::Relaxed);
        assert!(kept.admit());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_newest_records_stay_and_nobody_else_reads_them() {
        let dir = std::env::temp_dir().join(format!("capstan-records-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let kept = RecordDir::open(&dir, 2).unwrap();
        for object in ["a", "b", "c"] {
            kept.write(&record(object)).unwrap();
        }
        let again = RecordDir::open(&dir, 2).unwrap();
        again.write(&record("d")).unwrap();
        let found = list(&dir).unwrap();
        let objects: Vec<String> = found
            .iter()
            .map(|path| CallRecord::parse(&fs::read(path).unwrap()).unwrap().object)
            .collect();
        assert_eq!(objects, ["c", "d"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&found[0])), (0o700, 0o600));
        assert!(found[1].ends_with("0000000003-upgrade-x-plan-upgrade.json"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
