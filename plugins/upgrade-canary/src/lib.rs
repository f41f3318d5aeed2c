//! upgrade-canary: a few machines first, a pause and gates after each step, and the way back when they fail.

mod gate;
mod memory;
mod plan;
mod settings;

use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};

pub use gate::Gate;
pub use settings::{Action, Settings, Share, Step};

/// The strategy.
pub struct Canary;

impl Plugin for Canary {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-canary", env!("CARGO_PKG_VERSION")).description(
            "Replaces machines in steps with pauses and gates, and rolls back when a step fails.",
        )
    }
}

impl UpgradeStrategy for Canary {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        plan::plan(&facts)
    }
}

capstan_sdk::export_upgrade_strategy!(Canary);
