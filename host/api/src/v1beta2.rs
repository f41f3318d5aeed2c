//! The kinds of `cluster.x-k8s.io/v1beta2` that the core serves, field by field as Cluster API defines them.
//!
//! Only v1beta2 is served and stored, so `status.deprecated` (data kept for older versions) has no
//! counterpart here.

pub mod cluster;
pub mod machine;
pub mod machine_deployment;
pub mod machine_drain_rule;
pub mod machine_health_check;
pub mod machine_pool;
pub mod machine_set;
pub mod shared;
pub mod topology;

pub use cluster::*;
pub use machine::*;
pub use machine_deployment::*;
pub use machine_drain_rule::*;
pub use machine_health_check::*;
pub use machine_pool::*;
pub use machine_set::*;
pub use shared::*;
pub use topology::*;

/// API group of the core kinds.
pub const GROUP: &str = "cluster.x-k8s.io";

/// The one version served and stored.
pub const VERSION: &str = "v1beta2";

/// `apiVersion` of the core kinds.
pub const API_VERSION: &str = "cluster.x-k8s.io/v1beta2";
