//! What has to be true of the control plane before a MachineSet makes machines (contract: upstream
//! `machineset_preflight.go`, contract 3.4).

use capstan_api::annotation;
use capstan_api::contract::ControlPlane;
use capstan_api::name::Version;

use super::observed::Observed;
use crate::lookup::Lookup;
use crate::rollout::count::annotation as annotation_of;

/// A worker may be this many minor versions behind the control plane.
const SKEW_MAX: u64 = 3;

/// The control plane is not being created or upgraded.
const CONTROL_PLANE_IS_STABLE: &str = "ControlPlaneIsStable";

/// The kubelet is not newer, and not too old, for the control plane.
const KUBERNETES_VERSION_SKEW: &str = "KubernetesVersionSkew";

/// `kubeadm join` has the control plane's minor version.
const KUBEADM_VERSION_SKEW: &str = "KubeadmVersionSkew";

/// In a Cluster of a topology, workers have the control plane's version.
const CONTROL_PLANE_VERSION_SKEW: &str = "ControlPlaneVersionSkew";

/// What is not as it must be, one sentence each; empty when machines may be made.
#[must_use]
pub fn failures(observed: &Observed) -> Vec<String> {
    let cluster = observed.cluster.found();
    let Some(reference) = cluster.and_then(|cluster| cluster.spec.control_plane_ref.as_ref())
    else {
        return Vec::new();
    };
    let skipped = skipped(observed);
    if skipped.contains(&"All") {
        return Vec::new();
    }
    let object = match &observed.control_plane {
        Lookup::Found(object) => object,
        Lookup::Missing => {
            return vec![format!(
                "{} {} does not exist",
                reference.kind, reference.name
            )];
        }
        Lookup::Unknown(why) => {
            return vec![format!(
                "{} {} cannot be read: {why}",
                reference.kind, reference.name
            )];
        }
    };
    let control_plane = ControlPlane(object);
    let Some(version) = control_plane.version() else {
        return Vec::new();
    };
    let checks: [(&str, Option<String>); 4] = [
        (
            CONTROL_PLANE_IS_STABLE,
            stable(observed, &control_plane, version, &reference.kind),
        ),
        (KUBERNETES_VERSION_SKEW, kubernetes_skew(observed, version)),
        (KUBEADM_VERSION_SKEW, kubeadm_skew(observed, version)),
        (CONTROL_PLANE_VERSION_SKEW, same_version(observed, version)),
    ];
    checks
        .into_iter()
        .filter(|(name, _)| !skipped.contains(name))
        .filter_map(|(name, failure)| {
            Some(format!("{} (\"{name}\" preflight check failed)", failure?))
        })
        .collect()
}

/// Checks that are left out: the set's annotation, else the bootstrap template's.
fn skipped(observed: &Observed) -> Vec<&str> {
    let own = annotation_of(&observed.set.metadata, annotation::SKIP_PREFLIGHT_CHECKS);
    let template = observed.bootstrap_template.as_ref().and_then(Lookup::found);
    let template = template
        .and_then(|template| template.pointer("/metadata/annotations"))
        .and_then(|annotations| annotations.get(annotation::SKIP_PREFLIGHT_CHECKS))
        .and_then(serde_json::Value::as_str);
    own.or(template)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect()
}

fn is_of_topology(observed: &Observed) -> Option<&str> {
    let topology = observed.cluster.found()?.spec.topology.as_ref()?;
    Some(&topology.version)
}

fn stable(
    observed: &Observed,
    control_plane: &ControlPlane<'_>,
    version: &str,
    kind: &str,
) -> Option<String> {
    if let Some(wanted) = is_of_topology(observed) {
        let step = control_plane.0.pointer("/metadata/annotations");
        let step = step.and_then(|annotations| annotations.get(annotation::TOPOLOGY_UPGRADE_STEP));
        if wanted != version && step.and_then(serde_json::Value::as_str) != Some(version) {
            return Some(format!("{kind} has a pending version upgrade to {wanted}"));
        }
    }
    if control_plane.is_provisioning() {
        return Some(format!("{kind} is provisioning"));
    }
    control_plane
        .is_upgrading()
        .then(|| format!("{kind} is upgrading to {version}"))
}

fn versions(observed: &Observed, control_plane: &str) -> Option<(Version, Version)> {
    let own = observed.set.spec.template.spec.version.as_deref()?;
    Some((
        Version::parse(own).ok()?,
        Version::parse(control_plane).ok()?,
    ))
}

fn kubernetes_skew(observed: &Observed, control_plane: &str) -> Option<String> {
    let (own, theirs) = versions(observed, control_plane)?;
    if own.minor > theirs.minor {
        return Some(format!(
            "MachineSet version ({own}) is higher than the control plane version ({theirs})"
        ));
    }
    let oldest = theirs.minor.saturating_sub(SKEW_MAX);
    (own.minor < oldest).then(|| {
        format!("MachineSet version ({own}) is more than {SKEW_MAX} minor versions older than the control plane version ({theirs})")
    })
}

fn kubeadm_skew(observed: &Observed, control_plane: &str) -> Option<String> {
    let config = observed
        .set
        .spec
        .template
        .spec
        .bootstrap
        .config_ref
        .as_ref()?;
    if config.kind != "KubeadmConfigTemplate" || config.api_group != "bootstrap.cluster.x-k8s.io" {
        return None;
    }
    let (own, theirs) = versions(observed, control_plane)?;
    (own.minor != theirs.minor).then(|| {
        format!("MachineSet version ({own}) and control plane version ({theirs}) have different minor versions, kubeadm cannot join")
    })
}

fn same_version(observed: &Observed, control_plane: &str) -> Option<String> {
    is_of_topology(observed)?;
    let (own, theirs) = versions(observed, control_plane)?;
    (own != theirs).then(|| {
        format!("MachineSet version ({own}) differs from the control plane version ({theirs})")
    })
}
