//! The smallest infrastructure provider: machines that someone racked already, named by address.

use std::time::Duration;

use capstan_sdk::infrastructure::{
    AddressType, ClusterAnswer, ClusterInput, DeletionAnswer, Infrastructure, MachineAnswer,
    MachineInput,
};
use capstan_sdk::schema::{integer, object, string};
use capstan_sdk::{Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin};
use serde::Deserialize;

const GROUP: &str = "infrastructure.cluster.x-k8s.io";

/// `spec` of a RackCluster: the virtual address that the machines share.
#[derive(Clone, Debug, Deserialize)]
pub struct RackClusterSpec {
    /// Address of the API server.
    pub host: String,
    /// Port of the API server.
    pub port: u16,
}

/// `spec` of a RackMachine: a machine that exists.
#[derive(Clone, Debug, Deserialize)]
pub struct RackMachineSpec {
    /// Its address; empty until someone has plugged it in.
    #[serde(default)]
    pub address: String,
}

/// The plugin.
pub struct Rack;

impl Plugin for Rack {
    fn manifest() -> Manifest {
        let cluster = object()
            .required("host", string())
            .required("port", integer());
        let machine = object().field("address", string().describe("Address of the machine."));
        Manifest::new("infrastructure-rack", env!("CARGO_PKG_VERSION"))
            .description("Machines that exist already.")
            .kind(OwnedKind::new(KindRole::InfraCluster, GROUP, "RackCluster").spec(cluster))
            .kind(
                OwnedKind::new(KindRole::InfraMachine, GROUP, "RackMachine").spec(machine.clone()),
            )
            .kind(
                OwnedKind::new(KindRole::InfraMachineTemplate, GROUP, "RackMachineTemplate")
                    .spec(machine),
            )
    }
}

impl Infrastructure for Rack {
    type ClusterSpec = RackClusterSpec;
    type ClusterStatus = NoStatus;
    type MachineSpec = RackMachineSpec;
    type MachineStatus = NoStatus;

    fn ensure_cluster(input: ClusterInput<Self>) -> Result<ClusterAnswer, Failure> {
        let spec = input.infra_cluster.spec;
        Ok(ClusterAnswer::ready().endpoint(spec.host, spec.port))
    }

    fn delete_cluster(_: ClusterInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }

    fn ensure_machine(input: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        let address = &input.infra_machine.spec.address;
        if address.is_empty() {
            let message = "waiting for spec.address: someone has to plug the machine in";
            return Ok(MachineAnswer::waiting(
                "NoAddress",
                message,
                Duration::from_secs(60),
            ));
        }
        Ok(MachineAnswer::ready(format!("rack://{address}"))
            .address(AddressType::InternalIp, address))
    }

    fn delete_machine(_: MachineInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }
}

capstan_sdk::export_infrastructure!(Rack);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::serde_json::json;
    use capstan_sdk::testing::machine_input;

    #[test]
    fn a_machine_is_ready_when_its_address_is_known() {
        let ensure = |spec| {
            let cluster = json!({"host": "192.0.2.1", "port": 6443});
            Rack::ensure_machine(machine_input(cluster, spec).unwrap()).unwrap()
        };
        assert_eq!(ensure(json!({})).provider_id, None);
        let answer = ensure(json!({"address": "192.0.2.7"}));
        assert_eq!(answer.provider_id.as_deref(), Some("rack://192.0.2.7"));
    }
}
