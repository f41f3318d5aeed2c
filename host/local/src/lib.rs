//! A management cluster and a small cloud on one machine. Knows none of the other host crates.

pub mod audit;
pub mod cloud;
pub mod command;
pub mod control_plane;
pub mod images;
pub mod machine;
mod out;
pub mod pki;
pub mod port;
pub mod probe;
pub mod process;
pub mod progress;
pub mod state;
pub mod toolchain;
