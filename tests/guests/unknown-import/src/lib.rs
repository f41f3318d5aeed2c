//! Hostile guest: imports an interface that no host has, `capstan:plugin/unknown@0.1.0`.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, unsafe_code, reason = "generated bindings")]

use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde_json::Value;

wit_bindgen::generate!({
    inline: "
        package capstan:plugin@0.1.0;
        interface unknown { allowed: func() -> bool; }
        world unknown-importer { import unknown; }
    ",
    world: "unknown-importer",
    generate_all,
});

/// The plugin.
pub struct UnknownImport;

impl Plugin for UnknownImport {
    fn manifest() -> Manifest {
        Manifest::new("pre-delete-unknown-import", "0.1.0").description("Needs what is not there.")
    }
}

impl PreDeleteHook for UnknownImport {
    type Settings = Value;

    fn run(_: HookInput<Value>) -> Result<Verdict, Failure> {
        match capstan::plugin::unknown::allowed() {
            true => Ok(Verdict::Proceed),
            false => Err(Failure::unsupported(
                "NotAllowed",
                "the unknown interface says no",
            )),
        }
    }
}

capstan_sdk::export_pre_delete_hook!(UnknownImport);
