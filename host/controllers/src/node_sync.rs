//! What goes from Machines to their Nodes beyond Cluster API's domains: labels and annotations whose keys an operator chose by pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use capstan_core::machine::node::Chosen;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use regex::Regex;

/// A regular expression that chooses keys; it matches anywhere in a key unless it is anchored.
#[derive(Clone, Debug)]
pub struct KeyPattern(Regex);

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl FromStr for KeyPattern {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, regex::Error> {
        Regex::new(text).map(Self)
    }
}

/// Which keys go over.
#[derive(Clone, Debug, Default)]
pub struct NodeSync {
    /// Of labels.
    pub labels: Vec<KeyPattern>,
    /// Of annotations.
    pub annotations: Vec<KeyPattern>,
}

impl NodeSync {
    /// The keys of a Machine that go over.
    #[must_use]
    pub fn chosen(&self, machine: &ObjectMeta) -> Chosen {
        Chosen {
            labels: matching(&self.labels, machine.labels.as_ref()),
            annotations: matching(&self.annotations, machine.annotations.as_ref()),
        }
    }
}

fn matching(patterns: &[KeyPattern], all: Option<&BTreeMap<String, String>>) -> BTreeSet<String> {
    let keys = all.into_iter().flat_map(BTreeMap::keys);
    let chosen = keys.filter(|key| patterns.iter().any(|pattern| pattern.0.is_match(key)));
    chosen.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_chosen_by_any_of_the_patterns_and_none_without() {
        let all: BTreeMap<String, String> = ["example.com/team", "team", "other"]
            .map(|key| (key.to_owned(), String::new()))
            .into();
        let machine = ObjectMeta {
            labels: Some(all.clone()),
            annotations: Some(all),
            ..ObjectMeta::default()
        };
        assert_eq!(NodeSync::default().chosen(&machine), Chosen::default());
        let sync = NodeSync {
            labels: vec!["^example[.]com/".parse().unwrap(), "^oth".parse().unwrap()],
            annotations: vec!["team".parse().unwrap()],
        };
        let chosen = sync.chosen(&machine);
        assert!(chosen.labels.iter().eq(["example.com/team", "other"]));
        assert!(chosen.annotations.iter().eq(["example.com/team", "team"]));
        assert!("(".parse::<KeyPattern>().is_err());
    }
}
