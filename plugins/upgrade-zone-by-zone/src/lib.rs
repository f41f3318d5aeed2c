//! upgrade-zone-by-zone: replaces the machines of one failure domain after another, with a pause between them.

mod plan;

use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde::Deserialize;

/// Settings of the strategy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Failure domains in the order in which they are replaced; those that are not named follow by name, and machines without
    /// one come last.
    pub order: Vec<String>,
    /// How long to wait after a failure domain is done.
    pub pause_seconds: u64,
}

/// The strategy.
pub struct ZoneByZone;

impl Plugin for ZoneByZone {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-zone-by-zone", env!("CARGO_PKG_VERSION")).description(
            "Replaces machines one failure domain after another, with a pause between them.",
        )
    }
}

impl UpgradeStrategy for ZoneByZone {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        plan::plan(&facts)
    }
}

capstan_sdk::export_upgrade_strategy!(ZoneByZone);
