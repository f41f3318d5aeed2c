//! `kubeadm init` on a light machine: a new cluster, served with the certificates that the machine was given.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::boot::{Boot, authority, certificates_dir};
use super::client::Client;
use super::cluster::{Cluster, Meta};
use super::controllers::ensure;
use super::kubeadm::{KubeadmConfig, NodeRegistration, duration_s};
use super::object::{self, as_object, list_at, text_at};
use super::trust::{self, KubeletTrust};
use super::{API_PORT, kubelets, pki, resources, token};

/// Components that kubeadm runs as static pods.
pub(crate) const STATIC_PODS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

const RBAC: &str = "rbac.authorization.k8s.io";

/// Makes the cluster. The answer is a sentence for the console.
pub(crate) async fn init(boot: &Boot<'_>, config: &KubeadmConfig) -> Result<String, String> {
    if config.init.is_null() && config.cluster.is_null() {
        return Err(
            "the configuration file has neither InitConfiguration nor ClusterConfiguration".into(),
        );
    }
    let instance = boot.machine.facts.instance_id.as_str();
    let node = NodeRegistration::read(&config.init, &boot.machine.facts.hostname);
    let version = match text_at(&config.cluster, "/kubernetesVersion") {
        "" => boot.machine.version.clone(),
        version => version.to_owned(),
    };
    if version != boot.machine.version {
        boot.console.line(format!(
            "kubeadm: the cluster's version is {version}, the machine's {}",
            boot.machine.version
        ));
    }
    let endpoint = match text_at(&config.cluster, "/controlPlaneEndpoint") {
        "" => format!("{}:{API_PORT}", boot.machine.facts.address),
        endpoint if endpoint.contains(':') => endpoint.to_owned(),
        host => format!("{host}:{API_PORT}"),
    };
    let ca = authority(&boot.data, &certificates_dir(config))?;
    for name in ["front-proxy-ca.crt", "sa.pub", "etcd/ca.crt"] {
        let path = format!("{}/{name}", certificates_dir(config));
        if !boot.data.files.contains_key(&path) {
            boot.console
                .line(format!("kubeadm: {path} was not given, making one"));
        }
    }
    let cluster = match boot.light.cluster_of_member(instance) {
        Some(cluster) => cluster,
        None => {
            let meta = Meta {
                uid: object::new_uid(),
                version: version.clone(),
                endpoint: endpoint.clone(),
                members: [(instance.to_owned(), node.name.clone())].into(),
                nodes: std::collections::BTreeMap::new(),
                etcd: super::etcd::Membership::default(),
            };
            let root = &boot.light.dir.0;
            let cluster = Cluster::create(root, meta, boot.light.tempo)
                .map_err(|error| format!("etcd: the disk cannot be written: {error}"))?;
            boot.light.add(std::sync::Arc::clone(&cluster));
            cluster
        }
    };
    fill(boot, config, &cluster, &node, &ca.pem, &version, &endpoint);
    boot.join_etcd(&cluster, config, &node.name).await?;
    boot.serve(&cluster, config).await?;
    // kubeadm makes the first kubelet's certificate and kubeconfig itself, with the certificate that signs.
    let trust = KubeletTrust {
        roots: vec![ca.certificate().clone()],
        issuer: ca.certificate().clone(),
        is_local: trust::is_local_kubelet(&boot.machine.version),
    };
    boot.start_kubelet(&cluster, &node.name, Some(trust))?;
    wait_for_endpoint(boot, &endpoint, &ca.pem).await?;
    boot.console
        .line("kubeadm: your Kubernetes control-plane has initialized successfully!");
    Ok(format!(
        "kubeadm init: node {} is the first control-plane node",
        node.name
    ))
}

/// kubeadm writes its configuration through the control plane endpoint, so that must lead here.
async fn wait_for_endpoint(boot: &Boot<'_>, endpoint: &str, ca: &str) -> Result<(), String> {
    boot.console.line(format!(
        "kubeadm: waiting for a healthy API server at https://{endpoint}"
    ));
    let client = Client::trusting(endpoint, &pki::certificates(ca), None, None)
        .map_err(|error| error.to_string())?;
    let deadline = boot.deadline();
    loop {
        let error = match client.get("/healthz").await {
            Ok(reply) if reply.code == 200 => return Ok(()),
            Ok(reply) => format!("https://{endpoint}/healthz answered {}", reply.code),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(format!(
                "the control plane endpoint does not lead to this machine's API server: {error}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn fill(
    boot: &Boot<'_>,
    config: &KubeadmConfig,
    cluster: &Cluster,
    node: &NodeRegistration,
    ca: &str,
    version: &str,
    endpoint: &str,
) {
    ensure_identity(cluster);
    for name in ["default", "kube-public", "kube-node-lease"] {
        ensure(
            cluster,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    for value in roles() {
        ensure(cluster, &value);
    }
    ensure(
        cluster,
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]}}),
    );
    for value in maps(config, ca, version, endpoint) {
        ensure(cluster, &value);
    }
    for value in addons(config, version) {
        ensure(cluster, &value);
    }
    let taints = node
        .taints
        .clone()
        .unwrap_or_else(|| vec![control_plane_taint()]);
    add_control_plane_node(boot, cluster, node, taints, version);
    for given in list_at(&config.init, "/bootstrapTokens") {
        if let Some(secret) = token_secret(given) {
            ensure(cluster, &secret);
        }
    }
}

/// The cluster's identity is the UID of this namespace.
fn ensure_identity(cluster: &Cluster) {
    ensure(
        cluster,
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}),
    );
    if let Some(namespace) = cluster
        .store
        .get(resources::namespaces(), "", "kube-system")
    {
        super::controllers::edit(cluster, resources::namespaces(), &namespace.value, |new| {
            object::metadata(new).insert("uid".into(), json!(cluster.uid));
        });
    }
}

/// The taint that keeps ordinary pods off control-plane nodes.
pub(crate) fn control_plane_taint() -> Value {
    json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"})
}

/// Registers a control-plane machine's Node with its marks, and its static pods.
pub(crate) fn add_control_plane_node(
    boot: &Boot<'_>,
    cluster: &Cluster,
    node: &NodeRegistration,
    taints: Vec<Value>,
    version: &str,
) {
    let mut registration = boot.registration(node, taints);
    for label in [
        "node-role.kubernetes.io/control-plane",
        "node.kubernetes.io/exclude-from-external-load-balancers",
    ] {
        registration.labels.push((label.to_owned(), String::new()));
    }
    let mut value = kubelets::node_object(&registration);
    object::metadata(&mut value)
        .entry("annotations")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .map(|annotations| {
            annotations.insert(
                "kubeadm.alpha.kubernetes.io/cri-socket".into(),
                json!("unix:///run/containerd/containerd.sock"),
            )
        });
    ensure(cluster, &value);
    let uid = cluster
        .store
        .get(resources::nodes(), "", &node.name)
        .map(|found| object::uid(&found.value).to_owned())
        .unwrap_or_default();
    kubelets::beat(cluster, &node.name);
    for component in STATIC_PODS {
        ensure(
            cluster,
            &kubelets::static_pod(
                component,
                &node.name,
                &uid,
                version,
                &boot.machine.facts.address,
            ),
        );
    }
    boot.console.line(format!(
        "kubeadm: marked node {} as control-plane",
        node.name
    ));
}

fn token_secret(given: &Value) -> Option<Value> {
    let (id, secret) = text_at(given, "/token").split_once('.')?;
    let texts = |pointer: &str, default: &[&str]| -> Vec<String> {
        let list: Vec<String> = list_at(given, pointer)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if list.is_empty() {
            default.iter().map(|text| (*text).to_owned()).collect()
        } else {
            list
        }
    };
    let ttl_s = match text_at(given, "/ttl") {
        "" => Some(86_400),
        text => duration_s(text).filter(|seconds| *seconds > 0),
    };
    Some(token::to_secret(
        id,
        secret,
        text_at(given, "/description"),
        ttl_s,
        &texts(
            "/groups",
            &["system:bootstrappers:kubeadm:default-node-token"],
        ),
        &texts("/usages", &["signing", "authentication"]),
    ))
}

fn config_map(namespace: &str, name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data})
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// The cluster configuration with kubeadm's defaults filled in, as it uploads it.
fn cluster_configuration(config: &KubeadmConfig, version: &str, endpoint: &str) -> Value {
    let mut value = if config.cluster.is_null() {
        json!({})
    } else {
        config.cluster.clone()
    };
    let object = as_object(&mut value);
    let api_version = match text_at(&config.init, "/apiVersion") {
        "" => "kubeadm.k8s.io/v1beta4",
        version => version,
    };
    for (key, default) in [
        ("apiVersion", json!(api_version)),
        ("kind", json!("ClusterConfiguration")),
        ("apiServer", json!({})),
        ("controllerManager", json!({})),
        ("scheduler", json!({})),
        ("dns", json!({})),
        ("etcd", json!({"local": {"dataDir": "/var/lib/etcd"}})),
        ("certificatesDir", json!("/etc/kubernetes/pki")),
        ("clusterName", json!("kubernetes")),
        ("imageRepository", json!("registry.k8s.io")),
        ("networking", json!({})),
    ] {
        object.entry(key).or_insert(default);
    }
    object.insert("kubernetesVersion".into(), json!(version));
    object.insert("controlPlaneEndpoint".into(), json!(endpoint));
    let networking = object::child(&mut value, "networking");
    networking
        .entry("dnsDomain")
        .or_insert(json!("cluster.local"));
    networking
        .entry("serviceSubnet")
        .or_insert(json!("10.96.0.0/12"));
    value
}

fn maps(config: &KubeadmConfig, ca: &str, version: &str, endpoint: &str) -> Vec<Value> {
    use base64::Engine as _;
    let ca_data = base64::engine::general_purpose::STANDARD.encode(ca);
    let server = format!("https://{endpoint}");
    // Line by line as kubeadm writes it: a YAML writer would fold the certificate.
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca_data}\n    server: {server}\n  name: \"\"\n\
         contexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n"
    );
    let domain = match text_at(&config.cluster, "/networking/dnsDomain") {
        "" => "cluster.local",
        domain => domain,
    };
    let kubelet = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "clusterDomain": domain,
        "clusterDNS": ["10.96.0.10"], "rotateCertificates": true, "staticPodPath": "/etc/kubernetes/manifests"});
    let proxy =
        json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"});
    let corefile = format!(
        ".:53 {{\n    errors\n    health {{\n       lameduck 5s\n    }}\n    ready\n    kubernetes {domain} in-addr.arpa ip6.arpa {{\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }}\n    prometheus :9153\n    forward . /etc/resolv.conf {{\n       max_concurrent 1000\n    }}\n    cache 30\n    loop\n    reload\n    loadbalance\n}}\n"
    );
    vec![
        config_map(
            "kube-system",
            "kubeadm-config",
            &json!({"ClusterConfiguration": yaml(&cluster_configuration(config, version, endpoint))}),
        ),
        config_map(
            "kube-public",
            "cluster-info",
            &json!({"kubeconfig": kubeconfig}),
        ),
        config_map(
            "kube-system",
            "kubelet-config",
            &json!({"kubelet": yaml(&kubelet)}),
        ),
        config_map(
            "kube-system",
            "kube-proxy",
            &json!({"config.conf": yaml(&proxy)}),
        ),
        config_map("kube-system", "coredns", &json!({"Corefile": corefile})),
    ]
}

fn addons(config: &KubeadmConfig, version: &str) -> Vec<Value> {
    let skipped = |addon: &str| {
        list_at(&config.init, "/skipPhases")
            .iter()
            .any(|phase| phase == addon || phase == "addon")
    };
    let repository = match text_at(&config.cluster, "/imageRepository") {
        "" => "registry.k8s.io",
        repository => repository,
    };
    let dns_repository = match (text_at(&config.cluster, "/dns/imageRepository"), repository) {
        ("", "registry.k8s.io") => "registry.k8s.io/coredns",
        ("", repository) => repository,
        (given, _) => given,
    };
    let dns_tag = match text_at(&config.cluster, "/dns/imageTag") {
        "" => "v1.12.3",
        tag => tag,
    };
    let mut addons = Vec::new();
    if !skipped("addon/kube-proxy") {
        let labels = json!({"k8s-app": "kube-proxy"});
        addons.push(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": labels},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "kube-proxy", "hostNetwork": true, "priorityClassName": "system-node-critical",
                "containers": [{"name": "kube-proxy", "image": format!("{repository}/kube-proxy:{version}"),
                    "command": ["/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf"]}],
                "volumes": [{"name": "kube-proxy", "configMap": {"name": "kube-proxy"}}],
                "tolerations": [{"operator": "Exists"}]}}}}));
    }
    if !skipped("addon/coredns") {
        let labels = json!({"k8s-app": "kube-dns"});
        addons.push(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "coredns", "priorityClassName": "system-cluster-critical",
                "containers": [{"name": "coredns", "image": format!("{dns_repository}/coredns:{dns_tag}"),
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}]}],
                "volumes": [{"name": "config-volume", "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}}],
                "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}, control_plane_taint()]}}}}));
    }
    addons
}

fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

fn cluster_binding(name: &str, role: &str, kind: &str, subject: &str) -> Value {
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": kind, "name": subject}]})
}

fn role(namespace: &str, name: &str, map: &str, subjects: &[(&str, &str)]) -> [Value; 2] {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|(kind, name)| json!({"apiGroup": RBAC, "kind": kind, "name": name}))
        .collect();
    [
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": name, "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [map], "verbs": ["get"]}]}),
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name}, "subjects": subjects}),
    ]
}

/// The roles that an API server brings along, as far as they matter here, and those that kubeadm adds.
fn roles() -> Vec<Value> {
    const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";
    const CSR: &str = "certificates.k8s.io";
    let csr = |resource: &str| json!([{"apiGroups": [CSR], "resources": [resource], "verbs": ["create"]}]);
    let public = json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]);
    let paths = json!([{"nonResourceURLs": ["/", "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
        "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]}]);
    let mut values = vec![
        cluster_role(
            "cluster-admin",
            &json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
        ),
        cluster_binding("cluster-admin", "cluster-admin", "Group", "system:masters"),
        cluster_role("system:discovery", &paths),
        cluster_binding(
            "system:discovery",
            "system:discovery",
            "Group",
            "system:authenticated",
        ),
        cluster_role("system:public-info-viewer", &public),
        cluster_binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            "Group",
            "system:authenticated",
        ),
        cluster_binding(
            "system:public-info-viewer-anonymous",
            "system:public-info-viewer",
            "Group",
            "system:unauthenticated",
        ),
        cluster_role(
            "system:node-bootstrapper",
            &json!([{"apiGroups": [CSR], "resources": ["certificatesigningrequests"], "verbs": ["create", "get", "list", "watch"]}]),
        ),
        cluster_role(
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            &csr("certificatesigningrequests/nodeclient"),
        ),
        cluster_role(
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            &csr("certificatesigningrequests/selfnodeclient"),
        ),
        cluster_role(
            "system:kubelet-api-admin",
            &json!([{"apiGroups": [""], "resources": ["nodes", "nodes/proxy", "nodes/log", "nodes/stats", "nodes/metrics"], "verbs": ["*"]}]),
        ),
        cluster_role(
            "kubeadm:get-nodes",
            &json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]),
        ),
        cluster_binding(
            "kubeadm:get-nodes",
            "kubeadm:get-nodes",
            "Group",
            BOOTSTRAPPERS,
        ),
        cluster_binding(
            "kubeadm:kubelet-bootstrap",
            "system:node-bootstrapper",
            "Group",
            BOOTSTRAPPERS,
        ),
        cluster_binding(
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            "Group",
            BOOTSTRAPPERS,
        ),
        cluster_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "Group",
            "system:nodes",
        ),
        cluster_binding(
            "kubeadm:cluster-admins",
            "cluster-admin",
            "Group",
            "kubeadm:cluster-admins",
        ),
        cluster_binding(
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            "User",
            "kube-apiserver-kubelet-client",
        ),
    ];
    let nodes = [("Group", BOOTSTRAPPERS), ("Group", "system:nodes")];
    values.extend(role(
        "kube-system",
        "kubeadm:nodes-kubeadm-config",
        "kubeadm-config",
        &nodes,
    ));
    values.extend(role(
        "kube-system",
        "kubeadm:kubelet-config",
        "kubelet-config",
        &nodes,
    ));
    values.extend(role(
        "kube-system",
        "kube-proxy",
        "kube-proxy",
        &[("Group", BOOTSTRAPPERS)],
    ));
    values.extend(role(
        "kube-public",
        "kubeadm:bootstrap-signer-clusterinfo",
        "cluster-info",
        &[("User", "system:anonymous")],
    ));
    values
}
