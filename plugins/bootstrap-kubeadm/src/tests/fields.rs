//! Every field of the schema has its effect: each is in a golden file, removing it changes what is asked for or written, and
//! README.md says what it does.

use std::collections::BTreeSet;

use super::*;

/// One or few fields and the machine that they are for.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) version: &'static str,
    pub(super) spec: Value,
}

fn case(name: &'static str, role: Role, spec: Value) -> Case {
    Case {
        name,
        role,
        version: "v1.36.3",
        spec,
    }
}

fn component() -> Value {
    json!({
        "extraArgs": [{"name": "v", "value": "4"}],
        "extraEnvs": [{"name": "GODEBUG", "value": "x=1"}, {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
        "extraVolumes": [{"name": "extra", "hostPath": "/srv/extra", "mountPath": "/extra", "readOnly": true, "pathType": "Directory"}]
    })
}

fn node_registration() -> Value {
    json!({"nodeRegistration": {
        "name": "node-1",
        "criSocket": "unix:///run/containerd/containerd.sock",
        "taints": [{"key": "dedicated", "value": "batch", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}],
        "kubeletExtraArgs": [{"name": "node-ip", "value": "10.0.0.4,fd00::4"}],
        "ignorePreflightErrors": ["Swap", "NumCPU"],
        "imagePullPolicy": "Always",
        "imagePullSerial": false
    }})
}

fn timeouts() -> Value {
    json!({"timeouts": {
        "controlPlaneComponentHealthCheckSeconds": 301, "discoverySeconds": 302, "etcdAPICallSeconds": 303,
        "kubeletHealthCheckSeconds": 304, "kubernetesAPICallSeconds": 305, "tlsBootstrapSeconds": 306
    }})
}

fn without(mut value: Value, pointer: &str) -> Value {
    remove(&mut value, pointer);
    value
}

fn commands() -> Value {
    json!({"preKubeadmCommands": ["echo before", "modprobe br_netfilter"], "postKubeadmCommands": ["echo after"], "verbosity": 5})
}

fn user() -> Value {
    json!({"users": [{
        "name": "ops", "gecos": "Ops, team", "groups": "wheel, adm", "homeDir": "/var/home/ops", "lockPassword": false, "passwd": "$6$salt$hash",
        "primaryGroup": "ops", "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "sshAuthorizedKeys": ["ssh-ed25519 AAAA ops@x", "ssh-rsa BBBB y"]
    }]})
}

fn secret_file(path: &str, more: Value) -> Value {
    let mut file = json!({"path": path, "contentFrom": {"secret": {"name": "files", "key": "a"}}});
    let fields = more.as_object().unwrap().clone();
    file.as_object_mut().unwrap().extend(fields);
    file
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn control_plane_cases() -> Vec<Case> {
    let init = |name, spec| case(name, Role::Init, json!({"initConfiguration": spec}));
    let cluster = |name, spec| case(name, Role::Init, json!({"clusterConfiguration": spec}));
    let mut cases = vec![
        cluster("api-server", {
            let mut server = component();
            server["certSANs"] = json!(["api.example.com", "fd00::1"]);
            json!({"apiServer": server})
        }),
        cluster(
            "controller-manager",
            json!({"controllerManager": component()}),
        ),
        cluster("scheduler", json!({"scheduler": component()})),
        cluster(
            "etcd-local",
            json!({"etcd": {"local": {
                "dataDir": "/var/lib/etcddisk/etcd", "imageRepository": "registry.example.com/etcd", "imageTag": "3.6.4-0",
                "extraArgs": [{"name": "quota-backend-bytes", "value": "8589934592"}], "extraEnvs": [{"name": "GOGC", "value": "50"}, {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
                "serverCertSANs": ["etcd.example.com"], "peerCertSANs": ["peer.example.com"]
            }}}),
        ),
        cluster(
            "etcd-external",
            json!({"etcd": {"external": {
                "endpoints": ["https://10.1.1.1:2379", "https://10.1.1.2:2379"],
                "caFile": "/etc/etcd/ca.crt", "certFile": "/etc/etcd/client.crt", "keyFile": "/etc/etcd/client.key"
            }}}),
        ),
        cluster(
            "certificates",
            json!({
                "certificatesDir": "/srv/pki", "encryptionAlgorithm": "RSA-3072", "certificateValidityPeriodDays": 90, "caCertificateValidityPeriodDays": 730
            }),
        ),
        cluster(
            "cluster",
            json!({
                "controlPlaneEndpoint": "api.example.com:443", "imageRepository": "registry.example.com/k8s",
                "dns": {"imageRepository": "registry.example.com/dns", "imageTag": "v1.12.1"}, "featureGates": {"RootlessControlPlane": false}
            }),
        ),
        init("init-node-registration", node_registration()),
        init("init-timeouts", timeouts()),
        init(
            "init-bootstrap-tokens",
            json!({"bootstrapTokens": [
                {"token": "abcdef.0123456789abcdef", "description": "for people", "ttlSeconds": 90061, "usages": ["signing", "authentication"], "groups": ["system:bootstrappers:people"]}
            ]}),
        ),
        init(
            "init-phases",
            json!({
                "localAPIEndpoint": {"advertiseAddress": "fd00::4", "bindPort": 7443}, "patches": {"directory": "/etc/kubernetes/patches"}, "skipPhases": ["addon/kube-proxy"]
            }),
        ),
        case(
            "join-control-plane",
            Role::JoinControlPlane,
            json!({"joinConfiguration": {
                "controlPlane": {"localAPIEndpoint": {"advertiseAddress": "10.0.0.4", "bindPort": 7443}}, "patches": {"directory": "/etc/kubernetes/patches"}, "skipPhases": ["control-plane-join/mark-control-plane"]
            }}),
        ),
    ];
    let older = |name, spec| Case {
        version: "v1.30.14",
        ..case(name, Role::Init, spec)
    };
    let component = without(component(), "/extraEnvs");
    cases.push(older("v1beta3-components", json!({"clusterConfiguration": {
        "apiServer": component, "controllerManager": component, "scheduler": component,
        "etcd": {"local": {"extraArgs": [{"name": "quota-backend-bytes", "value": "8589934592"}]}}, "caCertificateValidityPeriodDays": 730
    }})));
    cases.push(older("v1beta3-init", json!({"initConfiguration": {
        "nodeRegistration": node_registration()["nodeRegistration"],
        "timeouts": {"controlPlaneComponentHealthCheckSeconds": 301}, "bootstrapTokens": [{"token": "abcdef.0123456789abcdef", "ttlSeconds": 60}]
    }})));
    let joining = json!({"joinConfiguration": {
        "nodeRegistration": node_registration()["nodeRegistration"], "timeouts": {"discoverySeconds": 302}
    }});
    cases.push(Case {
        role: Role::JoinControlPlane,
        ..older("v1beta3-join-control-plane", joining.clone())
    });
    cases.push(Case {
        role: Role::JoinWorker,
        ..older("v1beta3-join-worker", joining)
    });
    cases
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn worker_cases() -> Vec<Case> {
    let worker = |name, spec| case(name, Role::JoinWorker, spec);
    let join = |name, spec| worker(name, json!({"joinConfiguration": spec}));
    let discovery = |name, spec| join(name, json!({"discovery": spec}));
    vec![
        join("join-node-registration", node_registration()),
        join("join-timeouts", timeouts()),
        join(
            "join-phases",
            json!({"caCertPath": "/srv/pki/ca.crt", "patches": {"directory": "/etc/kubernetes/patches"}, "skipPhases": ["preflight"]}),
        ),
        discovery(
            "discovery-token",
            json!({"tlsBootstrapToken": "bcdefg.0123456789abcdef", "bootstrapToken": {
                "apiServerEndpoint": "[fd00::1]:6443", "token": "abcdef.0123456789abcdef", "caCertHashes": ["sha256:aaaa", "sha256:bbbb"]
            }}),
        ),
        discovery(
            "discovery-unverified",
            json!({"bootstrapToken": {"unsafeSkipCAVerification": true}}),
        ),
        discovery(
            "discovery-file",
            json!({"file": {"kubeConfigPath": "/etc/kubernetes/discovery.conf", "kubeConfig": {
                "cluster": {"server": "https://api.example.com", "tlsServerName": "kubernetes", "proxyURL": "http://proxy.example.com:3128", "certificateAuthorityData": "Q0VSVA=="},
                "user": {"authProvider": {"name": "oidc", "config": {"client-id": "a", "idp-issuer-url": "https://issuer.example.com"}}}
            }}}),
        ),
        discovery(
            "discovery-exec",
            json!({"file": {"kubeConfigPath": "/etc/kubernetes/discovery.conf", "kubeConfig": {
                "cluster": {"insecureSkipTLSVerify": true},
                "user": {"exec": {"command": "/opt/login", "args": ["--cluster", "x"], "env": [{"name": "REGION", "value": "eu"}], "apiVersion": "client.authentication.k8s.io/v1beta1", "provideClusterInfo": true}}
            }}}),
        ),
        worker(
            "boot-commands",
            json!({"bootCommands": ["echo boot", "cloud-init-per once x echo it's"]}),
        ),
        worker("commands", commands()),
        worker(
            "files",
            json!({"files": [
                {"path": "/etc/a", "owner": "ops:adm", "permissions": "0644", "content": "a: {{ ds.meta_data.x }}\n  b\n"},
                {"path": "/etc/motd", "append": true, "content": "no line end"},
                {"path": "/etc/b", "encoding": "base64", "content": "aGVsbG8=\n"},
                {"path": "/etc/c", "encoding": "gzip+base64", "content": "H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA=="},
                {"path": "/etc/version", "contentFormat": "Template", "content": "v={{- .controlPlane.version -}}  \n{{/* remark */}}end"}
            ]}),
        ),
        worker(
            "files-from-secrets",
            json!({"files": [
                secret_file("/etc/a", json!({"owner": "root", "permissions": "0600"})),
                secret_file("/etc/b", json!({"encoding": "base64", "append": true})),
                secret_file("/etc/c", json!({"encoding": "gzip"})),
                secret_file("/etc/d", json!({"contentFormat": "Template"}))
            ]}),
        ),
        worker("users", {
            let mut users = user();
            users["users"][0]["inactive"] = json!(true);
            users
        }),
        worker(
            "users-from-secrets",
            json!({"users": [{"name": "root", "passwdFrom": {"secret": {"name": "passwords", "key": "root"}}}]}),
        ),
        worker(
            "disks",
            json!({"mounts": [["LABEL=etcd_disk", "/var/lib/etcd-disk", "ext4", "noatime,nofail"]], "diskSetup": {
                "partitions": [
                    {"device": "/dev/sdb", "layout": true, "overwrite": true, "tableType": "gpt"},
                    {"device": "/dev/sdc", "tableType": "mbr", "diskLayout": [{"percentage": 60, "partitionType": "LinuxSwap"}, {"percentage": 40}]}
                ],
                "filesystems": [{"device": "/dev/sdb", "filesystem": "ext4", "label": "etcd_disk", "partition": "auto", "overwrite": true, "replaceFS": "ntfs", "extraOpts": ["-E", "lazy_itable_init=1"]}]
            }}),
        ),
        worker(
            "ntp",
            json!({"ntp": {"enabled": true, "servers": ["0.pool.example.com", "fd00::123"]}}),
        ),
        worker(
            "ntp-servers-only",
            json!({"ntp": {"servers": ["0.pool.example.com"]}}),
        ),
        worker("ntp-off", json!({"ntp": {"enabled": false}})),
        worker(
            "windows",
            json!({
                "files": [{"path": "C:\\etc\\node.ps1", "content": "Write-Output \"C:\\run\"\r\n"}],
                "preKubeadmCommands": ["powershell C:\\etc\\node.ps1 -Name '{{ ds.meta_data.hostname }}'"],
                "joinConfiguration": {"nodeRegistration": {"name": "{{ ds.meta_data[\"local_hostname\"] }}", "criSocket": "npipe:////./pipe/containerd-containerd"}}
            }),
        ),
    ]
}

fn ignition_cases() -> Vec<Case> {
    let init = |name, mut spec: Value| {
        spec["format"] = json!("ignition");
        case(name, Role::Init, spec)
    };
    let worker = |name, spec| Case {
        role: Role::JoinWorker,
        ..init(name, spec)
    };
    let mut secret_user = json!({"users": [{"name": "core", "passwdFrom": {"secret": {"name": "passwords", "key": "core"}}}]});
    secret_user["users"][0]["lockPassword"] = json!(false);
    vec![
        init("ignition-init", commands()),
        Case {
            role: Role::JoinControlPlane,
            ..init(
                "ignition-join-control-plane",
                json!({"joinConfiguration": {"nodeRegistration": {"name": "${HOSTNAME}"}}}),
            )
        },
        worker("ignition-join-worker", commands()),
        worker(
            "ignition-discovery",
            json!({"joinConfiguration": {"discovery": {"file": {"kubeConfigPath": "/etc/kubernetes/discovery.conf", "kubeConfig": {"user": {"exec": {"command": "/opt/login"}}}}}}}),
        ),
        worker(
            "ignition-files",
            json!({"files": [
                {"path": "/etc/a", "owner": "core:core", "permissions": "0644", "content": "a \"quoted\" {{ line }}\n"},
                {"path": "/etc/motd", "append": true, "content": "more"},
                {"path": "/etc/b", "encoding": "base64", "content": "aGVs\nbG8=\n"},
                {"path": "/etc/version", "contentFormat": "Template", "content": "{{ .controlPlane.version }}"},
                secret_file("/etc/c", json!({"owner": "root", "permissions": "0600"})),
                secret_file("/etc/d", json!({"encoding": "base64"})),
                secret_file("/etc/e", json!({"contentFormat": "Template"}))
            ]}),
        ),
        worker("ignition-users", user()),
        worker("ignition-users-from-secrets", secret_user),
        worker(
            "ignition-disks",
            json!({
                "mounts": [["etcd_disk", "/var/lib/etcd-disk"], ["LABEL=data", "/srv/data", "xfs", "noatime"], ["/dev/sdd", "/mnt", "auto", "ro", "0", "0"]],
                "diskSetup": {
                    "partitions": [
                        {"device": "/dev/sdb", "layout": true, "overwrite": true},
                        {"device": "/dev/sdc", "diskLayout": [{"percentage": 100, "partitionType": "LVM"}]}
                    ],
                    "filesystems": [{"device": "/dev/sdb1", "filesystem": "ext4", "label": "etcd_disk", "overwrite": true, "extraOpts": ["-E", "lazy_itable_init=1"]}]
                }
            }),
        ),
        worker(
            "ignition-ntp",
            json!({"ntp": {"enabled": true, "servers": ["0.pool.example.com"]}}),
        ),
        worker(
            "ignition-additional",
            json!({"ignition": {"containerLinuxConfig": {"strict": true, "additionalConfig": super::ignition::ADDITIONAL}}}),
        ),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let lists = [control_plane_cases(), worker_cases(), ignition_cases()];
    lists.into_iter().flatten().collect()
}

/// All that the host gets to know: what is asked for, and the data.
fn answer(case: &Case, spec: &Value) -> Result<String, Refusal> {
    let cluster = cluster();
    let needs = needs(&question(&cluster, spec, case.role, case.version));
    Ok(format!(
        "{needs:?}\n{}",
        rendered(spec, case.role, case.version)?
    ))
}

#[test]
fn every_case_has_its_golden_file() {
    for case in cases() {
        let text = rendered(&case.spec, case.role, case.version)
            .unwrap_or_else(|refusal| panic!("{}: {refusal}", case.name));
        let ending = if case.spec["format"] == "ignition" {
            "ign"
        } else {
            "yaml"
        };
        check_golden(&format!("fields/{}.{ending}", case.name), &text);
        // Ignition's JSON is YAML as well.
        parsed(&text);
    }
}

/// Pointers to all values that are neither objects nor lists.
fn leaves(value: &Value, pointer: &str, found: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| leaves(value, &format!("{pointer}/{}", escaped(key)), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(position, item)| leaves(item, &format!("{pointer}/{position}"), found)),
        _ => found.push(pointer.to_owned()),
    }
}

fn remove(value: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent).unwrap() {
        Value::Object(fields) => {
            fields.remove(key);
        }
        Value::Array(items) => {
            items.remove(key.parse().unwrap());
        }
        _ => unreachable!(),
    }
}

#[test]
fn no_field_is_without_effect() {
    // Strictness only makes a difference to keys that are not known; it has its own test.
    let exempt = ["/ignition/containerLinuxConfig/strict"];
    // Older versions of kubeadm pull one image after the other, whatever it says; what a mount unit has no place for is 0.
    let is_exempt = |case: &Case, pointer: &str| {
        exempt.contains(&pointer)
            || case.name.starts_with("v1beta3") && pointer.ends_with("/imagePullSerial")
            || case.name == "ignition-disks" && pointer.starts_with("/mounts/2/4")
            || case.name == "ignition-disks" && pointer.starts_with("/mounts/2/5")
    };
    let mut idle = Vec::new();
    let mut checked = 0;
    for case in cases() {
        let whole = answer(&case, &case.spec).unwrap();
        let mut pointers = Vec::new();
        leaves(&case.spec, "", &mut pointers);
        for pointer in pointers {
            let lacking = without(case.spec.clone(), &pointer);
            checked += 1;
            if !is_exempt(&case, &pointer)
                && answer(&case, &lacking).is_ok_and(|text| text == whole)
            {
                idle.push(format!("{}: {pointer}", case.name));
            }
        }
    }
    assert!(checked > 300, "{checked}");
    assert!(idle.is_empty(), "without effect: {idle:#?}");
}

/// Names of the schema's fields, such as `files[].path`; environment variables' sources are one field.
fn schema_fields(schema: &Value, name: &str, found: &mut BTreeSet<String>) {
    if name.ends_with(".valueFrom") {
        found.insert(name.to_owned());
    } else if let Some(fields) = schema["properties"].as_object() {
        for (key, field) in fields {
            let dot = if name.is_empty() { "" } else { "." };
            schema_fields(field, &format!("{name}{dot}{key}"), found);
        }
    } else if schema["items"].is_object() {
        schema_fields(&schema["items"], &format!("{name}[]"), found);
    } else {
        found.insert(name.to_owned());
    }
}

/// The schema's name of what a pointer points at.
fn field_name(pointer: &str) -> String {
    let mut name = String::new();
    for key in pointer.split('/').skip(1) {
        match key.parse::<usize>() {
            Ok(_) => name.push_str("[]"),
            Err(_) if name.is_empty() => name.push_str(key),
            Err(_) => name.push_str(&format!(".{key}")),
        }
    }
    name
}

fn all_fields() -> BTreeSet<String> {
    let schema: Value =
        serde_json::from_str(include_str!("../../schema/kubeadmconfig-spec.json")).unwrap();
    let mut fields = BTreeSet::new();
    schema_fields(&schema, "", &mut fields);
    assert!(fields.len() > 150, "{}", fields.len());
    fields
}

#[test]
fn every_field_is_in_a_case() {
    let mut used = BTreeSet::new();
    for case in cases() {
        let mut pointers = Vec::new();
        leaves(&case.spec, "", &mut pointers);
        used.extend(pointers.iter().map(|pointer| field_name(pointer)));
    }
    let is_used = |field: &String| {
        used.iter().any(|used| {
            used == field
                || used
                    .strip_prefix(field.as_str())
                    .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    let mut fields = all_fields();
    // It is refused for every version: `refused::a_token_with_an_end_is_refused_before_kubeadm_does`.
    assert!(fields.remove("initConfiguration.bootstrapTokens[].expires"));
    let forgotten: Vec<&String> = fields.iter().filter(|field| !is_used(field)).collect();
    assert!(forgotten.is_empty(), "in no case: {forgotten:#?}");
}

/// `a.{b,c}.d` as `a.b.d` and `a.c.d`.
fn expanded(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else {
        return vec![name.to_owned()];
    };
    let (choices, after) = rest.split_once('}').unwrap();
    choices
        .split(',')
        .flat_map(|choice| expanded(&format!("{before}{choice}{after}")))
        .collect()
}

#[test]
fn the_readme_says_what_every_field_does() {
    let readme = include_str!("../../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: Vec<String> = rows
        .filter_map(|row| row.split_once('`'))
        .flat_map(|(name, _)| expanded(name))
        .collect();
    let covers = |row: &str, field: &str| match row.strip_suffix(".*") {
        Some(above) => field
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('.')),
        None => row == field,
    };
    let fields = all_fields();
    let forgotten: Vec<&String> = fields
        .iter()
        .filter(|field| !named.iter().any(|row| covers(row, field)))
        .collect();
    assert!(forgotten.is_empty(), "not in README.md: {forgotten:#?}");
    let invented: Vec<&String> = named
        .iter()
        .filter(|row| !fields.iter().any(|field| covers(row, field)))
        .collect();
    assert!(invented.is_empty(), "in README.md only: {invented:#?}");
}
