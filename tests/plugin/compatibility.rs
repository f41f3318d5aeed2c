//! Components of every released version of the interfaces: each loads and answers in this build as it did when it was made.

use std::path::PathBuf;

use capstan_tests::wasm;

use crate::program::plugin;

/// What every version has a component of.
const KINDS: [&str; 5] = [
    "bootstrap",
    "control-plane",
    "infrastructure",
    "pre-delete-hook",
    "upgrade-strategy",
];

fn versions() -> Vec<PathBuf> {
    let all = std::fs::read_dir(wasm::root().join("tests/plugin/fixtures")).unwrap();
    let mut versions: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions
}

#[test]
fn components_of_every_released_version_load_and_answer() {
    let versions = versions();
    assert!(!versions.is_empty());
    for version in versions {
        for kind in KINDS {
            let dir = version.join(kind);
            let component = dir.join("component.wasm.zst");
            let component = component.to_str().unwrap();
            let checked = plugin(&["check", component, "-o", "json"]);
            assert_eq!(checked.code, 0, "{kind}: {checked:?}");
            let tested = plugin(&[
                "test",
                dir.to_str().unwrap(),
                "--plugin",
                component,
                "-o",
                "json",
            ]);
            assert_eq!(tested.code, 0, "{kind}: {tested:?}");
            let tested = tested.json();
            for record in tested["records"].as_array().unwrap() {
                assert_eq!(record["sameDigest"], true, "{kind}: {record}");
                assert!(
                    record["outcome"]["answer"].get("Ok").is_some(),
                    "{kind}: {record}"
                );
            }
        }
    }
}

#[test]
fn what_is_built_now_answers_like_the_first_of_its_version() {
    for kind in KINDS {
        let dir = wasm::root().join("tests/plugin/fixtures/v0.1").join(kind);
        let now = crate::program::file(&format!("minimal-{kind}"));
        let tested = plugin(&[
            "test",
            dir.to_str().unwrap(),
            "--plugin",
            now.to_str().unwrap(),
        ]);
        assert_eq!(tested.code, 0, "{kind}: {tested:?}");
    }
}
