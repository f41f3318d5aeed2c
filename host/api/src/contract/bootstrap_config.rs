//! The data that a host boots with: where the contract's facts are in its bootstrap object.

use serde_json::{Value, json};

use super::{flag_at, text_at};

/// Reads a bootstrap object.
#[derive(Clone, Copy, Debug)]
pub struct BootstrapConfig<'a>(pub &'a Value);

impl<'a> BootstrapConfig<'a> {
    /// Whether the Secret with the data has been made.
    pub fn is_data_secret_created(&self) -> bool {
        flag_at(self.0, "/status/initialization/dataSecretCreated").unwrap_or(false)
    }

    /// Name of the Secret with the data.
    pub fn data_secret_name(&self) -> Option<&'a str> {
        text_at(self.0, "/status/dataSecretName")
    }
}

/// Merge patch of the status once the Secret has been made.
pub fn status_patch(data_secret_name: &str) -> Value {
    json!({"status": {
        "initialization": {"dataSecretCreated": true},
        "dataSecretName": data_secret_name,
    }})
}
