//! Machines come, go and are replaced, with pods on them.

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane;
use capstan_tests::eventually;
use capstan_tests::kube_client::{
    BOOTSTRAP_TEMPLATE, CONTROL_PLANE, LOCAL_MACHINE, LOCAL_MACHINE_TEMPLATE, MACHINE,
    MACHINE_DEPLOYMENT, condition, conditions, name,
};
use serde_json::{Value, json};

use crate::lab::{Lab, NEW, PATIENCE};
use crate::workload::{self, SAMPLE};
use capstan_tests::kubectl::Kubectl;

/// Scales the workers.
pub async fn scale(lab: &Lab, cluster: &TestCluster, workers: u32) {
    let kube = lab.host.kube();
    kube.scale(
        MACHINE_DEPLOYMENT,
        &cluster.namespace,
        &cluster.deployment(),
        workers,
    )
    .await;
    lab.available(cluster, workers).await;
}

/// A Machine that is deleted goes only when the budget of the pods on it allows that, and is replaced.
pub async fn drain_respects_budgets(
    lab: &Lab,
    cluster: &TestCluster,
    kubectl: &Kubectl,
    workers: u32,
) {
    let replicas = usize::try_from(workers).unwrap();
    kubectl.apply(&workload::sample(workers)).await.unwrap();
    workload::sample_is_ready(kubectl, replicas).await;
    let budget = |available: u32| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": SAMPLE},
            "spec": {"minAvailable": available, "selector": {"matchLabels": {"app": SAMPLE}}},
        })
    };
    kubectl.apply(&budget(workers)).await.unwrap();
    let pods = kubectl.get(&["pods", "-l", "app=sample"]).await.unwrap();
    let node = pods[0]["spec"]["nodeName"].as_str().unwrap().to_owned();
    let machines = lab.machines(cluster, false).await;
    let victim = machines
        .iter()
        .find(|machine| machine["status"]["nodeRef"]["name"] == node.as_str());
    let victim = name(victim.expect("pods run on workers"));
    let kube = lab.host.kube();
    kube.delete(MACHINE, &cluster.namespace, &victim).await;
    eventually("the drain waits for the budget", PATIENCE, async || {
        let machine = kube
            .get(MACHINE, &cluster.namespace, &victim)
            .await
            .expect("it is not drained yet");
        let deleting = condition(&machine, "Deleting");
        if deleting.message.contains(SAMPLE) {
            Ok(())
        } else {
            Err(conditions(&machine))
        }
    })
    .await;
    let pods = kubectl.get(&["pods", "-l", "app=sample"]).await.unwrap();
    assert!(
        pods.iter()
            .any(|pod| pod["spec"]["nodeName"] == node.as_str()),
        "no pod was evicted against the budget"
    );
    kubectl.apply(&budget(1)).await.unwrap();
    eventually("the machine is gone", PATIENCE, async || {
        let left = kube.get(MACHINE, &cluster.namespace, &victim).await;
        left.map_or(Ok(()), |machine| Err(conditions(&machine)))
    })
    .await;
    lab.available(cluster, workers).await;
    workload::sample_is_ready(kubectl, replicas).await;
}

/// Workers a minor version behind their control plane are upgraded to it, one by one, with the sample on them.
pub async fn upgrade(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl, workers: u32) {
    replace(lab, cluster, workers, json!({"version": NEW})).await;
    for machine in lab.machines(cluster, false).await {
        assert_eq!(machine["spec"]["version"], NEW);
        assert_eq!(machine["status"]["nodeInfo"]["kubeletVersion"], NEW);
    }
    works(kubectl, workers).await;
}

/// The only machine of a control plane is replaced by one of the next minor version: that joins its etcd, the first one hands over and leaves,
/// and what kubeadm keeps in the cluster goes along.
pub async fn upgrade_control_plane(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl) {
    let before: Vec<String> = lab.machines(cluster, true).await.iter().map(name).collect();
    let patch = json!({"spec": {"version": NEW}});
    let plane = cluster.control_plane();
    let kube = lab.host.kube();
    kube.merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
        .await;
    eventually(
        "a control plane of the next version",
        PATIENCE,
        async || {
            let machines = lab.machines(cluster, true).await;
            let old = machines.iter().find(|machine| {
                machine["spec"]["version"] != NEW || before.contains(&name(machine))
            });
            match old {
                Some(machine) => Err(conditions(machine)),
                None => control_plane::is_settled(&lab.host, cluster, 1).await,
            }
        },
    )
    .await;
    let labels = [
        "daemonsets",
        "-n",
        "kube-system",
        "-l",
        "k8s-app=kube-proxy",
    ];
    eventually("kube-proxy of the next version", PATIENCE, async || {
        let proxies = kubectl.get(&labels).await?;
        let image = &proxies[0]["spec"]["template"]["spec"]["containers"][0]["image"];
        let image = image.as_str().unwrap_or_default().to_owned();
        image.ends_with(NEW).then_some(()).ok_or(image)
    })
    .await;
}

/// Workers are replaced one by one when their template is another one: larger, and with Debian's own cloud-init to run their bootstrap data.
pub async fn replace_all(lab: &Lab, cluster: &TestCluster, kubectl: &Kubectl, workers: u32) {
    let template = format!("{}-larger", cluster.deployment());
    let larger = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
        "metadata": {"namespace": cluster.namespace, "name": template},
        "spec": {"template": {"spec": {"instanceType": "medium", "userDataRunner": "cloud-init"}}},
    });
    lab.host.kube().apply(LOCAL_MACHINE_TEMPLATE, &larger).await;
    let patch = json!({"infrastructureRef": {"name": template}});
    replace(lab, cluster, workers, patch).await;
    for machine in lab.machines(cluster, false).await {
        assert_eq!(lab.instance(&name(&machine)).await["type"], "medium");
        let console = lab.console(&machine).await;
        // The words of the real one; ours has none such.
        let is_real =
            console.contains("Cloud-init v.") && console.contains("Datasource DataSourceNoCloud");
        assert!(is_real, "{console}");
    }
    works(kubectl, workers).await;
}

/// Changes the machines' template and waits until there are only machines of the new one.
async fn replace(lab: &Lab, cluster: &TestCluster, workers: u32, patch: Value) {
    let before: Vec<String> = lab
        .machines(cluster, false)
        .await
        .iter()
        .map(name)
        .collect();
    let kube = lab.host.kube();
    let patch = json!({"spec": {"template": {"spec": patch}}});
    kube.merge(
        MACHINE_DEPLOYMENT,
        &cluster.namespace,
        &cluster.deployment(),
        &patch,
    )
    .await;
    eventually("all workers replaced", PATIENCE, async || {
        let now = lab.machines(cluster, false).await;
        let old: Vec<String> = now
            .iter()
            .map(name)
            .filter(|name| before.contains(name))
            .collect();
        if old.is_empty() {
            Ok(())
        } else {
            Err(format!("{old:?} are still there"))
        }
    })
    .await;
    lab.available(cluster, workers).await;
}

/// All of the cluster does what it should, with workers of the control plane's version.
async fn works(kubectl: &Kubectl, workers: u32) {
    let nodes = usize::try_from(workers).unwrap() + 1;
    workload::nodes_are_real(kubectl, nodes, [NEW, NEW]).await;
    workload::system_pods_run(kubectl, nodes).await;
    workload::answers_through_service_and_dns(kubectl).await;
}

/// A machine whose bootstrap data fails says so on its LocalMachine, with the end of its console.
pub async fn a_machine_that_does_not_join_says_why(lab: &Lab, cluster: &TestCluster) {
    let kube = lab.host.kube();
    let named = json!({"namespace": cluster.namespace, "name": "broken"});
    let labels = json!({
        "cluster.x-k8s.io/cluster-name": cluster.name, "cluster.x-k8s.io/deployment-name": "broken",
    });
    let bootstrap = json!({
        "apiVersion": BOOTSTRAP_TEMPLATE.api_version, "kind": "KubeadmConfigTemplate", "metadata": named,
        "spec": {"template": {"spec": {
            "joinConfiguration": {"nodeRegistration": {"name": "{{ ds.meta_data.local_hostname }}"}},
            "preKubeadmCommands": ["echo the licence server does not answer", "exit 7"],
        }}},
    });
    let machine = json!({
        "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate", "metadata": named,
        "spec": {"template": {"spec": {}}},
    });
    let reference =
        |group: &str, kind: &str| json!({"apiGroup": group, "kind": kind, "name": "broken"});
    let deployment = json!({
        "apiVersion": MACHINE_DEPLOYMENT.api_version, "kind": "MachineDeployment", "metadata": named,
        "spec": {
            "clusterName": cluster.name, "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "clusterName": cluster.name, "version": NEW,
                "bootstrap": {"configRef": reference("bootstrap.cluster.x-k8s.io", "KubeadmConfigTemplate")},
                "infrastructureRef": reference("infrastructure.cluster.x-k8s.io", "LocalMachineTemplate"),
            }},
        },
    });
    kube.apply(BOOTSTRAP_TEMPLATE, &bootstrap).await;
    kube.apply(LOCAL_MACHINE_TEMPLATE, &machine).await;
    kube.apply(MACHINE_DEPLOYMENT, &deployment).await;
    eventually("the console in a condition", PATIENCE, async || {
        let all = kube.list(LOCAL_MACHINE, &cluster.namespace).await;
        let broken = all
            .iter()
            .find(|machine| name(machine).starts_with("broken"));
        let broken = broken.ok_or("there is no such machine")?;
        let bootstrapped = condition(broken, "BootstrapSucceeded");
        let says = |text: &str| bootstrapped.message.contains(text);
        if bootstrapped.status == "False"
            && says("exit code 7")
            && says("the end of its console:")
            && says("the licence server does not answer")
        {
            Ok(())
        } else {
            Err(conditions(broken))
        }
    })
    .await;
    kube.delete(MACHINE_DEPLOYMENT, &cluster.namespace, "broken")
        .await;
    kube.delete(BOOTSTRAP_TEMPLATE, &cluster.namespace, "broken")
        .await;
    kube.delete(LOCAL_MACHINE_TEMPLATE, &cluster.namespace, "broken")
        .await;
    eventually("the machine is gone", PATIENCE, async || {
        let left = kube.list(MACHINE, &cluster.namespace).await;
        match left
            .iter()
            .find(|machine| name(machine).starts_with("broken"))
        {
            Some(machine) => Err(conditions(machine)),
            None => Ok(()),
        }
    })
    .await;
}
