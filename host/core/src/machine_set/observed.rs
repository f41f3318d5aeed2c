//! All that decisions about a MachineSet may look at.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::annotation;
use capstan_api::label;
use capstan_api::name::label_value;
use capstan_api::v1beta2::{
    Cluster, ContractVersionedObjectReference, Machine, MachineDeployment, MachineSet,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::lookup::Lookup;
use crate::rollout::count::{self, annotation as annotation_of, label as label_of, name};

/// All that a decision may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The MachineSet.
    pub set: MachineSet,
    /// Its Cluster.
    pub cluster: Lookup<Cluster>,
    /// The MachineDeployment that its label names; Missing when it has no such label.
    pub deployment: Lookup<MachineDeployment>,
    /// Machines that it controls, and those that its selector matches and nobody controls.
    pub machines: Vec<MachineSeen>,
    /// The infrastructure template.
    pub infra_template: Lookup<Arc<Value>>,
    /// The bootstrap template; `None` when its machines have no bootstrap object.
    pub bootstrap_template: Option<Lookup<Arc<Value>>>,
    /// The Cluster's control plane object; Missing when it has none.
    pub control_plane: Lookup<Arc<Value>>,
    /// For names that are made; another number for every reconcile.
    pub seed: u64,
}

/// A Machine with its objects.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSeen {
    /// The Machine.
    pub machine: Arc<Machine>,
    /// Its infrastructure object.
    pub infra: Lookup<Arc<Value>>,
    /// Its bootstrap object; `None` when it has none.
    pub bootstrap: Option<Lookup<Arc<Value>>>,
}

impl MachineSeen {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        name(&self.machine.metadata)
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        count::is_deleting(&self.machine.metadata)
    }
}

impl Observed {
    /// Whether the set is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        count::is_deleting(&self.set.metadata)
    }

    /// Whether it must not make machines.
    #[must_use]
    pub fn is_create_disabled(&self) -> bool {
        annotation_of(&self.set.metadata, annotation::DISABLE_MACHINE_CREATE) == Some("true")
    }

    /// Whether the set's machines are of the template that its MachineDeployment has now; true for a set of its own.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.deployment.found().is_none_or(|deployment| {
            crate::machine_deployment::outdated(deployment, &self.set).is_empty()
        })
    }

    /// The Machines.
    pub fn bare_machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().map(|seen| &*seen.machine)
    }

    /// The selector's labels as they should be: with the Cluster's name, and the set's own when there is nothing else.
    #[must_use]
    pub fn selector_labels(&self) -> BTreeMap<String, String> {
        selector_labels(&self.set)
    }

    /// The referenced templates that can be adopted, with what they name.
    #[must_use]
    pub fn templates(&self) -> Vec<(&ContractVersionedObjectReference, &Lookup<Arc<Value>>)> {
        let spec = &self.set.spec.template.spec;
        let mut templates = vec![(&spec.infrastructure_ref, &self.infra_template)];
        if let (Some(reference), Some(seen)) =
            (&spec.bootstrap.config_ref, &self.bootstrap_template)
        {
            templates.push((reference, seen));
        }
        templates
    }

    /// Templates that do not exist or cannot be seen, one sentence each.
    #[must_use]
    pub fn missing_templates(&self) -> Vec<String> {
        let missing = self
            .templates()
            .into_iter()
            .filter_map(|(reference, seen)| match seen {
                Lookup::Found(_) => None,
                Lookup::Missing => Some(format!("{} does not exist", reference.kind)),
                Lookup::Unknown(why) => Some(format!("{} cannot be read: {why}", reference.kind)),
            });
        missing.collect()
    }
}

/// The labels that a set selects by.
#[must_use]
pub fn selector_labels(set: &MachineSet) -> BTreeMap<String, String> {
    let selector = &set.spec.selector;
    let mut labels = selector.match_labels.clone().unwrap_or_default();
    if labels.is_empty()
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
    {
        labels.insert(label::SET_NAME.to_owned(), label_value(name(&set.metadata)));
    }
    labels.insert(
        label::CLUSTER_NAME.to_owned(),
        set.spec.cluster_name.clone(),
    );
    labels
}

/// Whether a selector with these labels matches an object. An unknown operator matches nothing.
#[must_use]
pub fn is_selected(
    match_labels: &BTreeMap<String, String>,
    selector: &LabelSelector,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> bool {
    let equal = match_labels
        .iter()
        .all(|(key, value)| label_of(metadata, key) == Some(value));
    let expressions = selector
        .match_expressions
        .iter()
        .flatten()
        .all(|requirement| {
            let value = label_of(metadata, &requirement.key);
            let listed = |value: &str| requirement.values.iter().flatten().any(|one| one == value);
            match requirement.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        });
    equal && expressions
}
