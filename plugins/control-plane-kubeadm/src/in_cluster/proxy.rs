//! kube-proxy runs in the version of the control plane.

use capstan_sdk::Failure;
use capstan_sdk::workload::{self, ApiResource, Patch};
use serde_json::{Value, json};

use super::image::{self, Image};
use super::{cluster, guarded, in_system, text};

const NAME: &str = "kube-proxy";

/// Brings the DaemonSet's image up to date. A cluster without kube-proxy stays without it.
pub(super) fn ensure(spec: &Value) -> Result<(), Failure> {
    let resource = ApiResource::new("apps", "v1", "daemonsets");
    let Some(set) = workload::find(&resource, &in_system(NAME))? else {
        return Ok(());
    };
    let Some(patch) = with_image(&set, NAME, |current| {
        let given = cluster(spec, "imageRepository").and_then(Value::as_str);
        let given = given.filter(|given| !given.is_empty());
        Image {
            repository: given.map_or(current.repository, |given| {
                image::repository(given).to_owned()
            }),
            name: NAME.to_owned(),
            tag: image::tag(text(spec, "/version")),
        }
    }) else {
        return Ok(());
    };
    workload::patch(&resource, &in_system(NAME), &Patch::Merge(patch))?;
    Ok(())
}

/// The patch that gives a container of a workload another image; nothing when it has that image, or there is no such container.
pub(super) fn with_image(
    object: &Value,
    container: &str,
    change: impl Fn(Image) -> Image,
) -> Option<Value> {
    let all = object.pointer("/spec/template/spec/containers")?;
    let mut containers = all.clone();
    for one in containers.as_array_mut().into_iter().flatten() {
        if one.get("name").and_then(Value::as_str) == Some(container) {
            let new = change(Image::parse(text(one, "/image"))).to_string();
            if let Some(fields) = one.as_object_mut() {
                fields.insert("image".to_owned(), json!(new));
            }
        }
    }
    if containers == *all {
        return None;
    }
    // A merge patch has lists whole: `guarded` has it refused when somebody changed them meanwhile.
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    Some(guarded(object, patch))
}
