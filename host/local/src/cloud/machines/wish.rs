//! What a machine's user data tells about the machine that it is for, before it runs.

use std::path::Path;

use super::network;
use crate::cloud::backend::MachineSpec;
use crate::cloud::userdata::UserData;
use crate::machine::layout::Runner;
use crate::probe;

/// What a machine needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// What runs the user data.
    pub(super) runner: Runner,
    /// The pods' range, if it says one.
    pub(super) pods: Option<String>,
    /// Whether etcd gets a disk of its own.
    pub(super) etcd_disk: bool,
}

impl Wish {
    /// Of a machine that is asked for. User data that cannot be read asks for nothing: the machine's console says what is wrong with it.
    pub(super) fn of(spec: &MachineSpec, dir: &Path) -> Self {
        let data = UserData::parse(&spec.user_data, &spec.facts).unwrap_or_default();
        let texts: Vec<&str> = data
            .files
            .keys()
            .filter_map(|path| data.text(path))
            .collect();
        Self {
            runner: if spec.cloud_init {
                Runner::CloudInit
            } else {
                Runner::Builtin
            },
            pods: network::pod_range(texts.iter().copied()),
            etcd_disk: texts.iter().any(|text| runs_etcd(text)) && probe::gives_disks(dir),
        }
    }
}

/// Whether a configuration of kubeadm makes its machine a control-plane machine.
fn runs_etcd(text: &str) -> bool {
    let is = |kind: &str| {
        text.lines().any(|line| {
            line.trim()
                .strip_prefix("kind:")
                .is_some_and(|value| value.trim().trim_matches('"') == kind)
        })
    };
    is("InitConfiguration")
        || is("ClusterConfiguration")
        || (is("JoinConfiguration")
            && text
                .lines()
                .any(|line| line.trim_start().starts_with("controlPlane:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_control_plane_machine_by_its_configuration() {
        assert!(runs_etcd("apiVersion: x\nkind: ClusterConfiguration\n"));
        assert!(runs_etcd(
            "kind: JoinConfiguration\ncontrolPlane:\n  localAPIEndpoint: {}\n"
        ));
        assert!(!runs_etcd(
            "kind: JoinConfiguration\nnodeRegistration: {}\n"
        ));
        assert!(!runs_etcd("# kind: nothing\n"));
    }
}
