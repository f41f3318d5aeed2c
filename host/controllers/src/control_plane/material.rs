//! What there is of a cluster's certificates, keys and kubeconfig, and whether machines could be made with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::contract::SecretPurpose;
use capstan_api::name::ObjectKey;
use capstan_core::call::material::Requirement;
use capstan_core::control_plane::MaterialState;
use capstan_core::lookup::Lookup;
use capstan_core::material::{
    CERTIFICATE_KEY, PRIVATE_KEY, SECRET_TYPE, requirement_name, secret_key,
};
use capstan_core::plan::Failure;
use jiff::Timestamp;

use super::Seen;
use crate::ctx::{Ctx, failure};
use crate::etcd::identity::brought_end;
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
                let end = secret
                    .text(CERTIFICATE_KEY)
                    .and_then(pki::earliest_not_after);
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
    let brought = brought(ctx, &cluster.key, &seen.requirements).await?;
    let ends = brought.iter().filter_map(|it| it.end(&cluster.key));
    state.certificates.extend(ends);
    // That of an external etcd is among what is brought already.
    if let Some(authority) = found.get(SecretPurpose::EtcdCa.as_str()) {
        let end = brought_end(ctx, &cluster.key, authority).await;
        let end =
            end.map_err(|error| failure("reading the client certificate for etcd", &error))?;
        state.certificates.extend(end);
    }
    let faults = faults_of(
        &cluster.key,
        &seen.requirements,
        &found,
        &brought,
        ctx.now(),
    );
    // The machines of a cluster that is up have what they need; only another one would miss it.
    if seen.core.was_initialized() {
        state.lost = faults;
    } else {
        state.unusable = faults;
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
    let brought = brought(ctx, cluster, requirements).await?;
    let now = ctx.now();
    Ok(faults_of(cluster, requirements, found, &brought, now))
}

fn faults_of(
    cluster: &ObjectKey,
    requirements: &[Requirement],
    found: &ensure::Material,
    brought: &[Brought<'_>],
    now: Timestamp,
) -> Vec<String> {
    let mut faults = Vec::new();
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
    faults.extend(brought.iter().filter_map(|it| it.fault(now)));
    faults
}

/// A Secret that somebody else must provide.
struct Brought<'a> {
    key: ObjectKey,
    /// What is read of it.
    fields: Vec<&'a str>,
    secret: Option<Arc<SecretData>>,
}

impl Brought<'_> {
    /// What is not there, with the way out.
    fn lack(&self) -> Option<String> {
        let key = &self.key;
        let Some(secret) = &self.secret else {
            let fields = self.fields.join(" and ");
            return Some(format!(
                "Secret {key} does not exist: create it with {fields}"
            ));
        };
        let mut fields = self.fields.iter();
        let lacking = fields.find(|field| secret.data.get(**field).is_none_or(Vec::is_empty))?;
        Some(format!("Secret {key}: {lacking} is missing. Correct it"))
    }

    /// What is not there or cannot be used, with the way out.
    fn fault(&self, now: Timestamp) -> Option<String> {
        self.lack().or_else(|| {
            let why = unfit(self.secret.as_deref()?, &self.fields, now)?;
            Some(format!("Secret {}: {why}. Correct it", self.key))
        })
    }

    /// When the first of its certificates ends, by its purpose for the cluster.
    fn end(&self, cluster: &ObjectKey) -> Option<(String, Timestamp)> {
        let public = self.secret.as_ref()?.text(CERTIFICATE_KEY);
        let public = public.filter(|_| self.fields.contains(&CERTIFICATE_KEY))?;
        let name = self.key.name.as_str();
        let purpose = name
            .strip_prefix(&cluster.name)
            .and_then(|rest| rest.strip_prefix('-'));
        Some((
            purpose.unwrap_or(name).to_owned(),
            pki::earliest_not_after(public)?,
        ))
    }
}

/// What somebody else must provide, as it is.
async fn brought<'a>(
    ctx: &Ctx,
    cluster: &ObjectKey,
    requirements: &'a [Requirement],
) -> Result<Vec<Brought<'a>>, Failure> {
    let mut brought = Vec::new();
    for (secret, fields) in fields_of_brought(requirements) {
        let key = ObjectKey::new(cluster.namespace.clone(), secret);
        let read = ctx.secrets.get(&*ctx.api, &key).await;
        let secret = read.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
        if let Some(secret) = secret.as_ref().filter(|it| it.secret_type == SECRET_TYPE) {
            ensure::own(&key, secret, cluster)?;
        }
        brought.push(Brought {
            key,
            fields,
            secret,
        });
    }
    Ok(brought)
}

/// Secrets that somebody else must provide, each with the fields that are read of it.
fn fields_of_brought(requirements: &[Requirement]) -> BTreeMap<&str, Vec<&str>> {
    let mut brought: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for requirement in requirements {
        if let Requirement::SecretValue { secret, key, .. } = requirement {
            brought.entry(secret).or_default().push(key);
        }
    }
    brought
}

/// Why the certificates in a Secret that has all its fields cannot be used.
fn unfit(secret: &SecretData, fields: &[&str], now: Timestamp) -> Option<String> {
    let text = |field: &str| secret.text(field).unwrap_or_default();
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
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use capstan_core::material::KeyAlgorithm;
    use serde_json::{Value, json};

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
        let brought = fields_of_brought(&all);
        assert_eq!(brought["c-etcd"], ["tls.crt"]);
        assert_eq!(brought["c-client"], ["tls.crt", "tls.key"]);
    }

    fn brought_as<'a>(name: &str, fields: &[&'a str], secret: Option<Value>) -> Brought<'a> {
        Brought {
            key: ObjectKey::new("n", name),
            fields: fields.to_vec(),
            secret: secret.map(|object| Arc::new(SecretData::read(&object))),
        }
    }

    #[test]
    fn a_field_that_is_missing_is_named_before_its_content_is_judged() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let said = |fields: &[&str]| {
            let garbage = json!({"data": {"tls.crt": "Z2FyYmFnZQ=="}});
            let secret = brought_as("c-etcd", fields, Some(garbage));
            (secret.lack(), secret.fault(now).unwrap_or_default())
        };
        let (lack, fault) = said(&["tls.crt", "tls.key"]);
        assert_eq!(fault, "Secret n/c-etcd: tls.key is missing. Correct it");
        assert_eq!(lack, Some(fault));
        let (lack, fault) = said(&["tls.crt"]);
        assert_eq!(lack, None, "it is there");
        assert_eq!(
            fault,
            "Secret n/c-etcd: tls.crt has nothing in PEM. Correct it"
        );
        assert_eq!(
            said(&["endpoint"]).1,
            "Secret n/c-etcd: endpoint is missing. Correct it"
        );
    }

    #[test]
    fn a_secret_that_is_gone_is_asked_for_with_its_fields() {
        let gone = brought_as("c-client", &["tls.crt", "tls.key"], None);
        let asked = "Secret n/c-client does not exist: create it with tls.crt and tls.key";
        assert_eq!(gone.lack().as_deref(), Some(asked));
        assert_eq!(gone.end(&ObjectKey::new("n", "c")), None);
    }

    #[test]
    fn the_end_of_what_others_provide_is_seen_by_its_purpose() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pair = pki::certificate_authority("etcd", KeyAlgorithm::EcdsaP256, 0, now).unwrap();
        let secret = json!({"data": {"tls.crt": BASE64.encode(&pair.public)}});
        let listed = |name: &str, field| {
            let secret = brought_as(name, &[field], Some(secret.clone()));
            secret.end(&ObjectKey::new("n", "c"))
        };
        let end = pki::earliest_not_after(&pair.public).unwrap();
        assert_eq!(listed("c-etcd", "tls.crt"), Some(("etcd".to_owned(), end)));
        assert_eq!(listed("own", "tls.crt"), Some(("own".to_owned(), end)));
        assert_eq!(listed("c-etcd", "endpoint"), None, "nobody reads it");
    }
}
