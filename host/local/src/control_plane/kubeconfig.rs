//! Writes kubeconfig files that need nothing else beside them, readable by their owner only.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pki;

/// The text of a kubeconfig with one cluster, one user and one context.
pub(crate) fn render(server: &str, ca_pem: &str, user: &str, identity: &pki::Pair) -> String {
    let ca = STANDARD.encode(ca_pem);
    let certificate = STANDARD.encode(&identity.certificate_pem);
    let key = STANDARD.encode(&identity.key_pem);
    // A JSON string is a YAML string, whatever the name holds.
    let user = serde_json::Value::from(user);
    format!(
        "apiVersion: v1
kind: Config
current-context: capstan-local
clusters:
- name: capstan-local
  cluster:
    server: {server}
    certificate-authority-data: {ca}
contexts:
- name: capstan-local
  context:
    cluster: capstan-local
    user: {user}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// Writes a file that only its owner may read, replacing an older one in a single step.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&fresh)?.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, path)
}
