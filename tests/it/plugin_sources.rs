//! Components from several ConfigMaps and from files, and what a host does that requires signatures.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_engine::{SignaturePolicy, SourceOptions};
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::kube_client::{CONFIG_MAP, Kube, PLUGIN, SECRET, condition, conditions};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};

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

        std::fs::write(dir.path().join("strategy.wasm.sig"), signature(&component)).unwrap();
        let object = verified(kube, "from-file", "True", "").await;
        assert_eq!(condition(&object, "Compiled").status, "True");

        // A path that leads out of the directory is no component.
        let outside = json!({"spec": {"source": {"file": {"path": "../../etc/hostname"}}}});
        kube.merge(PLUGIN, NAMESPACE, "from-file", &outside).await;
        verified(kube, "from-file", "False", "not a path below").await;
    });
}
