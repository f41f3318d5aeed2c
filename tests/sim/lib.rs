//! The host's controllers, as they run in production, in a world that follows from one seed: time, API servers, clouds, plugins and
//! all that goes wrong. Every step is held against what must always be true; `README.md` says what that is.

pub mod basis;
pub mod behaviour;
pub mod check;
pub mod cloud;
pub mod etcd;
pub mod fault;
pub mod hook;
pub mod host;
pub mod kinds;
pub mod membership;
pub mod nature;
pub mod object;
pub mod plugin;
pub mod random;
pub mod rights;
pub mod run;
pub mod scenario;
pub mod server;
pub mod shrink;
pub mod stacked;
pub mod store;
pub mod strategy;
pub mod trace;
pub mod world;

pub use run::{Outcome, run};
pub use scenario::Plan;
