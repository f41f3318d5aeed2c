//! Watch, observe, perform, report: the only crate with a Kubernetes client.
//!
//! Entry points: [`registry`] lists the controllers, [`driver`] runs them, [`controller`] says what one is.

pub mod controller;
pub mod ctx;
pub mod driver;
pub mod kinds;
pub mod kube_api;
pub mod metrics;
pub mod object;
pub mod plugins;
pub mod queue;
pub mod registry;
pub mod secrets;
pub mod status;
pub mod store;
pub mod stores;
pub mod tasks;
pub mod watcher;
pub mod workloads;
