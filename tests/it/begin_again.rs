//! A Cluster that is deleted and made again as `host/docs/etcd.md` says: what trusted the old one trusts the new one.

use std::path::Path;

use capstan_local::progress::Progress;
use capstan_local::toolchain;
use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CONTROL_PLANE, NODE, SECRET};
use capstan_tests::page::{commands, document, follow, section};
use capstan_tests::{kube_client::Kube, run};
use serde_json::Value;

const NAME: &str = "again";

/// Certificates and keys of its authorities.
async fn authorities(kube: &Kube) -> Vec<Value> {
    let mut all = Vec::new();
    for purpose in ["ca", "etcd", "proxy", "sa"] {
        let secret = kube.get(SECRET, NAME, &format!("{NAME}-{purpose}")).await;
        let secret = secret.unwrap();
        assert_eq!(secret["type"], "cluster.x-k8s.io/secret");
        assert_eq!(
            secret["metadata"]["ownerReferences"][0]["kind"],
            "KubeadmControlPlane"
        );
        all.push(secret["data"].clone());
    }
    all
}

#[test]
fn a_cluster_that_is_made_again_with_its_kept_secrets_is_trusted_as_before() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new(NAME, NAME, 0);
        cluster.create(kube).await;
        cluster.available(host, 0).await;
        let before = authorities(kube).await;
        let kept = cluster.kubeconfig(kube).await;
        let uid = |plane: Option<Value>| plane.unwrap()["metadata"]["uid"].clone();
        let plane = cluster.control_plane();
        let old = uid(kube.get(CONTROL_PLANE, NAME, &plane).await);

        let own = tempfile::tempdir().unwrap();
        let kubectl = toolchain::ensure_kubectl(&Progress::default())
            .await
            .unwrap();
        let admin = host
            .plane
            .user_kubeconfig("admin", &["system:masters"])
            .unwrap();
        let page = section(&document("host/docs/etcd.md"), "Beginning again");
        let blocks = commands(&page);
        let [keep, put_back] = &blocks[..] else {
            panic!("{blocks:?}")
        };
        let begin = "set -eu\ncd \"$OWN\"\nexport PATH=\"$BIN:$PATH\"\n";
        let variables = [
            ("OWN", own.path()),
            ("BIN", kubectl.parent().unwrap()),
            ("KUBECONFIG", &admin),
            ("NAMESPACE", Path::new(NAME)),
            ("CLUSTER", Path::new(NAME)),
        ];
        follow(&format!("{begin}{keep}"), &variables).await;
        cluster.delete(host).await;
        follow(&format!("{begin}{put_back}"), &variables).await;
        cluster.create(kube).await;
        cluster.available(host, 0).await;

        assert_ne!(uid(kube.get(CONTROL_PLANE, NAME, &plane).await), old);
        assert!(authorities(kube).await == before, "they are others");
        // The old kubeconfig has another address, but what it trusts, and who it is, are as good as before.
        let new = cluster.kubeconfig(kube).await;
        let server = |text: &str| {
            let line = text.lines().find(|line| line.contains("server:"));
            line.unwrap().to_owned()
        };
        let moved = kept.replace(&server(&kept), &server(&new));
        assert_ne!(moved, new, "it is another certificate");
        let nodes = Kube::from_kubeconfig(&moved).await.list(NODE, "").await;
        assert_eq!(nodes.len(), 1);
        cluster.delete(host).await;
    });
}
