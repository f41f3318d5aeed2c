//! Cluster API's own client, unmodified: what it shows, takes, moves, restarts and generates.

use capstan_local::control_plane::ControlPlane;
use capstan_tests::cloud::TestCloud;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT, namespace};
use capstan_tests::clusterctl::{Clusterctl, Release};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CLUSTER_RESOURCE_SET, CLUSTER_RESOURCE_SET_BINDING, CONFIG_MAP, CONTROL_PLANE,
    IP_ADDRESS, IP_ADDRESS_CLAIM, Kind, Kube, LOCAL_MACHINE, MACHINE, MACHINE_DEPLOYMENT,
    MACHINE_HEALTH_CHECK, MACHINE_SET, NODE, PROVIDER, SECRET, condition, conditions,
    is_control_plane, name,
};
use capstan_tests::kubectl::Kubectl;
use capstan_tests::pool::TestPool;
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

async fn clusterctl(host: &TestHost) -> Clusterctl {
    let groups = ["system:masters"];
    Clusterctl::new(&host.plane.user_kubeconfig("clusterctl", &groups).unwrap()).await
}

/// The line that shows an object.
fn row<'a>(text: &'a str, object: &str) -> &'a str {
    let found = text.lines().find(|line| line.contains(object));
    found.unwrap_or_else(|| panic!("{object} is not in\n{text}"))
}

/// The words of a row behind the object.
fn columns<'a>(text: &'a str, object: &str) -> Vec<&'a str> {
    let row = row(text, object);
    let at = row.find(object).unwrap();
    row[at + object.len()..].split_whitespace().collect()
}

#[test]
fn clusterctl_describes_a_cluster_down_to_its_machines() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "described");
        let cluster = TestCluster::new(ns, "shown", 2);
        cluster.create(kube).await;
        cluster.available(host, 2).await;
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": ns, "name": "addon"},
            "data": {"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: addon, namespace: default}\n"},
        });
        kube.apply(CONFIG_MAP, &map).await;
        let set = json!({
            "apiVersion": CLUSTER_RESOURCE_SET.api_version, "kind": "ClusterResourceSet",
            "metadata": {"namespace": ns, "name": "addons"},
            "spec": {
                "clusterSelector": {"matchLabels": {"addons": "yes"}},
                "resources": [{"kind": "ConfigMap", "name": "addon"}],
            },
        });
        kube.apply(CLUSTER_RESOURCE_SET, &set).await;
        let label = json!({"metadata": {"labels": {"addons": "yes"}}});
        kube.merge(CLUSTER, ns, "shown", &label).await;
        eventually("the set is bound", PATIENCE, async || {
            let bound = kube.get(CLUSTER_RESOURCE_SET_BINDING, ns, "shown").await;
            bound.map(drop).ok_or("not yet".to_owned())
        })
        .await;

        let clusterctl = clusterctl(host).await;
        let describe = async |flags: &[&str]| {
            let words = ["describe", "cluster", "shown", "-n", ns];
            let words: Vec<&str> = words.iter().chain(flags).copied().collect();
            clusterctl.run(&words).await.unwrap()
        };
        // Counters are written a little after conditions.
        let text = eventually("all is counted", PATIENCE, async || {
            let text = describe(&[]).await;
            let counted =
                columns(&text, "Cluster described/shown").starts_with(&["3/3", "3", "3", "3"]);
            counted.then(|| text.clone()).ok_or(text)
        })
        .await;
        assert!(
            columns(&text, "Cluster described/shown").contains(&"Available"),
            "{text}"
        );
        for (object, machines) in [
            ("KubeadmControlPlane described/shown-cp", "1"),
            ("MachineDeployment described/shown-md-0", "2"),
        ] {
            let ratio = format!("{machines}/{machines}");
            let shown = columns(&text, object);
            // Behind the name comes the version, if it is shown.
            let at = shown.iter().position(|word| *word == ratio);
            let at = at.unwrap_or_else(|| panic!("{object} has not {ratio}:\n{text}"));
            assert_eq!(shown[at + 1..at + 4], [machines; 3], "{text}");
            assert!(shown.contains(&"Available"), "{text}");
        }
        row(&text, "LocalCluster described/shown");
        // Machines that are alike are one row.
        row(&text, "2 Machines...");

        let machines = kube.list(MACHINE, ns).await;
        let all = describe(&[
            "--grouping=false",
            "--echo",
            "--show-machinesets",
            "--show-templates",
            "--show-resourcesets",
            "--show-conditions=all",
            "--color=false",
        ])
        .await;
        for machine in &machines {
            row(&all, &format!("Machine described/{}", name(machine)));
            row(&all, &format!("LocalMachine described/{}", name(machine)));
            row(&all, &format!("KubeadmConfig described/{}", name(machine)));
        }
        let sets = kube.list(MACHINE_SET, ns).await;
        row(&all, &format!("MachineSet described/{}", name(&sets[0])));
        row(&all, "LocalMachineTemplate described/shown-cp");
        row(&all, "LocalMachineTemplate described/shown-md-0");
        row(&all, "KubeadmConfigTemplate described/shown-md-0");
        row(&all, "ClusterResourceSet described/addons");
        for type_ in [
            "ControlPlaneInitialized",
            "RemoteConnectionProbe",
            "InfrastructureReady",
            "NodeHealthy",
            "UpToDate",
            "EtcdMemberHealthy",
            "RollingOut",
        ] {
            row(&all, type_);
        }
        let of_machines = describe(&["--show-conditions=Machine"]).await;
        row(&of_machines, "BootstrapConfigReady");
        assert!(
            !of_machines.contains("RemoteConnectionProbe"),
            "{of_machines}"
        );
        let one = format!("--show-conditions=Machine/{}", name(&machines[0]));
        let of_one = describe(&["--grouping=false", &one]).await;
        assert_eq!(
            of_one.matches("BootstrapConfigReady").count(),
            1,
            "{of_one}"
        );
        // Those that are as they should be and have nothing to say are left out.
        let notable = describe(&["--show-conditions=Cluster+"]).await;
        assert!(!notable.contains("RemoteConnectionProbe"), "{notable}");
        cluster.delete(host).await;
    });
}

#[test]
fn the_kubeconfig_that_clusterctl_gets_reaches_the_workload_cluster() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("kubeconfig-got", "reached", 1);
        cluster.create(host.kube()).await;
        cluster.available(host, 1).await;
        let clusterctl = clusterctl(host).await;
        let words = ["get", "kubeconfig", "reached", "-n", &cluster.namespace];
        let text = clusterctl.run(&words).await.unwrap();
        let nodes = Kube::from_kubeconfig(&text).await.list(NODE, "").await;
        assert_eq!(nodes.len(), 2);
        for part in ["reached-admin@reached", "reached-admin"] {
            assert!(text.contains(part), "{part} is not in the kubeconfig");
        }
        cluster.delete(host).await;
    });
}

#[test]
fn clusterctl_restarts_pauses_and_resumes_rollouts() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "rollouts");
        let cluster = TestCluster::new(ns, "restarted", 2);
        cluster.create(kube).await;
        cluster.available(host, 2).await;
        let clusterctl = clusterctl(host).await;
        let rollout = async |verb: &str, object: &str| {
            let words = ["alpha", "rollout", verb, object, "-n", ns];
            clusterctl.run(&words).await
        };
        let machines = async |of_plane: bool| {
            let all = kube.list(MACHINE, ns).await;
            let mine = all.iter().filter(|m| is_control_plane(m) == of_plane);
            let mut names: Vec<String> = mine.map(name).collect();
            names.sort();
            names
        };
        let deployment = format!("machinedeployment/{}", cluster.deployment());
        let plane = format!("kubeadmcontrolplane/{}", cluster.control_plane());

        rollout("pause", &deployment).await.unwrap();
        let paused = kube
            .get(MACHINE_DEPLOYMENT, ns, &cluster.deployment())
            .await;
        assert_eq!(paused.unwrap()["spec"]["paused"], true);
        let refused = rollout("restart", &deployment).await.unwrap_err();
        assert!(refused.contains("paused"), "{refused}");
        rollout("resume", &deployment).await.unwrap();

        for (object, of_plane) in [(&deployment, false), (&plane, true)] {
            let before = machines(of_plane).await;
            rollout("restart", object).await.unwrap();
            eventually(
                &format!("{object} has other machines"),
                PATIENCE,
                async || {
                    let now = machines(of_plane).await;
                    if now.len() != before.len() || now.iter().any(|m| before.contains(m)) {
                        return Err(format!("{now:?}, before {before:?}"));
                    }
                    cluster.is_available(kube, 2).await
                },
            )
            .await;
        }

        rollout("pause", &plane).await.unwrap();
        eventually("the control plane says it", PATIENCE, async || {
            let plane = kube.get(CONTROL_PLANE, ns, &cluster.control_plane()).await;
            let plane = plane.ok_or("it is gone")?;
            (condition(&plane, "Paused").status == "True")
                .then_some(())
                .ok_or(conditions(&plane))
        })
        .await;
        rollout("resume", &plane).await.unwrap();
        cluster.delete(host).await;
    });
}

/// Everything of a cluster by which it would be another one, outside of the management cluster.
async fn identity(cluster: &TestCluster, host: &TestHost, workload: &Kube) -> Value {
    let (ns, of) = (&cluster.namespace, &cluster.name);
    let mut all = json!({});
    for kind in ["instances", "load-balancers", "networks"] {
        let things = host.cloud.of_cluster(kind, ns, of).await;
        let mut ids: Vec<Value> = things.iter().map(|thing| thing["id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        all[kind] = json!(ids);
    }
    let mut nodes: Vec<String> = workload
        .list(NODE, "")
        .await
        .iter()
        .map(|node| node["metadata"]["uid"].to_string())
        .collect();
    nodes.sort();
    all["nodes"] = json!(nodes);
    all
}

/// Everything by which it would be another one for those who read the management cluster.
async fn names(cluster: &TestCluster, kube: &Kube) -> Value {
    let ns = &cluster.namespace;
    let mut all = json!({});
    for kind in [
        MACHINE,
        MACHINE_SET,
        MACHINE_HEALTH_CHECK,
        CLUSTER_RESOURCE_SET,
        IP_ADDRESS_CLAIM,
        IP_ADDRESS,
    ] {
        let mut names: Vec<String> = kube.list(kind, ns).await.iter().map(name).collect();
        names.sort();
        all[kind.plural] = json!(names);
    }
    for secret in ["ca", "etcd", "sa", "proxy", "kubeconfig"] {
        let secret = format!("{}-{secret}", cluster.name);
        let found = kube.get(SECRET, ns, &secret).await.unwrap();
        all[secret] = found["data"].clone();
    }
    all
}

/// An address of a machine, as an infrastructure provider claims it and an IPAM provider gives it.
async fn address(kube: &Kube, ns: &str) {
    let owned = |kind: Kind, of: &Value| {
        let owner = json!({
            "apiVersion": of["apiVersion"], "kind": of["kind"], "name": name(of), "uid": of["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        });
        (
            kind,
            json!({"namespace": ns, "name": "address", "ownerReferences": [owner]}),
        )
    };
    let pool = json!({"apiGroup": "ipam.example.com", "kind": "Pool", "name": "p"});
    let machine = kube.list(LOCAL_MACHINE, ns).await.remove(0);
    let (kind, metadata) = owned(IP_ADDRESS_CLAIM, &machine);
    let claim = json!({
        "apiVersion": kind.api_version, "kind": "IPAddressClaim", "metadata": metadata, "spec": {"poolRef": pool},
    });
    let claim = kube.try_create(kind, &claim).await.unwrap();
    let (kind, metadata) = owned(IP_ADDRESS, &claim);
    let address = json!({
        "apiVersion": kind.api_version, "kind": "IPAddress", "metadata": metadata,
        "spec": {"claimRef": {"name": "address"}, "poolRef": pool, "address": "10.0.0.5", "prefix": 24},
    });
    kube.try_create(kind, &address).await.unwrap();
}

async fn moved(cluster: &TestCluster, from: &TestHost, to: &TestHost, workers: u32) {
    let clusterctl = clusterctl(from).await;
    let target = to
        .plane
        .user_kubeconfig("clusterctl", &["system:masters"])
        .unwrap();
    let target = target.to_str().unwrap();
    let words = ["move", "--to-kubeconfig", target, "-n", &cluster.namespace];
    clusterctl.run(&words).await.unwrap();
    cluster.is_gone(from.kube()).await.unwrap();
    cluster.available(to, workers).await;
}

/// Another management cluster with the same cloud.
async fn beside(here: &TestHost) -> TestHost {
    let plane = ControlPlane::start_for_tests().await.unwrap();
    let cloud = TestCloud::connect(here.cloud.access().clone());
    let mut there = TestHost::with(plane, cloud).await;
    there.run_in_process().await;
    there.plugins_ready().await;
    there
}

#[test]
fn a_machine_pool_is_described_and_moves_with_its_cluster_and_keeps_its_nodes() {
    run(async {
        let here = TestHost::start().await;
        let there = beside(&here).await;
        let ns = "pool-moves";
        let cluster = TestCluster::new(ns, "mover", 0);
        cluster.create(here.kube()).await;
        cluster.available(&here, 0).await;
        let pool = TestPool::create(&here, &cluster, "pool", 1).await;
        let id = pool.launch("only").await;
        let status = json!({"initialization": {"provisioned": true}});
        pool.say(std::slice::from_ref(&id), status.clone()).await;
        let runs = |pool: &Value| {
            pool["status"]["phase"] == "Running"
                && condition(pool, "Available").status == "True"
                && pool["status"]["nodeRefs"].as_array().map(Vec::len) == Some(1)
        };
        let before = pool.becomes("the pool runs", runs).await;
        let words = [
            "describe",
            "cluster",
            "mover",
            "-n",
            ns,
            "--grouping=false",
            "--echo",
        ];
        let text = clusterctl(&here).await.run(&words).await.unwrap();
        row(&text, &format!("MachinePool {ns}/pool"));

        TestPool::install(there.kube()).await;
        moved(&cluster, &here, &there, 0).await;
        let pool = TestPool::known(&there, &cluster, "pool");
        // What its objects' statuses said did not come along. Until the provider has said it again, nothing is concluded from that.
        let after = pool
            .becomes("its data is known again", |pool| {
                pool["status"]["initialization"]["bootstrapDataSecretCreated"] == true
            })
            .await;
        let spec = |object: &Value| object["spec"].clone();
        assert_eq!(spec(&after), spec(&before));
        pool.say(&[id], status).await;
        let after = pool.becomes("the pool runs again", runs).await;
        assert_eq!(after["status"]["nodeRefs"], before["status"]["nodeRefs"]);
        pool.terminate("only").await;
        pool.release().await;
        cluster.delete(&there).await;
    });
}

#[test]
fn a_cluster_moves_to_another_management_cluster_and_back_and_nothing_is_made_anew() {
    run(async {
        let here = TestHost::start().await;
        let there = beside(&here).await;
        let ns = "moves";
        let cluster = TestCluster::new(ns, "mover", 2);
        cluster.create(here.kube()).await;
        let check = json!({
            "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
            "metadata": {"namespace": ns, "name": "check"},
            "spec": {
                "clusterName": "mover",
                "selector": {"matchLabels": {"cluster.x-k8s.io/deployment-name": cluster.deployment()}},
                "checks": {"unhealthyNodeConditions": [{"type": "Ready", "status": "Unknown", "timeoutSeconds": 300}]},
            },
        });
        here.kube().apply(MACHINE_HEALTH_CHECK, &check).await;
        cluster.available(&here, 2).await;
        address(here.kube(), ns).await;
        let workload = cluster.workload(here.kube()).await;
        let before = (
            identity(&cluster, &here, &workload).await,
            names(&cluster, here.kube()).await,
        );
        let made = here.cloud.status().await["requestsByOperation"].clone();

        let dry = ["move", "--dry-run", "-n", ns];
        clusterctl(&here).await.run(&dry).await.unwrap();
        cluster.is_available(here.kube(), 2).await.unwrap();
        moved(&cluster, &here, &there, 2).await;
        let after = (
            identity(&cluster, &there, &workload).await,
            names(&cluster, there.kube()).await,
        );
        assert_eq!(before, after);
        // It is alive where it is: it grows, and what grew comes along.
        there
            .kube()
            .scale(MACHINE_DEPLOYMENT, ns, &cluster.deployment(), 3)
            .await;
        cluster.available(&there, 3).await;
        let grown = (
            identity(&cluster, &there, &workload).await,
            names(&cluster, there.kube()).await,
        );
        moved(&cluster, &there, &here, 3).await;
        let back = (
            identity(&cluster, &here, &workload).await,
            names(&cluster, here.kube()).await,
        );
        assert_eq!(grown, back);
        for (operation, count) in here.cloud.status().await["requestsByOperation"]
            .as_object()
            .unwrap()
        {
            let count = count.as_u64().unwrap();
            let earlier = made[operation].as_u64().unwrap_or_default();
            let allowed = match operation.as_str() {
                "CreateInstance" => earlier + 1,
                other if other.starts_with("Create") || other.starts_with("Delete") => earlier,
                _ => continue,
            };
            assert!(
                count <= allowed,
                "{operation}: {count}, {earlier} before the moves"
            );
        }
        cluster.delete(&here).await;
        here.cloud.is_empty().await.unwrap();
    });
}

#[test]
fn clusterctl_generates_a_cluster_from_a_template_of_a_local_repository() {
    run(async {
        let host = TestHost::shared().await;
        let ns = "generated";
        namespace(host.kube(), ns).await;
        let clusterctl = clusterctl(host).await;
        let template = include_str!("../../examples/clusterctl/cluster-template.yaml");
        clusterctl.publish(&[Release {
            name: "local".to_owned(),
            provider_type: "InfrastructureProvider".to_owned(),
            version: "v0.1.0".to_owned(),
            files: vec![("cluster-template.yaml".to_owned(), template.to_owned())],
        }]);
        let words = [
            "generate",
            "cluster",
            "made",
            "-i",
            "local:v0.1.0",
            "-n",
            ns,
        ];
        let variables = clusterctl
            .run(&[&words[..], &["--list-variables"]].concat())
            .await
            .unwrap();
        for variable in [
            "CLUSTER_NAME",
            "KUBERNETES_VERSION",
            "WORKER_MACHINE_COUNT",
            "INSTANCE_TYPE",
        ] {
            assert!(variables.contains(variable), "{variables}");
        }
        let sizes = [
            "--kubernetes-version",
            VERSION_NEXT,
            "--worker-machine-count",
            "1",
        ];
        let text = clusterctl
            .run(&[&words[..], &sizes].concat())
            .await
            .unwrap();
        let kubectl = Kubectl::found(&host.plane.admin_kubeconfig()).await;
        let apply = ["apply", "--server-side", "-f", "-"];
        kubectl.with_input(&apply, &text).await.unwrap();
        let cluster = TestCluster::new(ns, "made", 1);
        cluster.available(host, 1).await;
        cluster.delete(host).await;
    });
}

/// The next minor version after this one.
fn next_minor(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut number = || -> u32 { numbers.next().unwrap().parse().unwrap() };
    format!("v{}.{}.0", number(), number() + 1)
}

#[test]
fn clusterctl_plans_upgrades_of_the_core_and_of_every_provider() {
    run(async {
        let host = TestHost::shared().await;
        let clusterctl = clusterctl(host).await;
        let inventory = kube_inventory(host).await;
        let release = |provider: &Value, version: &str| Release {
            name: provider["providerName"].as_str().unwrap().to_owned(),
            provider_type: provider["type"].as_str().unwrap().to_owned(),
            version: version.to_owned(),
            files: Vec::new(),
        };
        let version = |provider: &Value| provider["version"].as_str().unwrap().to_owned();
        let mut releases: Vec<Release> =
            inventory.iter().map(|p| release(p, &version(p))).collect();
        clusterctl.publish(&releases);
        let plan = clusterctl.run(&["upgrade", "plan"]).await.unwrap();
        for provider in &inventory {
            let (type_, version) = (provider["type"].as_str().unwrap(), version(provider));
            let shown = columns(&plan, &name(provider));
            assert_eq!(shown[1..3], [type_, &version], "{plan}");
            assert_eq!(shown[3..].join(" "), "Already up to date", "{plan}");
        }
        assert!(
            plan.contains("for the v1beta2 Cluster API contract"),
            "{plan}"
        );
        assert!(plan.contains("You are already up to date!"), "{plan}");

        // Newer releases of the core and of one plugin: these and no others are offered.
        for renewed in ["cluster-api", "infrastructure-local"] {
            let provider = inventory.iter().find(|p| name(p) == renewed).unwrap();
            releases.push(release(provider, &next_minor(&version(provider))));
        }
        clusterctl.publish(&releases);
        let plan = clusterctl.run(&["upgrade", "plan"]).await.unwrap();
        for provider in &inventory {
            let next = match name(provider).as_str() {
                "cluster-api" | "infrastructure-local" => next_minor(&version(provider)),
                _ => "Already up to date".to_owned(),
            };
            let shown = columns(&plan, &name(provider))[3..].join(" ");
            assert_eq!(shown, next, "{plan}");
        }
        assert!(
            plan.contains("clusterctl upgrade apply --contract v1beta2"),
            "{plan}"
        );
    });
}

/// All providers that clusterctl knows, each once.
async fn kube_inventory(host: &TestHost) -> Vec<Value> {
    eventually("every provider is in the inventory", PATIENCE, async || {
        let all = host.kube().list(PROVIDER, "").await;
        let names: Vec<String> = all.iter().map(name).collect();
        let expected = [
            "bootstrap-kubeadm",
            "cluster-api",
            "control-plane-kubeadm",
            "infrastructure-local",
        ];
        let is_missing = |wanted: &&str| !names.iter().any(|name| name == wanted);
        match expected.iter().find(|wanted| is_missing(wanted)) {
            Some(missing) => Err(format!("{missing} is not in {names:?}")),
            None => Ok(all.clone()),
        }
    })
    .await
}
