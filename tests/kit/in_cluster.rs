//! What kubeadm keeps in a workload cluster: its configuration, and the add-ons.

use http::Method;
use serde_json::Value;

use crate::kube_client::{CONFIG_MAP, Kind, Kube};

/// Where it keeps them.
pub const SYSTEM: &str = "kube-system";

/// DaemonSet, which only workload clusters serve.
pub const DAEMON_SET: Kind = Kind {
    api_version: "apps/v1",
    plural: "daemonsets",
    namespaced: true,
};

/// The image of an add-on.
///
/// # Errors
/// When there is none. A server whose machine is about to go may refuse as well.
pub async fn image(workload: &Kube, kind: Kind, object: &str) -> Result<String, String> {
    let path = kind.path(SYSTEM, Some(object));
    let answer = workload.send(Method::GET, &path, "application/json", None);
    let object = answer.await.map_err(|refusal| refusal.to_string())?;
    let image = object["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    image
        .map(str::to_owned)
        .ok_or_else(|| format!("{path} has no image"))
}

/// kubeadm's ClusterConfiguration.
///
/// # Errors
/// When it cannot be read.
pub async fn configuration(workload: &Kube) -> Result<Value, String> {
    let map = workload.try_get(CONFIG_MAP, SYSTEM, "kubeadm-config").await;
    let map = map.map_err(|refusal| format!("kubeadm-config: {refusal}"))?;
    let map = map.ok_or("there is no kubeadm-config")?;
    let text = map["data"]["ClusterConfiguration"].as_str();
    serde_saphyr::from_str(text.unwrap_or_default()).map_err(|error| error.to_string())
}
