//! The kinds that the plugin owns, with their schemas and printer columns (contract 1.1 and 1.2).

use capstan_sdk::schema;
use capstan_sdk::{KindRole, OwnedKind};

const GROUP: &str = "bootstrap.cluster.x-k8s.io";
const SPEC: &str = include_str!("../schema/kubeadmconfig-spec.json");

/// KubeadmConfig.
pub(crate) fn config() -> OwnedKind {
    let paused = ".status.conditions[?(@.type==\"Paused\")].status";
    OwnedKind::new(KindRole::BootstrapConfig, GROUP, "KubeadmConfig")
        .spec(schema::from_json(SPEC))
        .column(
            "Cluster",
            r".metadata.labels['cluster\.x-k8s\.io/cluster-name']",
            "string",
        )
        .wide_column("Paused", paused, "string")
        .column(
            "Data secret created",
            ".status.initialization.dataSecretCreated",
            "boolean",
        )
        .column("Age", ".metadata.creationTimestamp", "date")
}

/// KubeadmConfigTemplate.
pub(crate) fn config_template() -> OwnedKind {
    let owner = |kind: &str| format!(".metadata.ownerReferences[?(@.kind==\"{kind}\")].name");
    OwnedKind::new(
        KindRole::BootstrapConfigTemplate,
        GROUP,
        "KubeadmConfigTemplate",
    )
    .spec(schema::from_json(SPEC))
    .column("ClusterClass", &owner("ClusterClass"), "string")
    .column("Cluster", &owner("Cluster"), "string")
    .column("Age", ".metadata.creationTimestamp", "date")
}
