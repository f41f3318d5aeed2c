//! Lists the files that a machine gets: certificates, the user's files, kubeadm's configuration, and what marks progress.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::kubeadm;
use crate::needs::{self, CA, ETCD, PROXY, SERVICE_ACCOUNT, file_material, has_external_etcd};
use crate::question::{Materials, Piece, Question, Role};
use crate::refusal::Refusal;
use crate::yaml::Node;

/// Where kubeadm looks for certificates when the config names no directory.
const CERTIFICATES_DIR: &str = "/etc/kubernetes/pki";
/// Bound of a file's content after its template has been filled in (contract 3.9).
const RENDERED_BYTES_MAX: usize = 1024 * 1024;

/// Path of kubeadm's configuration on the machine.
pub(crate) fn configuration_path(role: Role) -> &'static str {
    match role {
        Role::Init => "/run/kubeadm/kubeadm.yaml",
        Role::JoinControlPlane | Role::JoinWorker => "/run/kubeadm/kubeadm-join-config.yaml",
    }
}

/// The entries of `write_files`, in order.
pub(crate) fn files(question: &Question<'_>, materials: &Materials) -> Result<Vec<Node>, Refusal> {
    let mut files = Vec::new();
    if question.role.is_control_plane() {
        certificates(question, materials, &mut files)?;
    }
    for (position, file) in question.list("/files").iter().enumerate() {
        files.push(user_file(question, materials, position, file)?);
    }
    if let Some(file) = discovery_kubeconfig(question, materials)? {
        files.push(file);
    }
    let documents = Node::Documents(kubeadm::documents(question, materials)?);
    files.push(root_file(
        configuration_path(question.role),
        "0640",
        documents,
    ));
    // Its directory must exist before the sentinel is written there, also where `mkdir -p` does not.
    files.push(root_file(
        "/run/cluster-api/placeholder",
        "0640",
        Node::text("Makes sure that this directory exists on every operating system.\n"),
    ));
    Ok(files)
}

fn root_file(path: &str, permissions: &str, content: Node) -> Node {
    Node::map([
        ("path", Node::text(path)),
        ("owner", Node::text("root:root")),
        ("permissions", Node::text(permissions)),
        ("content", content),
    ])
}

fn piece_node(piece: &Piece) -> Node {
    match piece {
        Piece::Text(text) => Node::text(with_newline(text)),
        Piece::Secret(handle) => Node::SecretBlock {
            handle: *handle,
            chomp: "",
        },
    }
}

fn with_newline(text: &str) -> String {
    if text.ends_with('\n') {
        text.to_owned()
    } else {
        format!("{text}\n")
    }
}

fn certificates(
    question: &Question<'_>,
    materials: &Materials,
    files: &mut Vec<Node>,
) -> Result<(), Refusal> {
    let directory = question
        .text("/clusterConfiguration/certificatesDir")
        .unwrap_or(CERTIFICATES_DIR);
    let directory = directory.trim_end_matches('/');
    let external = has_external_etcd(question);
    let authorities = [
        (CA, "ca", false),
        (ETCD, "etcd/ca", external),
        (PROXY, "front-proxy-ca", false),
    ];
    for (name, path, _) in authorities.iter().filter(|(_, _, skipped)| !skipped) {
        let certificate = piece_node(materials.piece(name, "certificate")?);
        files.push(root_file(
            &format!("{directory}/{path}.crt"),
            "0640",
            certificate,
        ));
        let key = piece_node(materials.piece(name, "key")?);
        files.push(root_file(&format!("{directory}/{path}.key"), "0600", key));
    }
    let public = piece_node(materials.piece(SERVICE_ACCOUNT, "public-key")?);
    files.push(root_file(&format!("{directory}/sa.pub"), "0640", public));
    let private = piece_node(materials.piece(SERVICE_ACCOUNT, "key")?);
    files.push(root_file(&format!("{directory}/sa.key"), "0600", private));
    if external {
        for (name, _, key, field) in needs::EXTERNAL_ETCD {
            let path = question
                .text(&format!("/clusterConfiguration/etcd/external/{field}"))
                .unwrap_or_default();
            let permissions = if key == "tls.key" { "0600" } else { "0640" };
            files.push(root_file(
                path,
                permissions,
                piece_node(materials.piece(name, "value")?),
            ));
        }
    }
    Ok(())
}

fn user_file(
    question: &Question<'_>,
    materials: &Materials,
    position: usize,
    file: &Value,
) -> Result<Node, Refusal> {
    let text = |field: &str| {
        file.get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let mut encoding = text("encoding");
    let is_template = text("contentFormat") == Some("Template");
    let content = if file.get("contentFrom").is_some() {
        if is_template {
            return Err(Refusal::plugin(
                "TemplateFromSecretUnsupported",
                format!(
                    "files[{position}]: contentFormat Template does not work with contentFrom: use content"
                ),
            ));
        }
        secret_content(
            materials.piece(&file_material(position), "value")?,
            &mut encoding,
        )
    } else {
        let content = text("content").unwrap_or_default();
        let content = if is_template {
            fill_in(content, question.control_plane_version, position)?
        } else {
            content.to_owned()
        };
        Node::text(with_newline(&content))
    };
    let mut entries = vec![(
        "path".to_owned(),
        Node::text(text("path").unwrap_or_default()),
    )];
    let fields = [
        ("owner", text("owner")),
        ("permissions", text("permissions")),
        ("encoding", encoding),
    ];
    entries.extend(
        fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), Node::text(value?)))),
    );
    if file.get("append").and_then(Value::as_bool) == Some(true) {
        entries.push(("append".to_owned(), Node::bool(true)));
    }
    entries.push(("content".to_owned(), content));
    Ok(Node::Map(entries))
}

/// A Secret's value as content. What `gzip` promises is binary, so it goes as base64.
fn secret_content(piece: &Piece, encoding: &mut Option<&str>) -> Node {
    match (piece, *encoding) {
        (Piece::Secret(handle), Some("gzip")) => {
            *encoding = Some("gzip+base64");
            Node::SecretBase64(*handle)
        }
        _ => piece_node(piece),
    }
}

/// Fills in the one action that a file's template may have, `{{ .controlPlane.version }}`.
fn fill_in(
    template: &str,
    control_plane_version: &str,
    position: usize,
) -> Result<String, Refusal> {
    let broken = |what: &str| {
        Refusal::object(
            "TemplateInvalid",
            format!(
                "files[{position}].content: {what}: a template may only have {{{{ .controlPlane.version }}}}"
            ),
        )
    };
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, behind) = after
            .split_once("}}")
            .ok_or_else(|| broken("an action has no end"))?;
        let trims_before = action.starts_with("- ");
        let trims_behind = action.ends_with(" -");
        let inner = action
            .strip_prefix('-')
            .filter(|_| trims_before)
            .unwrap_or(action);
        let inner = inner
            .strip_suffix('-')
            .filter(|_| trims_behind)
            .unwrap_or(inner)
            .trim();
        filled.push_str(if trims_before {
            before.trim_end()
        } else {
            before
        });
        let is_comment = inner.starts_with("/*") && inner.ends_with("*/");
        if inner == ".controlPlane.version" {
            filled.push_str(control_plane_version);
        } else if !is_comment {
            return Err(broken(&format!("{{{{{action}}}}} is not known")));
        }
        rest = if trims_behind {
            behind.trim_start()
        } else {
            behind
        };
    }
    filled.push_str(rest);
    if filled.len() > RENDERED_BYTES_MAX {
        return Err(broken("the content is above 1 MiB"));
    }
    Ok(filled)
}

/// The kubeconfig with which the machine finds the cluster, when the config describes one.
fn discovery_kubeconfig(
    question: &Question<'_>,
    materials: &Materials,
) -> Result<Option<Node>, Refusal> {
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
    Ok(Some(root_file(
        path,
        "0640",
        Node::Documents(vec![document]),
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
            fields
                .entry("apiVersion")
                .or_insert_with(|| "client.authentication.k8s.io/v1".into());
        }
        entries.push(("exec".to_owned(), Node::from(exec)));
    }
    Node::Map(entries)
}
