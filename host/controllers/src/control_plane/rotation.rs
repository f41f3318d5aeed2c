//! Rotation of a cluster's authorities: what is looked at, and what is done with Secrets, cluster and record.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use capstan_api::{annotation, label};
use capstan_core::call::material::Requirement;
use capstan_core::control_plane::rotation::{
    Hold, Record, SecretSeen, Seen as Rotation, Worker, asked, given_up,
};
use capstan_core::lookup::Lookup;
use capstan_core::material::{
    self, CERTIFICATE_KEY, CLUSTER_CA, PRIVATE_KEY, SECRET_TYPE, secret_key,
};
use capstan_core::plan::Failure;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{MANAGER, Seen, holder, writer};
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, KubeApi, Patch};
use crate::object::Object;
use crate::pki;
use crate::secrets::{SecretData, ensure, kubeconfig};
use crate::workloads::Workload;

/// What the control-plane plugin says when its machines trust every certificate of an authority's file.
const SUPPORTED: &str = "trustsSeveralAuthorities";

/// Where both pairs are while a rotation is under way, beside what everybody uses.
const OLD: (&str, &str) = ("rotation-old.crt", "rotation-old.key");
const NEW: (&str, &str) = ("rotation-new.crt", "rotation-new.key");

/// Machines that join learn here whom to trust; the controller manager signs it for their tokens.
fn cluster_info() -> ObjectKey {
    ObjectKey::new("kube-public", "cluster-info")
}
const KUBECONFIG_FIELD: &str = "kubeconfig";
const AUTHORITY_FIELD: &str = "certificate-authority-data:";

/// API servers add their authorities to what they find here, and take none away.
fn aggregated() -> ObjectKey {
    ObjectKey::new("kube-system", "extension-apiserver-authentication")
}
const AGGREGATED: [(&str, &str); 2] = [
    ("client-ca-file", CLUSTER_CA),
    ("requestheader-client-ca-file", "proxy"),
];

/// Requirements that are rotated: what signs.
fn rotated(requirements: &[Requirement]) -> impl Iterator<Item = &Requirement> {
    requirements.iter().filter(|requirement| {
        matches!(
            requirement,
            Requirement::CertificateAuthority { .. } | Requirement::KeyPair { .. }
        )
    })
}

/// What a rotation may look at. Nothing more than the Secrets' annotations where nobody wants one.
pub(super) async fn look(
    ctx: &Ctx,
    seen: &Seen,
    cluster: &Object,
    workload: Option<&Workload>,
) -> Rotation {
    let mut rotation = Rotation::default();
    let found =
        match ensure::look_up(ctx, &cluster.key, &seen.requirements, ensure::Age::Recent).await {
            Ok(found) => found,
            Err(_) => return rotation,
        };
    for requirement in rotated(&seen.requirements) {
        let name = material::requirement_name(requirement);
        let key = secret_key(&cluster.key, name);
        rotation
            .secrets
            .push(secret_seen(&key, found.get(name).map(|secret| &**secret)));
    }
    let noted = cluster.annotation(annotation::CA_ROTATION);
    let record = noted.and_then(|text| serde_json::from_str::<Record>(text).ok());
    let asked = asked(&seen.core.object);
    let is_over = record
        .as_ref()
        .is_some_and(|record| !record.is_active() && asked.is_none_or(|id| id == record.id));
    let is_given_up = given_up(&rotation.secrets, record.as_ref(), asked).is_some();
    if !is_given_up && (is_over || (asked.is_none() && noted.is_none())) {
        return rotation;
    }
    let extra = seen
        .core
        .desired
        .as_ref()
        .map(|desired| desired.extra.as_slice());
    rotation.is_supported = extra
        .unwrap_or_default()
        .iter()
        .any(|(name, value)| name == SUPPORTED && *value == Value::Bool(true));
    rotation.kubeconfig_obstacle = kubeconfig_obstacle(ctx, &cluster.key, &seen.object.uid).await;
    rotation.workers = workers(ctx, cluster, workload);
    rotation.published = match (workload, found.get(CLUSTER_CA)) {
        (Some(workload), Some(ca)) => {
            is_published(&*workload.api, ca.text(CERTIFICATE_KEY).unwrap_or_default()).await
        }
        (None, Some(_)) => Lookup::Unknown("there is no connection".to_owned()),
        (_, None) => Lookup::Missing,
    };
    rotation
}

fn secret_seen(key: &ObjectKey, secret: Option<&SecretData>) -> SecretSeen {
    let obstacle = match secret {
        None => Some(format!("Secret {key} does not exist")),
        Some(secret) if secret.secret_type != SECRET_TYPE => Some(format!(
            "Secret {key} was brought (its type is {}): rotate it where it comes from",
            secret.secret_type
        )),
        Some(secret) if secret.text(PRIVATE_KEY).is_none_or(str::is_empty) => Some(format!(
            "Secret {key} has no {PRIVATE_KEY}: its authority signs elsewhere, rotate it there"
        )),
        Some(_) => None,
    };
    SecretSeen {
        name: key.name.clone(),
        hold: secret.and_then(hold_of),
        obstacle,
    }
}

fn hold_of(secret: &SecretData) -> Option<(Hold, String)> {
    Hold::parse(secret.annotation(annotation::CA_ROTATION)?)
}

async fn kubeconfig_obstacle(ctx: &Ctx, cluster: &ObjectKey, uid: &str) -> Option<String> {
    let key = secret_key(cluster, material::KUBECONFIG);
    match ctx.secrets.get(&*ctx.api, &key).await {
        Ok(Some(secret))
            if secret.secret_type == SECRET_TYPE
                && secret.controller_uid() == Some(uid)
                && !kubeconfig::is_brought(&secret) =>
        {
            None
        }
        Ok(Some(_)) => Some(format!(
            "Secret {key} is not the control plane's, so that it would not be renewed: delete it, and the host makes its own"
        )),
        Ok(None) => Some(format!("Secret {key} does not exist yet")),
        Err(error) => Some(format!("Secret {key} cannot be read: {error}")),
    }
}

/// The workers, and Nodes of no Machine: they do not trust the new authorities either before somebody joins them again.
fn workers(ctx: &Ctx, cluster: &Object, workload: Option<&Workload>) -> Vec<Worker> {
    let created = |object: &Object| {
        let text = object.text("/metadata/creationTimestamp");
        let time = text.and_then(|text| text.parse().ok());
        time.unwrap_or(Timestamp::MIN)
    };
    let machines = ctx.store(&kinds::MACHINE).of_cluster(&cluster.key);
    let of_machines: BTreeSet<&str> = machines
        .iter()
        .filter_map(|machine| machine.text("/status/nodeRef/name"))
        .collect();
    let workers = machines
        .iter()
        .filter(|machine| machine.label(label::CONTROL_PLANE).is_none());
    let workers = workers.map(|machine| Worker {
        name: machine.key.name.clone(),
        created: created(machine),
        is_deployed: machine.label(label::DEPLOYMENT_NAME).is_some(),
    });
    let nodes = workload.map(|workload| workload.nodes.all());
    let nodes = nodes.iter().flatten();
    let strangers = nodes
        .filter(|node| !of_machines.contains(node.key.name.as_str()))
        .map(|node| Worker {
            name: format!("Node {}", node.key.name),
            created: created(node),
            is_deployed: false,
        });
    workers.chain(strangers).collect()
}

/// The line of a kubeconfig with its authority: before the value, the value, after it.
fn authority_line(kubeconfig: &str) -> Option<(&str, &str, &str)> {
    let start = kubeconfig
        .find(AUTHORITY_FIELD)?
        .checked_add(AUTHORITY_FIELD.len())?;
    let (head, rest) = kubeconfig.split_at_checked(start)?;
    let end = rest.find('\n').unwrap_or(rest.len());
    let (value, tail) = rest.split_at_checked(end)?;
    Some((head, value.trim().trim_matches('"'), tail))
}

async fn is_published(api: &dyn KubeApi, authorities: &str) -> Lookup<bool> {
    match api.get(&kinds::CONFIG_MAP, &cluster_info()).await {
        Ok(map) => {
            let text = map.pointer("/data/kubeconfig").and_then(Value::as_str);
            let Some(text) = text else {
                return Lookup::Missing;
            };
            let told = authority_line(text).and_then(|(_, value, _)| pki::decode_pem(value));
            match told {
                Some(told) => Lookup::Found(told.trim() == authorities.trim()),
                None => Lookup::Unknown(format!(
                    "ConfigMap {} has no line {AUTHORITY_FIELD} with a certificate: write it as kubeadm does",
                    cluster_info()
                )),
            }
        }
        Err(ApiError::NotFound(_)) => Lookup::Missing,
        Err(error) => Lookup::Unknown(error.to_string()),
    }
}

/// Has the Secrets hold these certificates. Each is one request, and one that was done already is left alone.
pub(super) async fn hold(ctx: &Ctx, seen: &Seen, hold: Hold, id: &str) -> Result<(), Failure> {
    let (cluster, _) = holder(seen)?;
    for requirement in rotated(&seen.requirements) {
        let key = secret_key(&cluster, material::requirement_name(requirement));
        let secret = ctx.secrets.read(&*ctx.api, &key).await;
        let secret = secret.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
        let secret = secret.ok_or_else(|| {
            Failure::transient("InternalError", format!("Secret {key} went away"))
        })?;
        if hold_of(&secret).is_some_and(|(is, of)| is == hold && of == id) {
            continue;
        }
        let data = contents(ctx, &key, &secret, requirement, hold, id).await?;
        let patch = Patch::Merge(json!({
            "metadata": {
                "uid": secret.metadata.get("uid"),
                "resourceVersion": secret.metadata.get("resourceVersion"),
                "annotations": {annotation::CA_ROTATION: hold.text(id)},
            },
            "data": data,
        }));
        let answer = ctx
            .api
            .patch(&kinds::SECRET, &key, None, &patch, MANAGER)
            .await;
        ctx.secrets.forget(&key);
        let stored = answer.map_err(|error| failure(&format!("rotating Secret {key}"), &error))?;
        ctx.secrets.remember(&key, &stored);
    }
    Ok(())
}

/// What changes in a Secret's data.
async fn contents(
    ctx: &Ctx,
    key: &ObjectKey,
    secret: &SecretData,
    requirement: &Requirement,
    hold: Hold,
    id: &str,
) -> Result<Map<String, Value>, Failure> {
    let is_under_way = hold_of(secret).is_some_and(|(is, of)| is.is_both() && of == id);
    let kept = |(certificate, private): (&str, &str)| {
        Some((
            secret.data.get(certificate)?.clone(),
            secret.data.get(private)?.clone(),
        ))
    };
    let (old, new) = match (is_under_way, hold) {
        (true, _) => {
            let both = kept(OLD).zip(kept(NEW));
            both.ok_or_else(|| {
                let message = format!("Secret {key} lacks {} to {}, which a rotation keeps there: restore them from a backup", OLD.0, NEW.1);
                Failure::terminal("SecretIncomplete", message)
            })?
        }
        (false, Hold::OldSigns) => {
            let old = kept((CERTIFICATE_KEY, PRIVATE_KEY));
            let old = old.ok_or_else(|| {
                Failure::terminal("SecretIncomplete", format!("Secret {key} has no key"))
            })?;
            let made: BTreeMap<_, _> = ensure::make(ctx, key, requirement.clone())
                .await?
                .into_iter()
                .collect();
            let new = made
                .get(CERTIFICATE_KEY)
                .cloned()
                .zip(made.get(PRIVATE_KEY).cloned());
            (old, new.unwrap_or_default())
        }
        // It never came to this Secret.
        (false, Hold::Old) => return Ok(Map::new()),
        (false, _) => {
            let message = format!(
                "Secret {key} does not have the certificates of rotation {id}: restore it from a backup"
            );
            return Err(Failure::terminal("SecretIncomplete", message));
        }
    };
    let both = |first: &[u8], second: &[u8]| {
        let mut all = first.to_vec();
        if !all.ends_with(b"\n") {
            all.push(b'\n');
        }
        all.extend_from_slice(second);
        all
    };
    let (certificates, private) = match hold {
        Hold::OldSigns => (both(&old.0, &new.0), &old.1),
        Hold::NewSigns => (both(&new.0, &old.0), &new.1),
        Hold::New => (new.0.clone(), &new.1),
        Hold::Old => (old.0.clone(), &old.1),
    };
    let encoded = |bytes: &[u8]| json!(BASE64.encode(bytes));
    let mut data = Map::new();
    data.insert(CERTIFICATE_KEY.to_owned(), encoded(&certificates));
    data.insert(PRIVATE_KEY.to_owned(), encoded(private));
    for (names, pair) in [(OLD, &old), (NEW, &new)] {
        let (certificate, private) = if hold.is_both() {
            (encoded(&pair.0), encoded(&pair.1))
        } else {
            (Value::Null, Value::Null)
        };
        data.insert(names.0.to_owned(), certificate);
        data.insert(names.1.to_owned(), private);
    }
    Ok(data)
}

async fn secret_text(ctx: &Ctx, cluster: &ObjectKey, purpose: &str) -> Result<String, Failure> {
    let key = secret_key(cluster, purpose);
    let secret = ctx.secrets.get(&*ctx.api, &key).await;
    let secret = secret.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
    let text = secret.and_then(|secret| secret.text(CERTIFICATE_KEY).map(str::to_owned));
    text.ok_or_else(|| {
        Failure::transient(
            "SecretNotFound",
            format!("Secret {key} has no {CERTIFICATE_KEY}"),
        )
    })
}

/// Tells machines that join to trust what the Secret of the authority says.
pub(super) async fn publish(ctx: &Ctx, seen: &Seen) -> Result<(), Failure> {
    let (cluster, _) = holder(seen)?;
    let authorities = secret_text(ctx, &cluster, CLUSTER_CA).await?;
    let workload = ctx.workloads.connected(&cluster)?;
    let key = cluster_info();
    let doing = format!("writing ConfigMap {key} of the workload cluster");
    let map = match workload.api.get(&kinds::CONFIG_MAP, &key).await {
        Ok(map) => map,
        Err(ApiError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(failure(&doing, &error)),
    };
    let text = map
        .pointer("/data/kubeconfig")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some((head, _, tail)) = authority_line(text) else {
        return Ok(());
    };
    let kubeconfig = format!("{head} {}{tail}", BASE64.encode(&authorities));
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": map.pointer("/metadata/resourceVersion")},
        "data": {KUBECONFIG_FIELD: kubeconfig},
    }));
    let written = workload
        .api
        .patch(&kinds::CONFIG_MAP, &key, None, &patch, MANAGER)
        .await;
    written.map(drop).map_err(|error| failure(&doing, &error))
}

/// Notes how far the rotation is. What API servers keep of the old authorities goes first, once they are gone from everywhere else.
pub(super) async fn record(ctx: &Ctx, seen: &Seen, record: &Record) -> Result<(), Failure> {
    let (cluster, _) = holder(seen)?;
    if !record.is_active() {
        forget_predecessors(ctx, &cluster).await?;
    }
    let uid = seen.cluster.as_ref().map(|cluster| cluster.uid.clone());
    let patch = Patch::Merge(json!({"metadata": {
        "uid": uid,
        "annotations": {annotation::CA_ROTATION: record.text()},
    }}));
    let written = ctx
        .patch(&writer(), &kinds::CLUSTER, &cluster, &patch)
        .await;
    let doing = format!("noting the rotation on Cluster {cluster}");
    written.map(drop).map_err(|error| failure(&doing, &error))
}

/// A record, for people.
pub(super) fn said(record: &Record) -> String {
    let way = if record.undo { ", taken back" } else { "" };
    let workers = if record.workers.is_some() {
        ", workers"
    } else {
        ""
    };
    format!(
        "rotation {}{way}: {}{workers}",
        record.id,
        record.stage.name()
    )
}

async fn forget_predecessors(ctx: &Ctx, cluster: &ObjectKey) -> Result<(), Failure> {
    let workload = ctx.workloads.connected(cluster)?;
    let key = aggregated();
    let doing = format!("writing ConfigMap {key} of the workload cluster");
    let map = match workload.api.get(&kinds::CONFIG_MAP, &key).await {
        Ok(map) => map,
        Err(ApiError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(failure(&doing, &error)),
    };
    let mut data = Map::new();
    for (field, purpose) in AGGREGATED {
        let kept = map
            .pointer(&format!("/data/{field}"))
            .and_then(Value::as_str);
        let Some(kept) = kept else { continue };
        let current = secret_text(ctx, cluster, purpose).await?;
        if let Some(left) = pki::without_predecessors(kept, &current) {
            data.insert(field.to_owned(), json!(left));
        }
    }
    if data.is_empty() {
        return Ok(());
    }
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": map.pointer("/metadata/resourceVersion")},
        "data": data,
    }));
    let written = workload
        .api
        .patch(&kinds::CONFIG_MAP, &key, None, &patch, MANAGER)
        .await;
    written.map(drop).map_err(|error| failure(&doing, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_a_kubeconfig_is_found_and_nothing_else_is_touched() {
        let text = "clusters:\n- cluster:\n    certificate-authority-data: QUJD\n    server: https://a:6443\n";
        let (head, value, tail) = authority_line(text).unwrap();
        assert_eq!(value, "QUJD");
        assert_eq!(format!("{head} {value}{tail}"), text);
        assert_eq!(authority_line("clusters: []\n"), None);
    }
}
