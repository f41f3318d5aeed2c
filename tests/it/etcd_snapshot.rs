//! Snapshots that the host takes of a real etcd: in a directory, in a bucket of a real store, as the beginning of a new etcd; and how they
//! hold the removal of members.

use std::path::Path;
use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::{
    Client, EtcdError, Progress, Snapshot, SnapshotBucket, SnapshotStore,
};
use capstan_controllers::kube_api::real::RealApi;
use capstan_controllers::tasks::Tasks;
use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::control_plane::{object as control_plane, settled};
use capstan_tests::etcd::{RealEtcd, TestEtcd};
use capstan_tests::host::{SNAPSHOTS_KEPT, TestHost};
use capstan_tests::kube_client::{CONTROL_PLANE, EVENT, MACHINE, SECRET, condition};
use capstan_tests::object_store::{ACCESS_KEY, ObjectStore};
use capstan_tests::{PATIENCE, eventually, run};
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
    snapshot_by(&etcd.etcd.client, etcd, store, second).await
}

async fn snapshot_by(
    client: &Client,
    etcd: &RealEtcd,
    store: &SnapshotStore,
    second: u32,
) -> Result<Snapshot, EtcdError> {
    let from = &etcd.etcd.addresses;
    let progress = Progress::default();
    client
        .snapshot(from, store, &cluster(), at(second), &progress)
        .await
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
        let kept_by = |key: ObjectKey, tasks: Tasks| {
            let bucket = SnapshotBucket::new(s3.place(), key, api.clone(), tasks);
            SnapshotStore::in_bucket(bucket, 2)
        };
        let kept_in = |key: ObjectKey| kept_by(key, Tasks::default());
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
        // One that breaks off in its second part, of a host that goes on.
        let breaking = etcd.breaking_after(u64::try_from(LARGE - 1).unwrap() << 20);
        let broken = snapshot_by(&breaking, &etcd, &store, 4).await;
        assert!(
            matches!(broken, Err(EtcdError::Broken { .. })),
            "{broken:?}"
        );
        let unfinished = || async { s3.bucket().unfinished("etcd/").await.unwrap() };
        eventually("what came of it goes", PATIENCE, async || {
            let left = unfinished().await;
            left.is_empty().then_some(()).ok_or(format!("{left:?}"))
        })
        .await;
        // The same of one that was stopped: the next snapshot puts it right.
        let stopped = Tasks::default();
        stopped.stop();
        let of_stopped = kept_by(ObjectKey::new(NAMESPACE, "right"), stopped);
        let broken = snapshot_by(&breaking, &etcd, &of_stopped, 4).await;
        assert!(
            matches!(broken, Err(EtcdError::Broken { .. })),
            "{broken:?}"
        );
        assert_eq!(unfinished().await.len(), 1);
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
        assert!(unfinished().await.is_empty());
        etcd.put("/registry/after", b"late").await;
        becomes_a_new_etcd(&s3.file(&large.path)).await;
    });
}

/// Notes of the events of this reason about the control plane.
async fn told(host: &TestHost, cluster: &TestCluster, reason: &str) -> Vec<String> {
    let events = host.kube().list(EVENT, &cluster.namespace).await;
    let of_it = events.iter().filter(|event| {
        event["reason"] == reason && event["regarding"]["name"] == cluster.control_plane().as_str()
    });
    of_it
        .map(|event| event["note"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn no_member_leaves_while_no_snapshot_can_be_kept_and_it_goes_on_when_one_can() {
    run(async {
        let host = TestHost::shared().await;
        let mut cluster = TestCluster::new("held", "held", 0);
        cluster.control_planes = 3;
        cluster.create(host.kube()).await;
        settled(host, &cluster, 3).await;
        // A file where the cluster's directory is to be: nobody can write there, not even the administrator of the machine.
        let dirs = host.snapshots_dir();
        let in_the_way = dirs.join(format!("{}.{}", cluster.namespace, cluster.name));
        std::fs::create_dir_all(&dirs).unwrap();
        std::fs::write(&in_the_way, "").unwrap();
        let plane = cluster.control_plane();
        host.kube()
            .scale(CONTROL_PLANE, &cluster.namespace, &plane, 1)
            .await;
        eventually("it is said why no member leaves", PATIENCE, async || {
            let object = control_plane(host, &cluster).await;
            let said = condition(&object, "ScalingDown").message;
            let notes = told(host, &cluster, "FailedEtcdSnapshot").await;
            let fix = format!(
                "{}: File exists (os error 17). See that the host can write to the place that --etcd-snapshots names",
                in_the_way.display()
            );
            let is_told = notes.iter().any(|note| note.contains(&fix));
            (said.contains(&fix) && said.contains("stays") && is_told)
                .then_some(())
                .ok_or(format!("{said}; {notes:?}"))
        })
        .await;
        let view = TestEtcd::of_cluster(host.kube(), &cluster)
            .await
            .view()
            .await;
        assert_eq!(view.unwrap().members.len(), 3);
        let machines = host.kube().list(MACHINE, &cluster.namespace).await;
        assert_eq!(machines.len(), 3);
        let object = control_plane(host, &cluster).await;
        assert!(object["metadata"]["annotations"]["capstan.dev/etcd-snapshot"].is_null());
        assert!(told(host, &cluster, "EtcdMemberRemoved").await.is_empty());

        std::fs::remove_file(&in_the_way).unwrap();
        cluster.control_planes = 1;
        settled(host, &cluster, 1).await;
        assert_eq!(told(host, &cluster, "EtcdMemberRemoved").await.len(), 2);
        assert!(told(host, &cluster, "EtcdSnapshotTaken").await.len() >= 2);
        assert_eq!(
            std::fs::read_dir(&in_the_way).unwrap().count(),
            SNAPSHOTS_KEPT
        );
        cluster.delete(host).await;
    });
}
