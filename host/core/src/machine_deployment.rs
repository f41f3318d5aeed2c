//! MachineDeployment: which MachineSet is current, which sets there should be and how large, and what the status says
//! (contract: upstream `internal/controllers/machinedeployment`, contract 3.5).

pub mod decide;
pub mod desired;
pub mod observed;
pub mod report;
pub mod verdict;

use capstan_api::v1beta2::{MachineDeployment, MachineSet};

pub use decide::{Step, decide};
pub use observed::{Current, Observed, SetSeen, StrategyAnswer, StrategySeen};
pub use report::{Reported, report};
pub use verdict::{Verdict, needs_plan, verdict};

use crate::rollout::{count, template};

/// Why machines of a set have to be replaced, one sentence each; empty when they are up to date.
#[must_use]
pub fn outdated(deployment: &MachineDeployment, set: &MachineSet) -> Vec<String> {
    let mut reasons = template::differences(&set.spec.template, &deployment.spec.template);
    if reasons.is_empty() && is_outdated_revision(deployment, set) {
        // A rotation of the Cluster's authorities makes a new revision as well: it says so by itself, and these words are upstream's.
        reasons.push("MachineDeployment spec.rolloutAfter expired".to_owned());
    }
    reasons
}

/// Whether the set's revision is older than the deployment's.
#[must_use]
pub fn is_outdated_revision(deployment: &MachineDeployment, set: &MachineSet) -> bool {
    let revision = |metadata| {
        count::annotation(metadata, capstan_api::annotation::REVISION)
            .and_then(|revision| revision.parse::<u64>().ok())
    };
    match (revision(&set.metadata), revision(&deployment.metadata)) {
        (Some(set), Some(deployment)) => set < deployment,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
