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

#[test]
fn a_worker_is_no_control_plane() {
    let spec = json!({"joinConfiguration": {"controlPlane": {}}});
    let refusal = refusal(&spec, Role::JoinWorker, "v1.36.3");
    assert_eq!(
        (refusal.remedy, refusal.reason),
        (Remedy::Object, "FieldNotForWorkers")
    );
    assert!(
        refusal.message.contains("joinConfiguration.controlPlane"),
        "{refusal}"
    );
    assert!(rendered(&spec, Role::JoinControlPlane, "v1.36.3").is_ok());
}

/// A field with a value that kubeadm or the cluster refuses, and one that it takes; in which part of the spec.
fn values() -> Vec<(Role, &'static str, Value, Value)> {
    let token = |more: Value| {
        let mut token = json!({"token": "abcdef.0123456789abcdef"});
        let more = more.as_object().unwrap().clone();
        token.as_object_mut().unwrap().extend(more);
        json!({"initConfiguration": {"bootstrapTokens": [token]}})
    };
    let discovery = |field: &str, token: &str| {
        if field == "token" {
            return json!({"joinConfiguration": {"discovery": {"bootstrapToken": {"token": token}}}});
        }
        json!({"joinConfiguration": {"discovery": {field: token}}})
    };
    let taint = |kind: &str, effect: &str| json!({kind: {"nodeRegistration": {"taints": [{"key": "a", "effect": effect}]}}});
    let (first, joins, worker) = (Role::Init, Role::JoinControlPlane, Role::JoinWorker);
    vec![
        (
            first,
            "bootstrapTokens[0].token",
            token(json!({"token": "ABCDEF.0123456789abcdef"})),
            token(json!({})),
        ),
        (
            first,
            "bootstrapTokens[0].usages",
            token(json!({"usages": ["signing", "encryption"]})),
            token(json!({"usages": ["signing", "authentication"]})),
        ),
        (
            first,
            "bootstrapTokens[0].groups",
            token(json!({"groups": ["system:masters"]})),
            token(json!({"groups": ["system:bootstrappers:kubeadm:default-node-token"]})),
        ),
        (
            worker,
            "discovery.bootstrapToken.token",
            discovery("token", "abcdef-0123456789abcdef"),
            discovery("token", "{{ ds.meta_data.token }}"),
        ),
        (
            joins,
            "discovery.tlsBootstrapToken",
            discovery("tlsBootstrapToken", "abcdef.0123456789abcdef0"),
            discovery("tlsBootstrapToken", "${TOKEN}"),
        ),
        (
            first,
            "initConfiguration.nodeRegistration.taints[0].effect",
            taint("initConfiguration", "NoRun"),
            taint("initConfiguration", "NoExecute"),
        ),
        (
            worker,
            "joinConfiguration.nodeRegistration.taints[0].effect",
            taint("joinConfiguration", ""),
            taint("joinConfiguration", "PreferNoSchedule"),
        ),
    ]
}

#[test]
fn values_that_kubeadm_refuses_are_refused_before_it_does() {
    for (role, field, wrong, right) in values() {
        let refusal = refusal(&wrong, role, "v1.36.3");
        assert_eq!(
            (refusal.remedy, refusal.reason),
            (Remedy::Object, "FieldRefusedByKubeadm"),
            "{field}"
        );
        assert!(refusal.message.contains(field), "{field}: {refusal}");
        assert!(!refusal.message.contains("0123456789abcdef"), "{refusal}");
        assert!(rendered(&right, role, "v1.36.3").is_ok(), "{field}");
    }
}

#[test]
fn ranges_are_one_of_a_family_and_those_of_services_small() {
    let asked = |network: &str, blocks: &[&str], role: Role| {
        let mut cluster = cluster();
        cluster["spec"]["clusterNetwork"][network] = json!({"cidrBlocks": blocks});
        let spec = json!({});
        let question = question(&cluster, &spec, role, "v1.36.3");
        data(&question, &materials()).map(|_| ())
    };
    for (network, blocks, field) in [
        (
            "pods",
            &["10.0.0.0/16", "10.1.0.0/16"][..],
            "pods.cidrBlocks[1]",
        ),
        (
            "pods",
            &["10.0.0.0/16", "fd00::/48", "10.1.0.0/16"],
            "pods.cidrBlocks[2]",
        ),
        ("pods", &["10.0.0.0"], "pods.cidrBlocks[0]"),
        ("services", &["10.0.0.0/11"], "services.cidrBlocks[0]"),
        (
            "services",
            &["10.96.0.0/12", "fd00::/107"],
            "services.cidrBlocks[1]",
        ),
    ] {
        let refusal = asked(network, blocks, Role::Init).unwrap_err();
        assert_eq!(refusal.reason, "FieldRefusedByKubeadm");
        assert!(refusal.message.contains(field), "{refusal}");
        // Who joins finds them in the cluster.
        assert!(asked(network, blocks, Role::JoinWorker).is_ok());
    }
    assert!(asked("services", &["fd00::/108", "10.96.0.0/12"], Role::Init).is_ok());
    assert!(asked("pods", &["fd00::/48"], Role::Init).is_ok());
}
