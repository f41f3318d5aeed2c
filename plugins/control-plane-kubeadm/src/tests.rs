//! The answers about one control plane.

use capstan_sdk::control_plane::{ControlPlane, ControlPlaneInput, InitializedWhen, MachineInput};
use capstan_sdk::{Context, FailureKind, Mode, Object, Plugin, Requirement};
use serde_json::{Value, json};

use crate::{Kubeadm, desired, machine_config, outdated, timestamp};

fn spec() -> Value {
    json!({
        "replicas": 3,
        "version": "v1.36.3",
        "machineTemplate": {
            "metadata": {"labels": {"tier": "gold"}, "annotations": {"note": "x"}},
            "spec": {
                "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": "cp"},
                "deletion": {"nodeDrainTimeoutSeconds": 30},
                "readinessGates": [{"conditionType": "Mine"}, {"conditionType": "EtcdPodHealthy"}],
                "taints": [{"key": "a", "effect": "NoSchedule", "propagation": "Always"}]
            }
        },
        "machineNaming": {"template": "{{ .kubeadmControlPlane.name }}-x-{{ .random }}"},
        "rollout": {
            "after": "2026-11-22T18:30:00.250+02:00",
            "before": {"certificatesExpiryDays": 30},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "0"}}
        },
        "remediation": {"maxRetry": 2},
        "kubeadmConfigSpec": {
            "clusterConfiguration": {"encryptionAlgorithm": "ECDSA-P256", "caCertificateValidityPeriodDays": 100},
            "initConfiguration": {"nodeRegistration": {"name": "n"}},
            "joinConfiguration": {"nodeRegistration": {"name": "n"}}
        }
    })
}

pub(crate) fn input(spec: &Value) -> ControlPlaneInput<Kubeadm> {
    ControlPlaneInput {
        context: Context {
            now_ms: 0,
            deadline_ms: 10_000,
            attempt: 1,
            idempotency_key: "key".to_owned(),
            mode: Mode::Apply,
            config: json!({}),
            extra: Default::default(),
        },
        cluster: Object::from_value(json!({"metadata": {"name": "c"}})).unwrap(),
        control_plane: Object::from_value(json!({"metadata": {"name": "c-cp"}, "spec": spec}))
            .unwrap(),
        extra: Default::default(),
    }
}

fn machine_input(spec: &Value, machine: Value, config: Option<Value>) -> MachineInput<Kubeadm> {
    MachineInput {
        control_plane: input(spec),
        machine: Object::from_value(machine).unwrap(),
        bootstrap_config: config.map(|spec| Object::from_value(json!({"spec": spec})).unwrap()),
        infra_machine: None,
    }
}

#[test]
fn every_setting_reaches_the_hosts_model() {
    let desired = Kubeadm::desired(input(&spec())).unwrap();
    assert_eq!(
        (
            desired.replicas,
            desired.version.as_str(),
            desired.max_surge
        ),
        (3, "v1.36.3", 0)
    );
    assert_eq!(desired.infrastructure_template.name, "cp");
    assert_eq!(desired.bootstrap_kind, "KubeadmConfig");
    assert_eq!(
        desired.machine_labels,
        [("tier".to_owned(), "gold".to_owned())]
    );
    assert_eq!(
        desired.machine_naming,
        "{{ .controlPlane.name }}-x-{{ .random }}"
    );
    assert_eq!(desired.rollout_after_ms, Some(1_795_365_000_250));
    assert_eq!(desired.rollout_before_expiry_days, Some(30));
    assert_eq!(desired.remediation, json!({"maxRetry": 2}));
    assert_eq!(desired.deletion, json!({"nodeDrainTimeoutSeconds": 30}));
    let gates: Vec<&str> = desired
        .readiness_gates
        .as_array()
        .unwrap()
        .iter()
        .map(|gate| gate["conditionType"].as_str().unwrap())
        .collect();
    assert_eq!(
        gates,
        [
            "NodeKubeadmLabelsAndTaintsSet",
            "APIServerPodHealthy",
            "ControllerManagerPodHealthy",
            "SchedulerPodHealthy",
            "EtcdPodHealthy",
            "EtcdMemberHealthy",
            "Mine"
        ]
    );
}

#[test]
fn what_is_unset_has_upstreams_default() {
    let desired = desired::desired(&json!({"version": "v1.36.3"})).unwrap();
    assert_eq!((desired.replicas, desired.max_surge), (1, 1));
    assert_eq!(desired.machine_naming, "");
    assert_eq!(desired.rollout_after_ms, None);
}

#[test]
fn what_cannot_be_meant_is_named() {
    let bad = |field: Value| desired::desired(&json!({"rollout": field})).unwrap_err();
    let surge = bad(json!({"strategy": {"rollingUpdate": {"maxSurge": "50%"}}}));
    assert_eq!(surge.kind, FailureKind::Terminal);
    assert!(surge.message.contains("maxSurge"), "{surge}");
    assert!(
        bad(json!({"after": "tomorrow"}))
            .message
            .contains("spec.rollout.after")
    );
}

#[test]
fn times_are_read_as_kubernetes_writes_them() {
    assert_eq!(timestamp::unix_ms("1970-01-01T00:00:00Z"), Some(0));
    assert_eq!(
        timestamp::unix_ms("2000-02-29T23:59:59.5Z"),
        Some(951_868_799_500)
    );
    assert_eq!(
        timestamp::unix_ms("2026-11-22T00:00:00-01:30"),
        Some(1_795_311_000_000)
    );
    for bad in [
        "",
        "2026-11-22",
        "2026-13-01T00:00:00Z",
        "2026-11-22T00:00Z",
        "x-y-zT0:0:0Z",
        "2026-11-22T00:00:00",
    ] {
        assert_eq!(timestamp::unix_ms(bad), None, "{bad}");
    }
}

#[test]
fn an_external_etcd_needs_no_authority_and_has_no_pod() {
    let mut spec = spec();
    let names = |spec: &Value| {
        let name = |requirement: Requirement| match requirement {
            Requirement::CertificateAuthority {
                name,
                algorithm,
                validity_days,
                ..
            } => {
                assert_eq!((algorithm.as_str(), validity_days), ("ECDSA-P256", 100));
                name
            }
            Requirement::KeyPair { name, algorithm } => {
                assert_eq!(algorithm, "ECDSA-P256");
                name
            }
            Requirement::SecretValue { secret, key, .. } => format!("{secret}/{key}"),
            other => panic!("{other:?}"),
        };
        Kubeadm::requirements(input(spec))
            .unwrap()
            .into_iter()
            .map(name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&spec), ["ca", "etcd", "proxy", "sa"]);
    let machine = json!({"metadata": {"name": "m"}, "status": {"nodeRef": {"name": "n"}}});
    let with = Kubeadm::components(machine_input(&spec, machine.clone(), None)).unwrap();
    assert_eq!(with.components[0].pod_name, "kube-apiserver-n");
    let member = with.datastore.unwrap();
    assert_eq!(
        (
            member.pod_name.as_str(),
            member.port,
            member.certificate_authority.as_str()
        ),
        ("etcd-n", 2379, "etcd")
    );
    spec["kubeadmConfigSpec"]["clusterConfiguration"]["etcd"] =
        json!({"external": {"endpoints": ["https://e"]}});
    let brought = [
        "c-etcd/tls.crt",
        "c-apiserver-etcd-client/tls.crt",
        "c-apiserver-etcd-client/tls.key",
    ];
    assert_eq!(
        names(&spec),
        [&["ca", "proxy", "sa"][..], &brought].concat()
    );
    let without = Kubeadm::components(machine_input(&spec, machine, None)).unwrap();
    assert_eq!(without.components.len(), 3);
    assert_eq!(without.datastore, None);
}

#[test]
fn the_first_machine_initialises_and_the_others_join() {
    let init = machine_config::for_init(&spec());
    assert!(init.get("initConfiguration").is_some() && init.get("joinConfiguration").is_none());
    let join = machine_config::for_join(&spec());
    assert!(join.get("joinConfiguration").is_some() && join.get("initConfiguration").is_none());
    assert_eq!(join["clusterConfiguration"], init["clusterConfiguration"]);
    assert_eq!(
        machine_config::for_join(&json!({"version": "v1.36.0"})),
        json!({"format": "cloud-config"})
    );
}

#[test]
fn kubelets_use_their_own_api_server_where_that_is_not_the_default() {
    let gate = |version: &str| {
        machine_config::for_join(&json!({"version": version}))
            .pointer("/clusterConfiguration/featureGates/ControlPlaneKubeletLocalMode")
            .cloned()
    };
    assert_eq!(gate("v1.30.9"), None);
    assert_eq!(gate("v1.31.0"), Some(json!(true)));
    assert_eq!(gate("v1.35.4"), Some(json!(true)));
    assert_eq!(gate("v1.36.0"), None);
    let chosen = json!({"version": "v1.31.0", "kubeadmConfigSpec": {"clusterConfiguration": {"featureGates": {"ControlPlaneKubeletLocalMode": false}}}});
    assert_eq!(
        machine_config::for_join(&chosen),
        chosen["kubeadmConfigSpec"]
    );
}

#[test]
fn a_machine_is_outdated_when_its_config_differs_in_what_matters() {
    let spec = spec();
    let says = |config: Value| {
        !Kubeadm::outdated(machine_input(&spec, json!({}), Some(config)))
            .unwrap()
            .is_empty()
    };
    assert!(!says(machine_config::for_init(&spec)));
    assert!(!says(machine_config::for_join(&spec)));
    let mut filled = machine_config::for_join(&spec);
    filled["format"] = json!("cloud-config");
    filled["files"] = json!([]);
    filled["joinConfiguration"]["discovery"] = json!({"bootstrapToken": {"token": "t"}});
    filled["joinConfiguration"]["nodeRegistration"]["imagePullPolicy"] = json!("IfNotPresent");
    assert!(!says(filled.clone()));
    filled["joinConfiguration"]["nodeRegistration"]["taints"] = json!([]);
    assert!(says(filled), "an empty list of taints is not the default");
    let mut other = machine_config::for_join(&spec);
    other["preKubeadmCommands"] = json!(["true"]);
    assert!(says(other));
    assert!(
        Kubeadm::outdated(machine_input(&spec, json!({}), None))
            .unwrap()
            .is_empty(),
        "a missing config says nothing"
    );
}

#[test]
fn the_first_machine_stays_when_only_the_init_configuration_changed() {
    let old = spec();
    let mut new = spec();
    new["kubeadmConfigSpec"]["initConfiguration"]["skipPhases"] = json!(["addon/coredns"]);
    assert!(outdated::is_current(&new, &machine_config::for_init(&old)));
    new["kubeadmConfigSpec"]["joinConfiguration"]["skipPhases"] = json!(["preflight"]);
    assert!(!outdated::is_current(&new, &machine_config::for_init(&old)));
}

/// A control plane whose clusterConfiguration, init and join settings have a field more than those that its machines were made with.
fn changed(pointer: &str, field: &str, value: Value) -> (Value, Value) {
    let mut new = spec();
    let at = new
        .pointer_mut(&format!("/kubeadmConfigSpec{pointer}"))
        .unwrap();
    at[field] = value;
    (spec(), new)
}

fn init_is_current((old, new): &(Value, Value)) -> bool {
    outdated::is_current(new, &machine_config::for_init(old))
}

fn join_is_current((old, new): &(Value, Value)) -> bool {
    outdated::is_current(new, &machine_config::for_join(old))
}

#[test]
fn no_machine_is_replaced_for_coredns_which_is_updated_where_it_runs() {
    let change = changed(
        "/clusterConfiguration",
        "dns",
        json!({"imageTag": "v1.14.2"}),
    );
    assert!(init_is_current(&change) && join_is_current(&change));
}

#[test]
fn no_machine_is_replaced_for_the_endpoint_that_the_cluster_has() {
    let change = changed(
        "/clusterConfiguration",
        "controlPlaneEndpoint",
        json!("h:6443"),
    );
    assert!(init_is_current(&change) && join_is_current(&change));
}

#[test]
fn no_machine_is_replaced_for_how_long_kubeadm_waited() {
    let timeout = |seconds: u32| json!({"controlPlaneComponentHealthCheckSeconds": seconds});
    for kind in ["/initConfiguration", "/joinConfiguration"] {
        let change = changed(kind, "timeouts", timeout(300));
        assert!(
            init_is_current(&change) && join_is_current(&change),
            "{kind}"
        );
    }
    let other = changed(
        "/joinConfiguration",
        "timeouts",
        json!({"tlsBootstrapSeconds": 300}),
    );
    assert!(!join_is_current(&other), "other timeouts are compared");
}

#[test]
fn where_a_joining_machine_finds_the_authority_says_nothing_about_the_first_one() {
    let change = changed("/joinConfiguration", "caCertPath", json!("/etc/ca.crt"));
    assert!(init_is_current(&change));
    assert!(!join_is_current(&change));
}

#[test]
fn it_is_initialized_when_kubeadm_has_left_its_configuration() {
    let InitializedWhen::ObjectExists {
        kind,
        namespace,
        name,
        ..
    } = Kubeadm::initialized(input(&spec())).unwrap()
    else {
        panic!("not an object");
    };
    assert_eq!(
        (kind.as_str(), namespace.as_str(), name.as_str()),
        ("ConfigMap", "kube-system", "kubeadm-config")
    );
}

#[test]
fn the_manifest_has_whole_schemas_and_asks_for_what_the_quickstart_grants() {
    let manifest = Kubeadm::manifest();
    let [asked] = manifest.capabilities.as_slice() else {
        panic!("{:?}", manifest.capabilities)
    };
    assert!(asked.name == "workload" && asked.optional);
    let granted = include_str!("../../../examples/quickstart/grants/control-plane-kubeadm.yaml");
    let granted = capstan_sdk::yaml::read(granted).unwrap();
    assert_eq!(
        granted["spec"]["grants"][0]["workload"],
        asked.suggestion["workload"]
    );
    assert_eq!(manifest.kinds.len(), 2);
    for kind in &manifest.kinds {
        let schema = kind.spec.to_json();
        let config = &schema["properties"]["kubeadmConfigSpec"];
        assert_eq!(
            config["properties"]["files"]["maxItems"], 200,
            "{}",
            kind.kind
        );
    }
    let copy = include_str!("../schema/kubeadmconfig-spec.json");
    let original = include_str!("../../bootstrap-kubeadm/schema/kubeadmconfig-spec.json");
    assert!(
        copy == original,
        "schema/kubeadmconfig-spec.json is not bootstrap-kubeadm's"
    );
}
