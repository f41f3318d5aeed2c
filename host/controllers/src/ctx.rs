//! What all controllers share: the API server, the watch caches, the plugins, the workload clusters, the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation::INSTALLED;
use capstan_api::contract::ContractVersion;
use capstan_api::name::ObjectKey;
use capstan_api::{contract, label};
use capstan_core::plan::Failure;
use capstan_engine::PlannedEffects;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bootstrap_report::Reports;
use crate::certificates::Certificates;
use crate::etcd::{Clients, SnapshotStore, Snapshots, ThroughPods};
use crate::event::Events;
use crate::fence::Fence;
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, KubeApi, Patch, Preconditions, Resource, Selection};
use crate::node_sync::NodeSync;
use crate::object::Object;
use crate::plugins::Plugins;
use crate::secrets::Secrets;
use crate::store::Store;
use crate::stores::{Origin, Stores};
use crate::tasks::Tasks;
use crate::workloads::{Connect, Workloads};

/// The current time, and luck. Tests and simulations bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;

    /// A number that nobody can foresee: what names end in.
    fn luck(&self) -> u64 {
        rand::random()
    }
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What all controllers share.
pub struct Ctx {
    /// The management cluster.
    pub api: Arc<dyn KubeApi>,
    /// Watch caches of the management cluster.
    pub stores: Arc<Stores>,
    /// Active plugins.
    pub plugins: Plugins,
    /// Connections to workload clusters.
    pub workloads: Workloads,
    /// Secrets of clusters, read when needed.
    pub secrets: Secrets,
    /// When certificates of Clusters without a control plane object end.
    pub certificates: Certificates,
    /// What plugins have told of objects lately.
    pub events: Events,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Background tasks.
    pub tasks: Tasks,
    /// Shut while another host may be at work: then nothing is reconciled.
    pub fence: Fence,
    /// Makes clients for the etcd of workload clusters; simulations bring their own.
    pub etcd: Arc<dyn Clients>,
    /// Where snapshots of etcd are kept before a member is removed, if the operator gave a place.
    pub snapshots: Option<SnapshotStore>,
    /// Those that are being taken.
    pub taking: Snapshots,
    /// Where machines report that they did not become nodes, if the operator gave an address.
    pub reports: Option<Arc<Reports>>,
    /// How often objects of Cluster API's own kinds are looked at though nothing called for it; simulations go without, so that a wake-up
    /// that is missing shows.
    pub resync: Option<Duration>,
    /// What goes from Machines to their Nodes because the operator said so.
    pub node_sync: NodeSync,
    /// Only in a rehearsal: plugins are called in plan mode, and what they would do is collected here.
    pub planned: Option<PlannedEffects>,
    /// The host's own namespace: where plugins are installed.
    pub namespace: String,
}

/// The version that a CustomResourceDefinition's contract label names.
#[must_use]
pub fn contract_version(definition: &Object) -> Option<String> {
    contract::resolve(&labels_of(definition)).map(|resolved| resolved.version)
}

fn labels_of(definition: &Object) -> BTreeMap<String, String> {
    let labels = definition.value.pointer("/metadata/labels");
    let labels = labels.and_then(|labels| serde_json::from_value(labels.clone()).ok());
    labels.unwrap_or_default()
}

impl Ctx {
    /// With nothing seen yet, an open fence, and neither snapshots nor reports nor a plan nor anything more for Nodes.
    #[must_use]
    pub fn new(
        api: Arc<dyn KubeApi>,
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        namespace: &str,
    ) -> Self {
        let secrets = Secrets::default();
        let workloads = Workloads::new(
            Arc::clone(&api),
            secrets.clone(),
            connect,
            Arc::clone(&clock),
            tasks.clone(),
        );
        Self {
            stores: Stores::new(Arc::clone(&api), tasks.clone()),
            api,
            plugins: Plugins::default(),
            workloads,
            secrets,
            certificates: Certificates::default(),
            events: Events::default(),
            clock,
            tasks,
            fence: Fence::default(),
            etcd: Arc::new(ThroughPods),
            snapshots: None,
            taking: Snapshots::default(),
            reports: None,
            resync: None,
            node_sync: NodeSync::default(),
            planned: None,
            namespace: namespace.to_owned(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// One object of a built-in or core kind from the cache.
    #[must_use]
    pub fn get(&self, resource: &Resource, key: &ObjectKey) -> Option<Arc<Object>> {
        self.stores.object(&resource.group_kind(), key)
    }

    /// The store of a kind that is watched from the start.
    #[must_use]
    pub fn store(&self, resource: &Resource) -> Arc<Store> {
        self.stores.ensure(resource, Selection::default())
    }

    /// The resource that a reference means: the version that its CustomResourceDefinition's contract label names
    /// (contract: upstream `util/contract`, one label lookup, no discovery).
    ///
    /// # Errors
    /// Transient when there is no such definition or it lacks the label; the message names both.
    pub fn resolve(&self, kind: &GroupKind) -> Result<Resource, Failure> {
        let name = contract::crd_name(&kind.kind, &kind.group);
        let key = ObjectKey {
            namespace: String::new(),
            name: name.clone(),
        };
        let Some(definition) = self.get(&kinds::CRD, &key) else {
            return Err(Failure::transient(
                "KindNotInstalled",
                format!(
                    "there is no CustomResourceDefinition {name}: install the provider that serves {kind}"
                ),
            ));
        };
        let Some(version) = contract_version(&definition) else {
            return Err(Failure::transient(
                "ContractNotSupported",
                format!(
                    "CustomResourceDefinition {name} has no label {} that names a version",
                    label::CONTRACT_V1BETA2
                ),
            ));
        };
        let plural = contract::plural(&kind.kind);
        Ok(Resource::namespaced(
            &kind.group,
            &version,
            &kind.kind,
            &plural,
        ))
    }

    /// Whether a kind is known not to be served: then there are no objects of it. False while definitions are not known yet.
    pub async fn is_not_installed(&self, kind: &GroupKind) -> bool {
        let Some(definitions) = self.stores.get(&kinds::CRD.group_kind()) else {
            return false;
        };
        definitions.synced().await;
        self.definition(kind).is_none()
    }

    /// Name of the provider that installed the kind, such as `infrastructure-local`.
    #[must_use]
    pub fn provider_of(&self, kind: &GroupKind) -> Option<String> {
        let definition = self.definition(kind)?;
        definition.label(label::PROVIDER).map(str::to_owned)
    }

    /// Name of the provider whose plugin installed the kind, whether or not it is active now.
    #[must_use]
    pub fn plugin_of(&self, kind: &GroupKind) -> Option<String> {
        let definition = self.definition(kind)?;
        definition.annotation(INSTALLED)?;
        definition.label(label::PROVIDER).map(str::to_owned)
    }

    /// Whether an object speaks the words of the older contract: the version in which it was read does.
    #[must_use]
    pub fn is_of_older_contract(&self, object: &Object) -> bool {
        let api_version = object.text("/apiVersion").unwrap_or_default();
        let version = api_version.rsplit('/').next().unwrap_or_default();
        let definition = self.definition(&object.group_kind());
        let contract = definition
            .and_then(|definition| contract::of_version(&labels_of(&definition), version));
        contract == Some(ContractVersion::V1Beta1)
    }

    fn definition(&self, kind: &GroupKind) -> Option<Arc<Object>> {
        let key = ObjectKey {
            namespace: String::new(),
            name: contract::crd_name(&kind.kind, &kind.group),
        };
        self.get(&kinds::CRD, &key)
    }

    /// The resource of a kind, in the version in which its objects are seen: what is written is of the same.
    ///
    /// # Errors
    /// As [`Ctx::resolve`], of a kind that nobody has looked at.
    pub fn resource(&self, kind: &GroupKind) -> Result<Resource, Failure> {
        let seen = self.stores.get(kind);
        seen.map_or_else(|| self.resolve(kind), |store| Ok(store.resource().clone()))
    }

    /// In which version the objects of a kind are read now: in that of the plugin that owns it, or else as [`Ctx::resolve`] says.
    fn read_as(&self, kind: &GroupKind) -> Result<Resource, Failure> {
        let owned = self.plugins.resource(kind);
        owned.map_or_else(|| self.resolve(kind), Ok)
    }

    /// The store of a kind that a reference names, in the version in which it is read now; watches it from now on, and waits a moment for
    /// its first list. While another version than before is not listed yet, it is the store of the one before.
    ///
    /// # Errors
    /// As [`Ctx::resolve`]; transient when the kind cannot be listed.
    pub async fn external(&self, kind: &GroupKind) -> Result<Arc<Store>, Failure> {
        let store = match self.stores.get(kind) {
            Some(store) if kinds::is_known(kind) => store,
            known => match (self.read_as(kind), known) {
                (Ok(resource), _) => self.stores.turn_to(&resource),
                // What is watched stays known while its definition names no version.
                (Err(_), Some(store)) => store,
                (Err(failure), None) => return Err(failure),
            },
        };
        let listed = store.listed().await;
        listed.map_err(|why| Failure::transient("KindNotListed", why))?;
        Ok(store)
    }

    /// Creates an object and takes the answer into the cache.
    ///
    /// # Errors
    /// What the server said.
    pub async fn create(
        &self,
        writer: &Writer,
        resource: &Resource,
        object: &Value,
    ) -> Result<Arc<Object>, ApiError> {
        let namespace = object
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let stored = self
            .api
            .create(resource, namespace, object, writer.manager)
            .await?;
        self.take_in(writer, resource, stored, false)
    }

    /// Changes an object and takes the answer into the cache.
    ///
    /// # Errors
    /// What the server said.
    pub async fn patch(
        &self,
        writer: &Writer,
        resource: &Resource,
        key: &ObjectKey,
        patch: &Patch,
    ) -> Result<Arc<Object>, ApiError> {
        let answer = self
            .api
            .patch(resource, key, None, patch, writer.manager)
            .await;
        let stored = self.expect_there(resource, key, answer)?;
        self.take_in(writer, resource, stored, false)
    }

    /// Changes an object by a merge patch, for a step that needs nothing of the answer.
    ///
    /// # Errors
    /// What the server said, with the object's name.
    pub async fn change(
        &self,
        writer: &Writer,
        resource: &Resource,
        key: &ObjectKey,
        patch: &Value,
    ) -> Result<(), Failure> {
        let patch = Patch::Merge(patch.clone());
        let answer = self.patch(writer, resource, key, &patch).await;
        let doing = format!("changing {} {key}", resource.kind);
        answer.map(drop).map_err(|error| failure(&doing, &error))
    }

    /// Changes an object's status and takes the answer into the cache.
    ///
    /// # Errors
    /// What the server said.
    pub async fn patch_status(
        &self,
        writer: &Writer,
        resource: &Resource,
        key: &ObjectKey,
        patch: &Patch,
    ) -> Result<Arc<Object>, ApiError> {
        let answer = self
            .api
            .patch(resource, key, Some("status"), patch, writer.manager)
            .await;
        let stored = self.expect_there(resource, key, answer)?;
        self.take_in(writer, resource, stored, true)
    }

    /// Deletes an object if it is still the one that was seen. Gone is success; an object that is being deleted already is
    /// not asked twice. A conflict is for the caller to look again: nothing else may come that wakes it.
    ///
    /// # Errors
    /// What the server said.
    pub async fn delete(&self, resource: &Resource, object: &Object) -> Result<(), ApiError> {
        if object.is_deleting() {
            return Ok(());
        }
        let preconditions = Preconditions {
            uid: Some(object.uid.clone()),
            resource_version: None,
        };
        match self.api.delete(resource, &object.key, &preconditions).await {
            Ok(()) => Ok(()),
            Err(ApiError::NotFound(_)) => {
                self.stores.gone(resource, &object.key, &object.uid);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the object of this name, as [`Ctx::delete`] does. One that is not seen is gone.
    ///
    /// # Errors
    /// What the server said, and of which object.
    pub async fn delete_named(&self, resource: &Resource, key: &ObjectKey) -> Result<(), Failure> {
        let Some(object) = self.get(resource, key) else {
            return Ok(());
        };
        let answer = self.delete(resource, &object).await;
        answer.map_err(|error| failure(&format!("deleting {} {key}", resource.kind), &error))
    }

    fn expect_there(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        answer: Result<Value, ApiError>,
    ) -> Result<Value, ApiError> {
        if let Err(ApiError::NotFound(_)) = &answer
            && let Some(object) = self.get(resource, key)
        {
            self.stores.gone(resource, key, &object.uid);
        }
        answer
    }

    fn take_in(
        &self,
        writer: &Writer,
        resource: &Resource,
        stored: Value,
        status_only: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let nameless =
            || ApiError::Unavailable("the API server answered without a name".to_owned());
        let object = Arc::new(Object::new(stored).ok_or_else(nameless)?);
        let origin = Origin {
            controller: writer.controller,
            status_only,
        };
        self.stores.written(resource, Arc::clone(&object), origin);
        Ok(object)
    }
}

/// In whose name something is written.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// Controller.
    pub controller: &'static str,
    /// Field manager.
    pub manager: &'static str,
}

/// An owner reference to an object.
#[must_use]
pub fn owner_reference(object: &Object, controller: bool) -> Value {
    let mut reference = json!({
        "apiVersion": object.text("/apiVersion").unwrap_or_default(),
        "kind": object.kind(),
        "name": object.key.name,
        "uid": object.uid,
    });
    if controller && let Some(reference) = reference.as_object_mut() {
        reference.insert("controller".to_owned(), json!(true));
        reference.insert("blockOwnerDeletion".to_owned(), json!(true));
    }
    reference
}

/// What a refused request means for the object whose reconcile made it.
#[must_use]
pub fn failure(doing: &str, error: &ApiError) -> Failure {
    let message = format!("{doing}: {error}");
    match error {
        ApiError::Invalid(_) => Failure::terminal("Refused", message),
        ApiError::Forbidden(_) => Failure::denied("Forbidden", message),
        ApiError::TooManyRequests { retry_after_s, .. } => Failure {
            retry_after: retry_after_s.map(std::time::Duration::from_secs),
            ..Failure::transient("TooManyRequests", message)
        },
        ApiError::Conflict(_) => Failure::transient("Conflict", message),
        ApiError::NotFound(_)
        | ApiError::NotServed(_)
        | ApiError::AlreadyExists(_)
        | ApiError::Expired(_)
        | ApiError::TooLarge(_)
        | ApiError::Unavailable(_) => Failure::transient("RequestFailed", message),
    }
}
