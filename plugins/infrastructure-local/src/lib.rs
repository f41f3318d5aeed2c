//! Infrastructure plugin for the local cloud: a network and a load balancer for each cluster, an instance for each machine.

mod cloud;
mod cluster;
mod kinds;
mod machine;

#[cfg(test)]
mod tests;

use capstan_sdk::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, Infrastructure, MachineAnswer, MachineInput,
};
use capstan_sdk::{CapabilityRequest, Failure, Manifest, Plugin};
use serde_json::json;

/// The plugin.
#[derive(Debug)]
pub struct Local;

capstan_sdk::export_infrastructure!(Local);

impl Plugin for Local {
    fn manifest() -> Manifest {
        let why = "Every network, load balancer and instance is made by requests to the local cloud's API.";
        let origin = "http://127.0.0.1:21080";
        let suggestion = json!({
            "capability": "http",
            "http": {"origins": [{"origin": origin, "private": true}]},
            "credentials": [{
                "name": cloud::CREDENTIAL,
                "secretRef": {"name": cloud::CREDENTIAL, "key": "token"},
                "scheme": "Bearer",
                "origins": [origin]
            }]
        });
        Manifest::new("infrastructure-local", env!("CARGO_PKG_VERSION"))
            .description("Makes machines in the local cloud, for trying things and for tests.")
            .kind(kinds::cluster())
            .kind(kinds::cluster_template())
            .kind(kinds::machine())
            .kind(kinds::machine_template())
            .asks_for(CapabilityRequest::http(why).suggest(suggestion))
    }
}

impl Infrastructure for Local {
    type ClusterSpec = kinds::ClusterSpec;
    type ClusterStatus = kinds::ClusterStatus;
    type MachineSpec = kinds::MachineSpec;
    type MachineStatus = kinds::MachineStatus;

    fn ensure_cluster(input: ClusterInput<Self>) -> Result<ClusterAnswer, Failure> {
        cluster::ensure(&input)
    }

    fn delete_cluster(input: ClusterInput<Self>) -> Result<DeletionAnswer, Failure> {
        cluster::delete(&input)
    }

    fn ensure_machine(input: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        machine::ensure(&input)
    }

    fn delete_machine(input: MachineInput<Self>) -> Result<DeletionAnswer, Failure> {
        machine::delete(&input)
    }
}
