//! All that decisions about a MachinePool may look at, and what follows from it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capstan_api::contract::{InfraMachinePool, kind_of_copy};
use capstan_api::v1beta2::{
    Cluster, ContractVersionedObjectReference, Machine, MachinePool, MachinePoolStatus,
};
use serde_json::Value;

use crate::cluster::observed::is_deleting_value;
use crate::lookup::Lookup;
use crate::machine::{created_secret, is_controlled_by};
use crate::rollout::count;

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The MachinePool.
    pub pool: MachinePool,
    /// Its Cluster.
    pub cluster: Lookup<Cluster>,
    /// Its infrastructure object.
    pub infra: Lookup<Arc<Value>>,
    /// Its bootstrap config; `None` when it names none.
    pub bootstrap: Option<Lookup<Arc<Value>>>,
    /// Name of the plugin that serves the kind of the infrastructure object.
    pub plugin: Option<String>,
    /// The infrastructure machines that carry the pool's labels; none where the provider makes none.
    pub infra_machines: Lookup<Vec<Arc<Value>>>,
    /// Machines that the pool controls.
    pub machines: Vec<Arc<Machine>>,
    /// Machines of others that have the name of an infrastructure machine of the pool.
    pub taken: Vec<String>,
    /// Nodes of the workload cluster that concern the pool.
    pub nodes: Lookup<Nodes>,
}

/// Nodes that concern a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nodes {
    /// Those that have a provider ID of the pool.
    pub by_id: BTreeMap<String, Vec<Arc<Value>>>,
    /// Those that the status names, as long as they are the same Nodes.
    pub named: Vec<Arc<Value>>,
}

impl Observed {
    /// Whether the pool is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        count::is_deleting(&self.pool.metadata)
    }

    /// The pool's UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.pool.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The status as it is stored.
    #[must_use]
    pub fn status(&self) -> MachinePoolStatus {
        self.pool.status.clone().unwrap_or_default()
    }

    /// The reference to the infrastructure object.
    #[must_use]
    pub fn infra_ref(&self) -> &ContractVersionedObjectReference {
        &self.pool.spec.template.spec.infrastructure_ref
    }

    /// The reference to the bootstrap config.
    #[must_use]
    pub fn config_ref(&self) -> Option<&ContractVersionedObjectReference> {
        self.pool.spec.template.spec.bootstrap.config_ref.as_ref()
    }

    /// The bootstrap config, if it is there.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<Value>> {
        self.bootstrap.as_ref().and_then(Lookup::found)
    }

    /// The infrastructure object while it is not being deleted.
    #[must_use]
    pub fn standing_infra(&self) -> Option<InfraMachinePool<'_>> {
        let infra = self.infra.found().filter(|infra| !is_deleting_value(infra));
        infra.map(|infra| InfraMachinePool(infra))
    }

    /// Why nothing is made of the pool until somebody changes it, naming the field and the way out.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        const INFRA: &str = "spec.template.spec.infrastructureRef";
        const CONFIG: &str = "spec.template.spec.bootstrap.configRef";
        let infra = self.infra_ref();
        if let Some(plugin) = &self.plugin {
            return Some(format!(
                "{INFRA}: {} is a kind of plugin {plugin}, and plugins make single machines: use a MachineDeployment, or name an object of a provider of machine pools",
                infra.kind
            ));
        }
        let references = [(INFRA, Some(infra)), (CONFIG, self.config_ref())];
        for (field, reference) in references {
            if let Some(reference) = reference
                && let Some(kind) = kind_of_copy(&reference.kind)
            {
                return Some(format!(
                    "{field}: {} is a template, and the machines of a pool share one object: name a {kind}",
                    reference.kind
                ));
            }
        }
        let objects = [(INFRA, self.infra.found()), (CONFIG, self.config())];
        objects.into_iter().find_map(|(field, object)| {
            let object = object?;
            let owner = other_controller(object, self.uid())?;
            let text = |pointer| text(object, pointer).unwrap_or_default();
            Some(format!(
                "{field}: {} {} belongs to {owner}: name an object that nothing else uses",
                text("/kind"),
                text("/metadata/name"),
            ))
        })
    }

    /// Whether an object that the pool names is the pool's, or nobody's yet.
    #[must_use]
    pub fn is_own(&self, object: &Value) -> bool {
        is_controlled_by(object, self.uid()) || other_controller(object, self.uid()).is_none()
    }

    /// Whether the infrastructure is there. It follows what the provider says; what cannot be seen stays as it was.
    #[must_use]
    pub fn is_provisioned(&self) -> bool {
        match &self.infra {
            Lookup::Found(infra) => InfraMachinePool(infra).is_provisioned(),
            Lookup::Missing => false,
            Lookup::Unknown(_) => {
                let before = self.status().initialization;
                before.and_then(|before| before.infrastructure_provisioned) == Some(true)
            }
        }
    }

    /// Whether the bootstrap data is there. It follows what the provider says; what cannot be seen stays as it was.
    #[must_use]
    pub fn is_bootstrapped(&self) -> bool {
        let named = self
            .pool
            .spec
            .template
            .spec
            .bootstrap
            .data_secret_name
            .as_ref();
        match &self.bootstrap {
            None => named.is_some_and(|name| !name.is_empty()),
            Some(Lookup::Found(config)) => created_secret(config).is_some(),
            Some(Lookup::Missing) => false,
            Some(Lookup::Unknown(_)) => {
                let before = self.status().initialization;
                before.and_then(|before| before.bootstrap_data_secret_created) == Some(true)
            }
        }
    }

    /// Provider IDs of the machines, as the infrastructure lists them; what was copied last while it cannot say. `None` while the
    /// list is still to come: then nothing follows from what is not in it.
    #[must_use]
    pub fn provider_ids(&self) -> Option<Vec<&str>> {
        let infra = self
            .standing_infra()
            .filter(InfraMachinePool::is_provisioned)?;
        let ids = infra.provider_ids();
        (!ids.is_empty() || infra.replicas() == Some(0)).then_some(ids)
    }

    /// Whether the provider has a Machine made of each machine.
    #[must_use]
    pub fn has_machines(&self) -> bool {
        let infra = self.infra.found();
        infra.is_some_and(|infra| InfraMachinePool(infra).machine_kind().is_some())
    }

    /// The Machines.
    pub fn bare_machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().map(|machine| &**machine)
    }

    /// The one Node of a provider ID.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<&Value> {
        match self.nodes.found()?.by_id.get(id)?.as_slice() {
            [node] => Some(node),
            _ => None,
        }
    }

    /// Names of Nodes that share a provider ID: which of them is the machine cannot be told.
    #[must_use]
    pub fn ambiguous_nodes(&self) -> BTreeSet<&str> {
        let all = self.nodes.found().map(|nodes| &nodes.by_id);
        let several = all.into_iter().flat_map(BTreeMap::values);
        several
            .filter(|nodes| nodes.len() > 1)
            .flatten()
            .filter_map(|node| text(node, "/metadata/name"))
            .collect()
    }
}

/// Kind and name of the controller of an object, if that is another one.
fn other_controller(object: &Value, uid: &str) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| {
        owner.get("controller").and_then(Value::as_bool) == Some(true)
            && owner.get("uid").and_then(Value::as_str) != Some(uid)
    })?;
    let part = |pointer| text(owner, pointer).unwrap_or_default();
    Some(format!("{} {}", part("/kind"), part("/name")))
}

/// A non-empty string at a pointer.
#[must_use]
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}
