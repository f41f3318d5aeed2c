//! Until when the certificate of a machine's API server is valid: read once, from the server itself, through a port-forward.

use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::{annotation, reason};
use capstan_core::call::control_plane::Components;
use capstan_core::control_plane::Member;
use capstan_core::lookup::Lookup;
use capstan_core::material::{CERTIFICATE_KEY, CLUSTER_CA, secret_key};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::Seen;
use crate::ctx::Ctx;
use crate::etcd::identity::client_config;
use crate::kube_api::shown;
use crate::pki;
use crate::workloads::Workload;

/// What the certificate at an endpoint is listed as.
pub(crate) const API_SERVER: &str = "apiserver";

/// The port of API servers unless the bootstrap config says another.
const API_PORT: u16 = 6443;

/// How long it may take; it is tried again with the next look.
const TIMEOUT: Duration = Duration::from_secs(10);

/// When the certificate ends, where nobody has noted it yet and the API server's pod runs.
pub(super) async fn of(
    ctx: &Ctx,
    cluster: &ObjectKey,
    member: &Member,
    components: &Components,
    workload: &Workload,
) -> Lookup<Timestamp> {
    let Some(config) = member.config.found() else {
        return Lookup::Missing;
    };
    let is_noted = config
        .pointer("/metadata/annotations")
        .is_some_and(|all| all.get(annotation::CERTIFICATES_EXPIRY).is_some());
    let type_ = reason::condition_type::API_SERVER_POD_HEALTHY;
    let runs = member
        .components
        .iter()
        .any(|component| component.condition_type == type_ && component.is_ready());
    let pod = components
        .components
        .iter()
        .find(|component| component.condition_type == type_);
    let (Some(pod), false, true, false) = (pod, is_noted, runs, member.is_deleting()) else {
        return Lookup::Missing;
    };
    let pod = ObjectKey::new(pod.pod_namespace.clone(), pod.pod_name.clone());
    let read = tokio::time::timeout(TIMEOUT, read(ctx, cluster, &pod, port(config), workload));
    match read.await {
        Ok(Ok(expiry)) => Lookup::Found(expiry),
        Ok(Err(why)) => Lookup::Unknown(why),
        Err(_) => Lookup::Unknown(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// When the certificate ends that is shown at the endpoint, for a control plane whose machines have no API server that can be asked by
/// itself. Without a connection it is what was seen before.
pub(super) async fn of_endpoint(
    ctx: &Ctx,
    seen: &Seen,
    workload: Option<&Workload>,
) -> Option<Timestamp> {
    let type_ = reason::condition_type::API_SERVER_POD_HEALTHY;
    let is_unseen = |member: &Member| {
        let mut components = member.components.iter();
        member.outdated.is_ok() && components.all(|component| component.condition_type != type_)
    };
    let members = &seen.core.members;
    if members.is_empty() || !members.iter().all(is_unseen) || !seen.core.is_initialized() {
        return None;
    }
    match workload {
        Some(workload) => workload.certificate_end(ctx.now()).await,
        None => {
            let listed = seen.object.value.pointer("/status/certificates")?;
            let mut listed = listed.as_array()?.iter();
            let entry =
                listed.find(|entry| entry.get("name").is_some_and(|name| name == API_SERVER))?;
            entry.get("expirationDate")?.as_str()?.parse().ok()
        }
    }
}

/// The port that the bootstrap config gives the API server.
fn port(config: &Value) -> u16 {
    let places = [
        "/spec/initConfiguration/localAPIEndpoint/bindPort",
        "/spec/joinConfiguration/controlPlane/localAPIEndpoint/bindPort",
    ];
    let given = places
        .iter()
        .find_map(|place| config.pointer(place).and_then(Value::as_u64));
    given
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(API_PORT)
}

async fn read(
    ctx: &Ctx,
    cluster: &ObjectKey,
    pod: &ObjectKey,
    port: u16,
    workload: &Workload,
) -> Result<Timestamp, String> {
    let key = secret_key(cluster, CLUSTER_CA);
    let secret = ctx.secrets.get(&*ctx.api, &key).await;
    let secret = secret.map_err(|error| error.to_string())?;
    let secret = secret.ok_or_else(|| format!("Secret {key} does not exist"))?;
    let ca = secret.text(CERTIFICATE_KEY).unwrap_or_default();
    let tls = client_config(ca, None, &[]).map_err(|error| error.to_string())?;
    let stream = workload.api.port_forward(pod, port).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("kubernetes").map_err(|error| error.to_string())?;
    let shown = shown::certificate(tls, name, stream).await?;
    pki::not_after(&shown).map_err(|error| error.to_string())
}
