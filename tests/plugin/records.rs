//! `call`, `replay` and `test`: a provider is called from the command line, and its records are golden tests of the next build.

use std::path::Path;

use capstan_tests::wasm;
use serde_json::{Value, json};

use crate::program::{file, plugin};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_function_is_called_with_what_is_said_of_its_input() {
    let file = file("minimal-infrastructure");
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("machine.json");
    let call = |input_text: &Value| {
        std::fs::write(&input, input_text.to_string()).unwrap();
        plugin(&[
            "call",
            text(&file),
            "ensure-machine",
            "--input",
            text(&input),
            "-o",
            "json",
        ])
    };
    let cluster = json!({"spec": {"host": "192.0.2.1", "port": 6443}});
    let good =
        call(&json!({"infraCluster": cluster, "infraMachine": {"spec": {"address": "192.0.2.7"}}}));
    assert_eq!(good.code, 0, "{good:?}");
    assert_eq!(
        good.json()["answer"]["Ok"]["provider_id"],
        "rack://192.0.2.7"
    );
    // The provider's own failure is an answer that a host uses no more than a refused one.
    let bad = call(&json!({"infraCluster": {"spec": {"host": 3}}}));
    assert_eq!(bad.code, 3, "{bad:?}");
    assert!(
        bad.json()["error"].as_str().unwrap().contains("spec.host"),
        "{bad:?}"
    );
    let unknown = call(&json!({"infraMachin": {}}));
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("input.infra_machin: no such field"),
        "{unknown:?}"
    );
    let function = plugin(&["call", text(&file), "make-machine"]);
    assert!(
        function.code == 1 && function.stderr.contains("ensure-machine"),
        "{function:?}"
    );
    let example = plugin(&["call", text(&file), "ensure-machine", "--example"]);
    assert_eq!(example.json()["input"]["machine"]["kind"], "Machine");
}

#[test]
fn grants_are_needed_and_a_plan_has_no_effects() {
    let file = file("infrastructure-local");
    let dir = tempfile::tempdir().unwrap();
    let terms = dir.path().join("plugin.yaml");
    let yaml = "config:\n  endpoint: http://127.0.0.1:1\ngrants:\n- capability: http\n  http:\n    origins:\n    - origin: http://127.0.0.1:1\n      private: true\n  credentials:\n  - name: cloud-token\n    secretRef: {name: cloud-token, key: token}\n    scheme: Bearer\n    origins: [\"http://127.0.0.1:1\"]\n";
    std::fs::write(&terms, yaml).unwrap();
    let call = |more: &[&str]| {
        let arguments = ["call", text(&file), "ensure-cluster", "-o", "json"];
        plugin(&[&arguments, more].concat())
    };
    let without = call(&[]);
    assert_eq!(without.code, 3);
    assert_eq!(without.json()["reason"], "PluginRefused");
    let no_secret = call(&["--grants", text(&terms)]);
    let said = no_secret.json()["error"].to_string();
    assert!(
        no_secret.code == 3 && said.contains("--secret cloud-token/token=FILE"),
        "{no_secret:?}"
    );
    let token = dir.path().join("token");
    std::fs::write(&token, "a-secret-token").unwrap();
    let secret = format!("cloud-token/token={}", text(&token));
    let refused = call(&["--grants", text(&terms), "--secret", &secret]);
    // Nobody listens there: the request was made.
    assert!(
        refused.json()["error"].to_string().contains("no response"),
        "{refused:?}"
    );
    assert!(!refused.stdout.contains("a-secret-token"));
}

#[test]
fn records_are_golden_tests_of_the_next_build() {
    let file = file("minimal-infrastructure");
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("ready.json");
    let input = dir.path().join("input.txt");
    let said = json!({"infraCluster": {"spec": {"host": "192.0.2.1", "port": 6443}}, "infraMachine": {"spec": {"address": "192.0.2.7"}}});
    std::fs::write(&input, said.to_string()).unwrap();
    let made = plugin(&[
        "call",
        text(&file),
        "ensure-machine",
        "-i",
        text(&input),
        "--record",
        text(&record),
    ]);
    assert_eq!(made.code, 0, "{made:?}");
    let replay = plugin(&[
        "replay",
        text(&record),
        "--plugin",
        text(&file),
        "-o",
        "json",
    ]);
    assert_eq!(replay.code, 0, "{replay:?}");
    assert_eq!(
        (&replay.json()["same"], &replay.json()["sameDigest"]),
        (&json!(true), &json!(true))
    );
    let same = plugin(&["test", text(dir.path()), "--plugin", text(&file)]);
    assert_eq!(same.code, 0, "{same:?}");
    // A build whose machines have other provider IDs.
    let next = dir.path().join("next.wasm");
    let other = wasm::patched(
        &wasm::component("minimal-infrastructure"),
        "rack://",
        "shed://",
    );
    std::fs::write(&next, other).unwrap();
    let different = plugin(&["replay", text(&record), "--plugin", text(&next)]);
    assert_eq!(different.code, 3, "{different:?}");
    let line = "answer.Ok.provider_id: \"rack://192.0.2.7\" -> \"shed://192.0.2.7\"";
    assert!(different.stdout.contains(line), "{different:?}");
    let tested = plugin(&[
        "test",
        text(dir.path()),
        "--plugin",
        text(&next),
        "-o",
        "json",
    ]);
    assert_eq!((tested.code, &tested.json()["failed"]), (3, &json!(1)));
    assert_eq!(
        plugin(&[
            "test",
            text(dir.path()),
            "--plugin",
            text(&next),
            "--update"
        ])
        .code,
        0
    );
    assert_eq!(
        plugin(&["test", text(dir.path()), "--plugin", text(&next)]).code,
        0
    );
    let other_kind = crate::program::file("minimal-pre-delete-hook");
    let wrong = plugin(&["replay", text(&record), "--plugin", text(&other_kind)]);
    assert!(wrong.code != 0, "{wrong:?}");
}
