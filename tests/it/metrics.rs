//! What a running host measures of clusters: when certificates end, with a control plane object or without, and how its members of etcd are.

use capstan_controllers::pki;
use capstan_core::material::KeyAlgorithm;
use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CONTROL_PLANE, Kube, MACHINE, SECRET, name};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::json;

/// A Cluster without a control plane object, with the authority that somebody brings for it.
async fn alone(kube: &Kube) -> TestCluster {
    let cluster = TestCluster::new("measured-alone", "alone", 0);
    cluster.create_alone(kube).await;
    let now = jiff::Timestamp::now();
    let etcd = pki::certificate_authority("etcd", KeyAlgorithm::EcdsaP256, 0, now).unwrap();
    let client = pki::client_certificate(&etcd, "client", "users", now).unwrap();
    for (purpose, data) in [
        ("etcd", json!({"tls.crt": etcd.public})),
        (
            "apiserver-etcd-client",
            json!({"tls.crt": client.public, "tls.key": client.private}),
        ),
    ] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {
                "namespace": cluster.namespace, "name": format!("alone-{purpose}"),
                "labels": {"cluster.x-k8s.io/cluster-name": "alone"},
            },
            "stringData": data,
        });
        kube.apply(SECRET, &secret).await;
    }
    // With this one its kubeconfig is made, and all of them are seen.
    cluster.bring_authority(kube).await;
    cluster
}

/// The value of the line with this name and these labels.
fn value(text: &str, metric: &str, labels: &str) -> Option<f64> {
    let begin = format!("{metric}{{{labels}}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin))?;
    line.parse().ok()
}

/// Scrapes until each of these lines is there, while the control plane is looked at again and again, and answers the last text.
async fn comes_to_serve(host: &TestHost, cluster: &TestCluster, lines: &[(&str, &str)]) -> String {
    let mut looks = 0;
    eventually("the metrics are served", PATIENCE, async || {
        looks += 1;
        let look = json!({"metadata": {"annotations": {"test/look": looks.to_string()}}});
        let plane = cluster.control_plane();
        host.kube()
            .merge(CONTROL_PLANE, &cluster.namespace, &plane, &look)
            .await;
        let text = host.metrics()?;
        let mut lines = lines.iter();
        match lines.find(|(metric, labels)| value(&text, metric, labels).is_none()) {
            Some((metric, labels)) => Err(format!("no {metric}{{{labels}}} in {text}")),
            None => Ok(text),
        }
    })
    .await
}

#[test]
fn the_ends_of_all_certificates_and_the_state_of_each_etcd_are_in_the_metrics() {
    run(async {
        let mut host = TestHost::without_host().await;
        host.runs_with("host", &["--bootstrap-report-listen=127.0.0.1:0"]);
        host.plugins_ready().await;
        let cluster = TestCluster::new("measured", "measured", 0);
        cluster.create(host.kube()).await;
        let alone = alone(host.kube()).await;
        cluster.available(&host, 0).await;

        let ends = "capstan_certificate_expiration_timestamp_seconds";
        let of = |cluster: &str, plane: &str, certificate: &str| {
            let namespace = format!("measured{}", if plane.is_empty() { "-alone" } else { "" });
            format!(
                "namespace=\"{namespace}\",cluster=\"{cluster}\",control_plane=\"{plane}\",certificate=\"{certificate}\""
            )
        };
        let of_host = |certificate: &str| {
            format!(
                "namespace=\"capstan-system\",cluster=\"\",control_plane=\"\",certificate=\"{certificate}\""
            )
        };
        let machines = host.kube().list(MACHINE, &cluster.namespace).await;
        let server = format!("apiserver of {}", name(&machines[0]));
        let own = of("measured", "", "host-etcd-client").replace("measured-alone", "measured");
        let certificates = [
            of("measured", "measured-cp", "ca"),
            of("measured", "measured-cp", "etcd"),
            of("measured", "measured-cp", "proxy"),
            of("measured", "measured-cp", "kubeconfig"),
            of("measured", "measured-cp", &server),
            of("alone", "", "ca"),
            of("alone", "", "etcd"),
            of("alone", "", "apiserver-etcd-client"),
            of("alone", "", "kubeconfig"),
            own,
            of_host("bootstrap-report-ca"),
            of_host("bootstrap-report"),
        ];
        let node = machines[0]["status"]["nodeRef"]["name"].as_str().unwrap();
        let member = format!("namespace=\"measured\",cluster=\"measured\",member=\"{node}\"");
        let sizes = [
            "capstan_etcd_member_database_bytes",
            "capstan_etcd_member_database_in_use_bytes",
            "capstan_etcd_member_database_quota_bytes",
        ];
        let lines: Vec<(&str, &str)> = certificates
            .iter()
            .map(|labels| (ends, labels.as_str()))
            .chain(sizes.map(|metric| (metric, member.as_str())))
            .collect();
        let text = comes_to_serve(&host, &cluster, &lines).await;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let now = jiff::Timestamp::now().as_second() as f64;
        for labels in &certificates {
            let end = value(&text, ends, labels).unwrap();
            assert!(end > now, "{labels}: {end}");
        }
        let [size, used, quota] = sizes.map(|metric| value(&text, metric, &member).unwrap());
        assert!(0.0 < used && used <= size && size < quota, "{text}");

        let alarm = format!("{member},alarm=\"NOSPACE\"");
        let alarms = "capstan_etcd_member_alarm";
        assert_eq!(value(&text, alarms, &alarm), None);
        let id = control_plane::instance(&host, &cluster, &name(&machines[0])).await;
        host.cloud.act(&id, "fill-disk").await;
        let text = comes_to_serve(&host, &cluster, &[(alarms, &alarm)]).await;
        assert_eq!(value(&text, alarms, &alarm), Some(1.0));
        host.cloud.act(&id, "free-disk").await;

        // What people brought stays theirs.
        for purpose in ["ca", "etcd", "apiserver-etcd-client"] {
            let secret = format!("alone-{purpose}");
            host.kube().delete(SECRET, &alone.namespace, &secret).await;
        }
        alone.delete(&host).await;
        let text = host.metrics().unwrap();
        assert_eq!(value(&text, ends, &of("alone", "", "ca")), None, "{text}");
        cluster.delete(&host).await;
    });
}
