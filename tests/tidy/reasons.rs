//! Every reason that the host gives is in the tables of `host/api/src/reason`, where `capstan explain` finds it.

use std::collections::BTreeSet;

use capstan_api::reason;

use crate::tree;

/// What is followed by a reason, as a literal, somewhere in its arguments.
const GIVERS: [&str; 9] = [
    "Report::no(",
    "Report::yes(",
    "Report::unknown(",
    "Report::new(",
    "Failure::transient(",
    "Failure::terminal(",
    "Failure::denied(",
    "Event::normal(",
    "Event::warning(",
];

/// The literals among the arguments that begin here.
fn literals(text: &str) -> Vec<&str> {
    let mut depth = 1_u32;
    let mut found = Vec::new();
    let mut begin = None;
    for (at, c) in text.char_indices() {
        match (begin, c) {
            (Some(first), '"') => {
                found.push(&text[first..at]);
                begin = None;
            }
            (Some(_), _) => {}
            (None, '"') => begin = Some(at + 1),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

#[test]
fn every_reason_that_the_host_gives_can_be_explained() {
    let known: BTreeSet<&str> = reason::all().iter().map(|word| word.word).collect();
    let mut unknown = BTreeSet::new();
    let sources = tree::ending(".rs");
    let host = sources
        .iter()
        .filter(|file| {
            ["host/core/src/", "host/controllers/src/"]
                .iter()
                .any(|dir| file.starts_with(dir))
        })
        .filter(|file| !file.contains("tests"));
    for file in host {
        let text = tree::text(file);
        let text = text.split("#[cfg(test)]").next().unwrap();
        for giver in GIVERS {
            for (at, _) in text.match_indices(giver) {
                let arguments = &text[at + giver.len()..];
                let mut words = literals(arguments);
                if giver.starts_with("Event") {
                    // Behind the reason comes what was done.
                    let is_literal = arguments.trim_start().starts_with('"');
                    words.truncate(usize::from(is_literal));
                }
                let reasons = words.into_iter().filter(|word| {
                    word.len() > 1
                        && word.starts_with(|c: char| c.is_ascii_uppercase())
                        && word.chars().all(|c| c.is_ascii_alphanumeric())
                });
                for word in reasons.filter(|word| !known.contains(word)) {
                    unknown.insert(format!("{file}: {word}"));
                }
            }
        }
    }
    let unknown: Vec<String> = unknown.into_iter().collect();
    tree::none(
        &unknown,
        "not in host/api/src/reason; add what it means and what to do",
    );
}
