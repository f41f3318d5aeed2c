//! Where snapshots of etcd are kept: a place that the operator gave, with a part of it for each cluster.

mod bucket;
mod directory;
mod taking;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use capstan_api::name::ObjectKey;
use futures::future::BoxFuture;
use jiff::Timestamp;

pub use self::bucket::Bucket;
use self::directory::Directory;
pub use self::taking::{Progress, Snapshots};
use super::EtcdError;
use super::message::SNAPSHOT;

/// Bytes of one snapshot: twice the 8 GiB that etcd's page on system limits suggests at most for a database. All clusters share the place,
/// and what sends the bytes is not trusted.
const BYTES_MAX: u64 = 16 << 30;

/// End of a snapshot's name.
const SUFFIX: &str = ".db";

/// What can keep snapshots.
pub trait Place: fmt::Debug + Send + Sync {
    /// A new snapshot of this name, in the part of a cluster. What earlier attempts left half done goes: a cluster has one at a time.
    fn begin<'a>(
        &'a self,
        of_cluster: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Target>, EtcdError>>;
}

/// What becomes a snapshot. Nothing stays of one that is dropped.
pub trait Target: Send {
    /// Adds a part.
    fn add<'a>(&'a mut self, part: &'a [u8]) -> BoxFuture<'a, Result<(), EtcdError>>;

    /// Makes it durable under its name, and removes those of its cluster that are older than the newest so many.
    fn finish(self: Box<Self>, keep: usize) -> BoxFuture<'static, Result<Kept, EtcdError>>;
}

/// A snapshot that its place has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The file, or the address of the object.
    pub path: String,
    /// Why older ones that should be gone are still there.
    pub not_pruned: Option<String>,
}

/// A place for snapshots, and how many of each cluster stay there.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    place: Arc<dyn Place>,
    keep: usize,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file, or the address of the object.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Why older ones that should be gone are still there.
    pub not_pruned: Option<String>,
}

impl SnapshotStore {
    /// Keeps as many snapshots of each cluster, at least one, in this directory.
    #[must_use]
    pub fn new(dir: PathBuf, keep: usize) -> Self {
        Self::in_place(Arc::new(Directory::new(dir)), keep)
    }

    /// Keeps as many, at least one, in this bucket.
    #[must_use]
    pub fn in_bucket(bucket: Bucket, keep: usize) -> Self {
        Self::in_place(Arc::new(bucket), keep)
    }

    /// Keeps as many, at least one, in a place of another kind.
    #[must_use]
    pub fn in_place(place: Arc<dyn Place>, keep: usize) -> Self {
        Self {
            place,
            keep: keep.max(1),
        }
    }

    /// A new snapshot of this cluster.
    pub(super) async fn begin(
        &self,
        cluster: &ObjectKey,
        now: Timestamp,
    ) -> Result<Writing, EtcdError> {
        // Names of objects hold no dots at the ends and no slashes.
        let of_cluster = format!("{}.{}", cluster.namespace, cluster.name);
        let name = format!("{}{SUFFIX}", now.strftime("%Y%m%dT%H%M%SZ"));
        Ok(Writing {
            target: self.place.begin(&of_cluster, &name).await?,
            keep: self.keep,
            bytes: 0,
            bytes_max: BYTES_MAX,
        })
    }
}

/// Of the names in one place, those of snapshots that go: names are times, so they sort by age.
fn surplus(names: &[String], keep: usize) -> Vec<&String> {
    let mut whole: Vec<&String> = names.iter().filter(|name| name.ends_with(SUFFIX)).collect();
    whole.sort_unstable_by(|a, b| b.cmp(a));
    whole.into_iter().skip(keep).collect()
}

/// A snapshot that is being written.
pub(super) struct Writing {
    target: Box<dyn Target>,
    keep: usize,
    bytes: u64,
    bytes_max: u64,
}

impl Writing {
    /// Adds a part. What has become too large is the member's doing and not the place's: another may be better.
    pub(super) async fn add(&mut self, part: &[u8]) -> Result<(), EtcdError> {
        let length = u64::try_from(part.len()).unwrap_or_default();
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.bytes_max {
            return Err(EtcdError::Broken {
                call: SNAPSHOT,
                why: format!("it has more than {} MiB", self.bytes_max >> 20),
            });
        }
        self.target.add(part).await
    }

    /// Makes it durable under its name, and removes those that are older than what is kept.
    pub(super) async fn finish(self) -> Result<Snapshot, EtcdError> {
        if self.bytes == 0 {
            return Err(EtcdError::Store("the snapshot is empty".to_owned()));
        }
        let Kept { path, not_pruned } = self.target.finish(self.keep).await?;
        Ok(Snapshot {
            path,
            bytes: self.bytes,
            not_pruned,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_nothing_that_is_not_a_snapshot_goes() {
        let names = ["1.db", "3.db", "2.db", "notes.txt"].map(str::to_owned);
        assert_eq!(surplus(&names, 2), ["1.db"]);
        assert!(surplus(&["1.db".to_owned()], 1).is_empty());
    }

    #[tokio::test]
    async fn a_snapshot_without_end_is_dropped_at_its_limit_and_nothing_of_it_stays() {
        let place = tempfile::tempdir().unwrap();
        let store = SnapshotStore::new(place.path().to_owned(), 1);
        let cluster = ObjectKey::new("ns", "c");
        let mut writing = store.begin(&cluster, Timestamp::UNIX_EPOCH).await.unwrap();
        writing.bytes_max = 10;
        writing.add(b"0123456789").await.unwrap();
        let refused = writing.add(b"0").await.unwrap_err();
        assert!(matches!(refused, EtcdError::Broken { .. }), "{refused}");
        drop(writing);
        let of_cluster = place.path().join("ns.c");
        assert_eq!(std::fs::read_dir(of_cluster).unwrap().count(), 0);
    }
}
