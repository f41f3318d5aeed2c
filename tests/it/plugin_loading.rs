//! Components that cannot be plugins say so in a condition and disturb nobody; one that goes away and comes back loses nothing.

use capstan_tests::cluster::TestCluster;
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::kube_client::Kind;
use capstan_tests::kube_client::{
    CONFIG_MAP, LOCAL_MACHINE, MACHINE, MACHINE_DEPLOYMENT, PLUGIN, condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

const CRD: Kind = Kind {
    api_version: "apiextensions.k8s.io/v1",
    plural: "customresourcedefinitions",
    namespaced: false,
};

/// A bad component, and the words by which its condition names what is wrong.
struct Bad {
    name: &'static str,
    source: Vec<u8>,
    condition: &'static str,
    says: &'static str,
}

fn bad(name: &'static str, source: Vec<u8>, condition: &'static str, says: &'static str) -> Bad {
    Bad {
        name,
        source,
        condition,
        says,
    }
}

/// A valid component made 20 MB long by a section that means nothing.
fn twenty_megabytes() -> Vec<u8> {
    let mut bytes = wasm::component("engine-probe");
    let content: u32 = 20_000_000;
    bytes.push(0);
    let mut rest = content + 2;
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes.extend([1, b'x']);
    bytes.resize(bytes.len() + usize::try_from(content).unwrap(), 0);
    bytes
}

/// Native code as the engine's own compiler makes it.
fn native_code() -> Vec<u8> {
    let dir = wasm::target_dir().join("kit-plugin-cache");
    let files = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let native = files
        .filter(|path| path.extension().is_some_and(|e| e == "cwasm"))
        .min();
    let bytes = std::fs::read(native.unwrap()).unwrap();
    let magic = bytes
        .windows(4)
        .position(|bytes| bytes == b"\x7fELF")
        .unwrap();
    bytes[magic..].to_vec()
}

fn bad_components() -> Vec<Bad> {
    let probe = wasm::component("engine-probe");
    let truncated = wasm::gzip(&probe[..probe.len() / 2]);
    let unknown = wasm::patched(&probe, "capstan:plugin/state@", "capstan:plugin/stale@");
    let second = wasm::component("infrastructure-local");
    let invalid = wasm::probe_with_manifest("names");
    let traps = wasm::probe_with_manifest("traps");
    vec![
        bad(
            "bad-not-wasm",
            b"#!/bin/sh\n".to_vec(),
            "Verified",
            "not a WebAssembly component",
        ),
        bad("bad-truncated", truncated, "Verified", "truncated"),
        bad(
            "bad-huge",
            wasm::zstd(&twenty_megabytes()),
            "Verified",
            "unpacks to more than",
        ),
        bad(
            "bad-module",
            b"\0asm\x01\0\0\0".to_vec(),
            "Verified",
            "core WebAssembly module",
        ),
        bad(
            "bad-native",
            wasm::gzip(&native_code()),
            "Verified",
            "precompiled native code",
        ),
        bad(
            "bad-import",
            wasm::gzip(&unknown),
            "Compatible",
            "capstan:plugin/stale@0.1.0",
        ),
        bad(
            "bad-manifest",
            wasm::gzip(&invalid),
            "Compatible",
            "manifest is not valid: name",
        ),
        bad(
            "bad-second",
            wasm::gzip(&second),
            "Compatible",
            "infrastructure-local",
        ),
        bad(
            "bad-trap",
            wasm::gzip(&traps),
            "Compatible",
            "no manifest today",
        ),
    ]
}

#[test]
fn bad_components_say_what_is_wrong_and_disturb_nobody() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let bads = bad_components();
        for bad in &bads {
            host.put_plugin(bad.name, &bad.source).await;
        }
        for bad in &bads {
            let what = format!("{} is refused with a sentence", bad.name);
            let object: Value = eventually(&what, PATIENCE, async || {
                let object = plugin(kube, bad.name)
                    .await
                    .ok_or("there is no Plugin object")?;
                let found = condition(&object, bad.condition);
                let is_said = found.status == "False" && found.message.contains(bad.says);
                is_said.then_some(object.clone()).ok_or(conditions(&object))
            })
            .await;
            assert_eq!(
                condition(&object, "Ready").status,
                "False",
                "{}",
                conditions(&object)
            );
        }
        host.plugins_ready().await;
        let cluster = TestCluster::new("undisturbed", "undisturbed", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        cluster.delete(host).await;
        for bad in &bads {
            kube.delete(CONFIG_MAP, NAMESPACE, bad.name).await;
            kube.delete(PLUGIN, NAMESPACE, bad.name).await;
        }
    });
}

/// A definition of this name as other software installs it.
fn somebody_elses(plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": CRD.api_version, "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.infrastructure.cluster.x-k8s.io")},
        "spec": {
            "group": "infrastructure.cluster.x-k8s.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1beta2", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "description": "As its owner wants it."}},
            }],
        },
    })
}

#[test]
fn definitions_of_others_stay_as_they_are_until_the_operator_gives_them_away() {
    const NAME: &str = "infrastructure-misbehave";
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let theirs = somebody_elses("misbehavingmachines", "MisbehavingMachine");
        let crd = theirs["metadata"]["name"].as_str().unwrap().to_owned();
        kube.apply(CRD, &theirs).await;
        host.put_plugin(NAME, &wasm::gzip(&wasm::component("misbehave")))
            .await;
        let object: Value = eventually("it is refused", PATIENCE, async || {
            let object = plugin(kube, NAME).await.ok_or("there is no Plugin")?;
            let compatible = condition(&object, "Compatible");
            (compatible.reason == "KindConflict")
                .then_some(object.clone())
                .ok_or(conditions(&object))
        })
        .await;
        let said = condition(&object, "Compatible").message;
        for words in [
            &*crd,
            "was not installed by this host",
            "capstan.dev/replaces-definitions",
        ] {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(condition(&object, "Ready").status, "False");
        let now = kube.get(CRD, "", &crd).await.unwrap();
        assert_eq!(now["metadata"]["generation"], 1, "it was never changed");
        assert!(now["metadata"].get("labels").is_none(), "{now}");
        let given = json!({"metadata": {"annotations": {"capstan.dev/replaces-definitions": format!("other.example.com, {crd}")}}});
        kube.merge(PLUGIN, NAMESPACE, NAME, &given).await;
        host.plugin_ready(NAME).await;
        let now = kube.get(CRD, "", &crd).await.unwrap();
        assert_eq!(now["metadata"]["labels"]["cluster.x-k8s.io/provider"], NAME);
        host.remove_plugin(NAME).await;
        kube.delete(PLUGIN, NAMESPACE, NAME).await;
    });
}

#[test]
fn a_kind_stays_with_its_first_owner_also_when_that_does_not_answer_after_a_restart() {
    const SECOND: &str = "a-second-owner";
    const OWNER: &str = "infrastructure-local";
    run(async {
        let mut host = TestHost::start().await;
        let second = wasm::gzip(&wasm::component("second-owner"));
        host.put_plugin(SECOND, &second).await;
        let refused = async |host: &TestHost, generation: i64| {
            eventually("the second is refused", PATIENCE, async || {
                let object = plugin(host.kube(), SECOND).await.ok_or("no Plugin")?;
                let compatible = condition(&object, "Compatible");
                let is_refused = compatible.reason == "KindConflict"
                    && compatible.message.contains("plugin infrastructure-local")
                    && object["status"]["observedGeneration"].as_i64() >= Some(generation);
                is_refused.then_some(()).ok_or(conditions(&object))
            })
            .await;
            let object = plugin(host.kube(), SECOND).await.unwrap();
            assert_eq!(condition(&object, "Ready").status, "False");
            assert!(object["status"].get("kinds").is_none(), "{object}");
        };
        refused(&host, 0).await;
        // The owner will not answer, so that whoever comes could have the kind.
        let suspend = |suspend: bool| json!({"spec": {"suspend": suspend}});
        host.kube()
            .merge(PLUGIN, NAMESPACE, OWNER, &suspend(true))
            .await;
        eventually("the owner is suspended", PATIENCE, async || {
            let object = plugin(host.kube(), OWNER).await.ok_or("no Plugin")?;
            let ready = condition(&object, "Ready");
            (ready.reason == "Suspended")
                .then_some(())
                .ok_or(conditions(&object))
        })
        .await;
        host.kill();
        let change = json!({"spec": {"config": {"after": "the restart"}}});
        let changed = host.kube().merge(PLUGIN, NAMESPACE, SECOND, &change).await;
        host.run_in_process().await;
        let generation = changed["metadata"]["generation"].as_i64().unwrap();
        refused(&host, generation).await;
        host.kube()
            .merge(PLUGIN, NAMESPACE, OWNER, &suspend(false))
            .await;
        host.plugins_ready().await;
        refused(&host, generation).await;
    });
}

#[test]
fn a_plugin_without_its_grant_names_it_and_the_lines_to_add() {
    run(async {
        let host = TestHost::shared().await;
        host.put_plugin(
            "infrastructure-probe",
            &wasm::gzip(&wasm::component("engine-probe")),
        )
        .await;
        let object: Value = eventually("the missing grant is named", PATIENCE, async || {
            let object = plugin(host.kube(), "infrastructure-probe")
                .await
                .ok_or("no Plugin object")?;
            let granted = condition(&object, "Granted");
            let is_said =
                granted.status == "False" && granted.message.contains("to reach the test's server");
            is_said.then_some(object.clone()).ok_or(conditions(&object))
        })
        .await;
        assert_eq!(
            object["status"]["missingGrants"][0]["capability"], "http",
            "{object}"
        );
        host.remove_plugin("infrastructure-probe").await;
        host.kube()
            .delete(PLUGIN, NAMESPACE, "infrastructure-probe")
            .await;
    });
}

#[test]
fn a_config_map_in_any_packing_becomes_a_plugin() {
    run(async {
        let host = TestHost::shared().await;
        let component = wasm::component("minimal-upgrade-strategy");
        let digests = async |name: &str, packed: Vec<u8>| {
            host.put_plugin(name, &packed).await;
            host.plugin_ready(name).await;
            plugin(host.kube(), name).await.unwrap()["status"]["activeDigest"].clone()
        };
        let plain = digests("packed-not", component.clone()).await;
        assert_eq!(digests("packed-gzip", wasm::gzip(&component)).await, plain);
        assert_eq!(digests("packed-zstd", wasm::zstd(&component)).await, plain);
        for name in ["packed-not", "packed-gzip", "packed-zstd"] {
            host.remove_plugin(name).await;
            host.kube().delete(PLUGIN, NAMESPACE, name).await;
        }
    });
}

#[test]
fn a_plugin_that_goes_away_is_named_also_after_a_restart_and_everything_goes_on_when_it_is_back() {
    run(async {
        let mut host = TestHost::start_process().await;
        let kube = host.kube();
        let cluster = TestCluster::new("plugin-away", "away", 1);
        cluster.create(kube).await;
        cluster.available(&host, 1).await;

        host.remove_plugin("infrastructure-local").await;
        eventually("the plugin answers no calls", PATIENCE, async || {
            let object = plugin(kube, "infrastructure-local").await.unwrap();
            let ready = condition(&object, "Ready");
            (ready.status == "False")
                .then_some(())
                .ok_or(conditions(&object))
        })
        .await;
        // Another process has never seen the plugin.
        host.kill();
        host.run_process();
        let kube = host.kube();
        let deployment = cluster.deployment();
        kube.scale(MACHINE_DEPLOYMENT, &cluster.namespace, &deployment, 2)
            .await;
        eventually("the new machine names the plugin", PATIENCE, async || {
            let machines = kube.list(LOCAL_MACHINE, &cluster.namespace).await;
            let says = |object: &Value| {
                condition(object, "Ready").status != "True"
                    && conditions(object).contains("infrastructure-local")
            };
            let all = machines
                .iter()
                .map(conditions)
                .collect::<Vec<_>>()
                .join("\n");
            machines.iter().any(says).then_some(()).ok_or(all)
        })
        .await;
        eventually("three machines", PATIENCE, async || {
            let count = kube.list(MACHINE, &cluster.namespace).await.len();
            (count == 3).then_some(()).ok_or(format!("{count}"))
        })
        .await;
        let instances = host
            .cloud
            .of_cluster("instances", &cluster.namespace, &cluster.name)
            .await;
        assert_eq!(
            instances.len(),
            2,
            "nothing is lost while the plugin is away"
        );
        assert_eq!(
            instances
                .iter()
                .filter(|i| i["state"] == json!("running"))
                .count(),
            2
        );

        host.put_plugin(
            "infrastructure-local",
            &wasm::gzip(&wasm::component("infrastructure-local")),
        )
        .await;
        host.plugin_ready("infrastructure-local").await;
        cluster.available(&host, 2).await;
        cluster.delete(&host).await;
        eventually("an empty cloud", PATIENCE, async || {
            host.cloud.is_empty().await
        })
        .await;
    });
}
