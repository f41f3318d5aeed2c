//! `capstan serving`: which component of a plugin answers for which objects, and in which namespaces they are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::{Plugin, PluginCanaryState};
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{KubeApi, PAGE, Resource, Selection, list_all, management};
use capstan_controllers::object::Object;
use capstan_controllers::plugins::cluster_of;
use capstan_core::plugin::answers_for;
use serde::Serialize;

use crate::output::Output;

/// Which plugin.
#[derive(Debug, clap::Args)]
pub(super) struct ServingArgs {
    /// Name of the Plugin; all of them when left out.
    plugin: Option<String>,
    /// Namespace of the host, where Plugins are.
    #[arg(long, default_value = "capstan-system", value_name = "NAMESPACE")]
    host_namespace: String,
    /// Kubeconfig of the management cluster; without one, the cluster whose Pod this is.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// How it is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Objects of one kind in one namespace that one component answers for.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    plugin: String,
    digest: String,
    canary: bool,
    kind: String,
    namespace: String,
    objects: usize,
}

/// Asks and prints.
pub(super) fn run(args: &ServingArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let lines = runtime.block_on(lines(args))?;
    args.output.print(&lines, || shown(&lines))?;
    Ok(ExitCode::SUCCESS)
}

async fn lines(args: &ServingArgs) -> anyhow::Result<Vec<Line>> {
    let kubeconfig = args.kubeconfig.as_deref().filter(|list| !list.is_empty());
    let agent = concat!("capstan-serving/", env!("CARGO_PKG_VERSION"));
    let api = management::connect(kubeconfig, agent).await?;
    let all = Selection {
        metadata_only: true,
        ..Selection::default()
    };
    let own = Selection {
        namespace: Some(args.host_namespace.clone()),
        ..Selection::default()
    };
    let clusters = list(&*api, &kinds::CLUSTER, &all).await?;
    let clusters: BTreeMap<ObjectKey, Object> = clusters
        .into_iter()
        .map(|cluster| (cluster.key.clone(), cluster))
        .collect();
    let mut lines = Vec::new();
    for object in list(&*api, &kinds::PLUGIN, &own).await? {
        if args
            .plugin
            .as_ref()
            .is_some_and(|name| *name != object.key.name)
        {
            continue;
        }
        let plugin: Plugin = object
            .typed()
            .with_context(|| format!("Plugin {}", object.key))?;
        for kind in plugin.status.iter().flat_map(|status| &status.kinds) {
            let resource =
                Resource::namespaced(&kind.group, &kind.version, &kind.kind, &kind.plural);
            let objects = list(&*api, &resource, &all).await?;
            lines.extend(of_kind(&plugin, &kind.kind, &objects, &clusters));
        }
    }
    Ok(lines)
}

async fn list(
    api: &dyn KubeApi,
    resource: &Resource,
    selection: &Selection,
) -> anyhow::Result<Vec<Object>> {
    let all = list_all(api, resource, selection, PAGE, None).await;
    let all = all.with_context(|| format!("listing {}", resource.plural))?;
    Ok(all.into_iter().filter_map(Object::new).collect())
}

/// Who answers for these objects, by what the Plugin and its status say.
fn of_kind(
    plugin: &Plugin,
    kind: &str,
    objects: &[Object],
    clusters: &BTreeMap<ObjectKey, Object>,
) -> Vec<Line> {
    let status = plugin.status.clone().unwrap_or_default();
    let canary = status.canary.as_ref().filter(|canary| {
        matches!(
            canary.state,
            PluginCanaryState::Serving | PluginCanaryState::Promoted
        )
    });
    let canary = canary.and_then(|canary| canary.digest.as_ref());
    let canary = canary.zip(plugin.spec.canary.as_ref());
    let mut counts: BTreeMap<(bool, &str), usize> = BTreeMap::new();
    for object in objects {
        let is_canarys = canary.is_some_and(|(_, spec)| {
            let cluster = cluster_of(object).and_then(|key| clusters.get(&key));
            answers_for(spec, &object.key.namespace, |label| cluster?.label(label))
        });
        let count = counts
            .entry((is_canarys, object.key.namespace.as_str()))
            .or_default();
        *count = count.saturating_add(1);
    }
    let lines = counts
        .into_iter()
        .map(|((is_canarys, namespace), objects)| {
            let of_canary = canary.filter(|_| is_canarys).map(|(digest, _)| digest);
            Line {
                plugin: plugin.metadata.name.clone().unwrap_or_default(),
                digest: of_canary
                    .or(status.active_digest.as_ref())
                    .cloned()
                    .unwrap_or_else(|| "none".to_owned()),
                canary: is_canarys,
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                objects,
            }
        });
    lines.collect()
}

fn shown(lines: &[Line]) -> String {
    let heads = ["PLUGIN", "DIGEST", "CANARY", "NAMESPACE", "KIND", "OBJECTS"].map(str::to_owned);
    let rows = lines.iter().map(|line| {
        let digest = line.digest.trim_start_matches("sha256:");
        let canary = if line.canary { "yes" } else { "" };
        [
            line.plugin.clone(),
            // As `kubectl get plugins` shows it.
            digest.chars().take(12).collect(),
            canary.to_owned(),
            line.namespace.clone(),
            line.kind.clone(),
            line.objects.to_string(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(heads).chain(rows).collect();
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plugin(canary: Value, state: &str) -> Plugin {
        serde_json::from_value(json!({
            "apiVersion": "capstan.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"namespace": "capstan-system", "name": "infrastructure-acme"},
            "spec": {"source": {"configMap": {"name": "a"}}, "canary": canary},
            "status": {"activeDigest": "sha256:stable", "canary": {"digest": "sha256:next", "state": state}},
        }))
        .unwrap()
    }

    fn machine(namespace: &str, name: &str, cluster: &str) -> Object {
        let labels = json!({"cluster.x-k8s.io/cluster-name": cluster});
        Object::new(json!({
            "apiVersion": "infrastructure.example.com/v1", "kind": "AcmeMachine",
            "metadata": {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1", "labels": labels},
        }))
        .unwrap()
    }

    fn lines(plugin: &Plugin) -> Vec<(bool, String, String, usize)> {
        let objects = [
            machine("a", "1", "x"),
            machine("a", "2", "x"),
            machine("b", "3", "tried"),
            machine("b", "4", "x"),
        ];
        let tried = Object::new(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"namespace": "b", "name": "tried", "uid": "t", "resourceVersion": "1", "labels": {"ring": "early"}},
        }))
        .unwrap();
        let clusters = BTreeMap::from([(tried.key.clone(), tried)]);
        let lines = of_kind(plugin, "AcmeMachine", &objects, &clusters);
        let lines = lines.into_iter();
        lines
            .map(|line| (line.canary, line.digest, line.namespace, line.objects))
            .collect()
    }

    fn line(canary: bool, namespace: &str, objects: usize) -> (bool, String, String, usize) {
        let digest = if canary {
            "sha256:next"
        } else {
            "sha256:stable"
        };
        (canary, digest.to_owned(), namespace.to_owned(), objects)
    }

    #[test]
    fn each_object_is_counted_with_the_component_that_answers_for_it() {
        let source = json!({"configMap": {"name": "b"}});
        let by_label = plugin(
            json!({"source": source, "matchLabels": {"ring": "early"}}),
            "Serving",
        );
        let split = [line(false, "a", 2), line(false, "b", 1), line(true, "b", 1)];
        assert_eq!(lines(&by_label), split);
        let by_namespace = json!({"source": source, "namespaces": ["a"]});
        let serving = plugin(by_namespace.clone(), "Serving");
        assert_eq!(lines(&serving), [line(false, "b", 2), line(true, "a", 2)]);
        let stopped = plugin(by_namespace, "Stopped");
        assert_eq!(lines(&stopped), [line(false, "a", 2), line(false, "b", 2)]);
        let promoted = plugin(json!({"source": source, "promoted": true}), "Promoted");
        assert_eq!(lines(&promoted), [line(true, "a", 2), line(true, "b", 2)]);
    }

    #[test]
    fn a_table_has_a_line_for_each() {
        let line = Line {
            plugin: "infrastructure-acme".to_owned(),
            digest: "sha256:0123456789abcdef".to_owned(),
            canary: true,
            kind: "AcmeMachine".to_owned(),
            namespace: "team-a".to_owned(),
            objects: 3,
        };
        assert_eq!(
            shown(&[line]),
            "PLUGIN               DIGEST        CANARY  NAMESPACE  KIND         OBJECTS\n\
             infrastructure-acme  0123456789ab  yes     team-a     AcmeMachine  3"
        );
    }
}
