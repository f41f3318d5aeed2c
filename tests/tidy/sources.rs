//! Rules for every source file: its first line, its size, its module form, and what may not be in it.

use crate::tree;

/// Files longer than this are listed: time to split.
const LINES_WARN: usize = 400;
/// Files longer than this fail.
const LINES_MAX: usize = 700;

/// A second pair of bootstrap and control-plane plugins is not more than this: all else is the host's.
const PAIR_LINES_MAX: usize = 400;

fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs") || file.starts_with("tests/")
}

#[test]
fn every_file_begins_with_what_it_does() {
    let silent: Vec<String> = tree::ending(".rs")
        .into_iter()
        .filter(|file| !tree::text(file).starts_with("//! "))
        .map(str::to_owned)
        .collect();
    tree::none(
        &silent,
        "begin these with a `//! ` sentence that says what the file does or decides",
    );
}

#[test]
fn the_host_has_no_line_about_the_second_distribution() {
    let is_ours = |file: &&str| {
        ["core", "engine", "controllers"]
            .iter()
            .any(|part| file.starts_with(&format!("host/{part}/")))
    };
    let naming: Vec<String> = tree::ending(".rs")
        .into_iter()
        .filter(is_ours)
        .filter(|file| tree::text(file).to_lowercase().contains("k3s"))
        .map(str::to_owned)
        .collect();
    tree::none(&naming, "what plugins say is enough for the host");
}

#[test]
fn a_pair_of_plugins_for_another_distribution_is_small() {
    let is_of_pair = |file: &&str| {
        [
            "plugins/bootstrap-k3s/src/",
            "plugins/control-plane-k3s/src/",
        ]
        .iter()
        .any(|dir| file.starts_with(dir))
    };
    let lines: usize = tree::ending(".rs")
        .into_iter()
        .filter(is_of_pair)
        .map(|file| {
            let text = tree::text(file);
            let code = text.split("#[cfg(test)]").next().unwrap();
            code.lines().count()
        })
        .sum();
    assert!(lines > 100, "the pair is elsewhere");
    assert!(
        lines <= PAIR_LINES_MAX,
        "{lines} lines without tests, at most {PAIR_LINES_MAX}: what both pairs need belongs to the host"
    );
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for file in tree::ending(".rs")
        .into_iter()
        .filter(|file| !is_test(file))
    {
        let lines = tree::text(file).lines().count();
        if lines > LINES_MAX {
            long.push(format!("{file}: {lines} lines"));
        } else if lines > LINES_WARN {
            println!("{file}: {lines} lines, more than {LINES_WARN}");
        }
    }
    tree::none(&long, &format!("split these: more than {LINES_MAX} lines"));
}

#[test]
fn modules_are_named_by_their_file() {
    let named: Vec<String> = tree::ending("/mod.rs")
        .into_iter()
        .map(str::to_owned)
        .collect();
    tree::none(&named, "rename mod.rs to the module's name");
}

#[test]
fn nothing_is_left_for_later() {
    // In two pieces, so that this file does not contain them.
    let words = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X:"),
        ("#[ign", "ore"),
        ("HA", "CK:"),
    ];
    let words = words.map(|(a, b)| format!("{a}{b}"));
    let mut left = Vec::new();
    for file in tree::ending(".rs") {
        for (number, line) in tree::text(file).lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                left.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    tree::none(&left, "do it or leave it out");
}

#[test]
fn no_test_begins_with_the_word_test() {
    let mut named = Vec::new();
    for file in tree::ending(".rs") {
        for line in tree::text(file).lines() {
            if line
                .trim_start()
                .trim_start_matches("async ")
                .starts_with("fn test_")
            {
                named.push(format!("{file}: {}", line.trim()));
            }
        }
    }
    tree::none(&named, "name tests by what is true, without the prefix");
}

#[test]
fn nothing_names_a_machine_or_configures_a_registry() {
    let paths = [("/ro", "ot/"), ("/wor", "k/"), ("/Use", "rs/")];
    let settings = [
        ("replace-", "with"),
        ("GOPROXY", "="),
        ("sparse", "+http"),
        ("GOFLAGS=-mod=", "mod"),
    ];
    let patterns: Vec<String> = paths
        .iter()
        .chain(&settings)
        .map(|(a, b)| format!("{a}{b}"))
        .collect();
    let mut found = Vec::new();
    for file in tree::files() {
        for (number, line) in tree::text(file).lines().enumerate() {
            for pattern in &patterns {
                let begins = line.find(pattern.as_str());
                let before = begins.and_then(|at| line[..at].chars().last());
                // Inside of a longer path or of a URL it names no machine.
                let is_inside =
                    before.is_some_and(|c| c.is_alphanumeric() || c == '.' || c == '-' || c == '_');
                if begins.is_some() && !is_inside {
                    found.push(format!("{file}:{}: {pattern}", number + 1));
                }
            }
        }
    }
    tree::none(
        &found,
        "paths of a machine and registries belong into its own configuration",
    );
}

#[test]
fn everything_locked_comes_from_the_public_registry() {
    let lock = tree::text("Cargo.lock");
    let sources = lock
        .lines()
        .filter_map(|line| line.strip_prefix("source = "));
    let strange: Vec<String> = sources
        .filter(|source| *source != "\"registry+https://github.com/rust-lang/crates.io-index\"")
        .map(str::to_owned)
        .collect();
    tree::none(&strange, "dependencies from elsewhere");
}

/// What an author writes for a provider that makes real machines: the example must stay as small as what is said of it.
const HARBOUR_LINES_MAX: usize = 200;

#[test]
fn a_provider_is_two_hundred_lines() {
    let text = tree::text("examples/infrastructure-harbour/src/lib.rs");
    let written = text.lines().map(str::trim);
    let written = written.filter(|line| !line.is_empty() && !line.starts_with("//"));
    let count = written.count();
    assert!(count > 100, "{count} lines: is it the example?");
    assert!(
        count <= HARBOUR_LINES_MAX,
        "examples/infrastructure-harbour has {count} lines of code, more than {HARBOUR_LINES_MAX}"
    );
}

#[test]
fn every_guest_is_used_by_a_test() {
    let guests: Vec<String> = tree::directories("tests/guests");
    assert!(!guests.is_empty(), "there are guests");
    let mut tests = tree::ending(".rs");
    tests.retain(|file| is_test(file) && !file.starts_with("tests/guests/"));
    let texts: Vec<String> = tests.into_iter().map(tree::text).collect();
    let idle: Vec<String> = guests
        .into_iter()
        .filter(|guest| {
            let name = guest.rsplit('/').next().unwrap_or_default();
            let literal = format!("\"{name}\"");
            !texts.iter().any(|text| text.contains(&literal))
        })
        .collect();
    tree::none(&idle, "no test names these guests: use or delete them");
}
