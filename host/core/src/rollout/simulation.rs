//! A MachineDeployment in a world of its own: the real decisions about it and its MachineSets, on objects in memory. It shows
//! what a rollout would do before anything is done; tests roll thousands of them.
//!
//! Clouds, drains and preflight checks are not part of it: machines come and go when the caller says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::v1beta2::{Cluster, Machine, MachineDeployment, MachineSet};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::lookup::Lookup;
use crate::machine_deployment::decide::mark_patch;
use crate::machine_deployment::observed::TemplateSeen;
use crate::machine_deployment::{self as deployment, SetSeen, StrategySeen};
use crate::machine_set::{self, MachineSeen};

/// What went wrong in the world: an object that no longer is one of its kind, or one that is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object cannot be read as its kind.
    #[error("{what} cannot be read")]
    Unreadable {
        /// Kind and name.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A step names something that does not exist, or exists already.
    #[error("{0}")]
    Impossible(String),
}

/// The world.
#[derive(Clone, Debug)]
pub struct Simulation {
    deployment: Option<Value>,
    cluster: Cluster,
    namespace: Option<ObjectMeta>,
    sets: BTreeMap<String, Value>,
    machines: BTreeMap<String, Value>,
    now: Timestamp,
    made: u64,
}

fn typed<T: DeserializeOwned>(kind: &str, object: &Value) -> Result<T, Error> {
    T::deserialize(object).map_err(|source| Error::Unreadable {
        what: format!("{kind} {}", name(object)),
        source,
    })
}

fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What a merge patch does to an object.
pub fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(object) = object.as_object_mut() else {
        return;
    };
    for (key, value) in fields {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn put(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(field.to_owned(), value);
    }
}

/// Whether an object is being deleted.
#[must_use]
pub fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Whether a Machine is available.
#[must_use]
pub fn is_available(machine: &Value) -> bool {
    let conditions = machine.pointer("/status/conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    !is_deleting(machine)
        && conditions.any(|c| text(c, "/type") == "Available" && text(c, "/status") == "True")
}

impl Simulation {
    /// A deployment of a cluster, of which nothing else is known yet.
    #[must_use]
    pub fn new(deployment: Value, cluster: Cluster, now: Timestamp) -> Self {
        Self {
            deployment: Some(deployment),
            cluster,
            namespace: None,
            sets: BTreeMap::new(),
            machines: BTreeMap::new(),
            now,
            made: 0,
        }
    }

    /// With the Namespace's metadata, for the default strategy.
    #[must_use]
    pub fn in_namespace(mut self, metadata: ObjectMeta) -> Self {
        self.namespace = Some(metadata);
        self
    }

    /// With MachineSets and Machines that exist already.
    #[must_use]
    pub fn with(
        mut self,
        sets: impl IntoIterator<Item = Value>,
        machines: impl IntoIterator<Item = Value>,
    ) -> Self {
        let by_name = |object: Value| (name(&object).to_owned(), object);
        self.sets.extend(sets.into_iter().map(by_name));
        self.machines.extend(machines.into_iter().map(by_name));
        self
    }

    /// The deployment; `None` once it is deleted.
    #[must_use]
    pub fn deployment(&self) -> Option<&Value> {
        self.deployment.as_ref()
    }

    /// The deployment, to change it.
    pub fn deployment_mut(&mut self) -> Option<&mut Value> {
        self.deployment.as_mut()
    }

    /// MachineSets by name.
    #[must_use]
    pub fn sets(&self) -> &BTreeMap<String, Value> {
        &self.sets
    }

    /// Machines by name.
    #[must_use]
    pub fn machines(&self) -> &BTreeMap<String, Value> {
        &self.machines
    }

    /// Machines by name, to change them.
    pub fn machines_mut(&mut self) -> &mut BTreeMap<String, Value> {
        &mut self.machines
    }

    /// Machines of one set.
    pub fn machines_of<'a>(&'a self, set: &'a Value) -> impl Iterator<Item = &'a Value> + use<'a> {
        let uid = text(set, "/metadata/uid");
        self.machines
            .values()
            .filter(move |machine| text(machine, "/metadata/ownerReferences/0/uid") == uid)
    }

    /// The world's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets time pass.
    pub fn pass_time(&mut self, time: SignedDuration) {
        self.now = self.now.saturating_add(time).unwrap_or(self.now);
    }

    /// What the deployment's controller sees, before the strategy is asked; `None` once it is deleted.
    ///
    /// # Errors
    /// When an object is not one of its kind.
    pub fn observe(&self) -> Result<Option<deployment::Observed>, Error> {
        let Some(object) = &self.deployment else {
            return Ok(None);
        };
        let deployment: MachineDeployment = typed("MachineDeployment", object)?;
        let mut sets = Vec::new();
        for set in self.sets.values() {
            let machines = self.machines_of(set);
            sets.push(SetSeen {
                set: typed::<MachineSet>("MachineSet", set)?,
                machines: machines
                    .map(|machine| typed::<Machine>("Machine", machine).map(Arc::new))
                    .collect::<Result<_, _>>()?,
            });
        }
        let spec = &deployment.spec.template.spec;
        let references = [
            Some(&spec.infrastructure_ref),
            spec.bootstrap.config_ref.as_ref(),
        ];
        let templates = references
            .into_iter()
            .flatten()
            .map(|reference| TemplateSeen {
                reference: reference.clone(),
                object: Lookup::Found(self.template(&reference.kind, &reference.name)),
            });
        Ok(Some(deployment::Observed {
            cluster: Lookup::Found(self.cluster.clone()),
            sets,
            templates: templates.collect(),
            strategy: StrategySeen::select(&deployment, self.namespace.as_ref()),
            deployment,
        }))
    }

    /// A template as its Cluster owns it: what it says does not matter here.
    fn template(&self, kind: &str, name: &str) -> Arc<Value> {
        let cluster = &self.cluster.metadata;
        Arc::new(json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": kind,
            "metadata": {
                "name": name, "namespace": cluster.namespace, "uid": format!("uid-{kind}-{name}"),
                "ownerReferences": [{
                    "apiVersion": capstan_api::v1beta2::API_VERSION, "kind": "Cluster",
                    "name": cluster.name, "uid": cluster.uid,
                }],
            },
            "spec": {"template": {"spec": {}}},
        }))
    }

    /// One reconcile of the deployment, with what the strategy answered in `observed`; with `crash`, only so many steps of its
    /// plan. Answers how many steps were taken.
    ///
    /// # Errors
    /// When a step cannot be taken.
    pub fn reconcile_deployment(
        &mut self,
        observed: &deployment::Observed,
        crash: Option<usize>,
    ) -> Result<usize, Error> {
        let plan = deployment::decide(observed, self.now);
        let taken = plan.steps.len().min(crash.unwrap_or(usize::MAX));
        for step in plan.steps.into_iter().take(taken) {
            self.perform_deployment(step)?;
        }
        if deployment::report(observed, self.now).finished {
            self.deployment = None;
        }
        Ok(taken)
    }

    fn perform_deployment(&mut self, step: deployment::Step) -> Result<(), Error> {
        use deployment::Step;
        let is_marked = matches!(step, Step::MarkMachines(_));
        match step {
            Step::OwnTemplate { .. } => {}
            Step::PatchDeployment(patch) => self.patch_deployment(&patch),
            Step::KeepState(memory) => self.patch_deployment(&memory.patch()),
            Step::MarkMachines(names) | Step::UnmarkMachines(names) => {
                let patch = mark_patch(is_marked);
                for name in names {
                    merge(found(&mut self.machines, "Machine", &name)?, &patch);
                }
            }
            Step::CreateSet(set) => {
                let (name, set) = self.identify(set);
                if self.sets.insert(name.clone(), set).is_some() {
                    return Err(Error::Impossible(format!(
                        "MachineSet {name} is made twice"
                    )));
                }
            }
            Step::PatchSet { name, patch } => {
                merge(found(&mut self.sets, "MachineSet", &name)?, &patch);
            }
            Step::DeleteSets(names) => {
                let now = json!(self.now.to_string());
                for name in names {
                    let set = found(&mut self.sets, "MachineSet", &name)?;
                    put(set, "deletionTimestamp", now.clone());
                }
            }
        }
        Ok(())
    }

    fn patch_deployment(&mut self, patch: &Value) {
        if let Some(deployment) = &mut self.deployment {
            merge(deployment, patch);
        }
    }

    fn identify(&mut self, mut object: Value) -> (String, Value) {
        self.made = self.made.saturating_add(1);
        put(&mut object, "uid", json!(format!("uid-{}", self.made)));
        put(
            &mut object,
            "creationTimestamp",
            json!(self.now.to_string()),
        );
        (name(&object).to_owned(), object)
    }

    /// Reconciles every set once. Answers how many steps were taken.
    ///
    /// # Errors
    /// When a step cannot be taken.
    pub fn reconcile_sets(&mut self) -> Result<usize, Error> {
        let names: Vec<String> = self.sets.keys().cloned().collect();
        names.iter().try_fold(0_usize, |taken, name| {
            Ok(taken.saturating_add(self.reconcile_set(name, None)?))
        })
    }

    /// Reconciles one set; with `crash`, only so many steps of its plan. Answers how many steps were taken.
    ///
    /// # Errors
    /// When a step cannot be taken.
    pub fn reconcile_set(&mut self, name: &str, crash: Option<usize>) -> Result<usize, Error> {
        let object = found(&mut self.sets, "MachineSet", name)?.clone();
        let set: MachineSet = typed("MachineSet", &object)?;
        let mut machines = Vec::new();
        for machine in self.machines_of(&object) {
            machines.push(MachineSeen {
                machine: Arc::new(typed("Machine", machine)?),
                infra: Lookup::Unknown("not part of this world".to_owned()),
                bootstrap: None,
            });
        }
        let deployment = match &self.deployment {
            Some(object) => Lookup::Found(typed("MachineDeployment", object)?),
            None => Lookup::Missing,
        };
        let spec = &set.spec.template.spec;
        let reference = &spec.infrastructure_ref;
        let config = spec.bootstrap.config_ref.as_ref();
        let observed = machine_set::Observed {
            infra_template: Lookup::Found(self.template(&reference.kind, &reference.name)),
            bootstrap_template: config
                .map(|config| Lookup::Found(self.template(&config.kind, &config.name))),
            machines,
            set,
            cluster: Lookup::Found(self.cluster.clone()),
            deployment,
            control_plane: Lookup::Missing,
            seed: self.made,
        };
        let plan = machine_set::decide(&observed, self.now);
        let taken = plan.steps.len().min(crash.unwrap_or(usize::MAX));
        for step in plan.steps.into_iter().take(taken) {
            self.perform_set(name, step)?;
        }
        if machine_set::report(&observed, None, self.now).finished {
            self.sets.remove(name);
        }
        Ok(taken)
    }

    fn perform_set(&mut self, set: &str, step: machine_set::Step) -> Result<(), Error> {
        use machine_set::Step;
        match step {
            // There is no health check in this world.
            Step::OwnTemplate { .. } | Step::Complete(_) | Step::Remediate(_) => {}
            Step::PatchSet(patch) => merge(found(&mut self.sets, "MachineSet", set)?, &patch),
            Step::Change(changes) => {
                for change in changes {
                    if let Some(patch) = change.patch {
                        merge(
                            found(&mut self.machines, "Machine", &change.machine)?,
                            &patch,
                        );
                    }
                }
            }
            Step::Create(made) => {
                for new in made {
                    let (name, machine) = self.identify(new.machine);
                    if self.machines.insert(name.clone(), machine).is_some() {
                        return Err(Error::Impossible(format!("Machine {name} is made twice")));
                    }
                }
            }
            Step::Delete(names) => {
                let now = json!(self.now.to_string());
                for name in names {
                    let machine = found(&mut self.machines, "Machine", &name)?;
                    put(machine, "deletionTimestamp", now.clone());
                }
            }
        }
        Ok(())
    }

    /// A machine has a Node and works, or it had one and does not work any more.
    pub fn report_machine(&mut self, name: &str, works: bool) {
        let now = self.now.to_string();
        let condition = |type_: &str| {
            json!({
                "type": type_, "status": if works { "True" } else { "False" }, "reason": "Simulated",
                "message": "", "lastTransitionTime": now,
            })
        };
        let conditions: Vec<Value> = ["Ready", "Available", "NodeHealthy"]
            .into_iter()
            .map(condition)
            .collect();
        if let Some(machine) = self.machines.get_mut(name) {
            let status = json!({"status": {"nodeRef": {"name": name}, "conditions": conditions}});
            merge(machine, &status);
        }
    }

    /// All machines that stay become available.
    pub fn all_become_available(&mut self) {
        let staying: Vec<String> = self
            .machines
            .iter()
            .filter(|(_, machine)| !is_deleting(machine) && !is_available(machine))
            .map(|(name, _)| name.clone())
            .collect();
        for name in staying {
            self.report_machine(&name, true);
        }
    }

    /// All machines that are being deleted are gone.
    pub fn deleted_machines_go(&mut self) {
        self.machines.retain(|_, machine| !is_deleting(machine));
    }
}

fn found<'a>(
    objects: &'a mut BTreeMap<String, Value>,
    kind: &str,
    name: &str,
) -> Result<&'a mut Value, Error> {
    objects
        .get_mut(name)
        .ok_or_else(|| Error::Impossible(format!("{kind} {name} does not exist")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_merged_as_the_server_would() {
        let mut object = json!({"spec": {"a": 1, "b": {"c": 2}}, "status": {"x": 1}});
        merge(
            &mut object,
            &json!({"spec": {"a": null, "b": {"d": 3}, "e": [1]}}),
        );
        let wanted = json!({"spec": {"b": {"c": 2, "d": 3}, "e": [1]}, "status": {"x": 1}});
        assert_eq!(object, wanted);
    }
}
