//! Hostile guest: traps when it is asked what it is.

use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde_json::Value;

/// The plugin.
pub struct TrapInManifest;

impl Plugin for TrapInManifest {
    fn manifest() -> Manifest {
        std::process::abort()
    }
}

impl PreDeleteHook for TrapInManifest {
    type Settings = Value;

    fn run(_: HookInput<Value>) -> Result<Verdict, Failure> {
        Ok(Verdict::Proceed)
    }
}

capstan_sdk::export_pre_delete_hook!(TrapInManifest);
