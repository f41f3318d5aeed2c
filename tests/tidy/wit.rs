//! Every capability is whole: an interface, a host module, an SDK module, and a row in SECURITY.md. What was released stays as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::tree;

/// The directory of the newest version, with its `worlds.wit`.
fn newest() -> (String, String) {
    let number = |file: &&String| -> Option<Vec<u32>> {
        let version = file.strip_prefix("wit/v")?.strip_suffix("/worlds.wit")?;
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    let files = tree::files().iter();
    let worlds = files
        .filter(|file| number(file).is_some())
        .max_by_key(number);
    let worlds = worlds.expect("a version with its worlds");
    let dir = worlds.strip_suffix("/worlds.wit").unwrap();
    (dir.to_owned(), tree::text(worlds))
}

/// What the world of all capabilities imports, and the version's directory.
fn capabilities() -> (String, Vec<String>) {
    let (dir, worlds) = newest();
    let names = worlds.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("import ")?.strip_suffix(';')?;
        Some(name.to_owned())
    });
    (dir, names.collect())
}

#[test]
fn every_capability_has_its_parts() {
    let (dir, names) = capabilities();
    assert!(!names.is_empty(), "worlds.wit imports nothing");
    let security = tree::text("SECURITY.md");
    let mut missing = Vec::new();
    for name in names {
        let module = name.replace('-', "_");
        for part in [
            format!("{dir}/{name}.wit"),
            format!("host/engine/src/capability/{module}.rs"),
            format!("sdk-guest/src/{module}.rs"),
        ] {
            if !tree::files().contains(&part) {
                missing.push(format!("{name}: {part}"));
            }
        }
        if !security.contains(&format!("| `{name}` |")) {
            missing.push(format!("{name}: a row in the table of SECURITY.md"));
        }
    }
    tree::none(&missing, "capabilities with a part missing");
}

#[test]
fn every_plugin_kind_has_its_parts() {
    let mut missing = Vec::new();
    let (dir, worlds) = newest();
    let kinds = worlds.lines().filter_map(|line| {
        let kind = line.trim().strip_prefix("export ")?.strip_suffix(';')?;
        (kind != "manifest").then(|| kind.to_owned())
    });
    for kind in kinds {
        let module = kind.replace('-', "_");
        for part in [
            format!("{dir}/{kind}.wit"),
            format!("sdk-guest/src/{module}.rs"),
            format!("examples/minimal-{kind}/src/lib.rs"),
        ] {
            if !tree::files().contains(&part) {
                missing.push(format!("{kind}: {part}"));
            }
        }
    }
    tree::none(&missing, "plugin kinds with a part missing");
}

/// What an interface says to a compiler: comments may get better, and lines may be broken elsewhere.
fn meaning(text: &str) -> String {
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    let code = code.collect::<Vec<_>>().join(" ");
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[test]
fn released_interfaces_never_change() {
    let text = tree::text("wit/released.txt");
    let released: BTreeMap<String, &str> = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .filter(|(digest, _)| digest.len() == 64)
        .map(|(digest, file)| (format!("wit/{file}"), digest))
        .collect();
    assert!(!released.is_empty(), "wit/released.txt has no digests");
    let mut problems = Vec::new();
    for (file, wanted) in &released {
        if !tree::files().contains(file) {
            problems.push(format!("{file} is gone"));
        } else if digest(&meaning(&tree::text(file))) != *wanted {
            problems.push(format!("{file} has changed"));
        }
    }
    let of_version = |file: &str| file.rsplit_once('/').map(|(dir, _)| dir.to_owned());
    let versions: Vec<_> = released
        .keys()
        .filter_map(|file| of_version(file))
        .collect();
    for file in tree::ending(".wit") {
        let is_released = of_version(file).is_some_and(|dir| versions.contains(&dir));
        if is_released && !released.contains_key(file) {
            problems.push(format!("{file} was not in that version"));
        }
    }
    tree::none(
        &problems,
        "plugins in use depend on these: put the change into the next version's directory (wit/README.md, rules for growth)",
    );
}

#[test]
fn comments_of_interfaces_may_change_and_nothing_else() {
    let one = "record a {\n    /// Old words.\n    b: u32,\n}";
    assert_eq!(meaning(one), meaning("record a { b: u32, } // new words"));
    assert_ne!(meaning(one), meaning("record a { b: u64, }"));
}

/// What the tool of the component model said when these tests were built.
fn semver() -> Value {
    serde_json::from_str(include_str!(concat!(env!("OUT_DIR"), "/semver.json"))).unwrap()
}

#[test]
fn todays_interfaces_serve_plugins_of_every_released_version() {
    let released = tree::text("wit/released.txt");
    let mut versions = Vec::new();
    let mut problems = Vec::new();
    for version in semver()["versions"].as_array().unwrap() {
        let name = version["version"].as_str().unwrap().to_owned();
        let worlds = version["worlds"].as_object().unwrap();
        let plugins = worlds.keys().filter(|world| world.ends_with("-plugin"));
        assert_eq!(plugins.count(), 5, "worlds of {name}: {worlds:?}");
        for (world, why) in worlds {
            if let Some(why) = why.as_str() {
                problems.push(format!("{name}, world {world}: {why}"));
            }
        }
        versions.push(name);
    }
    for line in released.lines().filter(|line| line.contains("  ")) {
        let version = line
            .split("  ")
            .nth(1)
            .and_then(|file| file.split('/').next());
        if let Some(version) =
            version.filter(|version| !versions.iter().any(|known| known == version))
        {
            problems.push(format!(
                "{version}: tests/plugin/fixtures/{version}/interfaces.wasm is missing"
            ));
        }
    }
    tree::none(
        &problems,
        "plugins in use depend on these (wit/README.md, rules for growth)",
    );
}

#[test]
fn changes_that_would_unload_plugins_are_told_from_those_that_would_not() {
    let answers = semver();
    let answers = answers["changes"].as_array().unwrap().clone();
    assert!(answers.len() >= 10);
    let mut problems = Vec::new();
    for answer in answers {
        let change = &answer["change"];
        let worlds = answer["worlds"].as_object().unwrap();
        let refused: Vec<&String> = worlds
            .iter()
            .filter(|(_, why)| !why.is_null())
            .map(|(world, _)| world)
            .collect();
        if change["works"].as_bool().unwrap() != refused.is_empty() {
            problems.push(format!("{}: refused in {refused:?}", change["what"]));
        }
    }
    tree::none(
        &problems,
        "the check of interfaces does not say what wit/README.md says",
    );
}
