//! What was asked of a light etcd that it refused for its majority's sake, and whether who asked could have known.

use std::collections::BTreeMap;

use super::Running;
use crate::cloud::backend::EtcdRefusal;

/// Refusals that are kept: whoever looks for them is content with the first.
const REFUSALS_MAX: usize = 100;

/// Clients that are told apart: the host's, a test's, an administrator's.
const ASKERS_MAX: usize = 16;

/// What clients have asked since a member stopped or began to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    running: Running,
    /// How often each was told who the members are.
    lists: BTreeMap<String, u32>,
    refusals: Vec<EtcdRefusal>,
}

impl Asked {
    /// Looks where etcd runs now. When that is not as before, nobody has been told anything yet.
    pub(super) fn look(&mut self, running: &Running) {
        if self.running != *running {
            self.running.clone_from(running);
            self.lists.clear();
        }
    }

    /// A client was told who the members are.
    pub(super) fn listed(&mut self, asker: &str) {
        if let Some(lists) = self.lists.get_mut(asker) {
            *lists = lists.saturating_add(1);
        } else if self.lists.len() < ASKERS_MAX {
            self.lists.insert(asker.to_owned(), 1);
        }
    }

    /// A client was refused the removal of a member without which there would be no majority.
    pub(super) fn refused(&mut self, asker: &str, member: &str) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(EtcdRefusal {
                asker: asker.to_owned(),
                member: member.to_owned(),
                lists: self.lists.get(asker).copied().unwrap_or_default(),
            });
        }
    }

    /// What was refused.
    pub(crate) fn refusals(&self) -> &[EtcdRefusal] {
        &self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_after_the_last_change_could_have_known() {
        let mut asked = Asked::default();
        let three: Running = ["i-1", "i-2", "i-3"].map(str::to_owned).into();
        asked.look(&three);
        asked.listed("host");
        asked.listed("host");
        let two: Running = ["i-1", "i-2"].map(str::to_owned).into();
        asked.look(&two);
        asked.refused("host", "node-2");
        asked.look(&two);
        asked.listed("test");
        asked.listed("host");
        asked.listed("host");
        asked.refused("host", "node-2");
        let lists: Vec<u32> = asked.refusals().iter().map(|r| r.lists).collect();
        assert_eq!(lists, [0, 2]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut asked = Asked::default();
        for number in 0..1000 {
            asked.listed(&format!("client-{number}"));
            asked.refused("host", "node-1");
        }
        assert_eq!(asked.lists.len(), ASKERS_MAX);
        assert_eq!(asked.refusals().len(), REFUSALS_MAX);
    }
}
