//! What faults have done to the control-plane machines of a light cluster, beyond turning them off.

use std::collections::{BTreeMap, BTreeSet};

use crate::cloud::backend::Fault;

/// One thing that is wrong with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ill {
    /// No kubelet runs on it.
    NoKubelet,
    /// No etcd runs on it.
    NoEtcd,
    /// No API server runs on it.
    NoApiServer,
    /// Nothing gets in or out.
    NoLink,
    /// Its etcd does not reach the others.
    NoPeers,
    /// All that needs its disk takes long.
    SlowDisk,
    /// Its etcd serves under another authority.
    WrongCertificate,
    /// Its clock is years behind.
    WrongClock,
    /// Learners do not catch up with it.
    StarvesLearners,
}

impl Ill {
    /// What a fault lets begin (`true`) or end.
    pub(crate) fn of(fault: Fault) -> Option<(Self, bool)> {
        Some(match fault {
            Fault::StopKubelet => (Self::NoKubelet, true),
            Fault::StartKubelet => (Self::NoKubelet, false),
            Fault::StopEtcd => (Self::NoEtcd, true),
            Fault::StartEtcd => (Self::NoEtcd, false),
            Fault::StopApiServer => (Self::NoApiServer, true),
            Fault::StartApiServer => (Self::NoApiServer, false),
            Fault::LinkDown => (Self::NoLink, true),
            Fault::LinkUp => (Self::NoLink, false),
            Fault::PeersDown => (Self::NoPeers, true),
            Fault::PeersUp => (Self::NoPeers, false),
            Fault::SlowDisk => (Self::SlowDisk, true),
            Fault::QuickDisk => (Self::SlowDisk, false),
            Fault::WrongCertificate => (Self::WrongCertificate, true),
            Fault::RightCertificate => (Self::WrongCertificate, false),
            Fault::WrongClock => (Self::WrongClock, true),
            Fault::RightClock => (Self::WrongClock, false),
            Fault::StarveLearners => (Self::StarvesLearners, true),
            Fault::FeedLearners => (Self::StarvesLearners, false),
            Fault::Kill | Fault::Freeze | Fault::Thaw | Fault::FillDisk | Fault::FreeDisk => {
                return None;
            }
        })
    }
}

/// What is wrong, by machine.
#[derive(Debug, Default)]
pub(crate) struct Ills(BTreeMap<String, BTreeSet<Ill>>);

impl Ills {
    /// It begins, or ends.
    pub(crate) fn set(&mut self, instance: &str, ill: Ill, is_ill: bool) {
        let ills = self.0.entry(instance.to_owned()).or_default();
        if is_ill {
            ills.insert(ill);
        } else {
            ills.remove(&ill);
        }
    }

    /// Whether this is wrong with the machine.
    pub(crate) fn has(&self, instance: &str, ill: Ill) -> bool {
        self.0.get(instance).is_some_and(|ills| ills.contains(&ill))
    }

    /// A machine that was off is well when it comes back.
    pub(crate) fn clear(&mut self, instance: &str) {
        self.0.remove(instance);
    }

    /// Whether the other members of etcd have nothing of the one on this machine.
    pub(crate) fn is_apart(&self, instance: &str) -> bool {
        [
            Ill::NoEtcd,
            Ill::NoLink,
            Ill::NoPeers,
            Ill::WrongCertificate,
        ]
        .into_iter()
        .any(|ill| self.has(instance, ill))
    }

    /// Whether its kubelet is not heard of.
    pub(crate) fn is_silent(&self, instance: &str) -> bool {
        self.has(instance, Ill::NoKubelet) || self.has(instance, Ill::NoLink)
    }

    /// Whether nobody gets to its API server.
    pub(crate) fn is_deaf(&self, instance: &str) -> bool {
        self.has(instance, Ill::NoApiServer) || self.has(instance, Ill::NoLink)
    }
}
