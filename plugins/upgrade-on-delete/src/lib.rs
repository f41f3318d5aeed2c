//! upgrade-on-delete: machines are replaced when somebody deletes them, and not before.

mod plan;

use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde::Deserialize;

/// The strategy has no settings.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Settings {}

/// The strategy that `rollout.strategy.type: OnDelete` asks for.
pub struct OnDelete;

impl Plugin for OnDelete {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-on-delete", env!("CARGO_PKG_VERSION"))
            .description("Replaces machines when somebody deletes them.")
    }
}

impl UpgradeStrategy for OnDelete {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        Ok(plan::plan(&facts))
    }
}

capstan_sdk::export_upgrade_strategy!(OnDelete);
