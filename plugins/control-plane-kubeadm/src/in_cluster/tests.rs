//! What the plugin does inside a workload cluster, against a cluster in memory.

use capstan_sdk::control_plane::{ControlPlane, ControlPlaneInput};
use capstan_sdk::testing::Host;
use capstan_sdk::workload::{ApiResource, ObjectName};
use capstan_sdk::{FailureKind, Progress, yaml};
use serde_json::{Value, json};

use super::{config_maps, corefile, in_system};
use crate::Kubeadm;

const ROLES: &str = "rbac.authorization.k8s.io";

fn input(version: &str, cluster: Value, annotations: Value) -> ControlPlaneInput<Kubeadm> {
    let spec = json!({"version": version, "kubeadmConfigSpec": {"clusterConfiguration": cluster}});
    let mut input = crate::tests::input(&spec);
    input.control_plane.metadata.annotations = serde_json::from_value(annotations).unwrap();
    input
}

fn workload(host: &Host, kind: &str, name: &str, image: &str) {
    let (resource, container) = (ApiResource::new("apps", "v1", kind), name);
    let object = json!({
        "metadata": {"namespace": "kube-system", "name": name, "resourceVersion": "7"},
        "spec": {"template": {"spec": {"containers": [
            {"name": "sidecar", "image": "x:1"}, {"name": container, "image": image, "args": ["-a"]},
        ]}}},
    });
    host.set_workload_object(&resource, object);
}

fn image(host: &Host, kind: &str, name: &str) -> String {
    let resource = ApiResource::new("apps", "v1", kind);
    let object = host.workload_object(&resource, &in_system(name)).unwrap();
    assert_eq!(
        object["spec"]["template"]["spec"]["containers"][0]["image"],
        "x:1"
    );
    let own = &object["spec"]["template"]["spec"]["containers"][1];
    assert_eq!(own["args"][0], "-a");
    own["image"].as_str().unwrap().to_owned()
}

fn map(host: &Host, name: &str, key: &str, text: &str) {
    let object =
        json!({"metadata": {"namespace": "kube-system", "name": name}, "data": {key: text}});
    host.set_workload_object(&config_maps(), object);
}

fn configuration(host: &Host) -> Value {
    let map = host.workload_object(&config_maps(), &in_system("kubeadm-config"));
    yaml::read(
        map.unwrap()["data"]["ClusterConfiguration"]
            .as_str()
            .unwrap(),
    )
    .unwrap()
}

const OF_KUBEADM: &str = "apiServer:
  extraArgs:
  - name: authorization-mode
    value: Node,RBAC
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: /etc/kubernetes/pki
clusterName: c
controlPlaneEndpoint: 10.0.0.1:6443
controllerManager: {}
dns: {}
encryptionAlgorithm: RSA-2048
etcd:
  local:
    dataDir: /data/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: v1.35.6
networking:
  dnsDomain: cluster.local
  podSubnet: 192.168.0.0/16
proxy: {}
scheduler: {}
";

#[test]
fn the_map_takes_what_the_object_says_and_keeps_what_the_cluster_is() {
    let host = Host::new();
    map(&host, "kubeadm-config", "ClusterConfiguration", OF_KUBEADM);
    let wanted = json!({
        "imageRepository": "mirror.example/k8s",
        "featureGates": {"NodeLocalCRISocket": true},
        "apiServer": {"extraArgs": [{"name": "audit-log-path", "value": "-"}], "certSANs": ["api.example"]},
        "scheduler": {"extraEnvs": [{"name": "A", "value": "0644"}]},
        "certificateValidityPeriodDays": 100,
        "encryptionAlgorithm": "ECDSA-P256",
        "etcd": {"local": {"imageTag": "3.6.8-0"}},
    });
    let asked = Kubeadm::before_rollout(input("v1.36.3", wanted, json!({}))).unwrap();
    assert_eq!(asked, Progress::Ready);
    let mut expected = yaml::read(OF_KUBEADM).unwrap();
    expected["kubernetesVersion"] = json!("v1.36.3");
    expected["imageRepository"] = json!("mirror.example/k8s");
    expected["featureGates"] = json!({"NodeLocalCRISocket": true});
    expected["apiServer"] = json!({"extraArgs": [{"name": "audit-log-path", "value": "-"}], "certSANs": ["api.example"]});
    expected["scheduler"] = json!({"extraEnvs": [{"name": "A", "value": "0644"}]});
    expected["certificateValidityPeriod"] = json!("2400h0m0s");
    expected["encryptionAlgorithm"] = json!("ECDSA-P256");
    expected["etcd"] = json!({"local": {"dataDir": "/data/etcd", "imageTag": "3.6.8-0"}});
    assert_eq!(configuration(&host), expected);
}

#[test]
fn a_setting_that_is_taken_back_leaves_the_map() {
    let host = Host::new();
    map(&host, "kubeadm-config", "ClusterConfiguration", OF_KUBEADM);
    let wanted = json!({"imageRepository": "registry.k8s.io"});
    Kubeadm::before_rollout(input("v1.35.6", wanted, json!({}))).unwrap();
    let now = configuration(&host);
    assert_eq!(now["apiServer"], json!({}));
    assert_eq!(
        now["featureGates"],
        json!({"ControlPlaneKubeletLocalMode": true})
    );
    assert_eq!(now["imageRepository"], "registry.k8s.io");
    for taken_back in ["certificateValidityPeriod", "encryptionAlgorithm"] {
        assert_eq!(now.get(taken_back), None, "{taken_back}");
    }
    assert_eq!(now["caCertificateValidityPeriod"], "87600h0m0s");
}

#[test]
fn an_older_map_is_written_anew_for_a_newer_kubeadm() {
    let host = Host::new();
    let older = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\napiServer:\n  timeoutForControlPlane: 4m0s\n  extraArgs:\n    v: '4'\n";
    map(&host, "kubeadm-config", "ClusterConfiguration", older);
    let wanted = json!({"apiServer": {"extraArgs": [{"name": "v", "value": "4"}]}});
    Kubeadm::before_rollout(input("v1.30.9", wanted.clone(), json!({}))).unwrap();
    let now = configuration(&host);
    assert_eq!(now["apiVersion"], "kubeadm.k8s.io/v1beta3");
    assert_eq!(
        now["apiServer"],
        json!({"timeoutForControlPlane": "4m0s", "extraArgs": {"v": "4"}})
    );
    Kubeadm::before_rollout(input("v1.31.0", wanted.clone(), json!({}))).unwrap();
    let now = configuration(&host);
    assert_eq!(now["apiVersion"], "kubeadm.k8s.io/v1beta4");
    assert_eq!(
        now["apiServer"],
        json!({"extraArgs": [{"name": "v", "value": "4"}]})
    );
    // kubeadm of 1.30 would not read it any more.
    let back = Kubeadm::before_rollout(input("v1.30.9", wanted, json!({}))).unwrap_err();
    assert_eq!(
        (back.kind, back.reason.as_str()),
        (FailureKind::Terminal, "DowngradeImpossible")
    );
}

/// What kubeadm of an older version wrote for somebody else, with all that an object may say nothing about.
const OLDER: &str = "apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
apiServer:
  certSANs: [api.example]
  extraArgs:
    v: '4'
    audit-log-path: '-'
  timeoutForControlPlane: 4m0s
controllerManager:
  extraArgs:
    bind-address: 0.0.0.0
scheduler:
  extraVolumes: [{name: a, hostPath: /a, mountPath: /a}]
etcd:
  local:
    dataDir: /data/etcd
    extraArgs:
      quota-backend-bytes: '8589934592'
featureGates:
  RootlessControlPlane: true
networking:
  podSubnet: 192.168.0.0/16
";

#[test]
fn an_object_that_says_nothing_of_the_cluster_changes_its_version_only() {
    let host = Host::new();
    let none = |version: &str| {
        let mut input = input(version, json!({}), json!({}));
        input.control_plane.spec["kubeadmConfigSpec"] = json!({"files": []});
        Kubeadm::before_rollout(input)
    };
    for (of_kubeadm, version) in [(OLDER, "v1.30.9"), (OF_KUBEADM, "v1.36.3")] {
        for empty in [false, true] {
            map(&host, "kubeadm-config", "ClusterConfiguration", of_kubeadm);
            let asked = if empty {
                Kubeadm::before_rollout(input(version, json!({}), json!({})))
            } else {
                none(version)
            };
            asked.unwrap();
            let mut expected = yaml::read(of_kubeadm).unwrap();
            expected["kubernetesVersion"] = json!(version);
            assert_eq!(configuration(&host), expected, "{version}");
        }
    }
    // The gate that machines of some versions need is theirs, beside the cluster's own.
    let own = json!({"RootlessControlPlane": true});
    map(&host, "kubeadm-config", "ClusterConfiguration", OLDER);
    none("v1.35.6").unwrap();
    let gates = json!({"RootlessControlPlane": true, "ControlPlaneKubeletLocalMode": true});
    assert_eq!(configuration(&host)["featureGates"], gates);
    none("v1.36.3").unwrap();
    assert_eq!(configuration(&host)["featureGates"], own);
}

#[test]
fn an_older_map_keeps_all_of_it_in_the_newer_format() {
    let host = Host::new();
    map(&host, "kubeadm-config", "ClusterConfiguration", OLDER);
    Kubeadm::before_rollout(input("v1.31.0", json!({}), json!({}))).unwrap();
    let mut expected = yaml::read(OLDER).unwrap();
    expected["apiVersion"] = json!("kubeadm.k8s.io/v1beta4");
    expected["kubernetesVersion"] = json!("v1.31.0");
    expected["apiServer"] = json!({
        "certSANs": ["api.example"],
        "extraArgs": [{"name": "audit-log-path", "value": "-"}, {"name": "v", "value": "4"}],
    });
    expected["controllerManager"] =
        json!({"extraArgs": [{"name": "bind-address", "value": "0.0.0.0"}]});
    expected["etcd"]["local"]["extraArgs"] =
        json!([{"name": "quota-backend-bytes", "value": "8589934592"}]);
    expected["featureGates"]["ControlPlaneKubeletLocalMode"] = json!(true);
    assert_eq!(configuration(&host), expected);
}

#[test]
fn where_etcd_runs_stays_what_it_is() {
    let host = Host::new();
    let external = json!({"external": {"endpoints": ["https://10.0.0.9:2379"], "caFile": "/a", "certFile": "/b", "keyFile": "/c"}});
    let mut elsewhere = yaml::read(OF_KUBEADM).unwrap();
    elsewhere["etcd"] = external.clone();
    let elsewhere = yaml::write(elsewhere);
    map(&host, "kubeadm-config", "ClusterConfiguration", &elsewhere);
    let wanted = json!({"imageRepository": "mirror.example/k8s"});
    Kubeadm::before_rollout(input("v1.36.3", wanted, json!({}))).unwrap();
    assert_eq!(configuration(&host)["etcd"], external);
    let moved = json!({"etcd": {"external": {"endpoints": ["https://10.0.0.10:2379"]}}});
    Kubeadm::before_rollout(input("v1.36.3", moved.clone(), json!({}))).unwrap();
    assert_eq!(configuration(&host)["etcd"], moved["etcd"]);
    map(&host, "kubeadm-config", "ClusterConfiguration", OF_KUBEADM);
    Kubeadm::before_rollout(input("v1.36.3", moved, json!({}))).unwrap();
    assert_eq!(
        configuration(&host)["etcd"],
        json!({"local": {"dataDir": "/data/etcd"}})
    );
}

#[test]
fn a_map_that_is_none_is_named() {
    let host = Host::new();
    for (text, says) in [("", "empty"), ("a: [", "YAML"), ("kind: X", "apiVersion")] {
        map(&host, "kubeadm-config", "ClusterConfiguration", text);
        let refused = Kubeadm::before_rollout(input("v1.36.3", json!({}), json!({}))).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Terminal);
        assert!(refused.message.contains(says), "{}", refused.message);
        assert!(
            refused.message.contains("kube-system/kubeadm-config"),
            "{}",
            refused.message
        );
    }
}

#[test]
fn roles_that_are_missing_are_made_and_others_stay() {
    let host = Host::new();
    map(&host, "kubeadm-config", "ClusterConfiguration", OF_KUBEADM);
    let bindings = ApiResource::new(ROLES, "v1", "clusterrolebindings");
    let own = json!({"metadata": {"name": "kubeadm:cluster-admins"}, "subjects": []});
    host.set_workload_object(&bindings, own.clone());
    Kubeadm::before_rollout(input("v1.36.3", json!({}), json!({}))).unwrap();
    let find = |name: &str| host.workload_object(&bindings, &ObjectName::cluster_scoped(name));
    assert_eq!(find("kubeadm:cluster-admins"), Some(own));
    let made = find("kubeadm:apiserver-kubelet-client").unwrap();
    assert_eq!(made["roleRef"]["name"], "system:kubelet-api-admin");
    for plural in ["roles", "rolebindings"] {
        let resource = ApiResource::new(ROLES, "v1", plural);
        for name in ["kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config"] {
            assert!(
                host.workload_object(&resource, &in_system(name)).is_some(),
                "{plural} {name}"
            );
        }
    }
}

#[test]
fn the_proxy_follows_the_version_and_the_repository() {
    let host = Host::new();
    let stable = |version: &str, cluster: Value| {
        Kubeadm::after_stable(input(version, cluster, json!({}))).unwrap();
        image(&host, "daemonsets", "kube-proxy")
    };
    workload(
        &host,
        "daemonsets",
        "kube-proxy",
        "registry.k8s.io/kube-proxy:v1.35.6@sha256:00",
    );
    assert_eq!(
        stable("v1.36.3+x.1", json!({})),
        "registry.k8s.io/kube-proxy:v1.36.3_x.1"
    );
    assert_eq!(
        stable("v1.36.3", json!({"imageRepository": "m.example:5000/k8s/"})),
        "m.example:5000/k8s/kube-proxy:v1.36.3"
    );
}

#[test]
fn add_ons_that_are_not_there_or_not_ours_are_left_alone() {
    let host = Host::new();
    let wanted = json!({"dns": {"imageTag": "v1.14.2"}});
    Kubeadm::after_stable(input("v1.36.3", wanted.clone(), json!({}))).unwrap();
    workload(&host, "daemonsets", "kube-proxy", "r/kube-proxy:v1.35.6");
    workload(&host, "deployments", "coredns", "r/coredns:v1.13.1");
    let skip = json!({
        "controlplane.cluster.x-k8s.io/skip-kube-proxy": "", "controlplane.cluster.x-k8s.io/skip-coredns": "",
    });
    Kubeadm::after_stable(input("v1.36.3", wanted, skip)).unwrap();
    assert_eq!(
        image(&host, "daemonsets", "kube-proxy"),
        "r/kube-proxy:v1.35.6"
    );
    assert_eq!(image(&host, "deployments", "coredns"), "r/coredns:v1.13.1");
}

const COREFILE: &str = ".:53 {
    errors
    kubernetes cluster.local in-addr.arpa {
       pods insecure
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
}
";

#[test]
fn dns_goes_to_the_version_that_the_object_names() {
    let host = Host::new();
    map(&host, "kubeadm-config", "ClusterConfiguration", OF_KUBEADM);
    map(&host, "coredns", "Corefile", COREFILE);
    workload(
        &host,
        "deployments",
        "coredns",
        "registry.k8s.io/coredns/coredns:v1.13.1",
    );
    let stable = |cluster: Value| {
        Kubeadm::after_stable(input("v1.36.3", cluster, json!({})))?;
        Ok::<_, capstan_sdk::Failure>(image(&host, "deployments", "coredns"))
    };
    // Nothing is said, so nothing changes.
    assert_eq!(
        stable(json!({})).unwrap(),
        "registry.k8s.io/coredns/coredns:v1.13.1"
    );
    assert_eq!(configuration(&host)["dns"], json!({}));
    let newer = json!({"dns": {"imageTag": "v1.14.2"}});
    assert_eq!(
        stable(newer).unwrap(),
        "registry.k8s.io/coredns/coredns:v1.14.2"
    );
    assert_eq!(configuration(&host)["dns"], json!({"imageTag": "v1.14.2"}));
    let mirrored = json!({"imageRepository": "m/k8s", "dns": {"imageRepository": "m/dns/", "imageTag": "v1.14.2"}});
    assert_eq!(stable(mirrored).unwrap(), "m/dns/coredns:v1.14.2");
    let older = stable(json!({"dns": {"imageTag": "v1.12.0"}})).unwrap_err();
    assert_eq!(older.kind, FailureKind::Terminal);
    assert!(older.message.contains("dns.imageTag"), "{}", older.message);
    let future = stable(json!({"dns": {"imageTag": "v1.15.0"}})).unwrap_err();
    assert_eq!(
        (future.kind, future.reason.as_str()),
        (FailureKind::Terminal, "CoreDNSUpgradeRefused")
    );
    for part in ["CoreDNS v1.15.0", "1.14 or older", "skip-coredns"] {
        assert!(future.message.contains(part), "{}", future.message);
    }
    assert_eq!(configuration(&host)["dns"]["imageTag"], "v1.14.2");
    assert_eq!(
        image(&host, "deployments", "coredns"),
        "m/dns/coredns:v1.14.2"
    );
}

#[test]
fn dns_that_would_not_read_its_corefile_stays_and_says_which_line() {
    let host = Host::new();
    map(&host, "kubeadm-config", "ClusterConfiguration", OF_KUBEADM);
    workload(&host, "deployments", "coredns", "r/coredns:1.6.7");
    let text = COREFILE
        .replace("pods insecure", "upstream")
        .replace("cache 30", "federation cluster.local {\n x y\n }");
    map(&host, "coredns", "Corefile", &text);
    let wanted = json!({"dns": {"imageTag": "v1.14.2"}});
    let refused = Kubeadm::after_stable(input("v1.36.3", wanted, json!({}))).unwrap_err();
    assert_eq!(refused.reason, "CoreDNSUpgradeRefused");
    for part in [
        "line 4: kubernetes upstream ended with 1.7.0",
        "line 9: federation",
        "skip-coredns",
    ] {
        assert!(
            refused.message.contains(part),
            "{part}: {}",
            refused.message
        );
    }
    assert_eq!(image(&host, "deployments", "coredns"), "r/coredns:1.6.7");
    assert_eq!(configuration(&host)["dns"], json!({}));
}

#[test]
fn comments_and_words_elsewhere_are_no_directives() {
    let text = ".:53 {\n # proxy . 1.1.1.1\n hosts proxy {\n  federation a\n }\n rewrite name proxy federation\n}\n";
    assert!(corefile::obstacles(text, (1, 6, 0), (1, 14, 2)).is_empty());
    assert!(!corefile::obstacles("", (1, 5, 0), (1, 14, 2)).is_empty());
    assert_eq!(
        corefile::obstacles(".:53 {\n proxy . x\n}", (1, 6, 0), (1, 14, 2)).len(),
        1
    );
    assert!(corefile::obstacles(".:53 {\n proxy . x\n}", (1, 8, 0), (1, 14, 2)).is_empty());
}
