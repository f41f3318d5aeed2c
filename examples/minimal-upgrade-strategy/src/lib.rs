//! The smallest upgrade strategy: one machine at a time, always made before one is removed.

use capstan_sdk::upgrade_strategy::{Answer, Facts, Target, UpgradeStrategy};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde::Deserialize;

/// The operator's settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Changes nothing while it is true.
    pub hold: bool,
}

/// The plugin.
pub struct OneByOne;

impl Plugin for OneByOne {
    fn manifest() -> Manifest {
        Manifest::new("upgrade-one-by-one", env!("CARGO_PKG_VERSION"))
            .description("One machine at a time; needs a maxSurge of at least 1.")
    }
}

impl UpgradeStrategy for OneByOne {
    type Settings = Settings;

    fn plan(facts: Facts<Settings>) -> Result<Answer, Failure> {
        if facts.max_surge == 0 {
            let message = "spec.rollout.strategy.rollingUpdate.maxSurge must be at least 1";
            return Err(Failure::terminal("NeedsSurge", message));
        }
        let moving = facts.machine_sets.iter().any(|set| {
            let counts = [set.actual_replicas, set.available_replicas];
            counts.iter().any(|count| *count != set.desired_replicas)
        });
        let Some(current) = facts.current().filter(|_| !moving && !facts.settings.hold) else {
            return Ok(Answer::unchanged().message("one machine is on its way"));
        };
        let wanted: u32 = facts
            .machine_sets
            .iter()
            .map(|set| set.desired_replicas)
            .sum();
        let oldest = facts.old().find(|set| set.desired_replicas > 0);
        Ok(match oldest {
            Some(oldest) if wanted > facts.replicas => {
                let left = oldest.desired_replicas.saturating_sub(1);
                Answer::unchanged().target(Target::new(&oldest.name, left))
            }
            Some(_) => {
                let more = current.desired_replicas.saturating_add(1);
                Answer::unchanged().target(Target::new(&current.name, more))
            }
            None => Answer::unchanged().target(Target::new(&current.name, facts.replicas)),
        })
    }
}

capstan_sdk::export_upgrade_strategy!(OneByOne);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::upgrade_strategy::MachineSet;

    fn plan(new: u32, old: u32) -> Vec<Target> {
        let set = |name: &str, current, n| MachineSet {
            name: name.to_owned(),
            current,
            desired_replicas: n,
            actual_replicas: n,
            available_replicas: n,
            ..MachineSet::default()
        };
        let facts = Facts {
            now_ms: 0,
            deployment: "default/test".to_owned(),
            version: String::new(),
            replicas: 2,
            max_surge: 1,
            max_unavailable: 0,
            machine_sets: vec![set("new", true, new), set("old", false, old)],
            settings: Settings::default(),
            state: None,
            extra: Default::default(),
        };
        OneByOne::plan(facts).unwrap().targets
    }

    #[test]
    fn makes_one_and_then_removes_one() {
        assert_eq!(plan(0, 2), [Target::new("new", 1)]);
        assert_eq!(plan(1, 2), [Target::new("old", 1)]);
        assert_eq!(plan(2, 0), [Target::new("new", 2)]);
    }
}
