//! Where snapshots of etcd are kept: a directory that the operator gave, one directory in it for each cluster.

use std::path::{Path, PathBuf};

use capstan_api::name::ObjectKey;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::EtcdError;

/// End of the name of a file that is not whole yet.
const PARTIAL: &str = ".part";

/// A place for snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
    keep: usize,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl SnapshotStore {
    /// Keeps as many snapshots of each cluster, at least one, in this directory.
    #[must_use]
    pub fn new(dir: PathBuf, keep: usize) -> Self {
        Self {
            dir,
            keep: keep.max(1),
        }
    }

    /// A new file for a snapshot of this cluster.
    pub(super) async fn begin(
        &self,
        cluster: &ObjectKey,
        now: Timestamp,
    ) -> Result<Writing, EtcdError> {
        // Names of objects hold no dots at the ends and no slashes.
        let dir = self
            .dir
            .join(format!("{}.{}", cluster.namespace, cluster.name));
        let failed = |error| failed(&dir, &error);
        tokio::fs::create_dir_all(&dir).await.map_err(failed)?;
        let path = dir.join(format!("{}.db", now.strftime("%Y%m%dT%H%M%SZ")));
        let partial = dir.join(format!("{}.db{PARTIAL}", now.strftime("%Y%m%dT%H%M%SZ")));
        let file = File::create(&partial).await.map_err(failed)?;
        Ok(Writing {
            file,
            partial,
            path,
            bytes: 0,
        })
    }

    /// Removes all but the newest ones beside this one, and what earlier attempts left.
    pub(super) async fn prune(&self, newest: &Path) -> Result<(), EtcdError> {
        let Some(dir) = newest.parent() else {
            return Ok(());
        };
        let failed = |error| failed(dir, &error);
        let mut names = Vec::new();
        let mut entries = tokio::fs::read_dir(dir).await.map_err(failed)?;
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        for name in surplus(names, self.keep) {
            tokio::fs::remove_file(dir.join(name))
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// Of these files of one directory, those that go: names are times, so they sort by age.
fn surplus(mut names: Vec<String>, keep: usize) -> Vec<String> {
    let (partial, mut whole): (Vec<String>, Vec<String>) =
        names.drain(..).partition(|name| name.ends_with(PARTIAL));
    whole.retain(|name| name.ends_with(".db"));
    whole.sort_unstable_by(|a, b| b.cmp(a));
    partial
        .into_iter()
        .chain(whole.into_iter().skip(keep))
        .collect()
}

fn failed(path: &Path, error: &std::io::Error) -> EtcdError {
    EtcdError::Store(format!("{}: {error}", path.display()))
}

/// A snapshot that is being written.
pub(super) struct Writing {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    bytes: u64,
}

impl Writing {
    /// Adds a part.
    pub(super) async fn add(&mut self, part: &[u8]) -> Result<(), EtcdError> {
        let length = u64::try_from(part.len()).unwrap_or_default();
        self.bytes = self.bytes.saturating_add(length);
        let written = self.file.write_all(part).await;
        written.map_err(|error| failed(&self.partial, &error))
    }

    /// Makes it durable under its name.
    pub(super) async fn finish(self) -> Result<Snapshot, EtcdError> {
        let failed = |error| failed(&self.partial, &error);
        if self.bytes == 0 {
            return Err(EtcdError::Store("the snapshot is empty".to_owned()));
        }
        self.file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(&self.partial, &self.path)
            .await
            .map_err(failed)?;
        Ok(Snapshot {
            path: self.path,
            bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_nothing_that_is_not_a_snapshot_goes() {
        let names = ["1.db", "3.db", "2.db", "4.db.part", "notes.txt"].map(str::to_owned);
        assert_eq!(surplus(names.to_vec(), 2), ["4.db.part", "1.db"]);
        assert!(surplus(vec!["1.db".to_owned()], 1).is_empty());
    }

    #[tokio::test]
    async fn a_snapshot_appears_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::new(dir.path().to_owned(), 1);
        let cluster = ObjectKey::new("n", "c");
        let at = |second: &str| format!("2026-01-01T00:00:{second}Z").parse().unwrap();
        let mut writing = store.begin(&cluster, at("01")).await.unwrap();
        writing.add(b"one").await.unwrap();
        let first = writing.finish().await.unwrap();
        assert_eq!(
            (first.bytes, first.path.ends_with("n.c/20260101T000001Z.db")),
            (3, true)
        );
        let empty = store.begin(&cluster, at("02")).await.unwrap();
        assert!(empty.finish().await.is_err());
        let mut writing = store.begin(&cluster, at("03")).await.unwrap();
        writing.add(b"three").await.unwrap();
        let third = writing.finish().await.unwrap();
        store.prune(&third.path).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path().join("n.c"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, ["20260101T000003Z.db"]);
    }
}
