//! What Capstan stores: Cluster API kinds, conditions, reasons and contract paths. No async, no client.

#![expect(
    clippy::duplicated_attributes,
    reason = "printer columns repeat their type; each belongs to a printcolumn of its own"
)]

pub mod addons;
pub mod admission;
pub mod annotation;
pub mod condition;
pub mod contract;
pub mod crd;
pub mod finalizer;
pub mod inventory;
pub mod ipam;
pub mod label;
pub mod machine_hook;
pub mod manifests;
pub mod name;
pub mod plugin;
pub mod reason;
pub mod schema;
pub mod v1beta2;
pub mod yaml;
