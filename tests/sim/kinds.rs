//! The kinds of the simulated providers.

use std::sync::LazyLock;

use capstan_controllers::kube_api::Resource;
use serde_json::{Value, json};

/// Group of the infrastructure provider's kinds.
pub const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
/// Group of the bootstrap provider's kinds.
pub const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
/// Group of the control-plane provider's kinds.
pub const CONTROL_PLANES: &str = "controlplane.cluster.x-k8s.io";

/// Version of all of them.
pub const VERSION: &str = "v1beta2";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $group:ident, $kind:literal, $plural:literal;)*) => {
        $($(#[$doc])* pub static $name: LazyLock<Resource> =
            LazyLock::new(|| Resource::namespaced($group, VERSION, $kind, $plural));)*
    };
}

kinds! {
    /// Infrastructure cluster, owned by a plugin.
    SIM_CLUSTER = INFRASTRUCTURE, "SimCluster", "simclusters";
    /// Infrastructure machine, owned by a plugin.
    SIM_MACHINE = INFRASTRUCTURE, "SimMachine", "simmachines";
    /// Its template.
    SIM_MACHINE_TEMPLATE = INFRASTRUCTURE, "SimMachineTemplate", "simmachinetemplates";
    /// Request to an external remediator, which is no plugin.
    SIM_REMEDIATION = INFRASTRUCTURE, "SimRemediation", "simremediations";
    /// Its template.
    SIM_REMEDIATION_TEMPLATE = INFRASTRUCTURE, "SimRemediationTemplate", "simremediationtemplates";
    /// Bootstrap config of a provider that is not a plugin.
    SIM_CONFIG = BOOTSTRAP, "SimConfig", "simconfigs";
    /// Its template.
    SIM_CONFIG_TEMPLATE = BOOTSTRAP, "SimConfigTemplate", "simconfigtemplates";
    /// Control plane of a provider that is not a plugin and has no Machines.
    SIM_CONTROL_PLANE = CONTROL_PLANES, "SimControlPlane", "simcontrolplanes";
    /// Control plane of Machines, owned by a plugin; only in worlds that have one.
    SIM_STACKED_CONTROL_PLANE = CONTROL_PLANES, "SimStackedControlPlane", "simstackedcontrolplanes";
    /// Bootstrap config of its Machines, owned by a plugin.
    SIM_STACKED_CONFIG = BOOTSTRAP, "SimStackedConfig", "simstackedconfigs";
}

/// Those of control planes of Machines.
#[must_use]
pub fn stacked() -> [&'static Resource; 2] {
    [&SIM_STACKED_CONTROL_PLANE, &SIM_STACKED_CONFIG]
}

/// All of the others.
#[must_use]
pub fn all() -> [&'static Resource; 8] {
    [
        &SIM_CLUSTER,
        &SIM_MACHINE,
        &SIM_MACHINE_TEMPLATE,
        &SIM_REMEDIATION,
        &SIM_REMEDIATION_TEMPLATE,
        &SIM_CONFIG,
        &SIM_CONFIG_TEMPLATE,
        &SIM_CONTROL_PLANE,
    ]
}

/// The definition of a kind, as far as anybody looks at it.
#[must_use]
pub fn definition(resource: &Resource) -> Value {
    let is_remediators = resource.kind.starts_with("SimRemediation");
    let provider = if resource.kind.starts_with("SimStacked") {
        "control-plane-sim"
    } else if resource.group == INFRASTRUCTURE && !is_remediators {
        "infrastructure-sim"
    } else {
        "somebody-else"
    };
    json!({"metadata": {
        "name": format!("{}.{}", resource.plural, resource.group),
        "labels": {
            "cluster.x-k8s.io/provider": provider,
            "cluster.x-k8s.io/v1beta2": VERSION,
        },
    }})
}
