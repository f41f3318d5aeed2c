//! The probe: a plugin for tests that does and says what its configuration tells it (`tests/guests/engine-probe`).

use serde_json::json;

use crate::kube_client::{CLUSTER, Kind, Kube};

/// The Plugin's name.
pub const PROBE: &str = "infrastructure-probe";

/// The kind that it drives.
pub const PROBE_CLUSTER: Kind = Kind {
    api_version: "infrastructure.cluster.x-k8s.io/v1beta2",
    plural: "probeclusters",
    namespaced: true,
};

/// Makes a Cluster named `probe` that has the probe as its infrastructure, and the object that the probe is asked about.
pub async fn probe_cluster(kube: &Kube, namespace: &str) {
    let metadata = json!({"namespace": namespace, "name": "probe"});
    let cluster = json!({
        "apiVersion": CLUSTER.api_version, "kind": "Cluster", "metadata": metadata,
        "spec": {"infrastructureRef": {
            "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "ProbeCluster", "name": "probe",
        }},
    });
    kube.apply(CLUSTER, &cluster).await;
    let infra = json!({"apiVersion": PROBE_CLUSTER.api_version, "kind": "ProbeCluster", "metadata": metadata, "spec": {}});
    kube.apply(PROBE_CLUSTER, &infra).await;
}
