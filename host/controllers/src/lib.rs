//! Watch, observe, perform, report: the only crate with a Kubernetes client.
//!
//! Entry points: [`registry`] lists the controllers, [`driver`] runs them, [`controller`] says what one is.

pub mod adoption_plan;
pub mod bootstrap;
pub mod bootstrap_report;
pub mod cluster;
pub mod control_plane;
pub mod controller;
pub mod ctx;
pub mod drain;
pub mod driver;
pub mod etcd;
pub mod event;
pub mod infrastructure;
pub mod install;
pub mod kinds;
pub mod kube_api;
pub mod lease;
pub mod machine;
pub mod machine_deployment;
pub mod machine_health_check;
pub mod machine_hook;
pub mod machine_set;
pub mod metrics;
pub mod object;
pub mod parallel;
pub mod pki;
pub mod plugin;
pub mod plugin_source;
pub mod plugins;
pub mod queue;
pub mod reference;
pub mod registry;
pub mod resource_set;
pub mod resource_set_binding;
pub mod rollout_plan;
pub mod secrets;
pub mod status;
pub mod store;
pub mod stores;
pub mod tasks;
pub mod watcher;
pub mod workloads;
