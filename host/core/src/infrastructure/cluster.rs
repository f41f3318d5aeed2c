//! Infrastructure clusters: ask the plugin until what machines need is there.

use std::collections::BTreeMap;

use capstan_api::annotation;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::machine::Reported;
use super::{
    NotYet, Standing, is_due, is_externally_managed, kept_status, own_conditions, ready_condition,
    recheck_after,
};
use crate::call::infrastructure::{ClusterAnswer, DeletionAnswer, FailureDomain};
use crate::call::{Deletion, Endpoint, Progress};
use crate::lookup::Lookup;
use crate::plan::{Next, Outcome, Plan};

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The infrastructure cluster.
    pub object: Value,
    /// The Cluster that owns it.
    pub cluster: Lookup<Value>,
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
    /// Ask the plugin for the infrastructure, and write what it is.
    Ensure,
    /// Ask the plugin to remove it.
    Delete,
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To `Ensure`, checked.
    Cluster(ClusterAnswer),
    /// To `Delete`, checked.
    Deletion(DeletionAnswer),
}

/// What is waited for before the plugin is called, if anything.
#[must_use]
pub fn not_yet(observed: &Observed) -> Option<NotYet> {
    if observed.plugin.is_none() {
        return Some(NotYet::new(
            "PluginMissing",
            super::plugin_missing(
                observed
                    .object
                    .get("kind")
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
                observed.owner.as_deref(),
            ),
        ));
    }
    match &observed.cluster {
        _ if is_deleting(&observed.object) => None,
        Lookup::Found(_) => None,
        Lookup::Missing => Some(NotYet::new(
            "WaitingForOwnerCluster",
            "waiting for a Cluster whose spec.infrastructureRef names this object",
        )),
        Lookup::Unknown(why) => Some(NotYet::new("InternalError", why.clone())),
    }
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
    let uid = observed
        .object
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if super::machine::is_settled(&observed.object) && !is_due(observed.asked, now, uid) {
        return Plan::settled().check_after(recheck_after(uid));
    }
    Plan::of(vec![Step::Ensure])
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, outcome: &Outcome<Step, Effect>) -> Reported {
    let mut status = kept_status(&observed.object);
    let wait = not_yet(observed);
    let deleting = is_deleting(&observed.object);
    let plugin = observed.plugin.as_deref().unwrap_or("plugin");
    let uid = observed
        .object
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut conditions = Vec::new();
    let mut next = None;
    let mut finished = deleting && is_externally_managed(&observed.object);
    let standing = match (&outcome.failed, outcome.done.first()) {
        (Some((_, failure)), _) => Standing::Failed(failure),
        (None, Some((_, Effect::Cluster(answer)))) => {
            conditions.extend(own_conditions(&answer.conditions));
            status.extend(cluster_status(answer));
            next = Some(match &answer.progress {
                Progress::Ready => Next::CheckAfter(recheck_after(uid)),
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
    conditions.extend(ready_condition(&standing, plugin, deleting));
    Reported {
        status: Value::Object(status),
        conditions,
        next,
        finished,
    }
}

fn cluster_status(answer: &ClusterAnswer) -> serde_json::Map<String, Value> {
    let mut status = answer.status.as_object().cloned().unwrap_or_default();
    if !answer.failure_domains.is_empty() {
        let mut domains: Vec<&FailureDomain> = answer.failure_domains.iter().collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        let domains: Vec<Value> = domains.into_iter().map(failure_domain).collect();
        status.insert("failureDomains".to_owned(), Value::Array(domains));
    }
    if answer.progress == Progress::Ready {
        // One-shot: once true it stays (contract 2.2).
        status.insert("initialization".to_owned(), json!({"provisioned": true}));
    }
    status
}

fn failure_domain(domain: &FailureDomain) -> Value {
    if domain.attributes.is_empty() {
        return json!({"name": domain.name, "controlPlane": domain.control_plane});
    }
    let attributes: BTreeMap<&str, &str> = domain
        .attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    json!({"name": domain.name, "controlPlane": domain.control_plane, "attributes": attributes})
}

/// The endpoint that the object already has.
#[must_use]
pub fn known_endpoint(object: &Value) -> Option<Endpoint> {
    let host = object
        .pointer("/spec/controlPlaneEndpoint/host")?
        .as_str()?;
    let port = object
        .pointer("/spec/controlPlaneEndpoint/port")?
        .as_u64()?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| Endpoint {
        host: host.to_owned(),
        port,
    })
}

/// The merge patch of the main resource that an answer asks for; `None` when nothing differs.
#[must_use]
pub fn patch(object: &Value, answer: &ClusterAnswer, state: Option<&str>) -> Option<Value> {
    let mut patch = serde_json::Map::new();
    if let Some(endpoint) = &answer.control_plane_endpoint
        && known_endpoint(object).as_ref() != Some(endpoint)
    {
        patch.insert(
            "spec".to_owned(),
            json!({"controlPlaneEndpoint": {"host": endpoint.host, "port": endpoint.port}}),
        );
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

fn is_deleting(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|t| !t.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            object: json!({"kind": "LocalCluster", "metadata": {"uid": "u", "generation": 1}}),
            cluster: Lookup::Found(json!({})),
            owner: Some("infrastructure-x".to_owned()),
            plugin: Some("infrastructure-x".to_owned()),
            asked: None,
        }
    }

    fn answer() -> ClusterAnswer {
        ClusterAnswer {
            progress: Progress::Ready,
            control_plane_endpoint: Some(Endpoint {
                host: "h".to_owned(),
                port: 6443,
            }),
            failure_domains: ["b", "a"]
                .map(|name| FailureDomain {
                    name: name.to_owned(),
                    control_plane: true,
                    attributes: vec![],
                })
                .to_vec(),
            status: json!({}),
            conditions: vec![],
            state: None,
            extra: vec![],
        }
    }

    #[test]
    fn an_object_without_a_cluster_waits() {
        let observed = Observed {
            cluster: Lookup::Missing,
            ..observed()
        };
        let plan = decide(&observed, Timestamp::UNIX_EPOCH);
        assert!(plan.steps.is_empty());
        assert_eq!(plan.waits[0].on, "WaitingForOwnerCluster");
    }

    #[test]
    fn a_ready_answer_provisions_with_sorted_failure_domains() {
        let outcome = Outcome {
            done: vec![(Step::Ensure, Effect::Cluster(answer()))],
            failed: None,
        };
        let report = report(&observed(), &outcome);
        assert_eq!(report.status["initialization"]["provisioned"], json!(true));
        assert_eq!(report.status["failureDomains"][0]["name"], "a");
        assert_eq!(
            report.conditions[0].status,
            capstan_api::condition::ConditionStatus::True
        );
    }

    #[test]
    fn the_endpoint_is_written_once() {
        let patched = patch(&json!({}), &answer(), None).expect("differs");
        assert_eq!(patched["spec"]["controlPlaneEndpoint"]["port"], 6443);
        assert_eq!(patch(&patched, &answer(), None), None);
    }

    #[test]
    fn an_externally_managed_object_is_never_asked_about() {
        let mut observed = observed();
        observed.object["metadata"]["annotations"] = json!({"cluster.x-k8s.io/managed-by": "x"});
        assert!(decide(&observed, Timestamp::UNIX_EPOCH).steps.is_empty());
    }
}
