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
use tokio_rustls::TlsConnector;

use crate::ctx::Ctx;
use crate::etcd::identity::client_config;
use crate::pki;
use crate::workloads::Workload;

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
    let stream = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    let first = chain.first().ok_or("the server showed no certificate")?;
    pki::not_after(first).map_err(|error| error.to_string())
}
