//! What Capstan stores: Cluster API kinds, conditions, reasons and contract paths. No async, no client.

#![expect(
    clippy::duplicated_attributes,
    reason = "printer columns repeat their type; each belongs to a printcolumn of its own"
)]

pub mod annotation;
pub mod condition;
pub mod contract;
pub mod finalizer;
pub mod label;
pub mod name;
pub mod plugin;
pub mod reason;
pub mod schema;
pub mod v1beta2;
