//! The effects of a MachineSet's plan.

use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::ContractVersionedObjectReference;
use capstan_core::machine_set::desired::{Change, Completion, NewMachine};
use capstan_core::machine_set::remediation::Remediation;
use capstan_core::machine_set::{Observed, Step};
use capstan_core::plan::Failure;
use futures::FutureExt;
use serde_json::{Value, json};

use super::unconfirmed::{Unconfirmed, Wish};
use crate::ctx::{Ctx, Writer, failure, owner_reference};
use crate::infrastructure::finalized;
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, Patch, Resource};
use crate::parallel::all;
use crate::reference::reference_kind;

/// Performs the steps of one set.
pub(super) struct Effects<'a> {
    /// What all controllers share.
    pub(super) ctx: &'a Ctx,
    /// In whose name.
    pub(super) writer: Writer,
    /// Where.
    pub(super) namespace: String,
    /// The set.
    pub(super) set: ObjectKey,
    /// What the set asked for and the cache does not show yet.
    pub(super) unconfirmed: &'a Unconfirmed,
}

impl Effects<'_> {
    /// Performs one step.
    pub(super) async fn perform(&self, observed: &Observed, step: &Step) -> Result<(), Failure> {
        match step {
            Step::PatchSet(patch) => {
                let name = observed.set.metadata.name.clone().unwrap_or_default();
                self.patch(&kinds::MACHINE_SET, &name, patch).await
            }
            Step::OwnTemplate { reference, patch } => self.patch_reference(reference, patch).await,
            Step::Change(changes) => {
                all(changes
                    .iter()
                    .map(|change| self.change(change).boxed())
                    .collect())
                .await
            }
            Step::Complete(lacking) => {
                all(lacking
                    .iter()
                    .map(|completion| self.complete(completion).boxed())
                    .collect())
                .await
            }
            Step::Create(made) => {
                all(made
                    .iter()
                    .map(|machine| self.create(machine).boxed())
                    .collect())
                .await
            }
            Step::Remediate(machines) => {
                all(machines
                    .iter()
                    .map(|machine| self.remediate(machine).boxed())
                    .collect())
                .await
            }
            Step::Delete(names) => {
                all(names.iter().map(|name| self.delete(name).boxed()).collect()).await
            }
        }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), name)
    }

    async fn patch(&self, resource: &Resource, name: &str, patch: &Value) -> Result<(), Failure> {
        let key = self.key(name);
        self.ctx.change(&self.writer, resource, &key, patch).await
    }

    async fn patch_reference(
        &self,
        reference: &ContractVersionedObjectReference,
        patch: &Value,
    ) -> Result<(), Failure> {
        let resource = self.ctx.resource(&reference_kind(reference))?;
        self.patch(&resource, &reference.name, patch).await
    }

    async fn change(&self, change: &Change) -> Result<(), Failure> {
        for (reference, patch) in &change.objects {
            self.patch_reference(reference, patch).await?;
        }
        match &change.patch {
            Some(patch) => self.patch(&kinds::MACHINE, &change.machine, patch).await,
            None => Ok(()),
        }
    }

    /// The Machine first: if the host stops then, it is completed, and nothing is left that no Machine names.
    async fn create(&self, made: &NewMachine) -> Result<(), Failure> {
        let name = made.machine.pointer("/metadata/name");
        let name = name.and_then(Value::as_str).unwrap_or_default();
        // Before the request: a reconcile that is dropped while it waits does not learn what came of it either.
        self.unconfirmed.ask(&self.set, name, Wish::Made);
        let answer = self
            .ctx
            .create(&self.writer, &kinds::MACHINE, &made.machine)
            .await;
        if !matches!(answer, Err(ApiError::Unavailable(_))) {
            self.unconfirmed.learn(&self.set, name);
        }
        let machine = answer.map_err(|error| failure("creating a Machine", &error))?;
        let owner = owner_reference(&machine, true);
        let objects = made.bootstrap.iter().chain([&made.infra]);
        all(objects
            .map(|object| self.create_object(object, &owner).boxed())
            .collect())
        .await
    }

    async fn complete(&self, completion: &Completion) -> Result<(), Failure> {
        let owner = json!({
            "apiVersion": kinds::MACHINE.api_version(),
            "kind": kinds::MACHINE.kind,
            "name": completion.machine,
            "uid": completion.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        });
        let objects = completion.objects.iter();
        all(objects
            .map(|object| self.create_object(object, &owner).boxed())
            .collect())
        .await
    }

    async fn create_object(&self, object: &Value, owner: &Value) -> Result<(), Failure> {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (group, version) = text("/apiVersion")
            .split_once('/')
            .unwrap_or(("", text("/apiVersion")));
        let kind = GroupKind {
            group: group.to_owned(),
            kind: text("/kind").to_owned(),
        };
        let mut resource = self.ctx.resource(&kind)?;
        version.clone_into(&mut resource.version);
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("ownerReferences".to_owned(), json!([owner]));
        }
        let object = finalized(self.ctx, object);
        match self.ctx.create(&self.writer, &resource, &object).await {
            // Made by an earlier try whose answer was lost.
            Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(failure(&format!("creating a {}", kind.kind), &error)),
        }
    }

    async fn remediate(&self, remediation: &Remediation) -> Result<(), Failure> {
        let key = self.key(&remediation.machine);
        if announce(self.ctx, &self.writer, &key, remediation).await? {
            return self.delete(&remediation.machine).await;
        }
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<(), Failure> {
        let key = self.key(name);
        if self.ctx.get(&kinds::MACHINE, &key).is_some() {
            self.unconfirmed.ask(&self.set, name, Wish::Gone);
        }
        self.ctx.delete_named(&kinds::MACHINE, &key).await
    }
}

/// A Machine says that it goes before it goes: who looks at it then knows why. Answers whether it is to go now.
///
/// # Errors
/// When it could not be said.
pub(crate) async fn announce(
    ctx: &Ctx,
    writer: &Writer,
    machine: &ObjectKey,
    remediation: &Remediation,
) -> Result<bool, Failure> {
    let patch = Patch::Merge(remediation.patch());
    let answer = ctx
        .patch_status(writer, &kinds::MACHINE, machine, &patch)
        .await;
    match answer {
        Ok(_) => Ok(remediation.delete),
        Err(ApiError::NotFound(_)) => Ok(false),
        Err(error) => {
            let doing = format!("saying to Machine {machine} what becomes of it");
            Err(failure(&doing, &error))
        }
    }
}
