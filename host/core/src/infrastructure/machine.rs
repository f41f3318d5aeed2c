//! Infrastructure machines: wait for owner, cluster and bootstrap data, then ask the plugin until the instance is there.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::condition;
use capstan_api::reason::condition_type;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Answer, Asked, NotYet, Reported, Step, is_deleting, text};
use crate::call::infrastructure::MachineAnswer;
use crate::call::{PluginCondition, Progress};
use crate::lookup::Lookup;
use crate::plan::{Outcome, Plan};

/// What a step answered.
pub type Effect = super::Effect<MachineAnswer>;

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The infrastructure machine.
    pub object: Arc<Value>,
    /// The Machine that owns it.
    pub machine: Lookup<Arc<Value>>,
    /// The Cluster.
    pub cluster: Lookup<Arc<Value>>,
    /// The infrastructure cluster.
    pub infra_cluster: Lookup<Arc<Value>>,
    /// Name of the Secret with bootstrap data, as the Machine says, or its bootstrap config, from which the Machine has it.
    pub data_secret: Option<String>,
    /// Name of the plugin that installed the kind, as its CustomResourceDefinition says; it need not be active.
    pub owner: Option<String>,
    /// Name of the plugin that owns the kind; `None` when none is active.
    pub plugin: Option<String>,
    /// When the plugin was last asked about this object.
    pub asked: Asked,
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
    match &observed.machine {
        Lookup::Found(_) => {}
        Lookup::Missing => {
            return Some(NotYet::new(
                "WaitingForOwnerMachine",
                "waiting for the Machine controller to set the owner reference to a Machine",
            ));
        }
        Lookup::Unknown(why) => return Some(NotYet::new("InternalError", why.clone())),
    }
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
    if observed.data_secret.is_none() {
        return Some(NotYet::new(
            "WaitingForBootstrapData",
            "waiting for the bootstrap config to have data, or for Machine spec.bootstrap.dataSecretName",
        ));
    }
    observed.plugin.is_none().then(plugin_missing)
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    let wait = not_yet(observed);
    let recheck = recheck(observed);
    let asked = match observed.asked {
        // What may be lost does not wait for its turn after a start.
        Asked::NotSince(_) if recheck < super::RECHECK => Asked::Never,
        asked => asked,
    };
    super::decide(&observed.object, wait, asked, recheck, now)
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, outcome: &Outcome<Step, Effect>) -> Reported {
    let wait = not_yet(observed);
    super::report(
        &observed.object,
        wait.as_ref(),
        observed.plugin.as_deref(),
        recheck(observed),
        outcome,
    )
}

/// Whether nobody knows if a Machine's member of etcd is well. When a majority is lost no API server answers, and only the infrastructure can
/// tell which members are gone.
#[must_use]
pub fn is_in_doubt(machine: &Value) -> bool {
    let member = condition::read(machine, condition_type::ETCD_MEMBER_HEALTHY);
    member.is_some_and(|member| member.status != "True")
}

/// After what time the plugin is asked again whether all is still there.
fn recheck(observed: &Observed) -> Duration {
    let machine = observed.machine.found();
    match machine.is_some_and(|machine| is_in_doubt(machine)) {
        true => super::RECHECK_IN_DOUBT,
        false => super::RECHECK,
    }
}

impl Answer for MachineAnswer {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn conditions(&self) -> &[PluginCondition] {
        &self.conditions
    }

    fn status(&self) -> Map<String, Value> {
        let mut status = self.status.as_object().cloned().unwrap_or_default();
        if !self.addresses.is_empty() {
            let addresses: Vec<Value> = self
                .addresses
                .iter()
                .map(|(kind, address)| json!({"type": kind, "address": address}))
                .collect();
            status.insert("addresses".to_owned(), Value::Array(addresses));
        }
        if let Some(domain) = &self.failure_domain {
            status.insert("failureDomain".to_owned(), json!(domain));
        }
        if self.interruptible {
            status.insert("interruptible".to_owned(), json!(true));
        }
        status
    }

    fn spec(&self, object: &Value) -> Option<Value> {
        let id = self.provider_id.as_deref()?;
        (text(object, "/spec/providerID") != id).then(|| json!({"providerID": id}))
    }

    fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::patch;
    use super::*;
    use crate::call::infrastructure::DeletionAnswer;
    use crate::call::{Deletion, Waiting};
    use crate::plan::{Failure, Next};

    fn observed() -> Observed {
        Observed {
            object: json!({"kind": "LocalMachine", "metadata": {"uid": "u", "generation": 1}})
                .into(),
            machine: Lookup::Found(json!({}).into()),
            data_secret: Some("s".to_owned()),
            cluster: Lookup::Found(
                json!({"status": {"initialization": {"infrastructureProvisioned": true}}}).into(),
            ),
            infra_cluster: Lookup::Found(json!({}).into()),
            owner: Some("infrastructure-x".to_owned()),
            plugin: Some("infrastructure-x".to_owned()),
            asked: Asked::Never,
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
                    cluster: Lookup::Found(json!({}).into()),
                    ..base.clone()
                },
                "WaitingForClusterInfrastructureReady",
            ),
            (
                Observed {
                    data_secret: None,
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
            &done(Effect::Ensured(Box::new(answer(Progress::Ready)))),
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
        // Nobody hears it again before then: a status that waited for company would be lost.
        assert!(report.is_last_word);
    }

    #[test]
    fn who_waits_is_asked_again_and_need_not_be_written_at_once() {
        let waiting = Waiting {
            reason: "Booting".to_owned(),
            message: "the instance boots".to_owned(),
            check_after: Duration::from_secs(1),
        };
        let effect = Effect::Ensured(Box::new(answer(Progress::Waiting(waiting))));
        assert!(!report(&observed(), &done(effect)).is_last_word);
    }

    #[test]
    fn what_was_provisioned_stays_provisioned() {
        let mut observed = observed();
        Arc::make_mut(&mut observed.object)["status"] =
            json!({"initialization": {"provisioned": true}, "own": 1});
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
        Arc::make_mut(&mut observed.object)["status"] = json!({
            "initialization": {"provisioned": true}, "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        observed.asked = Asked::At(Timestamp::UNIX_EPOCH);
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
    fn machines_that_a_new_host_finds_settled_are_asked_about_over_the_time_of_a_recheck() {
        let at = |seconds: u64| {
            let later = jiff::Span::new().seconds(i64::try_from(seconds).expect("in range"));
            Timestamp::UNIX_EPOCH.checked_add(later).expect("in range")
        };
        let settled = |uid: &str| {
            let mut observed = observed();
            let object = Arc::make_mut(&mut observed.object);
            object["metadata"]["uid"] = json!(uid);
            object["status"] = json!({
                "initialization": {"provisioned": true}, "observedGeneration": 1,
                "conditions": [{"type": "Ready", "status": "True"}],
            });
            observed.asked = Asked::NotSince(Timestamp::UNIX_EPOCH);
            observed
        };
        let is_asked = |observed: &Observed, seconds| {
            let plan = decide(observed, at(seconds));
            plan.steps == vec![Step::Ensure]
        };
        // Woken again and again, each is asked about once its time has come, and is looked at when it comes.
        let mut due = Vec::new();
        for number in 0..1000 {
            let observed = settled(&format!("0b1f6a52-7e3c-4d09-9a77-{number:012x}"));
            let first = (0..=360).find(|seconds| is_asked(&observed, *seconds));
            let first = first.expect("within the time of a recheck");
            if first > 0 {
                let Next::CheckAfter(left) = decide(&observed, at(first / 2)).next else {
                    panic!("it is looked at again")
                };
                assert_eq!(left.as_secs(), first - first / 2);
            }
            due.push(first);
        }
        for part in 0..10 {
            let in_part = |due: &&u64| (part * 30..(part + 1) * 30).contains(*due);
            let count = due.iter().filter(in_part).count();
            assert!((60..130).contains(&count), "{count} from {} s", part * 30);
        }
        // Those that may want something are asked about at once.
        let later = settled("a");
        assert!(!is_asked(&later, 0));
        let changed = |change: fn(&mut Value)| {
            let mut observed = later.clone();
            change(Arc::make_mut(&mut observed.object));
            observed
        };
        let machine =
            json!({"status": {"conditions": [{"type": "EtcdMemberHealthy", "status": "Unknown"}]}});
        for observed in [
            changed(|object| object["metadata"]["generation"] = json!(2)),
            changed(|object| object["status"]["initialization"] = json!({})),
            changed(|object| object["status"]["conditions"][0]["status"] = json!("False")),
            Observed {
                machine: Lookup::Found(machine.into()),
                ..later.clone()
            },
            Observed {
                asked: Asked::Never,
                ..later.clone()
            },
        ] {
            assert!(is_asked(&observed, 0), "{observed:?}");
        }
        let deleted = changed(|object| object["metadata"]["deletionTimestamp"] = json!("t"));
        assert_eq!(decide(&deleted, at(0)).steps, [Step::Delete]);
    }

    #[test]
    fn a_machine_whose_member_of_etcd_may_be_lost_is_asked_about_sooner() {
        let mut observed = observed();
        Arc::make_mut(&mut observed.object)["status"] = json!({
            "initialization": {"provisioned": true}, "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        observed.asked = Asked::At(Timestamp::UNIX_EPOCH);
        let at = |seconds| {
            let later = jiff::Span::new().seconds(seconds);
            Timestamp::UNIX_EPOCH.checked_add(later).expect("in range")
        };
        for (type_, status, is_doubted) in [
            ("EtcdMemberHealthy", "True", false),
            ("EtcdMemberHealthy", "Unknown", true),
            ("EtcdMemberHealthy", "False", true),
            ("NodeHealthy", "Unknown", false),
        ] {
            let machine = json!({"status": {"conditions": [{"type": type_, "status": status}]}});
            observed.machine = Lookup::Found(machine.into());
            assert!(decide(&observed, at(59)).steps.is_empty());
            let asks = decide(&observed, at(75)).steps == vec![Step::Ensure];
            assert_eq!(asks, is_doubted, "{type_}={status}");
            let ready = done(Effect::Ensured(Box::new(answer(Progress::Ready))));
            let Some(Next::CheckAfter(after)) = report(&observed, &ready).next else {
                panic!("it is looked at again")
            };
            assert_eq!(after <= Duration::from_secs(75), is_doubted, "{after:?}");
        }
    }

    #[test]
    fn deletion_ends_when_the_plugin_says_gone() {
        let mut observed = observed();
        Arc::make_mut(&mut observed.object)["metadata"]["deletionTimestamp"] =
            json!("2026-01-01T00:00:00Z");
        assert_eq!(
            decide(&observed, Timestamp::UNIX_EPOCH).steps,
            vec![Step::Delete]
        );
        let answer = |deletion| {
            Effect::Deleted(DeletionAnswer {
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
