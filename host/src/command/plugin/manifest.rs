//! `capstan plugin manifest`: the ConfigMap, or the parts, and the Plugin object that install a component, with the grants that it
//! asks for.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_api::label;
use capstan_api::plugin::{API_VERSION, OciSource};
use capstan_engine::grant::suggested;
use capstan_engine::{Loaded, Reference, anatomy};
use serde_json::{Map, Value, json};

use super::EXIT_CODES;
use super::component::{self, EngineArgs};
use crate::out;
use crate::output::Output;

/// Bytes in one ConfigMap: the API server takes 1 MiB of data, all keys together.
const PART_BYTES_MAX: usize = 1_000_000;

/// Parts that the host joins.
const PARTS_MAX: usize = 16;

/// What to print.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin manifest infrastructure_acme.wasm | kubectl apply --server-side -f -
      The component packed with zstd in a ConfigMap (in several when it is large), and a Plugin with all grants that it
      asks for. Read the grants before you apply them. `--server-side` because the annotation of a plain apply is too small.
  capstan plugin manifest infrastructure_acme.wasm --no-grants
      The same for somebody who may not grant.
  capstan plugin manifest infrastructure_acme.wasm --oci registry.example.com/team/acme:1.2.0
      Only the Plugin, for a component that was pushed to a registry, pinned to its digest.

{EXIT_CODES}"))]
pub(in crate::command) struct ManifestArgs {
    /// The component: plain, or packed with gzip or zstd; `-` for standard input.
    file: PathBuf,
    /// Name of the Plugin object; the name in the component's manifest by default.
    #[arg(long)]
    name: Option<String>,
    /// Namespace of the host.
    #[arg(long, short, default_value = "capstan-system")]
    namespace: String,
    /// Leave the grants out.
    #[arg(long)]
    no_grants: bool,
    /// Also grant what the plugin can do without.
    #[arg(long, conflicts_with = "no_grants")]
    optional: bool,
    /// The component is in this registry: print the Plugin object only.
    #[arg(long, value_name = "REFERENCE")]
    oci: Option<String>,
    /// That registry has no TLS.
    #[arg(long, requires = "oci")]
    plain_http: bool,
    /// YAML for kubectl, or JSON as one List.
    #[arg(long, short, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(super) async fn run(args: ManifestArgs) -> anyhow::Result<ExitCode> {
    let source = component::read(&args.file)?;
    let loaded = args.engine.try_load(&source).await?.map_err(|why| {
        anyhow::anyhow!(
            "{} is refused: {why}; `capstan plugin check` says more",
            args.file.display()
        )
    })?;
    let name = args.name.as_deref().unwrap_or(&loaded.manifest().name);
    let grants = if args.no_grants {
        Vec::new()
    } else {
        grants(&loaded, args.optional)
    };
    let objects = match &args.oci {
        Some(image) => {
            Reference::parse(image).map_err(|why| anyhow::anyhow!("--oci: {why}"))?;
            let source = OciSource {
                image: image.clone(),
                plain_http: args.plain_http.then_some(true),
                ..OciSource::default()
            };
            let source = json!({"oci": source});
            vec![plugin(name, &args.namespace, source, &loaded, grants)]
        }
        None => {
            let parts = anatomy(&source).map_err(|why| anyhow::anyhow!("{why}"))?;
            let packed = component::zstd(&parts.wasm)?;
            let (maps, source) = config_maps(name, &args.namespace, &packed)?;
            // The Plugin first: for ConfigMaps without one the host makes it, and its source would then be the host's field as well.
            let mut objects = vec![plugin(name, &args.namespace, source, &loaded, grants)];
            objects.extend(maps);
            objects
        }
    };
    let printed = match args.output {
        Output::Json => serde_json::to_string_pretty(
            &json!({"apiVersion": "v1", "kind": "List", "items": objects}),
        )?,
        Output::Yaml | Output::Text => {
            let documents = objects.iter().map(capstan_api::yaml::print);
            documents.collect::<Vec<_>>().join("---\n")
        }
    };
    out::result(printed.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// What the plugin asks for, as `spec.grants`.
fn grants(loaded: &Loaded, optional: bool) -> Vec<Value> {
    let asked = loaded.manifest().capabilities.iter();
    asked
        .filter(|asked| optional || !asked.optional)
        .map(|asked| suggested(&asked.name, Some(&asked.suggestion)))
        .collect()
}

fn plugin(
    name: &str,
    namespace: &str,
    source: Value,
    loaded: &Loaded,
    grants: Vec<Value>,
) -> Value {
    let mut spec = Map::new();
    spec.insert("source".to_owned(), source);
    spec.insert("digest".to_owned(), json!(loaded.digest()));
    if !grants.is_empty() {
        spec.insert("grants".to_owned(), Value::Array(grants));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "Plugin",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// The ConfigMaps of a packed component, and the `source` that means them.
fn config_maps(name: &str, namespace: &str, packed: &[u8]) -> anyhow::Result<(Vec<Value>, Value)> {
    let chunks: Vec<&[u8]> = packed.chunks(PART_BYTES_MAX).collect();
    let count = chunks.len();
    if count > PARTS_MAX {
        bail!(
            "{name} has {} bytes when it is packed, which does not fit into {PARTS_MAX} ConfigMaps: push it to a registry",
            packed.len()
        );
    }
    let map = |name: String, labels: Value, bytes: &[u8]| {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "binaryData": {"component.wasm.zst": STANDARD.encode(bytes)},
        })
    };
    if let [only] = chunks.as_slice() {
        let labels = json!({label::PLUGIN: name});
        let source = json!({"configMap": {"name": name}});
        return Ok((vec![map(name.to_owned(), labels, only)], source));
    }
    let parts = chunks.into_iter().enumerate().map(|(part, bytes)| {
        let labels = json!({
            label::PLUGIN: name,
            label::PLUGIN_PART: part.to_string(),
            label::PLUGIN_PARTS: count.to_string(),
        });
        map(format!("{name}-{part}"), labels, bytes)
    });
    Ok((parts.collect(), json!({"configMapParts": {}})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_one_object_becomes_parts_in_order() {
        let packed: Vec<u8> = (0..PART_BYTES_MAX * 2 + 5).map(|n| n as u8).collect();
        let (maps, source) = config_maps("a", "ns", &packed).unwrap();
        assert_eq!((maps.len(), &source), (3, &json!({"configMapParts": {}})));
        let mut joined = Vec::new();
        for (part, map) in maps.iter().enumerate() {
            let labels = &map["metadata"]["labels"];
            assert_eq!(labels["capstan.dev/plugin-part"], part.to_string());
            assert_eq!(labels["capstan.dev/plugin-parts"], "3");
            let data = map["binaryData"]["component.wasm.zst"].as_str().unwrap();
            joined.extend(STANDARD.decode(data).unwrap());
        }
        assert_eq!(joined, packed);
        let (maps, source) = config_maps("a", "ns", b"small").unwrap();
        assert_eq!(
            (maps.len(), source),
            (1, json!({"configMap": {"name": "a"}}))
        );
        assert!(config_maps("a", "ns", &vec![0; PART_BYTES_MAX * PARTS_MAX + 1]).is_err());
    }
}
