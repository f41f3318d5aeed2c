//! Components from several ConfigMaps, from files and from registries, and what a host does that requires signatures.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_engine::{SignaturePolicy, SourceOptions};
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::kube_client::{CONFIG_MAP, Kube, PLUGIN, SECRET, condition, conditions};
use capstan_tests::registry::Registry;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

fn part(place: usize, count: usize, bytes: &[u8]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": NAMESPACE, "name": format!("upgrade-parts-{place}"), "labels": {
            "capstan.dev/plugin": "upgrade-parts",
            "capstan.dev/plugin-part": place.to_string(),
            "capstan.dev/plugin-parts": count.to_string(),
        }},
        "binaryData": {"part": BASE64.encode(bytes)},
    })
}

#[test]
fn a_component_in_parts_is_loaded_when_all_are_there() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let packed = wasm::zstd(&wasm::component("upgrade-on-delete"));
        let parts: Vec<&[u8]> = packed.chunks(packed.len().div_ceil(3)).collect();
        for place in [2, 0] {
            kube.apply(CONFIG_MAP, &part(place, 3, parts[place])).await;
        }
        eventually("the missing part is named", PATIENCE, async || {
            let object = plugin(kube, "upgrade-parts").await.ok_or("no Plugin")?;
            let verified = condition(&object, "Verified");
            let is_said =
                verified.status == "False" && verified.message.contains("parts 0, 2 of 3");
            is_said.then_some(()).ok_or(conditions(&object))
        })
        .await;
        kube.apply(CONFIG_MAP, &part(1, 3, parts[1])).await;
        host.plugin_ready("upgrade-parts").await;
        for place in 0..3 {
            let name = format!("upgrade-parts-{place}");
            kube.delete(CONFIG_MAP, NAMESPACE, &name).await;
        }
        kube.delete(PLUGIN, NAMESPACE, "upgrade-parts").await;
    });
}

async fn verified(kube: &Kube, name: &str, status: &str, words: &str) -> Value {
    let what = format!("{name} is Verified={status} with {words:?}");
    eventually(&what, PATIENCE, async || {
        let object = plugin(kube, name).await.ok_or("no Plugin")?;
        let found = condition(&object, "Verified");
        let is_so = found.status == status && found.message.contains(words);
        is_so.then_some(object.clone()).ok_or(conditions(&object))
    })
    .await
}

#[test]
fn a_host_that_requires_signatures_loads_files_and_maps_that_are_signed() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut host = TestHost::without_host().await;
        host.run_with_sources(SourceOptions {
            directory: Some(dir.path().to_owned()),
            policy: SignaturePolicy::Require,
        })
        .await;
        let kube = host.kube();
        let component = wasm::component("upgrade-on-delete");
        std::fs::write(dir.path().join("strategy.wasm"), &component).unwrap();
        let object = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": "from-file"},
            "spec": {"source": {"file": {"path": "strategy.wasm"}}},
        });
        kube.apply(PLUGIN, &object).await;
        verified(kube, "from-file", "False", "no keys").await;

        let key = KeyPair::generate().unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"namespace": NAMESPACE, "name": "release-key", "labels": {"capstan.dev/signing-key": ""}},
            "data": {"release.pub": BASE64.encode(key.public_key_pem())},
        });
        kube.apply(SECRET, &secret).await;
        verified(kube, "from-file", "False", "there is no signature").await;

        // A signature of another component does not count.
        let signature = |bytes: &[u8]| BASE64.encode(key.sign(bytes).unwrap());
        host.put_plugin("from-map", &wasm::gzip(&component)).await;
        let annotate = async |signature: String| {
            let patch = json!({"metadata": {"annotations": {"capstan.dev/signature": signature}}});
            kube.merge(CONFIG_MAP, NAMESPACE, "from-map", &patch).await;
        };
        annotate(signature(b"another component")).await;
        verified(kube, "from-map", "False", "none of its 1 signatures").await;
        annotate(signature(&component)).await;
        let object = verified(kube, "from-map", "True", "").await;
        let by = object["status"]["source"]["signedBy"]
            .as_str()
            .unwrap_or_default();
        assert!(by.contains("release.pub of Secret release-key"), "{object}");

        // A key that is taken away takes what was signed with it away, and nobody starts the host again for that.
        host.plugin_ready("from-map").await;
        let label =
            |value: Value| json!({"metadata": {"labels": {"capstan.dev/signing-key": value}}});
        kube.merge(SECRET, NAMESPACE, "release-key", &label(Value::Null))
            .await;
        let object = verified(kube, "from-map", "False", "no keys").await;
        assert_eq!(condition(&object, "Ready").status, "False", "{object}");
        assert!(object["status"].get("activeDigest").is_none(), "{object}");
        kube.merge(SECRET, NAMESPACE, "release-key", &label(json!("")))
            .await;
        host.plugin_ready("from-map").await;
        // Another key in the same Secret is another key.
        let other = KeyPair::generate().unwrap();
        let data = |pem: String| json!({"data": {"release.pub": BASE64.encode(pem)}});
        kube.merge(
            SECRET,
            NAMESPACE,
            "release-key",
            &data(other.public_key_pem()),
        )
        .await;
        let object = verified(kube, "from-map", "False", "none of its 1 signatures").await;
        assert_eq!(condition(&object, "Ready").status, "False", "{object}");
        kube.merge(
            SECRET,
            NAMESPACE,
            "release-key",
            &data(key.public_key_pem()),
        )
        .await;
        host.plugin_ready("from-map").await;

        std::fs::write(dir.path().join("strategy.wasm.sig"), signature(&component)).unwrap();
        let object = verified(kube, "from-file", "True", "").await;
        assert_eq!(condition(&object, "Compiled").status, "True");

        // A path that leads out of the directory is no component.
        let outside = json!({"spec": {"source": {"file": {"path": "../../etc/hostname"}}}});
        kube.merge(PLUGIN, NAMESPACE, "from-file", &outside).await;
        verified(kube, "from-file", "False", "not a path below").await;
    });
}

/// Pushes a plugin's component as its author would, and gives what the program says of it.
async fn push(registry: &Registry, plugin: &str, reference: &str, more: &[&str]) -> Value {
    let file = registry.home().join(format!("{plugin}.wasm"));
    std::fs::write(&file, wasm::component(plugin)).unwrap();
    let pushed = Command::new(wasm::program())
        .args([
            "plugin",
            "push",
            file.to_str().unwrap(),
            reference,
            "-o",
            "json",
        ])
        .arg("--cache-dir")
        .arg(registry.home().join("plugins"))
        .args(more)
        .output()
        .await
        .unwrap();
    let words = String::from_utf8_lossy(&pushed.stderr);
    assert!(pushed.status.success(), "{words}");
    serde_json::from_slice(&pushed.stdout).unwrap()
}

#[test]
fn a_component_is_pulled_from_a_registry_by_tag_and_by_digest() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let registry = Registry::start().await;
        let ca = registry.file("ca.pem", registry.ca_pem());
        let login = registry.file("login.json", &registry.login());
        let more = [
            "--ca",
            ca.to_str().unwrap(),
            "--login",
            login.to_str().unwrap(),
        ];
        let tagged = registry.reference("team/strategy:1.0");
        let first = push(&registry, "upgrade-on-delete", &tagged, &more).await;

        // Neither the authority nor the login: each is asked for by name.
        let object = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": "from-registry"},
            "spec": {"source": {"oci": {"image": tagged}}},
        });
        kube.apply(PLUGIN, &object).await;
        verified(kube, "from-registry", "False", "certificate").await;
        let source = |fields: Value| json!({"spec": {"source": {"oci": fields}}});
        let change = async |fields: Value| {
            kube.merge(PLUGIN, NAMESPACE, "from-registry", &source(fields))
                .await;
        };
        change(json!({"caBundle": registry.ca_pem()})).await;
        verified(kube, "from-registry", "False", "wants a login").await;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"namespace": NAMESPACE, "name": "registry-login"},
            "data": {".dockerconfigjson": BASE64.encode(registry.login())},
        });
        kube.apply(SECRET, &secret).await;
        change(json!({"pullSecret": "registry-login"})).await;
        host.plugin_ready("from-registry").await;
        let object = verified(kube, "from-registry", "True", "").await;
        let status = &object["status"]["source"];
        assert_eq!(status["resolved"], first["pinned"], "{status}");
        assert_eq!(
            object["status"]["observedDigest"], first["digest"],
            "{object}"
        );

        // The tag is given to another component; by digest it is had at once, and the old one still is.
        let second = push(&registry, "upgrade-rolling-update", &tagged, &more).await;
        assert_ne!(first["manifestDigest"], second["manifestDigest"]);
        for wanted in [&second, &first] {
            change(json!({"image": wanted["pinned"]})).await;
            let what = format!("{} is loaded", wanted["pinned"]);
            eventually(&what, PATIENCE, async || {
                let object = plugin(kube, "from-registry").await.ok_or("no Plugin")?;
                let is_loaded = object["status"]["observedDigest"] == wanted["digest"]
                    && condition(&object, "Compiled").status == "True";
                is_loaded.then_some(()).ok_or(conditions(&object))
            })
            .await;
        }
        // What is not there is said, and the component that works stays.
        change(json!({"image": registry.reference("team/strategy:none")})).await;
        let object = verified(kube, "from-registry", "False", "there is no").await;
        assert_eq!(condition(&object, "Ready").status, "True", "{object}");
        kube.delete(PLUGIN, NAMESPACE, "from-registry").await;
        kube.delete(SECRET, NAMESPACE, "registry-login").await;
    });
}

/// More than the controller of Plugins looks at at the same time.
const HANGING: usize = 20;

#[test]
fn a_registry_that_hangs_keeps_no_other_plugin_waiting_and_is_left_alone_when_it_is_down() {
    run(async {
        let host = TestHost::start().await;
        let kube = host.kube();
        // It takes connections and says nothing.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let place = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&open);
        let hangs = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                kept.lock().unwrap().push(stream);
            }
        });
        let name = |number: usize| format!("hanging-{number}");
        for number in 0..HANGING {
            let image = format!("{place}/team/{}:1", name(number));
            let object = json!({
                "apiVersion": PLUGIN.api_version, "kind": "Plugin",
                "metadata": {"namespace": NAMESPACE, "name": name(number)},
                "spec": {"source": {"oci": {"image": image, "plainHTTP": true}}},
            });
            kube.apply(PLUGIN, &object).await;
        }
        for number in 0..HANGING {
            let words = format!("registry {place} is asked what");
            let object = verified(kube, &name(number), "Unknown", &words).await;
            assert_eq!(condition(&object, "Verified").reason, "Loading");
        }
        let component = wasm::gzip(&wasm::component("minimal-upgrade-strategy"));
        host.put_plugin("beside-hanging", &component).await;
        host.plugin_ready("beside-hanging").await;
        // All the others still wait, for the answers to two questions.
        assert_eq!(open.lock().unwrap().len(), 2);

        // It is down: that is said of each, with when it is asked again.
        hangs.abort();
        let _ = hangs.await;
        open.lock().unwrap().clear();
        for number in 0..HANGING {
            let object = verified(kube, &name(number), "False", "; tried again at 2").await;
            let reason = condition(&object, "Verified").reason;
            assert_eq!(reason, "SourceUnavailable", "{object}");
        }
    });
}

#[test]
fn a_registry_without_tls_is_used_only_where_that_is_said() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let registry = Registry::start_plain().await;
        let tagged = registry.reference("strategy:dev");
        let pushed = push(&registry, "upgrade-on-delete", &tagged, &["--plain-http"]).await;
        let object = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": "from-plain-registry"},
            "spec": {"source": {"oci": {"image": tagged}}},
        });
        kube.apply(PLUGIN, &object).await;
        verified(kube, "from-plain-registry", "False", "").await;
        let plain = json!({"spec": {"source": {"oci": {"plainHTTP": true}}}});
        kube.merge(PLUGIN, NAMESPACE, "from-plain-registry", &plain)
            .await;
        host.plugin_ready("from-plain-registry").await;
        let object = verified(kube, "from-plain-registry", "True", "").await;
        assert_eq!(object["status"]["observedDigest"], pushed["digest"]);
        kube.delete(PLUGIN, NAMESPACE, "from-plain-registry").await;
    });
}
