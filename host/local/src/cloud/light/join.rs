//! `kubeadm join` on a light machine: discovery that trusts nothing but the pin and the token, a certificate by request, then a Node.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::boot::{Boot, authority};
use super::client::{Client, Reply};
use super::cluster::Cluster;
use super::kubeadm::{Discovery, KubeadmConfig, NodeRegistration};
use super::object::{self, text_at};
use super::trust::{self, KubeletTrust};
use super::{init, kubelets, pki, token};

const JSON: &str = "application/json";
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const BETWEEN_TRIES: Duration = Duration::from_millis(150);

/// Joins the cluster that the configuration names. The answer is a sentence for the console.
pub(crate) async fn join(
    boot: &Boot<'_>,
    path: &str,
    config: &KubeadmConfig,
) -> Result<String, String> {
    if config.join.is_null() {
        return Err(format!("{path} has no JoinConfiguration"));
    }
    let discovery = Discovery::read(&config.join)?;
    let node = NodeRegistration::read(&config.join, &boot.machine.facts.hostname);
    let deadline = boot.deadline();
    boot.console.line(format!(
        "kubeadm: discovering the cluster at https://{}",
        discovery.endpoint
    ));
    let (ca, mut endpoint) = discover(boot, &discovery, deadline).await?;
    // k3s stays with the address that it was told.
    if config.join.pointer("/discovery/keepEndpoint").is_some() {
        endpoint.clone_from(&discovery.endpoint);
    }
    let bearer = format!("{}.{}", discovery.token_id, discovery.token_secret);
    let with_token =
        Client::trusting(&endpoint, &ca, Some(bearer), None).map_err(|error| error.to_string())?;
    let configuration = until(
        boot,
        deadline,
        "reading the kubeadm-config ConfigMap",
        || with_token.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config"),
    )
    .await?;
    check_same_name(&with_token, &node.name).await?;
    let control_plane = config
        .join
        .get("controlPlane")
        .filter(|value| !value.is_null());
    if control_plane.is_some() {
        return join_control_plane(boot, config, &configuration, &node, ca).await;
    }
    let certificate = request_certificate(boot, &with_token, &node.name, deadline).await?;
    boot.console
        .line("kubelet: has a client certificate, performing the TLS bootstrap's second half");
    let chain = certificate.0.clone();
    let as_node = Client::trusting(&endpoint, &ca, None, Some(certificate))
        .map_err(|error| error.to_string())?;
    let cluster = local_cluster(boot, &configuration)?;
    let trust = trust::issuer_of(&chain, &ca).map(|issuer| KubeletTrust {
        roots: ca,
        issuer,
        is_local: false,
    });
    register(boot, &as_node, &node, deadline).await?;
    kubelets::beat(&cluster, &node.name);
    boot.start_kubelet(&cluster, &node.name, trust)?;
    boot.console
        .line("kubeadm: this node has joined the cluster");
    Ok(format!("kubeadm join: node {} is a worker", node.name))
}

/// Tries until it works, is refused for good, or time is up. Refusals are 401 and 403.
async fn until<F, R>(
    boot: &Boot<'_>,
    deadline: Instant,
    what: &str,
    attempt: F,
) -> Result<Reply, String>
where
    F: Fn() -> R,
    R: Future<Output = Result<Reply, String>>,
{
    let mut said = String::new();
    loop {
        let error = match attempt().await {
            Ok(reply) if reply.code < 300 => return Ok(reply),
            Ok(reply) if matches!(reply.code, 401 | 403) => {
                return Err(format!(
                    "{what} was refused: {} {}",
                    reply.code,
                    text_at(&reply.value, "/message")
                ));
            }
            Ok(reply) => format!("{} {}", reply.code, text_at(&reply.value, "/message")),
            Err(error) => error,
        };
        if said != error {
            boot.console
                .line(format!("kubeadm: {what}: {error}; trying again"));
            said.clone_from(&error);
        }
        if Instant::now() >= deadline {
            return Err(format!("{what}: timed out: {error}"));
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

/// Finds the cluster's CA and endpoint: reads `cluster-info` from whoever answers, believes it only with the token's signature and the pin, then
/// reads it again over a connection that the CA vouches for.
#[expect(
    clippy::too_many_lines,
    reason = "the steps of one discovery, in the order in which kubeadm takes them"
)]
async fn discover(
    boot: &Boot<'_>,
    discovery: &Discovery,
    deadline: Instant,
) -> Result<(Vec<CertificateDer<'static>>, String), String> {
    let anyone = Client::trusting_anyone(&discovery.endpoint).map_err(|error| error.to_string())?;
    let signature = format!("/data/jws-kubeconfig-{}", discovery.token_id);
    let info = loop {
        let reply = until(boot, deadline, "reading cluster-info", || {
            anyone.get(CLUSTER_INFO)
        })
        .await?;
        if !text_at(&reply.value, &signature).is_empty() {
            break reply.value;
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "could not find a JWS signature in the cluster-info ConfigMap for token ID {:?}: the token is unknown to the cluster or has expired",
                discovery.token_id
            ));
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    };
    let kubeconfig = text_at(&info, "/data/kubeconfig");
    if !token::is_signed(
        kubeconfig,
        text_at(&info, &signature),
        &discovery.token_id,
        &discovery.token_secret,
    ) {
        return Err(format!(
            "the signature of cluster-info does not fit the secret of token ID {:?}: the cluster cannot be trusted",
            discovery.token_id
        ));
    }
    let parsed: Value = serde_saphyr::from_str(kubeconfig)
        .map_err(|_| "the kubeconfig in cluster-info is not YAML")?;
    let encoded = text_at(&parsed, "/clusters/0/cluster/certificate-authority-data");
    let pem = STANDARD
        .decode(encoded)
        .ok()
        .and_then(|pem| String::from_utf8(pem).ok())
        .ok_or("the kubeconfig in cluster-info has no CA certificate")?;
    let ca = pki::certificates(&pem);
    let pins: Vec<String> = ca
        .iter()
        .filter_map(|certificate| pki::public_key_pin(certificate))
        .collect();
    if !discovery.unsafe_skip
        && !pins.iter().any(|pin| {
            discovery
                .pins
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(pin))
        })
    {
        return Err(format!(
            "cluster CA found in cluster-info is invalid: none of the public keys {pins:?} are pinned"
        ));
    }
    let trusting = Client::trusting(&discovery.endpoint, &ca, None, None)
        .map_err(|error| error.to_string())?;
    let again = until(
        boot,
        deadline,
        "reading cluster-info over TLS that the pinned CA vouches for",
        || trusting.get(CLUSTER_INFO),
    )
    .await?;
    if text_at(&again.value, "/data/kubeconfig") != kubeconfig {
        return Err("the second copy of cluster-info is not the same as the first".into());
    }
    let server = text_at(&parsed, "/clusters/0/cluster/server");
    let endpoint = server
        .strip_prefix("https://")
        .unwrap_or(server)
        .trim_end_matches('/')
        .to_owned();
    boot.console.line(format!(
        "kubeadm: cluster info is valid, the API server is https://{endpoint}"
    ));
    Ok((ca, endpoint))
}

/// Two machines with the same node name cannot both be ready.
async fn check_same_name(client: &Client, node: &str) -> Result<(), String> {
    let Ok(reply) = client.get(&format!("/api/v1/nodes/{node}")).await else {
        return Ok(());
    };
    if reply.code == 200 && object::condition_status(&reply.value, "Ready") == "True" {
        return Err(format!(
            "a Node with name {node:?} and status \"Ready\" already exists in the cluster"
        ));
    }
    Ok(())
}

/// A client certificate and its key.
type Certificate = (Vec<CertificateDer<'static>>, Vec<u8>);

async fn request_certificate(
    boot: &Boot<'_>,
    client: &Client,
    node: &str,
    deadline: Instant,
) -> Result<Certificate, String> {
    let request = pki::node_request(node).map_err(|error| error.to_string())?;
    let body = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "node-csr-"},
        "spec": {"request": STANDARD.encode(&request.pem), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"]}});
    let reply = until(
        boot,
        deadline,
        "creating a certificate signing request",
        || client.send(Method::POST, REQUESTS, JSON, Some(&body)),
    )
    .await?;
    let name = object::name(&reply.value).to_owned();
    boot.console.line(format!(
        "kubelet: waiting for {name} to be approved and signed"
    ));
    let path = format!("{REQUESTS}/{name}");
    loop {
        let reply = until(
            boot,
            deadline,
            "reading the certificate signing request",
            || client.get(&path),
        )
        .await?;
        let signed = STANDARD
            .decode(text_at(&reply.value, "/status/certificate"))
            .unwrap_or_default();
        let chain = pki::certificates(&String::from_utf8(signed).unwrap_or_default());
        if !chain.is_empty() {
            return Ok((chain, request.key));
        }
        let denied = object::list_at(&reply.value, "/status/conditions")
            .iter()
            .find(|condition| matches!(text_at(condition, "/type"), "Denied" | "Failed"));
        if let Some(condition) = denied {
            return Err(format!(
                "the certificate request was not granted: {}",
                text_at(condition, "/message")
            ));
        }
        if Instant::now() >= deadline {
            return Err("timed out waiting for the kubelet to perform the TLS Bootstrap".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cluster in this process that answered.
fn local_cluster(boot: &Boot<'_>, reply: &Reply) -> Result<Arc<Cluster>, String> {
    boot.light
        .cluster(&reply.cluster)
        .ok_or_else(|| "the API server is not one of this cloud's: a light machine can only join a light cluster".to_owned())
}

async fn register(
    boot: &Boot<'_>,
    client: &Client,
    node: &NodeRegistration,
    deadline: Instant,
) -> Result<(), String> {
    let mut taints = node.taints.clone().unwrap_or_default();
    taints.extend(node.argument_taints());
    let value = kubelets::node_object(&boot.registration(node, taints));
    let path = format!("/api/v1/nodes/{}", node.name);
    let created = until(boot, deadline, "registering the node", || async {
        match client
            .send(Method::POST, "/api/v1/nodes", JSON, Some(&value))
            .await
        {
            Ok(reply) if reply.code == 409 => {
                let changes = json!({"metadata": {"labels": value.pointer("/metadata/labels")}});
                client
                    .send(
                        Method::PATCH,
                        &path,
                        "application/merge-patch+json",
                        Some(&changes),
                    )
                    .await
            }
            other => other,
        }
    })
    .await?;
    if created.code == 200 {
        let status = json!({"status": value.get("status")});
        let path = format!("{path}/status");
        until(boot, deadline, "updating the node", || {
            client.send(
                Method::PATCH,
                &path,
                "application/merge-patch+json",
                Some(&status),
            )
        })
        .await?;
    }
    boot.console
        .line(format!("kubelet: registered node {}", node.name));
    Ok(())
}

/// Another serving member on the same store, with the certificates that this machine was given.
async fn join_control_plane(
    boot: &Boot<'_>,
    config: &KubeadmConfig,
    reply: &Reply,
    node: &NodeRegistration,
    roots: Vec<CertificateDer<'static>>,
) -> Result<String, String> {
    let cluster = local_cluster(boot, reply)?;
    let text = text_at(&reply.value, "/data/ClusterConfiguration");
    let mut configuration = KubeadmConfig::parse("kubeadm-config", text)?;
    configuration.join.clone_from(&config.join);
    // Its kubelet asks for a certificate before this machine's own controller manager runs.
    let trust = cluster.leader().map(|leader| KubeletTrust {
        roots,
        issuer: leader.signing.certificate().clone(),
        is_local: trust::is_local_kubelet(&boot.machine.version),
    });
    let dir = super::boot::certificates_dir(&configuration);
    let ca = authority(&boot.data, &dir)?;
    if !cluster.is_accepted_by(&trust::administrators_roots(&boot.data, &ca)) {
        return Err(
            "error execution phase check-etcd: Get https://.../api/v1/namespaces/kube-system/pods: tls: failed to verify certificate: x509: certificate signed by unknown authority: \
             /etc/kubernetes/admin.conf does not trust all API servers behind the endpoint"
                .to_owned(),
        );
    }
    for name in [
        "sa.key",
        "sa.pub",
        "front-proxy-ca.crt",
        "front-proxy-ca.key",
        "etcd/ca.crt",
        "etcd/ca.key",
    ] {
        let path = format!("{dir}/{name}");
        if name.starts_with("etcd/") && configuration.cluster.pointer("/etcd/external").is_some() {
            continue;
        }
        if !boot.data.files.contains_key(&path) {
            return Err(format!(
                "failure loading certificate: {path} was not given to this machine"
            ));
        }
    }
    boot.whole_etcd(&cluster).await?;
    let instance = boot.machine.facts.instance_id.as_str();
    cluster
        .add_member(instance, &node.name, &boot.machine.version)
        .map_err(|error| format!("etcd: the disk cannot be written: {error}"))?;
    boot.join_etcd(&cluster, &configuration, &node.name).await?;
    let taints = node
        .taints
        .clone()
        .unwrap_or_else(|| vec![init::control_plane_taint()]);
    // The Node comes last: the kubelet of such a machine speaks to its own API server only.
    boot.serve(&cluster, &configuration).await?;
    boot.writable(&cluster).await?;
    init::add_control_plane_node(boot, &cluster, node, taints, &boot.machine.version);
    boot.start_kubelet(&cluster, &node.name, trust)?;
    boot.console.line(
        "kubeadm: this node has joined the cluster and a new control plane instance was created",
    );
    Ok(format!(
        "kubeadm join: node {} is a control-plane node",
        node.name
    ))
}
