//! The bodies of requests that create, untrusted until they are checked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::answer::Refusal;
use super::records::{InstanceType, Tags};

/// Largest user data.
const MAX_USER_DATA: usize = 1024 * 1024;

/// `POST /v1/networks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewNetwork {
    /// Name.
    pub(crate) name: String,
    /// Backend; the cloud's choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    /// Tags.
    #[serde(default)]
    pub(crate) tags: Tags,
}

fn api_port() -> u16 {
    6443
}

/// `POST /v1/load-balancers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewLoadBalancer {
    /// Name.
    pub(crate) name: String,
    /// Network.
    pub(crate) network_id: String,
    /// Port on the targets.
    #[serde(default = "api_port")]
    pub(crate) target_port: u16,
    /// Tags.
    #[serde(default)]
    pub(crate) tags: Tags,
}

fn cloud_config() -> String {
    "cloud-config".into()
}

/// What runs user data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UserDataRunner {
    /// The backend's own interpreter.
    #[default]
    Builtin,
    /// The distribution's cloud-init.
    CloudInit,
}

impl UserDataRunner {
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_builtin(&self) -> bool {
        *self == Self::Builtin
    }
}

/// `POST /v1/instances/{id}/exec`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Exec {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
}

/// `POST /v1/instances`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewInstance {
    /// Name.
    pub(crate) name: String,
    /// Network.
    pub(crate) network_id: String,
    /// Zone.
    #[serde(default)]
    pub(crate) zone: Option<String>,
    /// Type.
    #[serde(rename = "type")]
    pub(crate) type_: String,
    /// Kubernetes version.
    pub(crate) image: String,
    /// Backend; the network's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    /// User data, base64.
    #[serde(default)]
    pub(crate) user_data: String,
    /// Its format.
    #[serde(default = "cloud_config")]
    pub(crate) user_data_format: String,
    /// What runs it.
    #[serde(default, skip_serializing_if = "UserDataRunner::is_builtin")]
    pub(crate) user_data_runner: UserDataRunner,
    /// Tags.
    #[serde(default)]
    pub(crate) tags: Tags,
    /// Load balancers that it becomes a target of.
    #[serde(default)]
    pub(crate) load_balancer_ids: Vec<String>,
}

/// Parses a body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the body: {error}")))
}

/// Digest of what a body means, for idempotency keys.
pub(crate) fn digest<T: Serialize>(body: &T) -> Result<String, Refusal> {
    let text = serde_json::to_vec(body).map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Checks an `Idempotency-Key`.
pub(crate) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > 128 || !key.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Refusal::invalid(
            "Idempotency-Key: must be 1 to 128 visible ASCII characters",
        ));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(good) {
        return Err(Refusal::invalid(
            "name: must be 1 to 253 lower-case letters, digits, '-' and '.'",
        ));
    }
    Ok(())
}

fn check_tags(tags: &Tags) -> Result<(), Refusal> {
    if tags.len() > 50 {
        return Err(Refusal::invalid("tags: at most 50"));
    }
    match tags
        .iter()
        .find(|(key, value)| key.is_empty() || key.len() > 128 || value.len() > 256)
    {
        Some((key, _)) => Err(Refusal::invalid(format!(
            "tags: {key:?}: keys have 1 to 128 characters, values at most 256"
        ))),
        None => Ok(()),
    }
}

impl NewNetwork {
    /// Checks what does not need other resources.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        check_tags(&self.tags)
    }
}

impl NewLoadBalancer {
    /// Checks what does not need other resources.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        if self.target_port == 0 {
            return Err(Refusal::invalid("targetPort: must be 1 to 65535"));
        }
        check_tags(&self.tags)
    }
}

impl NewInstance {
    /// Checks what does not need other resources.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        check_tags(&self.tags)?;
        if InstanceType::find(&self.type_).is_none() {
            return Err(Refusal::invalid(format!(
                "type: there is no instance type {:?}; see /v1/instance-types",
                self.type_
            )));
        }
        if let Some(zone) = &self.zone
            && !super::records::ZONES.contains(&zone.as_str())
        {
            return Err(Refusal::invalid(format!(
                "zone: the network has no zone {zone:?}"
            )));
        }
        let numbers: Vec<&str> = self
            .image
            .strip_prefix('v')
            .unwrap_or_default()
            .split('.')
            .collect();
        let is_number = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let (core, patch) = (
            numbers.get(..2).unwrap_or_default(),
            numbers.get(2).copied().unwrap_or_default(),
        );
        let patch = patch.split(['-', '+']).next().unwrap_or_default();
        if core.len() != 2 || !core.iter().all(is_number) || !is_number(&patch) {
            return Err(Refusal::invalid(format!(
                "image: {:?} is not a Kubernetes version such as v1.36.3",
                self.image
            )));
        }
        if self.user_data_format != "cloud-config" {
            return Err(Refusal::invalid(format!(
                "userDataFormat: {:?} is not one of: cloud-config",
                self.user_data_format
            )));
        }
        match STANDARD.decode(&self.user_data) {
            Err(_) => Err(Refusal::invalid("userData: is not base64")),
            Ok(data) if data.len() > MAX_USER_DATA => {
                Err(Refusal::invalid("userData: is larger than 1 MiB"))
            }
            Ok(_) => Ok(()),
        }
    }
}
