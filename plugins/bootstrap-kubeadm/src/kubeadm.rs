//! Writes kubeadm's own configuration documents from a KubeadmConfig.
//!
//! The fields are those of kubeadm's `v1beta3` (Kubernetes 1.22 to 1.30) and `v1beta4` (from 1.31), which differ from the CRD's in
//! lists of arguments, durations and where timeouts are.

use serde_json::{Map, Value, json};

use crate::needs::{CA, TOKEN, wants_token};
use crate::question::{Materials, Piece, Question, Role};
use crate::refusal::Refusal;
use crate::rule;
use crate::signer;
use crate::yaml::Node;

/// Taint of workers until the machine controller has set their labels (contract 2.5).
const UNINITIALIZED_TAINT: &str = "node.cluster.x-k8s.io/uninitialized";

/// Version of kubeadm's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Kubernetes 1.22 to 1.30.
    V1Beta3,
    /// Kubernetes 1.31 and newer.
    V1Beta4,
}

impl Format {
    /// The format that kubeadm of this version reads best.
    pub(crate) fn for_version((major, minor): (u64, u64)) -> Result<Format, Refusal> {
        match (major, minor) {
            (1, 31..) => Ok(Format::V1Beta4),
            (1, 22..31) => Ok(Format::V1Beta3),
            _ => Err(Refusal::plugin(
                "VersionUnsupported",
                format!(
                    "Kubernetes {major}.{minor} is not supported: Machine.spec.version must be 1.22 or newer"
                ),
            )),
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Format::V1Beta3 => "kubeadm.k8s.io/v1beta3",
            Format::V1Beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }
}

/// The documents for `kubeadm init` or `kubeadm join`.
pub(crate) fn documents(
    question: &Question<'_>,
    materials: &Materials,
) -> Result<Vec<Node>, Refusal> {
    let format = Format::for_version(question.version()?)?;
    rule::check(question)?;
    match question.role {
        Role::Init => Ok(vec![
            cluster_configuration(question, format)?,
            init_configuration(question, materials, format)?,
        ]),
        Role::JoinControlPlane | Role::JoinWorker => {
            Ok(vec![join_configuration(question, materials, format)?])
        }
    }
}

fn document(format: Format, kind: &str, fields: Map<String, Value>) -> Vec<(String, Node)> {
    let head = [("apiVersion", format.api_version()), ("kind", kind)];
    let head = head
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Node::text(value)));
    head.chain(
        fields
            .into_iter()
            .map(|(key, value)| (key, Node::from(value))),
    )
    .collect()
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn cluster_configuration(question: &Question<'_>, format: Format) -> Result<Node, Refusal> {
    let mut fields = object(question.spec.get("clusterConfiguration"));
    let certificate_days = fields.remove("certificateValidityPeriodDays");
    let authority_days = fields.remove("caCertificateValidityPeriodDays");
    for component in ["apiServer", "controllerManager", "scheduler"] {
        if let Some(value) = fields.get_mut(component) {
            convert_component(value, format, &format!("clusterConfiguration.{component}"))?;
        }
    }
    if let Some(local) = fields
        .get_mut("etcd")
        .and_then(|etcd| etcd.get_mut("local"))
    {
        convert_component(local, format, "clusterConfiguration.etcd.local")?;
    }
    match format {
        Format::V1Beta4 => {
            let days = [
                ("certificateValidityPeriod", certificate_days),
                ("caCertificateValidityPeriod", authority_days),
            ];
            for (name, days) in days {
                if let Some(days) = days.as_ref().and_then(Value::as_u64) {
                    fields.insert(
                        name.to_owned(),
                        json!(duration(days.saturating_mul(24 * 60 * 60))),
                    );
                }
            }
        }
        Format::V1Beta3 => {
            // The authority's validity is the host's affair, so that only the other two would be lost.
            let algorithm = fields
                .remove("encryptionAlgorithm")
                .map(|_| "encryptionAlgorithm");
            let days = certificate_days.map(|_| "certificateValidityPeriodDays");
            if let Some(field) = algorithm.or(days) {
                return Err(too_old(&format!("clusterConfiguration.{field}")));
            }
            let timeout = seconds(
                question.spec,
                "/initConfiguration/timeouts/controlPlaneComponentHealthCheckSeconds",
            );
            if let Some(timeout) = timeout {
                let server = fields.entry("apiServer").or_insert_with(|| json!({}));
                if let Some(server) = server.as_object_mut() {
                    server.insert(
                        "timeoutForControlPlane".to_owned(),
                        json!(duration(timeout)),
                    );
                }
            }
        }
    }
    fields.insert("clusterName".to_owned(), json!(question.cluster_name()));
    if let (None, Some(endpoint)) = (fields.get("controlPlaneEndpoint"), &question.endpoint) {
        fields.insert("controlPlaneEndpoint".to_owned(), json!(endpoint));
    }
    fields.insert(
        "kubernetesVersion".to_owned(),
        json!(question.version_text()),
    );
    let networking = networking(question.cluster);
    if !networking.is_empty() {
        fields.insert("networking".to_owned(), Value::Object(networking));
    }
    Ok(Node::Map(document(format, "ClusterConfiguration", fields)))
}

fn too_old(field: &str) -> Refusal {
    Refusal::object(
        "FieldNeedsNewerVersion",
        format!("{field} needs Kubernetes 1.31 or newer: remove it or raise the version"),
    )
}

fn convert_component(component: &mut Value, format: Format, path: &str) -> Result<(), Refusal> {
    if format == Format::V1Beta4 {
        return Ok(());
    }
    if component.get("extraEnvs").is_some() {
        return Err(too_old(&format!("{path}.extraEnvs")));
    }
    if let Some(arguments) = component.get_mut("extraArgs") {
        *arguments = arguments_by_name(arguments);
    }
    Ok(())
}

/// `[{name, value}]` as `{name: value}`.
fn arguments_by_name(arguments: &Value) -> Value {
    let pair = |argument: &Value| {
        let name = argument.get("name").and_then(Value::as_str)?;
        Some((
            name.to_owned(),
            argument.get("value").cloned().unwrap_or_else(|| json!("")),
        ))
    };
    Value::Object(
        arguments
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .filter_map(pair)
            .collect(),
    )
}

fn networking(cluster: &Value) -> Map<String, Value> {
    let blocks = |pointer: &str| {
        let list = cluster.pointer(pointer).and_then(Value::as_array)?;
        let joined = list
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",");
        (!joined.is_empty()).then(|| json!(joined))
    };
    let domain = cluster
        .pointer("/spec/clusterNetwork/serviceDomain")
        .and_then(Value::as_str);
    let fields = [
        (
            "dnsDomain",
            domain
                .filter(|domain| !domain.is_empty())
                .map(|domain| json!(domain)),
        ),
        ("podSubnet", blocks("/spec/clusterNetwork/pods/cidrBlocks")),
        (
            "serviceSubnet",
            blocks("/spec/clusterNetwork/services/cidrBlocks"),
        ),
    ];
    fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

fn init_configuration(
    question: &Question<'_>,
    materials: &Materials,
    format: Format,
) -> Result<Node, Refusal> {
    let mut fields = object(question.spec.get("initConfiguration"));
    if let Some(Value::Array(tokens)) = fields.get_mut("bootstrapTokens") {
        for token in tokens.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(ttl) = token.remove("ttlSeconds").as_ref().and_then(Value::as_u64) {
                token.insert("ttl".to_owned(), json!(duration(ttl)));
            }
        }
    }
    convert_node_registration(&mut fields, format);
    convert_timeouts(&mut fields, format);
    signer::name_patches(question, materials, &mut fields)?;
    Ok(Node::Map(document(format, "InitConfiguration", fields)))
}

fn join_configuration(
    question: &Question<'_>,
    materials: &Materials,
    format: Format,
) -> Result<Node, Refusal> {
    let mut fields = object(question.spec.get("joinConfiguration"));
    fields.remove("discovery");
    if question.role.is_control_plane() {
        fields.entry("controlPlane").or_insert_with(|| json!({}));
    } else {
        add_uninitialized_taint(&mut fields);
    }
    convert_node_registration(&mut fields, format);
    convert_timeouts(&mut fields, format);
    signer::name_patches(question, materials, &mut fields)?;
    let mut entries = document(format, "JoinConfiguration", fields);
    entries.push((
        "discovery".to_owned(),
        discovery(question, materials, format)?,
    ));
    Ok(Node::Map(entries))
}

fn discovery(
    question: &Question<'_>,
    materials: &Materials,
    format: Format,
) -> Result<Node, Refusal> {
    let mut entries = Vec::new();
    if let Some(path) = question.text("/joinConfiguration/discovery/file/kubeConfigPath") {
        entries.push((
            "file".to_owned(),
            Node::map([("kubeConfigPath", Node::text(path))]),
        ));
    } else {
        entries.push((
            "bootstrapToken".to_owned(),
            token_discovery(question, materials)?,
        ));
    }
    if let Some(token) = question.text("/joinConfiguration/discovery/tlsBootstrapToken") {
        entries.push(("tlsBootstrapToken".to_owned(), Node::text(token)));
    }
    let timeout = seconds(
        question.spec,
        "/joinConfiguration/timeouts/discoverySeconds",
    );
    if let (Format::V1Beta3, Some(timeout)) = (format, timeout) {
        entries.push(("timeout".to_owned(), Node::text(duration(timeout))));
    }
    Ok(Node::Map(entries))
}

fn token_discovery(question: &Question<'_>, materials: &Materials) -> Result<Node, Refusal> {
    let at = |field: &str| format!("/joinConfiguration/discovery/bootstrapToken/{field}");
    let endpoint = match question.text(&at("apiServerEndpoint")) {
        Some(endpoint) => endpoint.to_owned(),
        None => endpoint(question)?,
    };
    let mut entries = vec![("apiServerEndpoint".to_owned(), Node::text(endpoint))];
    let skips = question
        .spec
        .pointer(&at("unsafeSkipCAVerification"))
        .and_then(Value::as_bool)
        == Some(true);
    let hashes = question.list(&at("caCertHashes"));
    if !hashes.is_empty() {
        entries.push(("caCertHashes".to_owned(), Node::from(json!(hashes))));
    } else if !skips {
        let hash = materials.text(CA, "hash")?;
        entries.push((
            "caCertHashes".to_owned(),
            Node::List(vec![Node::text(hash)]),
        ));
    }
    let token = if wants_token(question) {
        match materials.piece(TOKEN, "token")? {
            Piece::Text(token) => Node::text(token.as_str()),
            Piece::Secret(handle) => Node::SecretLine(*handle),
        }
    } else {
        Node::text(question.text(&at("token")).unwrap_or_default())
    };
    entries.push(("token".to_owned(), token));
    if skips {
        entries.push(("unsafeSkipCAVerification".to_owned(), Node::bool(true)));
    }
    Ok(Node::Map(entries))
}

/// The Cluster's endpoint, which a joining machine cannot do without.
pub(crate) fn endpoint(question: &Question<'_>) -> Result<String, Refusal> {
    question.endpoint.clone().ok_or_else(|| {
        Refusal::later(
            "EndpointUnknown",
            "Cluster.spec.controlPlaneEndpoint is not known yet: a machine needs it to join",
        )
    })
}

fn add_uninitialized_taint(fields: &mut Map<String, Value>) {
    let registration = fields
        .entry("nodeRegistration")
        .or_insert_with(|| json!({}));
    let Some(registration) = registration.as_object_mut() else {
        return;
    };
    let taints = registration.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else {
        return;
    };
    let taint = json!({"effect": "NoSchedule", "key": UNINITIALIZED_TAINT});
    if !taints.iter().any(|other| {
        other.get("key") == taint.get("key") && other.get("effect") == taint.get("effect")
    }) {
        taints.push(taint);
    }
}

fn convert_node_registration(fields: &mut Map<String, Value>, format: Format) {
    let Some(registration) = fields
        .get_mut("nodeRegistration")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    if format == Format::V1Beta3 {
        registration.remove("imagePullSerial");
        if let Some(arguments) = registration.get_mut("kubeletExtraArgs") {
            *arguments = arguments_by_name(arguments);
        }
    }
}

fn convert_timeouts(fields: &mut Map<String, Value>, format: Format) {
    const NAMES: [&str; 6] = [
        "controlPlaneComponentHealthCheck",
        "discovery",
        "etcdAPICall",
        "kubeletHealthCheck",
        "kubernetesAPICall",
        "tlsBootstrap",
    ];
    let Some(timeouts) = fields.remove("timeouts") else {
        return;
    };
    if format == Format::V1Beta3 {
        return;
    }
    let converted = NAMES.iter().filter_map(|name| {
        let seconds = timeouts
            .get(format!("{name}Seconds"))
            .and_then(Value::as_u64)?;
        Some(((*name).to_owned(), json!(duration(seconds))))
    });
    fields.insert("timeouts".to_owned(), Value::Object(converted.collect()));
}

fn seconds(spec: &Value, pointer: &str) -> Option<u64> {
    spec.pointer(pointer).and_then(Value::as_u64)
}

/// Seconds in the spelling of Go's durations, such as `1h30m0s`.
fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
