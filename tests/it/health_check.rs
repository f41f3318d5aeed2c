//! MachineHealthChecks: unhealthy Machines are replaced by who owns them, unless too many are, and everybody says why.

use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    Kind, MACHINE, MACHINE_HEALTH_CHECK, NODE, condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run};
use http::Method;
use serde_json::{Value, json};

/// A condition that nobody but the test sets on a Node.
const BROKEN: &str = "KernelDeadlock";

const REBOOT: Kind = Kind {
    api_version: "health.example.org/v1",
    plural: "reboots",
    namespaced: true,
};
const REBOOT_TEMPLATE: Kind = Kind {
    api_version: "health.example.org/v1",
    plural: "reboottemplates",
    namespaced: true,
};
const CRD: Kind = Kind {
    api_version: "apiextensions.k8s.io/v1",
    plural: "customresourcedefinitions",
    namespaced: false,
};

/// A check of the workers whose Node says that it is broken for a second.
fn check(cluster: &TestCluster, name: &str, remediation: Value) -> Value {
    let mut check = json!({
        "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
        "metadata": {"namespace": cluster.namespace, "name": name},
        "spec": {
            "clusterName": cluster.name,
            "selector": {"matchLabels": {"cluster.x-k8s.io/deployment-name": cluster.deployment()}},
            "checks": {"nodeStartupTimeoutSeconds": 0, "unhealthyNodeConditions": [
                {"type": BROKEN, "status": "True", "timeoutSeconds": 1},
            ]},
        },
    });
    if !remediation.is_null() {
        check["spec"]["remediation"] = remediation;
    }
    check
}

/// Says on the Node of a Machine whether it is broken.
async fn set_broken(host: &TestHost, cluster: &TestCluster, machine: &Value, status: &str) {
    let workload = cluster.workload(host.kube()).await;
    let node = machine["status"]["nodeRef"]["name"].as_str().unwrap();
    let path = format!("{}/status", NODE.path("", Some(node)));
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({"status": {"conditions": [{
        "type": BROKEN, "status": status, "reason": "Test", "message": "", "lastTransitionTime": now,
    }]}});
    let content = "application/strategic-merge-patch+json";
    workload
        .send(Method::PATCH, &path, content, Some(&patch))
        .await
        .unwrap();
}

/// Waits until a check says this of a condition.
async fn says(
    host: &TestHost,
    cluster: &TestCluster,
    check: &str,
    type_: &str,
    reason: &str,
) -> Value {
    let what = format!("{check} says {type_} {reason}");
    eventually(&what, PATIENCE, async || {
        let object = host
            .kube()
            .get(MACHINE_HEALTH_CHECK, &cluster.namespace, check)
            .await
            .ok_or("there is no such check")?;
        let said = condition(&object, type_);
        (said.reason == reason)
            .then(|| object.clone())
            .ok_or(conditions(&object))
    })
    .await
}

#[test]
fn an_unhealthy_worker_is_replaced_by_its_machine_set() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("unhealthy", "unhealthy", 2);
        cluster.create(kube).await;
        kube.apply(
            MACHINE_HEALTH_CHECK,
            &check(&cluster, "workers", Value::Null),
        )
        .await;
        cluster.available(host, 2).await;
        let object = says(
            host,
            &cluster,
            "workers",
            "RemediationAllowed",
            "RemediationAllowed",
        )
        .await;
        assert_eq!(
            object["metadata"]["ownerReferences"][0]["name"],
            cluster.name.as_str()
        );
        eventually("both are healthy", PATIENCE, async || {
            let object = kube
                .get(MACHINE_HEALTH_CHECK, &cluster.namespace, "workers")
                .await
                .unwrap();
            let status = &object["status"];
            let healthy = status["currentHealthy"] == 2 && status["expectedMachines"] == 2;
            healthy.then_some(()).ok_or(status.to_string())
        })
        .await;
        let before = cluster.workers(kube).await;
        for machine in &before {
            let said = condition(machine, "HealthCheckSucceeded");
            assert_eq!(
                (said.status.as_str(), said.reason.as_str()),
                ("True", "HealthCheckSucceeded")
            );
        }
        let lost = name(&before[0]);
        set_broken(host, &cluster, &before[0], "True").await;
        eventually("it is replaced", PATIENCE, async || {
            let now: Vec<String> = cluster.worker_names(kube).await;
            (now.len() == 2 && !now.contains(&lost))
                .then_some(())
                .ok_or(format!("{now:?}"))
        })
        .await;
        assert!(
            cluster
                .workers(host.kube())
                .await
                .iter()
                .any(|m| name(m) == name(&before[1]))
        );
        cluster.available(host, 2).await;
        cluster.has_event(kube, "MachineMarkedUnhealthy").await;
        cluster.delete(host).await;
    });
}

#[test]
fn too_many_unhealthy_workers_are_left_alone() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("short-circuit", "short-circuit", 2);
        cluster.create(kube).await;
        cluster.available(host, 2).await;
        let before = cluster.workers(kube).await;
        for machine in &before {
            set_broken(host, &cluster, machine, "True").await;
        }
        let remediation = json!({"triggerIf": {"unhealthyLessThanOrEqualTo": "50%"}});
        kube.apply(
            MACHINE_HEALTH_CHECK,
            &check(&cluster, "workers", remediation),
        )
        .await;
        eventually("both are marked", PATIENCE, async || {
            let now = cluster.workers(kube).await;
            let marked = now
                .iter()
                .filter(|m| condition(m, "HealthCheckSucceeded").reason == "UnhealthyNode");
            (marked.count() == 2)
                .then_some(())
                .ok_or("not yet".to_owned())
        })
        .await;
        let object = says(
            host,
            &cluster,
            "workers",
            "RemediationAllowed",
            "TooManyUnhealthy",
        )
        .await;
        assert_eq!(object["status"]["remediationsAllowed"], 0);
        cluster.has_event(kube, "RemediationRestricted").await;
        // One recovers: the other one is few enough.
        let restricted: Vec<Value> = cluster.workers(kube).await;
        assert!(
            restricted
                .iter()
                .all(|m| m["metadata"]["deletionTimestamp"].is_null())
        );
        assert!(
            restricted
                .iter()
                .all(|m| condition(m, "OwnerRemediated").status.is_empty())
        );
        set_broken(host, &cluster, &before[0], "False").await;
        let lost = name(&before[1]);
        eventually("the one that is left is replaced", PATIENCE, async || {
            let now: Vec<String> = cluster.worker_names(kube).await;
            (now.len() == 2 && !now.contains(&lost) && now.contains(&name(&before[0])))
                .then_some(())
                .ok_or(format!("{now:?}"))
        })
        .await;
        cluster.delete(host).await;
    });
}

#[test]
fn two_checks_of_one_machine_say_so_and_annotations_are_obeyed() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("two-checks", "two-checks", 2);
        cluster.create(kube).await;
        cluster.available(host, 2).await;
        let machines = cluster.workers(kube).await;
        let (skipped, asked) = (name(&machines[0]), name(&machines[1]));
        let annotate = |key: &str| json!({"metadata": {"annotations": {key: ""}}});
        kube.merge(
            MACHINE,
            &cluster.namespace,
            &skipped,
            &annotate("cluster.x-k8s.io/skip-remediation"),
        )
        .await;
        set_broken(host, &cluster, &machines[0], "True").await;
        kube.apply(
            MACHINE_HEALTH_CHECK,
            &check(&cluster, "a-check", Value::Null),
        )
        .await;
        says(
            host,
            &cluster,
            "a-check",
            "TargetsExclusive",
            "NoSharedTargets",
        )
        .await;
        kube.apply(
            MACHINE_HEALTH_CHECK,
            &check(&cluster, "b-check", Value::Null),
        )
        .await;
        for check in ["a-check", "b-check"] {
            let object = says(host, &cluster, check, "TargetsExclusive", "SharedTargets").await;
            assert_eq!(object["status"]["targets"], json!([asked]));
        }
        kube.delete(MACHINE_HEALTH_CHECK, &cluster.namespace, "b-check")
            .await;
        says(
            host,
            &cluster,
            "a-check",
            "TargetsExclusive",
            "NoSharedTargets",
        )
        .await;
        kube.merge(
            MACHINE,
            &cluster.namespace,
            &asked,
            &annotate("cluster.x-k8s.io/remediate-machine"),
        )
        .await;
        eventually(
            "the one that was asked for is replaced",
            PATIENCE,
            async || {
                let now: Vec<String> = cluster.worker_names(kube).await;
                (now.len() == 2 && !now.contains(&asked) && now.contains(&skipped))
                    .then_some(())
                    .ok_or(format!("{now:?}"))
            },
        )
        .await;
        cluster.delete(host).await;
    });
}

/// A kind as an external remediation provider installs it.
fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": CRD.api_version, "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.health.example.org"),
            "labels": {"cluster.x-k8s.io/v1beta2": "v1"},
        },
        "spec": {
            "group": "health.example.org", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[test]
fn an_external_controller_is_asked_by_a_request_that_goes_when_the_machine_recovers() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("external", "external", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = cluster.workers(kube).await.remove(0);
        let reference = json!({"apiVersion": REBOOT_TEMPLATE.api_version, "kind": "RebootTemplate", "name": "reboot"});
        let object = check(&cluster, "workers", json!({"templateRef": reference}));
        kube.apply(MACHINE_HEALTH_CHECK, &object).await;
        set_broken(host, &cluster, &machine, "True").await;
        let on_machine = async |reason: &str| {
            eventually(
                &format!("the Machine says {reason}"),
                PATIENCE,
                async || {
                    let object = kube
                        .get(MACHINE, &cluster.namespace, &name(&machine))
                        .await
                        .ok_or("the Machine is gone")?;
                    let said = condition(&object, "ExternallyRemediated");
                    (said.reason == reason)
                        .then_some(())
                        .ok_or(conditions(&object))
                },
            )
            .await;
        };
        on_machine("RemediationTemplateNotFound").await;
        kube.apply(CRD, &definition("reboottemplates", "RebootTemplate"))
            .await;
        // Its provider asks for a field that the template does not have.
        let mut strict = definition("reboots", "Reboot");
        let schema = &mut strict["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["required"] = json!(["how"]);
        kube.apply(CRD, &strict).await;
        let template = json!({
            "apiVersion": REBOOT_TEMPLATE.api_version, "kind": "RebootTemplate",
            "metadata": {"namespace": cluster.namespace, "name": "reboot"},
            "spec": {"template": {"spec": {"force": true}}},
        });
        eventually("the kind is served", PATIENCE, async || {
            let answer = kube.try_apply(REBOOT_TEMPLATE, &template).await;
            answer.map(drop).map_err(|refusal| refusal.message)
        })
        .await;
        on_machine("RemediationRequestCreationFailed").await;
        kube.apply(CRD, &definition("reboots", "Reboot")).await;
        on_machine("WaitingForRemediation").await;
        let request = kube
            .get(REBOOT, &cluster.namespace, &name(&machine))
            .await
            .unwrap();
        assert_eq!(request["spec"]["force"], true);
        assert_eq!(
            request["metadata"]["ownerReferences"][0]["name"],
            name(&machine).as_str()
        );
        assert_eq!(
            request["metadata"]["annotations"]["cluster.x-k8s.io/cloned-from-name"],
            "reboot"
        );
        set_broken(host, &cluster, &machine, "False").await;
        eventually("the request is taken back", PATIENCE, async || {
            let left = kube.list(REBOOT, &cluster.namespace).await.len();
            (left == 0).then_some(()).ok_or(format!("{left} are left"))
        })
        .await;
        let object = kube.get(MACHINE, &cluster.namespace, &name(&machine)).await;
        assert!(object.is_some(), "nobody deleted the Machine");
        kube.delete(MACHINE_HEALTH_CHECK, &cluster.namespace, "workers")
            .await;
        cluster.delete(host).await;
    });
}
