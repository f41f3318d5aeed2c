//! Every condition type and reason that the host sets, with what it means and what to do about it.
//!
//! The words are Cluster API's (plus those of our own Plugin kind); [`all`] is what `capstan explain`
//! looks them up in.

use std::sync::LazyLock;

/// Defines words as constants and as rows of the module's table, from one text each.
macro_rules! words {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// The words of this module with their texts.
        pub(super) const TABLE: &[(&str, &str)] = &[$(($text, concat!($($doc),+))),+];
    };
}

pub mod addons;
pub mod cluster;
pub mod common;
pub mod condition_type;
pub mod event;
pub mod failure;
pub mod kubeadm;
pub mod machine;
pub mod machine_deployment;
pub mod machine_health_check;
pub mod machine_hook;
pub mod machine_pool;
pub mod plugin;
pub mod rotation;

/// A word with one of its meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// The condition type or reason.
    pub word: &'static str,
    /// What it is: a condition type, or whose reason.
    pub of: &'static str,
    /// What happened and what to do.
    pub text: &'static str,
}

static ALL: LazyLock<Vec<Word>> = LazyLock::new(|| {
    let tables = [
        ("condition type", condition_type::TABLE),
        ("reason of several kinds", common::TABLE),
        ("reason of a Cluster", cluster::TABLE),
        ("reason of a Machine", machine::TABLE),
        ("reason of a MachineDeployment", machine_deployment::TABLE),
        (
            "reason of a MachineHealthCheck",
            machine_health_check::TABLE,
        ),
        ("reason of a control plane", kubeadm::TABLE),
        (
            "reason of a control plane's CertificateAuthoritiesRotated",
            rotation::TABLE,
        ),
        ("reason of a MachineHook", machine_hook::TABLE),
        ("reason of a MachinePool", machine_pool::TABLE),
        ("reason of a Plugin", plugin::TABLE),
        ("reason of a ClusterResourceSet", addons::TABLE),
        ("reason why something failed", failure::TABLE),
        ("reason of an event", event::TABLE),
    ];
    let words = tables.into_iter().flat_map(|(of, table)| {
        table.iter().map(move |(word, text)| Word {
            word,
            of,
            text: text.trim(),
        })
    });
    words.collect()
});

/// Every condition type and reason with its text. A word that several kinds use in different ways has
/// one row for each use.
pub fn all() -> &'static [Word] {
    &ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_valid_reason_with_a_text() {
        for Word { word, text, .. } in all() {
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
            assert!(text.len() > 20 && text.ends_with('.'), "{word}: {text}");
        }
    }

    #[test]
    fn no_row_appears_twice() {
        let mut rows: Vec<_> = all().to_vec();
        rows.sort_unstable();
        let before = rows.len();
        rows.dedup();
        assert_eq!(before, rows.len());
    }
}
