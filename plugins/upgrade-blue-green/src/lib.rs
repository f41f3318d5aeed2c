//! upgrade-blue-green: a full second set of machines, a switch by label and taint, and the old set kept for a while.

mod plan;
mod settings;

use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};

pub use settings::{Settings, Switch};

/// The strategy.
pub struct BlueGreen;

impl Plugin for BlueGreen {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-blue-green", env!("CARGO_PKG_VERSION")).description(
            "Makes a full set of new machines, switches to it by label and taint, and keeps the old set for a while.",
        )
    }
}

impl UpgradeStrategy for BlueGreen {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        plan::plan(&facts)
    }
}

capstan_sdk::export_upgrade_strategy!(BlueGreen);
