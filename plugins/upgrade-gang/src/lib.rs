//! upgrade-gang: replaces machines in groups that go together and come together.

mod group;
mod plan;

use capstan_sdk::upgrade_strategy::{Answer, Facts, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde::Deserialize;

/// Settings of the strategy. What is left out groups all machines by their failure domain.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// What machines of one group have in common.
    pub group_by: GroupBy,
    /// The most machines of a group; larger ones are cut into groups of this size.
    pub size: Option<u32>,
    /// Whether a group may be made before another one goes.
    pub surge: Surge,
}

/// What machines of one group have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GroupBy {
    /// Their failure domain.
    #[default]
    FailureDomain,
    /// The class of scarce capacity that they use.
    CapacityClass,
    /// The value of a label of the Machine that strategies see.
    Label(String),
    /// Nothing: groups are only a number of machines.
    Nothing,
}

/// Whether a group may be made before another one goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Surge {
    /// Unless machines say that their capacity is scarce, by the label `capstan.dev/capacity-class`.
    #[default]
    WhenNotScarce,
    /// Devices are scarce: never.
    Never,
}

/// The strategy.
pub struct Gang;

impl Plugin for Gang {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-gang", env!("CARGO_PKG_VERSION")).description(
            "Replaces machines in groups that go and come together, without surge where devices are scarce.",
        )
    }
}

impl UpgradeStrategy for Gang {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        plan::plan(&facts)
    }
}

capstan_sdk::export_upgrade_strategy!(Gang);
