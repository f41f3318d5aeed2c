//! Snapshots in a directory: one directory in it for each cluster. Nobody but the host's user can read them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;

use super::{Kept, Place, Target, surplus};
use crate::etcd::EtcdError;

/// End of the name of a file that is not whole yet.
const PARTIAL: &str = ".part";

/// Of directories and files: a snapshot holds the Secrets of its cluster.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What others may do, in a mode.
const OTHERS: u32 = 0o077;

/// The directory of all clusters.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// A new file, in the place of what earlier attempts left.
    async fn open(&self, of_cluster: &str, name: &str) -> Result<File, EtcdError> {
        let dir = self.0.join(of_cluster);
        let failed = |error| failed(&dir, &error);
        let mut make = tokio::fs::DirBuilder::new();
        make.recursive(true).mode(DIRECTORY_MODE);
        make.create(&dir).await.map_err(failed)?;
        keep_private(&dir).await;
        for name in names(&dir).await?.iter().filter(|it| is_partial(it)) {
            let removed = tokio::fs::remove_file(dir.join(name)).await;
            removed.map_err(failed)?;
        }
        let partial = dir.join(format!("{name}{PARTIAL}"));
        let mut open = tokio::fs::OpenOptions::new();
        open.write(true).create_new(true).mode(FILE_MODE);
        let file = open.open(&partial).await.map_err(failed)?;
        Ok(File {
            file,
            partial: Partial(partial),
            path: dir.join(name),
        })
    }
}

impl Place for Directory {
    fn begin<'a>(
        &'a self,
        of_cluster: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Target>, EtcdError>> {
        async move {
            let file = self.open(of_cluster, name).await?;
            Ok(Box::new(file) as Box<dyn Target>)
        }
        .boxed()
    }
}

/// Shuts out others where an older host let them in. Some file systems have no modes that could be set.
async fn keep_private(dir: &Path) {
    let Ok(found) = tokio::fs::metadata(dir).await else {
        return;
    };
    if found.permissions().mode() & OTHERS == 0 {
        return;
    }
    let shut = tokio::fs::set_permissions(dir, Permissions::from_mode(DIRECTORY_MODE)).await;
    if let Err(error) = shut {
        let dir = dir.display();
        tracing::warn!(%dir, "snapshots of etcd can be read by others: {error}");
    }
}

fn is_partial(name: &str) -> bool {
    name.ends_with(PARTIAL)
}

async fn names(dir: &Path) -> Result<Vec<String>, EtcdError> {
    let failed = |error| failed(dir, &error);
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await.map_err(failed)?;
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Removes all but the newest ones beside this one.
async fn prune(newest: &Path, keep: usize) -> Result<(), EtcdError> {
    let Some(dir) = newest.parent() else {
        return Ok(());
    };
    let names = names(dir).await?;
    for name in surplus(&names, keep) {
        let removed = tokio::fs::remove_file(dir.join(name)).await;
        removed.map_err(|error| failed(dir, &error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &std::io::Error) -> EtcdError {
    EtcdError::Store(format!("{}: {error}", path.display()))
}

/// A file that is removed when nothing becomes of it.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // One that has its name already is not there any more. What cannot be removed now, the next snapshot removes.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that is being written.
struct File {
    file: tokio::fs::File,
    partial: Partial,
    path: PathBuf,
}

impl File {
    async fn write(&mut self, part: &[u8]) -> Result<(), EtcdError> {
        let written = self.file.write_all(part).await;
        written.map_err(|error| failed(&self.partial.0, &error))
    }

    /// Makes it durable under its name.
    async fn name(mut self) -> Result<PathBuf, EtcdError> {
        let partial = &self.partial.0;
        let failed = |error| failed(partial, &error);
        self.file.flush().await.map_err(failed)?;
        self.file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(partial, &self.path)
            .await
            .map_err(failed)?;
        if let Some(dir) = self.path.parent() {
            let dir = tokio::fs::File::open(dir).await.map_err(failed)?;
            dir.sync_all().await.map_err(failed)?;
        }
        Ok(self.path)
    }
}

impl Target for File {
    fn add<'a>(&'a mut self, part: &'a [u8]) -> BoxFuture<'a, Result<(), EtcdError>> {
        self.write(part).boxed()
    }

    fn finish(self: Box<Self>, keep: usize) -> BoxFuture<'static, Result<Kept, EtcdError>> {
        async move {
            let path = self.name().await?;
            // The snapshot is there all the same.
            let pruned = prune(&path, keep).await;
            Ok(Kept {
                path: path.display().to_string(),
                not_pruned: pruned.err().map(|error| error.to_string()),
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use capstan_api::name::ObjectKey;
    use jiff::Timestamp;

    use crate::etcd::SnapshotStore;

    fn cluster() -> ObjectKey {
        ObjectKey::new("n", "c")
    }

    fn at(second: u32) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_snapshot_appears_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::new(dir.path().to_owned(), 1);
        let mut writing = store.begin(&cluster(), at(1)).await.unwrap();
        writing.add(b"one").await.unwrap();
        let first = writing.finish().await.unwrap();
        assert!(first.path.ends_with("n.c/20260101T000001Z.db"));
        assert_eq!((first.bytes, first.not_pruned), (3, None));
        let empty = store.begin(&cluster(), at(2)).await.unwrap();
        assert!(empty.finish().await.is_err());
        let mut writing = store.begin(&cluster(), at(3)).await.unwrap();
        writing.add(b"three").await.unwrap();
        writing.finish().await.unwrap();
        let left = names(&dir.path().join("n.c"));
        assert_eq!(left, ["20260101T000003Z.db"]);
    }

    #[tokio::test]
    async fn nobody_else_can_read_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("made");
        let store = SnapshotStore::new(place.clone(), 2);
        let of_cluster = place.join("n.c");
        let mut writing = store.begin(&cluster(), at(1)).await.unwrap();
        writing.add(b"one").await.unwrap();
        let partial = of_cluster.join("20260101T000001Z.db.part");
        assert_eq!(mode(&partial), 0o600);
        let whole = writing.finish().await.unwrap();
        assert_eq!(mode(Path::new(&whole.path)), 0o600);
        assert_eq!([&place, &of_cluster].map(|dir| mode(dir)), [0o700; 2]);
        // As an older host has left it.
        fs::set_permissions(&of_cluster, Permissions::from_mode(0o755)).unwrap();
        store.begin(&cluster(), at(2)).await.unwrap();
        assert_eq!(mode(&of_cluster), 0o700);
    }

    #[tokio::test]
    async fn nothing_stays_of_a_snapshot_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::new(dir.path().to_owned(), 1);
        let mut writing = store.begin(&cluster(), at(1)).await.unwrap();
        writing.add(b"half").await.unwrap();
        let of_cluster = dir.path().join("n.c");
        assert_eq!(names(&of_cluster), ["20260101T000001Z.db.part"]);
        drop(writing);
        assert!(names(&of_cluster).is_empty());
        // Of a host that was killed.
        for left in ["20260101T000002Z.db.part", "notes.txt"] {
            fs::write(of_cluster.join(left), "x").unwrap();
        }
        let _writing = store.begin(&cluster(), at(3)).await.unwrap();
        assert_eq!(
            names(&of_cluster),
            ["20260101T000003Z.db.part", "notes.txt"]
        );
    }
}
