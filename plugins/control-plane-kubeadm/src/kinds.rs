//! The kinds that the plugin owns, with their schemas and printer columns (contract 1.1 and 1.2).

use capstan_sdk::schema::{self, Schema};
use capstan_sdk::{KindRole, OwnedKind};
use serde_json::Value;

const GROUP: &str = "controlplane.cluster.x-k8s.io";
const CONFIG: &str = include_str!("../schema/kubeadmconfig-spec.json");
const SPEC: &str = include_str!("../schema/kubeadmcontrolplane-spec.json");
const TEMPLATE_SPEC: &str = include_str!("../schema/kubeadmcontrolplanetemplate-spec.json");

/// KubeadmControlPlane.
pub(crate) fn control_plane() -> OwnedKind {
    let condition = |name: &str| format!(".status.conditions[?(@.type==\"{name}\")].status");
    OwnedKind::new(KindRole::ControlPlane, GROUP, "KubeadmControlPlane")
        .short_name("kcp")
        .spec(with_config(SPEC))
        .column(
            "Cluster",
            r".metadata.labels['cluster\.x-k8s\.io/cluster-name']",
            "string",
        )
        .column("Available", &condition("Available"), "string")
        .column("Desired", ".spec.replicas", "integer")
        .column("Current", ".status.replicas", "integer")
        .column("Ready", ".status.readyReplicas", "integer")
        .column("Available", ".status.availableReplicas", "integer")
        .column("Up-to-date", ".status.upToDateReplicas", "integer")
        .wide_column("Paused", &condition("Paused"), "string")
        .column(
            "Initialized",
            ".status.initialization.controlPlaneInitialized",
            "boolean",
        )
        .column("Age", ".metadata.creationTimestamp", "date")
        .column("Version", ".spec.version", "string")
}

/// KubeadmControlPlaneTemplate.
pub(crate) fn control_plane_template() -> OwnedKind {
    let class = ".metadata.ownerReferences[?(@.kind==\"ClusterClass\")].name";
    OwnedKind::new(
        KindRole::ControlPlaneTemplate,
        GROUP,
        "KubeadmControlPlaneTemplate",
    )
    .spec(with_config(TEMPLATE_SPEC))
    .column("ClusterClass", class, "string")
    .column("Age", ".metadata.creationTimestamp", "date")
}

/// A schema with that of the KubeadmConfig's spec in its place, which both kinds share.
fn with_config(text: &str) -> Schema {
    let parse = |text: &str| serde_json::from_str::<Value>(text);
    match (parse(text), parse(CONFIG)) {
        (Ok(mut schema), Ok(mut config)) => {
            if let Some(place) = schema.pointer_mut("/properties/kubeadmConfigSpec") {
                if let (Some(config), Some(text)) =
                    (config.as_object_mut(), place.get("description"))
                {
                    config.insert("description".to_owned(), text.clone());
                }
                *place = config;
            }
            schema::from_json(&schema.to_string())
        }
        // The host shows the parser's message.
        _ => schema::from_json(text),
    }
}
