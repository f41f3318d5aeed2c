//! Who trusts whom among the parts of a control plane: which member signs, what its controller manager signs with, and whether a kubelet and an API server accept
//! each other.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::Value;

use super::kubeadm::KubeadmConfig;
use super::object::text_at;
use super::pki::{self, Authority};
use crate::cloud::userdata::UserData;

/// The argument of the controller manager that names its signing certificate.
const SIGNING_ARGUMENT: &str = "--cluster-signing-cert-file=";

/// The authorities of a control-plane machine that serves.
pub(crate) struct Member {
    /// `ca.crt`: the API server's certificate is signed by the first, clients may have any of them.
    pub(crate) authority: Arc<Authority>,
    /// What its controller manager signs kubelets' certificates with.
    pub(crate) signing: Authority,
}

/// Whom a kubelet trusts, and who vouches for it.
#[derive(Debug, Clone)]
pub(crate) struct KubeletTrust {
    /// Whose API servers it accepts.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// Who signed its certificate.
    pub(crate) issuer: CertificateDer<'static>,
    /// It talks to the API server of its own machine only.
    pub(crate) is_local: bool,
}

impl KubeletTrust {
    /// Whether it and an API server accept each other.
    pub(crate) fn fits(&self, member: &Member) -> bool {
        self.roots.contains(member.authority.certificate()) && member.authority.trusts(&self.issuer)
    }
}

/// From 1.31 on the kubelets of control-plane machines talk to their own API server (`ControlPlaneKubeletLocalMode`).
pub(crate) fn is_local_kubelet(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 31),
        _ => false,
    }
}

/// The one of these that signed a certificate.
pub(crate) fn issuer_of(
    chain: &[CertificateDer<'static>],
    authorities: &[CertificateDer<'static>],
) -> Option<CertificateDer<'static>> {
    let leaf = chain.first()?;
    authorities
        .iter()
        .find(|authority| has_signed(authority, leaf))
        .cloned()
}

fn has_signed(authority: &CertificateDer<'static>, leaf: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.clone()).is_err() {
        return false;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.is_ok_and(|verifier| {
        verifier
            .verify_client_cert(leaf, &[], UnixTime::now())
            .is_ok()
    })
}

/// What the controller manager of a machine signs with: the file that its arguments name, which may hold one certificate only, as the real one insists.
pub(crate) fn signing_authority(
    data: &UserData,
    config: &KubeadmConfig,
    dir: &str,
) -> Result<Authority, String> {
    let path = patched_argument(data, config).unwrap_or_else(|| format!("{dir}/ca.crt"));
    let key_path = format!("{dir}/ca.key");
    let read = |path: &str| {
        data.text(path).ok_or_else(|| {
            format!("kube-controller-manager: open {path}: no such file or directory")
        })
    };
    let certificate = read(&path)?;
    let count = pki::certificates(certificate).len();
    if count != 1 {
        return Err(format!(
            "kube-controller-manager: error reading CA cert file {path:?}: expected 1 certificate, found {count}"
        ));
    }
    Authority::from_pem(&path, certificate, &key_path, read(&key_path)?)
        .map_err(|error| error.to_string())
}

/// Whom the `admin.conf` trusts with which kubeadm joins a control-plane machine: the first certificate of `ca.crt`, as kubeadm writes it, unless a script of the user
/// data has made one beforehand that trusts all of them.
pub(crate) fn administrators_roots(
    data: &UserData,
    ca: &Authority,
) -> Vec<CertificateDer<'static>> {
    let is_made = |path: &&String| {
        data.commands
            .iter()
            .any(|command| command.trim() == format!("sh {path}"))
            && data.text(path).is_some_and(|script| {
                script.contains("kubeadm init phase kubeconfig admin")
                    && script.contains("certificate-authority-data")
            })
    };
    if data.files.keys().any(|path| is_made(&path)) {
        pki::certificates(&ca.pem)
    } else {
        vec![ca.certificate().clone()]
    }
}

/// The signing file that patches of the static pod give it: the last one counts.
fn patched_argument(data: &UserData, config: &KubeadmConfig) -> Option<String> {
    let document = if config.join.is_null() {
        &config.init
    } else {
        &config.join
    };
    let directory = text_at(document, "/patches/directory").trim_end_matches('/');
    if directory.is_empty() {
        return None;
    }
    let prefix = format!("{directory}/kube-controller-manager");
    let mut arguments = Vec::new();
    for path in data.files.keys() {
        if !(path.starts_with(&prefix) && path.ends_with("+json.json")) {
            continue;
        }
        let operations: Value = serde_json::from_str(data.text(path)?).ok()?;
        let values = operations
            .as_array()?
            .iter()
            .filter_map(|operation| operation.get("value")?.as_str());
        let named = values.filter_map(|value| value.strip_prefix(SIGNING_ARGUMENT));
        arguments.extend(named.map(str::to_owned));
    }
    arguments.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_controller_manager_signs_with_one_certificate_only() {
        let ((old, key), (new, _)) = (authority(), authority());
        let mut data = UserData::default();
        let mut put = |path: &str, text: &str| {
            let file = crate::cloud::userdata::UserFile {
                content: text.as_bytes().to_vec(),
                permissions: String::new(),
                owner: String::new(),
                appends: false,
                deferred: false,
            };
            data.files.insert(path.to_owned(), file);
        };
        put("/pki/ca.crt", &format!("{old}{new}"));
        put("/pki/ca.key", &key);
        put("/pki/ca-signer.crt", &old);
        put(
            "/patches/kube-controller-manager-signer+json.json",
            r#"[{"op":"add","path":"/spec/containers/0/command/-","value":"--cluster-signing-cert-file=/pki/ca-signer.crt"}]"#,
        );
        let mut config = KubeadmConfig::default();
        let refused = signing_authority(&data, &config, "/pki").err().unwrap();
        assert!(
            refused.contains("expected 1 certificate, found 2"),
            "{refused}"
        );
        config.init = serde_json::json!({"patches": {"directory": "/patches"}});
        assert!(signing_authority(&data, &config, "/pki").is_ok());
    }

    #[test]
    fn kubelets_of_control_planes_stay_at_home_from_1_31_on() {
        assert!(is_local_kubelet("v1.31.0") && is_local_kubelet("v1.36.3"));
        assert!(!is_local_kubelet("v1.30.9") && !is_local_kubelet("nightly"));
    }
}
