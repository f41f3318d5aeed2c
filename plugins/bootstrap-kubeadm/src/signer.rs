//! What a control-plane machine needs besides when its authority's file holds more than one certificate: during a rotation of the authorities.
//! kubeadm itself is used as it is; two of its habits are in the way.
//!
//! All that trusts takes every certificate of `ca.crt`, and kubeadm signs with the first. The controller manager, which signs the kubelets'
//! certificates, refuses a file with more than one (Kubernetes `pkg/controller/certificates/signer`). So it gets a file of its own, and a patch of its static pod names it:
//! a repeated argument counts the last time.
//!
//! And the `admin.conf` that kubeadm writes trusts the first certificate only, while kubeadm joins with it through the control plane's endpoint, behind which other machines may
//! still show certificates of the other authority. An `admin.conf` that is there already is kept if the first certificate in it is the one that signs (`cmd/kubeadm/app/phases/kubeconfig`). So a script
//! has kubeadm make it beforehand, and puts the whole file into it.

use serde_json::{Map, Value, json};

use crate::file::{Content, File};
use crate::kubeadm;
use crate::needs::CA;
use crate::question::{Materials, Question, Role};
use crate::refusal::Refusal;

/// Where patches of static pods are unless the config says another place.
const PATCHES_DIR: &str = "/etc/kubernetes/patches";
/// The patch: of which pod, with a suffix of our own, and of which type.
const PATCH: &str = "kube-controller-manager-signer+json.json";
/// The script that makes `admin.conf`.
const SCRIPT: &str = "/etc/kubernetes/admin-trust.sh";
/// The signing certificate, below the directory of certificates.
const SIGNER: &str = "ca-signer.crt";
/// Where a certificate ends.
const END: &str = "-----END CERTIFICATE-----";

/// The first of several certificates; `None` when there is one.
fn first_of_several(certificates: &str) -> Option<&str> {
    let end = certificates.find(END)?.checked_add(END.len())?;
    let (first, rest) = certificates.split_at_checked(end)?;
    rest.contains(END).then_some(first)
}

/// The certificate that signs, where the controller manager has to be told.
fn signer<'a>(
    question: &Question<'_>,
    materials: &'a Materials,
) -> Result<Option<&'a str>, Refusal> {
    let is_named = question
        .list("/clusterConfiguration/controllerManager/extraArgs")
        .iter()
        .any(|argument| {
            argument.get("name").and_then(Value::as_str) == Some("cluster-signing-cert-file")
        });
    if is_named || !question.role.is_control_plane() {
        return Ok(None);
    }
    Ok(first_of_several(materials.text(CA, "certificate")?))
}

fn patches_directory<'a>(question: &Question<'a>) -> Option<&'a str> {
    let kind = match question.role {
        Role::Init => "initConfiguration",
        Role::JoinControlPlane | Role::JoinWorker => "joinConfiguration",
    };
    question.text(&format!("/{kind}/patches/directory"))
}

/// The command to run before kubeadm joins a control-plane machine; none outside of a rotation.
pub(crate) fn command(
    question: &Question<'_>,
    materials: &Materials,
) -> Result<Option<String>, Refusal> {
    Ok(script(question, materials, "")?.map(|_| format!("sh {SCRIPT}")))
}

fn script(
    question: &Question<'_>,
    materials: &Materials,
    certificates: &str,
) -> Result<Option<String>, Refusal> {
    let is_one = question.role != Role::JoinControlPlane
        || first_of_several(materials.text(CA, "certificate")?).is_none();
    if is_one {
        return Ok(None);
    }
    let endpoint = kubeadm::endpoint(question)?;
    let version = question.version_text();
    Ok(Some(format!(
        "set -e\n\
         kubeadm init phase kubeconfig admin --cert-dir {certificates} --control-plane-endpoint {endpoint} --kubernetes-version {version}\n\
         sed -i \"s|certificate-authority-data: .*|certificate-authority-data: $(base64 -w 0 {certificates}/ca.crt)|\" /etc/kubernetes/admin.conf\n"
    )))
}

/// The files for it; none outside of a rotation.
pub(crate) fn files(
    question: &Question<'_>,
    materials: &Materials,
    certificates: &str,
) -> Result<Vec<File>, Refusal> {
    let mut files = Vec::new();
    if let Some(script) = script(question, materials, certificates)? {
        files.push(File::of_root(SCRIPT, "0700", Content::Text(script)));
    }
    let Some(signer) = signer(question, materials)? else {
        return Ok(files);
    };
    let path = format!("{certificates}/{SIGNER}");
    let patch = json!([{
        "op": "add", "path": "/spec/containers/0/command/-", "value": format!("--cluster-signing-cert-file={path}"),
    }]);
    let directory = patches_directory(question)
        .unwrap_or(PATCHES_DIR)
        .trim_end_matches('/');
    files.extend([
        File::of_root(
            path,
            "0640",
            Content::Text(format!("{}\n", signer.trim_start())),
        ),
        File::of_root(
            format!("{directory}/{PATCH}"),
            "0640",
            Content::Text(format!("{patch}\n")),
        ),
    ]);
    Ok(files)
}

/// Has kubeadm look for patches.
pub(crate) fn name_patches(
    question: &Question<'_>,
    materials: &Materials,
    fields: &mut Map<String, Value>,
) -> Result<(), Refusal> {
    if signer(question, materials)?.is_some() && patches_directory(question).is_none() {
        fields.insert("patches".to_owned(), json!({"directory": PATCHES_DIR}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_certificate_is_not_several() {
        let one = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n";
        let other = "-----BEGIN CERTIFICATE-----\nQg==\n-----END CERTIFICATE-----\n";
        assert_eq!(first_of_several(one), None);
        assert_eq!(first_of_several(""), None);
        assert_eq!(
            first_of_several(&format!("{one}{other}")),
            Some(one.trim_end())
        );
    }
}
