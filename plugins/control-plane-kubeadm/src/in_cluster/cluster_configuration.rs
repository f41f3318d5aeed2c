//! The `ClusterConfiguration` in the map `kube-system/kubeadm-config`: machines that join take version, arguments and images from it.

use capstan_sdk::workload::{self, Patch};
use capstan_sdk::{Failure, yaml};
use serde_json::{Map, Value, json};

use super::{cluster, config_maps, guarded, in_system, text};
use crate::machine_config::{LOCAL_MODE_GATE, local_mode_gate};

const MAP: &str = "kubeadm-config";
const KEY: &str = "ClusterConfiguration";

const OLDER: &str = "kubeadm.k8s.io/v1beta3";
const NEWER: &str = "kubeadm.k8s.io/v1beta4";
/// The first version whose kubeadm reads [`NEWER`].
const NEWER_SINCE: (u64, u64) = (1, 31);

/// How long kubeadm waits for the control plane: a field of the API server in [`OLDER`] only.
const OLDER_TIMEOUT: &str = "timeoutForControlPlane";

/// What has arguments besides etcd.
const COMPONENTS: [&str; 3] = ["apiServer", "controllerManager", "scheduler"];

/// Brings the map up to date for machines of this version.
pub(super) fn ensure(spec: &Value, version: (u64, u64)) -> Result<(), Failure> {
    edit(|current| updated(current, spec, version))
}

/// Writes the image of the cluster's DNS into the map, so that a later kubeadm does not bring another.
pub(super) fn ensure_dns(repository: Option<&str>, tag: Option<&str>) -> Result<(), Failure> {
    edit(|current| {
        let mut fields = current.clone();
        let dns = fields.entry("dns").or_insert_with(|| json!({}));
        if !dns.is_object() {
            *dns = json!({});
        }
        if let Some(dns) = dns.as_object_mut() {
            for (name, value) in [("imageRepository", repository), ("imageTag", tag)] {
                if let Some(value) = value {
                    dns.insert(name.to_owned(), json!(value));
                }
            }
        }
        Ok(fields)
    })
}

type Fields = Map<String, Value>;

/// Reads the document, and writes it when the change makes another of it.
fn edit(change: impl FnOnce(&Fields) -> Result<Fields, Failure>) -> Result<(), Failure> {
    let map = workload::get(&config_maps(), &in_system(MAP))?;
    let document = text(&map, &format!("/data/{KEY}"));
    let current = match yaml::read(document).map_err(|why| invalid(&why))? {
        Value::Object(fields) => fields,
        _ => return Err(invalid("it is empty")),
    };
    let new = change(&current)?;
    if new == current {
        return Ok(());
    }
    let document = yaml::write(Value::Object(new));
    let patch = guarded(&map, json!({"data": {KEY: document}}));
    workload::patch(&config_maps(), &in_system(MAP), &Patch::Merge(patch))?;
    Ok(())
}

fn invalid(why: &str) -> Failure {
    Failure::terminal(
        "ClusterConfigurationInvalid",
        format!(
            "{KEY} in ConfigMap kube-system/{MAP} of the workload cluster: {why}: write it as kubeadm config print shows one"
        ),
    )
}

/// The document as it should be for this version; `spec` is that of the KubeadmControlPlane. What belongs to the cluster (its name,
/// endpoint, networks, directories) stays, and so does what the object says nothing about and kubeadm has chosen. An object without a
/// `clusterConfiguration`, such as one that took a cluster over, says nothing about any of it (upstream
/// `controlplane/kubeadm/internal/controllers/update.go`).
pub(super) fn updated(
    current: &Fields,
    spec: &Value,
    version: (u64, u64),
) -> Result<Fields, Failure> {
    let is_newer = version >= NEWER_SINCE;
    let mut fields = current.clone();
    let was_newer = match current.get("apiVersion").and_then(Value::as_str) {
        Some(OLDER) => false,
        Some(NEWER) => true,
        other => {
            return Err(invalid(&format!(
                "its apiVersion is {}, neither {OLDER} nor {NEWER}",
                other.unwrap_or("not there")
            )));
        }
    };
    if was_newer && !is_newer {
        return Err(Failure::terminal(
            "DowngradeImpossible",
            format!(
                "spec.version: kubeadm of Kubernetes {}.{} does not read the cluster's configuration, which is {NEWER}: choose 1.31 or newer",
                version.0, version.1
            ),
        ));
    }
    let api_version = if is_newer { NEWER } else { OLDER };
    fields.insert("apiVersion".to_owned(), json!(api_version));
    fields.insert(
        "kubernetesVersion".to_owned(),
        json!(text(spec, "/version")),
    );
    if is_newer && !was_newer {
        renew(&mut fields);
    }
    if !has_cluster_configuration(spec) {
        own_gate(&mut fields, spec);
        return Ok(fields);
    }
    if let Some(repository) = cluster(spec, "imageRepository") {
        fields.insert("imageRepository".to_owned(), repository.clone());
    }
    for name in COMPONENTS {
        let mut wanted = component(cluster(spec, name), is_newer, name)?;
        let kept = current.get(name).and_then(|c| c.get(OLDER_TIMEOUT));
        if let (Some(kept), false) = (kept, is_newer) {
            wanted.insert(OLDER_TIMEOUT.to_owned(), kept.clone());
        }
        fields.insert(name.to_owned(), Value::Object(wanted));
    }
    etcd(&mut fields, spec, is_newer)?;
    gates(&mut fields, spec);
    if is_newer {
        newer_only(&mut fields, spec);
    }
    Ok(fields)
}

fn has_cluster_configuration(spec: &Value) -> bool {
    let configuration = spec.pointer("/kubeadmConfigSpec/clusterConfiguration");
    configuration
        .and_then(Value::as_object)
        .is_some_and(|fields| !fields.is_empty())
}

/// What the map itself has, from [`OLDER`] to [`NEWER`]: arguments become lists, and how long kubeadm waits is no longer the API server's.
fn renew(fields: &mut Fields) {
    let mut components: Vec<&mut Fields> = Vec::new();
    for (name, value) in fields.iter_mut() {
        if COMPONENTS.contains(&name.as_str()) {
            components.extend(value.as_object_mut());
        } else if name == "etcd" {
            let local = value.get_mut("local").and_then(Value::as_object_mut);
            components.extend(local);
        }
    }
    for component in components {
        component.remove(OLDER_TIMEOUT);
        if let Some(arguments) = component.get_mut("extraArgs")
            && let Some(by_name) = arguments.as_object()
        {
            let list = by_name
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}));
            *arguments = list.collect();
        }
    }
}

/// The gate that machines get from us, beside those that the map has: kubeadm of a version that does not know it would refuse the map.
fn own_gate(fields: &mut Fields, spec: &Value) {
    let mut gates = match fields.remove("featureGates") {
        Some(Value::Object(gates)) => gates,
        _ => Fields::new(),
    };
    match local_mode_gate(spec) {
        Some((gate, value)) => {
            gates.entry(gate).or_insert(value);
        }
        None => {
            gates.remove(LOCAL_MODE_GATE);
        }
    }
    if !gates.is_empty() {
        fields.insert("featureGates".to_owned(), Value::Object(gates));
    }
}

/// A component's settings as kubeadm of that version reads them.
fn component(wanted: Option<&Value>, is_newer: bool, name: &str) -> Result<Fields, Failure> {
    let mut fields = wanted
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    if is_newer {
        return Ok(fields);
    }
    if fields.contains_key("extraEnvs") {
        return Err(Failure::terminal(
            "FieldNeedsNewerVersion",
            format!(
                "spec.kubeadmConfigSpec.clusterConfiguration.{name}.extraEnvs needs Kubernetes 1.31 or newer: remove it or raise the version"
            ),
        ));
    }
    if let Some(arguments) = fields.get_mut("extraArgs") {
        let by_name = arguments
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| {
                let value = one.get("value").cloned().unwrap_or_else(|| json!(""));
                Some((one.get("name")?.as_str()?.to_owned(), value))
            });
        *arguments = Value::Object(by_name.collect());
    }
    Ok(fields)
}

/// Etcd as the object says; beside the API servers it keeps its directory. Where it runs is what the cluster is: that of an object that says
/// otherwise, or nothing, stays.
fn etcd(fields: &mut Fields, spec: &Value, is_newer: bool) -> Result<(), Failure> {
    let has = |place: &str| {
        let etcd = fields.get("etcd").and_then(|etcd| etcd.get(place));
        etcd.is_some_and(|etcd| !etcd.is_null())
    };
    let wanted = match cluster(spec, "etcd/external") {
        Some(_) if has("local") => return Ok(()),
        Some(external) => json!({"external": external}),
        None if has("external") => return Ok(()),
        None => {
            let mut local = component(cluster(spec, "etcd/local"), is_newer, "etcd.local")?;
            let directory = fields
                .get("etcd")
                .and_then(|etcd| etcd.pointer("/local/dataDir"))
                .cloned()
                .unwrap_or_else(|| json!("/var/lib/etcd"));
            local.entry("dataDir").or_insert(directory);
            json!({"local": local})
        }
    };
    fields.insert("etcd".to_owned(), wanted);
    Ok(())
}

fn gates(fields: &mut Fields, spec: &Value) {
    let wanted = cluster(spec, "featureGates").and_then(Value::as_object);
    let mut wanted = wanted.cloned().unwrap_or_default();
    if let Some((gate, value)) = local_mode_gate(spec) {
        wanted.entry(gate).or_insert(value);
    }
    if wanted.is_empty() {
        fields.remove("featureGates");
    } else {
        fields.insert("featureGates".to_owned(), Value::Object(wanted));
    }
}

/// Fields that kubeadm has since [`NEWER`].
fn newer_only(fields: &mut Fields, spec: &Value) {
    let days = |field: &str| {
        let days = cluster(spec, field).and_then(Value::as_u64)?;
        Some(json!(format!("{}h0m0s", days.saturating_mul(24))))
    };
    // What is taken back is gone, so that kubeadm of the next machine takes its own default. How long the authority was meant to last is what
    // the cluster is: no machine makes another one.
    let settings = [
        (
            "certificateValidityPeriod",
            days("certificateValidityPeriodDays"),
        ),
        (
            "encryptionAlgorithm",
            cluster(spec, "encryptionAlgorithm").cloned(),
        ),
    ];
    for (name, value) in settings {
        match value {
            Some(value) => {
                fields.insert(name.to_owned(), value);
            }
            None => {
                fields.remove(name);
            }
        }
    }
    if let Some(authority) = days("caCertificateValidityPeriodDays") {
        fields.insert("caCertificateValidityPeriod".to_owned(), authority);
    }
}
