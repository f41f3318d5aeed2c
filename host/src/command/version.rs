//! `capstan version`.

use std::process::ExitCode;

use crate::out;

/// Prints the version.
pub(super) fn run() -> ExitCode {
    out::result(&format!("capstan {}", env!("CARGO_PKG_VERSION")));
    ExitCode::SUCCESS
}
