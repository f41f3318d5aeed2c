//! Hostile guest: `spec.config.how` of its Plugin says what it does wrong when it is asked for a machine: `trap`, `spin`, `memory`,
//! `log-flood`, `bad-status`, `huge-status`, `changing-provider-id`; with anything else it behaves.

use capstan_sdk::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, Infrastructure, MachineAnswer, MachineInput,
};
use capstan_sdk::{Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin, log};
use serde_json::{Value, json};

/// The plugin.
pub struct Misbehave;

impl Plugin for Misbehave {
    fn manifest() -> Manifest {
        let group = "infrastructure.cluster.x-k8s.io";
        Manifest::new("infrastructure-misbehave", "0.1.0")
            .description("Does what it must not.")
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

    fn ensure_machine(input: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        let ready = MachineAnswer::ready("misbehave://1");
        match input.context.config.get("how").and_then(Value::as_str) {
            Some("trap") => std::process::abort(),
            Some("spin") => loop {
                std::hint::black_box(0);
            },
            Some("memory") => {
                let chunk = |_| vec![1u8; 1 << 20];
                let hog: Vec<_> = (0..4096).map(chunk).collect();
                Ok(ready.instance_state(format!("{} MiB", std::hint::black_box(hog).len())))
            }
            Some("log-flood") => {
                (0..10_000).for_each(|_| log::emit(log::Level::Info, &"x".repeat(1024), &[]));
                Ok(ready)
            }
            Some("bad-status") => Ok(ready.status(["not", "an", "object"])),
            Some("huge-status") => Ok(ready.status(json!({"text": "x".repeat(2 << 20)}))),
            Some("changing-provider-id") => {
                Ok(ready.provider_id(format!("misbehave://{}", input.context.now_ms)))
            }
            _ => Ok(ready),
        }
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
