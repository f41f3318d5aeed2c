//! Cases about the kinds of kubeadm's plugins.

use serde_json::{Value, json};

use super::{Case, new, spec, taints, update};

/// Rules about KubeadmConfigs, wherever they are.
pub(super) fn configs(of: &'static str) -> Vec<Case> {
    let at = |config: Value| match of {
        "config" => spec(config),
        "config template" => spec(json!({"template": {"spec": config}})),
        _ => spec(json!({"kubeadmConfigSpec": config})),
    };
    let secret = |name: &str| json!({"secret": {"name": name, "key": "k"}});
    let both = json!({"path": "/b", "content": "b", "contentFrom": secret("s")});
    let partition = |layout: Value| json!({"diskSetup": {"partitions": [{"device": "/dev/a", "diskLayout": layout}]}});
    let ignition = |mut more: Value| {
        more["format"] = json!("ignition");
        at(more)
    };
    let user = json!({"authProvider": {"name": "a"}, "exec": {"command": "a"}});
    vec![
        new(
            "4.6",
            of,
            at(json!({"files": [both]})),
            "only one of content and contentFrom",
        ),
        new(
            "4.6",
            of,
            at(json!({"files": [{"path": "/b", "contentFrom": {"secret": {"name": "s"}}}]})),
            "contentFrom.secret.key",
        ),
        new(
            "4.6",
            of,
            at(json!({"files": [{"path": "/b", "contentFrom": {}}]})),
            "contentFrom.secret",
        ),
        new(
            "4.6",
            of,
            at(json!({"files": [{"path": "/b", "content": "1"}, {"path": "/b", "content": "2"}]})),
            "each path may be given once",
        ),
        new(
            "4.6",
            of,
            at(json!({"users": [{"name": "u", "passwd": "p", "passwdFrom": secret("s")}]})),
            "only one of passwd and passwdFrom",
        ),
        new(
            "4.6",
            of,
            at(
                json!({"joinConfiguration": {"discovery": {"file": {"kubeConfigPath": "/k", "kubeConfig": {"user": user}}}}}),
            ),
            "only one of authProvider and exec",
        ),
        new(
            "4.6",
            of,
            at(partition(json!([{"percentage": 60}, {"percentage": 60}]))),
            "percentages may add up to 100",
        ),
        new(
            "4.6",
            of,
            at(json!({"ignition": {"containerLinuxConfig": {"strict": true}}})),
            "ignition may only be set when format is ignition",
        ),
        new(
            "4.6",
            of,
            ignition(json!({"users": [{"name": "u", "inactive": true}]})),
            "users may not be inactive",
        ),
        new(
            "4.6",
            of,
            ignition(json!({"files": [{"path": "/b", "content": "b", "encoding": "gzip"}]})),
            "files may not be gzip encoded",
        ),
        new(
            "4.6",
            of,
            ignition(json!({"bootCommands": ["a"]})),
            "bootCommands may not be set",
        ),
        new(
            "4.6",
            of,
            ignition(
                json!({"diskSetup": {"partitions": [{"device": "/dev/a", "layout": true, "tableType": "mbr"}]}}),
            ),
            "tableType must be gpt",
        ),
        new(
            "4.6",
            of,
            ignition(
                json!({"diskSetup": {"filesystems": [{"device": "/dev/a", "filesystem": "ext4", "label": "a", "replaceFS": "ext3"}]}}),
            ),
            "filesystems may set neither replaceFS nor partition",
        ),
    ]
}

pub(super) fn control_planes() -> Vec<Case> {
    let of = "control plane";
    let cluster = |configuration: Value| {
        spec(json!({"kubeadmConfigSpec": {"clusterConfiguration": configuration}}))
    };
    let surge = |surge: Value| {
        spec(
            json!({"rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge}}}}),
        )
    };
    let naming = |template: &str| spec(json!({"machineNaming": {"template": template}}));
    let metadata = |metadata: Value| spec(json!({"machineTemplate": {"metadata": metadata}}));
    let machine = |machine: Value| spec(json!({"machineTemplate": {"spec": machine}}));
    let external = json!({"etcd": {"local": null, "external": {
        "endpoints": ["https://e:2379"], "caFile": "/ca", "certFile": "/cert", "keyFile": "/key",
    }}});
    let mut both = external.clone();
    both["etcd"]["local"] = json!({"imageTag": "3.6.0"});
    vec![
        new(
            "4.7",
            of,
            spec(json!({"replicas": 0})),
            "replicas must be at least 1",
        ),
        new(
            "4.7",
            of,
            spec(json!({"replicas": 2})),
            "replicas must be odd",
        ),
        new(
            "4.7",
            of,
            machine(json!({"infrastructureRef": {"name": ""}})),
            "infrastructureRef.name",
        ),
        new(
            "4.7",
            of,
            machine(json!({"infrastructureRef": {"kind": null}})),
            "infrastructureRef.kind",
        ),
        new(
            "4.7",
            of,
            spec(json!({"version": "stable"})),
            "must be a version such as",
        ),
        update(
            "4.7",
            of,
            spec(json!({"version": "v1.38.0"})),
            "may rise by one minor version",
        ),
        new(
            "4.7",
            of,
            metadata(json!({"labels": {"no key": "a"}})),
            "spec.machineTemplate.metadata.labels: a key or value is not a valid label",
        ),
        new(
            "4.7",
            of,
            metadata(json!({"labels": {"key": "no value"}})),
            "is not a valid label",
        ),
        new(
            "4.7",
            of,
            metadata(json!({"annotations": {"no key": "a"}})),
            "spec.machineTemplate.metadata.annotations: a key is not a valid annotation key",
        ),
        new(
            "4.8",
            "plane template",
            spec(
                json!({"template": {"spec": {"machineTemplate": {"metadata": {"labels": {"no key": "a"}}}}}}),
            ),
            "is not a valid label",
        ),
        new("4.7", of, surge(json!(2)), "must be 0 or 1"),
        new(
            "4.7",
            of,
            surge(json!(0)),
            "maxSurge 0 needs at least 3 replicas",
        ),
        new(
            "4.7",
            of,
            cluster(json!({"certificateValidityPeriodDays": 3651})),
            "may not be above caCertificateValidityPeriodDays",
        ),
        new(
            "4.7",
            of,
            spec(json!({
                "rollout": {"before": {"certificatesExpiryDays": 90}},
                "kubeadmConfigSpec": {"clusterConfiguration": {"certificateValidityPeriodDays": 90}},
            })),
            "certificatesExpiryDays must be below",
        ),
        // kubeadm's certificates are good for a year where nothing is said.
        new(
            "4.7",
            of,
            spec(json!({"rollout": {"before": {"certificatesExpiryDays": 365}}})),
            "certificatesExpiryDays must be below",
        ),
        new(
            "4.7",
            of,
            naming("always-the-same"),
            "must contain {{ .random }}",
        ),
        new(
            "4.7",
            of,
            naming("Upper-{{ .random }}"),
            "a name has lower case letters",
        ),
        new(
            "4.7",
            of,
            cluster(json!({"dns": {"imageTag": "newest"}})),
            "dns.imageTag must be a version",
        ),
        new(
            "4.7",
            of,
            cluster(json!({"etcd": {"local": {"imageTag": "3:6"}}})),
            "imageTag may only have letters",
        ),
        new(
            "4.7",
            of,
            cluster(both),
            "only one of kubeadmConfigSpec.clusterConfiguration.etcd.local",
        ),
        update(
            "4.7",
            of,
            cluster(external),
            "may not change between local and external etcd",
        ),
        new(
            "4.7",
            of,
            spec(
                json!({"kubeadmConfigSpec": {"joinConfiguration": {"timeouts": {"controlPlaneComponentHealthCheckSeconds": 61}}}}),
            ),
            "must be equal, or both unset",
        ),
        update(
            "4.7",
            of,
            cluster(json!({"controlPlaneEndpoint": "b:6443"})),
            "controlPlaneEndpoint may not change",
        ),
        update(
            "4.7",
            of,
            cluster(json!({"certificatesDir": "/pki"})),
            "certificatesDir may not change",
        ),
        update(
            "4.7",
            of,
            cluster(json!({"caCertificateValidityPeriodDays": 4000})),
            "caCertificateValidityPeriodDays may not change",
        ),
        update(
            "4.7",
            of,
            spec(json!({"kubeadmConfigSpec": null})),
            "kubeadmConfigSpec may not be removed",
        ),
        update(
            "4.7",
            of,
            spec(json!({"kubeadmConfigSpec": {"clusterConfiguration": null}})),
            "clusterConfiguration may not be removed",
        ),
        update(
            "4.7",
            of,
            spec(
                json!({"kubeadmConfigSpec": {"initConfiguration": null, "joinConfiguration": {"timeouts": null}}}),
            ),
            "initConfiguration may not be removed",
        ),
        update(
            "4.8",
            "plane template",
            spec(json!({"template": {"spec": {"kubeadmConfigSpec": {"format": "ignition"}}}})),
            "may not change; make a new template",
        ),
        new(
            "4.9",
            of,
            machine(taints("node.cluster.x-k8s.io/uninitialized")),
            "keys that Cluster API sets itself",
        ),
        new(
            "4.9",
            of,
            machine(taints("node.kubernetes.io/unreachable")),
            "only node.kubernetes.io/out-of-service",
        ),
        new(
            "4.9",
            of,
            machine(taints("node.cloudprovider.kubernetes.io/shutdown")),
            "may not be used",
        ),
    ]
}
