//! The cases: an object, what is changed of it, and what the refusal must say.

mod group;
mod kubeadm;

use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, BOOTSTRAP_TEMPLATE, CLUSTER, CLUSTER_RESOURCE_SET,
    CLUSTER_RESOURCE_SET_BINDING, CONTROL_PLANE, IP_ADDRESS, IP_ADDRESS_CLAIM, Kind, MACHINE,
    MACHINE_DEPLOYMENT, MACHINE_DRAIN_RULE, MACHINE_HEALTH_CHECK, MACHINE_POOL, MACHINE_SET,
};
use serde_json::{Value, json};

/// KubeadmControlPlaneTemplate.
const CONTROL_PLANE_TEMPLATE: Kind = Kind {
    api_version: "controlplane.cluster.x-k8s.io/v1beta2",
    plural: "kubeadmcontrolplanetemplates",
    namespaced: true,
};

/// One change.
pub(super) struct Case {
    /// Section of the contract.
    pub(super) section: &'static str,
    /// Which object.
    pub(super) of: &'static str,
    /// Whether the object itself is changed, or another one made that differs by this.
    pub(super) is_update: bool,
    /// A merge patch.
    pub(super) change: Value,
    /// What the refusal says.
    pub(super) words: &'static str,
}

/// All objects that cases change.
pub(super) const BASES: [&str; 15] = [
    "cluster",
    "machine",
    "set",
    "deployment",
    "pool",
    "check",
    "drain rule",
    "resource set",
    "binding",
    "claim",
    "address",
    "config",
    "config template",
    "control plane",
    "plane template",
];

/// A good object. Nobody works on it.
pub(super) fn base(of: &str, ns: &str) -> (Kind, Value) {
    let infra = |kind: &str| json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": kind, "name": "i"});
    let template = json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "clusterName": "c", "version": "v1.36.1", "bootstrap": {"dataSecretName": "data"},
            "infrastructureRef": infra("LocalMachineTemplate"),
        },
    });
    let group = json!({
        "clusterName": "c", "replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": template,
    });
    let pool = json!({"apiGroup": "ipam.example.com", "kind": "Pool", "name": "p"});
    let plane = json!({
        "kubeadmConfigSpec": {
            "clusterConfiguration": {"controlPlaneEndpoint": "a:6443", "etcd": {"local": {"imageTag": "3.6.0"}}},
            "initConfiguration": {"timeouts": {"controlPlaneComponentHealthCheckSeconds": 60}},
            "joinConfiguration": {"timeouts": {"controlPlaneComponentHealthCheckSeconds": 60}},
        },
    });
    let (kind, name, spec) = match of {
        "cluster" => (
            CLUSTER,
            "Cluster",
            json!({
                "clusterNetwork": {"pods": {"cidrBlocks": ["10.244.0.0/16", "fd00::/48"]}},
                "infrastructureRef": infra("LocalCluster"),
                "controlPlaneRef": {"apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": "p"},
            }),
        ),
        "machine" => (
            MACHINE,
            "Machine",
            json!({
                "clusterName": "c", "version": "v1.36.1", "bootstrap": {"dataSecretName": "data"},
                "infrastructureRef": infra("LocalMachine"),
            }),
        ),
        "set" => (MACHINE_SET, "MachineSet", group),
        "deployment" => (MACHINE_DEPLOYMENT, "MachineDeployment", group),
        "pool" => {
            let mut pool = group;
            pool["selector"] = Value::Null;
            pool["providerIDList"] = json!(["pool://a"]);
            pool["failureDomains"] = json!(["zone-a"]);
            (MACHINE_POOL, "MachinePool", pool)
        }
        "check" => (
            MACHINE_HEALTH_CHECK,
            "MachineHealthCheck",
            json!({"clusterName": "c", "selector": {"matchLabels": {"app": "a"}}}),
        ),
        "drain rule" => (
            MACHINE_DRAIN_RULE,
            "MachineDrainRule",
            json!({"drain": {"behavior": "Drain", "order": 1}}),
        ),
        "resource set" => (
            CLUSTER_RESOURCE_SET,
            "ClusterResourceSet",
            json!({
                "clusterSelector": {"matchLabels": {"nobody": "has"}}, "strategy": "Reconcile",
                "resources": [{"kind": "ConfigMap", "name": "m"}],
            }),
        ),
        "binding" => (
            CLUSTER_RESOURCE_SET_BINDING,
            "ClusterResourceSetBinding",
            // It would go with its Cluster.
            json!({"clusterName": "base"}),
        ),
        "claim" => (
            IP_ADDRESS_CLAIM,
            "IPAddressClaim",
            json!({"clusterName": "c", "poolRef": pool}),
        ),
        "address" => (
            IP_ADDRESS,
            "IPAddress",
            json!({
                "claimRef": {"name": "base"}, "poolRef": pool,
                "address": "10.0.0.5", "prefix": 24, "gateway": "10.0.0.1",
            }),
        ),
        "config" => (
            BOOTSTRAP_CONFIG,
            "KubeadmConfig",
            json!({"files": [{"path": "/a", "content": "a"}]}),
        ),
        "config template" => (
            BOOTSTRAP_TEMPLATE,
            "KubeadmConfigTemplate",
            json!({"template": {"spec": {"files": [{"path": "/a", "content": "a"}]}}}),
        ),
        "control plane" => {
            let mut plane = plane;
            plane["replicas"] = json!(1);
            plane["version"] = json!("v1.36.1");
            plane["machineTemplate"] =
                json!({"spec": {"infrastructureRef": infra("LocalMachineTemplate")}});
            (CONTROL_PLANE, "KubeadmControlPlane", plane)
        }
        "plane template" => (
            CONTROL_PLANE_TEMPLATE,
            "KubeadmControlPlaneTemplate",
            json!({"template": {"spec": plane}}),
        ),
        other => panic!("{other}"),
    };
    let object = json!({
        "apiVersion": kind.api_version, "kind": name,
        "metadata": {"namespace": ns, "name": "base", "annotations": {"cluster.x-k8s.io/paused": "true"}},
        "spec": spec,
    });
    (kind, object)
}

/// A case about another object that differs from the good one.
fn new(section: &'static str, of: &'static str, change: Value, words: &'static str) -> Case {
    Case {
        section,
        of,
        is_update: false,
        change,
        words,
    }
}

/// A case about a change of the good one.
fn update(section: &'static str, of: &'static str, change: Value, words: &'static str) -> Case {
    Case {
        is_update: true,
        ..new(section, of, change, words)
    }
}

/// What is refused.
pub(super) fn refused() -> Vec<Case> {
    let mut all = clusters();
    all.extend(machines());
    for of in ["set", "deployment"] {
        all.extend(group::groups(of));
    }
    all.extend(group::deployments());
    all.extend(group::pools());
    all.extend(group::checks_and_drain_rules());
    all.extend(addons_and_addresses());
    for of in ["config", "config template", "control plane"] {
        all.extend(kubeadm::configs(of));
    }
    all.extend(kubeadm::control_planes());
    all
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn annotated(key: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

fn clusters() -> Vec<Case> {
    let topology = json!({"classRef": {"name": "class"}, "version": "v1.36.1"});
    let long = "a".repeat(64);
    vec![
        new(
            "4.1",
            "cluster",
            json!({"metadata": {"name": long}}),
            "at most 63 characters",
        ),
        new(
            "4.1",
            "cluster",
            spec(json!({"infrastructureRef": null, "controlPlaneRef": null})),
            "set infrastructureRef or controlPlaneRef",
        ),
        update(
            "4.1",
            "cluster",
            spec(json!({"infrastructureRef": null})),
            "infrastructureRef cannot be removed",
        ),
        update(
            "4.1",
            "cluster",
            spec(json!({"controlPlaneRef": null})),
            "controlPlaneRef cannot be removed",
        ),
        new(
            "4.1",
            "cluster",
            spec(json!({"clusterNetwork": {"pods": {"cidrBlocks": ["10.0.0.0"]}}})),
            "CIDR notation",
        ),
        new(
            "4.1",
            "cluster",
            spec(json!({"clusterNetwork": {"services": {"cidrBlocks": ["10.0.0.0/33"]}}})),
            "CIDR notation",
        ),
        new(
            "4.1",
            "cluster",
            spec(
                json!({"clusterNetwork": {"pods": {"cidrBlocks": ["10.0.0.0/16", "10.1.0.0/16"]}}}),
            ),
            "one of IPv4 and one of IPv6",
        ),
        new(
            "4.1",
            "cluster",
            spec(
                json!({"clusterNetwork": {"services": {"cidrBlocks": ["10.0.0.0/16", "fd00::/112", "fd01::/112"]}}}),
            ),
            "one of IPv4 and one of IPv6",
        ),
        new(
            "4.1",
            "cluster",
            spec(json!({"topology": topology})),
            "leave topology out",
        ),
        update(
            "4.1",
            "cluster",
            spec(json!({"topology": topology})),
            "leave topology out",
        ),
        new(
            "4.1",
            "cluster",
            annotated("topology.cluster.x-k8s.io/upgrade-concurrency", "0"),
            "must be a whole number of at least 1",
        ),
    ]
}

/// Taints that are nobody's to choose, and what is said about them.
const TAINTS: [(&str, &str); 6] = [
    (
        "node.cluster.x-k8s.io/uninitialized",
        "set by Cluster API itself",
    ),
    (
        "node.cluster.x-k8s.io/outdated-revision",
        "set by Cluster API itself",
    ),
    (
        "node-role.kubernetes.io/master",
        "set by Cluster API itself",
    ),
    ("node.kubernetes.io/unreachable", "belong to Kubernetes"),
    (
        "node.cloudprovider.kubernetes.io/shutdown",
        "belong to the cloud provider",
    ),
    ("no key", "taints[0].key"),
];

fn taints(key: &str) -> Value {
    json!({"taints": [{"key": key, "effect": "NoSchedule", "propagation": "Always"}]})
}

fn machines() -> Vec<Case> {
    let mut all = vec![
        new(
            "4.3",
            "machine",
            spec(json!({"bootstrap": {"dataSecretName": null}})),
            "set configRef",
        ),
        update(
            "4.3",
            "machine",
            spec(json!({"clusterName": "other"})),
            "cannot be changed",
        ),
        new(
            "4.3",
            "machine",
            spec(json!({"version": "latest"})),
            "must be a version such as",
        ),
        new(
            "4.3",
            "machine",
            spec(json!({"version": "v1.36"})),
            "must be a version such as",
        ),
        new(
            "4.9",
            "machine",
            spec(taints("node-role.kubernetes.io/control-plane")),
            "only for Machines with the label",
        ),
    ];
    all.extend(TAINTS.map(|(key, words)| new("4.9", "machine", spec(taints(key)), words)));
    all
}

fn addons_and_addresses() -> Vec<Case> {
    let set = "resource set";
    vec![
        new(
            "4.5",
            set,
            spec(json!({"clusterSelector": {"matchLabels": null}})),
            "must not be empty",
        ),
        update(
            "4.5",
            set,
            spec(json!({"clusterSelector": {"matchLabels": {"b": "c"}}})),
            "cannot be changed",
        ),
        update(
            "4.5",
            set,
            spec(json!({"strategy": "ApplyOnce"})),
            "strategy cannot be changed once it is set",
        ),
        new(
            "4.5",
            set,
            spec(
                json!({"clusterSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            ),
            "values are needed for In",
        ),
        update(
            "4.5",
            "binding",
            spec(json!({"clusterName": "other"})),
            "cannot be changed",
        ),
        update(
            "4.5",
            "claim",
            spec(json!({"poolRef": {"name": "other"}})),
            "make another IPAddressClaim",
        ),
        new(
            "4.5",
            "claim",
            spec(json!({"poolRef": {"kind": null}})),
            "spec.poolRef.kind",
        ),
        update(
            "4.5",
            "address",
            spec(json!({"gateway": "10.0.0.2"})),
            "make another IPAddress",
        ),
        new(
            "4.5",
            "address",
            spec(json!({"address": "10.0.0"})),
            "must be an IP address",
        ),
        new(
            "4.5",
            "address",
            spec(json!({"gateway": "gateway"})),
            "must be an IP address",
        ),
        new("4.5", "address", spec(json!({"prefix": 33})), "at most 32"),
        new(
            "4.5",
            "address",
            spec(json!({"address": "fd00::1", "prefix": 129})),
            "spec.prefix",
        ),
        new("4.5", "address", spec(json!({"prefix": -1})), "spec.prefix"),
    ]
}

/// What looks like something that is refused.
pub(super) fn accepted() -> Vec<Case> {
    let labelled = json!({"cluster.x-k8s.io/control-plane": ""});
    let mut control_plane = spec(taints("node-role.kubernetes.io/control-plane"));
    control_plane["metadata"] = json!({ "labels": labelled });
    vec![
        new("4.9", "machine", control_plane, ""),
        new(
            "4.9",
            "machine",
            spec(taints("node.kubernetes.io/out-of-service")),
            "",
        ),
        new(
            "4.5",
            "address",
            spec(json!({"address": "fd00::1", "gateway": "fd00::2", "prefix": 64})),
            "",
        ),
        new("4.3", "machine", spec(json!({"version": "1.36.1"})), ""),
        new(
            "4.3",
            "set",
            spec(json!({"machineNaming": {"template": "{{ .cluster.name }}-{{ .random }}"}})),
            "",
        ),
        new(
            "4.4",
            "check",
            spec(json!({"checks": {"nodeStartupTimeoutSeconds": 0}})),
            "",
        ),
        update(
            "4.7",
            "control plane",
            spec(json!({"version": "v1.37.0"})),
            "",
        ),
        new(
            "4.7",
            "control plane",
            spec(
                json!({"machineNaming": {"template": "{{ .kubeadmControlPlane.name }}-x-{{ .random }}"}}),
            ),
            "",
        ),
    ]
}
