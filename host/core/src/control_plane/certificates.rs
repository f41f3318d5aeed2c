//! When the certificates of a cluster end, as far as the host made or sees them: all in one list, the first to end first.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Member, Observed};
use crate::lookup::Lookup;

/// Entries of the list: four authorities and secrets of a plugin's own, a kubeconfig, and more machines than a control plane has.
const LISTED_MAX: usize = 64;

/// The list as the status has it. While the secrets cannot be read, what was listed stays.
#[must_use]
pub fn listed(observed: &Observed) -> Option<Value> {
    let Lookup::Found(material) = &observed.material else {
        return observed.object.pointer("/status/certificates").cloned();
    };
    let secrets = material.certificates.iter().cloned();
    let machines = observed.members.iter().filter_map(of_machine);
    let mut all: Vec<(Timestamp, String)> = secrets
        .chain(machines)
        .map(|(name, end)| (end, name))
        .collect();
    all.sort();
    let entries = all.into_iter().take(LISTED_MAX).map(|(end, name)| {
        let end = Timestamp::from_second(end.as_second()).unwrap_or(end);
        json!({"name": name, "expirationDate": end.to_string()})
    });
    let entries: Vec<Value> = entries.collect();
    (!entries.is_empty()).then_some(Value::Array(entries))
}

fn of_machine(member: &Member) -> Option<(String, Timestamp)> {
    Some((
        format!("apiserver of {}", member.name()),
        member.certificates_end()?,
    ))
}
