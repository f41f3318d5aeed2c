//! A guest that does on demand what the engine must survive: `context.config.do` (or `settings.do`) says what.
//!
//! The manifest takes no input; tests change [`MANIFEST`] in the built file, byte for byte, to get another one.
#![cfg(target_arch = "wasm32")]

wit_bindgen::generate!({
    path: "../../../wit/v0.1",
    inline: "
        package capstan:engine-probe;
        world probe {
            include capstan:plugin/capabilities@0.1.0;
            export capstan:plugin/manifest@0.1.0;
            export capstan:plugin/infrastructure@0.1.0;
            export capstan:plugin/bootstrap@0.1.0;
            export capstan:plugin/control-plane@0.1.0;
            export capstan:plugin/pre-delete-hook@0.1.0;
            export capstan:plugin/upgrade-strategy@0.1.0;
        }
    ",
    world: "capstan:engine-probe/probe",
    generate_all,
});

mod infrastructure;
mod manifest;
mod misbehave;
mod others;
mod reach;
mod world;

use capstan::plugin::types::{CallContext, Failure, FailureKind, Waiting};
use serde_json::Value;

/// Changed by tests in the built file: `plain`, `traps`, `names`, `dupes`, `silent`.
#[used]
static MANIFEST: [u8; 24] = *b"capstan-manifest:plain..";

/// Changed by tests in the built file to get another version: `plain`, `traps` (every call), `fails` (every call).
#[used]
static BEHAVIOUR: [u8; 24] = *b"capstan-behaves:plain...";

pub(crate) struct Probe;

fn mode_of(bytes: [u8; 24]) -> String {
    let text = String::from_utf8_lossy(&core::hint::black_box(bytes)).into_owned();
    let mode = text.split_once(':').map_or("", |(_, mode)| mode);
    mode.trim_end_matches('.').to_owned()
}

/// What the manifest does.
pub(crate) fn manifest_mode() -> String {
    mode_of(core::hint::black_box(MANIFEST))
}

/// What this version does in every call.
pub(crate) fn behaviour() -> String {
    mode_of(core::hint::black_box(BEHAVIOUR))
}

pub(crate) fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::Transient,
        reason: reason.to_owned(),
        message: message.into(),
        retry_after_ms: Some(1500),
    }
}

pub(crate) fn waiting(reason: &str, check_after_ms: u64) -> Waiting {
    Waiting {
        reason: reason.to_owned(),
        message: "the probe waits".to_owned(),
        check_after_ms,
    }
}

pub(crate) fn config_of(context: &CallContext) -> Value {
    serde_json::from_str(&context.config).unwrap_or(Value::Null)
}

pub(crate) fn text<'a>(config: &'a Value, key: &str) -> &'a str {
    config.get(key).and_then(Value::as_str).unwrap_or_default()
}

export!(Probe);
