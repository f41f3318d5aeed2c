//! `check`, `inspect` and `manifest`: what they say of real components, and with which exit code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::wasm;
use serde_json::{Value, json};

use crate::program::{file, plugin};

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_good_component_is_accepted_and_its_grants_are_named() {
    let file = file("infrastructure-local");
    let run = plugin(&["check", text(&file), "-o", "json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let answer = run.json();
    assert_eq!(answer["accepted"], true);
    assert_eq!(answer["name"], "infrastructure-local");
    let statuses: Vec<&Value> = answer["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| &condition["status"])
        .collect();
    assert_eq!(statuses, ["True", "True", "True", "False"]);
    let shown = plugin(&["check", text(&file)]).stdout;
    assert!(shown.contains("spec.grants"), "{shown}");
}

#[test]
fn grants_that_do_not_suffice_are_a_no() {
    let file = file("infrastructure-local");
    let dir = tempfile::tempdir().unwrap();
    let terms = dir.path().join("plugin.yaml");
    let check = |yaml: &str| {
        std::fs::write(&terms, yaml).unwrap();
        plugin(&["check", text(&file), "--grants", text(&terms)])
    };
    assert_eq!(check("grants: []").code, 3);
    let enough = "kind: Plugin\nspec:\n  grants:\n  - capability: http\n    http:\n      origins:\n      - origin: https://cloud.example.com\n";
    let run = check(enough);
    assert_eq!(run.code, 0, "{run:?}");
    let wrong = check("grant: []");
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("grant: no such field"), "{wrong:?}");
}

#[test]
fn what_no_host_loads_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.wasm");
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        plugin(&["check", text(&path), "-o", "json"])
    };
    let good = wasm::component("minimal-pre-delete-hook");
    for (bytes, condition, reason) in [
        (b"\0asm\x01\0\0\0".to_vec(), 0, "CoreModule"),
        (good[..good.len() / 2].to_vec(), 0, "Truncated"),
        (wasm::component("unknown-import"), 2, "UnknownImport"),
        (wasm::component("invalid-manifest"), 2, "ManifestInvalid"),
        (wasm::component("trap-in-manifest"), 2, "ManifestTrapped"),
    ] {
        let run = check(&bytes);
        assert_eq!(run.code, 3, "{reason}: {run:?}");
        let found = &run.json()["conditions"][condition];
        assert_eq!(
            (&found["status"], &found["reason"]),
            (&json!("False"), &json!(reason))
        );
        assert!(!found["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(plugin(&["check", "/nonexistent.wasm"]).code, 1);
    assert_eq!(plugin(&["check"]).code, 2);
}

#[test]
fn a_component_says_what_it_is_and_what_it_is_made_of() {
    let file = file("minimal-infrastructure");
    let run = plugin(&["inspect", text(&file), "-o", "json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let answer = run.json();
    assert_eq!(answer["name"], "infrastructure-rack");
    assert_eq!(answer["provides"], json!(["infrastructure"]));
    assert_eq!(answer["witVersion"], "0.1");
    assert_eq!(answer["kinds"][0]["kind"], "RackCluster");
    let size = |name: &str| answer["bytes"][name].as_u64().unwrap();
    assert_eq!(size("raw"), std::fs::metadata(&file).unwrap().len());
    assert!(size("zstd") < size("gzip") && size("gzip") < size("raw"));
    let local = plugin(&[
        "inspect",
        text(&crate::program::file("infrastructure-local")),
        "-o",
        "json",
    ]);
    let asked = &local.json()["capabilities"][0];
    assert_eq!(
        (&asked["name"], &asked["grant"]["capability"]),
        (&json!("http"), &json!("http"))
    );
    assert!(!asked["why"].as_str().unwrap().is_empty());
}

#[test]
fn a_manifest_has_the_component_and_the_grants_that_it_asks_for() {
    let file = file("infrastructure-local");
    let run = plugin(&["manifest", text(&file), "-n", "hosts"]);
    assert_eq!(run.code, 0, "{run:?}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&run.stdout).unwrap();
    let [made, map] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    let packed = map["binaryData"]["component.wasm.zst"].as_str().unwrap();
    let unpacked = zstd::decode_all(BASE64.decode(packed).unwrap().as_slice()).unwrap();
    assert_eq!(unpacked, wasm::component("infrastructure-local"));
    assert_eq!(map["metadata"]["namespace"], "hosts");
    assert_eq!(
        made["spec"]["source"]["configMap"]["name"],
        map["metadata"]["name"]
    );
    assert_eq!(made["spec"]["grants"][0]["capability"], "http");
    // What it prints is what `check --grants` reads, and what it grants suffices.
    let dir = tempfile::tempdir().unwrap();
    let terms = dir.path().join("all.yaml");
    std::fs::write(
        &terms,
        run.stdout
            .replace("https://...", "https://cloud.example.com"),
    )
    .unwrap();
    assert_eq!(
        plugin(&["check", text(&file), "--grants", text(&terms)]).code,
        0
    );
    let bare = plugin(&[
        "manifest",
        text(&file),
        "--no-grants",
        "--oci",
        "r.example.com/a:1",
        "-o",
        "json",
    ]);
    let items = bare.json()["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 1);
    assert_eq!(
        items[0]["spec"]["source"]["oci"]["image"],
        "r.example.com/a:1"
    );
    assert_eq!(items[0]["spec"].get("grants"), None);
}
