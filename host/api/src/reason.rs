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

pub mod cluster;
pub mod common;
pub mod condition_type;
pub mod kubeadm;
pub mod machine;
pub mod machine_deployment;
pub mod machine_health_check;
pub mod machine_hook;
pub mod plugin;

static ALL: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    let tables = [
        condition_type::TABLE,
        common::TABLE,
        cluster::TABLE,
        machine::TABLE,
        machine_deployment::TABLE,
        machine_health_check::TABLE,
        kubeadm::TABLE,
        machine_hook::TABLE,
        plugin::TABLE,
    ];
    tables
        .into_iter()
        .flatten()
        .map(|(word, text)| (*word, text.trim()))
        .collect()
});

/// Every condition type and reason with its text. A word that several kinds use in different ways has
/// one row for each use.
pub fn all() -> &'static [(&'static str, &'static str)] {
    &ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_valid_reason_with_a_text() {
        for (word, text) in all() {
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
