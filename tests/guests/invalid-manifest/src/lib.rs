//! Hostile guest: a manifest in which nothing is as it should be.

use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::{
    CapabilityRequest, Column, Failure, KindRole, Manifest, OwnedKind, Plugin, schema,
};
use serde_json::Value;

/// The plugin.
pub struct InvalidManifest;

impl Plugin for InvalidManifest {
    fn manifest() -> Manifest {
        let column = Column {
            name: String::new(),
            json_path: "spec[".to_owned(),
            column_type: "text".to_owned(),
            priority: u32::MAX,
        };
        let mut kind = OwnedKind::new(KindRole::ControlPlane, "Not A Group", "not-a-kind")
            .version("latest")
            .plural("Not Plural")
            .short_name("!")
            .spec(schema::from_json("{not json"))
            .status(schema::string());
        kind.columns.push(column);
        let mut capability = CapabilityRequest::http("");
        capability.name = "root".to_owned();
        Manifest::new("Not A Name\n", "v1")
            .kind(kind.clone())
            .kind(kind)
            .asks_for(capability)
    }
}

impl PreDeleteHook for InvalidManifest {
    type Settings = Value;

    fn run(_: HookInput<Value>) -> Result<Verdict, Failure> {
        Ok(Verdict::Proceed)
    }
}

capstan_sdk::export_pre_delete_hook!(InvalidManifest);
