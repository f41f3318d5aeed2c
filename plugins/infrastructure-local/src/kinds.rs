//! The kinds that the plugin owns: their fields as Rust types, as schemas, and as printer columns.

use capstan_sdk::schema::{self, Schema};
use capstan_sdk::{KindRole, OwnedKind};
use serde::{Deserialize, Serialize};

const GROUP: &str = "infrastructure.cluster.x-k8s.io";

/// `spec` of a LocalCluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// Name of an existing network to use; one is made when unset.
    pub network: Option<String>,
    /// What runs the network and its instances; the cloud's choice when unset.
    pub backend: Option<String>,
    /// The load balancer.
    pub load_balancer: LoadBalancerSpec,
}

/// `spec.loadBalancer` of a LocalCluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSpec {
    /// Port of the API servers on the machines; 6443 when unset.
    pub port: Option<u16>,
}

/// The provider's own `status` of a LocalCluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// The network's ID in the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_id: Option<String>,
    /// The load balancer's ID in the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_id: Option<String>,
}

/// `spec` of a LocalMachine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    /// Type of the instance; `small` when unset.
    pub instance_type: Option<String>,
    /// What runs the instance: what runs its network, also when unset.
    pub backend: Option<String>,
    /// Image of the instance; the Machine's version when unset.
    pub image: Option<String>,
    /// What runs the bootstrap data on the instance; the cloud's own interpreter when unset.
    pub user_data_runner: Option<String>,
}

/// The provider's own `status` of a LocalMachine.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    /// The instance's ID in the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
}

/// What can run networks and instances.
const BACKENDS: [&str; 2] = ["light", "machines"];
/// What can run the bootstrap data.
const RUNNERS: [&str; 2] = ["builtin", "cloud-init"];

fn cluster_spec() -> Schema {
    let port = schema::integer()
        .with("format", "int32")
        .range(1, 65535)
        .describe("Port of the API servers on the machines. The Cluster's API server port when unset, else 6443.");
    schema::object()
        .describe("A cluster's place in the local cloud.")
        .field(
            "network",
            schema::string()
                .length(1, 253)
                .describe("Name of an existing network to use. When unset, the cluster gets one of its own.")
                .immutable(),
        )
        .field(
            "backend",
            schema::string()
                .one_of(&BACKENDS)
                .describe(
                    "What runs the cluster's network and machines: light (machines that exist only as far as their APIs show) or machines (real \
                     ones, in namespaces of the cloud's host). The cloud's choice when unset.",
                )
                .immutable(),
        )
        .field(
            "loadBalancer",
            schema::object()
                .describe("The load balancer in front of the API servers.")
                .field("port", port.immutable()),
        )
}

fn machine_spec() -> Schema {
    schema::object()
        .describe("A machine of the local cloud.")
        .field(
            "instanceType",
            schema::string()
                .length(1, 63)
                .default("small")
                .describe("Type of the instance, such as small, medium or large."),
        )
        .field(
            "backend",
            schema::string().one_of(&BACKENDS).describe(
                "What runs the instance. What runs the cluster's network when unset; anything else is refused by the cloud.",
            ),
        )
        .field(
            "image",
            schema::string().length(1, 253).describe(
                "Image of the instance: a Kubernetes version such as v1.36.3. The Machine's version when unset.",
            ),
        )
        .field(
            "userDataRunner",
            schema::string().one_of(&RUNNERS).describe(
                "What runs the bootstrap data on a real machine: builtin (the cloud's own interpreter, also when unset) or cloud-init (Debian's own, \
                 from an image with it).",
            ),
        )
}

fn id(what: &str) -> Schema {
    schema::string()
        .length(1, 253)
        .describe(format!("ID of the {what} in the cloud."))
}

/// LocalCluster.
pub(crate) fn cluster() -> OwnedKind {
    let status = schema::object()
        .field("networkId", id("network"))
        .field("loadBalancerId", id("load balancer"));
    OwnedKind::new(KindRole::InfraCluster, GROUP, "LocalCluster")
        .spec(cluster_spec())
        .status(status)
        .column("Endpoint", ".spec.controlPlaneEndpoint.host", "string")
        .column("Port", ".spec.controlPlaneEndpoint.port", "integer")
        .wide_column("Network", ".status.networkId", "string")
        .wide_column("Load balancer", ".status.loadBalancerId", "string")
}

/// LocalClusterTemplate.
pub(crate) fn cluster_template() -> OwnedKind {
    OwnedKind::new(
        KindRole::InfraClusterTemplate,
        GROUP,
        "LocalClusterTemplate",
    )
    .spec(cluster_spec())
}

/// LocalMachine.
pub(crate) fn machine() -> OwnedKind {
    OwnedKind::new(KindRole::InfraMachine, GROUP, "LocalMachine")
        .spec(machine_spec())
        .status(schema::object().field("instanceId", id("instance")))
        .column("Type", ".spec.instanceType", "string")
        .column("Provider ID", ".spec.providerID", "string")
}

/// LocalMachineTemplate.
pub(crate) fn machine_template() -> OwnedKind {
    OwnedKind::new(
        KindRole::InfraMachineTemplate,
        GROUP,
        "LocalMachineTemplate",
    )
    .spec(machine_spec())
    .column("Type", ".spec.template.spec.instanceType", "string")
}
