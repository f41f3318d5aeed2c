//! Bootstrap configs that a plugin owns: what is waited for, which role the machine gets, when the data is made and when its
//! join token is kept alive (contract: upstream `bootstrap/kubeadm/internal/controllers`).

pub mod failure;

use std::time::Duration;

use capstan_api::condition::combine::{Class, Part, Polarity, Reasons, summary};
use capstan_api::condition::{self, ConditionStatus, Report};
use capstan_api::label;
use capstan_api::reason::{common, condition_type, kubeadm};
use capstan_api::v1beta2::{Cluster, Machine};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::call::PluginCondition;
use crate::call::bootstrap::Role;
use crate::infrastructure::own_conditions;
use crate::lookup::Lookup;
use crate::machine::report::TURN_RECHECK;
use crate::plan::{Next, Outcome, Plan};

/// How long a join token lives unless it is kept alive.
pub const TOKEN_TTL: SignedDuration = SignedDuration::from_mins(15);
/// A token with less than this left is kept alive: five sixths of its life.
const TOKEN_REFRESH_BELOW: SignedDuration = SignedDuration::from_secs(750);
/// A token of a MachinePool with nodes that has less than this left is replaced: half of its life.
const TOKEN_ROTATE_BELOW: SignedDuration = SignedDuration::from_secs(450);
/// How often a token is looked at.
pub const TOKEN_CHECK: Duration = Duration::from_secs(300);
/// How soon a token is looked at again whose turn had not come: it is kept alive minutes before its end, so that nothing hurries.
const TOKEN_TURN: Duration = Duration::from_secs(15);
/// How soon a held lock is looked at again.
const LOCK_CHECK: Duration = Duration::from_secs(30);

/// Annotation on the Secret with the data: id of the join token in it, which says that there is one and which.
pub const JOIN_TOKEN: &str = "capstan.dev/join-token";

/// What is known of the join token in the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Token {
    /// There is none, or the machine has joined, or it was looked at a moment ago.
    #[default]
    Settled,
    /// It exists and ends then.
    Expires {
        /// Id.
        id: String,
        /// End.
        at: Timestamp,
    },
    /// It does not exist any more and the machine has not joined.
    Gone {
        /// Id.
        id: String,
    },
    /// It could not be looked at.
    Unknown(String),
    /// It was not looked at: other tokens of the cluster have their turn now.
    NotItsTurn,
}

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The bootstrap config.
    pub config: Value,
    /// The Machine that owns it; of a MachinePool that does, a machine as the pool's template describes it, with one of the pool's Nodes.
    pub machine: Lookup<Machine>,
    /// It belongs to a MachinePool: whatever machines the infrastructure makes for as long as the pool lives boot with its data.
    pub is_shared: bool,
    /// The Cluster.
    pub cluster: Lookup<Cluster>,
    /// Name of the plugin that installed the kind, as its CustomResourceDefinition says; it need not be active.
    pub owner: Option<String>,
    /// Name of the plugin that owns the kind; `None` when none is active.
    pub plugin: Option<String>,
    /// The Machine's controller is a control plane of this host, which makes one first machine and no other before that
    /// one is up: no lock is needed.
    pub is_serialized: bool,
    /// The Secret with the data is of Cluster API's type and this config is not its controller.
    pub is_orphaned: bool,
    /// The join token in the data.
    pub token: Token,
}

/// What to do with the lock that lets one control-plane machine at a time be the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nothing.
    Leave,
    /// Have it, or wait for it.
    Take,
    /// The cluster is up: nobody needs it any more.
    Release,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the plugin for the data and keep it in the Secret.
    Prepare {
        /// What the machine will be.
        role: Role,
        /// The lock.
        lock: Lock,
    },
    /// Become the controller of the Secret with the data.
    AdoptSecret {
        /// Its name.
        name: String,
    },
    /// Let the join token live longer.
    ExtendToken {
        /// Id.
        id: String,
        /// New end.
        until: Timestamp,
    },
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The Secret is there.
    Prepared {
        /// Its name.
        secret: String,
        /// The data has a join token.
        has_token: bool,
        /// The plugin's own conditions.
        conditions: Vec<PluginCondition>,
    },
    /// Another machine is the first.
    Locked {
        /// That Machine.
        holder: String,
    },
    /// The control plane has not made these yet.
    CertificatesMissing(Vec<String>),
    /// A join token is needed and the workload cluster cannot be reached.
    NotConnected,
    /// The Secret is this config's.
    Adopted,
    /// The token lives longer.
    Extended,
    /// A join token is needed, or should live longer, and others of the cluster have their turn now.
    NotItsTurn,
}

/// What is waited for before the plugin is asked.
fn wait_for(observed: &Observed) -> Option<(&'static str, String)> {
    let (machine, cluster) = match (&observed.machine, &observed.cluster) {
        (Lookup::Found(machine), Lookup::Found(cluster)) => (machine, cluster),
        (Lookup::Unknown(why), _) | (_, Lookup::Unknown(why)) => {
            return Some((common::INTERNAL_ERROR, why.clone()));
        }
        (Lookup::Missing, _) => {
            return Some((
                common::NOT_AVAILABLE,
                "waiting for an owner reference to a Machine or a MachinePool".to_owned(),
            ));
        }
        (_, Lookup::Missing) => {
            return Some((
                common::NOT_AVAILABLE,
                "waiting for the Cluster to exist".to_owned(),
            ));
        }
    };
    let initialization = cluster
        .status
        .as_ref()
        .and_then(|status| status.initialization.as_ref());
    if initialization.and_then(|i| i.infrastructure_provisioned) != Some(true) {
        let message =
            "waiting for Cluster status.initialization.infrastructureProvisioned to be true";
        return Some((common::NOT_AVAILABLE, message.to_owned()));
    }
    let endpoint = cluster.spec.control_plane_endpoint.as_ref();
    if !endpoint.is_some_and(capstan_api::v1beta2::ApiEndpoint::is_complete) {
        let message = "waiting for Cluster spec.controlPlaneEndpoint to have a host and a port";
        return Some((common::NOT_AVAILABLE, message.to_owned()));
    }
    if !is_initialized(cluster) && !is_control_plane(machine) {
        let message = "waiting for the first control-plane machine: Cluster condition ControlPlaneInitialized is not True";
        return Some((common::NOT_AVAILABLE, message.to_owned()));
    }
    if observed.plugin.is_none() {
        let kind = observed
            .config
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let message = crate::infrastructure::plugin_missing(kind, observed.owner.as_deref());
        return Some((common::NOT_AVAILABLE, message));
    }
    None
}

/// Whether the workload cluster's control plane has been up.
#[must_use]
pub fn is_initialized(cluster: &Cluster) -> bool {
    let Some(status) = &cluster.status else {
        return false;
    };
    status
        .initialization
        .as_ref()
        .and_then(|i| i.control_plane_initialized)
        == Some(true)
        || condition::is_true(
            &status.conditions,
            condition_type::CONTROL_PLANE_INITIALIZED,
        )
}

fn is_control_plane(machine: &Machine) -> bool {
    machine
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(label::CONTROL_PLANE))
}

/// Whether the machine is a node of its cluster.
fn has_node(machine: &Machine) -> bool {
    let status = machine.status.as_ref();
    status.is_some_and(|status| status.node_ref.is_some())
}

/// Name of the Secret with the data, as far as the status or the Machine says: after `clusterctl move` and restores only the
/// Machine does.
#[must_use]
pub fn data_secret_name(observed: &Observed) -> Option<String> {
    let stored = observed
        .config
        .pointer("/status/dataSecretName")
        .and_then(Value::as_str);
    if let Some(name) = stored.filter(|_| is_recorded(observed)) {
        return Some(name.to_owned());
    }
    observed
        .machine
        .found()?
        .spec
        .bootstrap
        .data_secret_name
        .clone()
        .filter(|name| !name.is_empty())
}

/// Whether the status says that there is data.
#[must_use]
pub fn is_recorded(observed: &Observed) -> bool {
    let created = "/status/initialization/dataSecretCreated";
    observed.config.pointer(created) == Some(&json!(true))
}

fn is_deleting(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
}

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if is_deleting(&observed.config) {
        return Plan::settled();
    }
    if let Some(name) = data_secret_name(observed) {
        let mut plan = keep_alive(observed, now);
        if observed.is_orphaned {
            plan.steps.insert(0, Step::AdoptSecret { name });
        }
        return plan;
    }
    if let Some((reason, message)) = wait_for(observed) {
        return Plan::settled().waiting(reason, message);
    }
    let (Lookup::Found(machine), Lookup::Found(cluster)) = (&observed.machine, &observed.cluster)
    else {
        return Plan::settled();
    };
    let is_control_plane = is_control_plane(machine);
    let needs_lock = is_control_plane && !observed.is_serialized;
    let step = match (is_initialized(cluster), is_control_plane) {
        (false, _) => Step::Prepare {
            role: Role::Init,
            lock: if needs_lock { Lock::Take } else { Lock::Leave },
        },
        (true, true) => Step::Prepare {
            role: Role::JoinControlPlane,
            lock: if needs_lock {
                Lock::Release
            } else {
                Lock::Leave
            },
        },
        // A control plane object never took the lock.
        (true, false) => Step::Prepare {
            role: Role::JoinWorker,
            lock: if cluster.spec.control_plane_ref.is_none() && !observed.is_serialized {
                Lock::Release
            } else {
                Lock::Leave
            },
        },
    };
    Plan::of(vec![step])
}

/// While the machine has not joined, its token must not end.
fn keep_alive(observed: &Observed, now: Timestamp) -> Plan<Step> {
    let joined = observed.machine.found().is_none_or(has_node);
    if observed.is_shared {
        return keep_usable(observed, joined, now);
    }
    if joined {
        return Plan::settled();
    }
    let plan = match &observed.token {
        Token::Expires { id, at } if at.duration_since(now) < TOKEN_REFRESH_BELOW => {
            let until = now.saturating_add(TOKEN_TTL).unwrap_or(*at);
            Plan::of(vec![Step::ExtendToken {
                id: id.clone(),
                until,
            }])
        }
        Token::NotItsTurn => Plan::settled().check_after(TOKEN_TURN),
        Token::Settled | Token::Expires { .. } | Token::Gone { .. } | Token::Unknown(_) => {
            Plan::settled()
        }
    };
    plan.check_after(TOKEN_CHECK)
}

/// Machines of a pool come at any time: as long as none has joined the token that they have is kept alive, afterwards it is replaced in time,
/// and so is one that is gone (contract 3.9.4).
fn keep_usable(observed: &Observed, joined: bool, now: Timestamp) -> Plan<Step> {
    let remake = || {
        Plan::of(vec![Step::Prepare {
            role: Role::JoinWorker,
            lock: Lock::Leave,
        }])
    };
    let plan = match &observed.token {
        Token::Gone { .. } if wait_for(observed).is_none() => remake(),
        Token::Expires { at, .. } if joined && at.duration_since(now) < TOKEN_ROTATE_BELOW => {
            match wait_for(observed) {
                None => remake(),
                Some((reason, message)) => Plan::settled().waiting(reason, message),
            }
        }
        Token::Expires { id, at } if !joined && at.duration_since(now) < TOKEN_REFRESH_BELOW => {
            let until = now.saturating_add(TOKEN_TTL).unwrap_or(*at);
            Plan::of(vec![Step::ExtendToken {
                id: id.clone(),
                until,
            }])
        }
        Token::NotItsTurn => Plan::settled().check_after(TOKEN_TURN),
        Token::Settled | Token::Expires { .. } | Token::Gone { .. } | Token::Unknown(_) => {
            Plan::settled()
        }
    };
    plan.check_after(TOKEN_CHECK)
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
}

/// What the status says.
#[must_use]
pub fn report(observed: &Observed, outcome: &Outcome<Step, Effect>) -> Reported {
    let prepared = outcome.done.iter().find_map(|(_, effect)| match effect {
        Effect::Prepared { secret, .. } => Some(secret.clone()),
        _ => None,
    });
    let secret = prepared.or_else(|| data_secret_name(observed));
    let mut next = None;
    let has_token = |effect: &Effect| {
        matches!(
            effect,
            Effect::Prepared {
                has_token: true,
                ..
            }
        )
    };
    if outcome.done.iter().any(|(_, effect)| has_token(effect)) {
        next = Some(Next::CheckAfter(TOKEN_CHECK));
    }
    let has_to_wait = |(_, effect): &(Step, Effect)| *effect == Effect::NotItsTurn;
    if outcome.done.iter().any(has_to_wait) {
        next = Some(Next::CheckAfter(TURN_RECHECK));
    }
    let mut status = observed
        .config
        .get("status")
        .cloned()
        .unwrap_or_else(|| json!({}));
    if let Some(fields) = status.as_object_mut() {
        fields.remove("conditions");
        fields.remove("observedGeneration");
        if let Some(secret) = &secret {
            fields.insert("dataSecretName".to_owned(), json!(secret));
            fields.insert(
                "initialization".to_owned(),
                json!({"dataSecretCreated": true}),
            );
        }
    }
    let data = data_condition(observed, outcome, secret.is_some(), &mut next);
    let certificates = certificates_condition(outcome, secret.is_some());
    let mut conditions = Vec::new();
    for (_, effect) in &outcome.done {
        if let Effect::Prepared {
            conditions: own, ..
        } = effect
        {
            conditions.extend(own_conditions(own));
        }
    }
    let has_joined = observed.machine.found().is_some_and(has_node);
    let failure = failure::BootstrapFailure::of(&observed.config)
        .filter(|failure| !(has_joined && failure.is_of_joining()));
    if failure.is_none() && has_joined && failure::is_said(&observed.config) {
        conditions.push(failure::overcome());
    }
    let failed = failure.as_ref().map(|failure| failure.condition());
    let is_node = failure.is_some_and(|failure| failure.is_of_a_node());
    let ready = ready_condition(&data, &certificates, failed.as_ref(), is_node);
    conditions.extend([ready, data, certificates]);
    conditions.extend(failed);
    Reported {
        status,
        conditions,
        next,
    }
}

/// Ready, of what was found out about data, certificates and the machine. What failed on a machine that is a node all the same is told, and
/// is in nobody's way.
fn ready_condition(
    data: &Report,
    certificates: &Report,
    failed: Option<&Report>,
    is_node: bool,
) -> Report {
    let mut listed: Vec<Condition> = Vec::new();
    for report in [data, certificates].into_iter().chain(failed) {
        condition::set(&mut listed, report.clone(), None, Timestamp::UNIX_EPOCH);
    }
    let part = |type_: &str| Part::of(&listed, type_, Polarity::Positive);
    let mut parts = vec![
        part(condition_type::DATA_SECRET_AVAILABLE),
        part(condition_type::CERTIFICATES_AVAILABLE),
    ];
    // Only machines that failed say so.
    if failed.is_some() {
        let told = part(condition_type::BOOTSTRAP_SUCCEEDED);
        parts.push(Part {
            class: if is_node {
                Some(Class::Info)
            } else {
                told.class
            },
            ..told
        });
    }
    summary(
        condition_type::READY,
        &parts,
        &Reasons {
            on_true: common::READY,
            on_false: common::NOT_READY,
            on_unknown: common::READY_UNKNOWN,
        },
    )
}

/// What is said of data that the machine cannot join with any more; what was said stays where it could not be looked again.
fn token_gone(observed: &Observed) -> Option<Report> {
    let type_ = condition_type::DATA_SECRET_AVAILABLE;
    let message = match &observed.token {
        Token::Gone { id } if observed.is_shared => format!(
            "the join token {id} is gone from the workload cluster, and no other was made yet"
        ),
        Token::Gone { id } => format!(
            "the join token {id} is gone from the workload cluster and the machine has not joined: delete the Machine to have it replaced"
        ),
        Token::Unknown(_) | Token::NotItsTurn => {
            condition::read(&observed.config, type_)
                .filter(|said| said.reason == kubeadm::JOIN_TOKEN_GONE)?
                .message
        }
        Token::Settled | Token::Expires { .. } => return None,
    };
    Some(Report::no(type_, kubeadm::JOIN_TOKEN_GONE).with_message(message))
}

fn data_condition(
    observed: &Observed,
    outcome: &Outcome<Step, Effect>,
    has_data: bool,
    next: &mut Option<Next>,
) -> Report {
    let type_ = condition_type::DATA_SECRET_AVAILABLE;
    let not_yet = |message: String| Report::no(type_, common::NOT_AVAILABLE).with_message(message);
    let failed = outcome.failed.as_ref();
    let is_remade = outcome
        .done
        .iter()
        .any(|(_, effect)| matches!(effect, Effect::Prepared { .. }));
    if has_data && is_remade {
        return Report::yes(type_, common::AVAILABLE);
    }
    if has_data {
        let gone = token_gone(observed).map(|mut gone| {
            if let Some((_, failure)) = failed {
                gone.message = format!("{}: {}", gone.message, failure.message);
            }
            gone
        });
        return gone.unwrap_or_else(|| Report::yes(type_, common::AVAILABLE));
    }
    if let Some((_, failure)) = failed {
        let plugin = observed.plugin.as_deref().unwrap_or("plugin");
        return Report::no(type_, &failure.reason)
            .with_message(format!("{plugin}: {}", failure.message));
    }
    match outcome.done.first() {
        Some((_, Effect::Locked { holder })) => {
            *next = Some(Next::CheckAfter(LOCK_CHECK));
            not_yet(format!(
                "waiting for Machine {holder} to become the first control-plane machine"
            ))
        }
        Some((_, Effect::CertificatesMissing(names))) => {
            *next = Some(Next::CheckAfter(Duration::from_secs(2)));
            not_yet(format!(
                "waiting for the control plane to make certificates: {}",
                names.join(", ")
            ))
        }
        Some((_, Effect::NotConnected)) => not_yet(
            "waiting for a connection to the workload cluster, to make a join token there"
                .to_owned(),
        ),
        Some((_, Effect::NotItsTurn)) => {
            not_yet("waiting for its turn to make a join token in the workload cluster".to_owned())
        }
        _ => match wait_for(observed) {
            Some((reason, message)) => Report::no(type_, reason).with_message(message),
            None => not_yet("waiting for the bootstrap data to be made".to_owned()),
        },
    }
}

fn certificates_condition(outcome: &Outcome<Step, Effect>, has_data: bool) -> Report {
    let type_ = condition_type::CERTIFICATES_AVAILABLE;
    if has_data {
        return Report::yes(type_, common::AVAILABLE);
    }
    match outcome.done.first() {
        Some((_, Effect::CertificatesMissing(names))) => Report::no(type_, common::NOT_AVAILABLE)
            .with_message(format!("missing: {}", names.join(", "))),
        Some((_, Effect::NotConnected | Effect::NotItsTurn | Effect::Locked { .. })) => {
            Report::yes(type_, common::AVAILABLE)
        }
        _ => Report::new(type_, ConditionStatus::Unknown, common::INTERNAL_ERROR)
            .with_message("not looked at yet"),
    }
}

#[cfg(test)]
mod tests;
