//! What an operator may say about the switch.

use capstan_sdk::upgrade_strategy::Taint;
use serde::Deserialize;

/// Settings of the strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// All new machines have to be available for so long before the switch.
    pub soak_seconds: u64,
    /// Who switches.
    pub switch: Switch,
    /// How long the old set is kept after the switch.
    pub keep_seconds: u64,
    /// So long new machines may be missing after the switch, while the old ones are kept, before it is taken back.
    pub unavailable_seconds: u64,
    /// The label that says which set is live, in the domain `node.cluster.x-k8s.io`; on Machines and Nodes.
    pub label: String,
    /// Its value on machines that serve.
    pub live: String,
    /// Its value on machines that do not, or not any more.
    pub idle: String,
    /// Kept on the Nodes of machines that do not serve.
    pub taint: Option<Taint>,
}

/// Who switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Switch {
    /// The strategy, when the new machines have soaked.
    #[default]
    Auto,
    /// A person or a program, who puts the annotation `blue-green.capstan.dev/switch: <revision>` on the MachineDeployment.
    Manual,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            soak_seconds: 0,
            switch: Switch::default(),
            keep_seconds: 600,
            unavailable_seconds: 60,
            label: "node.cluster.x-k8s.io/blue-green".to_owned(),
            live: "live".to_owned(),
            idle: "idle".to_owned(),
            taint: None,
        }
    }
}
