//! A guest that claims kinds which somebody else has installed as well, and otherwise behaves.

use capstan_sdk::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, Infrastructure, MachineAnswer, MachineInput,
};
use capstan_sdk::{Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin};
use serde_json::Value;

/// The plugin.
pub struct Misbehave;

impl Plugin for Misbehave {
    fn manifest() -> Manifest {
        let group = "infrastructure.cluster.x-k8s.io";
        Manifest::new("infrastructure-misbehave", "0.1.0")
            .description("Claims kinds that others have.")
            .kind(OwnedKind::new(
                KindRole::InfraCluster,
                group,
                "MisbehavingCluster",
            ))
            .kind(OwnedKind::new(
                KindRole::InfraMachine,
                group,
                "MisbehavingMachine",
            ))
    }
}

impl Infrastructure for Misbehave {
    type ClusterSpec = Value;
    type ClusterStatus = NoStatus;
    type MachineSpec = Value;
    type MachineStatus = NoStatus;

    fn ensure_machine(_: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        Ok(MachineAnswer::ready("misbehave://1"))
    }

    fn ensure_cluster(_: ClusterInput<Self>) -> Result<ClusterAnswer, Failure> {
        Ok(ClusterAnswer::ready().endpoint("192.0.2.1", 6443))
    }

    fn delete_machine(_: MachineInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }

    fn delete_cluster(_: ClusterInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }
}

capstan_sdk::export_infrastructure!(Misbehave);
