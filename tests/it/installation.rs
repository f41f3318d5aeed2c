//! The host with exactly the account and the rights of its installation: nothing is forbidden to it, and it needs every one of them.

use std::collections::BTreeSet;

use capstan_local::control_plane::ControlPlane;
use capstan_tests::cloud::TestCloud;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::{NAMESPACE, TestHost};
use capstan_tests::installation::{
    ACCOUNT, account_kubeconfig, apply, host_args, manifests, of_kind,
};
use capstan_tests::kube_client::{
    CLUSTER, CLUSTER_RESOURCE_SET, CONFIG_MAP, Kind, Kube, MACHINE_DEPLOYMENT,
    MACHINE_HEALTH_CHECK, MACHINE_HOOK, PLUGIN, POD, SECRET, condition, name,
};
use capstan_tests::pool::TestPool;
use capstan_tests::process::HostProcess;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

/// Rights that only accidents need, with the accident.
const RARE: [(&str, &str); 5] = [
    (
        "create configmaps",
        "several machines of a new control plane wait for their turn to initialize it",
    ),
    ("delete configmaps", "as before: the turn is over"),
    (
        "get machines.cluster.x-k8s.io",
        "the answer to the creation of a control-plane machine was lost",
    ),
    (
        "patch events.events.k8s.io",
        "the same happens again after a minute",
    ),
    (
        "delete machinesets.cluster.x-k8s.io",
        "a MachineSet has no MachineDeployment any more, or too many revisions are kept",
    ),
];

/// clusterctl's inventory.
const PROVIDER: Kind = Kind {
    api_version: "clusterctl.cluster.x-k8s.io/v1alpha3",
    plural: "providers",
    namespaced: true,
};

/// What a volume is claimed with.
const CLAIM: Kind = Kind {
    api_version: "v1",
    plural: "persistentvolumeclaims",
    namespaced: true,
};

const SERVICE: Kind = Kind {
    api_version: "v1",
    plural: "services",
    namespaced: true,
};

/// One request of the host, as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    verb: String,
    group: String,
    resource: String,
    namespace: String,
    name: String,
    code: u64,
    allowed: bool,
}

/// All different requests of the account.
fn uses(plane: &ControlPlane) -> BTreeSet<Use> {
    let log = std::fs::read_to_string(plane.dir().join("audit.log")).unwrap();
    let user = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own = events.filter(|event| event["user"]["username"] == user.as_str());
    let of = |event: Value| {
        let text = |pointer: &str| {
            let text = event.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let resource = text("/objectRef/resource");
        let sub = text("/objectRef/subresource");
        Use {
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource: if sub.is_empty() {
                resource
            } else {
                format!("{resource}/{sub}")
            },
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            allowed: event["annotations"]["authorization.k8s.io/decision"] == "allow",
        }
    };
    own.map(of).collect()
}

/// One verb of one rule.
#[derive(Clone, Debug)]
struct Right {
    verb: String,
    group: String,
    resource: String,
    name: Option<String>,
    own_namespace: bool,
}

impl Right {
    fn is_used_by(&self, request: &Use) -> bool {
        // An apply that makes the object needs both.
        let makes = self.verb == "create" && request.verb == "patch" && request.code == 201;
        (self.verb == request.verb || makes)
            && self.group == request.group
            && (self.resource == "*" || self.resource == request.resource)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
            && (!self.own_namespace || request.namespace == NAMESPACE)
    }

    fn describe(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

fn rights(documents: &[Value]) -> Vec<Right> {
    let mut rights = Vec::new();
    for (kind, own_namespace) in [("ClusterRole", false), ("Role", true)] {
        for role in of_kind(documents, kind) {
            for rule in role["rules"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                for verb in rule["verbs"].as_array().unwrap() {
                    rights.push(Right {
                        verb: text(verb),
                        group: text(&rule["apiGroups"][0]),
                        resource: text(&rule["resources"][0]),
                        name: rule["resourceNames"][0].as_str().map(str::to_owned),
                        own_namespace,
                    });
                }
            }
        }
    }
    rights
}

/// The same with a ceiling and a claim: what is printed beside them is admitted as well, and the ceiling is what its file says.
async fn pods_are_restricted_with_all_volumes(kube: &Kube) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ceiling.yaml");
    let ceiling = "grants:\n- capability: workload\n";
    std::fs::write(&file, ceiling).unwrap();
    let flag = format!("--ceiling={}", file.display());
    let documents = manifests(&[&flag, "--plugin-claim=components"]);
    let template = &of_kind(&documents, "Deployment")[0]["spec"]["template"];
    let said = &template["metadata"]["annotations"]["capstan.dev/ceiling"];
    assert_eq!(said.as_str(), Some(ceiling));
    pods_are_restricted(kube, &documents).await;
    // A ceiling that no host would take is not printed.
    std::fs::write(&file, "grants:\n- capability: shell\n").unwrap();
    refused(&[&flag], "grants[0].capability");
}

/// The same with a volume for snapshots of etcd and a Service for reports of machines: the server takes both.
async fn pods_are_restricted_with_snapshots_and_reports(kube: &Kube) {
    let dir = "--etcd-snapshots=/var/lib/capstan/etcd-snapshots";
    let listen = "--bootstrap-report-listen=0.0.0.0:9443";
    let url = "--bootstrap-report-url=https://reports.example.com";
    let documents = manifests(&[
        dir,
        "--etcd-snapshots-keep=9",
        "--etcd-snapshots-size=20Gi",
        "--etcd-snapshots-storage-class=shared",
        listen,
        url,
    ]);
    let args = host_args(&documents);
    for flag in [dir, "--etcd-snapshots-keep=9", listen, url] {
        assert!(args.iter().any(|arg| arg == flag), "{flag}: {args:?}");
    }
    apply(kube, &documents).await;
    let claim = kube
        .get(CLAIM, NAMESPACE, "capstan-etcd-snapshots")
        .await
        .unwrap();
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
    let service = kube.get(SERVICE, NAMESPACE, "capstan-bootstrap-report");
    assert_eq!(service.await.unwrap()["spec"]["ports"][0]["port"], 443);
    pods_are_restricted(kube, &documents).await;
    // What no host would take, or would be lost, is not printed.
    refused(&[dir], "--etcd-snapshots-size");
    refused(
        &["--etcd-snapshots=snapshots", "--etcd-snapshots-claim=a"],
        "absolute path",
    );
    let bucket = "--etcd-snapshots=s3://bucket/prefix";
    refused(&[bucket], "--etcd-snapshots-secret");
    refused(
        &[
            bucket,
            "--etcd-snapshots-secret=key",
            "--etcd-snapshots-claim=a",
        ],
        "are for directories",
    );
    refused(&[dir, "--etcd-snapshots-size=20"], "with its unit");
    refused(&[listen], "--bootstrap-report-url is missing");
    refused(
        &["--bootstrap-report-listen=9443", url],
        "that others reach",
    );
}

/// Nothing is printed for these arguments, and it is said why.
fn refused(args: &[&str], why: &str) {
    let mut program = std::process::Command::new(wasm::program());
    let printed = program.arg("manifests").args(args).output().unwrap();
    let words = String::from_utf8_lossy(&printed.stderr);
    assert!(!printed.status.success() && printed.stdout.is_empty());
    assert!(words.contains(why), "{words}");
}

/// The Pods of the Deployment are let in by the namespace's own rule, and less careful ones are not.
async fn pods_are_restricted(kube: &Kube, documents: &[Value]) {
    let template = &of_kind(documents, "Deployment")[0]["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": NAMESPACE, "name": "trial", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    });
    kube.try_create(POD, &pod).await.unwrap();
    kube.delete(POD, NAMESPACE, "trial").await;
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    pod["metadata"]["name"] = json!("careless");
    let refused = kube.try_create(POD, &pod).await.unwrap_err();
    assert_eq!(refused.code, 403, "{refused:?}");
}

/// What else an operator and a cluster owner may have: a health check, a hook, manifests for the workload cluster.
async fn extras(host: &TestHost, cluster: &TestCluster) {
    let kube = host.kube();
    let check = json!({
        "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
        "metadata": {"namespace": cluster.namespace, "name": "check"},
        "spec": {
            "clusterName": cluster.name,
            "selector": {"matchLabels": {"cluster.x-k8s.io/deployment-name": cluster.deployment()}},
            "checks": {"nodeStartupTimeoutSeconds": 0, "unhealthyNodeConditions": [
                {"type": "KernelDeadlock", "status": "True", "timeoutSeconds": 1},
            ]},
        },
    });
    kube.apply(MACHINE_HEALTH_CHECK, &check).await;
    let hook = json!({
        "apiVersion": MACHINE_HOOK.api_version, "kind": "MachineHook",
        "metadata": {"namespace": NAMESPACE, "name": "hook"},
        "spec": {"plugin": "not-there", "phase": "PreDrain", "namespaces": ["nowhere"]},
    });
    kube.apply(MACHINE_HOOK, &hook).await;
    let says = async |kind: Kind, namespace: &str, name: &str| {
        eventually(&format!("{name} has a status"), PATIENCE, async || {
            let object = kube.get(kind, namespace, name).await.ok_or("it is gone")?;
            object["status"]["conditions"]
                .is_array()
                .then_some(())
                .ok_or(object.to_string())
        })
        .await;
    };
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": cluster.namespace, "name": "addon"},
        "data": {"addon.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: addon\n  namespace: default\n"},
    });
    kube.apply(CONFIG_MAP, &map).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": cluster.namespace, "name": "addon"},
        "type": capstan_api::addons::SECRET_TYPE,
        "stringData": {"secret.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: other\n  namespace: default\n"},
    });
    kube.apply(SECRET, &secret).await;
    let set = json!({
        "apiVersion": CLUSTER_RESOURCE_SET.api_version, "kind": "ClusterResourceSet",
        "metadata": {"namespace": cluster.namespace, "name": "addons"},
        "spec": {
            "strategy": "Reconcile", "resources": [
                {"kind": "ConfigMap", "name": "addon"}, {"kind": "Secret", "name": "addon"},
            ],
            "clusterSelector": {"matchLabels": {"addons": "yes"}},
        },
    });
    kube.apply(CLUSTER_RESOURCE_SET, &set).await;
    let label = json!({"metadata": {"labels": {"addons": "yes"}}});
    kube.merge(CLUSTER, &cluster.namespace, &cluster.name, &label)
        .await;
    eventually("the addon is applied", PATIENCE, async || {
        let set = kube
            .get(CLUSTER_RESOURCE_SET, &cluster.namespace, "addons")
            .await;
        let set = set.ok_or("it is gone")?;
        let applied = condition(&set, "ResourcesApplied");
        (applied.status == "True")
            .then_some(())
            .ok_or(format!("{applied:?}"))
    })
    .await;
    kube.delete(CLUSTER_RESOURCE_SET, &cluster.namespace, "addons")
        .await;
    says(MACHINE_HEALTH_CHECK, &cluster.namespace, "check").await;
    says(MACHINE_HOOK, NAMESPACE, "hook").await;
}

#[test]
fn the_host_has_the_rights_that_it_needs_and_needs_those_that_it_has() {
    run(async {
        let documents = manifests(&[
            "--signatures=warn",
            "--etcd-snapshots=s3://snapshots/of-etcd",
            "--etcd-snapshots-secret=snapshots",
            "--etcd-snapshots-region=test-region-1",
            "--etcd-snapshots-endpoint=https://store.example.com",
        ]);
        let plane = ControlPlane::start_for_tests().await.unwrap();
        let admin = plane.kubeconfig_text("admin", &["system:masters"]).unwrap();
        let kube = Kube::from_kubeconfig(&admin).await;
        apply(&kube, &documents).await;
        pods_are_restricted(&kube, &documents).await;
        pods_are_restricted_with_all_volumes(&kube).await;
        pods_are_restricted_with_snapshots_and_reports(&kube).await;
        let kubeconfig = account_kubeconfig(&plane, &kube).await;
        let cloud = TestCloud::start(&plane.dir().join("cloud")).await;
        let mut host = TestHost::with(plane, cloud).await;
        let process = HostProcess::start_as(
            &wasm::program(),
            &host.plane,
            "host",
            &kubeconfig,
            &host_args(&documents),
        );
        host.runs_as(process);
        host.plugins_ready().await;
        // The Deployment's second Pod: it stands by.
        let standby = HostProcess::start_as(
            &wasm::program(),
            &host.plane,
            "standby",
            &kubeconfig,
            &host_args(&documents),
        );
        eventually("the second host stands by", PATIENCE, async || {
            standby.check()?;
            let log = standby.log();
            log.contains("standing by").then_some(()).ok_or(log)
        })
        .await;

        let cluster = TestCluster::new("installed", "installed", 1);
        cluster.create(host.kube()).await;
        cluster.available(&host, 1).await;
        extras(&host, &cluster).await;
        let pool = TestPool::create(&host, &cluster, "pool", 0).await;
        pool.data().await;
        let deployment = cluster.deployment();
        kube.scale(MACHINE_DEPLOYMENT, &cluster.namespace, &deployment, 2)
            .await;
        cluster.available(&host, 2).await;
        let version = json!({"spec": {"template": {"spec": {"version": VERSION_NEXT}}}});
        kube.merge(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &deployment,
            &version,
        )
        .await;
        cluster.all_have_version(&kube, VERSION_NEXT, 3).await;
        cluster.available(&host, 2).await;
        kube.delete(MACHINE_HEALTH_CHECK, &cluster.namespace, "check")
            .await;
        pool.release().await;
        cluster.delete(&host).await;

        let uses = uses(&host.plane);
        let forbidden: Vec<&Use> = uses
            .iter()
            .filter(|u| !u.allowed || u.code == 403)
            .collect();
        let idle: Vec<String> = rights(&documents)
            .iter()
            .filter(|right| !uses.iter().any(|request| right.is_used_by(request)))
            .map(Right::describe)
            .collect();
        let idle: Vec<&String> = idle
            .iter()
            .filter(|right| !RARE.iter().any(|(rare, _)| rare == right))
            .collect();
        assert!(
            forbidden.is_empty() && idle.is_empty(),
            "forbidden: {forbidden:#?}, idle: {idle:#?}"
        );
        let inventory: Vec<String> = kube
            .list(PROVIDER, NAMESPACE)
            .await
            .iter()
            .map(|entry| format!("{} {}", name(entry), entry["type"].as_str().unwrap_or("-")))
            .collect();
        assert_eq!(
            inventory,
            [
                "bootstrap-kubeadm BootstrapProvider",
                "cluster-api CoreProvider",
                "control-plane-kubeadm ControlPlaneProvider",
                "infrastructure-local InfrastructureProvider",
            ]
        );
        let plugin = kube.get(PLUGIN, NAMESPACE, "bootstrap-kubeadm").await;
        let verified = condition(&plugin.unwrap(), "Verified");
        assert_eq!(verified.reason, "SignatureMissing");
    });
}
