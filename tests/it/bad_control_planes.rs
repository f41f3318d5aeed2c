//! Control planes that cannot work are refused by the server, or say in a condition what is wrong and what to do; nothing is made by halves.

use capstan_controllers::pki;
use capstan_core::material::KeyAlgorithm;
use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CONTROL_PLANE, Kube, MACHINE, SECRET, condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

/// The control plane of the usual cluster with another spec.
fn plane(cluster: &TestCluster, change: impl FnOnce(&mut Value)) -> Value {
    let mut objects = cluster.objects().into_iter();
    let (_, mut plane) = objects.find(|(kind, _)| *kind == CONTROL_PLANE).unwrap();
    change(&mut plane["spec"]);
    plane
}

#[test]
fn replicas_and_versions_that_cannot_be_are_refused_by_the_server() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("bad-plane", "bad-plane", 0);
        namespace(host.kube(), &cluster.namespace).await;
        let refused = async |object: &Value, words: &[&str]| {
            let refusal = host
                .kube()
                .try_apply(CONTROL_PLANE, object)
                .await
                .unwrap_err();
            assert_eq!(refusal.code, 422, "{}", refusal.message);
            for word in words {
                assert!(
                    refusal.message.contains(word),
                    "{word}: {}",
                    refusal.message
                );
            }
        };
        for (replicas, words) in [
            (0, "replicas must be at least 1"),
            (-1, "replicas must be at least 1"),
            (2, "replicas must be odd, unless etcd is external"),
            (4, "replicas must be odd, unless etcd is external"),
        ] {
            let object = plane(&cluster, |spec| spec["replicas"] = json!(replicas));
            refused(&object, &["spec.replicas", words]).await;
        }
        let odd = plane(&cluster, |spec| spec["version"] = json!("latest"));
        refused(&odd, &["spec.version", "must be a version such as v1.36.3"]).await;
        let old = plane(&cluster, |spec| spec["version"] = json!("v1.34.2"));
        host.kube().apply(CONTROL_PLANE, &old).await;
        let jump = plane(&cluster, |spec| spec["version"] = json!("v1.36.0"));
        refused(&jump, &["spec.version", "one minor version at a time"]).await;
        let elsewhere = plane(&cluster, |spec| {
            spec["version"] = json!("v1.34.2");
            spec["kubeadmConfigSpec"]["clusterConfiguration"] = json!({"etcd": {"external": {
                "endpoints": ["https://10.0.0.9:2379"], "caFile": "/a", "certFile": "/b", "keyFile": "/c",
            }}});
        });
        refused(
            &elsewhere,
            &["may not change between local and external etcd"],
        )
        .await;
        let name = cluster.control_plane();
        host.kube()
            .delete(CONTROL_PLANE, &cluster.namespace, &name)
            .await;
    });
}

/// Waits until the control plane says all of this about its certificates, and answers how many Machines there are.
async fn says(host: &TestHost, cluster: &TestCluster, words: &[&str]) -> usize {
    let (kube, namespace) = (host.kube(), &cluster.namespace);
    let name = cluster.control_plane();
    eventually(
        "the control plane says what is wrong",
        PATIENCE,
        async || {
            let plane = kube.get(CONTROL_PLANE, namespace, &name).await;
            let plane = plane.ok_or("there is none")?;
            let said = condition(&plane, "CertificatesAvailable");
            let is_said =
                said.status != "True" && words.iter().all(|word| said.message.contains(word));
            is_said.then_some(()).ok_or(conditions(&plane))
        },
    )
    .await;
    kube.list(MACHINE, namespace).await.len()
}

fn secret(cluster: &TestCluster, purpose: &str, labels: &Value, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "namespace": cluster.namespace, "name": format!("{}-{purpose}", cluster.name), "labels": labels,
        },
        "stringData": data,
    })
}

/// Looks at a control plane again and again until it says this about its certificates: Secrets are not watched, and a settled control plane
/// is looked at now and then.
async fn comes_to_say(kube: &Kube, cluster: &TestCluster, words: &str) {
    let name = cluster.control_plane();
    let mut looks = 0;
    eventually("the loss is noticed", PATIENCE, async || {
        looks += 1;
        let look = json!({"metadata": {"annotations": {"test/look": looks.to_string()}}});
        kube.merge(CONTROL_PLANE, &cluster.namespace, &name, &look)
            .await;
        let plane = kube.get(CONTROL_PLANE, &cluster.namespace, &name).await;
        let said = condition(&plane.unwrap(), "CertificatesAvailable");
        (said.status == "False" && said.message.starts_with(words))
            .then_some(())
            .ok_or(said.message)
    })
    .await;
}

/// Who brings certificates that cannot be used is told so before there is a machine, and what helps, helps.
#[test]
fn certificates_that_cannot_be_used_are_named_before_there_is_a_machine() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("bad-certs", "bad-certs", 0);
        namespace(kube, &cluster.namespace).await;
        let now = jiff::Timestamp::now();
        let made =
            |name: &str| pki::certificate_authority(name, KeyAlgorithm::EcdsaP256, 0, now).unwrap();
        let (own, other) = (made("kubernetes"), made("kubernetes"));
        let none = json!({});
        let bring = async |data: &Value| {
            kube.apply(SECRET, &secret(&cluster, "ca", &none, data))
                .await;
        };
        bring(&json!({"tls.crt": "not PEM", "tls.key": own.private})).await;
        cluster.create(kube).await;
        let key = "Secret bad-certs/bad-certs-ca: ";
        let words = [key, "tls.crt has nothing in PEM", "Correct it"];
        assert_eq!(says(host, &cluster, &words).await, 0);

        bring(&json!({"tls.crt": own.public, "tls.key": other.private})).await;
        let words = [key, "tls.key does not belong to tls.crt"];
        assert_eq!(says(host, &cluster, &words).await, 0);

        let foreign = json!({"cluster.x-k8s.io/cluster-name": "somebody-else"});
        let data = json!({"tls.crt": own.public, "tls.key": own.private});
        kube.apply(SECRET, &secret(&cluster, "ca", &foreign, &data))
            .await;
        let words = ["bad-certs-ca is labelled as another cluster's"];
        assert_eq!(says(host, &cluster, &words).await, 0);

        let gone = json!({"metadata": {"labels": null}});
        kube.merge(SECRET, &cluster.namespace, "bad-certs-ca", &gone)
            .await;
        cluster.available(host, 0).await;

        // Whoever damages one of a cluster that is up is told so before another machine depends on it.
        bring(&json!({"tls.crt": own.public, "tls.key": other.private})).await;
        let said = format!("{key}tls.key does not belong to tls.crt");
        comes_to_say(kube, &cluster, &said).await;
        bring(&data).await;

        // Once the cluster is up, an authority that is lost is not made anew: nobody would trust it.
        kube.delete(SECRET, &cluster.namespace, "bad-certs-etcd")
            .await;
        let said = "missing: bad-certs-etcd; put these Secrets back";
        comes_to_say(kube, &cluster, said).await;
        let name = cluster.control_plane();
        kube.scale(CONTROL_PLANE, &cluster.namespace, &name, 3)
            .await;
        eventually("no machine is made without it", PATIENCE, async || {
            let plane = kube.get(CONTROL_PLANE, &cluster.namespace, &name).await;
            let said = condition(&plane.unwrap(), "ScalingUp").message;
            said.contains("certificates are missing: bad-certs-etcd")
                .then_some(())
                .ok_or(said)
        })
        .await;
        assert_eq!(kube.list(MACHINE, &cluster.namespace).await.len(), 1);
        let etcd = kube.get(SECRET, &cluster.namespace, "bad-certs-etcd").await;
        assert_eq!(etcd, None);
        // What people brought stays theirs.
        kube.delete(CLUSTER, &cluster.namespace, &cluster.name)
            .await;
        eventually("the cluster is gone", PATIENCE, async || {
            let left = kube.list(MACHINE, &cluster.namespace).await.len();
            let left = left + kube.list(CLUSTER, &cluster.namespace).await.len();
            (left == 0).then_some(()).ok_or(format!("{left} objects"))
        })
        .await;
        let brought = kube.get(SECRET, &cluster.namespace, "bad-certs-ca").await;
        assert!(brought.is_some());
    });
}

/// The Secrets of an external etcd are watched over for as long as machines may join.
#[test]
fn an_external_etcds_secret_that_is_lost_is_named_and_nothing_joins_without_it() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let mut cluster = TestCluster::new("lost-etcd", "lost-etcd", 0);
        cluster.cluster_configuration = json!({"etcd": {"external": {
            "endpoints": ["https://10.0.0.9:2379"], "caFile": "/a", "certFile": "/b", "keyFile": "/c",
        }}});
        cluster.create(kube).await;
        let words = [
            "Secret lost-etcd/lost-etcd-etcd does not exist: create it with tls.crt",
            "Secret lost-etcd/lost-etcd-apiserver-etcd-client does not exist: create it with tls.crt and tls.key",
        ];
        assert_eq!(says(host, &cluster, &words).await, 0);
        let now = jiff::Timestamp::now();
        let ca = pki::certificate_authority("etcd", KeyAlgorithm::EcdsaP256, 0, now).unwrap();
        let client = pki::client_certificate(&ca, "apiserver", "etcd", now).unwrap();
        let none = json!({});
        for (purpose, data) in [
            ("etcd", json!({"tls.crt": ca.public})),
            (
                "apiserver-etcd-client",
                json!({"tls.crt": client.public, "tls.key": client.private}),
            ),
        ] {
            kube.apply(SECRET, &secret(&cluster, purpose, &none, &data))
                .await;
        }
        cluster.available(host, 0).await;
        let name = cluster.control_plane();
        let plane = kube.get(CONTROL_PLANE, &cluster.namespace, &name).await;
        let listed = plane.unwrap()["status"]["certificates"].to_string();
        for purpose in ["\"etcd\"", "\"apiserver-etcd-client\""] {
            assert!(listed.contains(purpose), "{purpose}: {listed}");
        }

        let lost = "lost-etcd-apiserver-etcd-client";
        kube.delete(SECRET, &cluster.namespace, lost).await;
        let said =
            format!("Secret lost-etcd/{lost} does not exist: create it with tls.crt and tls.key");
        comes_to_say(kube, &cluster, &said).await;
        kube.scale(CONTROL_PLANE, &cluster.namespace, &name, 3)
            .await;
        eventually("no machine is made without it", PATIENCE, async || {
            let plane = kube.get(CONTROL_PLANE, &cluster.namespace, &name).await;
            let message = condition(&plane.unwrap(), "ScalingUp").message;
            message.contains(&said).then_some(()).ok_or(message)
        })
        .await;
        assert_eq!(kube.list(MACHINE, &cluster.namespace).await.len(), 1);
        kube.delete(CLUSTER, &cluster.namespace, &cluster.name)
            .await;
    });
}

/// A Cluster whose endpoint leads to another one's API server has one machine and no more: nobody takes that server's word for it.
#[test]
fn an_endpoint_that_answers_with_another_clusters_authority_is_named_and_nothing_joins() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let other = TestCluster::new("right-end", "right-end", 0);
        other.create(kube).await;
        other.available(host, 0).await;
        let found = kube.get(CLUSTER, &other.namespace, &other.name).await;
        let endpoint = found.unwrap()["spec"]["controlPlaneEndpoint"].clone();
        let mut cluster = TestCluster::new("wrong-end", "wrong-end", 0);
        cluster.control_planes = 3;
        namespace(kube, &cluster.namespace).await;
        for (kind, mut object) in cluster.objects() {
            if kind == CLUSTER {
                object["spec"]["controlPlaneEndpoint"] = endpoint.clone();
            }
            kube.apply(kind, &object).await;
        }
        let said = format!(
            "the server at {}:{} shows a certificate that Secret wrong-end-ca does not vouch for: correct the Secret or \
             spec.controlPlaneEndpoint",
            endpoint["host"].as_str().unwrap(),
            endpoint["port"]
        );
        let name = cluster.control_plane();
        for (kind, name, type_) in [
            (CLUSTER, &cluster.name, "RemoteConnectionProbe"),
            (CONTROL_PLANE, &name, "ControlPlaneComponentsHealthy"),
        ] {
            eventually("it is said what is wrong", PATIENCE, async || {
                let object = kube.get(kind, &cluster.namespace, name).await;
                let object = object.ok_or("there is none")?;
                let condition = condition(&object, type_);
                (condition.status != "True" && condition.message.contains(&said))
                    .then_some(())
                    .ok_or(conditions(&object))
            })
            .await;
        }
        assert_eq!(kube.list(MACHINE, &cluster.namespace).await.len(), 1);
        let found = kube.get(CONTROL_PLANE, &cluster.namespace, &name).await;
        let status = &found.unwrap()["status"];
        assert_ne!(status["initialization"]["controlPlaneInitialized"], true);
        cluster.delete(host).await;
        other.available(host, 0).await;
        other.delete(host).await;
    });
}
