//! What integration tests share: a management cluster of real servers, a cloud, a host, and words to speak to them.
//!
//! A test takes the weakest thing that can fail for the right reason: [`host::TestHost::shared`] with a namespace of its own
//! where it disturbs nobody, [`host::TestHost::start`] where counts, faults or plugins are its own, and
//! [`process::HostProcess`] where the host has to die.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stderr,
    reason = "the kit is code of tests: what is not as expected ends the test with the place where it was noticed"
)]

pub mod cloud;
pub mod cluster;
pub mod clusterctl;
pub mod collector;
pub mod control_plane;
pub mod endpoint;
pub mod etcd;
pub mod eventually;
pub mod faults;
pub mod foreign;
pub mod host;
pub mod in_cluster;
pub mod installation;
pub mod kube_client;
pub mod kubectl;
pub mod object_store;
pub mod page;
pub mod plain_http;
pub mod pool;
pub mod probe;
pub mod process;
pub mod registry;
pub mod runtime;
pub mod served;
pub mod wasm;
pub mod watcher;

pub use eventually::{PATIENCE, eventually};
pub use runtime::run;
