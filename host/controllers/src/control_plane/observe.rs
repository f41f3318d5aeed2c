//! Reads all that a decision about a control plane may look at, and asks the plugin its questions.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::contract::SecretPurpose;
use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_core::answer::check_desired;
use capstan_core::call::control_plane::{
    Components, ControlPlaneInput, ControlPlaneMachineInput, Desired, InitializedWhen,
};
use capstan_core::call::material::Requirement;
use capstan_core::control_plane::adoption::Foreign;
use capstan_core::control_plane::etcd::Address;
use capstan_core::control_plane::{ComponentState, Member, Observed, Template};
use capstan_core::lookup::Lookup;
use capstan_core::material::check_requirements;
use capstan_core::plan::Failure;
use capstan_engine::SecretTable;
use futures::future::join_all;
use serde_json::Value;

use super::{MemberObjects, Seen, datastore, expiry, looked_up, material, owner_cluster, rotation};
use crate::access;
use crate::attempt;
use crate::bootstrap;
use crate::ctx::Ctx;
use crate::etcd::Identities;
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, Resource, memory_bytes};
use crate::object::{Locator, Object};
use crate::plugins::ActivePlugin;
use crate::workloads::Workload;

/// A pod of a control plane, as it is in memory: twenty times what kubeadm's are. All pods of all machines are held during a look.
const POD_BYTES_MAX: usize = 1 << 20;

/// Why nothing is known of a machine's Node and pods.
const NOT_LOOKED: &str = "not looked at: the control plane is not initialized, or is being deleted";

/// Asks the plugin about one control plane.
pub(super) struct Ask<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) plugin: &'a ActivePlugin,
    pub(super) resource: Resource,
    pub(super) object: &'a Object,
    pub(super) cluster: Value,
}

impl<'a> Ask<'a> {
    pub(super) fn new(
        ctx: &'a Ctx,
        plugin: &'a ActivePlugin,
        object: &'a Object,
        cluster: &Object,
    ) -> Result<Self, Failure> {
        Ok(Self {
            ctx,
            plugin,
            resource: ctx.resource(&object.group_kind())?,
            object,
            cluster: Value::clone(&cluster.value),
        })
    }

    pub(super) fn env(&self) -> capstan_engine::CallEnv {
        self.plugin
            .env(self.ctx, &self.resource, self.object, SecretTable::new())
    }

    pub(super) fn input(&self, operation: &str) -> ControlPlaneInput {
        ControlPlaneInput {
            context: self
                .plugin
                .context(self.ctx, self.object, operation, attempt::number()),
            cluster: self.cluster.clone(),
            control_plane: Value::clone(&self.object.value),
            extra: Vec::new(),
        }
    }

    /// Key of the Cluster.
    fn cluster_key(&self) -> ObjectKey {
        let name = self.cluster.pointer("/metadata/name");
        ObjectKey::new(
            self.object.key.namespace.clone(),
            name.and_then(Value::as_str).unwrap_or_default(),
        )
    }

    async fn desired(&self) -> Result<Desired, Failure> {
        let desired = self
            .plugin
            .loaded
            .desired(self.env(), self.input("desired"))
            .await;
        let mut desired = desired.map_err(|error| error.failure())?;
        if desired.version.is_empty() {
            return Err(Failure::terminal(
                "PluginBadAnswer",
                format!("plugin {}: no version", self.plugin.name),
            ));
        }
        if !desired.version.starts_with('v') {
            desired.version.insert(0, 'v');
        }
        desired.max_surge = desired.max_surge.min(1);
        let kind = GroupKind {
            group: desired.bootstrap_group.clone(),
            kind: desired.bootstrap_kind.clone(),
        };
        let is_bootstrap = kind.group == access::BOOTSTRAP
            || self.ctx.plugins.role_of(&kind).as_deref() == Some(bootstrap::ROLE);
        check_desired(&desired, &self.object.value, is_bootstrap)
            .map_err(|violation| violation.failure(&self.plugin.name))?;
        Ok(desired)
    }

    async fn requirements(&self) -> Result<Vec<Requirement>, Failure> {
        let asked = self
            .plugin
            .loaded
            .control_plane_requirements(self.env(), self.input("requirements"))
            .await;
        let requirements = asked.map_err(|error| error.failure())?;
        let cluster = self.cluster.pointer("/metadata/name");
        let cluster = cluster.and_then(Value::as_str).unwrap_or_default();
        check_requirements(&requirements, &self.object.value, cluster)
            .map_err(|refused| Failure::terminal("PluginBadAnswer", refused.to_string()))?;
        Ok(requirements)
    }

    async fn initialized(&self, workload: &Workload) -> Lookup<()> {
        let when = self
            .plugin
            .loaded
            .initialized(self.env(), self.input("initialized"))
            .await;
        match when {
            // There is a connection, so it answers.
            Ok(InitializedWhen::ApiServerAnswers) => Lookup::Found(()),
            Ok(InitializedWhen::ObjectExists {
                api_version,
                kind,
                namespace,
                name,
            }) => {
                let resource = workload_resource(&api_version, &kind, &namespace);
                match workload
                    .api
                    .get(&resource, &ObjectKey::new(namespace, name))
                    .await
                {
                    Ok(_) => Lookup::Found(()),
                    Err(ApiError::NotFound(_) | ApiError::NotServed(_)) => Lookup::Missing,
                    Err(error) => Lookup::Unknown(error.to_string()),
                }
            }
            Err(error) => Lookup::Unknown(error.to_string()),
        }
    }
}

fn workload_resource(api_version: &str, kind: &str, namespace: &str) -> Resource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = capstan_api::contract::plural(kind);
    if namespace.is_empty() {
        Resource::cluster_scoped(group, version, kind, &plural)
    } else {
        Resource::namespaced(group, version, kind, &plural)
    }
}

/// What can be told before anything is asked.
fn begin(
    ctx: &Ctx,
    object: &Arc<Object>,
    cluster: Option<&Arc<Object>>,
    plugin: Option<&Arc<ActivePlugin>>,
) -> Seen {
    let connection = cluster
        .map(|c| ctx.workloads.status(&c.key))
        .unwrap_or_default();
    Seen {
        core: Observed {
            object: Value::clone(&object.value),
            cluster: typed_cluster(cluster.map(Arc::as_ref)),
            plugin: plugin.map(|plugin| plugin.name.clone()),
            desired: Err(Failure::transient(
                "WaitingForCluster",
                "waiting for the Cluster to own the control plane",
            )),
            material: Lookup::Missing,
            expects_etcd: false,
            template: Lookup::Missing,
            members: Vec::new(),
            workers: Vec::new(),
            pools: Vec::new(),
            took: Duration::ZERO,
            connected: connection.connected,
            last_success: connection.last_success,
            tried_since: connection.since,
            connection_error: connection.error,
            connection_said: connection.said,
            initialized: Lookup::Missing,
            etcd: Lookup::Missing,
            keeps_snapshots: ctx.snapshots.is_some(),
            snapshot: ctx.taking.of(&Locator::of(object)),
            foreign: Vec::new(),
            stable_work: None,
            rotation: capstan_core::control_plane::rotation::Seen::default(),
        },
        object: Arc::clone(object),
        cluster: cluster.cloned(),
        plugin: plugin.cloned(),
        requirements: Vec::new(),
        template: None,
        members: Vec::new(),
        authority: None,
    }
}

/// Reads everything.
pub(super) async fn observe(
    ctx: &Ctx,
    identities: &Identities,
    object: Arc<Object>,
) -> Result<Seen, Failure> {
    let cluster = owner_cluster(&object).and_then(|key| ctx.get(&kinds::CLUSTER, &key));
    let plugin = ctx.plugins.serving(ctx, &object);
    let mut seen = begin(ctx, &object, cluster.as_ref(), plugin.as_ref());
    let Some(cluster) = cluster else {
        let machines = machines(ctx, &seen).await;
        add_members(ctx, &mut seen, &machines, None, None).await?;
        return Ok(seen);
    };
    let workload = ctx.workloads.get(&cluster.key);
    seen.core.connected = workload.is_some();
    let ask = match plugin.as_deref() {
        Some(plugin) => Some(Ask::new(ctx, plugin, &object, &cluster)?),
        None => None,
    };
    match &ask {
        Some(ask) => {
            seen.core.desired = ask.desired().await;
            match ask.requirements().await {
                Ok(requirements) => {
                    seen.core.expects_etcd = requirements.iter().any(is_of_etcd);
                    seen.requirements = requirements;
                }
                Err(failure) => seen.core.desired = Err(failure),
            }
        }
        None => {
            let owner = ctx.provider_of(&object.group_kind());
            let message =
                capstan_core::infrastructure::plugin_missing(object.kind(), owner.as_deref());
            seen.core.desired = Err(Failure::transient("PluginMissing", message));
        }
    }
    let machines = machines(ctx, &seen).await;
    seen.core.foreign = foreign(ctx, &seen, &cluster);
    seen.core.material = material::state(ctx, &seen, &cluster).await;
    add_template(ctx, &mut seen, &cluster).await;
    let is_of_interest = !seen.core.was_initialized() && !seen.core.is_deleting();
    if let (Some(ask), Some(workload), true) = (&ask, &workload, is_of_interest) {
        seen.core.initialized = ask.initialized(workload).await;
    }
    add_members(ctx, &mut seen, &machines, ask.as_ref(), workload.as_deref()).await?;
    let shown = expiry::of_endpoint(ctx, &seen, workload.as_deref()).await;
    if let (Some(end), Lookup::Found(material)) = (shown, &mut seen.core.material) {
        let name = expiry::API_SERVER.to_owned();
        material.certificates.push((name, end));
    }
    seen.core.workers = workers(ctx, &cluster);
    let pools = ctx.store(&kinds::MACHINE_POOL).of_cluster(&cluster.key);
    seen.core.pools = pools.iter().map(|pool| pool.key.name.clone()).collect();
    if !seen.core.is_deleting() && seen.core.material.found().is_some() {
        seen.core.rotation = rotation::look(ctx, &seen, &cluster, workload.as_deref()).await;
    }
    if let Some(workload) = workload.filter(|_| seen.core.is_initialized()) {
        seen.core.etcd = datastore::look(ctx, identities, &seen, &workload).await;
    }
    Ok(seen)
}

/// Whether it is the authority of an etcd that the host looks after: of another one, no machine needs the key.
fn is_of_etcd(requirement: &Requirement) -> bool {
    matches!(requirement, Requirement::CertificateAuthority { name, .. } if name == SecretPurpose::EtcdCa.as_str())
}

fn typed_cluster(cluster: Option<&Object>) -> Lookup<capstan_api::v1beta2::Cluster> {
    match cluster.map(Object::typed) {
        None => Lookup::Missing,
        Some(Ok(cluster)) => Lookup::Found(cluster),
        Some(Err(error)) => Lookup::Unknown(format!("the Cluster cannot be read: {error}")),
    }
}

async fn add_template(ctx: &Ctx, seen: &mut Seen, cluster: &Object) {
    let Ok(desired) = &seen.core.desired else {
        return;
    };
    let reference = &desired.infrastructure_template;
    let kind = GroupKind {
        group: reference.group.clone(),
        kind: reference.kind.clone(),
    };
    let key = ObjectKey::new(seen.object.key.namespace.clone(), reference.name.clone());
    match ctx.external(&kind).await {
        Ok(store) => {
            seen.template = store.get(&key);
            seen.core.template = seen.template.as_ref().map_or(Lookup::Missing, |template| {
                Lookup::Found(Template {
                    is_owned: template.owners().any(|owner| owner.uid == cluster.uid),
                })
            });
        }
        Err(failure) => seen.core.template = Lookup::Unknown(failure.message),
    }
}

/// Machines of the cluster that are not the control plane's.
fn workers(ctx: &Ctx, cluster: &Object) -> Vec<String> {
    let machines = ctx.store(&kinds::MACHINE).of_cluster(&cluster.key);
    let workers = machines
        .iter()
        .filter(|machine| machine.label(label::CONTROL_PLANE).is_none());
    workers.map(|machine| machine.key.name.clone()).collect()
}

/// Control-plane machines of the cluster that belong to somebody else, or to nobody.
fn foreign(ctx: &Ctx, seen: &Seen, cluster: &Object) -> Vec<Foreign> {
    let machines = ctx.store(&kinds::MACHINE).of_cluster(&cluster.key);
    let mut foreign: Vec<Foreign> = machines
        .iter()
        .filter(|machine| {
            let is_ours = machine
                .controller()
                .is_some_and(|owner| owner.uid == seen.object.uid);
            machine.label(label::CONTROL_PLANE).is_some() && !is_ours
        })
        .map(|machine| foreign_machine(machine))
        .collect();
    foreign.sort_by(|a, b| a.name.cmp(&b.name));
    foreign
}

/// A Machine that is not the control plane's.
pub(crate) fn foreign_machine(machine: &Object) -> Foreign {
    let config = |field: &str| {
        let text = machine.text(&format!("/spec/bootstrap/configRef/{field}"));
        text.map(str::to_owned)
    };
    Foreign {
        name: machine.key.name.clone(),
        uid: machine.uid.clone(),
        version: machine.text("/spec/version").unwrap_or_default().to_owned(),
        config: config("apiGroup").zip(config("kind")),
        owner: machine
            .controller()
            .map(|owner| format!("{} {}", owner.kind, owner.name)),
        is_deleting: machine.is_deleting(),
    }
}

/// Machines that are the control plane's. Those that are not are looked at in the same moment: one that is given away is among them then.
async fn machines(ctx: &Ctx, seen: &Seen) -> Vec<Arc<Object>> {
    let store = ctx.store(&kinds::MACHINE);
    // Before the first list is in, machines that exist would be made again.
    store.synced().await;
    let mut machines = store.owned_by(&seen.object.uid);
    machines.retain(|machine| {
        let owner = machine.controller();
        owner.is_some_and(|owner| owner.uid == seen.object.uid)
    });
    machines.sort_by(|a, b| a.key.cmp(&b.key));
    machines
}

async fn add_members(
    ctx: &Ctx,
    seen: &mut Seen,
    machines: &[Arc<Object>],
    ask: Option<&Ask<'_>>,
    workload: Option<&Workload>,
) -> Result<(), Failure> {
    // What is said of the first machine depends on what it is, which is not known yet.
    let may_be_initialized = seen.core.was_initialized() || seen.core.initialized.found().is_some();
    let is_asked = may_be_initialized
        && seen
            .core
            .asks_about(machines.iter().map(|machine| machine.is_deleting()));
    let workload = workload.filter(|_| is_asked);
    let read = machines
        .iter()
        .map(|machine| read_member(ctx, machine, ask, workload));
    for member in join_all(read).await {
        let (objects, member, authority) = member?;
        seen.authority = seen.authority.take().or(authority);
        seen.members.push(objects);
        seen.core.members.push(member);
    }
    Ok(())
}

async fn read_member(
    ctx: &Ctx,
    machine: &Arc<Object>,
    ask: Option<&Ask<'_>>,
    workload: Option<&Workload>,
) -> Result<(MemberObjects, Member, Option<String>), Failure> {
    let typed = machine.typed().map_err(|error| {
        Failure::terminal(
            "InternalError",
            format!("Machine {} cannot be read: {error}", machine.key.name),
        )
    })?;
    let (config, config_object) =
        looked_up(referenced(ctx, machine, "/spec/bootstrap/configRef").await);
    let (infra, infra_object) =
        looked_up(referenced(ctx, machine, "/spec/infrastructureRef").await);
    let mut member = Member {
        machine: typed,
        config,
        infra,
        node: node(machine, workload),
        components: Vec::new(),
        datastore: None,
        etcd: None,
        expiry: Lookup::Missing,
        outdated: Ok(Vec::new()),
        unseen: None,
    };
    let mut authority = None;
    if let Some(ask) = ask {
        let input = |operation: &str| ControlPlaneMachineInput {
            control_plane: ask.input(operation),
            machine: Value::clone(&machine.value),
            bootstrap_config: member.config.found().map(|o| Value::clone(o)),
            infra_machine: member.infra.found().map(|o| Value::clone(o)),
        };
        let outdated = ask
            .plugin
            .loaded
            .outdated(ask.env(), input("outdated"))
            .await;
        let components = ask
            .plugin
            .loaded
            .components(ask.env(), input("components"))
            .await;
        member.outdated = outdated.map_err(|error| error.failure());
        match components {
            Ok(components) => {
                see(ctx, ask, &mut member, &components, workload).await;
                let datastore = components.datastore;
                authority = datastore.map(|datastore| datastore.certificate_authority);
            }
            Err(error) => {
                let failure = error.failure();
                member.unseen = Some(failure.clone());
                member.outdated = member.outdated.and(Err(failure));
            }
        }
    }
    let objects = MemberObjects {
        machine: Arc::clone(machine),
        config: config_object,
        infra: infra_object,
    };
    Ok((objects, member, authority))
}

/// Looks at what there is to look at on a machine.
async fn see(
    ctx: &Ctx,
    ask: &Ask<'_>,
    member: &mut Member,
    components: &Components,
    workload: Option<&Workload>,
) {
    member.etcd = address(member, components);
    // Another datastore is looked after by whoever knows it.
    if member.etcd.is_some() {
        member.datastore = datastore_condition(components);
    }
    member.components = pods(components, workload).await;
    if let Some(workload) = workload {
        let cluster = ask.cluster_key();
        member.expiry = expiry::of(ctx, &cluster, member, components, workload).await;
    }
}

/// Where a machine's member of etcd answers. Other datastores are nothing that the host can ask.
fn address(member: &Member, components: &Components) -> Option<Address> {
    let datastore = components.datastore.as_ref()?;
    (datastore.datastore_type == "etcd").then(|| Address {
        name: member.node_name().unwrap_or_default().to_owned(),
        pod: ObjectKey::new(datastore.pod_namespace.clone(), datastore.pod_name.clone()),
        port: datastore.port,
    })
}

/// Condition of the pod that is a machine's member of the datastore.
fn datastore_condition(components: &Components) -> Option<String> {
    let datastore = components.datastore.as_ref()?;
    let pod = components
        .components
        .iter()
        .find(|c| c.pod_name == datastore.pod_name && c.pod_namespace == datastore.pod_namespace);
    // A member whose pod nobody looks at is a member all the same.
    Some(pod.map_or_else(String::new, |pod| pod.condition_type.clone()))
}

async fn pods(components: &Components, workload: Option<&Workload>) -> Vec<ComponentState> {
    let reads = components.components.iter().map(|component| async move {
        let pod = match workload {
            None => Lookup::Unknown(NOT_LOOKED.to_owned()),
            Some(workload) => {
                let key =
                    ObjectKey::new(component.pod_namespace.clone(), component.pod_name.clone());
                match workload.api.get(&kinds::POD, &key).await {
                    Ok(pod) if memory_bytes(&pod) > POD_BYTES_MAX => Lookup::Unknown(format!(
                        "Pod {key} is larger than {} MiB in memory",
                        POD_BYTES_MAX >> 20
                    )),
                    Ok(pod) => Lookup::Found(pod),
                    Err(ApiError::NotFound(_)) => Lookup::Missing,
                    Err(error) => Lookup::Unknown(error.to_string()),
                }
            }
        };
        ComponentState {
            condition_type: component.condition_type.clone(),
            pod: pod.map(Arc::new),
        }
    });
    join_all(reads).await
}

fn node(machine: &Object, workload: Option<&Workload>) -> Lookup<Arc<Value>> {
    let Some(workload) = workload else {
        return Lookup::Unknown(NOT_LOOKED.to_owned());
    };
    let Some(name) = machine.text("/status/nodeRef/name") else {
        return Lookup::Missing;
    };
    workload
        .node(name)
        .map_or(Lookup::Missing, |node| Lookup::Found(node.value.clone()))
}

/// The object that a Machine refers to.
async fn referenced(
    ctx: &Ctx,
    machine: &Object,
    pointer: &str,
) -> Result<Option<(Resource, Arc<Object>)>, Failure> {
    let text = |field: &str| machine.text(&format!("{pointer}/{field}"));
    let (Some(group), Some(kind), Some(name)) = (text("apiGroup"), text("kind"), text("name"))
    else {
        return Ok(None);
    };
    let kind = GroupKind {
        group: group.to_owned(),
        kind: kind.to_owned(),
    };
    let store = ctx.external(&kind).await?;
    let object = store.get(&ObjectKey::new(machine.key.namespace.clone(), name));
    Ok(object.map(|object| (store.resource().clone(), object)))
}
