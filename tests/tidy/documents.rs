//! What documents name exists: recipes, subcommands, files, tests.

use std::collections::BTreeSet;

use crate::tree;

/// The documents for people who build or use the project.
fn documents() -> Vec<&'static str> {
    tree::ending(".md")
}

/// Pieces of code in a document: fenced blocks line by line, and inline code.
fn code(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            pieces.push(line.trim().to_owned());
        } else {
            pieces.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    pieces
}

/// The words after each occurrence of a command at the beginning of a piece of code.
fn uses<'a>(pieces: &'a [String], command: &str) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    for piece in pieces {
        for part in piece.split("&&") {
            let part = part.trim().trim_start_matches("$ ");
            if let Some(rest) = part.strip_prefix(command)
                && rest.starts_with(' ')
            {
                found.push(rest.split_whitespace().collect());
            }
        }
    }
    found
}

fn recipes() -> BTreeSet<String> {
    let justfile = tree::text("justfile");
    let heads = justfile.lines().filter(|line| {
        line.starts_with(|c: char| c.is_ascii_lowercase())
            && line.contains(':')
            && !line.contains(":=")
    });
    heads
        .map(|line| line.split([' ', ':']).next().unwrap().to_owned())
        .collect()
}

#[test]
fn recipes_run_programs_in_a_way_that_cargo_knows() {
    let justfile = tree::text("justfile");
    let lines = justfile.lines().map(str::trim);
    let wrong: Vec<String> = lines
        .filter(|line| line.starts_with("cargo run ") && line.contains(" --workspace"))
        .map(str::to_owned)
        .collect();
    tree::none(
        &wrong,
        "cargo run takes no --workspace: build first, and name the program below {{target}}",
    );
}

#[test]
fn recipes_that_documents_name_exist() {
    let recipes = recipes();
    assert!(recipes.contains("test"), "{recipes:?}");
    let mut unknown = Vec::new();
    for document in documents() {
        let pieces = code(&tree::text(document));
        for command in ["./dev", "just"] {
            for words in uses(&pieces, command) {
                let name = words.first().copied().unwrap_or_default();
                let is_word = name.starts_with(|c: char| c.is_ascii_lowercase());
                if is_word && !recipes.contains(name) {
                    unknown.push(format!("{document}: {command} {name}"));
                }
            }
        }
    }
    tree::none(&unknown, "there is no such recipe in the justfile");
}

/// `crate-name` as the variant that clap makes a subcommand of.
fn variant(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}

#[test]
fn subcommands_that_documents_name_exist() {
    let own = tree::text("host/src/command.rs");
    let local = tree::text("host/local/src/command.rs") + &tree::text("host/src/command/local.rs");
    let has = |source: &str, name: &str| {
        let variant = variant(name);
        source.lines().any(|line| {
            let rest = line.trim().strip_prefix(&variant);
            rest.is_some_and(|rest| rest.starts_with(['(', ',', '{', ' ']))
        })
    };
    let mut unknown = Vec::new();
    for document in documents() {
        for words in uses(&code(&tree::text(document)), "capstan") {
            let is_name = |word: &&&str| word.starts_with(|c: char| c.is_ascii_lowercase());
            let Some(first) = words.first().filter(is_name) else {
                continue;
            };
            let second = words.get(1).filter(is_name);
            let is_known = match (*first, second) {
                ("local", Some(second)) => has(&local, second.trim_end_matches([',', '.'])),
                (first, _) => has(&own, first),
            };
            if !is_known {
                unknown.push(format!("{document}: capstan {}", words.join(" ")));
            }
        }
    }
    tree::none(&unknown, "there is no such subcommand");
}

#[test]
fn files_that_documents_link_to_exist() {
    let mut dead = Vec::new();
    for document in documents() {
        let dir = std::path::Path::new(document).parent().unwrap();
        for part in tree::text(document).split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !tree::root().join(dir).join(target).exists() {
                dead.push(format!("{document}: {target}"));
            }
        }
    }
    tree::none(&dead, "links that lead nowhere");
}

#[test]
fn paths_in_the_root_documents_exist() {
    let mut dead = Vec::new();
    for document in documents().into_iter().filter(|file| !file.contains('/')) {
        for piece in code(&tree::text(document)) {
            let path = piece.split("::").next().unwrap_or_default();
            let path = path.trim_end_matches('/');
            let first = path.split('/').next().unwrap_or_default();
            let is_ours =
                ["host", "wit", "plugins", "sdk-guest", "examples", "tests"].contains(&first);
            let is_plain = !path.contains(['<', '*', ' ', '{', '(', '>']);
            if is_ours && path.contains('/') && is_plain && !tree::root().join(path).exists() {
                dead.push(format!("{document}: {path}"));
            }
        }
    }
    tree::none(&dead, "paths that lead nowhere");
}

#[test]
fn tests_that_the_security_page_names_exist() {
    let mut missing = Vec::new();
    let mut named = 0;
    for piece in code(&tree::text("SECURITY.md")) {
        let Some((file, test)) = piece.split_once("::") else {
            continue;
        };
        if !file.ends_with(".rs") {
            continue;
        }
        named += 1;
        if !tree::files().iter().any(|known| known == file) {
            missing.push(format!("{file} does not exist"));
        } else if !tree::text(file).contains(&format!("fn {test}(")) {
            missing.push(format!("{file} has no test {test}"));
        }
    }
    assert!(named > 0, "SECURITY.md names no test");
    tree::none(&missing, "tests that SECURITY.md names");
}
