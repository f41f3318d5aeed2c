//! CoreDNS runs in the version that the object names, unless its Corefile would not be read any more.

use capstan_sdk::Failure;
use capstan_sdk::workload::{self, ApiResource, Patch};
use serde_json::Value;

use super::image::{self, Image};
use super::proxy::with_image;
use super::{SKIP_DNS, cluster, cluster_configuration, config_maps, corefile, in_system, text};

const NAME: &str = "coredns";
const FIELD: &str = "spec.kubeadmConfigSpec.clusterConfiguration.dns.imageTag";

/// Where kubeadm takes images from when nothing is said; CoreDNS is one level deeper there.
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";

/// Brings the Deployment's image up to date. A cluster without CoreDNS stays without it, and so do its version and repository as long
/// as the object names no other.
pub(super) fn ensure(spec: &Value) -> Result<(), Failure> {
    if spec
        .pointer("/kubeadmConfigSpec/clusterConfiguration")
        .is_none()
    {
        return Ok(());
    }
    let resource = ApiResource::new("apps", "v1", "deployments");
    let Some(deployment) = workload::find(&resource, &in_system(NAME))? else {
        return Ok(());
    };
    let given = |field: &str| {
        let given = cluster(spec, field).and_then(Value::as_str);
        given.filter(|given| !given.is_empty())
    };
    let (tag, repository) = (given("dns/imageTag"), given("dns/imageRepository"));
    let wanted = |current: Image| Image {
        repository: match (repository, given("imageRepository")) {
            (Some(own), _) => image::repository(own).to_owned(),
            (None, Some(DEFAULT_REPOSITORY)) => format!("{DEFAULT_REPOSITORY}/{NAME}"),
            (None, Some(all)) => image::repository(all).to_owned(),
            (None, None) => current.repository,
        },
        name: NAME.to_owned(),
        tag: tag.map_or(current.tag, str::to_owned),
    };
    let Some(patch) = with_image(&deployment, NAME, wanted) else {
        return Ok(());
    };
    check(&deployment, tag)?;
    cluster_configuration::ensure_dns(repository, tag)?;
    workload::patch(&resource, &in_system(NAME), &Patch::Merge(patch))?;
    Ok(())
}

/// Whether CoreDNS of this version reads the Corefile that there is.
fn check(deployment: &Value, tag: Option<&str>) -> Result<(), Failure> {
    let containers = deployment.pointer("/spec/template/spec/containers");
    let mut containers = containers.and_then(Value::as_array).into_iter().flatten();
    let own = containers.find(|one| text(one, "/name") == NAME);
    let current = own.map(|own| Image::parse(text(own, "/image")).tag);
    let current = current.unwrap_or_default();
    let Some(tag) = tag.filter(|tag| *tag != current) else {
        return Ok(());
    };
    let refused = |why: String| {
        Failure::terminal(
            "CoreDNSUpgradeRefused",
            format!(
                "{FIELD}: {why}, or take CoreDNS into your own hands with the annotation {SKIP_DNS}"
            ),
        )
    };
    let (Some(from), Some(to)) = (image::release(&current), image::release(tag)) else {
        return Err(refused(format!(
            "CoreDNS goes from {current:?} to {tag:?}, and one of them is not a version: name one such as v1.14.2"
        )));
    };
    if to < from {
        return Err(refused(format!(
            "CoreDNS does not go back from {current} to {tag}: name {current} or newer"
        )));
    }
    if (to.0, to.1) > corefile::KNOWN_UNTIL {
        let (major, minor) = corefile::KNOWN_UNTIL;
        return Err(refused(format!(
            "whether CoreDNS {tag} reads the Corefile is not known here: name one of {major}.{minor} or older"
        )));
    }
    let map = workload::get(&config_maps(), &in_system(NAME))?;
    let obstacles = corefile::obstacles(text(&map, "/data/Corefile"), from, to);
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "CoreDNS {tag} does not read the Corefile in ConfigMap kube-system/{NAME} of the workload cluster: {}: change it there",
        obstacles.join("; ")
    )))
}
