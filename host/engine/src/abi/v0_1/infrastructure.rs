//! `wit/v0.1/infrastructure.wit`.

use std::time::Duration;

use capstan_core::call::infrastructure::{
    ClusterAnswer, ClusterInput, DeletionAnswer, FailureDomain, MachineAnswer, MachineInput,
};
use futures::FutureExt;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::check::{self, Checked};
use super::exports::infrastructure as wit;
use super::{Outcome, Roles, ask, lowered, role, types};
use crate::call::{CallState, Stop};
use crate::error::CallError;

const INTERFACE: &str = "infrastructure";

/// Types of machine addresses that Cluster API knows.
const ADDRESS_TYPES: [&str; 5] = [
    "Hostname",
    "InternalIP",
    "ExternalIP",
    "InternalDNS",
    "ExternalDNS",
];

pub(super) fn guest(
    roles: &Roles,
    store: &mut Store<CallState>,
    instance: &Instance,
) -> Result<wit::Guest, Stop> {
    role(roles.infrastructure.as_ref(), INTERFACE)?
        .load(store, instance)
        .map_err(Stop::Guest)
}

fn cluster_input(input: &ClusterInput, wall: Duration) -> Result<wit::ClusterInput, CallError> {
    Ok(wit::ClusterInput {
        context: types::context(&input.context, wall)?,
        cluster: check::json_text("the Cluster", &input.cluster)?,
        infra_cluster: check::json_text("the infrastructure cluster", &input.infra_cluster)?,
        state: input.state.clone(),
        extra: types::extra(&input.extra)?,
    })
}

fn machine_input(input: &MachineInput, wall: Duration) -> Result<wit::MachineInput, CallError> {
    Ok(wit::MachineInput {
        context: types::context(&input.context, wall)?,
        cluster: check::json_text("the Cluster", &input.cluster)?,
        infra_cluster: check::json_text("the infrastructure cluster", &input.infra_cluster)?,
        machine: check::json_text("the Machine", &input.machine)?,
        infra_machine: check::json_text("the infrastructure machine", &input.infra_machine)?,
        failure_domain: input.failure_domain.clone(),
        bootstrap: input.bootstrap.as_ref().map(|data| wit::BootstrapData {
            data: data.data.0,
            format: data.format.clone(),
        }),
        cluster_deleting: input.cluster_deleting,
        state: input.state.clone(),
        extra: types::extra(&input.extra)?,
    })
}

pub(crate) fn ensure_cluster<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: ClusterInput,
) -> Outcome<'a, ClusterAnswer> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| cluster_input(input, wall))?;
        let answer = ask!(store, guest.call_ensure_cluster("input": input));
        let answer = cluster_answer(answer.map_err(types::failure)?)?;
        check::state_of(store, answer.state.as_ref())?;
        Ok(answer)
    }
    .boxed()
}

pub(crate) fn delete_cluster<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: ClusterInput,
) -> Outcome<'a, DeletionAnswer> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| cluster_input(input, wall))?;
        let answer = ask!(store, guest.call_delete_cluster("input": input));
        let answer = deletion_answer(answer.map_err(types::failure)?)?;
        check::state_of(store, answer.state.as_ref())?;
        Ok(answer)
    }
    .boxed()
}

pub(crate) fn ensure_machine<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: MachineInput,
) -> Outcome<'a, MachineAnswer> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| machine_input(input, wall))?;
        let answer = ask!(store, guest.call_ensure_machine("input": input));
        let answer = machine_answer(answer.map_err(types::failure)?)?;
        check::state_of(store, answer.state.as_ref())?;
        Ok(answer)
    }
    .boxed()
}

pub(crate) fn delete_machine<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: MachineInput,
) -> Outcome<'a, DeletionAnswer> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| machine_input(input, wall))?;
        let answer = ask!(store, guest.call_delete_machine("input": input));
        let answer = deletion_answer(answer.map_err(types::failure)?)?;
        check::state_of(store, answer.state.as_ref())?;
        Ok(answer)
    }
    .boxed()
}

pub(super) fn cluster_answer(answer: wit::ClusterAnswer) -> Checked<ClusterAnswer> {
    check::list("failureDomains", answer.failure_domains.len())?;
    let mut failure_domains: Vec<FailureDomain> = Vec::new();
    for domain in answer.failure_domains {
        let name = check::name("failureDomains.name", domain.name)?;
        check::rule(name.len() <= 256, || {
            "failureDomains.name is longer than 256 bytes".to_owned()
        })?;
        check::rule(
            failure_domains.iter().all(|other| other.name != name),
            || format!("failureDomains has {} twice", check::shown(&name)),
        )?;
        failure_domains.push(FailureDomain {
            name,
            control_plane: domain.control_plane,
            attributes: check::pairs("failureDomains.attributes", domain.attributes)?,
        });
    }
    Ok(ClusterAnswer {
        progress: types::progress(answer.progress)?,
        control_plane_endpoint: answer
            .control_plane_endpoint
            .map(types::checked_endpoint)
            .transpose()?,
        failure_domains,
        status: check::json_object("status", &answer.status)?,
        conditions: types::conditions(answer.conditions)?,
        state: check::state(answer.state)?,
        extra: check::extra(answer.extra)?,
    })
}

/// A provider ID has a scheme and something after it, as the cloud provider of Kubernetes writes it into `spec.providerID`.
fn provider_id(id: String) -> Checked<String> {
    let id = check::name("providerID", id)?;
    let fits = id
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.trim_matches('/').is_empty())
        && !id.contains(char::is_whitespace);
    check::rule(fits, || {
        format!(
            "providerID {} is not like scheme://something",
            check::shown(&id)
        )
    })?;
    Ok(id)
}

pub(super) fn machine_answer(answer: wit::MachineAnswer) -> Checked<MachineAnswer> {
    check::list("addresses", answer.addresses.len())?;
    check::rule(answer.addresses.len() <= 128, || {
        "addresses has more than 128 entries".to_owned()
    })?;
    let mut addresses = Vec::new();
    for address in answer.addresses {
        check::rule(
            ADDRESS_TYPES.contains(&address.address_type.as_str()),
            || {
                format!(
                    "addresses has the type {}",
                    check::shown(&address.address_type)
                )
            },
        )?;
        let value = check::name("addresses.address", address.address)?;
        check::rule(value.len() <= 256, || {
            "addresses.address is longer than 256 bytes".to_owned()
        })?;
        addresses.push((address.address_type, value));
    }
    let progress = types::progress(answer.progress)?;
    let ready = matches!(progress, capstan_core::call::Progress::Ready);
    check::rule(!ready || answer.provider_id.is_some(), || {
        "a machine that is ready has a providerID".to_owned()
    })?;
    Ok(MachineAnswer {
        progress,
        provider_id: answer.provider_id.map(provider_id).transpose()?,
        addresses,
        failure_domain: answer
            .failure_domain
            .map(|domain| check::name("failureDomain", domain))
            .transpose()?,
        interruptible: answer.interruptible,
        interruption_deadline_ms: answer.interruption_deadline_ms,
        instance_state: check::text("instanceState", answer.instance_state)?,
        status: check::json_object("status", &answer.status)?,
        conditions: types::conditions(answer.conditions)?,
        state: check::state(answer.state)?,
        extra: check::extra(answer.extra)?,
    })
}

pub(super) fn deletion_answer(answer: wit::DeletionAnswer) -> Checked<DeletionAnswer> {
    Ok(DeletionAnswer {
        deletion: types::deletion(answer.deletion)?,
        status: check::json_object("status", &answer.status)?,
        conditions: types::conditions(answer.conditions)?,
        state: check::state(answer.state)?,
        extra: check::extra(answer.extra)?,
    })
}
