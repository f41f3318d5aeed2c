//! MachinePool: copies what its infrastructure and bootstrap objects report, finds the Nodes of its machines, has Machines made where the
//! provider wants them, and goes after what it consists of.
//!
//! Contract: upstream `core/reconcilers/machinepool`, contract 3.7.

pub mod decide;
pub mod deletion;
pub mod machines;
pub mod nodes;
pub mod observed;
pub mod report;

pub use decide::{Effect, Step, decide, reports_next_time, until_turn};
pub use observed::{Nodes, Observed};
pub use report::{Reported, report};

#[cfg(test)]
mod tests;
