//! What lies at the top, and that plugins and examples say what they are.

use crate::tree;

/// Everything that may be at the top: the project's parts, and files that tools and visitors look for there.
const TOP: [&str; 24] = [
    ".ci",
    ".gitattributes",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "STYLE.md",
    "clippy.toml",
    "deny.toml",
    "dev",
    "examples",
    "host",
    "justfile",
    "plugins",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "sdk-guest",
    "tests",
];

#[test]
fn the_top_holds_the_parts_and_nothing_else() {
    let mut found: Vec<&str> = tree::files()
        .iter()
        .map(|file| file.split('/').next().unwrap())
        .collect();
    found.dedup();
    let strange: Vec<String> = found
        .iter()
        .filter(|name| !TOP.contains(name) && **name != "wit")
        .map(|name| format!("{name}: put it below the part that it belongs to"))
        .collect();
    tree::none(&strange, "unexpected at the top");
    let optional = [".gitattributes", ".github", ".ci"];
    let missing: Vec<String> = TOP
        .iter()
        .chain(&["wit"])
        .filter(|name| !optional.contains(name) && !found.contains(name))
        .map(|name| (*name).to_owned())
        .collect();
    tree::none(&missing, "missing at the top");
}

#[test]
fn every_plugin_has_a_readme_and_a_name_of_kind_and_name() {
    const KINDS: [&str; 5] = [
        "infrastructure-",
        "bootstrap-",
        "control-plane-",
        "pre-delete-",
        "upgrade-",
    ];
    let mut problems = Vec::new();
    for plugin in tree::directories("plugins") {
        if !KINDS.iter().any(|kind| plugin.starts_with(kind)) {
            problems.push(format!("plugins/{plugin}: name it <kind>-<name>"));
        }
        if !tree::files().contains(&format!("plugins/{plugin}/README.md")) {
            problems.push(format!(
                "plugins/{plugin}/README.md is missing: what it does, needs and cannot do"
            ));
        }
        let manifest = tree::text(&format!("plugins/{plugin}/Cargo.toml"));
        if !manifest.contains(&format!("name = \"{plugin}\"")) {
            problems.push(format!(
                "plugins/{plugin}/Cargo.toml: name the package like the directory"
            ));
        }
    }
    tree::none(&problems, "plugins");
}

#[test]
fn there_is_a_minimal_example_of_every_plugin_kind() {
    let missing: Vec<String> = [
        "infrastructure",
        "bootstrap",
        "control-plane",
        "pre-delete-hook",
        "upgrade-strategy",
    ]
    .iter()
    .map(|kind| format!("examples/minimal-{kind}/src/lib.rs"))
    .filter(|file| !tree::files().contains(file))
    .collect();
    tree::none(&missing, "missing examples");
}
