//! upgrade-rolling-update: replaces machines a few at a time, within `maxSurge` and `maxUnavailable`.

mod plan;

use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde::Deserialize;

/// The strategy has no settings: its limits are the deployment's.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Settings {}

/// The strategy that `rollout.strategy.type: RollingUpdate` asks for.
pub struct RollingUpdate;

impl Plugin for RollingUpdate {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-rolling-update", env!("CARGO_PKG_VERSION"))
            .description("Replaces machines a few at a time, within maxSurge and maxUnavailable.")
    }
}

impl UpgradeStrategy for RollingUpdate {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        Ok(plan::plan(&facts))
    }
}

capstan_sdk::export_upgrade_strategy!(RollingUpdate);
