//! Cluster: its infrastructure and control plane, what belongs to it, its deletion in order, and what the status says (contract:
//! upstream `internal/controllers/cluster`, contract 3.2).

pub mod counts;
pub mod decide;
pub mod deletion;
pub mod observed;
pub mod report;

pub use decide::{Step, decide};
pub use observed::{Kubeconfig, Observed, Probe};
pub use report::{Reported, report};

#[cfg(test)]
mod tests;
