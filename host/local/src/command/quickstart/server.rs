//! Reads from a cluster, many times a second if need be, without a process for each.

use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::control_plane::Client;
use crate::pki::Pair;

/// The cluster on this machine that a kubeconfig names.
pub(super) struct Server {
    client: Client,
}

impl Server {
    /// Reads the kubeconfig.
    pub(super) fn of(kubeconfig: &Path) -> anyhow::Result<Self> {
        let what = || format!("could not use {}", kubeconfig.display());
        let text = std::fs::read_to_string(kubeconfig).with_context(what)?;
        let config: Value = serde_saphyr::from_str(&text).with_context(what)?;
        let field = |path: &str| {
            let text = config.pointer(path).and_then(Value::as_str);
            text.with_context(|| format!("{path} is missing"))
        };
        let pem = |path: &str| -> anyhow::Result<String> {
            Ok(String::from_utf8(STANDARD.decode(field(path)?)?)?)
        };
        let server = url::Url::parse(field("/clusters/0/cluster/server")?)?;
        let addresses = server.socket_addrs(|| None)?;
        let address = addresses.first().copied().with_context(what)?;
        let identity = Pair {
            certificate_pem: pem("/users/0/user/client-certificate-data")?,
            key_pem: pem("/users/0/user/client-key-data")?,
        };
        let ca = pem("/clusters/0/cluster/certificate-authority-data")?;
        let client = Client::tls(address, &ca, &identity)?;
        Ok(Self { client })
    }

    /// One object, if it exists and its kind is served.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let (status, body) = self.client.send(Method::GET, path, None).await?;
        match status {
            StatusCode::OK => Ok(Some(serde_json::from_slice(&body)?)),
            StatusCode::NOT_FOUND => Ok(None),
            other => bail!("GET {path}: {other}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// The objects of a list; none when the kind is not served.
    pub(super) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut list = self.get(path).await?.unwrap_or_default();
        Ok(match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        })
    }
}

/// A value of a Secret, if it is text.
pub(super) fn secret_text(secret: &Value, key: &str) -> Option<String> {
    let value = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(value).ok()?).ok()
}
