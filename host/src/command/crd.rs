//! `capstan crd`: what `capstan run` installs by itself, for those who install it by other means.

use std::process::ExitCode;

use crate::out;

/// Prints everything as YAML documents.
pub(super) fn run() -> ExitCode {
    out::result(capstan_api::manifests::yaml().trim_end());
    ExitCode::SUCCESS
}
