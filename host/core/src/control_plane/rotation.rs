//! Rotation of a cluster's authorities: the CAs (`ca`, `etcd`, `proxy`) and the service account key (`sa`), without a request that fails for trust.
//!
//! What a machine trusts and who signs for it is fixed when it is made. So a rotation is a row of roll-outs, which the engine does anyway; this module
//! only says with which certificates machines are made, and since when. kubeadm is used as it is: it signs with the first certificate of `ca.crt`, and
//! everything that trusts (API servers, etcd, kubelets, kubeconfigs, pods) takes all certificates of the file.
//!
//! | stage | certificates in the Secrets | machines that are replaced | what is true at its end |
//! |---|---|---|---|
//! | `trust` | old signs, new is trusted beside it | control plane | control planes trust both |
//! | `learn` | the same | control plane, then workers | everybody trusts both |
//! | `sign` | new signs, old is trusted beside it | control plane | nobody signs with the old one any more |
//! | `renew` | the same | control plane, then workers | nothing that the old one signed is in use |
//! | `drop` | new alone | control plane, then workers | nobody trusts the old one |
//!
//! `learn` and `renew` replace the control plane once more because of what it says while only some of its machines are replaced, by whichever member leads: whom pods are told
//! to trust (they read it when they start), certificates of the kubelets that join, and tokens of service accounts.
//!
//! **State.** Each Secret says in an annotation which certificates it holds ([`Hold`]), written in the same request as they are. The Cluster says in
//! another one ([`Record`]) since when machines are made with them; it is written last, so that what is newer than it has them for sure. Both move with the
//! objects. Everything else is looked at: which machines are older than the record. A host that is killed anywhere finds the same next step.
//!
//! **Going back.** Taking the request away before `drop` turns the rotation around: from `trust` and `learn` the new certificates are dropped at once (they
//! have signed nothing), from `trust` with only those machines replaced that know of them; from `sign` and `renew` the old ones sign again first, in the same stages. From `drop` there is
//! no way back: the old keys are gone.

pub mod condition;
pub mod plan;

use capstan_api::annotation;
use capstan_api::v1beta2::Cluster;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lookup::Lookup;

/// Which certificates a Secret holds while a rotation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The old ones sign, both are trusted.
    OldSigns,
    /// The new ones sign, both are trusted.
    NewSigns,
    /// The new ones alone.
    New,
    /// The old ones alone.
    Old,
}

const HOLDS: [(Hold, &str); 4] = [
    (Hold::OldSigns, "old-signs"),
    (Hold::NewSigns, "new-signs"),
    (Hold::New, "new"),
    (Hold::Old, "old"),
];

impl Hold {
    /// The annotation's value: `<hold>/<rotation>`.
    #[must_use]
    pub fn text(self, id: &str) -> String {
        let word = HOLDS.iter().find(|(hold, _)| *hold == self);
        format!("{}/{id}", word.map_or("", |(_, word)| word))
    }

    /// Reads the annotation's value.
    #[must_use]
    pub fn parse(text: &str) -> Option<(Self, String)> {
        let (word, id) = text.split_once('/')?;
        let (hold, _) = HOLDS.iter().find(|(_, name)| *name == word)?;
        Some((*hold, id.to_owned()))
    }

    /// Whether both are trusted.
    #[must_use]
    pub fn is_both(self) -> bool {
        matches!(self, Self::OldSigns | Self::NewSigns)
    }
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The control plane trusts both.
    Trust,
    /// Everybody trusts both, pods included.
    Learn,
    /// The other ones sign.
    Sign,
    /// What was signed by both kinds of members is made again.
    Renew,
    /// What is no longer wanted goes.
    Drop,
    /// It is over.
    Done,
}

impl Stage {
    /// Whether workers are replaced in it.
    #[must_use]
    pub fn has_workers(self) -> bool {
        matches!(self, Self::Learn | Self::Renew | Self::Drop)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Learn => "learn",
            Self::Sign => "sign",
            Self::Renew => "renew",
            Self::Drop => "drop",
            Self::Done => "done",
        }
    }

    /// What comes after it.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Trust => Self::Learn,
            Self::Learn => Self::Sign,
            Self::Sign => Self::Renew,
            Self::Renew => Self::Drop,
            Self::Drop | Self::Done => Self::Done,
        }
    }

    /// The certificates that machines of this stage are made with.
    #[must_use]
    pub fn hold(self, undo: bool) -> Hold {
        match (self, undo) {
            (Self::Trust | Self::Learn, _) | (Self::Sign | Self::Renew, true) => Hold::OldSigns,
            (Self::Sign | Self::Renew, false) => Hold::NewSigns,
            (Self::Drop | Self::Done, false) => Hold::New,
            (Self::Drop | Self::Done, true) => Hold::Old,
        }
    }
}

/// What the Cluster's annotation says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the operator called it.
    pub id: String,
    /// How far it is.
    pub stage: Stage,
    /// It goes back to the old certificates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo: bool,
    /// Control-plane machines made since have the stage's certificates.
    pub since: Timestamp,
    /// Workers made since join a control plane that has them. Absent until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Timestamp>,
    /// Machines made before never got what goes. Absent when all did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spared: Option<Timestamp>,
}

impl Record {
    /// Reads a Cluster's annotation.
    ///
    /// # Errors
    /// When it is not what this host writes.
    pub fn of(cluster: &Cluster) -> Result<Option<Self>, String> {
        let annotations = cluster.metadata.annotations.as_ref();
        let Some(text) = annotations.and_then(|all| all.get(annotation::CA_ROTATION)) else {
            return Ok(None);
        };
        serde_json::from_str(text).map(Some).map_err(|error| {
            format!(
                "annotation {} of the Cluster cannot be read: {error}: put back what the host wrote, or remove it and the stage begins again",
                annotation::CA_ROTATION
            )
        })
    }

    /// The annotation's value.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it is under way.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.stage != Stage::Done
    }

    fn is_due(&self, made: Timestamp, since: Option<Timestamp>, now: Timestamp) -> bool {
        let is_spared = self.spared.is_some_and(|spared| made < spared);
        self.is_active() && !is_spared && since.is_some_and(|since| since <= now && made < since)
    }

    /// Whether a control-plane machine that was made then has to be replaced.
    #[must_use]
    pub fn is_machine_due(&self, made: Timestamp, now: Timestamp) -> bool {
        self.is_due(made, Some(self.since), now)
    }

    /// Whether workers, or a set of them, that were made then have to be replaced.
    #[must_use]
    pub fn are_workers_due(&self, made: Timestamp, now: Timestamp) -> bool {
        self.is_due(made, self.workers, now)
    }
}

/// Whether a rotation of the Cluster wants workers replaced that were made then.
#[must_use]
pub fn are_workers_due(cluster: &Lookup<Cluster>, made: Timestamp, now: Timestamp) -> bool {
    let record = cluster
        .found()
        .and_then(|cluster| Record::of(cluster).ok()?);
    record.is_some_and(|record| record.are_workers_due(made, now))
}

/// A Secret that is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSeen {
    /// Its name.
    pub name: String,
    /// What it holds, and of which rotation.
    pub hold: Option<(Hold, String)>,
    /// Why it cannot be rotated.
    pub obstacle: Option<String>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Name of its Machine.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// A MachineDeployment replaces it.
    pub is_deployed: bool,
}

/// What a rotation may look at besides the machines of the control plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Machines of this control plane's plugin take more than one certificate.
    pub is_supported: bool,
    /// The Secrets that are rotated.
    pub secrets: Vec<SecretSeen>,
    /// Why the kubeconfig cannot be renewed along the way.
    pub kubeconfig_obstacle: Option<String>,
    /// Whether machines that join are told to trust what the Secrets say; `Missing` when the cluster tells nobody.
    pub published: Lookup<bool>,
    /// The workers.
    pub workers: Vec<Worker>,
}

/// A rotation that the Secrets hold certificates of, which neither the record is about nor the operator asks for: it was given up before a record said
/// that it had begun.
#[must_use]
pub fn given_up(
    secrets: &[SecretSeen],
    record: Option<&Record>,
    asked: Option<&str>,
) -> Option<String> {
    let mut holds = secrets.iter().filter_map(|secret| secret.hold.as_ref());
    let other = holds.find(|(_, id)| {
        record.is_none_or(|record| record.id != *id) && asked.is_none_or(|asked| asked != id)
    });
    other.map(|(_, id)| id.clone())
}

/// The rotation that the operator asks for: an annotation of the control plane object.
#[must_use]
pub fn asked(object: &Value) -> Option<&str> {
    let all = object.pointer("/metadata/annotations")?;
    let text = all.get(annotation::ROTATE_CA)?.as_str()?.trim();
    (!text.is_empty()).then_some(text)
}
