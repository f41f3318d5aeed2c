//! What cannot be written says which field is in the way.

use super::*;

fn refusal(spec: &Value, role: Role, version: &str) -> Refusal {
    rendered(spec, role, version).unwrap_err()
}

#[test]
fn a_field_that_an_older_kubeadm_lacks_is_named() {
    let spec = json!({"clusterConfiguration": {"scheduler": {"extraEnvs": [{"name": "A", "value": "b"}]}}});
    let environment = refusal(&spec, Role::Init, "v1.30.0");
    assert_eq!(environment.remedy, Remedy::Object);
    assert!(
        environment
            .message
            .contains("clusterConfiguration.scheduler.extraEnvs"),
        "{environment}"
    );
    let spec = json!({"clusterConfiguration": {"encryptionAlgorithm": "RSA-4096"}});
    assert!(
        refusal(&spec, Role::Init, "v1.30.0")
            .message
            .contains("encryptionAlgorithm")
    );
}

#[test]
fn versions_must_be_known_and_supported() {
    assert_eq!(
        refusal(&json!({}), Role::Init, "v1.21.0").reason,
        "VersionUnsupported"
    );
    assert_eq!(
        refusal(&json!({}), Role::Init, "latest").reason,
        "VersionInvalid"
    );
    let cluster = cluster();
    let spec = json!({});
    let mut nothing = question(&cluster, &spec, Role::JoinWorker, "");
    assert!(
        data(&nothing, &materials()).is_ok(),
        "a worker may take the control plane's version"
    );
    nothing.control_plane_version = "";
    assert_eq!(
        data(&nothing, &materials()).unwrap_err().reason,
        "VersionMissing"
    );
}

#[test]
fn joining_waits_for_the_endpoint_and_for_material() {
    let cluster = cluster();
    let spec = json!({});
    let mut early = question(&cluster, &spec, Role::JoinWorker, "v1.36.3");
    assert_eq!(
        data(&early, &Materials::default()).unwrap_err().reason,
        "MaterialMissing"
    );
    early.endpoint = None;
    assert_eq!(
        data(&early, &materials()).unwrap_err().remedy,
        Remedy::Later
    );
}

#[test]
fn templates_know_one_action() {
    let file = |content: &str| json!({"files": [{"path": "/a", "contentFormat": "Template", "content": content}]});
    for bad in [
        "{{ .other }}",
        "{{ .controlPlane.version",
        "{{ if true }}x{{ end }}",
    ] {
        assert_eq!(
            refusal(&file(bad), Role::JoinWorker, "v1.36.3").reason,
            "TemplateInvalid",
            "{bad}"
        );
    }
}

#[test]
fn partition_types_must_fit_the_table() {
    let spec = |table: &str, kind: &str| {
        let layout = json!([{"percentage": 100, "partitionType": kind}]);
        json!({"diskSetup": {"partitions": [{"device": "/dev/sdb", "tableType": table, "diskLayout": layout}]}})
    };
    let guid = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
    assert_eq!(
        refusal(&spec("mbr", guid), Role::JoinWorker, "v1.36.3").reason,
        "PartitionTypeInvalid"
    );
    assert_eq!(
        refusal(&spec("gpt", "LinuxExtended"), Role::JoinWorker, "v1.36.3").reason,
        "PartitionTypeInvalid"
    );
    assert!(rendered(&spec("gpt", guid), Role::JoinWorker, "v1.36.3").is_ok());
}

#[test]
fn a_token_with_an_end_is_refused_before_kubeadm_does() {
    let token = json!({"token": "abcdef.0123456789abcdef", "expires": "2036-01-01T00:00:00Z"});
    let spec = json!({"initConfiguration": {"bootstrapTokens": [token]}});
    for version in ["v1.30.0", "v1.36.3"] {
        let refusal = refusal(&spec, Role::Init, version);
        assert_eq!(refusal.remedy, Remedy::Object);
        assert!(
            refusal.message.contains("bootstrapTokens[0].expires"),
            "{refusal}"
        );
    }
}

#[test]
fn an_authority_that_signs_elsewhere_leaves_no_key_on_the_machine() {
    let mut materials = materials();
    materials
        .0
        .retain(|(name, part, _)| !(name == "ca" && part == "key"));
    let (cluster, spec) = (cluster(), json!({}));
    let question = question(&cluster, &spec, Role::Init, "v1.36.3");
    let config = joined(data(&question, &materials).unwrap().parts);
    let config = parsed(&config);
    let files = config["write_files"].as_array().unwrap();
    let has = |path: &str| files.iter().any(|file| file["path"] == path);
    assert!(has("/etc/kubernetes/pki/ca.crt") && !has("/etc/kubernetes/pki/ca.key"));
    assert!(has("/etc/kubernetes/pki/front-proxy-ca.key") && has("/etc/kubernetes/pki/sa.key"));
    materials.0.retain(|(name, _, _)| name != "sa");
    assert_eq!(
        data(&question, &materials).unwrap_err().reason,
        "MaterialMissing"
    );
}
