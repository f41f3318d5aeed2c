//! Which labels and annotations of Machines go to their Nodes, as command lines say.

use capstan_controllers::node_sync::{KeyPattern, NodeSync};

/// Keys beside those of Cluster API's domains.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct NodeSyncArgs {
    /// Labels of Machines that go to their Nodes beside those of Cluster API's domains: a regular expression for their keys; may be
    /// given several times.
    #[arg(long, value_name = "REGEX")]
    additional_sync_machine_labels: Vec<KeyPattern>,
    /// The same for annotations.
    #[arg(long, value_name = "REGEX")]
    additional_sync_machine_annotations: Vec<KeyPattern>,
}

impl NodeSyncArgs {
    /// What the host looks for.
    pub(super) fn patterns(&self) -> NodeSync {
        NodeSync {
            labels: self.additional_sync_machine_labels.clone(),
            annotations: self.additional_sync_machine_annotations.clone(),
        }
    }

    /// The same flags again, for another command line.
    pub(super) fn flags(&self) -> Vec<String> {
        let flags = |flag: &str, patterns: &[KeyPattern]| -> Vec<String> {
            let flags = patterns.iter();
            flags.map(|pattern| format!("--{flag}={pattern}")).collect()
        };
        let mut all = flags(
            "additional-sync-machine-labels",
            &self.additional_sync_machine_labels,
        );
        all.extend(flags(
            "additional-sync-machine-annotations",
            &self.additional_sync_machine_annotations,
        ));
        all
    }
}
