//! Snapshots in a directory: one directory in it for each cluster.

use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;

use super::surplus;
use crate::etcd::EtcdError;

/// End of the name of a file that is not whole yet.
const PARTIAL: &str = ".part";

/// The directory of all clusters.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// A new file.
    pub(super) async fn begin(&self, of_cluster: &str, name: &str) -> Result<File, EtcdError> {
        let dir = self.0.join(of_cluster);
        let failed = |error| failed(&dir, &error);
        tokio::fs::create_dir_all(&dir).await.map_err(failed)?;
        let path = dir.join(name);
        let partial = dir.join(format!("{name}{PARTIAL}"));
        let file = tokio::fs::File::create(&partial).await.map_err(failed)?;
        Ok(File {
            file,
            partial,
            path,
        })
    }
}

/// Removes all but the newest ones beside this one, and what earlier attempts left.
pub(super) async fn prune(newest: &Path, keep: usize) -> Result<(), EtcdError> {
    let Some(dir) = newest.parent() else {
        return Ok(());
    };
    let failed = |error| failed(dir, &error);
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await.map_err(failed)?;
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    let partial = names.iter().filter(|name| name.ends_with(PARTIAL));
    for name in partial.chain(surplus(&names, keep)) {
        tokio::fs::remove_file(dir.join(name))
            .await
            .map_err(failed)?;
    }
    Ok(())
}

fn failed(path: &Path, error: &std::io::Error) -> EtcdError {
    EtcdError::Store(format!("{}: {error}", path.display()))
}

/// A file that is being written.
pub(super) struct File {
    file: tokio::fs::File,
    partial: PathBuf,
    path: PathBuf,
}

impl File {
    pub(super) async fn add(&mut self, part: &[u8]) -> Result<(), EtcdError> {
        let written = self.file.write_all(part).await;
        written.map_err(|error| failed(&self.partial, &error))
    }

    /// Makes it durable under its name.
    pub(super) async fn finish(self) -> Result<PathBuf, EtcdError> {
        let failed = |error| failed(&self.partial, &error);
        self.file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(&self.partial, &self.path)
            .await
            .map_err(failed)?;
        Ok(self.path)
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::name::ObjectKey;

    use crate::etcd::SnapshotStore;

    #[tokio::test]
    async fn a_snapshot_appears_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::new(dir.path().to_owned(), 1);
        let cluster = ObjectKey::new("n", "c");
        let at = |second: &str| format!("2026-01-01T00:00:{second}Z").parse().unwrap();
        let mut writing = store.begin(&cluster, at("01")).await.unwrap();
        writing.add(b"one").await.unwrap();
        let first = writing.finish().await.unwrap();
        assert!(first.path.ends_with("n.c/20260101T000001Z.db"));
        assert_eq!((first.bytes, first.not_pruned), (3, None));
        let empty = store.begin(&cluster, at("02")).await.unwrap();
        assert!(empty.finish().await.is_err());
        let mut writing = store.begin(&cluster, at("03")).await.unwrap();
        writing.add(b"three").await.unwrap();
        writing.finish().await.unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path().join("n.c"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, ["20260101T000003Z.db"]);
    }
}
