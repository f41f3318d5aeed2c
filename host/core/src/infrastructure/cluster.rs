//! Infrastructure clusters: ask the plugin until what machines need is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Answer, Asked, NotYet, Reported, Step, is_deleting, text};
use crate::call::infrastructure::{ClusterAnswer, FailureDomain};
use crate::call::{Endpoint, PluginCondition, Progress};
use crate::lookup::Lookup;
use crate::plan::{Outcome, Plan};

/// What a step answered.
pub type Effect = super::Effect<ClusterAnswer>;

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The infrastructure cluster.
    pub object: Arc<Value>,
    /// The Cluster that owns it.
    pub cluster: Lookup<Arc<Value>>,
    /// Name of the plugin that installed the kind, as its CustomResourceDefinition says; it need not be active.
    pub owner: Option<String>,
    /// Name of the plugin that owns the kind; `None` when none is active.
    pub plugin: Option<String>,
    /// When the plugin was last asked about this object and the templates as they are.
    pub asked: Asked,
    /// The plugin's machine templates that belong to the Cluster.
    pub templates: Vec<Arc<Value>>,
}

/// What is waited for before the plugin is called, if anything.
#[must_use]
pub fn not_yet(observed: &Observed) -> Option<NotYet> {
    if observed.plugin.is_none() {
        return Some(NotYet::new(
            "PluginMissing",
            super::plugin_missing(text(&observed.object, "/kind"), observed.owner.as_deref()),
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
    let wait = not_yet(observed);
    super::decide(&observed.object, wait, observed.asked, super::RECHECK, now)
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, outcome: &Outcome<Step, Effect>) -> Reported {
    let wait = not_yet(observed);
    super::report(
        &observed.object,
        wait.as_ref(),
        observed.plugin.as_deref(),
        super::RECHECK,
        outcome,
    )
}

impl Answer for ClusterAnswer {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn conditions(&self) -> &[PluginCondition] {
        &self.conditions
    }

    fn status(&self) -> Map<String, Value> {
        let mut status = self.status.as_object().cloned().unwrap_or_default();
        if !self.failure_domains.is_empty() {
            let mut domains: Vec<&FailureDomain> = self.failure_domains.iter().collect();
            domains.sort_by(|a, b| a.name.cmp(&b.name));
            let domains: Vec<Value> = domains.into_iter().map(failure_domain).collect();
            status.insert("failureDomains".to_owned(), Value::Array(domains));
        }
        status
    }

    fn spec(&self, object: &Value) -> Option<Value> {
        let endpoint = self.control_plane_endpoint.as_ref()?;
        (known_endpoint(object).as_ref() != Some(endpoint)).then(
            || json!({"controlPlaneEndpoint": {"host": endpoint.host, "port": endpoint.port}}),
        )
    }

    fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }
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

#[cfg(test)]
mod tests {
    use super::super::patch;
    use super::*;

    fn observed() -> Observed {
        Observed {
            object: json!({"kind": "LocalCluster", "metadata": {"uid": "u", "generation": 1}})
                .into(),
            cluster: Lookup::Found(json!({}).into()),
            owner: Some("infrastructure-x".to_owned()),
            plugin: Some("infrastructure-x".to_owned()),
            asked: Asked::Never,
            templates: Vec::new(),
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
            done: vec![(Step::Ensure, Effect::Ensured(Box::new(answer())))],
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
        Arc::make_mut(&mut observed.object)["metadata"]["annotations"] =
            json!({"cluster.x-k8s.io/managed-by": "x"});
        assert!(decide(&observed, Timestamp::UNIX_EPOCH).steps.is_empty());
    }
}
