//! Puts the plugins into the management cluster, grants them what they ask for, waits until they are ready.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Scene;
use super::told::{self, Told};

/// What the first cluster needs.
const NAMES: [&str; 5] = [
    "bootstrap-kubeadm",
    "control-plane-kubeadm",
    "infrastructure-local",
    "upgrade-on-delete",
    "upgrade-rolling-update",
];

/// Where the host looks for plugins.
const NAMESPACE: &str = "capstan-system";

/// Larger components are compressed, so that they stay far below what an object may have.
const PLAIN_BYTES_MAX: usize = 180 * 1024;

/// A plugin's file.
pub(super) struct Component {
    name: &'static str,
    wasm: Vec<u8>,
    digest: String,
}

/// Reads all of them.
pub(super) fn read(dir: &Path) -> anyhow::Result<Vec<Component>> {
    let read_one = |name: &'static str| {
        let path = dir.join(format!("{}.wasm", name.replace('-', "_")));
        let wasm = std::fs::read(&path).with_context(|| {
            format!(
                "there is no plugin {}; `./dev plugins` builds it, --plugins says where to look",
                path.display()
            )
        })?;
        let digest = Sha256::digest(&wasm);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        Ok(Component { name, wasm, digest })
    };
    NAMES.into_iter().map(read_one).collect()
}

/// Installs what is not there or differs, and waits until all are ready.
pub(super) async fn install(scene: &Scene<'_>, components: &[Component]) -> anyhow::Result<()> {
    let active = active(scene).await?;
    let mut installed = Vec::new();
    for component in components {
        let Component { name, digest, .. } = component;
        if active.get(*name) == Some(digest) {
            continue;
        }
        scene.kubectl.apply(&config_map(component)?).await?;
        let size_kib = component.wasm.len() / 1024;
        scene.story.say(format!(
            "plugin {name} is put into a ConfigMap ({size_kib} KiB)"
        ));
        installed.push(*name);
    }
    if installed.is_empty() {
        let count = components.len();
        scene
            .story
            .say(format!("{count} plugins are there already"));
    }
    let mut told = Told::default();
    let made = async |_: &mut Told| {
        let plugins = list(scene).await?;
        let is_there = |name: &&str| plugins.iter().any(|plugin| name_of(plugin) == *name);
        Ok(NAMES.iter().all(is_there).then_some(()))
    };
    scene.until(&mut told, made).await?;
    grant(scene).await?;
    let ready = async |told: &mut Told| {
        let plugins = list(scene).await?;
        let mut are_ready = true;
        for Component { name, digest, .. } in components {
            let Some(plugin) = plugins.iter().find(|plugin| name_of(plugin) == *name) else {
                are_ready = false;
                continue;
            };
            let is_ready = is_ready(plugin, digest);
            are_ready &= is_ready;
            told.plugin(plugin, is_ready);
        }
        Ok(are_ready.then_some(()))
    };
    scene.until(&mut told, ready).await?;
    if !installed.is_empty() {
        for line in told.new_lines() {
            scene.story.say(line);
        }
    }
    Ok(())
}

/// Ready with these very bytes, and for what the object says now.
fn is_ready(plugin: &Value, digest: &str) -> bool {
    let generation = plugin.pointer("/metadata/generation");
    let active = plugin.pointer("/status/activeDigest");
    told::condition(plugin, "Ready") == Some("True")
        && active.and_then(Value::as_str) == Some(digest)
        && plugin.pointer("/status/observedGeneration") == generation
}

fn name_of(object: &Value) -> &str {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default()
}

async fn list(scene: &Scene<'_>) -> anyhow::Result<Vec<Value>> {
    let path = format!("/apis/capstan.dev/v1alpha1/namespaces/{NAMESPACE}/plugins");
    scene.server.list(&path).await
}

/// Digests of the plugins that answer calls.
async fn active(scene: &Scene<'_>) -> anyhow::Result<BTreeMap<String, String>> {
    let plugins = list(scene).await?;
    let digest = |plugin: &Value| {
        let digest = plugin.pointer("/status/activeDigest")?.as_str()?;
        Some((name_of(plugin).to_owned(), digest.to_owned()))
    };
    Ok(plugins.iter().filter_map(digest).collect())
}

/// The ConfigMap that makes a plugin.
fn config_map(component: &Component) -> anyhow::Result<Value> {
    let (key, bytes) = if component.wasm.len() > PLAIN_BYTES_MAX {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&component.wasm)?;
        ("component.wasm.gz", packed.finish()?)
    } else {
        ("component.wasm", component.wasm.clone())
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": NAMESPACE,
            "name": component.name,
            "labels": {"capstan.dev/plugin": component.name},
        },
        "binaryData": {key: STANDARD.encode(bytes)},
    }))
}

/// Applies every file of `grants/`: an object as it is, anything else as a patch of the Plugin that the file is named after.
async fn grant(scene: &Scene<'_>) -> anyhow::Result<()> {
    let cloud = scene.args.home.dir.join("cloud/cloud.json");
    let cloud = std::fs::read_to_string(&cloud)
        .with_context(|| format!("the cloud has not written {}", cloud.display()))?;
    let cloud: Value = serde_json::from_str(&cloud)?;
    let of_cloud = |key: &str| cloud.get(key).and_then(Value::as_str).unwrap_or_default();
    let dir = scene.args.example.join("grants");
    let entries = std::fs::read_dir(&dir)
        .with_context(|| format!("there are no grants in {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let what = || format!("could not use {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(what)?;
        let text = text
            .replace("${CLOUD_ENDPOINT}", of_cloud("endpoint"))
            .replace("${CLOUD_TOKEN}", of_cloud("token"));
        let mut document: Value = serde_saphyr::from_str(&text).with_context(what)?;
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if document.get("kind").is_some() {
            if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
                metadata.insert("namespace".to_owned(), json!(NAMESPACE));
            }
            scene.kubectl.apply(&document).await.with_context(what)?;
        } else if document.get("spec").is_some() {
            scene
                .kubectl
                .patch_plugin(NAMESPACE, name, &document)
                .await
                .with_context(what)?;
            scene
                .story
                .say(format!("plugin {name} is granted {}", granted(&document)));
        } else {
            bail!(
                "{} is neither an object nor a patch of a Plugin",
                path.display()
            );
        }
    }
    Ok(())
}

/// What a patch grants, for people.
fn granted(patch: &Value) -> String {
    let grants = patch.pointer("/spec/grants").and_then(Value::as_array);
    let words = grants.into_iter().flatten().map(|grant| {
        let capability = grant
            .get("capability")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let origins = grant.pointer("/http/origins").and_then(Value::as_array);
        let origins: Vec<&str> = origins
            .into_iter()
            .flatten()
            .filter_map(|origin| origin.get("origin")?.as_str())
            .collect();
        if origins.is_empty() {
            return capability.to_owned();
        }
        format!("{capability} to {}", origins.join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_component_is_compressed() {
        let component = |len: usize| Component {
            name: "upgrade-on-delete",
            wasm: vec![7; len],
            digest: String::new(),
        };
        let small = config_map(&component(10)).unwrap();
        assert!(small.pointer("/binaryData/component.wasm").is_some());
        let large = config_map(&component(PLAIN_BYTES_MAX + 1)).unwrap();
        let packed = large.pointer("/binaryData/component.wasm.gz").unwrap();
        assert!(packed.as_str().unwrap().len() < 4096);
    }

    #[test]
    fn a_plugin_is_ready_only_with_its_bytes_and_for_what_its_object_says_now() {
        let mut plugin = json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": 1,
                "activeDigest": "sha256:old",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        assert!(!is_ready(&plugin, "sha256:new"));
        plugin["status"]["activeDigest"] = json!("sha256:new");
        assert!(!is_ready(&plugin, "sha256:new"));
        plugin["status"]["observedGeneration"] = json!(2);
        assert!(is_ready(&plugin, "sha256:new"));
    }

    #[test]
    fn what_is_granted_is_said_with_its_origins() {
        let patch = json!({"spec": {"grants": [
            {"capability": "http", "http": {"origins": [{"origin": "http://127.0.0.1:1"}]}},
        ]}});
        assert_eq!(granted(&patch), "http to http://127.0.0.1:1");
        let patch = json!({"spec": {"grants": [{"capability": "workload", "workload": []}]}});
        assert_eq!(granted(&patch), "workload");
    }
}
