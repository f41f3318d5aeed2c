//! Hostile guest: an upgrade strategy that removes all old machines before there is a new one.

use capstan_sdk::upgrade_strategy::{Answer, Facts, Target, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde_json::Value;

/// The plugin.
pub struct Reckless;

impl Plugin for Reckless {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-reckless", "0.1.0").description("Removes before it adds.")
    }
}

impl UpgradeStrategy for Reckless {
    type Settings = Value;

    fn plan(facts: Facts<Value>) -> Result<Answer, Failure> {
        let mut answer = Answer::unchanged();
        for set in &facts.machine_sets {
            let replicas = if set.current { facts.replicas } else { 0 };
            answer = answer.target(Target::new(&set.name, replicas));
        }
        Ok(answer)
    }
}

capstan_sdk::export_upgrade_strategy!(Reckless);
