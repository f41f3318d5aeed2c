//! Which machines belong together.

use std::collections::BTreeMap;

use capstan_sdk::upgrade_strategy::{Facts, Machine};

use crate::{GroupBy, Settings};

/// Old machines that go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    /// What they have in common, for people.
    pub(crate) name: String,
    /// The machines, each with its set.
    pub(crate) machines: Vec<(&'a str, &'a Machine)>,
}

impl Group<'_> {
    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.machines.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn available(&self) -> u32 {
        let available = self.machines.iter().filter(|(_, m)| m.available).count();
        u32::try_from(available).unwrap_or(u32::MAX)
    }
}

fn key(by: &GroupBy, machine: &Machine) -> String {
    match by {
        GroupBy::FailureDomain => machine.failure_domain.clone().unwrap_or_default(),
        GroupBy::CapacityClass => machine.capacity_class.clone(),
        GroupBy::Label(label) => {
            let value = machine.labels.iter().find(|(key, _)| key == label);
            value.map(|(_, value)| value.clone()).unwrap_or_default()
        }
        GroupBy::Nothing => String::new(),
    }
}

/// The groups of old machines: those with broken machines first, because they are of no use as they are, then by name.
pub(crate) fn groups(facts: &Facts<Settings>) -> Vec<Group<'_>> {
    let settings = &facts.settings;
    let mut by_key: BTreeMap<String, Vec<(&str, &Machine)>> = BTreeMap::new();
    for set in facts.old() {
        for machine in set.machines.iter().filter(|machine| !machine.deleting) {
            by_key
                .entry(key(&settings.group_by, machine))
                .or_default()
                .push((&set.name, machine));
        }
    }
    let mut groups = Vec::new();
    for (key, mut machines) in by_key {
        machines.sort_by_key(|(_, machine)| machine.name.as_str());
        let size = settings
            .size
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size > 0)
            .unwrap_or(usize::MAX)
            .min(machines.len().max(1));
        for chunk in machines.chunks(size) {
            let name = if key.is_empty() {
                format!("of {} machines", chunk.len())
            } else {
                format!("{key} of {} machines", chunk.len())
            };
            groups.push(Group {
                name,
                machines: chunk.to_vec(),
            });
        }
    }
    groups.sort_by_key(|group| {
        let broken = group.size().saturating_sub(group.available());
        (std::cmp::Reverse(broken), group.name.clone())
    });
    groups
}
