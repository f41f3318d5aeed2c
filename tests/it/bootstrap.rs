//! Bootstrap data in a whole host: who begins a cluster, what others must provide, and where private keys and tokens are seen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT, namespace};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, BOOTSTRAP_TEMPLATE, CLUSTER, CONFIG_MAP, Kind, Kube, LOCAL_CLUSTER,
    LOCAL_MACHINE, MACHINE, SECRET, condition, conditions, name,
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

/// A control-plane machine without its infrastructure: it gets its data and never boots.
async fn without_infrastructure(kube: &Kube, cluster: &str, name: &str, config: Value) {
    let [config, _, machine] = hand_made(cluster, name, config);
    kube.apply(BOOTSTRAP_CONFIG, &config).await;
    kube.apply(MACHINE, &machine).await;
}

#[test]
fn the_lock_of_the_first_machine_names_it_and_passes_on() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        bare_cluster(kube, "locks").await;
        let plain = || json!({"format": "cloud-config"});
        let lock = async || kube.get(CONFIG_MAP, "locks", "locks-lock").await;
        let holder = |lock: &Value| -> Value {
            let text = lock["data"]["lock-information"].as_str().unwrap();
            serde_json::from_str(text).unwrap()
        };
        // Who cannot get its data lets go of it at once.
        let broken = json!({"files": [{"path": "/a", "contentFrom": {"secret": {"name": "none", "key": "k"}}}]});
        without_infrastructure(kube, "locks", "broken", broken).await;
        refused(kube, "locks", "broken", "SecretNotFound").await;
        without_infrastructure(kube, "locks", "held", plain()).await;
        data(kube, "locks", "held").await;
        let held = lock().await.unwrap();
        assert_eq!(holder(&held), json!({"machineName": "held"}));
        let cluster = kube.get(CLUSTER, "locks", "locks").await.unwrap();
        let owner = &held["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], cluster["metadata"]["uid"]);
        let labels = &held["metadata"]["labels"];
        assert_eq!(labels["cluster.x-k8s.io/cluster-name"], "locks");

        without_infrastructure(kube, "locks", "next", plain()).await;
        let said = "waiting for Machine held to become the first control-plane machine";
        eventually("the next one waits", PATIENCE, async || {
            let config = kube.get(BOOTSTRAP_CONFIG, "locks", "next").await.unwrap();
            let available = condition(&config, "DataSecretAvailable");
            (available.message == said)
                .then_some(())
                .ok_or_else(|| conditions(&config))
        })
        .await;
        kube.delete(MACHINE, "locks", "held").await;
        data(kube, "locks", "next").await;
        let passed_on = lock().await.unwrap();
        assert_eq!(holder(&passed_on), json!({"machineName": "next"}));
        kube.delete(CLUSTER, "locks", "locks").await;
    });
}

/// What must not be seen of Secrets: lines of keys, also of those that a rotation keeps, tokens, and what people put there for machines.
pub(crate) fn needles(secrets: &[Value]) -> Vec<String> {
    let mut needles = Vec::new();
    for secret in secrets {
        let fields = secret["data"].as_object().cloned().unwrap_or_default();
        for (key, value) in fields {
            let text = BASE64.decode(value.as_str().unwrap()).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            if ["tls.key", "rotation-old.key", "rotation-new.key"].contains(&key.as_str()) {
                let lines = text.lines().filter(|line| !line.contains("-----"));
                needles.extend(lines.filter(|line| line.len() > 16).map(str::to_owned));
            } else if ["token-secret", "file", "password"].contains(&key.as_str()) {
                needles.push(text);
            } else if key == "value" {
                needles.extend(report_token(&text));
            }
        }
    }
    needles
}

/// The token in a machine's data with which it may report.
fn report_token(data: &str) -> Option<String> {
    let yaml: Value = data
        .starts_with("#")
        .then(|| serde_saphyr::from_str(data).ok())??;
    let files = yaml["write_files"].as_array()?;
    let file = files.iter().find(|file| {
        let path = file["path"].as_str().unwrap_or_default();
        path.ends_with("/bootstrap-report.token")
    })?;
    let content = file["content"].as_str()?.trim();
    let decoded = BASE64.decode(content).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    Some(decoded.unwrap_or_else(|| content.to_owned()))
}

/// None of these is in the host's log or in any object that is no Secret.
pub(crate) async fn assert_hidden(host: &TestHost, needles: &[String]) {
    let mut places = vec![(
        "the host's log".to_owned(),
        std::fs::read_to_string(wasm::target_dir().join("test-logs/host-in-tests.log")).unwrap(),
    )];
    let kinds = capstan_tests::kube_client::ALL.iter().chain([&EVENT]);
    for kind in kinds.filter(|kind| **kind != SECRET) {
        let objects = host.kube().list(*kind, "").await;
        places.push((kind.plural.to_owned(), Value::from(objects).to_string()));
    }
    for (place, text) in places {
        assert!(!text.is_empty(), "{place}");
        for needle in needles {
            let encoded = BASE64.encode(needle);
            assert!(!text.contains(needle.as_str()), "a secret is in {place}");
            assert!(
                !text.contains(&encoded),
                "a secret is in {place}, as base64"
            );
        }
    }
}

/// A cluster whose workers have a file and a user's password from a Secret.
async fn with_own_secrets(kube: &Kube, cluster: &TestCluster) {
    let ns = &cluster.namespace;
    namespace(kube, ns).await;
    let own = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": ns, "name": "own"},
        "stringData": {"file": "a file that is nobody else's", "password": "$6$a-hash-that-is-nobodys-business"}});
    kube.apply(SECRET, &own).await;
    let from = |key: &str| json!({"secret": {"name": "own", "key": key}});
    for (kind, mut object) in cluster.objects() {
        if kind == BOOTSTRAP_TEMPLATE {
            let spec = &mut object["spec"]["template"]["spec"];
            spec["files"] = json!([{"path": "/etc/own", "contentFrom": from("file")}]);
            spec["users"] = json!([{"name": "somebody", "passwdFrom": from("password")}]);
        }
        kube.apply(kind, &object).await;
    }
}

#[test]
fn private_keys_and_tokens_are_in_secrets_and_nowhere_else() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("hidden", "hidden", 1);
        with_own_secrets(host.kube(), &cluster).await;
        cluster.available(host, 1).await;
        let mut secrets = host.kube().list(SECRET, "hidden").await;
        let workload = cluster.workload(host.kube()).await;
        let tokens = workload.list(SECRET, "kube-system").await;
        assert!(
            tokens
                .iter()
                .any(|secret| name(secret).starts_with("bootstrap-token-"))
        );
        let data = secrets
            .iter()
            .map(|secret| decoded_values(secret).join("\n"));
        let data = data.collect::<String>();
        assert!(data.contains("a file that is nobody else's") && data.contains("$6$a-hash"));
        secrets.extend(tokens);
        let needles = needles(&secrets);
        let reports = needles.iter().filter(|needle| {
            let (until, signature) = needle.split_once('.').unwrap_or_default();
            until.parse::<u64>().is_ok() && signature.len() == 64
        });
        assert_eq!(reports.count(), 2, "both machines may report");
        assert!(needles.len() > 8, "{}", needles.len());
        assert_hidden(host, &needles).await;
    });
}

/// All of a Secret, as text.
fn decoded_values(secret: &Value) -> Vec<String> {
    let fields = secret["data"].as_object().into_iter().flatten();
    let text = |(_, value): (&String, &Value)| {
        let bytes = BASE64.decode(value.as_str().unwrap()).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    fields.map(text).collect()
}

#[test]
fn a_machine_whose_join_token_is_gone_says_so() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("tokens", "tokens", 0);
        cluster.create(kube).await;
        cluster.available(host, 0).await;
        let ns = &cluster.namespace;
        // Without its infrastructure it never joins.
        let [config, _, mut machine] = hand_made(
            ns,
            "late",
            json!({"joinConfiguration": {"caCertPath": "/a"}}),
        );
        machine["metadata"]["labels"] = json!({});
        kube.apply(BOOTSTRAP_CONFIG, &config).await;
        kube.apply(MACHINE, &machine).await;
        let secret = data(kube, ns, "late").await;
        let id = secret["metadata"]["annotations"]["capstan.dev/join-token"]
            .as_str()
            .unwrap();
        let workload = cluster.workload(kube).await;
        workload
            .delete(SECRET, "kube-system", &format!("bootstrap-token-{id}"))
            .await;
        // A config that comes back, as after a move, is looked at at once.
        machine["spec"]["bootstrap"]["dataSecretName"] = json!("late");
        kube.apply(MACHINE, &machine).await;
        kube.delete(BOOTSTRAP_CONFIG, ns, "late").await;
        eventually("the Machine misses it", PATIENCE, async || {
            let machine = kube.get(MACHINE, ns, "late").await.unwrap();
            let ready = condition(&machine, "BootstrapConfigReady");
            (ready.reason == "ObjectDoesNotExist")
                .then_some(())
                .ok_or_else(|| conditions(&machine))
        })
        .await;
        kube.apply(BOOTSTRAP_CONFIG, &config).await;
        let message = refused(kube, ns, "late", "JoinTokenGone").await;
        assert!(
            message.contains(id) && message.contains("delete the Machine"),
            "{message}"
        );
        eventually("the Machine says so", PATIENCE, async || {
            let machine = kube.get(MACHINE, ns, "late").await.unwrap();
            let ready = condition(&machine, "BootstrapConfigReady");
            (ready.status == "False" && ready.message.contains(id))
                .then_some(())
                .ok_or_else(|| conditions(&machine))
        })
        .await;
        // And it is still said when the object is looked at for another reason.
        let report = json!({"phase": "kubeadm-join", "exitCode": 1, "time": "2026-01-01T00:00:00Z", "log": "x"});
        let mut told = config.clone();
        told["metadata"]["annotations"] =
            json!({"capstan.dev/bootstrap-report": report.to_string()});
        kube.apply(BOOTSTRAP_CONFIG, &told).await;
        eventually("the report is shown", PATIENCE, async || {
            let config = kube.get(BOOTSTRAP_CONFIG, ns, "late").await.unwrap();
            (condition(&config, "BootstrapSucceeded").status == "False")
                .then_some(())
                .ok_or_else(|| conditions(&config))
        })
        .await;
        let config = kube.get(BOOTSTRAP_CONFIG, ns, "late").await.unwrap();
        assert_eq!(
            condition(&config, "DataSecretAvailable").reason,
            "JoinTokenGone"
        );
        cluster.delete(host).await;
    });
}

#[test]
fn a_secret_that_does_not_fit_into_the_data_is_named() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        bare_cluster(kube, "unfit").await;
        let own = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "unfit", "name": "own"}, "data": {
            "binary": BASE64.encode([0xff, 0]), "bell": BASE64.encode("a\u{7}"), "large": BASE64.encode(vec![b'a'; 900_000]),
        }});
        kube.apply(SECRET, &own).await;
        let file = |key: &str, encoding: Option<&str>| {
            let mut file =
                json!({"path": "/a", "contentFrom": {"secret": {"name": "own", "key": key}}});
            if let Some(encoding) = encoding {
                file["encoding"] = json!(encoding);
            }
            json!({"files": [file]})
        };
        for (key, encoding, reason, says) in [
            (
                "binary",
                None,
                "SecretNotText",
                "Secret unfit/own, key binary, is not text",
            ),
            (
                "bell",
                None,
                "SecretNotText",
                "Secret unfit/own, key bell, has control characters",
            ),
            (
                "large",
                Some("gzip"),
                "BootstrapDataTooLarge",
                "Secret unfit/own, key large (900000 bytes)",
            ),
        ] {
            without_infrastructure(kube, "unfit", key, file(key, encoding)).await;
            let message = refused(kube, "unfit", key, reason).await;
            assert!(message.contains(says), "{message}");
        }
        // What is said to do helps.
        without_infrastructure(kube, "unfit", "zipped", file("binary", Some("gzip"))).await;
        data(kube, "unfit", "zipped").await;
        kube.delete(CLUSTER, "unfit", "unfit").await;
    });
}
