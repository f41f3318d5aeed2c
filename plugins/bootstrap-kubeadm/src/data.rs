//! Writes a machine's data in the format that its config asks for.

use serde_json::Value;

use crate::cloud_config::cloud_config;
use crate::files::configuration_path;
use crate::ignition::ignition;
use crate::question::{Materials, Question, Role};
use crate::refusal::Refusal;
use crate::yaml::Part;

/// A machine's data.
#[derive(Debug)]
pub(crate) struct Data {
    /// As the contract names it.
    pub(crate) format: &'static str,
    /// In order.
    pub(crate) parts: Vec<Part>,
    /// What of the config was ignored, for a condition.
    pub(crate) ignored: Option<String>,
}

/// The data.
pub(crate) fn data(question: &Question<'_>, materials: &Materials) -> Result<Data, Refusal> {
    if question.is_ignition() {
        return ignition(question, materials);
    }
    Ok(Data {
        format: "cloud-config",
        parts: cloud_config(question, materials)?,
        ignored: None,
    })
}

/// What makes a node of the machine.
pub(crate) fn kubeadm_command(question: &Question<'_>) -> String {
    let verb = match question.role {
        Role::Init => "init",
        Role::JoinControlPlane | Role::JoinWorker => "join",
    };
    let verbosity = question.spec.get("verbosity").and_then(Value::as_i64);
    let verbosity = verbosity
        .map(|level| format!(" --v {level}"))
        .unwrap_or_default();
    format!(
        "kubeadm {verb} --config {}{verbosity}",
        configuration_path(question)
    )
}
