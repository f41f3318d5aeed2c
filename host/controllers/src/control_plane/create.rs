//! Makes control-plane machines: the Machine first, then its bootstrap config and infrastructure machine at once, all of one name
//! and the latter two the Machine's from the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::v1beta2::API_VERSION;
use capstan_api::{annotation, finalizer};
use capstan_core::call::Endpoint;
use capstan_core::call::bootstrap::Role;
use capstan_core::call::control_plane::{Desired, MachineConfigInput};
use capstan_core::clone;
use capstan_core::control_plane::{machine_labels, sync};
use capstan_core::plan::Failure;
use serde_json::{Map, Value, json};

use super::observe::Ask;
use super::{Seen, member, write_failure, writer};
use crate::ctx::{Ctx, owner_reference};
use crate::infrastructure::finalized;
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, Resource};
use crate::object::Object;

/// What a machine is made of.
struct Parts {
    bootstrap: Resource,
    config: Value,
    infra: Resource,
    infra_object: Value,
}

fn desired(seen: &Seen) -> Result<&Desired, Failure> {
    seen.core.desired.as_ref().map_err(Clone::clone)
}

fn gone(what: &str) -> Failure {
    Failure::transient("InternalError", format!("{what} went away"))
}

/// Makes a machine with all that belongs to it.
pub(super) async fn machine(
    ctx: &Ctx,
    seen: &Seen,
    name: &str,
    role: Role,
    failure_domain: Option<&str>,
    remediation_for: Option<&str>,
) -> Result<(), Failure> {
    // Whatever can go wrong in making its parts goes wrong before there is a Machine.
    let parts = parts(ctx, seen, name, role).await?;
    let object = machine_object(seen, name, &parts, failure_domain, remediation_for)?;
    let machine = match ctx.create(&writer(), &kinds::MACHINE, &object).await {
        Ok(machine) => machine,
        Err(ApiError::AlreadyExists(_)) => already_there(ctx, seen, name).await?,
        Err(error) => return Err(write_failure(&format!("creating Machine {name}"), &error)),
    };
    make(ctx, parts, &machine, true, true).await
}

/// Makes what is missing of a machine.
pub(super) async fn complete(
    ctx: &Ctx,
    seen: &Seen,
    name: &str,
    role: Role,
    config: bool,
    infra: bool,
) -> Result<(), Failure> {
    let machine = Arc::clone(&member(seen, name)?.machine);
    let parts = parts(ctx, seen, name, role).await?;
    make(ctx, parts, &machine, config, infra).await
}

/// A Machine of this name exists: ours, when the answer to an earlier request was lost.
async fn already_there(ctx: &Ctx, seen: &Seen, name: &str) -> Result<Arc<Object>, Failure> {
    let key = capstan_api::name::ObjectKey::new(seen.object.key.namespace.clone(), name);
    let value = ctx.api.get(&kinds::MACHINE, &key).await;
    let value = value.map_err(|error| write_failure(&format!("reading Machine {name}"), &error))?;
    let machine = Object::new(value).ok_or_else(|| gone("the Machine"))?;
    if machine
        .controller()
        .is_some_and(|owner| owner.uid == seen.object.uid)
        && !machine.is_deleting()
    {
        return Ok(Arc::new(machine));
    }
    Err(Failure::transient(
        "NameTaken",
        format!("Machine {name} exists and belongs to somebody else: another name is tried soon"),
    ))
}

async fn make(
    ctx: &Ctx,
    parts: Parts,
    machine: &Object,
    config: bool,
    infra: bool,
) -> Result<(), Failure> {
    let owner = owner_reference(machine, true);
    let with_owner = |mut object: Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("ownerReferences".to_owned(), json!([owner]));
        }
        object
    };
    let config_object = with_owner(parts.config);
    let infra_object = finalized(ctx, with_owner(parts.infra_object));
    let name = &machine.key.name;
    let (config, infra) = futures::future::join(
        create_part(ctx, config, &parts.bootstrap, name, &config_object),
        create_part(ctx, infra, &parts.infra, name, &infra_object),
    )
    .await;
    config.and(infra)
}

/// One of a machine's objects, if it is wanted. One that is there already was made before a crash.
async fn create_part(
    ctx: &Ctx,
    is_wanted: bool,
    resource: &Resource,
    name: &str,
    object: &Value,
) -> Result<(), Failure> {
    if !is_wanted {
        return Ok(());
    }
    match ctx.create(&writer(), resource, object).await {
        Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(write_failure(
            &format!("creating {} {name}", resource.kind),
            &error,
        )),
    }
}

async fn parts(ctx: &Ctx, seen: &Seen, name: &str, role: Role) -> Result<Parts, Failure> {
    let desired = desired(seen)?;
    let plugin = seen.plugin.as_deref().ok_or_else(|| gone("the plugin"))?;
    let cluster = seen.cluster.as_deref().ok_or_else(|| gone("the Cluster"))?;
    let template = seen
        .template
        .as_deref()
        .ok_or_else(|| gone("the infrastructure template"))?;
    let bootstrap_kind = GroupKind {
        group: desired.bootstrap_group.clone(),
        kind: desired.bootstrap_kind.clone(),
    };
    let bootstrap = ctx.resolve(&bootstrap_kind)?;
    let infra_kind = clone::kind_of_template(template.kind()).unwrap_or_default();
    let infra_kind = GroupKind {
        group: template.group_kind().group,
        kind: infra_kind.to_owned(),
    };
    let infra = ctx.resolve(&infra_kind)?;
    let ask = Ask::new(ctx, plugin, &seen.object, cluster)?;
    let input = MachineConfigInput {
        control_plane: ask.input("machine-config"),
        role,
        machine_name: name.to_owned(),
        control_plane_endpoint: endpoint(cluster),
    };
    let spec = plugin
        .loaded
        .machine_config(ask.env(), input)
        .await
        .map_err(|error| error.failure())?;
    let labels = machine_labels(desired, &cluster.key.name, &seen.object.key.name);
    let annotations: BTreeMap<String, String> =
        desired.machine_annotations.iter().cloned().collect();
    let config = json!({
        "apiVersion": bootstrap.api_version(),
        "kind": bootstrap.kind,
        "metadata": {
            "namespace": seen.object.key.namespace,
            "name": name,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec,
    });
    let infra_object = clone::from_template(
        &template.value,
        name,
        &seen.object.key.namespace,
        &cluster.key.name,
        &labels,
        &annotations,
        None,
    )
    .map_err(|error| Failure::terminal("InvalidTemplate", error.to_string()))?;
    Ok(Parts {
        bootstrap,
        config,
        infra,
        infra_object,
    })
}

fn endpoint(cluster: &Object) -> Option<Endpoint> {
    let host = cluster.text("/spec/controlPlaneEndpoint/host")?.to_owned();
    let port = cluster
        .value
        .pointer("/spec/controlPlaneEndpoint/port")
        .and_then(Value::as_u64)?;
    Some(Endpoint {
        host,
        port: u16::try_from(port).ok()?,
    })
}

fn machine_object(
    seen: &Seen,
    name: &str,
    parts: &Parts,
    failure_domain: Option<&str>,
    remediation_for: Option<&str>,
) -> Result<Value, Failure> {
    let desired = desired(seen)?;
    let cluster = seen.cluster.as_deref().ok_or_else(|| gone("the Cluster"))?;
    let mut annotations = sync::annotations(desired);
    annotations.insert(annotation::KCP_CLEANUP_HOOK.to_owned(), String::new());
    if let Some(record) = remediation_for {
        annotations.insert(annotation::REMEDIATION_FOR.to_owned(), record.to_owned());
    }
    let reference = |resource: &Resource| json!({"apiGroup": resource.group, "kind": resource.kind, "name": name});
    let mut spec = Map::new();
    spec.insert("clusterName".to_owned(), json!(cluster.key.name));
    spec.insert("version".to_owned(), json!(desired.version));
    spec.insert(
        "bootstrap".to_owned(),
        json!({"configRef": reference(&parts.bootstrap)}),
    );
    spec.insert("infrastructureRef".to_owned(), reference(&parts.infra));
    if let Some(domain) = failure_domain {
        spec.insert("failureDomain".to_owned(), json!(domain));
    }
    for (field, value) in [
        ("readinessGates", &desired.readiness_gates),
        ("taints", &desired.taints),
    ] {
        if value.as_array().is_some_and(|items| !items.is_empty()) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let mut deletion = sync::deletion(desired);
    if let Some(fields) = deletion.as_object_mut() {
        fields.retain(|_, seconds| !seconds.is_null());
    }
    spec.insert("deletion".to_owned(), deletion);
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": kinds::MACHINE.kind,
        "metadata": {
            "namespace": seen.object.key.namespace,
            "name": name,
            "labels": machine_labels(desired, &cluster.key.name, &seen.object.key.name),
            "annotations": annotations,
            "finalizers": [finalizer::MACHINE],
            "ownerReferences": [owner_reference(&seen.object, true)],
        },
        "spec": spec,
    }))
}
