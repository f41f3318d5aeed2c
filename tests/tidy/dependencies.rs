//! Who may depend on whom: the edges of ARCHITECTURE.md, read from the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::tree;

/// Our crates, each with those of ours that it may use.
const EDGES: [(&str, &[&str]); 7] = [
    (
        "capstan",
        &[
            "capstan-api",
            "capstan-controllers",
            "capstan-core",
            "capstan-engine",
            "capstan-local",
        ],
    ),
    (
        "capstan-controllers",
        &["capstan-api", "capstan-core", "capstan-engine"],
    ),
    ("capstan-engine", &["capstan-api", "capstan-core"]),
    ("capstan-core", &["capstan-api"]),
    ("capstan-api", &[]),
    ("capstan-local", &[]),
    ("capstan-sdk", &[]),
];

/// Crates of tests, which may use all of ours.
const TESTS: [&str; 3] = [
    "capstan-tests",
    "capstan-simulation",
    "capstan-strategy-tests",
];

/// Crates of others that may be used by one of ours only, or not by one of ours.
const ONLY: [(&str, &[&str]); 4] = [
    ("wasmtime", &["capstan-engine"]),
    ("wasmtime-wasi", &["capstan-engine"]),
    ("opentelemetry_sdk", &["capstan"]),
    (
        "wit-bindgen",
        &["capstan-sdk", "engine-probe", "unknown-import"],
    ),
];

/// What must not be in a crate that only decides.
const NOT_PURE: [&str; 8] = [
    "tokio", "kube", "wasmtime", "hyper", "axum", "rand", "futures", "reqwest",
];

struct Package {
    path: String,
    /// Name and features of what it depends on, outside of tests.
    uses: BTreeMap<String, BTreeSet<String>>,
    /// Also in tests.
    uses_anywhere: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(tree::root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let texts = |value: &Value| -> BTreeSet<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
    };
    let root = tree::root().canonicalize().unwrap();
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut uses_anywhere = BTreeSet::new();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap().to_owned();
            uses_anywhere.insert(name.clone());
            if dependency["kind"] != "dev" {
                uses.entry(name)
                    .or_default()
                    .extend(texts(&dependency["features"]));
            }
        }
        let path = package["manifest_path"].as_str().unwrap();
        let path = std::path::Path::new(path)
            .parent()
            .unwrap()
            .canonicalize()
            .unwrap();
        let path = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let name = package["name"].as_str().unwrap().to_owned();
        packages.insert(
            name,
            Package {
                path,
                uses,
                uses_anywhere,
            },
        );
    }
    packages
}

#[test]
fn dependencies_go_one_way() {
    let packages = packages();
    let mut problems = Vec::new();
    for (name, package) in &packages {
        let is_guest = ["plugins/", "examples/", "tests/guests/"]
            .iter()
            .any(|below| package.path.starts_with(below));
        let allowed: Vec<&str> = match EDGES.iter().find(|(known, _)| known == name) {
            Some((_, allowed)) => allowed.to_vec(),
            None if TESTS.contains(&name.as_str()) => {
                continue;
            }
            None if is_guest => vec!["capstan-sdk"],
            None => {
                problems.push(format!(
                    "{name} is not in the picture: add it to tests/tidy/dependencies.rs"
                ));
                continue;
            }
        };
        for used in &package.uses_anywhere {
            if packages.contains_key(used) && !allowed.contains(&used.as_str()) {
                problems.push(format!("{name} -> {used}: only {allowed:?} are allowed"));
            }
        }
    }
    tree::none(
        &problems,
        "dependencies that ARCHITECTURE.md does not allow",
    );
}

#[test]
fn only_controllers_have_a_kubernetes_client() {
    let with_client: Vec<String> = packages()
        .into_iter()
        .filter(|(name, package)| {
            let features = package.uses.get("kube");
            let has_client =
                features.is_some_and(|f| f.contains("client") || f.contains("runtime"));
            has_client && !["capstan-controllers", "capstan-tests"].contains(&name.as_str())
        })
        .map(|(name, _)| name)
        .collect();
    tree::none(
        &with_client,
        "only capstan-controllers has a Kubernetes client",
    );
}

/// What is too large for a guest: all types of Kubernetes made a component of 1.1 MB, which took 14 s and 655 MB to compile.
const TOO_LARGE: [&str; 3] = ["k8s-openapi", "kube", "capstan-api"];

#[test]
fn guests_carry_no_library_of_kubernetes() {
    let mut problems = Vec::new();
    for (name, package) in packages() {
        let is_guest = ["plugins/", "examples/", "tests/guests/", "sdk-guest"]
            .iter()
            .any(|below| package.path.starts_with(below));
        let large = TOO_LARGE
            .iter()
            .filter(|large| package.uses.contains_key(**large));
        problems.extend(
            large
                .filter(|_| is_guest)
                .map(|large| format!("{name} -> {large}")),
        );
    }
    tree::none(
        &problems,
        "the SDK's slim types have what a plugin needs of Kubernetes",
    );
}

#[test]
fn wasmtime_and_wit_stay_where_they_belong() {
    let mut problems = Vec::new();
    for (name, package) in packages() {
        for (used, allowed) in ONLY {
            if package.uses_anywhere.contains(used) && !allowed.contains(&name.as_str()) {
                problems.push(format!("{name} -> {used}: only {allowed:?}"));
            }
        }
    }
    tree::none(&problems, "dependencies in the wrong crate");
}

#[test]
fn what_decides_is_pure() {
    let packages = packages();
    let mut problems = Vec::new();
    for name in ["capstan-core", "capstan-api", "capstan-sdk"] {
        for used in packages[name].uses.keys() {
            // The API's types are derived with kube's macros, without its client.
            if NOT_PURE.contains(&used.as_str()) && !(name == "capstan-api" && used == "kube") {
                problems.push(format!("{name} -> {used}"));
            }
        }
    }
    tree::none(
        &problems,
        "no I/O, no clock, no async in crates that decide",
    );
}

#[test]
fn every_version_is_in_the_workspace_table() {
    let mut problems = Vec::new();
    for file in tree::ending("/Cargo.toml") {
        let mut in_dependencies = false;
        for line in tree::text(file).lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                problems.push(format!("{file}: {line}"));
            }
        }
    }
    tree::none(
        &problems,
        "put versions into [workspace.dependencies] of the root Cargo.toml",
    );
}
