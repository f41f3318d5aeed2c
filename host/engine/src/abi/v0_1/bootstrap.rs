//! `wit/v0.1/bootstrap.wit`.

use std::time::Duration;

use capstan_core::call::SecretHandle;
use capstan_core::call::bootstrap::{BootstrapAnswer, BootstrapInput, Part, Role, SecretEncoding};
use capstan_core::call::material::{Material, Requirement};
use futures::FutureExt;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::check::{self, Checked};
use super::exports::bootstrap as wit;
use super::{Outcome, Roles, ask, imports, lowered, material, role, types};
use crate::call::{CallState, Stop};
use crate::error::CallError;
use crate::limit::LIST_ENTRIES_MAX;
use crate::secret::SecretTable;

const INTERFACE: &str = "bootstrap";

/// Formats that the contract knows.
const FORMATS: [&str; 2] = ["cloud-config", "ignition"];

/// Deepest indentation of a secret.
const INDENT_MAX: u32 = 64;

pub(super) fn role_of(role: Role) -> imports::types::Role {
    match role {
        Role::Init => imports::types::Role::Init,
        Role::JoinControlPlane => imports::types::Role::JoinControlPlane,
        Role::JoinWorker => imports::types::Role::JoinWorker,
    }
}

pub(super) fn guest(
    roles: &Roles,
    store: &mut Store<CallState>,
    instance: &Instance,
) -> Result<wit::Guest, Stop> {
    role(roles.bootstrap.as_ref(), INTERFACE)?
        .load(store, instance)
        .map_err(Stop::Guest)
}

fn bootstrap_input(
    input: &BootstrapInput,
    wall: Duration,
) -> Result<wit::BootstrapInput, CallError> {
    Ok(wit::BootstrapInput {
        context: types::context(&input.context, wall)?,
        cluster: check::json_text("the Cluster", &input.cluster)?,
        machine: check::json_text("the Machine", &input.machine)?,
        config: check::json_text("the bootstrap config", &input.config)?,
        role: role_of(input.role),
        control_plane_endpoint: types::endpoint(input.control_plane_endpoint.as_ref()),
        kubernetes_version: input.kubernetes_version.clone(),
        control_plane_version: input.control_plane_version.clone(),
        extra: types::extra(&input.extra)?,
    })
}

pub(crate) fn requirements<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: BootstrapInput,
) -> Outcome<'a, Vec<Requirement>> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| bootstrap_input(input, wall))?;
        let answer = ask!(store, guest.call_requirements("input": input));
        Ok(material::requirements(answer.map_err(types::failure)?)?)
    }
    .boxed()
}

pub(crate) fn render<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
    wall: Duration,
    input: BootstrapInput,
    given: Vec<Material>,
) -> Outcome<'a, BootstrapAnswer> {
    async move {
        let guest = guest(&roles, store, instance)?;
        let input = lowered(input, |input| bootstrap_input(input, wall))?;
        let given = material::given(given);
        let answer = ask!(store, guest.call_render("input": input, "material": given));
        let secrets = &store.data().capabilities.secrets;
        Ok(bootstrap_answer(answer.map_err(types::failure)?, secrets)?)
    }
    .boxed()
}

pub(super) fn bootstrap_answer(
    answer: wit::BootstrapAnswer,
    secrets: &SecretTable,
) -> Checked<BootstrapAnswer> {
    check::rule(FORMATS.contains(&answer.format.as_str()), || {
        format!(
            "format {} is neither cloud-config nor ignition",
            check::shown(&answer.format)
        )
    })?;
    let parts_max = LIST_ENTRIES_MAX.saturating_mul(4);
    check::rule(answer.parts.len() <= parts_max, || {
        format!("parts has more than {parts_max} entries")
    })?;
    // How much it becomes is decided where it is joined, and whose fault that is: its texts are bounded like every answer.
    let parts = answer.parts.into_iter();
    let parts = parts
        .map(|part| checked_part(part, secrets))
        .collect::<Checked<_>>()?;
    Ok(BootstrapAnswer {
        parts,
        format: answer.format,
        conditions: types::conditions(answer.conditions)?,
        extra: check::extra(answer.extra)?,
    })
}

fn checked_part(part: wit::Part, secrets: &SecretTable) -> Checked<Part> {
    let secret = match part {
        wit::Part::Text(text) => return Ok(Part::Text(text)),
        wit::Part::Secret(secret) => secret,
    };
    let handle = SecretHandle(secret.secret);
    check::rule(secrets.given(handle).is_some(), || {
        format!(
            "parts has the handle {}, which is no secret of this call's input",
            handle.0
        )
    })?;
    let encoding = match secret.encoding {
        wit::SecretEncoding::Plain => SecretEncoding::Plain,
        wit::SecretEncoding::Base64 => SecretEncoding::Base64,
        wit::SecretEncoding::JsonString => SecretEncoding::JsonString,
        wit::SecretEncoding::Percent => SecretEncoding::Percent,
        wit::SecretEncoding::Indent(spaces) => {
            check::rule(spaces <= INDENT_MAX, || {
                format!("parts has an indentation of {spaces}, more than {INDENT_MAX}")
            })?;
            SecretEncoding::Indent(spaces)
        }
    };
    Ok(Part::Secret(handle, encoding))
}
