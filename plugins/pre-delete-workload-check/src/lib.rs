//! pre-delete-workload-check: holds a machine's deletion while a workload of its cluster has too few ready replicas.

use std::time::Duration;

use capstan_sdk::log;
use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::workload::{self, ApiResource, ListOptions};
use capstan_sdk::{CapabilityRequest, Failure, Manifest, Plugin};
use serde::Deserialize;

/// Rollouts and restarts take minutes; more often would only load the workload cluster.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Workloads that are named in the message.
const NAMED_MAX: usize = 3;

/// The operator's settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Where to look; all namespaces when absent.
    pub namespace: Option<String>,
    /// Which workloads, as `name=value`, joined by commas.
    pub label_selector: String,
    /// Which kinds.
    #[serde(default = "all_kinds")]
    pub kinds: Vec<Kind>,
    /// How many replicas of each must be ready: a number, or a share of `spec.replicas` such as `50%`.
    #[serde(default)]
    pub min_ready: MinReady,
    /// What it means that nothing is selected.
    #[serde(default)]
    pub when_none: WhenNone,
}

/// Kinds that have replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// `apps/v1`
    Deployment,
    /// `apps/v1`
    StatefulSet,
    /// `apps/v1`
    ReplicaSet,
}

fn all_kinds() -> Vec<Kind> {
    vec![Kind::Deployment, Kind::StatefulSet]
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::ReplicaSet => "ReplicaSet",
        }
    }

    fn resource(self) -> ApiResource {
        ApiResource::new("apps", "v1", format!("{}s", self.name().to_lowercase()))
    }
}

/// How many replicas must be ready.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MinReady {
    /// So many.
    Count(u64),
    /// `50%` of those that are wanted, rounded up.
    Share(String),
}

impl Default for MinReady {
    fn default() -> Self {
        Self::Share("100%".to_owned())
    }
}

impl MinReady {
    /// How many of so many.
    fn of(&self, wanted: u64) -> Result<u64, Failure> {
        match self {
            Self::Count(count) => Ok(*count),
            Self::Share(text) => {
                let percent: Option<u64> = text.strip_suffix('%').and_then(|n| n.parse().ok());
                let percent = percent.filter(|percent| *percent <= 100).ok_or_else(|| {
                    let message = format!(
                        "minReady: {text:?} is neither a number nor a share such as \"50%\""
                    );
                    Failure::terminal("SettingsInvalid", message)
                })?;
                Ok(wanted.saturating_mul(percent).div_ceil(100))
            }
        }
    }
}

/// What it means that nothing is selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum WhenNone {
    /// The machine waits: a selector with a mistake must not let everything go.
    #[default]
    Wait,
    /// The machine may go.
    Proceed,
}

/// The hook.
pub struct CheckWorkload;

impl Plugin for CheckWorkload {
    fn manifest() -> Manifest {
        Manifest::new("pre-delete-workload-check", env!("CARGO_PKG_VERSION"))
            .description("Holds a machine's deletion while a workload has too few ready replicas.")
            .asks_for(
                CapabilityRequest::workload("Reads how many replicas of workloads are ready.")
                    .suggest(json!({
                        "capability": "workload",
                        "workload": [{
                            "apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["list"],
                        }],
                    })),
            )
    }
}

impl PreDeleteHook for CheckWorkload {
    type Settings = Settings;

    fn run(input: HookInput<Settings>) -> Result<Verdict, Failure> {
        let settings = &input.settings;
        if settings.label_selector.trim().is_empty() {
            let message = "labelSelector must not be empty: name the workloads to look at";
            return Err(Failure::terminal("SettingsInvalid", message));
        }
        let mut found = 0_usize;
        let mut short = Vec::new();
        for kind in &settings.kinds {
            let options = ListOptions {
                namespace: settings.namespace.clone(),
                label_selector: settings.label_selector.clone(),
                ..ListOptions::default()
            };
            for object in workload::list_all(&kind.resource(), &options)? {
                found = found.saturating_add(1);
                short.extend(shortage(*kind, &object, &settings.min_ready)?);
            }
        }
        log::info!("looked"; "found" => found, "short" => short.len());
        Ok(verdict(settings, found, &short))
    }
}

capstan_sdk::export_pre_delete_hook!(CheckWorkload);

/// What a workload lacks, in words.
fn shortage(kind: Kind, object: &Value, min_ready: &MinReady) -> Result<Option<String>, Failure> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
    // As Kubernetes reads it when it is left out.
    let wanted = number("/spec/replicas").unwrap_or(1);
    let needed = min_ready.of(wanted)?;
    let ready = number("/status/readyReplicas").unwrap_or_default();
    // What the controller has not seen yet says nothing about the replicas that are wanted now.
    let observed = number("/status/observedGeneration").unwrap_or_default();
    let is_stale = observed < number("/metadata/generation").unwrap_or_default();
    if ready >= needed && !is_stale {
        return Ok(None);
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = format!(
        "{} {}/{}",
        kind.name(),
        text("/metadata/namespace").unwrap_or_default(),
        text("/metadata/name").unwrap_or_default()
    );
    Ok(Some(if is_stale {
        format!("{name} has changed and its controller has not looked at it yet")
    } else {
        format!("{name} has {ready} of {wanted} replicas ready, {needed} are needed")
    }))
}

fn verdict(settings: &Settings, found: usize, short: &[String]) -> Verdict {
    if found == 0 {
        return match settings.when_none {
            WhenNone::Proceed => Verdict::Proceed,
            WhenNone::Wait => {
                let message = format!(
                    "no workload has the labels {:?}: correct labelSelector, or set whenNone to Proceed",
                    settings.label_selector
                );
                Verdict::waiting("WorkloadNotFound", message, LOOK_AGAIN)
            }
        };
    }
    if short.is_empty() {
        return Verdict::Proceed;
    }
    let mut message = short
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    let more = short.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    Verdict::waiting("TooFewReady", message, LOOK_AGAIN)
}

#[cfg(test)]
mod tests {
    //! Workloads in the SDK's fake cluster.

    use super::*;
    use capstan_sdk::FailureKind;
    use capstan_sdk::pre_delete_hook::Phase;
    use capstan_sdk::testing::{Host, hook_input};

    fn settings(more: Value) -> Settings {
        let mut all = json!({"labelSelector": "app=shop"});
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        capstan_sdk::serde_json::from_value(all).unwrap()
    }

    fn put(host: &Host, kind: Kind, name: &str, replicas: u64, ready: u64) {
        let object = json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": "shop"}, "generation": 2},
            "spec": {"replicas": replicas},
            "status": {"readyReplicas": ready, "observedGeneration": 2},
        });
        host.set_workload_object(&kind.resource(), object);
    }

    fn ask(settings: Settings) -> Result<Verdict, Failure> {
        CheckWorkload::run(hook_input(Phase::PreDrain, settings).unwrap())
    }

    fn waits_with(verdict: Verdict, words: &str) {
        let Verdict::Waiting(waiting) = verdict else {
            panic!("it lets the machine go");
        };
        assert!(waiting.message.contains(words), "{}", waiting.message);
        assert_eq!(waiting.check_after, LOOK_AGAIN);
    }

    #[test]
    fn lets_the_machine_go_when_all_replicas_are_ready() {
        let host = Host::new();
        put(&host, Kind::Deployment, "web", 3, 3);
        put(&host, Kind::StatefulSet, "db", 1, 1);
        assert_eq!(ask(settings(json!({}))).unwrap(), Verdict::Proceed);
    }

    #[test]
    fn names_what_is_short_and_of_how_much() {
        let host = Host::new();
        put(&host, Kind::Deployment, "web", 3, 2);
        let verdict = ask(settings(json!({}))).unwrap();
        waits_with(
            verdict,
            "Deployment shop/web has 2 of 3 replicas ready, 3 are needed",
        );
        for enough in [json!(2), json!("50%"), json!("66%")] {
            let verdict = ask(settings(json!({"minReady": enough}))).unwrap();
            assert_eq!(verdict, Verdict::Proceed, "{enough}");
        }
        let verdict = ask(settings(json!({"minReady": "67%"}))).unwrap();
        waits_with(verdict, "3 are needed");
    }

    #[test]
    fn names_three_and_counts_the_others() {
        let host = Host::new();
        for name in ["a", "b", "c", "d", "e"] {
            put(&host, Kind::Deployment, name, 1, 0);
        }
        waits_with(ask(settings(json!({}))).unwrap(), "; and 2 more");
    }

    #[test]
    fn what_its_controller_has_not_seen_is_waited_for() {
        let host = Host::new();
        put(&host, Kind::Deployment, "web", 1, 1);
        let name = workload::ObjectName::new("shop", "web");
        let resource = Kind::Deployment.resource();
        let mut object = host.workload_object(&resource, &name).unwrap();
        object["metadata"]["generation"] = json!(3);
        host.set_workload_object(&resource, object);
        waits_with(ask(settings(json!({}))).unwrap(), "has not looked at it");
    }

    #[test]
    fn a_selector_that_selects_nothing_holds_the_machine_unless_told_otherwise() {
        let _host = Host::new();
        waits_with(ask(settings(json!({}))).unwrap(), "app=shop");
        let proceeds = settings(json!({"whenNone": "Proceed"}));
        assert_eq!(ask(proceeds).unwrap(), Verdict::Proceed);
    }

    #[test]
    fn looks_only_where_it_is_told_to() {
        let host = Host::new();
        put(&host, Kind::Deployment, "web", 1, 1);
        put(&host, Kind::StatefulSet, "db", 1, 0);
        let deployments = settings(json!({"kinds": ["Deployment"]}));
        assert_eq!(ask(deployments).unwrap(), Verdict::Proceed);
        waits_with(
            ask(settings(json!({"namespace": "other"}))).unwrap(),
            "no workload",
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_a_final_failure() {
        let host = Host::new();
        put(&host, Kind::Deployment, "web", 1, 1);
        for bad in [
            json!({"labelSelector": ""}),
            json!({"minReady": "half"}),
            json!({"minReady": "120%"}),
        ] {
            let failure = ask(settings(bad)).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Terminal);
        }
    }
}
