//! What a machine is given to report a failed bootstrap with.

use serde_json::json;

use super::{cluster, joined, materials, question};
use crate::data::data;
use crate::file::Content;
use crate::question::{Question, Report, Role};
use crate::report;

const REPORT: Report<'static> = Report {
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
    assert_eq!(yaml["runcmd"][0], command);
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
