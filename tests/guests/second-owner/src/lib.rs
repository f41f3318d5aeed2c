//! Hostile guest: owns a kind that the plugin `infrastructure-local` owns already.

use capstan_sdk::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, Infrastructure, MachineAnswer, MachineInput,
};
use capstan_sdk::{Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin};
use serde_json::Value;

/// The plugin.
pub struct SecondOwner;

impl Plugin for SecondOwner {
    fn manifest() -> Manifest {
        let group = "infrastructure.cluster.x-k8s.io";
        Manifest::new("infrastructure-second-owner", "0.1.0")
            .description("Owns what is another's.")
            .kind(OwnedKind::new(
                KindRole::InfraMachine,
                group,
                "LocalMachine",
            ))
    }
}

impl Infrastructure for SecondOwner {
    type ClusterSpec = Value;
    type ClusterStatus = NoStatus;
    type MachineSpec = Value;
    type MachineStatus = NoStatus;

    fn ensure_cluster(_: ClusterInput<Self>) -> Result<ClusterAnswer, Failure> {
        Ok(ClusterAnswer::ready())
    }

    fn delete_cluster(_: ClusterInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }

    fn ensure_machine(_: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        Ok(MachineAnswer::ready("second-owner://1"))
    }

    fn delete_machine(_: MachineInput<Self>) -> Result<DeletionAnswer, Failure> {
        Ok(DeletionAnswer::gone())
    }
}

capstan_sdk::export_infrastructure!(SecondOwner);
