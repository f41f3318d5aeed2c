//! Infrastructure machines: wait for owner, cluster and bootstrap data, then ask the plugin until the instance is there.

use capstan_api::annotation;
use capstan_api::condition::Report;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    NotYet, Standing, is_due, is_externally_managed, kept_status, own_conditions, ready_condition,
    recheck_after,
};
use crate::call::infrastructure::{DeletionAnswer, MachineAnswer};
use crate::call::{Deletion, Progress};
use crate::lookup::Lookup;
use crate::plan::{Next, Outcome, Plan};

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The infrastructure machine.
    pub object: Value,
    /// The Machine that owns it.
    pub machine: Lookup<Value>,
    /// The Cluster.
    pub cluster: Lookup<Value>,
    /// The infrastructure cluster.
    pub infra_cluster: Lookup<Value>,
    /// Name of the plugin that installed the kind, as its CustomResourceDefinition says; it need not be active.
    pub owner: Option<String>,
    /// Name of the plugin that owns the kind; `None` when none is active.
    pub plugin: Option<String>,
    /// When the plugin was last asked about this object, in this process.
    pub asked: Option<Timestamp>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the plugin for the instance, and write what it is.
    Ensure,
    /// Ask the plugin to remove the instance.
    Delete,
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To `Ensure`, checked.
    Machine(Box<MachineAnswer>),
    /// To `Delete`, checked.
    Deletion(DeletionAnswer),
}

/// What is waited for before the plugin is called, if anything.
#[must_use]
pub fn not_yet(observed: &Observed) -> Option<NotYet> {
    let plugin_missing = || {
        NotYet::new(
            "PluginMissing",
            super::plugin_missing(text(&observed.object, "/kind"), observed.owner.as_deref()),
        )
    };
    if is_deleting(&observed.object) {
        return observed.plugin.is_none().then(plugin_missing);
    }
    let machine = match &observed.machine {
        Lookup::Found(machine) => machine,
        Lookup::Missing => {
            return Some(NotYet::new(
                "WaitingForOwnerMachine",
                "waiting for the Machine controller to set the owner reference to a Machine",
            ));
        }
        Lookup::Unknown(why) => return Some(NotYet::new("InternalError", why.clone())),
    };
    let Some(cluster) = observed.cluster.found() else {
        return Some(NotYet::new(
            "WaitingForCluster",
            "waiting for the Cluster to exist",
        ));
    };
    if cluster.pointer("/status/initialization/infrastructureProvisioned") != Some(&json!(true)) {
        return Some(NotYet::new(
            "WaitingForClusterInfrastructureReady",
            "waiting for Cluster status.initialization.infrastructureProvisioned to be true",
        ));
    }
    if observed.infra_cluster.found().is_none() {
        return Some(NotYet::new(
            "WaitingForClusterInfrastructureReady",
            "waiting for the infrastructure cluster that Cluster spec.infrastructureRef names",
        ));
    }
    if text(machine, "/spec/bootstrap/dataSecretName").is_empty() {
        return Some(NotYet::new(
            "WaitingForBootstrapData",
            "waiting for Machine spec.bootstrap.dataSecretName",
        ));
    }
    observed.plugin.is_none().then(plugin_missing)
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if is_externally_managed(&observed.object) {
        return Plan::settled();
    }
    if let Some(wait) = not_yet(observed) {
        return Plan::settled().waiting(wait.reason, wait.message);
    }
    if is_deleting(&observed.object) {
        return Plan::of(vec![Step::Delete]);
    }
    let uid = text(&observed.object, "/metadata/uid");
    let settled = is_settled(&observed.object);
    if settled && !is_due(observed.asked, now, uid) {
        return Plan::settled().check_after(recheck_after(uid));
    }
    Plan::of(vec![Step::Ensure])
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, outcome: &Outcome<Step, Effect>) -> Reported {
    let mut status = kept_status(&observed.object);
    let wait = not_yet(observed);
    let plugin = observed.plugin.as_deref().unwrap_or("plugin");
    let mut conditions = Vec::new();
    let mut next = None;
    let mut finished = is_deleting(&observed.object) && is_externally_managed(&observed.object);
    let standing = match (&outcome.failed, outcome.done.first()) {
        (Some((_, failure)), _) => Standing::Failed(failure),
        (None, Some((_, Effect::Machine(answer)))) => {
            conditions.extend(own_conditions(&answer.conditions));
            status.extend(machine_status(answer));
            next = Some(match &answer.progress {
                Progress::Ready => {
                    Next::CheckAfter(recheck_after(text(&observed.object, "/metadata/uid")))
                }
                Progress::Waiting(waiting) => Next::CheckAfter(waiting.check_after),
            });
            Standing::of(&answer.progress)
        }
        (None, Some((_, Effect::Deletion(answer)))) => {
            conditions.extend(own_conditions(&answer.conditions));
            match &answer.deletion {
                Deletion::Gone => {
                    finished = true;
                    Standing::Unchanged
                }
                Deletion::Waiting(waiting) => {
                    next = Some(Next::CheckAfter(waiting.check_after));
                    Standing::Waiting(waiting)
                }
            }
        }
        (None, None) => wait.as_ref().map_or(Standing::Unchanged, Standing::NotYet),
    };
    conditions.extend(ready_condition(
        &standing,
        plugin,
        is_deleting(&observed.object),
    ));
    Reported {
        status: Value::Object(status),
        conditions,
        next,
        finished,
    }
}

/// Parts of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: Value,
    /// Conditions.
    pub conditions: Vec<Report>,
    /// Sooner than the plan said.
    pub next: Option<Next>,
    /// The finalizer may go.
    pub finished: bool,
}

fn machine_status(answer: &MachineAnswer) -> serde_json::Map<String, Value> {
    let mut status = answer.status.as_object().cloned().unwrap_or_default();
    if !answer.addresses.is_empty() {
        let addresses: Vec<Value> = answer
            .addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        status.insert("addresses".to_owned(), Value::Array(addresses));
    }
    if let Some(domain) = &answer.failure_domain {
        status.insert("failureDomain".to_owned(), json!(domain));
    }
    if answer.interruptible {
        status.insert("interruptible".to_owned(), json!(true));
    }
    if answer.progress == Progress::Ready {
        // One-shot: once true it stays (contract 2.3).
        status.insert("initialization".to_owned(), json!({"provisioned": true}));
    }
    status
}

/// The merge patch of the main resource that an answer asks for; `None` when nothing differs.
#[must_use]
pub fn patch(object: &Value, answer: &MachineAnswer, state: Option<&str>) -> Option<Value> {
    let mut patch = serde_json::Map::new();
    if let Some(id) = answer.provider_id.as_deref()
        && text(object, "/spec/providerID") != id
    {
        patch.insert("spec".to_owned(), json!({"providerID": id}));
    }
    if let Some(state) = state
        && object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(annotation::PLUGIN_STATE))
            != Some(&json!(state))
    {
        patch.insert(
            "metadata".to_owned(),
            json!({"annotations": {annotation::PLUGIN_STATE: state}}),
        );
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Provisioned, with the present spec, and ready when last asked.
pub(super) fn is_settled(object: &Value) -> bool {
    let provisioned = object.pointer("/status/initialization/provisioned") == Some(&json!(true));
    let observed = object
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    // Writing spec.providerID is the host's own doing and no reason to ask again.
    let seen = observed.is_some()
        && observed.unwrap_or_default().saturating_add(1) >= generation.unwrap_or_default();
    let ready = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| c.get("type") == Some(&json!("Ready")) && c.get("status") == Some(&json!("True")));
    provisioned && seen && ready
}

fn is_deleting(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|t| !t.is_null())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::Waiting;
    use crate::plan::Failure;

    fn observed() -> Observed {
        Observed {
            object: json!({"kind": "LocalMachine", "metadata": {"uid": "u", "generation": 1}}),
            machine: Lookup::Found(json!({"spec": {"bootstrap": {"dataSecretName": "s"}}})),
            cluster: Lookup::Found(
                json!({"status": {"initialization": {"infrastructureProvisioned": true}}}),
            ),
            infra_cluster: Lookup::Found(json!({})),
            owner: Some("infrastructure-x".to_owned()),
            plugin: Some("infrastructure-x".to_owned()),
            asked: None,
        }
    }

    fn answer(progress: Progress) -> MachineAnswer {
        MachineAnswer {
            progress,
            provider_id: Some("x://1".to_owned()),
            addresses: vec![("InternalIP".to_owned(), "10.0.0.1".to_owned())],
            failure_domain: Some("a".to_owned()),
            interruptible: false,
            interruption_deadline_ms: None,
            instance_state: String::new(),
            status: json!({"own": 1}),
            conditions: vec![],
            state: None,
            extra: vec![],
        }
    }

    fn done(effect: Effect) -> Outcome<Step, Effect> {
        Outcome {
            done: vec![(Step::Ensure, effect)],
            failed: None,
        }
    }

    #[test]
    fn the_plugin_is_called_when_all_is_there() {
        assert_eq!(
            decide(&observed(), Timestamp::UNIX_EPOCH).steps,
            vec![Step::Ensure]
        );
    }

    #[test]
    fn each_missing_thing_is_named_and_nothing_is_called() {
        let base = observed();
        let cases = [
            (
                Observed {
                    machine: Lookup::Missing,
                    ..base.clone()
                },
                "WaitingForOwnerMachine",
            ),
            (
                Observed {
                    machine: Lookup::Unknown("why".to_owned()),
                    ..base.clone()
                },
                "InternalError",
            ),
            (
                Observed {
                    cluster: Lookup::Found(json!({})),
                    ..base.clone()
                },
                "WaitingForClusterInfrastructureReady",
            ),
            (
                Observed {
                    machine: Lookup::Found(json!({})),
                    ..base.clone()
                },
                "WaitingForBootstrapData",
            ),
            (
                Observed {
                    plugin: None,
                    ..base
                },
                "PluginMissing",
            ),
        ];
        for (case, reason) in cases {
            let plan = decide(&case, Timestamp::UNIX_EPOCH);
            assert!(plan.steps.is_empty());
            assert_eq!(plan.waits.first().map(|w| w.on.as_str()), Some(reason));
            let report = report(&case, &Outcome::default());
            assert_eq!(
                report.conditions.first().map(|c| c.reason.as_str()),
                Some(reason)
            );
        }
    }

    #[test]
    fn a_ready_answer_provisions_and_waits_for_the_next_look() {
        let report = report(
            &observed(),
            &done(Effect::Machine(Box::new(answer(Progress::Ready)))),
        );
        assert_eq!(report.status["initialization"]["provisioned"], json!(true));
        assert_eq!(report.status["own"], json!(1));
        assert_eq!(
            report.conditions[0].status,
            capstan_api::condition::ConditionStatus::True
        );
        assert!(
            matches!(report.next, Some(Next::CheckAfter(after)) if after >= super::super::RECHECK)
        );
    }

    #[test]
    fn what_was_provisioned_stays_provisioned() {
        let mut observed = observed();
        observed.object["status"] = json!({"initialization": {"provisioned": true}, "own": 1});
        let failure = Failure::terminal("InstanceLost", "the instance is gone");
        let outcome = Outcome {
            done: vec![],
            failed: Some((Step::Ensure, failure)),
        };
        let report = report(&observed, &outcome);
        assert_eq!(report.status["initialization"]["provisioned"], json!(true));
        assert_eq!(report.conditions[0].reason, "InstanceLost");
    }

    #[test]
    fn a_settled_machine_is_not_asked_about_at_every_turn() {
        let mut observed = observed();
        observed.object["status"] = json!({
            "initialization": {"provisioned": true}, "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        observed.asked = Some(Timestamp::UNIX_EPOCH);
        let soon = Timestamp::UNIX_EPOCH
            .checked_add(jiff::Span::new().seconds(10))
            .expect("in range");
        let late = Timestamp::UNIX_EPOCH
            .checked_add(jiff::Span::new().seconds(1000))
            .expect("in range");
        assert!(decide(&observed, soon).steps.is_empty());
        assert_eq!(decide(&observed, late).steps, vec![Step::Ensure]);
    }

    #[test]
    fn deletion_ends_when_the_plugin_says_gone() {
        let mut observed = observed();
        observed.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(
            decide(&observed, Timestamp::UNIX_EPOCH).steps,
            vec![Step::Delete]
        );
        let answer = |deletion| {
            Effect::Deletion(DeletionAnswer {
                deletion,
                status: json!({}),
                conditions: vec![],
                state: None,
                extra: vec![],
            })
        };
        assert!(report(&observed, &done(answer(Deletion::Gone))).finished);
        let waiting = Waiting {
            reason: "Terminating".to_owned(),
            message: "the instance shuts down".to_owned(),
            check_after: Duration::from_secs(1),
        };
        let report = report(&observed, &done(answer(Deletion::Waiting(waiting))));
        assert!(!report.finished);
        assert!(
            report.conditions[0]
                .message
                .contains("the instance shuts down")
        );
        observed.plugin = None;
        assert!(
            decide(&observed, Timestamp::UNIX_EPOCH).steps.is_empty(),
            "the plugin must come back"
        );
    }

    #[test]
    fn the_main_patch_holds_only_what_differs() {
        let object = json!({"spec": {"providerID": "x://1"}});
        assert_eq!(patch(&object, &answer(Progress::Ready), None), None);
        assert_eq!(
            patch(&json!({}), &answer(Progress::Ready), None),
            Some(json!({"spec": {"providerID": "x://1"}}))
        );
        assert!(patch(&object, &answer(Progress::Ready), Some("c3RhdGU=")).is_some());
    }
}
