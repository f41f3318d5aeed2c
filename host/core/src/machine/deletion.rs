//! The order in which a Machine is deleted: hooks, drain, volumes, hooks, infrastructure, bootstrap, Node, finalizer.
//!
//! Contract: upstream `core/reconcilers/machine/machine_controller.go`, `reconcileDelete`. A wait's start is in the status, so
//! that a restart continues it. What cannot be seen is waited for, never taken as gone.

use std::time::Duration;

use capstan_api::annotation;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    DELETION_CHECK, Observed, PRE_DRAIN, PRE_TERMINATE, Step, has_annotation, hooks, is_deleting,
};
use crate::lookup::Lookup;
use crate::plan::Plan;

/// What deletion depends on beyond the Machine and its providers' objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The Cluster is being deleted.
    pub cluster_deleting: bool,
    /// The control plane object is being deleted.
    pub control_plane_deleting: bool,
    /// Control-plane Machines that are not being deleted.
    pub active_control_plane_machines: usize,
    /// The control plane has no Machines of its own.
    pub externally_managed_control_plane: bool,
    /// The Node, by the Machine's reference or its provider ID.
    pub node: Option<String>,
    /// The Node exists.
    pub node_exists: bool,
    /// The Node's Ready condition is Unknown: its kubelet does not answer.
    pub node_unreachable: bool,
    /// The drain was found complete, in this process.
    pub drained: bool,
    /// No volume was found attached any more, in this process.
    pub detached: bool,
}

/// Where the deletion is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Annotations before the drain, by name.
    PreDrainHook(Vec<String>),
    /// The Node is drained.
    Drain(String),
    /// Volumes are detached.
    Volumes(String),
    /// Annotations before termination, by name.
    PreTerminateHook(Vec<String>),
    /// The infrastructure machine is deleted.
    Infrastructure,
    /// The bootstrap config is deleted.
    Bootstrap,
    /// The Node is deleted.
    Node(String),
    /// Nothing is left.
    Completed,
}

impl Stage {
    /// Reason of the condition `Deleting`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PreDrainHook(_) => "WaitingForPreDrainHook",
            Self::Drain(_) => "DrainingNode",
            Self::Volumes(_) => "WaitingForVolumeDetach",
            Self::PreTerminateHook(_) => "WaitingForPreTerminateHook",
            Self::Infrastructure => "WaitingForInfrastructureDeletion",
            Self::Bootstrap => "WaitingForBootstrapDeletion",
            Self::Node(_) => "DeletingNode",
            Self::Completed => "DeletionCompleted",
        }
    }

    /// What is waited for and who moves next.
    #[must_use]
    pub fn message(&self, observed: &Observed) -> String {
        let infra = &observed.machine.spec.infrastructure_ref;
        let config = observed.machine.spec.bootstrap.config_ref.as_ref();
        match self {
            Self::PreDrainHook(hooks) => {
                format!(
                    "Waiting for pre-drain hooks to succeed (hooks: {})",
                    hooks.join(",")
                )
            }
            Self::Drain(node) => format!("Drain of Node {node} not completed yet"),
            Self::Volumes(node) => format!("Waiting for volumes to be detached from Node {node}"),
            Self::PreTerminateHook(hooks) => {
                format!(
                    "Waiting for pre-terminate hooks to succeed (hooks: {})",
                    hooks.join(",")
                )
            }
            Self::Infrastructure => {
                format!("Waiting for {} {} to be deleted", infra.kind, infra.name)
            }
            Self::Bootstrap => config.map_or_else(String::new, |config| {
                format!("Waiting for {} {} to be deleted", config.kind, config.name)
            }),
            Self::Node(node) => format!("Deleting Node {node}"),
            Self::Completed => String::new(),
        }
    }
}

/// Whether the Node is drained and deleted at all (contract 3.3, deletion step 1): not when everything goes, and not when no
/// control plane is left to ask.
#[must_use]
pub fn is_node_deletion_allowed(facts: &Facts) -> bool {
    !facts.cluster_deleting
        && facts.node.is_some()
        && !facts.control_plane_deleting
        && (facts.externally_managed_control_plane || facts.active_control_plane_machines > 0)
}

/// Where the deletion is.
#[must_use]
pub fn stage(observed: &Observed, now: Timestamp) -> Stage {
    let facts = &observed.deletion;
    let machine = &observed.machine;
    let times = machine
        .status
        .as_ref()
        .and_then(|s| s.deletion.clone())
        .unwrap_or_default();
    let timeouts = machine.spec.deletion.clone().unwrap_or_default();
    let terminating = times.wait_for_pre_terminate_hook_start_time.is_some();
    let infra_gone_or_going =
        observed.infra.is_missing() || observed.infra.found().is_some_and(is_deleting);
    if is_node_deletion_allowed(facts)
        && let Some(node) = &facts.node
    {
        let pre_drain = hooks(machine, PRE_DRAIN);
        if !pre_drain.is_empty() {
            return Stage::PreDrainHook(pre_drain);
        }
        let over = terminating || infra_gone_or_going;
        let drain_over = over
            || facts.drained
            || has_annotation(machine, annotation::EXCLUDE_NODE_DRAINING)
            || !facts.node_exists
            || is_exceeded(
                times.node_drain_start_time.as_ref(),
                timeouts.node_drain_timeout_seconds,
                now,
            );
        if !drain_over {
            return Stage::Drain(node.clone());
        }
        let since = times.wait_for_node_volume_detach_start_time.as_ref();
        let volumes_over = over
            || facts.detached
            || has_annotation(machine, annotation::EXCLUDE_WAIT_FOR_NODE_VOLUME_DETACH)
            || !facts.node_exists
            || facts.node_unreachable
            || is_exceeded(since, timeouts.node_volume_detach_timeout_seconds, now);
        if !volumes_over {
            return Stage::Volumes(node.clone());
        }
    }
    let pre_terminate = hooks(machine, PRE_TERMINATE);
    if !pre_terminate.is_empty() {
        return Stage::PreTerminateHook(pre_terminate);
    }
    // Without bootstrap data no instance was ever asked for: a kind that was never installed keeps no such Machine from going.
    let known = observed.known();
    let nothing_made = !known.provisioned && known.data_secret_name.is_none();
    let holds = |object: &Lookup<Value>| match object {
        Lookup::Found(_) => true,
        Lookup::Missing => false,
        Lookup::Unknown(_) => !nothing_made,
    };
    if holds(&observed.infra) {
        return Stage::Infrastructure;
    }
    if observed.bootstrap.as_ref().is_some_and(holds) {
        return Stage::Bootstrap;
    }
    if is_node_deletion_allowed(facts)
        && facts.node_exists
        && let Some(node) = &facts.node
    {
        let since = machine.metadata.deletion_timestamp.as_ref();
        // Nil is the default of 10 s, which the API server sets; 0 waits for ever.
        let timeout = Some(timeouts.node_deletion_timeout_seconds.unwrap_or(10));
        // Whether the Node is still there after the timeout is no longer this Machine's business.
        if !is_exceeded(since, timeout, now) {
            return Stage::Node(node.clone());
        }
    }
    Stage::Completed
}

/// Whether a timeout above 0 has passed since a start.
fn is_exceeded(since: Option<&Time>, timeout_s: Option<i32>, now: Timestamp) -> bool {
    let (Some(since), Some(timeout_s)) = (since, timeout_s.filter(|s| *s > 0)) else {
        return false;
    };
    now.duration_since(since.0).as_secs() >= i64::from(timeout_s)
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    let stage = stage(observed, now);
    let times = observed
        .machine
        .status
        .as_ref()
        .and_then(|s| s.deletion.clone())
        .unwrap_or_default();
    let plan = match &stage {
        // The start of a wait is in the status before the wait begins.
        Stage::Drain(_) if times.node_drain_start_time.is_none() => {
            Plan::settled().check_after(Duration::ZERO)
        }
        Stage::Volumes(_) if times.wait_for_node_volume_detach_start_time.is_none() => {
            Plan::settled().check_after(Duration::ZERO)
        }
        Stage::Drain(node) => {
            Plan::of(vec![Step::Drain { node: node.clone() }]).check_after(DELETION_CHECK)
        }
        Stage::Volumes(node) => {
            Plan::of(vec![Step::CheckVolumes { node: node.clone() }]).check_after(DELETION_CHECK)
        }
        Stage::Infrastructure => match &observed.infra {
            Lookup::Found(infra) if !is_deleting(infra) => Plan::of(vec![Step::DeleteInfra]),
            _ => Plan::settled(),
        },
        Stage::Bootstrap => match observed.bootstrap.as_ref() {
            Some(Lookup::Found(config)) if !is_deleting(config) => {
                Plan::of(vec![Step::DeleteBootstrap])
            }
            _ => Plan::settled(),
        },
        Stage::Node(name) => Plan::of(vec![Step::DeleteNode { name: name.clone() }])
            .check_after(Duration::from_secs(2)),
        Stage::PreDrainHook(_) | Stage::PreTerminateHook(_) | Stage::Completed => Plan::settled(),
    };
    if stage == Stage::Completed {
        return plan;
    }
    plan.waiting(stage.reason(), stage.message(observed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use capstan_api::v1beta2::{MachineDeletionSpec, MachineDeletionStatus};
    use serde_json::json;

    use super::*;
    use crate::machine::report::tests::observed;

    fn deleting() -> Observed {
        let mut observed = observed();
        observed.machine.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        observed.deletion = Facts {
            active_control_plane_machines: 1,
            node: Some("n".to_owned()),
            node_exists: true,
            ..Facts::default()
        };
        observed
    }

    fn annotate(observed: &mut Observed, key: &str) {
        observed.machine.metadata.annotations =
            Some(BTreeMap::from([(key.to_owned(), String::new())]));
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
        observed.deletion.drained = true;
        assert_eq!(stage(&observed, now), Stage::Volumes("n".to_owned()));
        observed.deletion.detached = true;
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
    fn hooks_hold_the_stages_that_follow_them() {
        let now = Timestamp::UNIX_EPOCH;
        let mut observed = deleting();
        annotate(
            &mut observed,
            "pre-drain.delete.hook.machine.cluster.x-k8s.io/a",
        );
        assert_eq!(
            stage(&observed, now),
            Stage::PreDrainHook(vec!["a".to_owned()])
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
            Stage::PreTerminateHook(vec!["b".to_owned()])
        );
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
            Lookup::Found(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(
            stage(&observed, Timestamp::UNIX_EPOCH),
            Stage::Infrastructure
        );
        assert!(
            decide(&observed, Timestamp::UNIX_EPOCH).steps.is_empty(),
            "asked once"
        );
    }
}
