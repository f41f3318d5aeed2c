//! What the cloud's tests share: a cloud in a temporary directory, an HTTP client, certificates and cloud-configs as a bootstrap provider makes them.
#![allow(dead_code, reason = "every test binary uses its part")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use capstan_local::cloud::{Cloud, Options};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A deadline that only a broken test reaches.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }
}

/// How a client shows who it is.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) bearer: Option<String>,
    pub(crate) certificate: Option<(CertificateDer<'static>, Vec<u8>)>,
    pub(crate) ca: Option<CertificateDer<'static>>,
}

/// A client of a plain or TLS endpoint; one connection per request.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) base: String,
    pub(crate) credentials: Credentials,
}

pub(crate) trait Stream:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin
{
}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) struct Watching {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl Watching {
    /// The next event; absent when the server ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time")?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Type and name of the next event that is no bookmark.
    pub(crate) async fn next_name(&mut self) -> (String, String) {
        loop {
            let event = self.next().await.expect("the watch goes on");
            if event["type"] != "BOOKMARK" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return (
                    text(&event["type"]),
                    text(&event["object"]["metadata"]["name"]),
                );
            }
        }
    }
}

impl Http {
    pub(crate) fn new(base: &str, credentials: Credentials) -> Self {
        Self {
            base: base.to_owned(),
            credentials,
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let (scheme, address) = self.base.split_once("://").unwrap();
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        if scheme == "http" {
            return Ok(Box::new(stream));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(self.credentials.ca.clone().expect("a CA for TLS"))
            .unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
        let config = match self.credentials.certificate.clone() {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![certificate],
                    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let host = address.rsplit_once(':').unwrap().0.to_owned();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(host).unwrap(), stream)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Box::new(tls))
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<http::Response<hyper::body::Incoming>, String> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if let Some(bearer) = &self.credentials.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())
    }

    /// Sends a request; the error is that of the connection.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, String> {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = self.open(method, path, headers, text).await?;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok(Reply {
            code,
            headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        self.try_send(method, path, &[], body)
            .await
            .expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &Value::Null).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        let content_type = format!("application/{kind}");
        self.try_send(
            Method::PATCH,
            path,
            &[("content-type", &content_type)],
            body,
        )
        .await
        .expect("an answer")
    }

    pub(crate) async fn watch(&self, path: &str) -> Result<Watching, Reply> {
        let response = self
            .open(Method::GET, path, &[], String::new())
            .await
            .expect("an answer");
        if response.status().as_u16() == 200 {
            return Ok(Watching {
                body: response.into_body(),
                buffer: Vec::new(),
            });
        }
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Err(Reply {
            code,
            headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = match self.try_send(Method::GET, path, &[], &Value::Null).await {
                Ok(reply) if wanted(&reply) => return reply,
                Ok(reply) => format!("{} {}", reply.code, reply.text),
                Err(error) => error,
            };
            assert!(Instant::now() < deadline, "{path}: still {last}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A certificate authority of a test.
pub(crate) struct Ca {
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_key(name, KeyPair::generate().unwrap(), None)
    }

    pub(crate) fn with_key(name: &str, key: KeyPair, key_pem: Option<String>) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key_pem = key_pem.unwrap_or_else(|| key.serialize_pem());
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self {
            pem,
            key_pem,
            der,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn pin(&self) -> String {
        let (_, parsed) = X509Certificate::from_der(&self.der).unwrap();
        let hex: String = Sha256::digest(parsed.public_key().raw)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}")
    }

    pub(crate) fn client(&self, name: &str, group: &str) -> Credentials {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            bearer: None,
            certificate: Some((certificate.der().clone(), key.serialize_der())),
            ca: Some(self.der.clone()),
        }
    }

    pub(crate) fn admin(&self) -> Credentials {
        self.client("kubernetes-admin", "system:masters")
    }

    pub(crate) fn anonymous(&self) -> Credentials {
        Credentials {
            ca: Some(self.der.clone()),
            ..Credentials::default()
        }
    }

    pub(crate) fn bearer(&self, token: &str) -> Credentials {
        Credentials {
            bearer: Some(token.to_owned()),
            ..self.anonymous()
        }
    }
}

/// Options that make a cloud as quick as possible.
pub(crate) fn quick(dir: &TempDir) -> Options {
    let mut options = Options::new(dir.path());
    options.provision_delay = Duration::from_millis(4);
    options.tempo.heartbeat = Duration::from_millis(100);
    options.tempo.node_grace = Duration::from_millis(900);
    options.tempo.node_ready = Duration::from_millis(10);
    options.tempo.pod_start = Duration::from_millis(5);
    options.tempo.pod_stop = Duration::from_millis(5);
    options
}

pub(crate) fn client(cloud: &Cloud) -> Http {
    let credentials = Credentials {
        bearer: Some(cloud.access().token.clone()),
        ..Credentials::default()
    };
    Http::new(&cloud.access().endpoint, credentials)
}

fn write_file(path: &str, content: &str) -> Value {
    json!({"path": path, "owner": "root:root", "permissions": "0600", "content": content})
}

fn cloud_config(mut files: Vec<Value>, kubeadm: &str, path: &str, config: &str) -> String {
    files.push(write_file(path, config));
    files.push(write_file("/run/cluster-api/placeholder", "placeholder\n"));
    let value = json!({
        "write_files": files,
        "runcmd": ["echo before", format!("kubeadm {kubeadm} --config {path} && echo success > /run/cluster-api/bootstrap-success.complete"), "echo after"],
    });
    format!("## template: jinja\n#cloud-config\n\n{value}\n")
}

fn certificates(ca: &Ca) -> Vec<Value> {
    let other = Ca::new("other");
    let mut files = Vec::new();
    for (name, pem) in [
        ("ca.crt", &ca.pem),
        ("ca.key", &ca.key_pem),
        ("etcd/ca.crt", &other.pem),
        ("etcd/ca.key", &other.key_pem),
        ("front-proxy-ca.crt", &other.pem),
        ("front-proxy-ca.key", &other.key_pem),
        ("sa.pub", &other.pem),
        ("sa.key", &other.key_pem),
    ] {
        files.push(write_file(&format!("/etc/kubernetes/pki/{name}"), pem));
    }
    files
}

pub(crate) fn init_data(ca: &Ca, endpoint: &str) -> String {
    let config = format!(
        "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: quick\ncontrolPlaneEndpoint: {endpoint}\n\
         kubernetesVersion: v1.36.3\nnetworking:\n  podSubnet: 10.244.0.0/16\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
         nodeRegistration:\n  name: '{{{{ ds.meta_data.local_hostname }}}}'\n"
    );
    cloud_config(
        certificates(ca),
        "init",
        "/run/kubeadm/kubeadm.yaml",
        &config,
    )
}

/// What a joining machine is told.
pub(crate) struct Join<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) pin: &'a str,
    pub(crate) token: &'a str,
    pub(crate) control_plane_of: Option<&'a Ca>,
}

pub(crate) fn join_data(join: &Join<'_>) -> String {
    let mut config = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {"apiServerEndpoint": join.endpoint, "caCertHashes": [join.pin], "token": join.token}},
        "nodeRegistration": {"name": "{{ ds.meta_data.local_hostname }}",
            "kubeletExtraArgs": [{"name": "node-labels", "value": "pool=a,gpu="}]},
    });
    let mut files = Vec::new();
    match join.control_plane_of {
        Some(ca) => {
            config["controlPlane"] = json!({"localAPIEndpoint": {"bindPort": 6443}});
            files = certificates(ca);
        }
        None => {
            config["nodeRegistration"]["taints"] =
                json!([{"key": "node.cluster.x-k8s.io/uninitialized", "effect": "NoSchedule"}]);
        }
    }
    cloud_config(
        files,
        "join",
        "/run/kubeadm/kubeadm-join-config.yaml",
        &config.to_string(),
    )
}

pub(crate) fn instance(network: &str, name: &str, user_data: &str) -> Value {
    json!({"name": name, "networkId": network, "type": "small", "image": "v1.36.3", "userData": STANDARD.encode(user_data)})
}

/// A bootstrap token's Secret; an expiry in seconds from now.
pub(crate) fn token_secret(id: &str, secret: &str, expires_s: i64) -> Value {
    let expires = jiff::Timestamp::now()
        .checked_add(jiff::SignedDuration::from_secs(expires_s))
        .unwrap();
    json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "stringData": {"token-id": id, "token-secret": secret, "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}})
}

/// A cloud with one workload cluster of one control-plane machine.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) http: Http,
    pub(crate) ca: Ca,
    pub(crate) network: String,
    pub(crate) balancer: String,
    pub(crate) endpoint: String,
    pub(crate) first: String,
}

pub(crate) const TOKEN: &str = "abcdef.0123456789abcdef";

impl World {
    pub(crate) async fn new(options: Options) -> Self {
        Self::with_ca(options, Ca::new("kubernetes")).await
    }

    pub(crate) async fn with_ca(options: Options, ca: Ca) -> Self {
        let cloud = Cloud::start(options).await.unwrap();
        let http = client(&cloud);
        let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
        let network = id(&http
            .post("/v1/networks", &json!({"name": "n"}))
            .await
            .json());
        let lb = http
            .post(
                "/v1/load-balancers",
                &json!({"name": "lb", "networkId": network}),
            )
            .await
            .json();
        let endpoint = format!("127.0.0.1:{}", lb["port"]);
        let mut body = instance(&network, "cp-1", &init_data(&ca, &endpoint));
        body["loadBalancerIds"] = json!([lb["id"]]);
        let made = http.post("/v1/instances", &body).await;
        assert_eq!(made.code, 202, "{}", made.text);
        let first = id(&made.json());
        let world = Self {
            cloud,
            http,
            ca,
            network,
            balancer: id(&lb),
            endpoint,
            first,
        };
        let state = world.bootstrapped(&world.first).await;
        assert_eq!(
            state["state"],
            "done",
            "{}",
            world.console(&world.first).await
        );
        world
    }

    pub(crate) async fn bootstrapped(&self, id: &str) -> Value {
        let over = |reply: &Reply| {
            reply.code == 200
                && matches!(
                    reply.json()["bootstrap"]["state"].as_str(),
                    Some("done" | "failed")
                )
        };
        self.http
            .until(&format!("/v1/instances/{id}"), over)
            .await
            .json()["bootstrap"]
            .clone()
    }

    pub(crate) async fn console(&self, id: &str) -> String {
        self.http
            .get(&format!("/v1/instances/{id}/console"))
            .await
            .text
    }

    pub(crate) fn kube(&self) -> Http {
        Http::new(&format!("https://{}", self.endpoint), self.ca.admin())
    }

    pub(crate) fn kube_as(&self, credentials: Credentials) -> Http {
        Http::new(&format!("https://{}", self.endpoint), credentials)
    }

    pub(crate) async fn add_token(&self) {
        let (id, secret) = TOKEN.split_once('.').unwrap();
        let made = self
            .kube()
            .post(
                "/api/v1/namespaces/kube-system/secrets",
                &token_secret(id, secret, 3600),
            )
            .await;
        assert_eq!(made.code, 201, "{}", made.text);
    }

    /// Creates a machine with this user data and waits for the end of its bootstrap.
    pub(crate) async fn machine(&self, name: &str, user_data: &str) -> (String, Value) {
        let made = self
            .http
            .post("/v1/instances", &instance(&self.network, name, user_data))
            .await;
        assert_eq!(made.code, 202, "{}", made.text);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let bootstrap = self.bootstrapped(&id).await;
        (id, bootstrap)
    }

    pub(crate) async fn worker(&self, name: &str) -> String {
        let pin = self.ca.pin();
        let data = join_data(&Join {
            endpoint: &self.endpoint,
            pin: &pin,
            token: TOKEN,
            control_plane_of: None,
        });
        let (id, bootstrap) = self.machine(name, &data).await;
        assert_eq!(bootstrap["state"], "done", "{}", self.console(&id).await);
        id
    }
}

/// Whether the Node's condition `Ready` has this status.
pub(crate) fn ready_is(status: &'static str) -> impl Fn(&Reply) -> bool {
    move |reply| {
        reply.code == 200
            && reply.json()["status"]["conditions"]
                .as_array()
                .is_some_and(|list| {
                    list.iter().any(|condition| {
                        condition["type"] == "Ready" && condition["status"] == status
                    })
                })
    }
}

/// A client with the CA and the client certificate of a kubeconfig file.
pub(crate) fn from_kubeconfig(path: &std::path::Path) -> Http {
    let text = std::fs::read_to_string(path).unwrap();
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    let (cluster, user) = (
        &config["clusters"][0]["cluster"],
        &config["users"][0]["user"],
    );
    let pem = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let certificate = |value: &Value| CertificateDer::from_pem_slice(&pem(value)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])).unwrap();
    let credentials = Credentials {
        bearer: None,
        certificate: Some((
            certificate(&user["client-certificate-data"]),
            key.secret_der().to_vec(),
        )),
        ca: Some(certificate(&cluster["certificate-authority-data"])),
    };
    Http::new(cluster["server"].as_str().unwrap(), credentials)
}
