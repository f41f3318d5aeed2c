//! What Capstan stores: Cluster API kinds, conditions, reasons and contract paths. No async, no client.

pub mod schema;
pub mod v1beta2;
