//! The table of rules: what Cluster API's contract says, and which tests show it.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// Where tests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Decisions.
    Core,
    /// Decisions, in whole rollouts.
    Rollout,
    /// What is stored.
    Api,
    /// Caches, queues, connections.
    Controllers,
    /// The engine that runs plugins.
    Engine,
    /// The plugin that writes machines' data.
    BootstrapKubeadm,
    /// The plugin that knows kubeadm's control planes.
    ControlPlaneKubeadm,
    /// The whole host against real servers.
    It,
}

impl Target {
    /// The package, and the test target in it where it is not the library.
    pub(crate) fn program(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Core => ("capstan-core", None),
            Self::Rollout => ("capstan-core", Some("rollout")),
            Self::Api => ("capstan-api", None),
            Self::Controllers => ("capstan-controllers", None),
            Self::Engine => ("capstan-engine", None),
            Self::BootstrapKubeadm => ("bootstrap-kubeadm", None),
            Self::ControlPlaneKubeadm => ("control-plane-kubeadm", None),
            Self::It => ("capstan-tests", Some("it")),
        }
    }
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TestName {
    /// Where it is.
    pub(crate) target: Target,
    /// Its name with its modules.
    pub(crate) path: String,
}

impl TryFrom<String> for TestName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some((target, path)) = text.split_once(' ') else {
            return Err(format!("{text:?} is not a target and a test"));
        };
        let target = match target {
            "core" => Target::Core,
            "rollout" => Target::Rollout,
            "api" => Target::Api,
            "controllers" => Target::Controllers,
            "engine" => Target::Engine,
            "bootstrap-kubeadm" => Target::BootstrapKubeadm,
            "control-plane-kubeadm" => Target::ControlPlaneKubeadm,
            "it" => Target::It,
            other => return Err(format!("{other:?} is no target")),
        };
        Ok(Self {
            target,
            path: path.to_owned(),
        })
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    /// Section of the contract and a word.
    pub(crate) id: String,
    /// The rule in a sentence.
    pub(crate) rule: String,
    /// Tests that show it; all must pass.
    #[serde(default)]
    pub(crate) tests: Vec<TestName>,
    /// Why there is no test.
    #[serde(default)]
    pub(crate) left_out: Option<String>,
}

/// All rules.
///
/// # Errors
/// When the table cannot be read, or a rule has neither tests nor a reason, or both.
pub(crate) fn rules() -> Result<Vec<Rule>> {
    let text = include_str!("rules.yaml");
    let rules: Vec<Rule> = serde_saphyr::from_str(text).context("reading rules.yaml")?;
    for rule in &rules {
        ensure!(
            rule.tests.is_empty() == rule.left_out.is_some(),
            "{}: give tests, or the reason why there are none",
            rule.id
        );
    }
    Ok(rules)
}
