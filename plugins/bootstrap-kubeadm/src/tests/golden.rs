//! Whole data for typical and for full configs.

use super::*;

pub(super) fn control_plane_spec() -> Value {
    json!({
        "clusterConfiguration": {
            "apiServer": {
                "certSANs": ["api.example.com"],
                "extraArgs": [{"name": "audit-log-maxage", "value": "30"}, {"name": "feature-gates", "value": "A=true,B=false"}],
                "extraVolumes": [{"name": "audit", "hostPath": "/var/log/audit", "mountPath": "/audit", "readOnly": false, "pathType": "DirectoryOrCreate"}]
            },
            "etcd": {"local": {"dataDir": "/var/lib/etcddisk", "extraArgs": [{"name": "quota-backend-bytes", "value": "8589934592"}]}},
            "dns": {"imageTag": "v1.12.0"},
            "featureGates": {"ControlPlaneKubeletLocalMode": true}
        },
        "initConfiguration": {
            "nodeRegistration": {
                "name": "{{ ds.meta_data.local_hostname }}",
                "kubeletExtraArgs": [{"name": "cloud-provider", "value": "external"}, {"name": "v", "value": "2"}],
                "taints": [],
                "ignorePreflightErrors": ["Swap"]
            },
            "timeouts": {"controlPlaneComponentHealthCheckSeconds": 300, "etcdAPICallSeconds": 5400},
            "bootstrapTokens": [{"token": "abcdef.0123456789abcdef", "ttlSeconds": 3600}],
            "patches": {"directory": "/etc/kubernetes/patches"},
            "skipPhases": ["addon/kube-proxy"]
        },
        "joinConfiguration": {
            "nodeRegistration": {"name": "{{ ds.meta_data.local_hostname }}", "kubeletExtraArgs": [{"name": "v", "value": "2"}]},
            "controlPlane": {"localAPIEndpoint": {"bindPort": 7443}},
            "timeouts": {"controlPlaneComponentHealthCheckSeconds": 300, "discoverySeconds": 90}
        }
    })
}

pub(super) fn everything() -> Value {
    json!({
        "files": [
            {"path": "/etc/plain", "owner": "root:root", "permissions": "0644", "content": "a: b\n  indented {{ ds.x }}\n"},
            {"path": "/etc/from-secret", "permissions": "0600", "contentFrom": {"secret": {"name": "s", "key": "k"}}},
            {"path": "/etc/odd", "content": " begins with a space\r\n\u{7}", "append": true},
            {"path": "/etc/encoded", "content": "aGVsbG8=", "encoding": "base64"},
            {"path": "/etc/zipped", "encoding": "gzip", "contentFrom": {"secret": {"name": "s", "key": "k"}}},
            {"path": "/etc/version", "contentFormat": "Template", "content": "v={{- .controlPlane.version -}}  \n{{/* remark */}}end"}
        ],
        "bootCommands": ["echo boot", "cloud-init-per once x echo \"it's {{ ds['a'] }}\""],
        "preKubeadmCommands": ["hostnamectl set-hostname \"{{ ds.meta_data.hostname }}\"", "- dash", "cat <<E\nlines\nE\n", "yes", "echo a: b # c"],
        "postKubeadmCommands": ["echo 'done'", "on"],
        "verbosity": 5,
        "ntp": {"enabled": true, "servers": ["0.pool.example.com"]},
        "users": [
            {"name": "ops", "gecos": "Ops, team", "groups": "sudo,adm", "homeDir": "/var/lib/ops", "inactive": false, "lockPassword": true,
             "passwd": "$6$x", "primaryGroup": "ops", "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "sshAuthorizedKeys": ["ssh-ed25519 AAAA ops@x"]},
            {"name": "root", "passwdFrom": {"secret": {"name": "p", "key": "h"}}}
        ],
        "diskSetup": {
            "partitions": [
                {"device": "/dev/sdb", "layout": true, "overwrite": false, "tableType": "gpt"},
                {"device": "/dev/sdc", "tableType": "gpt", "diskLayout": [{"percentage": 50, "partitionType": "LVM"}, {"percentage": 50}]}
            ],
            "filesystems": [{"device": "/dev/sdb", "filesystem": "ext4", "label": "etcd_disk", "partition": "auto", "overwrite": true, "replaceFS": "ntfs", "extraOpts": ["-E", "lazy_itable_init=1"]}]
        },
        "mounts": [["LABEL=etcd_disk", "/var/lib/etcddisk"]]
    })
}

#[test]
fn the_first_control_plane_machine_initialises() {
    let text = rendered(&control_plane_spec(), Role::Init, "v1.36.3").unwrap();
    check_golden("init.yaml", &text);
    let config = parsed(&text);
    assert!(content(&config, "/etc/kubernetes/pki/ca.key").contains("\nca\n"));
    assert!(content(&config, "/etc/kubernetes/pki/etcd/ca.crt").contains("\netcd\n"));
    let documents = documents(&config, "/run/kubeadm/kubeadm.yaml");
    assert_eq!(documents[0]["apiVersion"], "kubeadm.k8s.io/v1beta4");
    assert_eq!(documents[0]["controlPlaneEndpoint"], "10.0.0.10:6443");
    assert_eq!(
        documents[0]["networking"]["podSubnet"],
        "10.244.0.0/16,fd00:1::/48"
    );
    assert_eq!(documents[0]["kubernetesVersion"], "v1.36.3");
    assert_eq!(
        documents[0]["apiServer"]["extraArgs"][0],
        json!({"name": "audit-log-maxage", "value": "30"})
    );
    assert_eq!(documents[1]["kind"], "InitConfiguration");
    assert_eq!(documents[1]["nodeRegistration"]["taints"], json!([]));
    assert_eq!(documents[1]["timeouts"]["etcdAPICall"], "1h30m0s");
    assert_eq!(documents[1]["bootstrapTokens"][0]["ttl"], "1h0m0s");
}

#[test]
fn an_older_kubeadm_gets_its_older_format() {
    let text = rendered(&control_plane_spec(), Role::Init, "v1.30.9").unwrap();
    check_golden("init-v1beta3.yaml", &text);
    let documents = documents(&parsed(&text), "/run/kubeadm/kubeadm.yaml");
    assert_eq!(documents[0]["apiVersion"], "kubeadm.k8s.io/v1beta3");
    assert_eq!(
        documents[0]["apiServer"]["extraArgs"]["audit-log-maxage"],
        "30"
    );
    assert_eq!(documents[0]["apiServer"]["timeoutForControlPlane"], "5m0s");
    assert_eq!(
        documents[1]["nodeRegistration"]["kubeletExtraArgs"]["v"],
        "2"
    );
    assert_eq!(documents[1].get("timeouts"), None);
}

#[test]
fn a_further_control_plane_machine_joins_with_certificates_and_a_token() {
    let text = rendered(&control_plane_spec(), Role::JoinControlPlane, "v1.36.3").unwrap();
    check_golden("join-control-plane.yaml", &text);
    let config = parsed(&text);
    assert!(content(&config, "/etc/kubernetes/pki/sa.key").contains("\nsa\n"));
    let documents = documents(&config, "/run/kubeadm/kubeadm-join-config.yaml");
    assert_eq!(documents.len(), 1);
    assert_eq!(
        documents[0]["controlPlane"]["localAPIEndpoint"]["bindPort"],
        7443
    );
    assert_eq!(
        documents[0]["discovery"]["bootstrapToken"]["token"],
        SECRETS[5]
    );
    assert_eq!(documents[0]["nodeRegistration"].get("taints"), None);
}

#[test]
fn a_worker_without_settings_joins_tainted() {
    let text = rendered(&json!({}), Role::JoinWorker, "v1.36.3").unwrap();
    check_golden("join-worker.yaml", &text);
    let config = parsed(&text);
    assert_eq!(
        config["write_files"].as_array().unwrap().len(),
        2,
        "a worker gets no certificates"
    );
    let documents = documents(&config, "/run/kubeadm/kubeadm-join-config.yaml");
    assert_eq!(
        documents[0]["discovery"]["bootstrapToken"],
        json!({"apiServerEndpoint": "10.0.0.10:6443", "caCertHashes": ["sha256:0ffee0"], "token": SECRETS[5]})
    );
    let taint = json!({"effect": "NoSchedule", "key": "node.cluster.x-k8s.io/uninitialized"});
    assert_eq!(documents[0]["nodeRegistration"]["taints"], json!([taint]));
    assert_eq!(documents[0].get("controlPlane"), None);
}

#[test]
fn every_setting_reaches_the_machine_unchanged() {
    let spec = everything();
    let text = rendered(&spec, Role::JoinWorker, "v1.36.3").unwrap();
    check_golden("everything.yaml", &text);
    assert!(text.starts_with("## template: jinja\n#cloud-config\n"));
    let config = parsed(&text);
    for field in ["bootCommands", "mounts"] {
        let name = if field == "mounts" {
            "mounts"
        } else {
            "bootcmd"
        };
        assert_eq!(config[name], spec[field]);
    }
    let run = config["runcmd"].as_array().unwrap();
    assert_eq!(run[..5], spec["preKubeadmCommands"].as_array().unwrap()[..]);
    assert_eq!(
        run[5],
        "kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml --v 5 && echo success > /run/cluster-api/bootstrap-success.complete"
    );
    assert_eq!(
        run[6..],
        spec["postKubeadmCommands"].as_array().unwrap()[..]
    );
    assert_eq!(
        content(&config, "/etc/plain"),
        "a: b\n  indented {{ ds.x }}\n"
    );
    assert_eq!(
        content(&config, "/etc/from-secret"),
        format!("{}\n", SECRETS[6])
    );
    assert_eq!(
        content(&config, "/etc/odd"),
        " begins with a space\r\n\u{7}\n"
    );
    assert_eq!(content(&config, "/etc/version"), "v=v1.36.3end\n");
    assert_eq!(config["write_files"][4]["encoding"], "gzip+base64");
    assert_eq!(config["users"][1]["passwd"], SECRETS[7].trim_end());
    assert_eq!(
        config["disk_setup"]["/dev/sdc"]["layout"],
        json!([[50, "8e"], 50])
    );
    assert_eq!(config["fs_setup"][0]["replace_fs"], "ntfs");
    assert_eq!(config["ntp"], spec["ntp"]);
}

#[test]
fn an_external_etcd_needs_its_certificates_at_its_paths() {
    let spec = json!({"clusterConfiguration": {"etcd": {"external": {
        "endpoints": ["https://10.1.1.1:2379"], "caFile": "/etc/e/ca.crt", "certFile": "/etc/e/c.crt", "keyFile": "/etc/e/c.key"
    }}}});
    let config = parsed(&rendered(&spec, Role::Init, "v1.36.3").unwrap());
    assert_eq!(
        content(&config, "/etc/e/ca.crt"),
        format!("{}\n", SECRETS[8])
    );
    assert_eq!(content(&config, "/etc/e/c.key"), SECRETS[4]);
    assert!(
        !config["write_files"]
            .to_string()
            .contains("/etc/kubernetes/pki/etcd")
    );
    let cluster = cluster();
    let names = needs(&question(&cluster, &spec, Role::Init, "v1.36.3"));
    assert!(names.contains(&Need::SecretValue {
        name: "external-etcd-key".to_owned(),
        secret: "quickstart-apiserver-etcd-client".to_owned(),
        key: "tls.key".to_owned(),
        is_template: false,
    }));
}

#[test]
fn a_machine_may_find_the_cluster_by_a_kubeconfig() {
    let spec = json!({"joinConfiguration": {"discovery": {"file": {
        "kubeConfigPath": "/etc/kubernetes/discovery.conf",
        "kubeConfig": {"user": {"exec": {"command": "/bin/login", "args": ["--cluster", "x"], "provideClusterInfo": true}}}
    }}}});
    let text = rendered(&spec, Role::JoinWorker, "v1.36.3").unwrap();
    check_golden("join-by-file.yaml", &text);
    let config = parsed(&text);
    let kubeconfig = parsed(&content(&config, "/etc/kubernetes/discovery.conf"));
    assert_eq!(
        kubeconfig["clusters"][0]["cluster"]["server"],
        "https://10.0.0.10:6443"
    );
    assert_eq!(
        kubeconfig["users"][0]["user"]["exec"]["apiVersion"],
        "client.authentication.k8s.io/v1"
    );
    let documents = documents(&config, "/run/kubeadm/kubeadm-join-config.yaml");
    assert_eq!(
        documents[0]["discovery"],
        json!({"file": {"kubeConfigPath": "/etc/kubernetes/discovery.conf"}})
    );
}
