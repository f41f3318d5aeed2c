//! Gates: what somebody else says about the new machines, in a condition or an annotation.

use capstan_sdk::upgrade_strategy::{Facts, Machine};
use serde::Deserialize;

use crate::settings::Settings;

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Gate {
    /// A condition on every Machine of the new template, put there by something other than Cluster API: True passes, False
    /// fails, anything else is waited for.
    MachineCondition(String),
    /// A condition of the MachineDeployment itself.
    Condition(String),
    /// `canary.capstan.dev/<name>` on the MachineDeployment: `<revision>=pass` or `<revision>=fail`, from a person, a job that
    /// reads metrics, or an alert. What was said about another revision does not count.
    Annotation(String),
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// And what would open it.
    Pending(String),
    /// And why.
    Fail(String),
}

impl Gate {
    pub(crate) fn verdict(&self, facts: &Facts<Settings>, machines: &[&Machine]) -> Verdict {
        match self {
            Self::MachineCondition(condition) => {
                for machine in machines {
                    let status = facts.machine_condition(&machine.name, condition);
                    let what = format!("condition {condition} of Machine {}", machine.name);
                    match of_status(status, &what) {
                        Verdict::Pass => {}
                        other => return other,
                    }
                }
                Verdict::Pass
            }
            Self::Condition(condition) => of_status(
                facts.condition(condition),
                &format!("condition {condition} of the MachineDeployment"),
            ),
            Self::Annotation(name) => {
                let key = format!("canary.capstan.dev/{name}");
                let revision = facts.revision();
                let said = facts
                    .annotation(&key)
                    .and_then(|value| value.split_once('='));
                match said {
                    Some((of, word)) if of.trim() == revision.to_string() => {
                        match word.trim().to_ascii_lowercase().as_str() {
                            "pass" => Verdict::Pass,
                            "fail" => Verdict::Fail(format!("annotation {key} says fail")),
                            _ => Verdict::Pending(format!(
                                "annotation {key} to be {revision}=pass or {revision}=fail"
                            )),
                        }
                    }
                    _ => Verdict::Pending(format!("annotation {key} to be {revision}=pass")),
                }
            }
        }
    }
}

fn of_status(status: Option<&str>, what: &str) -> Verdict {
    match status {
        Some("True") => Verdict::Pass,
        Some("False") => Verdict::Fail(format!("{what} is False")),
        _ => Verdict::Pending(format!("{what} to be True")),
    }
}

/// All gates together: one that fails decides, then one that is not open yet.
pub(crate) fn all(facts: &Facts<Settings>, machines: &[&Machine]) -> Verdict {
    let verdicts = facts.settings.gates.iter();
    let verdicts: Vec<Verdict> = verdicts.map(|gate| gate.verdict(facts, machines)).collect();
    let failed = verdicts
        .iter()
        .find(|verdict| matches!(verdict, Verdict::Fail(_)));
    let pending = verdicts
        .iter()
        .find(|verdict| matches!(verdict, Verdict::Pending(_)));
    failed.or(pending).cloned().unwrap_or(Verdict::Pass)
}
