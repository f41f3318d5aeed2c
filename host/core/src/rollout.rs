//! Rollout arithmetic of MachineDeployments: what a strategy is told, what its answer may be, and what the host does without
//! one (contract: upstream `internal/controllers/machinedeployment`).
//!
//! ```text
//!   facts  ->  strategy (untrusted)  ->  check  ->  Checked  ->  MachineSets
//! ```

pub mod check;
pub mod conditions;
pub mod count;
pub mod extra;
pub mod facts;
pub mod forecast;
pub mod limits;
pub mod merge;
pub mod paused;
pub mod simulation;
pub mod template;

pub use check::{Checked, Violation, check};
pub use facts::facts;
pub use limits::Limits;
