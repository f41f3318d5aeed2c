//! Drains: pods go in the order that rules give, budgets and waits are respected and named, volumes are waited for.

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BUDGET, EVENT, Kube, MACHINE, MACHINE_DEPLOYMENT, MACHINE_DRAIN_RULE, NODE, PERSISTENT_VOLUME,
    POD, VOLUME_ATTACHMENT, condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run};
use http::Method;
use serde_json::{Value, json};

/// Puts a pod onto a Node; nobody makes it again.
async fn pod(workload: &Kube, node: &str, name: &str, labels: Value) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    });
    workload.try_create(POD, &pod).await.unwrap();
    eventually(&format!("{name} runs"), PATIENCE, async || {
        let pod = workload.get(POD, "default", name).await.unwrap();
        let ready = condition(&pod, "Ready").status == "True";
        ready.then_some(()).ok_or(pod["status"].to_string())
    })
    .await;
}

fn node_of(machine: &Value) -> String {
    machine["status"]["nodeRef"]["name"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Waits until the deletion of the Machine says this.
async fn deletion_says(host: &TestHost, machine: &Value, words: &[&str]) -> Value {
    let namespace = machine["metadata"]["namespace"].as_str().unwrap();
    eventually(
        &format!("the deletion says {words:?}"),
        PATIENCE,
        async || {
            let object = host.kube().get(MACHINE, namespace, &name(machine)).await;
            let object = object.ok_or("the Machine is gone")?;
            let said = condition(&object, "Deleting").message;
            words
                .iter()
                .all(|word| said.contains(word))
                .then(|| object.clone())
                .ok_or(said)
        },
    )
    .await
}

#[test]
fn budgets_orders_and_waits_hold_a_drain_and_are_named() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("drained", "drained", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let node = node_of(&machine);
        let workload = cluster.workload(kube).await;
        for (pod_name, app) in [
            ("web", "web"),
            ("db", "db"),
            ("job", "job"),
            ("agent", "agent"),
        ] {
            let mut labels = json!({"app": app});
            if app == "agent" {
                labels["cluster.x-k8s.io/drain"] = json!("skip");
            }
            pod(&workload, &node, pod_name, labels).await;
        }
        let budget = json!({
            "apiVersion": BUDGET.api_version, "kind": "PodDisruptionBudget",
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        });
        workload.try_create(BUDGET, &budget).await.unwrap();
        for (rule_name, drain, app) in [
            ("a-db", json!({"behavior": "Drain", "order": 5}), "db"),
            ("b-job", json!({"behavior": "WaitCompleted"}), "job"),
        ] {
            let rule = json!({
                "apiVersion": MACHINE_DRAIN_RULE.api_version, "kind": "MachineDrainRule",
                "metadata": {"namespace": cluster.namespace, "name": rule_name},
                "spec": {"drain": drain, "pods": [{"selector": {"matchLabels": {"app": app}}}]},
            });
            kube.apply(MACHINE_DRAIN_RULE, &rule).await;
        }
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        let held = deletion_says(
            host,
            &machine,
            &[
                "Drain not completed yet (started at ",
                "* Pod default/web: cannot evict pod as it would violate the pod's disruption budget.",
                "* Pod default/job: waiting for completion",
                "the following Pods will be evicted: default/db",
            ],
        )
        .await;
        assert_eq!(condition(&held, "Deleting").reason, "DrainingNode");
        assert!(held["status"]["deletion"]["nodeDrainStartTime"].is_string());
        let cordoned = workload.get(NODE, "", &node).await.unwrap();
        assert_eq!(cordoned["spec"]["unschedulable"], true);
        workload.delete(BUDGET, "default", "web").await;
        deletion_says(
            host,
            &machine,
            &["* Pod default/job: waiting for completion"],
        )
        .await;
        assert!(
            workload.get(POD, "default", "db").await.is_some(),
            "it has its turn later"
        );
        let done = json!({"status": {"phase": "Succeeded"}});
        let path = format!("{}/status", POD.path("default", Some("job")));
        let content = "application/strategic-merge-patch+json";
        workload
            .send(Method::PATCH, &path, content, Some(&done))
            .await
            .unwrap();
        cluster.loses(kube, &name(&machine)).await;
        let left: Vec<String> = workload
            .list(POD, "default")
            .await
            .iter()
            .map(name)
            .collect();
        assert!(
            left.iter().all(|pod| pod != "web" && pod != "db"),
            "{left:?}"
        );
        let events = kube.list(EVENT, &cluster.namespace).await;
        assert!(
            events
                .iter()
                .any(|event| event["reason"] == "SuccessfulDrainNode")
        );
        cluster.delete(host).await;
    });
}

#[test]
fn volumes_are_waited_for_except_those_of_pods_that_stay() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("volumes", "volumes", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let node = node_of(&machine);
        let workload = cluster.workload(kube).await;
        let stays = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "stays", "labels": {"cluster.x-k8s.io/drain": "skip"}},
            "spec": {
                "nodeName": node, "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "kept"}}],
            },
        });
        workload.try_create(POD, &stays).await.unwrap();
        for (volume, claim) in [("pv-kept", "kept"), ("pv-held", "held")] {
            let object = json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                    "csi": {"driver": "csi.example.org", "volumeHandle": volume},
                    "claimRef": {"namespace": "default", "name": claim},
                },
            });
            workload
                .try_create(PERSISTENT_VOLUME, &object)
                .await
                .unwrap();
            let attachment = json!({
                "apiVersion": VOLUME_ATTACHMENT.api_version, "kind": "VolumeAttachment",
                "metadata": {"name": volume},
                "spec": {"attacher": "csi.example.org", "nodeName": node, "source": {"persistentVolumeName": volume}},
            });
            workload
                .try_create(VOLUME_ATTACHMENT, &attachment)
                .await
                .unwrap();
            let path = format!("{}/status", VOLUME_ATTACHMENT.path("", Some(volume)));
            let attached = json!({"status": {"attached": true}});
            workload
                .send(
                    Method::PATCH,
                    &path,
                    "application/merge-patch+json",
                    Some(&attached),
                )
                .await
                .unwrap();
        }
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        let held = deletion_says(
            host,
            &machine,
            &["PersistentVolume pv-held of claim default/held is attached"],
        )
        .await;
        let deleting = condition(&held, "Deleting");
        assert_eq!(deleting.reason, "WaitingForVolumeDetach");
        assert!(
            !deleting.message.contains("pv-kept"),
            "{}",
            deleting.message
        );
        assert!(held["status"]["deletion"]["waitForNodeVolumeDetachStartTime"].is_string());
        workload.delete(VOLUME_ATTACHMENT, "", "pv-held").await;
        cluster.loses(kube, &name(&machine)).await;
        cluster.has_event(kube, "NodeVolumesDetached").await;
        cluster.delete(host).await;
    });
}

/// A volume that is attached to a Node for ever.
async fn attach(workload: &Kube, node: &str) {
    let attachment = json!({
        "apiVersion": VOLUME_ATTACHMENT.api_version, "kind": "VolumeAttachment",
        "metadata": {"name": "for-ever"},
        "spec": {"attacher": "csi.example.org", "nodeName": node, "source": {"persistentVolumeName": "for-ever"}},
    });
    workload
        .try_create(VOLUME_ATTACHMENT, &attachment)
        .await
        .unwrap();
    let path = format!("{}/status", VOLUME_ATTACHMENT.path("", Some("for-ever")));
    let attached = json!({"status": {"attached": true}});
    let content = "application/merge-patch+json";
    workload
        .send(Method::PATCH, &path, content, Some(&attached))
        .await
        .unwrap();
}

#[test]
fn a_machine_can_be_excluded_from_the_drain_and_from_the_wait_for_volumes() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("excluded", "excluded", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let (ns, machine_name) = (&cluster.namespace, name(&machine));
        let node = node_of(&machine);
        let workload = cluster.workload(kube).await;
        // Either would hold it for ever.
        pod(
            &workload,
            &node,
            "never",
            json!({"cluster.x-k8s.io/drain": "wait-completed"}),
        )
        .await;
        attach(&workload, &node).await;
        let exclude = async |what: &str| {
            let key = format!("machine.cluster.x-k8s.io/{what}");
            let patch = json!({"metadata": {"annotations": {key: ""}}});
            kube.merge(MACHINE, ns, &machine_name, &patch).await;
        };
        exclude("exclude-node-draining").await;
        kube.delete(MACHINE, ns, &machine_name).await;
        let held = deletion_says(host, &machine, &["for-ever"]).await;
        assert_eq!(
            condition(&held, "Deleting").reason,
            "WaitingForVolumeDetach"
        );
        assert!(held["status"]["deletion"]["nodeDrainStartTime"].is_null());
        let left = workload.get(NODE, "", &node).await.unwrap();
        assert_ne!(left["spec"]["unschedulable"], true, "it was not cordoned");
        let pod = workload.get(POD, "default", "never").await.unwrap();
        assert!(pod["metadata"]["deletionTimestamp"].is_null());
        exclude("exclude-wait-for-node-volume-detach").await;
        cluster.loses(kube, &name(&machine)).await;
        let events = kube.list(EVENT, ns).await;
        let told = events.iter().map(|event| &event["reason"]);
        let told: Vec<&Value> = told.collect();
        for reason in ["SuccessfulDrainNode", "NodeVolumesDetached"] {
            assert!(!told.contains(&&json!(reason)), "{told:?}");
        }
        cluster.delete(host).await;
    });
}

#[test]
fn what_cannot_be_done_to_a_node_is_told_in_events() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("drain-fails", "drain-fails", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let (ns, machine_name) = (&cluster.namespace, name(&machine));
        let workload = cluster.workload(kube).await;
        let node = node_of(&machine);
        attach(&workload, &node).await;
        let holds = json!({"cluster.x-k8s.io/drain": "wait-completed"});
        pod(&workload, &node, "never", holds).await;
        let plane = name(&cluster.control_plane_machines(kube).await[0]);
        let plane = control_plane::instance(host, &cluster, &plane).await;
        let annotate = async |key: &str, value: Value| {
            let patch = json!({"metadata": {"annotations": {key: value}}});
            kube.merge(MACHINE, ns, &machine_name, &patch).await;
        };
        let hook = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/hold";
        annotate(hook, json!("test")).await;
        kube.delete(MACHINE, ns, &machine_name).await;
        let steps = [
            ("never", "FailedDrainNode", "exclude-node-draining"),
            (
                "for-ever",
                "FailedWaitForVolumeDetach",
                "exclude-wait-for-node-volume-detach",
            ),
        ];
        for (held_by, failed, exclude) in steps {
            deletion_says(host, &machine, &[held_by]).await;
            host.cloud.act(&plane, "stop-api-server").await;
            cluster.has_event(kube, failed).await;
            host.cloud.act(&plane, "start-api-server").await;
            deletion_says(host, &machine, &[held_by]).await;
            annotate(&format!("machine.cluster.x-k8s.io/{exclude}"), json!("")).await;
        }
        deletion_says(host, &machine, &["hold"]).await;
        host.cloud.act(&plane, "stop-api-server").await;
        annotate(hook, Value::Null).await;
        cluster.has_event(kube, "FailedDeleteNode").await;
        // It is given up after its time.
        cluster.loses(kube, &name(&machine)).await;
        host.cloud.act(&plane, "start-api-server").await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_node_that_is_unreachable_holds_neither_its_pods_nor_its_volumes() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("unreachable", "unreachable", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let node = node_of(&machine);
        let workload = cluster.workload(kube).await;
        let slow = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "slow"},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 3600, "containers": [{"name": "c", "image": "i"}]},
        });
        workload.try_create(POD, &slow).await.unwrap();
        attach(&workload, &node).await;
        let id = machine["spec"]["providerID"].as_str().unwrap();
        let instance = id.rsplit('/').next().unwrap();
        host.cloud.stop_instance(instance).await;
        eventually("the Node is unreachable", PATIENCE, async || {
            let node = workload.get(NODE, "", &node).await.ok_or("it is gone")?;
            let ready = condition(&node, "Ready");
            (ready.status == "Unknown")
                .then_some(())
                .ok_or(format!("{ready:?}"))
        })
        .await;
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        // Nobody is there who would end it, so it gets no time; nobody confirms that it ended, so that is not waited for.
        eventually("the pod is evicted", PATIENCE, async || {
            let pod = workload.get(POD, "default", "slow").await;
            let pod = pod.ok_or("it is gone")?;
            let grace = &pod["metadata"]["deletionGracePeriodSeconds"];
            (*grace == 1).then_some(()).ok_or(grace.to_string())
        })
        .await;
        cluster.loses(kube, &name(&machine)).await;
        cluster.has_event(kube, "SuccessfulDrainNode").await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_timeout_ends_a_drain_that_pods_hold() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("drain-timeout", "drain-timeout", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let workload = cluster.workload(kube).await;
        pod(
            &workload,
            &node_of(&machine),
            "never",
            json!({"cluster.x-k8s.io/drain": "wait-completed"}),
        )
        .await;
        kube.delete(MACHINE, &cluster.namespace, &name(&machine))
            .await;
        deletion_says(
            host,
            &machine,
            &["* Pod default/never: waiting for completion"],
        )
        .await;
        // It reaches Machines in place, also those that are being deleted.
        let timeout =
            json!({"spec": {"template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 1}}}}});
        kube.merge(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &cluster.deployment(),
            &timeout,
        )
        .await;
        cluster.loses(kube, &name(&machine)).await;
        cluster.delete(host).await;
    });
}

#[test]
fn hundreds_of_pods_on_many_machines_are_drained() {
    run(async {
        const WORKERS: u32 = 6;
        const PODS: usize = 40;
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("drain-many", "drain-many", WORKERS);
        cluster.create(kube).await;
        cluster.available(host, WORKERS).await;
        let workload = cluster.workload(kube).await;
        let machines = cluster.workers(kube).await;
        for machine in &machines {
            let node = node_of(machine);
            for index in 0..PODS {
                let pod = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": "default", "name": format!("{node}-{index}"), "labels": {"app": "many"}},
                    "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
                });
                workload.try_create(POD, &pod).await.unwrap();
            }
        }
        let scaled = json!({"spec": {"replicas": 0}});
        kube.merge(
            MACHINE_DEPLOYMENT,
            &cluster.namespace,
            &cluster.deployment(),
            &scaled,
        )
        .await;
        eventually("all workers are gone", PATIENCE, async || {
            let left = cluster.workers(kube).await;
            let first = left.first().map(conditions).unwrap_or_default();
            left.is_empty()
                .then_some(())
                .ok_or(format!("{} are left: {first}", left.len()))
        })
        .await;
        let left = workload.list(POD, "default").await;
        let left: Vec<String> = left
            .iter()
            .filter(|pod| pod["metadata"]["labels"]["app"] == "many")
            .map(name)
            .collect();
        assert!(
            left.is_empty(),
            "{} pods were not evicted: {left:?}",
            left.len()
        );
        cluster.delete(host).await;
    });
}
