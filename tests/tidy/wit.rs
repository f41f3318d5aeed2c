//! Every capability is whole: an interface, a host module, an SDK module, and a row in SECURITY.md.

use crate::tree;

/// What the world of all capabilities imports.
fn capabilities() -> Vec<String> {
    let worlds = tree::text("wit/v0.1/worlds.wit");
    let names = worlds.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("import ")?.strip_suffix(';')?;
        Some(name.to_owned())
    });
    names.collect()
}

#[test]
fn every_capability_has_its_parts() {
    let names = capabilities();
    assert!(!names.is_empty(), "worlds.wit imports nothing");
    let security = tree::text("SECURITY.md");
    let mut missing = Vec::new();
    for name in names {
        let module = name.replace('-', "_");
        for part in [
            format!("wit/v0.1/{name}.wit"),
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
    let worlds = tree::text("wit/v0.1/worlds.wit");
    let kinds = worlds.lines().filter_map(|line| {
        let kind = line.trim().strip_prefix("export ")?.strip_suffix(';')?;
        (kind != "manifest").then(|| kind.to_owned())
    });
    for kind in kinds {
        let module = kind.replace('-', "_");
        for part in [
            format!("wit/v0.1/{kind}.wit"),
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
