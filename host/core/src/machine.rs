//! Machine: copies what providers report, finds its Node, and is deleted in the contract's order.
//!
//! Contract: upstream `core/reconcilers/machine/machine_controller*.go`.

pub mod deletion;
pub mod hook;
pub mod node;
pub mod report;

use std::sync::Arc;
use std::time::Duration;

use capstan_api::v1beta2::{Cluster, Machine};
use capstan_api::{annotation, contract, label};
use jiff::Timestamp;
use kube_object::*;
use serde_json::{Value, json};

use crate::lookup::Lookup;
use crate::plan::{Outcome, Plan};

mod kube_object {
    //! Reading provider objects and Nodes.
    use serde_json::Value;

    /// A non-empty string at a pointer.
    pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    }

    /// A flag at a pointer; absent is false.
    pub(super) fn flag(object: &Value, pointer: &str) -> bool {
        object
            .pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// Whether an object is being deleted.
    pub(super) fn is_deleting(object: &Value) -> bool {
        text(object, "/metadata/deletionTimestamp").is_some()
    }
}

/// How the workload cluster can be reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    /// There is a connection.
    pub connected: bool,
    /// When it last answered.
    pub last_success: Option<Timestamp>,
    /// Since when this host has tried: what another host has seen before stands for as long as what this one has.
    pub since: Option<Timestamp>,
}

/// What was seen of the machine's Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NodeLookup {
    /// Nothing was looked for: no provider ID, or no connection.
    #[default]
    NotLooked,
    /// No Node has the provider ID.
    None,
    /// The Node.
    One(Arc<Value>),
    /// Several Nodes have the provider ID: their names.
    Several(Vec<String>),
}

/// All that the decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The Machine.
    pub machine: Machine,
    /// What of its labels and annotations goes to the Node because the operator said so.
    pub chosen: node::Chosen,
    /// Its Cluster.
    pub cluster: Lookup<Cluster>,
    /// Its infrastructure machine.
    pub infra: Lookup<Arc<Value>>,
    /// The infrastructure machine is one of this host's plugins: it takes the name of the Secret with bootstrap data from the config.
    pub infra_is_own: bool,
    /// Its bootstrap config; `None` when the Machine names none.
    pub bootstrap: Option<Lookup<Arc<Value>>>,
    /// The connection to the workload cluster.
    pub connection: Connection,
    /// Its Node.
    pub node: NodeLookup,
    /// Why it is not up to date with its MachineDeployment; `None` when it has none.
    pub outdated: Option<Vec<String>>,
    /// Its MachineSet is of an older revision than its MachineDeployment.
    pub outdated_revision: bool,
    /// What deletion depends on.
    pub deletion: deletion::Facts,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the Machine the controlling owner of its infrastructure machine.
    OwnInfra,
    /// Make the Machine the controlling owner of its bootstrap config.
    OwnBootstrap,
    /// Merge patch of the Machine's own spec.
    PatchMachine(Value),
    /// Merge patch of the Node.
    PatchNode {
        /// Name.
        name: String,
        /// Resource version that the patch was made from.
        resource_version: String,
        /// Merge patch.
        patch: Value,
    },
    /// Cordon the Node and evict its pods.
    Drain {
        /// Name.
        node: String,
    },
    /// Look whether volumes are still attached.
    CheckVolumes {
        /// Name.
        node: String,
    },
    /// Ask a bound hook.
    AskHook {
        /// Name of the MachineHook.
        name: String,
    },
    /// Write down what became of a bound hook without asking it.
    RecordHook(hook::Turn),
    /// Delete the infrastructure machine.
    DeleteInfra,
    /// Delete the bootstrap config.
    DeleteBootstrap,
    /// Delete the Node.
    DeleteNode {
        /// Name.
        name: String,
    },
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing to say.
    Done,
    /// To `Drain`: what is still there, in words; empty when drained.
    Drain(Vec<String>),
    /// To `Drain`, `CheckVolumes`, `PatchNode` and `DeleteNode`: other Nodes of the cluster have their turn now.
    NotItsTurn,
    /// To `CheckVolumes`: volumes that are still attached.
    Volumes(Vec<String>),
    /// To `AskHook` and `RecordHook`: what followed.
    Hook(hook::Turn),
}

/// What follows from what providers report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Bootstrap data is there.
    pub bootstrapped: bool,
    /// Name of the Secret with it.
    pub data_secret_name: Option<String>,
    /// The infrastructure is there.
    pub provisioned: bool,
    /// Provider ID.
    pub provider_id: Option<String>,
    /// The failure domain that a provider has chosen by `spec.failureDomain` of its machine, as those of the contract v1beta1 do.
    pub failure_domain: Option<String>,
}

impl Observed {
    /// What follows from what providers report, now and before.
    #[must_use]
    pub fn known(&self) -> Known {
        let spec = &self.machine.spec;
        let initialization = self
            .machine
            .status
            .as_ref()
            .and_then(|s| s.initialization.clone())
            .unwrap_or_default();
        let mut known = Known {
            data_secret_name: spec
                .bootstrap
                .data_secret_name
                .clone()
                .filter(|s| !s.is_empty()),
            provider_id: spec.provider_id.clone().filter(|s| !s.is_empty()),
            provisioned: initialization.infrastructure_provisioned.unwrap_or(false),
            bootstrapped: initialization
                .bootstrap_data_secret_created
                .unwrap_or(false),
            failure_domain: None,
        };
        // The machine of a pool has booted with the pool's data, and names none.
        let is_of_pool =
            spec.bootstrap.config_ref.is_none() && spec.bootstrap.data_secret_name.is_some();
        if known.data_secret_name.is_some() || is_of_pool {
            known.bootstrapped = true;
        } else if let Some(config) = self.bootstrap.as_ref().and_then(Lookup::found)
            && let Some(name) = created_secret(config)
        {
            known.data_secret_name = Some(name.to_owned());
            known.bootstrapped = true;
        }
        if let Some(infra) = self.infra.found()
            && !is_deleting(infra)
            && (known.provisioned || flag(infra, "/status/initialization/provisioned"))
            && let Some(id) = text(infra, "/spec/providerID")
        {
            known.provider_id = Some(id.to_owned());
            known.provisioned = true;
            known.failure_domain = text(infra, "/spec/failureDomain").map(str::to_owned);
        }
        known
    }

    /// Whether the Machine is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.machine.metadata.deletion_timestamp.is_some()
    }

    fn found_node(&self) -> Option<&Value> {
        match &self.node {
            NodeLookup::One(node) => Some(node),
            NodeLookup::NotLooked | NodeLookup::None | NodeLookup::Several(_) => None,
        }
    }
}

/// How long until an object that a Machine refers to and that is not there is looked for again (upstream: 30 s).
const MISSING_RECHECK: Duration = Duration::from_secs(30);

/// What should happen next.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Plan<Step> {
    if observed.is_deleting() {
        return deletion::decide(observed, now);
    }
    let mut plan = Plan::settled();
    let uid = observed.machine.metadata.uid.as_deref().unwrap_or_default();
    if observed
        .infra
        .found()
        .is_some_and(|infra| !is_controlled_by(infra, uid))
    {
        plan.steps.push(Step::OwnInfra);
    }
    let config = observed.bootstrap.as_ref().and_then(Lookup::found);
    if config.is_some_and(|config| !is_controlled_by(config, uid)) {
        plan.steps.push(Step::OwnBootstrap);
    }
    if let Some(patch) = spec_patch(observed) {
        plan.steps.push(Step::PatchMachine(patch));
    }
    if let Some(node) = observed.found_node()
        && let Some(patch) = node::patch(observed, node)
    {
        plan.steps.push(Step::PatchNode {
            name: text(node, "/metadata/name").unwrap_or_default().to_owned(),
            resource_version: text(node, "/metadata/resourceVersion")
                .unwrap_or_default()
                .to_owned(),
            patch,
        });
    }
    let is_missing =
        observed.infra.is_missing() || observed.bootstrap.as_ref().is_some_and(Lookup::is_missing);
    if is_missing {
        plan = plan.check_after(MISSING_RECHECK);
    }
    plan
}

/// Whether what was done has changed the Machine itself, and nothing else was found out: the status of the changed one is written, once.
#[must_use]
pub fn reports_next_time(outcome: &Outcome<Step, Effect>) -> bool {
    let mut done = outcome.done.iter();
    let is_own = |(step, _): &(Step, Effect)| matches!(step, Step::PatchMachine(_));
    outcome.done.iter().any(is_own) && done.all(|(_, effect)| *effect == Effect::Done)
}

/// Whether a bootstrap config says that the Secret with its data has been made.
fn says_created(config: &Value) -> bool {
    flag(config, "/status/initialization/dataSecretCreated")
}

/// Name of the Secret with bootstrap data, once a bootstrap config says that it is there.
#[must_use]
pub fn created_secret(config: &Value) -> Option<&str> {
    says_created(config)
        .then(|| text(config, "/status/dataSecretName"))
        .flatten()
}

/// The merge patch of the Machine's spec, if it differs: what providers report is copied once known, the provider ID always. Where nobody
/// waits for the name of the Secret with bootstrap data, it goes with the provider ID, in one write.
fn spec_patch(observed: &Observed) -> Option<Value> {
    let known = observed.known();
    let spec = &observed.machine.spec;
    let mut patch = serde_json::Map::new();
    let comes_later = observed.infra_is_own && known.provider_id.is_none();
    if !comes_later
        && spec.bootstrap.data_secret_name != known.data_secret_name
        && let Some(name) = known.data_secret_name
    {
        patch.insert("bootstrap".to_owned(), json!({"dataSecretName": name}));
    }
    if spec.provider_id != known.provider_id
        && let Some(id) = known.provider_id
    {
        patch.insert("providerID".to_owned(), json!(id));
    }
    if let Some(domain) = known.failure_domain
        && spec.failure_domain.as_ref() != Some(&domain)
    {
        patch.insert("failureDomain".to_owned(), json!(domain));
    }
    (!patch.is_empty()).then(|| json!({ "spec": patch }))
}

/// Whether the object's controlling owner has this UID.
#[must_use]
pub fn is_controlled_by(object: &Value, uid: &str) -> bool {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| {
        owner.get("controller").and_then(Value::as_bool) == Some(true)
            && owner.get("uid").and_then(Value::as_str) == Some(uid)
    })
}

/// The merge patch that makes the Machine the controlling owner of a provider object, and takes its temporary owners out
/// (contract 3.3.2: those of kind MachineSet and the Cluster's control plane).
#[must_use]
pub fn ownership_patch(observed: &Observed, object: &Value) -> Value {
    let machine = &observed.machine;
    let cluster = observed.cluster.found();
    let plane = cluster.and_then(|cluster| cluster.spec.control_plane_ref.as_ref());
    let uid = machine.metadata.uid.as_deref().unwrap_or_default();
    let mut owners: Vec<Value> = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    owners.retain(|owner| {
        let field = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
        let group = field("apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group);
        let is_plane = plane.is_some_and(|p| p.api_group == group && p.kind == field("kind"));
        let temporary =
            field("kind") == "MachineSet" || is_plane || group == contract::CONTROL_PLANE_GROUP;
        !temporary && field("uid") != uid
    });
    owners.push(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "uid": uid,
        "name": machine.metadata.name.as_deref().unwrap_or_default(),
        "controller": true, "blockOwnerDeletion": true,
    }));
    json!({"metadata": {
        "resourceVersion": text(object, "/metadata/resourceVersion").unwrap_or_default(),
        "labels": {label::CLUSTER_NAME: machine.spec.cluster_name},
        "ownerReferences": owners,
    }})
}

/// The annotations of a Machine that are hooks of this kind: their whole keys, as who has to remove them knows them.
#[must_use]
pub fn hooks(machine: &Machine, prefix: &str) -> Vec<String> {
    let annotations = machine.metadata.annotations.iter().flatten();
    let keys = annotations.map(|(key, _)| key);
    keys.filter(|key| key.starts_with(prefix))
        .cloned()
        .collect()
}

/// Whether a Machine carries an annotation.
#[must_use]
pub fn has_annotation(machine: &Machine, name: &str) -> bool {
    machine
        .metadata
        .annotations
        .iter()
        .flatten()
        .any(|(key, _)| key == name)
}

/// Annotations of hooks before the drain.
pub const PRE_DRAIN: &str = annotation::PRE_DRAIN_HOOK_PREFIX;

/// Annotations of hooks before termination.
pub const PRE_TERMINATE: &str = annotation::PRE_TERMINATE_HOOK_PREFIX;
