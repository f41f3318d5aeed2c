//! `wit/v0.1/manifest.wit`. Only shapes are checked here; whether the manifest makes sense is the same question for all versions.

use capstan_core::call::manifest::{CapabilityRequest, Column, Manifest, OwnedKind};
use futures::FutureExt;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::check::{self, Checked};
use super::exports::manifest as wit;
use super::{Outcome, Roles, ask};
use crate::call::{CallState, Stop};
use crate::limit::SUGGESTION_BYTES_MAX;
use crate::text::json_bytes;

pub(crate) fn describe<'a>(
    roles: Roles,
    store: &'a mut Store<CallState>,
    instance: &'a Instance,
) -> Outcome<'a, Manifest> {
    async move {
        let guest = roles
            .manifest
            .load(&mut *store, instance)
            .map_err(Stop::Guest)?;
        let description = ask!(store, guest.call_describe());
        Ok(manifest(description)?)
    }
    .boxed()
}

pub(super) fn manifest(description: wit::Description) -> Checked<Manifest> {
    check::list("kinds", description.kinds.len())?;
    check::list("capabilities", description.capabilities.len())?;
    check::extra(description.extra)?;
    Ok(Manifest {
        name: check::name("name", description.name)?,
        version: check::name("version", description.version)?,
        description: check::message("description", description.description)?,
        home_page: check::text("homePage", description.home_page)?,
        kinds: description
            .kinds
            .into_iter()
            .map(kind)
            .collect::<Checked<_>>()?,
        capabilities: description
            .capabilities
            .into_iter()
            .map(request)
            .collect::<Checked<_>>()?,
    })
}

fn kind(kind: wit::OwnedKind) -> Checked<OwnedKind> {
    check::list("kinds.columns", kind.columns.len())?;
    check::list("kinds.shortNames", kind.short_names.len())?;
    Ok(OwnedKind {
        role: check::name("kinds.role", kind.role)?,
        group: check::name("kinds.group", kind.group)?,
        version: check::name("kinds.version", kind.version)?,
        kind: check::name("kinds.kind", kind.kind)?,
        plural: check::name("kinds.plural", kind.plural)?,
        short_names: kind
            .short_names
            .into_iter()
            .map(|name| check::name("kinds.shortNames", name))
            .collect::<Checked<_>>()?,
        spec_schema: check::json_object("kinds.specSchema", &kind.spec_schema)?,
        status_schema: check::json_object("kinds.statusSchema", &kind.status_schema)?,
        columns: kind
            .columns
            .into_iter()
            .map(|column| {
                Ok(Column {
                    name: check::name("kinds.columns.name", column.name)?,
                    json_path: check::name("kinds.columns.jsonPath", column.json_path)?,
                    column_type: check::name("kinds.columns.type", column.column_type)?,
                    priority: column.priority,
                })
            })
            .collect::<Checked<_>>()?,
    })
}

fn request(request: wit::CapabilityRequest) -> Checked<CapabilityRequest> {
    let suggestion = check::json_object("capabilities.suggestion", &request.suggestion)?;
    // As the status shows it, which can be longer than it came.
    check::rule(json_bytes(&suggestion) <= SUGGESTION_BYTES_MAX, || {
        format!("capabilities.suggestion has more than {SUGGESTION_BYTES_MAX} bytes")
    })?;
    Ok(CapabilityRequest {
        name: check::name("capabilities.name", request.name)?,
        why: check::message("capabilities.why", request.why)?,
        optional: request.optional,
        suggestion,
    })
}
