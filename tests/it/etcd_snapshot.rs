//! Snapshots that the host takes of a real etcd: in a directory, in a bucket of a real store, and as the beginning of a new etcd.

use std::path::Path;
use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::{EtcdError, Snapshot, SnapshotBucket, SnapshotStore};
use capstan_controllers::kube_api::real::RealApi;
use capstan_controllers::tasks::Tasks;
use capstan_tests::cluster::namespace;
use capstan_tests::etcd::RealEtcd;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::SECRET;
use capstan_tests::object_store::{ACCESS_KEY, ObjectStore};
use capstan_tests::run;
use serde_json::json;

const NAMESPACE: &str = "snapshots";

/// More than one part of an upload: 8 MiB.
const LARGE: usize = 12;

fn cluster() -> ObjectKey {
    ObjectKey::new(NAMESPACE, "c")
}

fn at(second: u32) -> jiff::Timestamp {
    format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
}

async fn snapshot(
    etcd: &RealEtcd,
    store: &SnapshotStore,
    second: u32,
) -> Result<Snapshot, EtcdError> {
    let (client, from) = (&etcd.etcd.client, &etcd.etcd.addresses);
    client.snapshot(from, store, &cluster(), at(second)).await
}

/// What no compression makes smaller.
fn noise(seed: usize) -> Vec<u8> {
    let mut state = u64::try_from(seed).unwrap() | 1;
    let bytes = (0..1 << 20).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    bytes.collect()
}

/// A new etcd that begins with this file has what the old one had then, and nothing of what came later.
async fn becomes_a_new_etcd(file: &Path) {
    let restored = RealEtcd::restored(file).await;
    assert_eq!(
        restored.value("/registry/before").await.as_deref(),
        Some(&b"one"[..])
    );
    assert_eq!(restored.value("/registry/after").await, None);
    restored.put("/registry/after", b"two").await;
    assert_eq!(
        restored.value("/registry/after").await.as_deref(),
        Some(&b"two"[..])
    );
    let view = restored.etcd.view().await.unwrap();
    assert!(view.has_quorum && view.members.len() == 1, "{view:?}");
}

#[test]
fn a_snapshot_in_a_directory_becomes_a_new_etcd() {
    run(async {
        let etcd = RealEtcd::start(1).await;
        etcd.put("/registry/before", b"one").await;
        let place = tempfile::tempdir().unwrap();
        let store = SnapshotStore::new(place.path().to_owned(), 1);
        let taken = snapshot(&etcd, &store, 1).await.unwrap();
        etcd.put("/registry/after", b"late").await;
        becomes_a_new_etcd(Path::new(&taken.path)).await;
    });
}

/// The Secret that opens the bucket, with this for its second half.
async fn secret(host: &TestHost, store: &ObjectStore, name: &str, secret: &str) -> ObjectKey {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAMESPACE, "name": name},
        "stringData": {"accessKeyId": ACCESS_KEY.0, "secretAccessKey": secret, "ca.crt": store.ca_pem()},
    });
    host.kube().apply(SECRET, &object).await;
    ObjectKey::new(NAMESPACE, name)
}

#[test]
fn a_snapshot_in_a_bucket_becomes_a_new_etcd_and_older_ones_go() {
    run(async {
        let host = TestHost::shared().await;
        namespace(host.kube(), NAMESPACE).await;
        let s3 = ObjectStore::start("capstan-snapshots").await;
        let api = Arc::new(RealApi::new(host.kube().client()));
        let kept_in = |key: ObjectKey| {
            let bucket = SnapshotBucket::new(s3.place(), key, api.clone(), Tasks::default());
            SnapshotStore::in_bucket(bucket, 2)
        };
        let etcd = RealEtcd::start(1).await;
        etcd.put("/registry/before", b"one").await;

        let absent = kept_in(ObjectKey::new(NAMESPACE, "absent"));
        let why = snapshot(&etcd, &absent, 1).await.unwrap_err().to_string();
        assert!(why.contains("Secret snapshots/absent"), "{why}");
        let wrong = kept_in(secret(host, &s3, "wrong", "another-secret").await);
        let why = snapshot(&etcd, &wrong, 1).await.unwrap_err().to_string();
        assert!(why.contains("SignatureDoesNotMatch"), "{why}");

        let store = kept_in(secret(host, &s3, "right", ACCESS_KEY.1).await);
        for second in [2, 3] {
            let small = snapshot(&etcd, &store, second).await.unwrap();
            assert_eq!(small.not_pruned, None);
            let file = std::fs::metadata(s3.file(&small.path)).unwrap();
            assert_eq!(file.len(), small.bytes);
        }
        for number in 0..LARGE {
            etcd.put(&format!("/registry/large/{number}"), &noise(number))
                .await;
        }
        // Of a host that was killed meanwhile.
        let lost = "etcd/snapshots.c/20260101T000004Z.db";
        s3.bucket().begin(lost).await.unwrap();
        let large = snapshot(&etcd, &store, 5).await.unwrap();
        assert_eq!(
            large.path,
            "s3://capstan-snapshots/etcd/snapshots.c/20260101T000005Z.db"
        );
        assert_eq!(large.not_pruned, None);
        assert!(large.bytes > 8 << 20, "{} is one part", large.bytes);
        assert_eq!(
            s3.bucket().list("etcd/").await.unwrap(),
            [3, 5].map(|second| format!("etcd/snapshots.c/20260101T00000{second}Z.db"))
        );
        let unfinished = s3.bucket().unfinished("etcd/").await.unwrap();
        assert!(unfinished.is_empty(), "{unfinished:?}");
        etcd.put("/registry/after", b"late").await;
        becomes_a_new_etcd(&s3.file(&large.path)).await;
    });
}
