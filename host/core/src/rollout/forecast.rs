//! What a strategy would do for a change, before anything is done: it is asked again and again about a simulated deployment until
//! the rollout is done, stands still, or is blocked.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::Value;

use super::simulation::{Error, Simulation, is_available, is_deleting};
use crate::machine_deployment::{Observed, Verdict, verdict};

/// A machine is taken to need so long to come or to go; only the pauses of a strategy are known better.
pub const MACHINE_TIME: Duration = Duration::from_secs(120);

/// Nothing changed for so long: the strategy waits for something that the simulation does not bring.
const QUIET_MAX: Duration = Duration::from_secs(48 * 3600);

/// The most times a strategy is asked: more than any rollout of a thousand machines, one at a time, takes.
const ASKED_MAX: usize = 10_000;

/// One MachineSet at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetState {
    /// Name.
    pub name: String,
    /// Version of its template.
    pub version: String,
    /// Made from the wanted template.
    pub current: bool,
    /// `spec.replicas`.
    pub replicas: u64,
    /// Machines that stay.
    pub machines: usize,
    /// Machines that are available.
    pub available: usize,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Seconds since the change was made.
    pub after_seconds: u64,
    /// Oldest first, the wanted template last.
    pub machine_sets: Vec<SetState>,
    /// How many machines are made.
    pub made: usize,
    /// Machines that are deleted.
    pub deleted: Vec<String>,
    /// What the strategy says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the strategy waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// How it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "ending", content = "why")]
pub enum Ending {
    /// All machines match what is wanted.
    Done,
    /// It waits for something that only somebody else can do.
    Waits(String),
    /// It cannot go on.
    Blocked(String),
    /// It does not end in a time that is worth simulating.
    TooLong,
}

/// A rollout that is being looked at ahead of time.
#[derive(Debug)]
pub struct Forecast {
    simulation: Simulation,
    begun: jiff::Timestamp,
    quiet: Duration,
    asked: usize,
    steps: Vec<Step>,
}

impl Forecast {
    /// Begins with a changed deployment.
    #[must_use]
    pub fn new(simulation: Simulation) -> Self {
        Self {
            begun: simulation.now(),
            simulation,
            quiet: Duration::ZERO,
            asked: 0,
            steps: Vec::new(),
        }
    }

    /// The world as it is now.
    #[must_use]
    pub fn simulation(&self) -> &Simulation {
        &self.simulation
    }

    /// All steps so far.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Takes one turn with what the strategy answered in `observed`. Answers how it ends, once it does.
    ///
    /// # Errors
    /// When the world breaks.
    pub fn turn(&mut self, observed: &Observed) -> Result<Option<Ending>, Error> {
        self.asked = self.asked.saturating_add(1);
        let now = self.simulation.now();
        let verdict = verdict(observed, now);
        let before: BTreeSet<String> = self.simulation.machines().keys().cloned().collect();
        let shape = self.states(observed);
        self.simulation.reconcile_deployment(observed, None)?;
        self.simulation.reconcile_sets()?;
        let deleted = self.deleting();
        let made = self.simulation.machines().keys();
        let made = made.filter(|name| !before.contains(*name)).count();
        let after = self.observed_states()?;
        let moved = made > 0 || !deleted.is_empty() || after != shape;
        let (message, waits_for, check_after) = words(&verdict);
        let said = self
            .steps
            .last()
            .is_none_or(|last| last.message != message || last.waits_for != waits_for);
        let settled = verdict == Verdict::Settled;
        if moved || (said && !settled) {
            let since = now.duration_since(self.begun).as_secs();
            self.steps.push(Step {
                after_seconds: u64::try_from(since).unwrap_or_default(),
                machine_sets: after,
                made,
                deleted,
                message,
                waits_for: waits_for.clone(),
            });
        }
        self.simulation.deleted_machines_go();
        self.simulation.all_become_available();
        Ok(self.ending(&verdict, moved, waits_for, check_after, observed))
    }

    fn ending(
        &mut self,
        verdict: &Verdict,
        moved: bool,
        waits_for: Option<String>,
        check_after: Option<Duration>,
        observed: &Observed,
    ) -> Option<Ending> {
        let blocker = match verdict {
            Verdict::Accepted(checked) if checked.is_idle() && moved => None,
            _ => verdict.blocker(&observed.strategy.name),
        };
        if let Some(why) = blocker {
            return Some(Ending::Blocked(why));
        }
        if moved {
            self.quiet = Duration::ZERO;
            self.pass(MACHINE_TIME);
        } else {
            if *verdict == Verdict::Settled {
                return Some(Ending::Done);
            }
            if let Verdict::Paused(_) = verdict {
                let why = "spec.paused is true: nothing is rolled out".to_owned();
                return Some(Ending::Blocked(why));
            }
            if let Verdict::Accepted(checked) = verdict
                && checked.roll_back().is_some()
            {
                return Some(Ending::Blocked(checked.message().to_owned()));
            }
            let step = check_after.unwrap_or(MACHINE_TIME);
            self.quiet = self.quiet.saturating_add(step);
            self.pass(step);
        }
        if self.quiet >= QUIET_MAX {
            return Some(Ending::Waits(waits_for.unwrap_or_default()));
        }
        (self.asked >= ASKED_MAX).then_some(Ending::TooLong)
    }

    fn pass(&mut self, time: Duration) {
        let time = SignedDuration::try_from(time).unwrap_or_default();
        self.simulation.pass_time(time);
    }

    fn deleting(&self) -> Vec<String> {
        let machines = self.simulation.machines().iter();
        machines
            .filter(|(_, machine)| is_deleting(machine))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn observed_states(&self) -> Result<Vec<SetState>, Error> {
        let observed = self.simulation.observe()?;
        Ok(observed.map(|o| self.states(&o)).unwrap_or_default())
    }

    fn states(&self, observed: &Observed) -> Vec<SetState> {
        let now = self.simulation.now();
        let current = observed
            .existing_current(now)
            .map(|seen| seen.name().to_owned());
        let sets = self.simulation.sets().iter().map(|(name, set)| {
            let staying: Vec<&Value> = self
                .simulation
                .machines_of(set)
                .filter(|machine| !is_deleting(machine))
                .collect();
            let version = set.pointer("/spec/template/spec/version");
            SetState {
                name: name.clone(),
                version: version.and_then(Value::as_str).unwrap_or("-").to_owned(),
                current: current.as_ref() == Some(name),
                replicas: set
                    .pointer("/spec/replicas")
                    .and_then(Value::as_u64)
                    .unwrap_or_default(),
                machines: staying.len(),
                available: staying.iter().filter(|m| is_available(m)).count(),
            }
        });
        let mut states: Vec<SetState> = sets.collect();
        let created = |state: &SetState| {
            let set = self.simulation.sets().get(&state.name);
            let time = set.and_then(|set| set.pointer("/metadata/creationTimestamp"));
            time.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        states.sort_by_key(|state| (state.current, created(state), state.name.clone()));
        states
    }
}

/// What a strategy says, what it waits for, and how long at most.
fn words(verdict: &Verdict) -> (String, Option<String>, Option<Duration>) {
    match verdict {
        Verdict::Accepted(checked) => (
            checked.message().to_owned(),
            checked.waiting().map(|waiting| waiting.message.clone()),
            checked.waiting().map(|waiting| waiting.check_after),
        ),
        _ => (String::new(), None, None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::call::Waiting;
    use crate::call::strategy::{Answer, Target};
    use crate::machine_deployment::{StrategyAnswer, needs_plan};

    fn forecast() -> Forecast {
        let deployment = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment",
            "metadata": {"name": "d", "namespace": "ns", "uid": "uid-d"},
            "spec": {
                "clusterName": "c", "replicas": 2, "selector": {},
                "template": {"spec": {
                    "clusterName": "c", "version": "v1.36.0", "bootstrap": {"dataSecretName": "s"},
                    "infrastructureRef": {"apiGroup": "g.x-k8s.io", "kind": "KTemplate", "name": "t"},
                }},
            },
        });
        let cluster = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "c", "namespace": "ns", "uid": "uid-c"}, "spec": {},
        });
        let cluster = serde_json::from_value(cluster).expect("a cluster");
        let now = "2026-06-01T00:00:00Z".parse().expect("a time");
        Forecast::new(Simulation::new(deployment, cluster, now))
    }

    fn run(forecast: &mut Forecast, mut answer: impl FnMut(&str) -> Answer) -> Ending {
        loop {
            let now = forecast.simulation().now();
            let observed = forecast.simulation().observe().expect("readable");
            let mut observed = observed.expect("there");
            if needs_plan(&observed, now) {
                let current = observed.current(now).name();
                observed.strategy.answer = StrategyAnswer::Answer(Box::new(answer(&current)));
            }
            if let Some(ending) = forecast.turn(&observed).expect("possible") {
                return ending;
            }
        }
    }

    fn target(set: &str, replicas: u32) -> Answer {
        Answer {
            targets: vec![Target {
                machine_set: set.to_owned(),
                replicas,
                create_disabled: false,
            }],
            ..Answer::default()
        }
    }

    #[test]
    fn a_strategy_that_finishes_is_done() {
        let mut forecast = forecast();
        assert_eq!(run(&mut forecast, |set| target(set, 2)), Ending::Done);
        let steps = forecast.steps();
        assert_eq!(steps.iter().map(|step| step.made).sum::<usize>(), 2);
        let last = steps.last().expect("steps");
        assert_eq!(last.machine_sets.len(), 1);
        assert_eq!(last.machine_sets[0].version, "v1.36.0");
    }

    #[test]
    fn one_that_waits_for_a_person_says_for_what() {
        let mut forecast = forecast();
        let waits = |set: &str| Answer {
            waiting: Some(Waiting {
                reason: "Approval".to_owned(),
                message: "somebody to approve".to_owned(),
                check_after: Duration::from_secs(600),
            }),
            ..target(set, 1)
        };
        let ending = run(&mut forecast, waits);
        assert_eq!(ending, Ending::Waits("somebody to approve".to_owned()));
    }

    #[test]
    fn an_answer_that_breaks_a_rule_blocks() {
        let mut forecast = forecast();
        let Ending::Blocked(why) = run(&mut forecast, |set| target(set, 9)) else {
            panic!("nine of two are not blocked");
        };
        assert!(why.contains("9 machines"), "{why}");
    }
}
