//! Lists the files that a machine gets: certificates, the user's files, and kubeadm's configuration.

use serde_json::Value;

use crate::discovery;
use crate::file::{Content, File};
use crate::kubeadm;
use crate::needs::{self, CA, ETCD, PROXY, SERVICE_ACCOUNT, file_material, has_external_etcd};
use crate::question::{Materials, Piece, Question, Role};
use crate::refusal::Refusal;
use crate::signer;
use crate::template::fill_in;

/// Where kubeadm looks for certificates when the config names no directory.
const CERTIFICATES_DIR: &str = "/etc/kubernetes/pki";

/// Path of kubeadm's configuration on the machine.
///
/// Ignition runs before `/run` is mounted, so that its machines have it in `/etc` until kubeadm has succeeded.
pub(crate) fn configuration_path(question: &Question<'_>) -> &'static str {
    match question.role {
        _ if question.is_ignition() => "/etc/kubeadm.yml",
        Role::Init => "/run/kubeadm/kubeadm.yaml",
        Role::JoinControlPlane | Role::JoinWorker => "/run/kubeadm/kubeadm-join-config.yaml",
    }
}

/// All files, in order.
pub(crate) fn files(question: &Question<'_>, materials: &Materials) -> Result<Vec<File>, Refusal> {
    let mut files = Vec::new();
    if question.role.is_control_plane() {
        certificates(question, materials, &mut files)?;
    }
    for (position, file) in question.list("/files").iter().enumerate() {
        files.push(user_file(question, materials, position, file)?);
    }
    files.extend(discovery::kubeconfig(question, materials)?);
    // On Ignition's machines it stays on disk until kubeadm has succeeded.
    let permissions = if question.is_ignition() {
        "0600"
    } else {
        "0640"
    };
    files.push(File::of_root(
        configuration_path(question),
        permissions,
        Content::Documents(kubeadm::documents(question, materials)?),
    ));
    Ok(files)
}

fn piece_content(piece: &Piece) -> Content {
    match piece {
        Piece::Text(text) => Content::Text(with_newline(text)),
        Piece::Secret(handle) => Content::Secret(*handle),
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
    files: &mut Vec<File>,
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
        let certificate = piece_content(materials.piece(name, "certificate")?);
        files.push(File::of_root(
            format!("{directory}/{path}.crt"),
            "0640",
            certificate,
        ));
        // An authority may sign elsewhere: kubeadm's external CA mode.
        if let Some(key) = materials.optional(name, "key") {
            files.push(File::of_root(
                format!("{directory}/{path}.key"),
                "0600",
                piece_content(key),
            ));
        }
    }
    files.extend(signer::files(question, materials, directory)?);
    let public = piece_content(materials.piece(SERVICE_ACCOUNT, "public-key")?);
    files.push(File::of_root(format!("{directory}/sa.pub"), "0640", public));
    let private = piece_content(materials.piece(SERVICE_ACCOUNT, "key")?);
    files.push(File::of_root(
        format!("{directory}/sa.key"),
        "0600",
        private,
    ));
    if external {
        for (name, _, key, field) in needs::EXTERNAL_ETCD {
            let path = question
                .text(&format!("/clusterConfiguration/etcd/external/{field}"))
                .unwrap_or_default();
            let permissions = if key == "tls.key" { "0600" } else { "0640" };
            files.push(File::of_root(
                path,
                permissions,
                piece_content(materials.piece(name, "value")?),
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
) -> Result<File, Refusal> {
    let text = |field: &str| {
        file.get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let content = if file.get("contentFrom").is_some() {
        piece_content(materials.piece(&file_material(position), "value")?)
    } else {
        let content = text("content").unwrap_or_default();
        let content = if is_template(file) {
            fill_in(content, question.control_plane_version, position)?
        } else {
            content.to_owned()
        };
        Content::Text(with_newline(&content))
    };
    Ok(File {
        path: text("path").unwrap_or_default().to_owned(),
        owner: text("owner").map(str::to_owned),
        permissions: text("permissions").map(str::to_owned),
        encoding: text("encoding").map(str::to_owned),
        append: file.get("append").and_then(Value::as_bool) == Some(true),
        content,
    })
}

/// Whether a file's content is a template.
pub(crate) fn is_template(file: &Value) -> bool {
    file.get("contentFormat").and_then(Value::as_str) == Some("Template")
}
