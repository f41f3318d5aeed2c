//! What a machine is given to report a failed bootstrap with.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{cluster, joined, materials, question};
use crate::data::{data, kubeadm_command};
use crate::file::Content;
use crate::question::{Question, Report, Role};
use crate::report;

pub(super) const REPORT: Report<'static> = Report {
    url: "https://host:9443/v1/bootstrap-report/g/k/n/m",
    authority: "CERTIFICATE",
    token: 5,
};

#[test]
fn who_may_report_has_script_authority_and_token_and_who_may_not_has_nothing() {
    let (cluster, cloud_config) = (cluster(), json!({}));
    let ignition = json!({"format": "ignition"});
    for (spec, dir) in [
        (&cloud_config, "/run/cluster-api"),
        (&ignition, "/etc/cluster-api"),
    ] {
        let mut asked = question(&cluster, spec, Role::JoinWorker, "v1.36.3");
        let without = joined(data(&asked, &materials()).unwrap().parts);
        assert!(!without.contains("bootstrap-report"));
        asked.report = Some(REPORT);
        let with = joined(data(&asked, &materials()).unwrap().parts);
        for name in ["sh", "crt", "token"] {
            assert!(
                with.contains(&format!("{dir}/bootstrap-report.{name}")),
                "{with}"
            );
        }
    }
}

#[test]
fn a_machine_of_windows_is_not_given_a_shells_script() {
    let cluster = cluster();
    let socket =
        |kind: &str, socket: &str| json!({kind: {"nodeRegistration": {"criSocket": socket}}});
    let has = |spec: &serde_json::Value, role: Role| {
        let mut asked = question(&cluster, spec, role, "v1.36.3");
        asked.report = Some(REPORT);
        joined(data(&asked, &materials()).unwrap().parts).contains("bootstrap-report")
    };
    let pipe = "npipe:////./pipe/containerd-containerd";
    for role in [Role::JoinWorker, Role::JoinControlPlane] {
        assert!(!has(&socket("joinConfiguration", pipe), role));
        assert!(has(
            &socket("joinConfiguration", "unix:///run/c.sock"),
            role
        ));
        assert!(has(&socket("initConfiguration", pipe), role));
    }
    assert!(!has(&socket("initConfiguration", pipe), Role::Init));
}

#[test]
fn a_host_that_starts_is_tried_again() {
    let (cluster, spec) = (cluster(), json!({}));
    let mut asked = question(&cluster, &spec, Role::JoinWorker, "v1.36.3");
    asked.report = Some(REPORT);
    let text = joined(data(&asked, &materials()).unwrap().parts);
    assert!(text.contains("--retry 5 --retry-connrefused"), "{text}");
}

#[test]
fn the_command_keeps_its_exit_code_and_the_script_survives_templates() {
    let (cluster, spec) = (cluster(), json!({}));
    let asked = Question {
        report: Some(REPORT),
        ..question(&cluster, &spec, Role::Init, "v1.36.3")
    };
    let with = joined(data(&asked, &materials()).unwrap().parts);
    let command = "kubeadm init --config /run/kubeadm/kubeadm.yaml && echo success > /run/cluster-api/bootstrap-success.complete \
                   || sh /run/cluster-api/bootstrap-report.sh kubeadm-init $?";
    let yaml: serde_json::Value = serde_saphyr::from_str(&with).unwrap();
    assert_eq!(yaml["runcmd"][1], command);
    let files = report::files(&asked);
    let script = files
        .iter()
        .find(|file| file.path.ends_with(".sh"))
        .unwrap();
    let Content::Text(script) = &script.content else {
        panic!("the script is text")
    };
    assert!(script.ends_with("exit \"$2\"\n"));
    assert!(
        !["{{", "{%", "{#"]
            .iter()
            .any(|marker| script.contains(marker)),
        "{script}"
    );
}

/// What the commands of a machine report in a directory that stands for its file system's.
fn reported(format: &str, before: &str, kubeadm: &str) -> String {
    run(format, before, kubeadm, &[]).0
}

/// What they report, and what they print, with these after kubeadm.
fn run(format: &str, before: &str, kubeadm: &str, after: &[&str]) -> (String, String) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let spec =
        json!({"format": format, "preKubeadmCommands": [before], "postKubeadmCommands": after});
    let cluster = cluster();
    let asked = Question {
        report: Some(REPORT),
        ..question(&cluster, &spec, Role::JoinWorker, "v1.36.3")
    };
    let dir = std::env::temp_dir().join(format!(
        "bootstrap-report-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&dir).unwrap();
    let place = dir.to_str().unwrap();
    std::fs::write(dir.join("bootstrap-report.token"), "t").unwrap();
    let script =
        format!("echo $1 $2 >> {place}/said\nrm -f {place}/bootstrap-report.token\nexit $2\n");
    std::fs::write(dir.join("bootstrap-report.sh"), script).unwrap();
    let commands = if format == "ignition" {
        crate::ignition::script(&asked, None)
    } else {
        let text = joined(data(&asked, &materials()).unwrap().parts);
        let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let commands = yaml["runcmd"].as_array().unwrap().iter();
        let lines: Vec<&str> = commands.map(|command| command.as_str().unwrap()).collect();
        format!("#!/bin/sh\n{}\n", lines.join("\n"))
    };
    let commands = commands
        .replace("mv /etc/kubeadm.yml /tmp/", "true")
        .replace("/run/cluster-api", place)
        .replace("/etc/cluster-api", place)
        .replace(&kubeadm_command(&asked), kubeadm);
    let path = dir.join("commands");
    std::fs::write(&path, commands).unwrap();
    let output = std::process::Command::new("bash")
        .arg(&path)
        .output()
        .unwrap();
    let said = std::fs::read_to_string(dir.join("said")).unwrap_or_default();
    assert!(
        !dir.join("bootstrap-report.token").exists(),
        "what would tell is gone when there is nothing to tell any more"
    );
    std::fs::remove_dir_all(&dir).unwrap();
    (said, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn commands_after_kubeadm_are_reported_once_and_go_on_as_before() {
    let told = |format, after: &[&str]| run(format, "true", "true", after);
    for format in ["cloud-config", "ignition"] {
        assert_eq!(told(format, &["true"]).0, "", "{format}");
        assert_eq!(
            told(format, &["true", "exit 5", "echo never"]),
            ("post-kubeadm-commands 5\n".to_owned(), String::new()),
            "{format}"
        );
    }
    // cloud-init goes on after a failure, and a command may look at how the one before it ended.
    assert_eq!(
        told("cloud-config", &["(exit 3)", "echo $?", "(exit 4)"]),
        ("post-kubeadm-commands 3\n".to_owned(), "3\n".to_owned())
    );
    assert_eq!(
        told("ignition", &["(exit 3)", "echo never"]),
        ("post-kubeadm-commands 3\n".to_owned(), String::new())
    );
    // Commands share a shell, and what they keep in it is theirs.
    assert_eq!(
        told("cloud-config", &["code=7", "true", "echo $code"]),
        (String::new(), "7\n".to_owned())
    );
    // Where kubeadm failed that is told, and nothing after it.
    assert_eq!(
        run("cloud-config", "true", "(exit 7)", &["(exit 3)"]).0,
        "kubeadm-join 7\n"
    );
}

#[test]
fn commands_that_end_before_kubeadm_are_reported_once() {
    for format in ["cloud-config", "ignition"] {
        assert_eq!(
            reported(format, "exit 3", "true"),
            "commands 3\n",
            "{format}"
        );
        assert_eq!(
            reported(format, "true", "(exit 7)"),
            "kubeadm-join 7\n",
            "{format}"
        );
        assert_eq!(reported(format, "true", "true"), "", "{format}");
    }
    assert_eq!(reported("ignition", "(exit 4)", "true"), "commands 4\n");
    assert_eq!(
        reported("cloud-config", "(exit 4)", "true"),
        "",
        "cloud-init goes on, and a node is made"
    );
}
