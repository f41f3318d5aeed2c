//! Writes the kubeconfig with which a machine finds its cluster, when the config describes one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::file::{Content, File};
use crate::kubeadm;
use crate::needs::CA;
use crate::question::{Materials, Question};
use crate::refusal::Refusal;
use crate::yaml::Node;

/// Version of the exec plugin's interface when the config names none (contract 4.6).
const EXEC_API: &str = "client.authentication.k8s.io/v1";

/// The kubeconfig with which the machine finds the cluster, when the config describes one.
pub(crate) fn kubeconfig(
    question: &Question<'_>,
    materials: &Materials,
) -> Result<Option<File>, Refusal> {
    let Some(config) = question
        .spec
        .pointer("/joinConfiguration/discovery/file/kubeConfig")
    else {
        return Ok(None);
    };
    if !question.role.joins() {
        return Ok(None);
    }
    let path = question
        .text("/joinConfiguration/discovery/file/kubeConfigPath")
        .unwrap_or_default();
    let document = Node::map([
        ("apiVersion", Node::text("v1")),
        ("kind", Node::text("Config")),
        (
            "clusters",
            named(vec![(
                "cluster",
                cluster_entry(question, materials, config)?,
            )]),
        ),
        (
            "contexts",
            named(vec![(
                "context",
                Node::map([
                    ("cluster", Node::text("default")),
                    ("user", Node::text("default")),
                ]),
            )]),
        ),
        ("current-context", Node::text("default")),
        ("users", named(vec![("user", user_entry(config))])),
    ]);
    Ok(Some(File::of_root(
        path,
        "0640",
        Content::Documents(vec![document]),
    )))
}

fn named(entries: Vec<(&str, Node)>) -> Node {
    let name = ("name".to_owned(), Node::text("default"));
    Node::List(vec![Node::Map(
        std::iter::once(name)
            .chain(entries.into_iter().map(|(k, v)| (k.to_owned(), v)))
            .collect(),
    )])
}

fn cluster_entry(
    question: &Question<'_>,
    materials: &Materials,
    config: &Value,
) -> Result<Node, Refusal> {
    let text = |field: &str| {
        config
            .pointer(&format!("/cluster/{field}"))
            .and_then(Value::as_str)
    };
    let insecure = config
        .pointer("/cluster/insecureSkipTLSVerify")
        .and_then(Value::as_bool)
        == Some(true);
    let server = match text("server") {
        Some(server) => server.to_owned(),
        None => format!("https://{}", kubeadm::endpoint(question)?),
    };
    let mut entries = vec![("server".to_owned(), Node::text(server))];
    match text("certificateAuthorityData") {
        Some(data) => entries.push(("certificate-authority-data".to_owned(), Node::text(data))),
        None if insecure => {}
        None => {
            let data = STANDARD.encode(materials.text(CA, "certificate")?);
            entries.push(("certificate-authority-data".to_owned(), Node::text(data)));
        }
    }
    if insecure {
        entries.push(("insecure-skip-tls-verify".to_owned(), Node::bool(true)));
    }
    for (key, field) in [
        ("proxy-url", "proxyURL"),
        ("tls-server-name", "tlsServerName"),
    ] {
        entries.extend(text(field).map(|value| (key.to_owned(), Node::text(value))));
    }
    Ok(Node::Map(entries))
}

fn user_entry(config: &Value) -> Node {
    let mut entries = Vec::new();
    if let Some(provider) = config.pointer("/user/authProvider") {
        entries.push(("auth-provider".to_owned(), Node::from(provider.clone())));
    }
    if let Some(exec) = config.pointer("/user/exec") {
        let mut exec = exec.clone();
        if let Some(fields) = exec.as_object_mut() {
            let version = fields
                .entry("apiVersion")
                .or_insert_with(|| EXEC_API.into());
            // Readers of that version want to be told, and nobody can be asked while a machine boots.
            if version == EXEC_API {
                fields.insert("interactiveMode".to_owned(), "Never".into());
            }
        }
        entries.push(("exec".to_owned(), Node::from(exec)));
    }
    Node::Map(entries)
}
