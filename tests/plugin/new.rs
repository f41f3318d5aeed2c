//! `new` and `build`: crates of every kind, outside of the workspace, that pass their tests and become components which a host takes.

use std::path::Path;
use std::process::Command;

use capstan_tests::wasm;

use crate::program::plugin_in;

/// Cargo in a new crate, without a network: with the versions of this workspace, and what it builds kept for the next kind.
fn cargo_test(dir: &Path) -> String {
    std::fs::copy(wasm::root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["test", "--offline"])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", dir.display());
    String::from_utf8(output.stdout).unwrap()
}

fn target() -> std::path::PathBuf {
    wasm::target_dir().join("plugin-new")
}

#[test]
fn a_new_plugin_of_every_kind_builds_and_passes_its_tests() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, package) in [
        ("infrastructure", "infrastructure-my-cloud"),
        ("bootstrap", "bootstrap-my-cloud"),
        ("control-plane", "control-plane-my-cloud"),
        ("pre-delete-hook", "pre-delete-my-cloud"),
        ("upgrade-strategy", "upgrade-my-cloud"),
    ] {
        let made = plugin_in(dir.path(), &["new", kind, "my-cloud"]);
        assert_eq!(made.code, 0, "{made:?}");
        let crate_dir = dir.path().join(package);
        let said = cargo_test(&crate_dir);
        assert!(
            said.contains(" passed; 0 failed") && said.contains("... ok"),
            "{said}"
        );
        let target = target();
        let target = target.to_str().unwrap();
        let built = plugin_in(
            &crate_dir,
            &[
                "build",
                "-o",
                "json",
                "--",
                "--offline",
                "--target-dir",
                target,
            ],
        );
        assert_eq!(built.code, 0, "{built:?}");
        let built = built.json();
        assert_eq!(built[0]["warnings"], serde_json::json!([]), "{built}");
        let file = built[0]["file"].as_str().unwrap();
        let checked = plugin_in(&crate_dir, &["check", file, "-o", "json"]);
        assert_eq!(checked.code, 0, "{checked:?}");
        assert_eq!(checked.json()["name"], package);
    }
    let again = plugin_in(dir.path(), &["new", "bootstrap", "my-cloud"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("not empty"), "{again:?}");
    let wrong = plugin_in(dir.path(), &["new", "bootstrap", "My_Cloud"]);
    assert!(
        wrong.code == 1 && wrong.stderr.contains("lower-case"),
        "{wrong:?}"
    );
}
