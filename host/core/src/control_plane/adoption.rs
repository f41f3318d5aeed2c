//! Control-plane machines that somebody else made: taken over as they are when nobody owns them and they fit, else refused with every
//! reason (contract: upstream `adoptMachines`).

use capstan_api::name::Version;
use serde::Serialize;

use super::{MaterialState, Observed, Step};
use crate::call::control_plane::Desired;
use crate::lookup::Lookup;

/// Minor versions between a machine and its new control plane.
const MINORS_APART_MAX: u64 = 1;

/// A control-plane machine of the cluster that is not this control plane's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Name of the Machine.
    pub name: String,
    /// UID of the Machine.
    pub uid: String,
    /// `spec.version`.
    pub version: String,
    /// Group and kind of its bootstrap config, if it has one.
    pub config: Option<(String, String)>,
    /// Kind and name of its controller.
    pub owner: Option<String>,
    /// It is being deleted.
    pub is_deleting: bool,
}

/// What becomes of such machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Machines that would be taken over, if nothing is in the way.
    pub machines: Vec<String>,
    /// Everything that is in the way, each with the way out.
    pub refused: Vec<String>,
    /// Nothing is in the way but that the cluster has not answered yet.
    #[serde(skip)]
    pub waits: bool,
}

/// Whether these machines can be taken over, with what there is of the cluster's Secrets: all, or none.
#[must_use]
pub fn judge(desired: &Desired, foreign: &[Foreign], material: &MaterialState) -> Verdict {
    let missing = &material.missing;
    let mut refused: Vec<String> = foreign
        .iter()
        .flat_map(|machine| in_the_way(desired, machine))
        .collect();
    if !foreign.is_empty() && !missing.is_empty() {
        refused.push(format!(
            "the Secrets {} do not exist: make them of what the machines have in /etc/kubernetes/pki, with {} and {}",
            missing.join(", "),
            crate::material::CERTIFICATE_KEY,
            crate::material::PRIVATE_KEY
        ));
    }
    if !foreign.is_empty() {
        refused.extend(material.unusable.iter().cloned());
        refused.extend(material.other_authority.clone());
    }
    Verdict {
        machines: foreign.iter().map(|machine| machine.name.clone()).collect(),
        refused,
        waits: false,
    }
}

fn in_the_way(desired: &Desired, machine: &Foreign) -> Vec<String> {
    let mut why = Vec::new();
    let mut say = |what: String| why.push(format!("Machine {}: {what}", machine.name));
    if let Some(owner) = &machine.owner {
        say(format!(
            "it belongs to {owner}: a control plane works with machines of its own only"
        ));
        return why;
    }
    if machine.is_deleting {
        say("it is being deleted: wait for its end".to_owned());
    }
    let wanted = (&desired.bootstrap_group, &desired.bootstrap_kind);
    match &machine.config {
        Some((group, kind)) if (group, kind) == wanted => {}
        Some((_, kind)) => say(format!(
            "its spec.bootstrap.configRef is a {kind}, and only machines of a {} can be taken over",
            desired.bootstrap_kind
        )),
        None => say(format!(
            "it has no spec.bootstrap.configRef: make a {} as it was bootstrapped with, and refer to it",
            desired.bootstrap_kind
        )),
    }
    match (
        Version::parse(&machine.version),
        Version::parse(&desired.version),
    ) {
        (Ok(has), Ok(wants)) => {
            let is_near =
                has.major == wants.major && has.minor.abs_diff(wants.minor) <= MINORS_APART_MAX;
            if !is_near {
                say(format!(
                    "it runs {}, more than one minor version from spec.version {}: set spec.version to what the machines run",
                    machine.version, desired.version
                ));
            }
        }
        _ => say(format!(
            "its spec.version {:?} is not a version: set it to what it runs",
            machine.version
        )),
    }
    why
}

/// What is known of the machines of others, once it is known what there should be. They are the cluster's when its API server answers to what
/// is made from its Secrets: those of another cluster would cut the machines off.
#[must_use]
pub fn verdict(observed: &Observed) -> Option<Verdict> {
    let Ok(desired) = &observed.desired else {
        return None;
    };
    let Lookup::Found(material) = &observed.material else {
        return None;
    };
    if observed.foreign.is_empty() {
        return None;
    }
    let mut verdict = judge(desired, &observed.foreign, material);
    if verdict.refused.is_empty() && !observed.connected {
        let mut why = UNPROVED.to_owned();
        match &observed.connection_said {
            Some(said) => why.push_str(&format!(": {said}")),
            None => verdict.waits = true,
        }
        verdict.refused.push(why);
    }
    Some(verdict)
}

/// Why machines are not taken over although nothing is wrong with them.
const UNPROVED: &str = "waiting for the API server to answer to a kubeconfig of the cluster's Secrets, which shows that they are those of its machines";

/// Whether the kubeconfig may be made that shows what the Secrets are worth.
#[must_use]
pub fn wants_proof(observed: &Observed) -> bool {
    match (&observed.desired, &observed.material) {
        (Ok(desired), Lookup::Found(material)) => judge(desired, &observed.foreign, material)
            .refused
            .is_empty(),
        _ => false,
    }
}

/// Takes them over, if nothing is in the way.
#[must_use]
pub fn steps(observed: &Observed) -> Vec<Step> {
    let is_free = verdict(observed).is_some_and(|verdict| verdict.refused.is_empty());
    if !is_free {
        return Vec::new();
    }
    let adopt = |machine: &Foreign| Step::AdoptMachine {
        name: machine.name.clone(),
        uid: machine.uid.clone(),
    };
    observed.foreign.iter().map(adopt).collect()
}
