//! The table of conformance rules names tests that exist.

use crate::tree;

#[test]
fn tests_that_the_conformance_table_names_exist() {
    let sources: Vec<(&str, String)> = tree::ending(".rs")
        .into_iter()
        .map(|file| (file, tree::text(file)))
        .collect();
    let mut unknown = Vec::new();
    for line in tree::text("tests/conformance/rules.yaml").lines() {
        let Some(test) = line
            .trim()
            .strip_prefix("- ")
            .filter(|t| !t.starts_with("id:"))
        else {
            continue;
        };
        let (target, path) = test.split_once(' ').unwrap();
        let dir = match target {
            "core" => "host/core/src/",
            "rollout" => "host/core/tests/",
            "api" => "host/api/src/",
            "controllers" => "host/controllers/src/",
            "engine" => "host/engine/src/",
            "bootstrap-kubeadm" => "plugins/bootstrap-kubeadm/src/",
            "control-plane-kubeadm" => "plugins/control-plane-kubeadm/src/",
            "it" => "tests/it/",
            other => panic!("{other} is no target of the conformance table"),
        };
        let name = path.rsplit("::").next().unwrap();
        let module = path.split("::").next().unwrap();
        let declared = format!("fn {name}(");
        let exists = sources.iter().any(|(file, text)| {
            file.strip_prefix(dir)
                .is_some_and(|rest| rest.starts_with(module) || target == "rollout")
                && text.contains(&declared)
        });
        if !exists {
            unknown.push(test.to_owned());
        }
    }
    tree::none(
        &unknown,
        "no such test; correct tests/conformance/rules.yaml",
    );
}
