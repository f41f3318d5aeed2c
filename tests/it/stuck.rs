//! What does not get on says why, and what to do: a machine in deletion, a rollout, a health check; by `kubectl describe` and `capstan explain`.

use std::process::Command;

use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CONTROL_PLANE, EVENT, Kind, Kube, LOCAL_MACHINE, LOCAL_MACHINE_TEMPLATE, MACHINE,
    MACHINE_DEPLOYMENT, MACHINE_HEALTH_CHECK, MACHINE_SET, condition, name,
};
use capstan_tests::kubectl::Kubectl;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

const POLICY: Kind = Kind {
    api_version: "admissionregistration.k8s.io/v1",
    plural: "validatingadmissionpolicies",
    namespaced: false,
};
const POLICY_BINDING: Kind = Kind {
    api_version: "admissionregistration.k8s.io/v1",
    plural: "validatingadmissionpolicybindings",
    namespaced: false,
};

/// Refuses requests that a rule matches, unless an expression holds, as administrators and other people's webhooks do.
async fn deny(kube: &Kube, name: &str, rule: &Value, unless: &str, message: &str) {
    let policy = json!({
        "apiVersion": POLICY.api_version, "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": unless, "message": message}],
        },
    });
    let binding = json!({
        "apiVersion": POLICY.api_version, "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    kube.apply(POLICY, &policy).await;
    kube.apply(POLICY_BINDING, &binding).await;
}

/// Why the server refuses a request of this method, path and type; `None` when it does not.
async fn refusal(
    kube: &Kube,
    (method, path, content): (http::Method, &str, &str),
    body: &Value,
) -> Option<String> {
    let answer = kube.send(method, path, content, Some(body)).await;
    answer.err().map(|refusal| refusal.message)
}

/// Waits until it is refused with these words.
async fn denied(kube: &Kube, request: (http::Method, &str, &str), body: &Value, words: &str) {
    eventually("the policy holds", PATIENCE, async || {
        let said = refusal(kube, request.clone(), body)
            .await
            .unwrap_or_default();
        said.contains(words).then_some(()).ok_or(said)
    })
    .await;
}

async fn allow(kube: &Kube, name: &str) {
    kube.delete(POLICY_BINDING, "", name).await;
    kube.delete(POLICY, "", name).await;
}

/// Waits until both clients say all of this about an object.
async fn told(host: &TestHost, namespace: &str, object: &str, words: &[&str], to_do: &str) {
    let kubeconfig = host.plane.admin_kubeconfig();
    let kubectl = Kubectl::found(&kubeconfig).await;
    eventually(&format!("{object} says why"), PATIENCE, async || {
        let described = kubectl.run(&["describe", object, "-n", namespace]).await?;
        let explained = Command::new(wasm::program())
            .args(["explain", object, "-n", namespace, "--kubeconfig"])
            .arg(&kubeconfig)
            .output()
            .map_err(|error| error.to_string())?;
        let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
        for word in words {
            // kubectl breaks no lines in messages.
            if !described.contains(word) {
                return Err(format!(
                    "{word:?} is not in what is described:\n{described}"
                ));
            }
            if !explained.contains(word) {
                return Err(format!(
                    "{word:?} is not in what is explained:\n{explained}"
                ));
            }
        }
        explained
            .contains(to_do)
            .then_some(())
            .ok_or(format!("{to_do:?} is not in:\n{explained}"))
    })
    .await;
}

async fn a_worker(host: &TestHost, cluster: &TestCluster) -> Value {
    cluster.workers(host.kube()).await.remove(0)
}

#[test]
fn a_machine_that_stays_in_deletion_says_why_and_what_to_do() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "stuck-machine");
        let cluster = TestCluster::new(ns, "stays", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let machine = name(&a_worker(host, &cluster).await);
        let hook = "pre-drain.delete.hook.machine.cluster.x-k8s.io/backup";
        let annotate = |value: Value| json!({"metadata": {"annotations": {hook: value}}});
        kube.merge(MACHINE, ns, &machine, &annotate(json!("")))
            .await;
        kube.delete(MACHINE, ns, &machine).await;
        let words = [
            "WaitingForPreDrainHook",
            "Waiting for pre-drain hooks to succeed (hooks: pre-drain.delete.hook.machine.cluster.x-k8s.io/backup)",
        ];
        let to_do = "Its owner removes the annotation";
        told(host, ns, &format!("machine/{machine}"), &words, to_do).await;
        kube.merge(MACHINE, ns, &machine, &annotate(Value::Null))
            .await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_rollout_that_cannot_go_on_says_why_and_what_to_do() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "stuck-rollout");
        let cluster = TestCluster::new(ns, "halts", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let deployment = cluster.deployment();
        let object = format!("machinedeployment/{deployment}");
        // No cloud has such machines: the new one never comes.
        let template = json!({
            "apiVersion": LOCAL_MACHINE_TEMPLATE.api_version, "kind": "LocalMachineTemplate",
            "metadata": {"namespace": ns, "name": "enormous"},
            "spec": {"template": {"spec": {"instanceType": "enormous"}}},
        });
        kube.apply(LOCAL_MACHINE_TEMPLATE, &template).await;
        let refer = |name: &str| json!({"spec": {"template": {"spec": {"infrastructureRef": {"name": name}}}}});
        kube.merge(MACHINE_DEPLOYMENT, ns, &deployment, &refer("enormous"))
            .await;
        let words = ["there is no instance type", "enormous"];
        told(host, ns, &object, &words, "The message says").await;
        // The Machine leads to the object where the cause is, whose kind is the provider's.
        let machines = kube.list(MACHINE, ns).await;
        let waiting = |machine: &&Value| machine["spec"]["providerID"].is_null();
        let new = name(machines.iter().find(waiting).unwrap());
        let infra = format!("localmachine.infrastructure.cluster.x-k8s.io/{new}");
        let more = format!("More: `capstan explain {infra} -n {ns}`");
        told(host, ns, &format!("machine/{new}"), &words, &more).await;
        told(host, ns, &infra, &words, "is False").await;

        // No worker may be ahead of its control plane: the new set makes no machine.
        kube.merge(MACHINE_DEPLOYMENT, ns, &deployment, &refer(&deployment))
            .await;
        let version = json!({"spec": {"template": {"spec": {"version": "v1.37.0"}}}});
        kube.merge(MACHINE_DEPLOYMENT, ns, &deployment, &version)
            .await;
        let words = ["preflight check failed", "KubernetesVersionSkew"];
        let new_set = eventually("the new set is there", PATIENCE, async || {
            let sets = kube.list(MACHINE_SET, ns).await;
            let new = sets
                .iter()
                .find(|set| set["spec"]["template"]["spec"]["version"] == "v1.37.0");
            new.map(name).ok_or("not yet".to_owned())
        })
        .await;
        told(
            host,
            ns,
            &format!("machineset/{new_set}"),
            &words,
            "ScalingUp",
        )
        .await;
        told(host, ns, &object, &words, "RollingOut").await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_set_that_may_not_make_machines_says_so_in_an_event() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "stuck-set");
        let cluster = TestCluster::new(ns, "refused", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        // Nobody may have more than there are: a quota of the namespace, as administrators set it.
        let rule = json!({
            "apiGroups": ["cluster.x-k8s.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["machines"],
        });
        let of_others = format!("object.metadata.namespace != '{ns}'");
        deny(
            kube,
            "no-more-machines",
            &rule,
            &of_others,
            "no more machines here",
        )
        .await;
        let probe = json!({
            "apiVersion": MACHINE.api_version, "kind": "Machine",
            "metadata": {"namespace": ns, "name": "probe"},
            "spec": {
                "clusterName": "refused", "bootstrap": {"dataSecretName": "none"},
                "infrastructureRef": {"apiGroup": "i.example", "kind": "None", "name": "none"},
            },
        });
        let path = format!("{}?dryRun=All", MACHINE.path(ns, None));
        let creation = (http::Method::POST, path.as_str(), "application/json");
        denied(kube, creation, &probe, "no more machines here").await;
        kube.scale(MACHINE_DEPLOYMENT, ns, &cluster.deployment(), 2)
            .await;
        eventually("an event says why", PATIENCE, async || {
            let events = kube.list(EVENT, ns).await;
            let told = events.iter().find(|e| e["reason"] == "FailedCreate");
            let told = told.ok_or("there is no such event")?;
            let note = told["note"].as_str().unwrap_or_default();
            (note.contains("no more machines here") && told["regarding"]["kind"] == "MachineSet")
                .then_some(())
                .ok_or(told.to_string())
        })
        .await;
        let set = name(&kube.list(MACHINE_SET, ns).await[0]);
        let words = ["is blocked because", "no more machines here"];
        told(host, ns, &format!("machineset/{set}"), &words, "ScalingUp").await;
        allow(kube, "no-more-machines").await;
        cluster.delete(host).await;
    });
}

/// How a label is set.
const LABELLING: &str = "application/merge-patch+json";

/// Has the server refuse the label `tier` on one infrastructure machine, and answers the path that it would be set at without effect.
async fn refuse_tiers(kube: &Kube, ns: &str, own: &str, policy: &str) -> String {
    let rule = json!({
        "apiGroups": [LOCAL_MACHINE.api_version.split('/').next()], "apiVersions": ["*"],
        "operations": ["UPDATE"], "resources": ["localmachines"],
    });
    let unless = format!(
        "object.metadata.namespace != '{ns}' || object.metadata.name != '{own}' || \
         !has(object.metadata.labels) || !('tier' in object.metadata.labels)"
    );
    deny(kube, policy, &rule, &unless, "no tiers here").await;
    let label = json!({"metadata": {"labels": {"tier": "a"}}});
    let dry = format!("{}?dryRun=All", LOCAL_MACHINE.path(ns, Some(own)));
    let labelling = (http::Method::PATCH, dry.as_str(), LABELLING);
    denied(kube, labelling, &label, "no tiers here").await;
    dry
}

#[test]
fn one_object_that_is_refused_does_not_keep_its_set_from_growing() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "stuck-object");
        let cluster = TestCluster::new(ns, "held", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let own = name(&a_worker(host, &cluster).await);
        let dry = refuse_tiers(kube, ns, &own, "no-tiers").await;
        let label = json!({"metadata": {"labels": {"tier": "a"}}});
        let labelling = (http::Method::PATCH, dry.as_str(), LABELLING);
        // The label goes to the Machine that is there, and to its refused object, in place; the second Machine comes all the same.
        let change =
            json!({"spec": {"replicas": 2, "template": {"metadata": {"labels": {"tier": "a"}}}}});
        kube.merge(MACHINE_DEPLOYMENT, ns, &cluster.deployment(), &change)
            .await;
        cluster.available(host, 2).await;
        let labels = |object: Value| object["metadata"]["labels"]["tier"].clone();
        let refused = kube.get(LOCAL_MACHINE, ns, &own).await.unwrap();
        assert_eq!(labels(refused), Value::Null);
        // What was refused is tried again with the next change, and after some minutes without one.
        allow(kube, "no-tiers").await;
        eventually("the policy is gone", PATIENCE, async || {
            refusal(kube, labelling.clone(), &label)
                .await
                .map_or(Ok(()), Err)
        })
        .await;
        let change = json!({"spec": {"template": {"metadata": {"labels": {"tier": "b"}}}}});
        kube.merge(MACHINE_DEPLOYMENT, ns, &cluster.deployment(), &change)
            .await;
        eventually("the label is there once it may be", PATIENCE, async || {
            let labelled = labels(kube.get(LOCAL_MACHINE, ns, &own).await.ok_or("gone")?);
            (labelled == "b").then_some(()).ok_or(labelled.to_string())
        })
        .await;
        cluster.delete(host).await;
    });
}

#[test]
fn one_object_that_is_refused_does_not_keep_its_control_plane_from_growing() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "stuck-plane");
        let cluster = TestCluster::new(ns, "still", 0);
        cluster.create(kube).await;
        cluster.available(host, 0).await;
        let own = name(&cluster.control_plane_machines(kube).await.remove(0));
        refuse_tiers(kube, ns, &own, "no-plane-tiers").await;
        let labels = json!({"metadata": {"labels": {"tier": "a"}}});
        let change = json!({"spec": {"replicas": 3, "machineTemplate": labels}});
        kube.merge(CONTROL_PLANE, ns, &cluster.control_plane(), &change)
            .await;
        control_plane::settled(host, &cluster, 3).await;
        let refused = kube.get(LOCAL_MACHINE, ns, &own).await.unwrap();
        assert_eq!(refused["metadata"]["labels"]["tier"], Value::Null);
        // Nothing else is under way that could say it.
        let object = control_plane::object(host, &cluster).await;
        let said = condition(&object, "ScalingUp").message;
        assert!(said.contains("no tiers here"), "{said}");
        allow(kube, "no-plane-tiers").await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_health_check_that_does_nothing_says_why_and_what_to_do() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "stuck-check");
        let cluster = TestCluster::new(ns, "ill", 1);
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let check = json!({
            "apiVersion": MACHINE_HEALTH_CHECK.api_version, "kind": "MachineHealthCheck",
            "metadata": {"namespace": ns, "name": "idle"},
            "spec": {
                "clusterName": "ill",
                "selector": {"matchLabels": {"cluster.x-k8s.io/deployment-name": cluster.deployment()}},
                "checks": {"nodeStartupTimeoutSeconds": 0, "unhealthyNodeConditions": [
                    {"type": "Ready", "status": "Unknown", "timeoutSeconds": 300},
                ]},
                "remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": 0}},
            },
        });
        kube.apply(MACHINE_HEALTH_CHECK, &check).await;
        let machine = name(&a_worker(host, &cluster).await);
        let mark = json!({"metadata": {"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}});
        kube.merge(MACHINE, ns, &machine, &mark).await;
        let words = ["TooManyUnhealthy"];
        let to_do = "Find the common cause, or change triggerIf";
        told(host, ns, "machinehealthcheck/idle", &words, to_do).await;
        assert!(kube.get(MACHINE, ns, &machine).await.is_some());
        cluster.delete(host).await;
    });
}
