//! The order in which a Machine is deleted: hooks, drain, volumes, hooks, infrastructure, bootstrap, Node, finalizer.
//!
//! Contract: upstream `core/reconcilers/machine/machine_controller.go`, `reconcileDelete`. A wait's start is in the status, so
//! that a restart continues it. What cannot be seen is waited for, never taken as gone.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::machine_hook::MachineHookPhase as Phase;
use capstan_api::v1beta2::MachineDeletionStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::hook::{self, Hook, NextTurn};
use super::kube_object::{is_deleting, text};
use super::{NodeLookup, Observed, PRE_DRAIN, PRE_TERMINATE, Step, has_annotation, hooks, report};
use crate::deadline;
use crate::drain::{check_after, is_unreachable};
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
    /// The last turn of the drain, in this process.
    pub drain: Option<Turn>,
    /// The last look at the volumes, in this process.
    pub volumes: Option<Turn>,
    /// The Node could not be deleted when that was tried last, by this process.
    pub node_deletion_failed: bool,
    /// Hooks that are bound to the Machine.
    pub hooks: Vec<Hook>,
    /// The kind of the infrastructure machine is not installed: there are no objects of it.
    pub no_infra_kind: bool,
    /// The kind of the bootstrap config is not installed: there are no objects of it.
    pub no_bootstrap_kind: bool,
}

/// One turn of something that takes several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// When it was.
    pub at: Timestamp,
    /// What was left, in words; empty when nothing was.
    pub left: Vec<String>,
}

impl Facts {
    /// Takes in what was seen of the Node: by its provider ID, or else by the Machine's reference, with what has that name. What
    /// cannot be seen may well be there, and is waited for.
    pub fn see_node(
        &mut self,
        found: &NodeLookup,
        reference: Option<(String, Lookup<Arc<Value>>)>,
    ) {
        match (found, reference) {
            (NodeLookup::One(node), _) => {
                self.node = text(node, "/metadata/name").map(str::to_owned);
                self.node_exists = true;
                self.node_unreachable = is_unreachable(node);
            }
            (NodeLookup::NotLooked | NodeLookup::Several(_), Some((name, named))) => {
                self.node_exists = !named.is_missing();
                self.node_unreachable = named.found().is_some_and(|node| is_unreachable(node));
                self.node = Some(name);
            }
            // A Node of that name that is not the instance's is another.
            (NodeLookup::None, Some((name, _))) => self.node = Some(name),
            (_, None) => {}
        }
    }

    /// The drain was found complete.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|turn| turn.left.is_empty())
    }

    /// No volume was found attached any more.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.volumes
            .as_ref()
            .is_some_and(|turn| turn.left.is_empty())
    }
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
            Self::Drain(node) => match times(observed).node_drain_start_time {
                Some(began) => format!("Drain not completed yet (started at {})", began.0),
                None => format!("Draining Node {node}"),
            },
            Self::Volumes(node) => {
                let began = times(observed).wait_for_node_volume_detach_start_time;
                let began = began.map_or_else(String::new, |t| format!(" (started at {})", t.0));
                format!("Waiting for volumes to be detached from Node {node}{began}")
            }
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

/// When the parts of the deletion began.
fn times(observed: &Observed) -> MachineDeletionStatus {
    let status = observed.machine.status.as_ref();
    status.and_then(|s| s.deletion.clone()).unwrap_or_default()
}

/// The bound hooks of a phase that the Machine waits for, in their order. One that was bound when its phase was over already is
/// not waited for: no phase is gone back to.
#[must_use]
pub fn pending(observed: &Observed, phase: Phase) -> Vec<&Hook> {
    let facts = &observed.deletion;
    let infra_gone_or_going = observed.infra.is_missing()
        || observed
            .infra
            .found()
            .is_some_and(|infra| is_deleting(infra));
    let times = times(observed);
    let is_over = match phase {
        Phase::PreDrain => {
            infra_gone_or_going
                || times.node_drain_start_time.is_some()
                || times.wait_for_node_volume_detach_start_time.is_some()
                // A Node that has joined since is drained, and asked about before.
                || (times.wait_for_pre_terminate_hook_start_time.is_some() && !facts.node_exists)
        }
        Phase::PreTerminate => infra_gone_or_going,
    };
    let mut pending = hook::in_order(&facts.hooks, phase);
    pending.retain(|hook| {
        let runs = match (facts.cluster_deleting, phase) {
            (true, _) => hook.runs_on_cluster_deletion(),
            (false, Phase::PreDrain) => is_node_deletion_allowed(facts),
            (false, Phase::PreTerminate) => true,
        };
        runs && !hook.is_done() && !(is_over && hook.record.is_none())
    });
    pending
}

/// Names of all hooks of a phase that hold the Machine: annotations, where the contract honours them, and bound ones.
fn holding(observed: &Observed, phase: Phase) -> Vec<String> {
    let mut names = match phase {
        Phase::PreDrain if !is_node_deletion_allowed(&observed.deletion) => Vec::new(),
        Phase::PreDrain => hooks(&observed.machine, PRE_DRAIN),
        Phase::PreTerminate => hooks(&observed.machine, PRE_TERMINATE),
    };
    let bound = pending(observed, phase);
    names.extend(bound.into_iter().map(|hook| hook.name.clone()));
    names
}

/// What is left to do on the Node before the infrastructure may go.
fn node_stage(observed: &Observed, now: Timestamp) -> Option<Stage> {
    let facts = &observed.deletion;
    let machine = &observed.machine;
    let times = times(observed);
    let timeouts = machine.spec.deletion.clone().unwrap_or_default();
    let node = facts
        .node
        .as_ref()
        .filter(|_| is_node_deletion_allowed(facts))?;
    let infra_gone_or_going = observed.infra.is_missing()
        || observed
            .infra
            .found()
            .is_some_and(|infra| is_deleting(infra));
    let terminating = times.wait_for_pre_terminate_hook_start_time.as_ref();
    // What began before hooks before termination were waited for is not gone back to. A Node that has joined since is drained
    // all the same.
    let over = |began: Option<&Time>| {
        // Times are whole seconds: within one it is not known what was first, and a Node that joins late must not go undrained.
        let is_before = |began: &Time| terminating.is_some_and(|since| began.0 < since.0);
        infra_gone_or_going || began.is_some_and(is_before)
    };
    let drain_over = over(times.node_drain_start_time.as_ref())
        || facts.is_drained()
        || has_annotation(machine, annotation::EXCLUDE_NODE_DRAINING)
        || !facts.node_exists
        || is_exceeded(
            times.node_drain_start_time.as_ref(),
            timeouts.node_drain_timeout_seconds,
            now,
        );
    if !drain_over {
        return Some(Stage::Drain(node.clone()));
    }
    let since = times.wait_for_node_volume_detach_start_time.as_ref();
    // A first look that found no volume has left no time behind.
    let volumes_over = over(since.or(times.node_drain_start_time.as_ref()))
        || facts.is_detached()
        || has_annotation(machine, annotation::EXCLUDE_WAIT_FOR_NODE_VOLUME_DETACH)
        || !facts.node_exists
        || facts.node_unreachable
        || is_exceeded(since, timeouts.node_volume_detach_timeout_seconds, now);
    (!volumes_over).then(|| Stage::Volumes(node.clone()))
}

/// Where the deletion is.
#[must_use]
pub fn stage(observed: &Observed, now: Timestamp) -> Stage {
    let facts = &observed.deletion;
    let machine = &observed.machine;
    let timeouts = machine.spec.deletion.clone().unwrap_or_default();
    let pre_drain = holding(observed, Phase::PreDrain);
    if !pre_drain.is_empty() {
        return Stage::PreDrainHook(pre_drain);
    }
    if let Some(stage) = node_stage(observed, now) {
        return stage;
    }
    let pre_terminate = holding(observed, Phase::PreTerminate);
    if !pre_terminate.is_empty() {
        return Stage::PreTerminateHook(pre_terminate);
    }
    // Without bootstrap data no instance was ever asked for: a kind that was never installed keeps no such Machine from going. One
    // that is installed and cannot be seen does, as that of a plugin always.
    let known = observed.known();
    let nothing_made = !observed.infra_is_own
        && !known.provisioned
        && !known.bootstrapped
        && known.data_secret_name.is_none();
    let holds = |object: &Lookup<Arc<Value>>, no_kind: bool| match object {
        Lookup::Found(_) => true,
        Lookup::Missing => false,
        Lookup::Unknown(_) => !(nothing_made && no_kind),
    };
    if holds(&observed.infra, facts.no_infra_kind) {
        return Stage::Infrastructure;
    }
    let config = observed.bootstrap.as_ref();
    if config.is_some_and(|config| holds(config, facts.no_bootstrap_kind)) {
        return Stage::Bootstrap;
    }
    if is_node_deletion_allowed(facts)
        && facts.node_exists
        && let Some(node) = &facts.node
    {
        let since = machine.metadata.deletion_timestamp.as_ref();
        // Nil is the default of 10 s, which the API server sets; 0 waits for ever.
        let timeout = Some(timeouts.node_deletion_timeout_seconds.unwrap_or(10));
        // The time counts from the Machine's deletion, and a drain may have taken all of it: the Node is given up only after a try that failed.
        let is_given_up = facts.node_deletion_failed && is_exceeded(since, timeout, now);
        if !is_given_up {
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
    let times = times(observed);
    let facts = &observed.deletion;
    let plan = match &stage {
        // The start of a wait is in the status before the wait begins.
        Stage::Drain(_) if times.node_drain_start_time.is_none() => {
            Plan::settled().check_after(Duration::ZERO)
        }
        // A first look is no wait yet: most machines have no volumes, and the deletion of these has one write less.
        Stage::Volumes(_)
            if times.wait_for_node_volume_detach_start_time.is_none()
                && facts.volumes.is_some() =>
        {
            Plan::settled().check_after(Duration::ZERO)
        }
        Stage::Drain(node) => turn(
            times.node_drain_start_time.as_ref(),
            facts.drain.as_ref(),
            Step::Drain { node: node.clone() },
            now,
        ),
        Stage::Volumes(node) => turn(
            times.wait_for_node_volume_detach_start_time.as_ref(),
            facts.volumes.as_ref(),
            Step::CheckVolumes { node: node.clone() },
            now,
        ),
        Stage::PreDrainHook(_) => ask(&pending(observed, Phase::PreDrain), now),
        Stage::PreTerminateHook(_) => ask(&pending(observed, Phase::PreTerminate), now),
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
        Stage::Completed => Plan::settled(),
    };
    if stage == Stage::Completed {
        return plan;
    }
    let mut plan = plan.waiting(stage.reason(), stage.message(observed));
    // What takes long explains itself from then on.
    if let Some(left) = until_long(observed, now) {
        plan = plan.check_after(left);
    }
    // What providers say is kept while they say it: without the provider ID the Node is not found any more.
    let learned = super::spec_patch(observed).map(Step::PatchMachine);
    plan.steps.splice(0..0, learned);
    plan
}

/// How long until the deletion takes long.
fn until_long(observed: &Observed, now: Timestamp) -> Option<Duration> {
    let since = observed.machine.metadata.deletion_timestamp.as_ref()?;
    deadline::left(since.0, report::LONG_DELETION_S.saturating_add(1), now)
}

/// The next turn of something that takes several, not sooner than it is of use.
fn turn(began: Option<&Time>, last: Option<&Turn>, step: Step, now: Timestamp) -> Plan<Step> {
    let began = began.map(|began| began.0);
    let left = last.and_then(|last| {
        let due = last.at.checked_add(check_after(began, last.at)).ok()?;
        Duration::try_from(due.duration_since(now)).ok()
    });
    match left.filter(|left| !left.is_zero()) {
        Some(left) => Plan::settled().check_after(left),
        None => Plan::of(vec![step]).check_after(check_after(began, now)),
    }
}

/// Asks the bound hook whose turn it is; annotations are waited for beside it.
fn ask(pending: &[&Hook], now: Timestamp) -> Plan<Step> {
    let Some(first) = pending.first() else {
        return Plan::settled();
    };
    match first.next(now) {
        NextTurn::Ask => Plan::of(vec![Step::AskHook {
            name: first.name.clone(),
        }]),
        NextTurn::GiveUp(turn) => Plan::of(vec![Step::RecordHook(turn)]),
        NextTurn::Wait(left) => Plan::settled().check_after(left),
    }
}

#[cfg(test)]
mod tests;
