//! All that a provider author needs: a trait and an export macro per plugin kind.
//!
//! A plugin is a crate with a type that implements one of the traits and an export macro:
//!
//! * [`infrastructure::Infrastructure`] and [`export_infrastructure!`]
//! * [`bootstrap::Bootstrap`] and [`export_bootstrap!`]
//! * [`control_plane::ControlPlane`] and [`export_control_plane!`]
//! * [`pre_delete_hook::PreDeleteHook`] and [`export_pre_delete_hook!`]
//! * [`upgrade_strategy::UpgradeStrategy`] and [`export_upgrade_strategy!`]
//!
//! Inputs arrive typed; an input that does not fit the author's types never reaches the plugin: the call fails with a message that
//! names the field.

#[doc(hidden)]
pub mod bindings;

mod answer;
pub mod bootstrap;
mod context;
pub mod control_plane;
pub mod event;
mod export;
pub mod files;
pub mod http;
pub mod infrastructure;
mod kinds;
pub mod log;
mod manifest;
mod material;
mod object;
pub mod pre_delete_hook;
pub mod schema;
pub mod secret;
mod slim;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod upgrade_strategy;
pub mod workload;
pub mod yaml;

pub use answer::{
    Condition, ConditionStatus, Endpoint, Failure, FailureKind, Progress, Status, Waiting,
};
pub use context::{Context, Extra, Mode, SecretHandle};
pub use kinds::{
    CLUSTER_NAME_LABEL, CONTROL_PLANE_LABEL, Cluster, ClusterFailureDomain, ClusterNetwork,
    ClusterSpec, ClusterStatus, ControlPlaneEndpoint, Machine, MachineBootstrap, MachineSpec,
    MachineStatus, NetworkRanges, Node, NodeAddress, NodeCondition, NodeReference, NodeSpec,
    NodeStatus, Reference, Topology,
};
pub use manifest::{CapabilityRequest, Column, KindRole, Manifest, OwnedKind, Plugin};
pub use material::{Material, MaterialValue, Requirement};
pub use object::{Metadata, NoStatus, Object, OwnerReference};

pub use serde_json;

/// What the export macros expand to; not for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{
        bootstrap, control_plane, infrastructure, manifest, pre_delete_hook, upgrade_strategy,
    };
    pub use crate::export::Exported;
}
