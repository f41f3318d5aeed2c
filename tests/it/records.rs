//! Records: a host that keeps them writes the calls of what asks for it, without a secret; they are made again without a cluster, and
//! are golden tests of the next build.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::{TestCluster, namespace};
use capstan_tests::host::{NAMESPACE, TestHost};
use capstan_tests::kube_client::{LOCAL_CLUSTER, PLUGIN, SECRET};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

const OWN: &str = "recorded";

/// Records of a plugin's function.
fn of(dir: &Path, plugin: &str, function: &str) -> Vec<(PathBuf, Value)> {
    let wanted = format!("-{plugin}-{function}.json");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(&wanted))
        .collect();
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read(&path).unwrap();
        (path, serde_json::from_slice(&text).unwrap())
    };
    found.into_iter().map(read).collect()
}

/// `capstan plugin` without anything around it: no cluster, no network to speak of.
fn plugin(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(wasm::program())
        .arg("plugin")
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env(
            "XDG_CACHE_HOME",
            wasm::target_dir().join("plugin-test-cache"),
        )
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

/// What nobody else may see of a Secret's text: the lines of private keys, keys in kubeconfigs, tokens that machines join with.
fn secrets_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_key = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----") {
            is_key = line.starts_with("-----BEGIN") && line.contains("PRIVATE KEY");
        } else if is_key {
            found.push(line.to_owned());
        } else if let Some((_, key)) = line.split_once("client-key-data: ") {
            found.push(key.to_owned());
        }
    }
    let is_token = |word: &&str| {
        let fits = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        word.len() == 23
            && word
                .split_once('.')
                .is_some_and(|(id, rest)| id.len() == 6 && fits(id) && fits(rest))
    };
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    found.extend(words.filter(is_token).map(str::to_owned));
    found
}

fn component(package: &str) -> String {
    let file = format!("wasm32-wasip2/plugin/{}.wasm", package.replace('-', "_"));
    wasm::target_dir().join(file).to_str().unwrap().to_owned()
}

#[test]
fn what_a_running_host_records_is_replayed_without_a_cluster_and_has_no_secret() {
    run(async {
        let mut host = TestHost::without_host().await;
        let dir = host.plane.dir().join("records");
        let more = ["--record-dir", dir.to_str().unwrap()];
        host.runs_with("recording", &more);
        host.plugins_ready().await;
        let kube = host.kube().clone();
        // One Plugin asks for all of its calls; of the others only an object that asks.
        let asks = json!({"metadata": {"annotations": {"capstan.dev/record": "true"}}});
        kube.merge(PLUGIN, NAMESPACE, "bootstrap-kubeadm", &asks)
            .await;
        // It asks from its first call on: of a cluster that has become ready there may be no more calls.
        let cluster = TestCluster::new(OWN, "kept", 1);
        namespace(&kube, OWN).await;
        for (kind, mut object) in cluster.objects() {
            if kind == LOCAL_CLUSTER {
                object["metadata"]["annotations"] = asks["metadata"]["annotations"].clone();
            }
            kube.apply(kind, &object).await;
        }
        cluster.available(&host, 1).await;

        let (renders, clusters) = eventually("calls are recorded", PATIENCE, async || {
            let renders = of(&dir, "bootstrap-kubeadm", "render");
            let clusters = of(&dir, "infrastructure-local", "ensure-cluster");
            let has_both = renders.len() >= 2 && !clusters.is_empty();
            let count = format!("{} and {}", renders.len(), clusters.len());
            has_both.then_some((renders, clusters)).ok_or(count)
        })
        .await;
        host.kill();
        assert!(of(&dir, "infrastructure-local", "ensure-machine").is_empty());
        let with_request = clusters.iter().find(|(_, record)| {
            let imports = record["imports"].as_array().unwrap();
            imports
                .iter()
                .any(|exchange| exchange["import"] == "http.send")
        });
        assert!(with_request.is_some(), "{clusters:?}");

        let mut hidden = vec![host.cloud.access().token.clone()];
        let mut keys = 0;
        for secret in kube.list(SECRET, OWN).await {
            for value in secret["data"].as_object().unwrap().values() {
                let bytes = BASE64.decode(value.as_str().unwrap()).unwrap();
                let text = String::from_utf8(bytes).unwrap();
                keys += text.matches("PRIVATE KEY-----\n").count();
                hidden.extend(secrets_in(&text));
            }
        }
        assert!(
            keys >= 4 && hidden.iter().any(|secret| secret.len() == 23),
            "{keys} {hidden:?}"
        );
        for (path, record) in renders.iter().chain(&clusters) {
            let text = record.to_string();
            for secret in &hidden {
                for form in [secret.clone(), BASE64.encode(secret)] {
                    assert!(!text.contains(&form), "{}: {form}", path.display());
                }
            }
        }

        // On a laptop: the records and the component, and nothing else.
        let golden = dir.join("golden");
        std::fs::create_dir(&golden).unwrap();
        for (path, record) in &renders {
            assert!(record["outcome"]["answer"].get("Ok").is_some(), "{record}");
            std::fs::copy(path, golden.join(path.file_name().unwrap())).unwrap();
        }
        let rendering = component("bootstrap-kubeadm");
        let (code, said) = plugin(&["test", golden.to_str().unwrap(), "--plugin", &rendering]);
        assert_eq!(code, 0, "{said}");
        let (path, record) = with_request.unwrap();
        let making = component("infrastructure-local");
        let file = path.to_str().unwrap();
        let (code, said) = plugin(&["replay", file, "--plugin", &making, "-o", "json"]);
        assert_eq!(code, 0, "{said}");
        let again: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&again["same"], &again["sameDigest"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(again["outcome"]["answer"], record["outcome"]["answer"]);
        assert!(record["callId"].is_string(), "{record}");
    });
}
