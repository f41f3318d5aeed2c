//! The order of a deletion: each stage, what holds it, and when it is looked at again.

use std::collections::BTreeMap;

use capstan_api::v1beta2::{MachineDeletionSpec, MachineDeletionStatus};
use serde_json::json;

use super::*;
use crate::machine::Effect;
use crate::machine::report::report;
use crate::machine::report::tests::observed;
use crate::plan::{Next, Outcome};

fn deleting() -> Observed {
    let mut observed = observed();
    observed.machine.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    observed.machine.spec.provider_id = Some("x://1".to_owned());
    observed.machine.spec.bootstrap.data_secret_name = Some("m".to_owned());
    observed.deletion = Facts {
        active_control_plane_machines: 1,
        node: Some("n".to_owned()),
        node_exists: true,
        ..Facts::default()
    };
    observed
}

fn annotate(observed: &mut Observed, key: &str) {
    observed.machine.metadata.annotations = Some(BTreeMap::from([(key.to_owned(), String::new())]));
}

fn started(observed: &mut Observed, times: MachineDeletionStatus) {
    let mut status = observed.machine.status.clone().unwrap_or_default();
    status.deletion = Some(times);
    observed.machine.status = Some(status);
}

#[test]
fn the_stages_follow_each_other() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    assert_eq!(stage(&observed, now), Stage::Drain("n".to_owned()));
    observed.deletion.drain = Some(Turn::default());
    assert_eq!(stage(&observed, now), Stage::Volumes("n".to_owned()));
    observed.deletion.volumes = Some(Turn::default());
    assert_eq!(stage(&observed, now), Stage::Infrastructure);
    assert_eq!(decide(&observed, now).steps, vec![Step::DeleteInfra]);
    observed.infra = Lookup::Missing;
    assert_eq!(stage(&observed, now), Stage::Bootstrap);
    observed.bootstrap = Some(Lookup::Missing);
    assert_eq!(stage(&observed, now), Stage::Node("n".to_owned()));
    observed.deletion.node_exists = false;
    assert_eq!(stage(&observed, now), Stage::Completed);
}

#[test]
fn only_a_wait_for_volumes_has_a_start() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    observed.deletion.drain = Some(Turn::default());
    let look = Step::CheckVolumes {
        node: "n".to_owned(),
    };
    assert_eq!(decide(&observed, now).steps, vec![look.clone()]);
    let started = |left: &[&str]| {
        let left = left.iter().map(|volume| (*volume).to_owned()).collect();
        let outcome = Outcome {
            done: vec![(look.clone(), Effect::Volumes(left))],
            failed: None,
        };
        let status = report(&observed, &outcome, now).status;
        let times = status.deletion.unwrap_or_default();
        times.wait_for_node_volume_detach_start_time.is_some()
    };
    assert!(!started(&[]));
    assert!(started(&["pv"]));
    // Seen and not written down yet: nothing else happens before.
    observed.deletion.volumes = Some(Turn {
        at: now,
        left: vec!["pv".to_owned()],
    });
    assert!(decide(&observed, now).steps.is_empty());
}

#[test]
fn a_node_is_given_up_only_after_a_try_that_failed() {
    let mut observed = deleting();
    let after = |seconds| Timestamp::from_second(seconds).unwrap();
    (observed.infra, observed.bootstrap) = (Lookup::Missing, Some(Lookup::Missing));
    observed.deletion.drain = Some(Turn::default());
    observed.deletion.volumes = Some(Turn::default());
    let node = Stage::Node("n".to_owned());
    assert_eq!(
        stage(&observed, after(3600)),
        node,
        "a long drain is no reason"
    );
    observed.deletion.node_deletion_failed = true;
    assert_eq!(stage(&observed, after(3600)), Stage::Completed);
    assert_eq!(stage(&observed, after(9)), node);
}

#[test]
fn hooks_hold_the_stages_that_follow_them() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    annotate(
        &mut observed,
        "pre-drain.delete.hook.machine.cluster.x-k8s.io/a",
    );
    assert_eq!(
        stage(&observed, now),
        Stage::PreDrainHook(vec![format!("{PRE_DRAIN}/a")])
    );
    observed.deletion.cluster_deleting = true;
    assert_eq!(
        stage(&observed, now),
        Stage::Infrastructure,
        "no drain hooks when all goes"
    );
    annotate(
        &mut observed,
        "pre-terminate.delete.hook.machine.cluster.x-k8s.io/b",
    );
    assert_eq!(
        stage(&observed, now),
        Stage::PreTerminateHook(vec![format!("{PRE_TERMINATE}/b")])
    );
}

#[test]
fn a_node_that_joins_while_a_hook_holds_its_machine_is_drained() {
    let now = Timestamp::from_second(2000).expect("in range");
    let at = |second| Some(Time(Timestamp::from_second(second).expect("in range")));
    let mut observed = deleting();
    let mut times = MachineDeletionStatus {
        wait_for_pre_terminate_hook_start_time: at(1000),
        ..MachineDeletionStatus::default()
    };
    started(&mut observed, times.clone());
    assert_eq!(stage(&observed, now), Stage::Drain("n".to_owned()));
    times.node_drain_start_time = at(1100);
    started(&mut observed, times.clone());
    assert_eq!(
        stage(&observed, now),
        Stage::Drain("n".to_owned()),
        "it has only begun"
    );
    observed.deletion.drain = Some(Turn::default());
    assert_eq!(stage(&observed, now), Stage::Volumes("n".to_owned()));
    times.wait_for_node_volume_detach_start_time = at(1101);
    started(&mut observed, times.clone());
    assert_eq!(stage(&observed, now), Stage::Volumes("n".to_owned()));
    observed.deletion.volumes = Some(Turn::default());
    assert_eq!(stage(&observed, now), Stage::Infrastructure);
    (observed.deletion.drain, observed.deletion.volumes) = (None, None);
    times.node_drain_start_time = at(900);
    times.wait_for_node_volume_detach_start_time = at(901);
    started(&mut observed, times);
    assert_eq!(
        stage(&observed, now),
        Stage::Infrastructure,
        "what was done before is not gone back to, also after a restart"
    );
}

#[test]
fn the_node_is_found_by_its_name_when_its_provider_id_is_not_known() {
    let node = json!({
        "metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    });
    let see = |found: &NodeLookup, named: Lookup<Arc<Value>>| {
        let mut facts = Facts::default();
        facts.see_node(found, Some(("n".to_owned(), named)));
        assert_eq!(facts.node.as_deref(), Some("n"));
        (facts.node_exists, facts.node_unreachable)
    };
    let found = Lookup::Found(Arc::new(node.clone()));
    assert_eq!(see(&NodeLookup::NotLooked, found.clone()), (true, true));
    assert_eq!(see(&NodeLookup::NotLooked, Lookup::Missing), (false, false));
    let unseen = Lookup::Unknown("no connection".to_owned());
    assert_eq!(see(&NodeLookup::NotLooked, unseen.clone()), (true, false));
    let several = NodeLookup::Several(vec!["n".to_owned(), "o".to_owned()]);
    assert_eq!(see(&several, found.clone()), (true, true));
    assert_eq!(
        see(&NodeLookup::None, found),
        (false, false),
        "another instance's"
    );
    assert_eq!(see(&NodeLookup::One(node.into()), unseen), (true, true));
}

#[test]
fn a_provider_id_that_comes_late_is_kept() {
    let mut observed = deleting();
    observed.machine.spec.provider_id = None;
    observed.infra = Lookup::Found(
        json!({
            "metadata": {"name": "i"}, "spec": {"providerID": "p://1"},
            "status": {"initialization": {"provisioned": true}},
        })
        .into(),
    );
    let steps = decide(&observed, Timestamp::UNIX_EPOCH).steps;
    let Some(Step::PatchMachine(patch)) = steps.first() else {
        panic!("{steps:?}");
    };
    assert_eq!(patch["spec"]["providerID"], "p://1");
}

#[test]
fn what_cannot_be_seen_is_waited_for() {
    let mut observed = deleting();
    observed.deletion.cluster_deleting = true;
    observed.infra = Lookup::Unknown("the plugin is missing".to_owned());
    assert_eq!(
        stage(&observed, Timestamp::UNIX_EPOCH),
        Stage::Infrastructure
    );
    assert!(decide(&observed, Timestamp::UNIX_EPOCH).steps.is_empty());
}

#[test]
fn only_a_kind_that_is_not_installed_lets_a_machine_go_that_never_had_anything() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    let unseen = Lookup::Unknown("no label names a version".to_owned());
    (observed.infra, observed.bootstrap) = (unseen.clone(), Some(unseen));
    observed.machine.spec.bootstrap.data_secret_name = None;
    observed.deletion.cluster_deleting = true;
    assert_eq!(stage(&observed, now), Stage::Infrastructure);
    observed.deletion.no_infra_kind = true;
    assert_eq!(stage(&observed, now), Stage::Bootstrap);
    observed.deletion.no_bootstrap_kind = true;
    assert_eq!(stage(&observed, now), Stage::Completed);
    observed.machine.spec.bootstrap.data_secret_name = Some("m".to_owned());
    assert_eq!(
        stage(&observed, now),
        Stage::Infrastructure,
        "there may be an instance"
    );
}

#[test]
fn a_node_that_joins_late_has_its_hooks_asked_before_it_is_drained() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    let times = MachineDeletionStatus {
        wait_for_pre_terminate_hook_start_time: Some(Time(now)),
        ..MachineDeletionStatus::default()
    };
    started(&mut observed, times);
    observed.deletion.hooks = vec![bound("b", "PreDrain", "Default")];
    assert_eq!(
        stage(&observed, now),
        Stage::PreDrainHook(vec!["b".to_owned()])
    );
    observed.deletion.node_exists = false;
    assert_eq!(stage(&observed, now), Stage::Infrastructure);
}

#[test]
fn a_drain_starts_after_its_start_is_recorded_and_ends_at_its_timeout() {
    let now = Timestamp::from_second(1000).expect("in range");
    let mut observed = deleting();
    assert!(decide(&observed, now).steps.is_empty());
    started(
        &mut observed,
        MachineDeletionStatus {
            node_drain_start_time: Some(Time(Timestamp::from_second(900).expect("in range"))),
            ..MachineDeletionStatus::default()
        },
    );
    assert_eq!(
        decide(&observed, now).steps,
        vec![Step::Drain {
            node: "n".to_owned()
        }]
    );
    observed.machine.spec.deletion = Some(MachineDeletionSpec {
        node_drain_timeout_seconds: Some(99),
        ..MachineDeletionSpec::default()
    });
    assert_eq!(stage(&observed, now), Stage::Volumes("n".to_owned()));
}

#[test]
fn the_last_control_plane_machine_keeps_its_node_undrained() {
    let mut observed = deleting();
    observed.deletion.active_control_plane_machines = 0;
    assert_eq!(
        stage(&observed, Timestamp::UNIX_EPOCH),
        Stage::Infrastructure
    );
    observed.deletion.externally_managed_control_plane = true;
    assert_eq!(
        stage(&observed, Timestamp::UNIX_EPOCH),
        Stage::Drain("n".to_owned())
    );
}

#[test]
fn a_drain_does_not_begin_when_the_infrastructure_is_going() {
    let mut observed = deleting();
    observed.infra =
        Lookup::Found(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}).into());
    assert_eq!(
        stage(&observed, Timestamp::UNIX_EPOCH),
        Stage::Infrastructure
    );
    assert!(
        decide(&observed, Timestamp::UNIX_EPOCH).steps.is_empty(),
        "asked once"
    );
}

fn bound(name: &str, phase: &str, choice: &str) -> Hook {
    let hook = json!({
        "apiVersion": "capstan.dev/v1alpha1", "kind": "MachineHook", "metadata": {"name": name},
        "spec": {"plugin": "p", "phase": phase, "onClusterDeletion": choice},
    });
    Hook::bound(&serde_json::from_value(hook).expect("a MachineHook"))
}

#[test]
fn bound_hooks_hold_their_phase_beside_annotations() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    annotate(
        &mut observed,
        "pre-drain.delete.hook.machine.cluster.x-k8s.io/a",
    );
    observed.deletion.hooks = vec![
        bound("b", "PreDrain", "Default"),
        bound("c", "PreTerminate", "Default"),
    ];
    assert_eq!(
        stage(&observed, now),
        Stage::PreDrainHook(vec![format!("{PRE_DRAIN}/a"), "b".to_owned()])
    );
    let ask = |name: &str| {
        vec![Step::AskHook {
            name: name.to_owned(),
        }]
    };
    assert_eq!(decide(&observed, now).steps, ask("b"));
    let proceed = observed.deletion.hooks[0].answered(&hook::Answer::Proceed, now);
    observed.deletion.hooks[0].record = Some(proceed.record);
    assert_eq!(
        stage(&observed, now),
        Stage::PreDrainHook(vec![format!("{PRE_DRAIN}/a")])
    );
    assert!(decide(&observed, now).steps.is_empty());
    observed.machine.metadata.annotations = None;
    assert_eq!(stage(&observed, now), Stage::Drain("n".to_owned()));
    observed.deletion.drain = Some(Turn::default());
    observed.deletion.volumes = Some(Turn::default());
    assert_eq!(
        stage(&observed, now),
        Stage::PreTerminateHook(vec!["c".to_owned()])
    );
    assert_eq!(decide(&observed, now).steps, ask("c"));
}

#[test]
fn a_hook_that_comes_too_late_is_not_gone_back_to() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    started(
        &mut observed,
        MachineDeletionStatus {
            node_drain_start_time: Some(Time(now)),
            ..MachineDeletionStatus::default()
        },
    );
    observed.deletion.hooks = vec![bound("b", "PreDrain", "Default")];
    assert_eq!(stage(&observed, now), Stage::Drain("n".to_owned()));
    observed.infra = Lookup::Missing;
    observed.deletion.hooks = vec![bound("c", "PreTerminate", "Default")];
    assert_eq!(
        stage(&observed, now),
        Stage::Bootstrap,
        "there is no host left to ask about"
    );
}

#[test]
fn the_operator_chooses_what_the_deletion_of_the_cluster_means() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    observed.deletion.cluster_deleting = true;
    observed.deletion.hooks = vec![
        bound("d", "PreDrain", "Default"),
        bound("r", "PreDrain", "Run"),
        bound("s", "PreTerminate", "Skip"),
        bound("t", "PreTerminate", "Default"),
    ];
    assert_eq!(
        stage(&observed, now),
        Stage::PreDrainHook(vec!["r".to_owned()])
    );
    observed.deletion.hooks.remove(1);
    assert_eq!(
        stage(&observed, now),
        Stage::PreTerminateHook(vec!["t".to_owned()])
    );
}

#[test]
fn a_turn_of_the_drain_is_not_repeated_before_it_is_of_use() {
    let at = |second| Timestamp::from_second(second).expect("in range");
    let mut observed = deleting();
    started(
        &mut observed,
        MachineDeletionStatus {
            node_drain_start_time: Some(Time(at(0))),
            ..MachineDeletionStatus::default()
        },
    );
    observed.deletion.drain = Some(Turn {
        at: at(40),
        left: vec!["* Pod a".to_owned()],
    });
    let plan = decide(&observed, at(45));
    assert!(plan.steps.is_empty());
    assert_eq!(plan.next, Next::CheckAfter(Duration::from_secs(5)));
    assert_eq!(decide(&observed, at(50)).steps.len(), 1);
}

#[test]
fn a_deletion_is_looked_at_when_it_begins_to_take_long() {
    let at = |second| Timestamp::from_second(second).expect("in range");
    let mut observed = deleting();
    annotate(
        &mut observed,
        "pre-drain.delete.hook.machine.cluster.x-k8s.io/backup",
    );
    let next = |second| decide(&observed, at(second)).next;
    assert_eq!(next(100), Next::CheckAfter(Duration::from_secs(801)));
    assert_eq!(next(901), Next::Settled);
}

#[test]
fn what_a_machine_refers_to_and_is_not_there_is_looked_for_again() {
    let now = Timestamp::UNIX_EPOCH;
    let again = Next::CheckAfter(Duration::from_secs(30));
    let decide = crate::machine::decide;
    assert_eq!(decide(&observed(), now).next, Next::Settled);
    let mut no_infra = observed();
    no_infra.infra = Lookup::Missing;
    assert_eq!(decide(&no_infra, now).next, again);
    let mut no_config = observed();
    no_config.bootstrap = Some(Lookup::Missing);
    assert_eq!(decide(&no_config, now).next, again);
}

#[test]
fn every_annotation_with_the_prefix_is_a_hook() {
    let mut observed = deleting();
    let key = format!("{PRE_DRAIN}.example.com/x");
    annotate(&mut observed, &key);
    assert_eq!(
        stage(&observed, Timestamp::UNIX_EPOCH),
        Stage::PreDrainHook(vec![key])
    );
}

#[test]
fn what_was_over_when_hooks_before_termination_began_is_over_for_the_next_host() {
    let now = Timestamp::UNIX_EPOCH;
    let mut observed = deleting();
    annotate(&mut observed, &format!("{PRE_TERMINATE}/b"));
    let times = |drain_s: i64| MachineDeletionStatus {
        node_drain_start_time: Timestamp::from_second(drain_s).ok().map(Time),
        wait_for_pre_terminate_hook_start_time: Timestamp::from_second(9).ok().map(Time),
        ..MachineDeletionStatus::default()
    };
    // There were no volumes: nothing says that they were looked at.
    started(&mut observed, times(8));
    let waits = Stage::PreTerminateHook(vec![format!("{PRE_TERMINATE}/b")]);
    assert_eq!(stage(&observed, now), waits);
    // The Node may have joined after the hooks were waited for, in the same second.
    started(&mut observed, times(9));
    assert_eq!(stage(&observed, now), Stage::Drain("n".to_owned()));
}
