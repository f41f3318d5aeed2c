//! Bootstrap data in a whole host: who begins a cluster, what others must provide, and where private keys and tokens are seen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CLUSTER, Kind, Kube, LOCAL_CLUSTER, LOCAL_MACHINE, MACHINE, SECRET,
    condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

const EVENT: Kind = Kind {
    api_version: "v1",
    plural: "events",
    namespaced: true,
};

/// A Cluster without a control plane object: its machines are made by hand.
pub(crate) async fn bare_cluster(kube: &Kube, name: &str) {
    namespace(kube, name).await;
    let metadata = json!({"namespace": name, "name": name});
    let infra = json!({"apiVersion": LOCAL_CLUSTER.api_version, "kind": "LocalCluster", "metadata": metadata, "spec": {}});
    kube.apply(LOCAL_CLUSTER, &infra).await;
    let cluster = json!({
        "apiVersion": CLUSTER.api_version, "kind": "Cluster", "metadata": metadata,
        "spec": {"infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalCluster", "name": name}},
    });
    kube.apply(CLUSTER, &cluster).await;
}

/// A control-plane machine of that Cluster, made by hand: its config, its infrastructure, and the Machine.
pub(crate) fn hand_made(cluster: &str, name: &str, config: Value) -> [Value; 3] {
    let metadata = json!({"namespace": cluster, "name": name, "labels": {"cluster.x-k8s.io/control-plane": ""}});
    let own = json!({"namespace": cluster, "name": name});
    [
        json!({"apiVersion": BOOTSTRAP_CONFIG.api_version, "kind": "KubeadmConfig", "metadata": own, "spec": config}),
        json!({"apiVersion": LOCAL_MACHINE.api_version, "kind": "LocalMachine", "metadata": own, "spec": {"instanceType": "small"}}),
        json!({
            "apiVersion": MACHINE.api_version, "kind": "Machine", "metadata": metadata,
            "spec": {
                "clusterName": cluster, "version": VERSION_NEXT,
                "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfig", "name": name}},
                "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": name},
            },
        }),
    ]
}

/// The same, in the API server.
pub(crate) async fn machine(kube: &Kube, cluster: &str, name: &str, config: Value) {
    let [config, infra, machine] = hand_made(cluster, name, config);
    kube.apply(BOOTSTRAP_CONFIG, &config).await;
    kube.apply(LOCAL_MACHINE, &infra).await;
    kube.apply(MACHINE, &machine).await;
}

/// Waits until the config's data is not there for this reason, and answers the message.
async fn refused(kube: &Kube, cluster: &str, name: &str, reason: &str) -> String {
    let config = async || kube.get(BOOTSTRAP_CONFIG, cluster, name).await.unwrap();
    eventually(&format!("{name}: {reason}"), PATIENCE, async || {
        let config = config().await;
        (condition(&config, "DataSecretAvailable").reason == reason)
            .then_some(())
            .ok_or_else(|| conditions(&config))
    })
    .await;
    condition(&config().await, "DataSecretAvailable").message
}

/// Waits for the config's data, and answers the Secret.
pub(crate) async fn data(kube: &Kube, cluster: &str, name: &str) -> Value {
    eventually(&format!("data of {name}"), PATIENCE, async || {
        let config = kube.get(BOOTSTRAP_CONFIG, cluster, name).await.unwrap();
        let created = &config["status"]["initialization"]["dataSecretCreated"];
        (*created == true)
            .then_some(())
            .ok_or_else(|| conditions(&config))
    })
    .await;
    kube.get(SECRET, cluster, name).await.unwrap()
}

fn decoded(secret: &Value, key: &str) -> String {
    let bytes = BASE64
        .decode(secret["data"][key].as_str().unwrap())
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_external_etcd_waits_for_its_certificates_and_ignition_gets_them_whole() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        bare_cluster(kube, "outside").await;
        let config = json!({"format": "ignition", "clusterConfiguration": {"etcd": {"external": {
            "endpoints": ["https://10.0.0.9:2379"], "caFile": "/etc/etcd/ca.crt", "certFile": "/etc/etcd/client.crt", "keyFile": "/etc/etcd/client.key"
        }}}});
        machine(kube, "outside", "first", config).await;
        let message = refused(kube, "outside", "first", "SecretNotFound").await;
        assert!(message.contains("outside/outside-etcd"), "{message}");
        let key = "-----BEGIN EC PRIVATE KEY-----\nab+/==\n-----END EC PRIVATE KEY-----\n";
        for (purpose, content) in [
            ("etcd", json!({"tls.crt": "CA"})),
            (
                "apiserver-etcd-client",
                json!({"tls.crt": "CERT", "tls.key": key}),
            ),
        ] {
            let secret = json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": "outside", "name": format!("outside-{purpose}")}, "stringData": content});
            kube.apply(SECRET, &secret).await;
        }
        let secret = data(kube, "outside", "first").await;
        assert_eq!(decoded(&secret, "format"), "ignition");
        let ignition: Value = serde_json::from_str(&decoded(&secret, "value")).unwrap();
        let files = ignition["storage"]["files"].as_array().unwrap();
        let source = |path: &str| {
            let file = files.iter().find(|file| file["path"] == path).unwrap();
            file["contents"]["source"].as_str().unwrap().to_owned()
        };
        let encoded = |text: &str| format!("data:;base64,{}", BASE64.encode(text));
        assert_eq!(source("/etc/etcd/client.key"), encoded(key));
        let own = kube.get(SECRET, "outside", "outside-ca").await.unwrap();
        let private = decoded(&own, "tls.key");
        assert_eq!(source("/etc/kubernetes/pki/ca.key"), encoded(&private));
    });
}

/// What must not be seen: lines of keys, and tokens.
fn needles(secrets: &[Value]) -> Vec<String> {
    let mut needles = Vec::new();
    for secret in secrets {
        let fields = secret["data"].as_object().cloned().unwrap_or_default();
        for (key, value) in fields {
            let text = BASE64.decode(value.as_str().unwrap()).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            if key == "tls.key" {
                let lines = text.lines().filter(|line| !line.contains("-----"));
                needles.extend(lines.filter(|line| line.len() > 16).map(str::to_owned));
            } else if key == "token-secret" {
                needles.push(text);
            }
        }
    }
    needles
}

#[test]
fn private_keys_and_tokens_are_in_secrets_and_nowhere_else() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("hidden", "hidden", 1);
        cluster.create(host.kube()).await;
        cluster.available(host, 1).await;
        let mut secrets = host.kube().list(SECRET, "hidden").await;
        let workload = cluster.workload(host.kube()).await;
        let tokens = workload.list(SECRET, "kube-system").await;
        assert!(
            tokens
                .iter()
                .any(|secret| name(secret).starts_with("bootstrap-token-"))
        );
        secrets.extend(tokens);
        let needles = needles(&secrets);
        assert!(needles.len() > 8, "{}", needles.len());
        let mut places = vec![(
            "the host's log".to_owned(),
            std::fs::read_to_string(wasm::target_dir().join("test-logs/host-in-tests.log"))
                .unwrap(),
        )];
        let kinds = capstan_tests::kube_client::ALL.iter().chain([&EVENT]);
        for kind in kinds.filter(|kind| **kind != SECRET) {
            let objects = host.kube().list(*kind, "").await;
            places.push((kind.plural.to_owned(), Value::from(objects).to_string()));
        }
        for (place, text) in places {
            assert!(!text.is_empty(), "{place}");
            for needle in &needles {
                let encoded = BASE64.encode(needle);
                assert!(!text.contains(needle.as_str()), "a secret is in {place}");
                assert!(
                    !text.contains(&encoded),
                    "a secret is in {place}, as base64"
                );
            }
        }
    });
}
