//! What to do: pure decisions. No async, no I/O, no clock, no wasmtime, no Kubernetes client.
//!
//! ```text
//!   observe  ->  decide  ->  perform  ->  report
//!   (shell)      (here)      (shell)      (here)
//! ```
//!
//! `observe` reads the shared stores, `decide` says which complete steps follow from what was seen, `perform` takes them,
//! and `report` says what the status is. Everything that a decision may look at is in its `Observed`; the only clock is the
//! `now` that it is given.

pub mod addons;
pub mod answer;
pub mod bootstrap;
pub mod call;
pub mod clone;
pub mod cluster;
pub mod control_plane;
pub mod deadline;
pub mod drain;
pub mod infrastructure;
pub mod lease;
pub mod lookup;
pub mod machine;
pub mod machine_deployment;
pub mod machine_health_check;
pub mod machine_hook;
pub mod machine_pool;
pub mod machine_set;
pub mod material;
pub mod naming;
pub mod plan;
pub mod plugin;
pub mod rollout;
pub mod selector;
pub mod volume;
