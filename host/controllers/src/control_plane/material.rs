//! What there is of a cluster's certificates, keys and kubeconfig, and whether machines could be made with it.

use std::collections::BTreeMap;

use capstan_api::name::ObjectKey;
use capstan_core::call::material::Requirement;
use capstan_core::control_plane::MaterialState;
use capstan_core::lookup::Lookup;
use capstan_core::material::{
    CERTIFICATE_KEY, PRIVATE_KEY, SECRET_TYPE, requirement_name, secret_key,
};
use capstan_core::plan::Failure;

use super::Seen;
use crate::ctx::{Ctx, failure};
use crate::object::Object;
use crate::pki::{self, Shape};
use crate::secrets::SecretData;
use crate::secrets::ensure;
use crate::secrets::kubeconfig::{self, KubeconfigState, OfOthers};

/// What there is. `Missing` while the cluster's infrastructure is.
pub(super) async fn state(ctx: &Ctx, seen: &Seen, cluster: &Object) -> Lookup<MaterialState> {
    let provisioned = seen
        .core
        .cluster
        .found()
        .is_some_and(capstan_core::control_plane::decide::is_provisioned);
    if !provisioned || seen.core.is_deleting() || seen.core.desired.is_err() {
        return Lookup::Missing;
    }
    match look(ctx, seen, cluster).await {
        Ok(state) => Lookup::Found(state),
        Err(failure) => Lookup::Unknown(failure.message),
    }
}

async fn look(ctx: &Ctx, seen: &Seen, cluster: &Object) -> Result<MaterialState, Failure> {
    let age = ensure::Age::Recent;
    let found = ensure::look_up(ctx, &cluster.key, &seen.requirements, age).await?;
    let mut state = MaterialState::default();
    for requirement in &seen.requirements {
        let is_kept = !matches!(
            requirement,
            Requirement::JoinToken { .. } | Requirement::SecretValue { .. }
        );
        let name = requirement_name(requirement);
        let key = secret_key(&cluster.key, name);
        match found.get(name) {
            Some(secret) => {
                let end = secret.text(CERTIFICATE_KEY).and_then(pki::first_not_after);
                state
                    .certificates
                    .extend(end.map(|end| (name.to_owned(), end)));
                let is_ours = secret.secret_type == SECRET_TYPE;
                if is_ours && secret.controller_uid() != Some(seen.object.uid.as_str()) {
                    state.unowned.push(key.name);
                }
            }
            None if is_kept => state.missing.push(key.name),
            None => {}
        }
    }
    // Of a cluster that is up, the machines have shown what its certificates are worth.
    if !seen.core.was_initialized() {
        state.unusable = faults(ctx, &cluster.key, &seen.requirements, &found).await?;
    }
    let of_others = OfOthers::IsTaken;
    let kubeconfig = kubeconfig::state(ctx, &cluster.key, &seen.object.uid, of_others).await?;
    state.kubeconfig_due = kubeconfig != KubeconfigState::Good;
    let end = kubeconfig::end(ctx, &cluster.key).await?;
    state
        .certificates
        .extend(end.map(|end| ("kubeconfig".to_owned(), end)));
    if !seen.core.foreign.is_empty() {
        state.other_authority = kubeconfig::other_authority(ctx, &cluster.key).await?;
    }
    Ok(state)
}

/// What of the material cannot be used, by the name of its Secret, with the way out.
pub(crate) async fn faults(
    ctx: &Ctx,
    cluster: &ObjectKey,
    requirements: &[Requirement],
    found: &ensure::Material,
) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    let now = ctx.now();
    for requirement in requirements {
        let name = requirement_name(requirement);
        let shape = match requirement {
            Requirement::CertificateAuthority { .. } => Shape::Authority,
            Requirement::KeyPair { .. } => Shape::KeyPair,
            _ => continue,
        };
        let Some(secret) = found.get(name) else {
            continue;
        };
        let text = |field: &str| secret.text(field).unwrap_or_default();
        let why = pki::check_pair(shape, text(CERTIFICATE_KEY), text(PRIVATE_KEY), now);
        faults.extend(why.map(|why| {
            let key = secret_key(cluster, name);
            format!(
                "Secret {key}: {why}. Correct it; while the cluster has no machine, another one is made when it is deleted"
            )
        }));
    }
    for (secret, fields) in brought(requirements) {
        let key = ObjectKey::new(cluster.namespace.clone(), secret);
        let read = ctx.secrets.get(&*ctx.api, &key).await;
        let read = read.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
        let Some(secret) = read else {
            let fields = fields.join(" and ");
            faults.push(format!(
                "Secret {key} does not exist: create it with {fields}"
            ));
            continue;
        };
        if secret.secret_type == SECRET_TYPE {
            ensure::own(&key, &secret, cluster)?;
        }
        let why = unfit(&secret, &fields, now);
        faults.extend(why.map(|why| format!("Secret {key}: {why}. Correct it")));
    }
    Ok(faults)
}

/// Secrets that somebody else must provide, each with the fields that are read of it.
fn brought(requirements: &[Requirement]) -> BTreeMap<&str, Vec<&str>> {
    let mut brought: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for requirement in requirements {
        if let Requirement::SecretValue { secret, key, .. } = requirement {
            brought.entry(secret).or_default().push(key);
        }
    }
    brought
}

fn unfit(secret: &SecretData, fields: &[&str], now: jiff::Timestamp) -> Option<String> {
    let text = |field: &str| secret.text(field).unwrap_or_default();
    if let Some(lacking) = fields
        .iter()
        .find(|field| secret.data.get(**field).is_none_or(Vec::is_empty))
    {
        return Some(format!("{lacking} is missing"));
    }
    let public = text(CERTIFICATE_KEY);
    match (
        fields.contains(&CERTIFICATE_KEY),
        fields.contains(&PRIVATE_KEY),
    ) {
        (true, true) => pki::check_pair(Shape::Certificate, public, text(PRIVATE_KEY), now),
        (true, false) => pki::check_pair(Shape::Authority, public, "", now),
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(name: &str, secret: &str, key: &str) -> Requirement {
        Requirement::SecretValue {
            name: name.to_owned(),
            secret: secret.to_owned(),
            key: key.to_owned(),
            template: Vec::new(),
        }
    }

    #[test]
    fn what_others_provide_is_asked_for_by_secret() {
        let all = [
            value("a", "c-etcd", "tls.crt"),
            value("b", "c-client", "tls.crt"),
            value("c", "c-client", "tls.key"),
        ];
        let brought = brought(&all);
        assert_eq!(brought["c-etcd"], ["tls.crt"]);
        assert_eq!(brought["c-client"], ["tls.crt", "tls.key"]);
    }

    #[test]
    fn a_field_that_is_missing_is_named_before_its_content_is_judged() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let secret = SecretData::read(&json!({"data": {"tls.crt": "Z2FyYmFnZQ=="}}));
        let said = |fields: &[&str]| unfit(&secret, fields, now).unwrap_or_default();
        assert_eq!(said(&["tls.crt", "tls.key"]), "tls.key is missing");
        assert_eq!(said(&["tls.crt"]), "tls.crt has nothing in PEM");
        assert_eq!(said(&["endpoint"]), "endpoint is missing");
    }
}
