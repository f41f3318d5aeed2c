//! Which pods go, which are waited for, and what is said of those that do not.

use serde_json::json;

use super::*;

fn pod(name: &str, change: Value) -> PodSeen {
    let mut pod = json!({"metadata": {"namespace": "ns", "name": name}});
    for (pointer, value) in change.as_object().into_iter().flatten() {
        pod["metadata"][pointer] = value.clone();
    }
    PodSeen {
        pod,
        namespace_labels: Some(BTreeMap::new()),
        daemon_set_missing: false,
    }
}

fn rule(name: &str, spec: Value) -> MachineDrainRule {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDrainRule",
        "metadata": {"name": name}, "spec": spec,
    }))
    .expect("a MachineDrainRule")
}

fn run(pods: &[PodSeen], rules: &[MachineDrainRule], unreachable: bool) -> Drain {
    let none = BTreeMap::new();
    let now = Timestamp::from_second(1_800_000_000).expect("in range");
    plan(pods, rules, &none, &none, unreachable, now).expect("a plan")
}

fn evicted(drain: &Drain) -> Vec<&str> {
    drain.evict.iter().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn daemon_set_and_mirror_and_labelled_pods_stay() {
    let owner = |kind: &str| json!([{"kind": kind, "controller": true}]);
    let mut orphan = pod("orphan", json!({"ownerReferences": owner("DaemonSet")}));
    orphan.daemon_set_missing = true;
    let pods = [
        pod("daemon", json!({"ownerReferences": owner("DaemonSet")})),
        orphan,
        pod(
            "mirror",
            json!({"annotations": {"kubernetes.io/config.mirror": "x"}}),
        ),
        pod(
            "labelled",
            json!({"labels": {"cluster.x-k8s.io/drain": "Skip"}}),
        ),
        pod(
            "waiting",
            json!({"labels": {"cluster.x-k8s.io/drain": "wait-completed"}}),
        ),
        pod("plain", json!({"ownerReferences": owner("ReplicaSet")})),
    ];
    let drain = run(&pods, &[], false);
    assert_eq!(evicted(&drain), ["orphan", "plain"]);
    assert_eq!(drain.completing, ["ns/waiting"]);
}

#[test]
fn lower_orders_go_first_and_the_first_rule_by_name_counts() {
    let pods = [
        pod("db", json!({"labels": {"app": "db"}})),
        pod("web", json!({"labels": {"app": "web"}})),
    ];
    let rules = [
        rule(
            "b",
            json!({"drain": {"behavior": "Skip"}, "pods": [{"selector": {"matchLabels": {"app": "db"}}}]}),
        ),
        rule(
            "a",
            json!({"drain": {"behavior": "Drain", "order": 5}, "pods": [{"selector": {"matchLabels": {"app": "db"}}}]}),
        ),
    ];
    let drain = run(&pods, &rules, false);
    assert_eq!(evicted(&drain), ["web"]);
    assert_eq!(drain.later, ["ns/db"]);
    assert_eq!(evicted(&run(&pods[..1], &rules, false)), ["db"]);
}

#[test]
fn terminating_pods_hold_the_drain_unless_their_node_is_unreachable() {
    let pods = [pod(
        "going",
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    )];
    assert_eq!(run(&pods, &[], false).terminating, ["ns/going"]);
    assert!(run(&pods, &[], true).is_complete());
}

#[test]
fn a_rule_that_cannot_be_read_stops_the_drain() {
    let selector = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    let rules = [rule(
        "bad",
        json!({"drain": {"behavior": "Skip"}, "machines": [{"selector": selector}]}),
    )];
    let none = BTreeMap::new();
    let error = plan(
        &[pod("a", json!({}))],
        &rules,
        &none,
        &none,
        false,
        Timestamp::UNIX_EPOCH,
    );
    assert!(error.expect_err("refused").contains("MachineDrainRule bad"));
}

#[test]
fn what_is_left_is_said_in_a_few_lines() {
    let many: Vec<PodSeen> = (0..5)
        .map(|i| {
            pod(
                &format!("p{i}"),
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            )
        })
        .collect();
    let lines = describe(&run(&many, &[], false), &BTreeMap::new());
    assert_eq!(
        lines,
        [
            "* Pods ns/p0, ns/p1, ns/p2, ... (2 more): deletionTimestamp set, but still not removed from the Node"
        ]
    );
}

fn volume_pod(name: &str, change: Value) -> PodSeen {
    let mut seen = pod(name, change);
    seen.pod["spec"] = json!({"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": format!("{name}-claim")}},
        {"name": "scratch", "ephemeral": {}},
        {"name": "tmp", "emptyDir": {}},
    ]});
    seen
}

#[test]
fn volumes_of_pods_that_stay_are_not_waited_for() {
    let pods = [
        volume_pod("goes", json!({})),
        volume_pod(
            "stays",
            json!({"labels": {"cluster.x-k8s.io/drain": "skip"}}),
        ),
    ];
    let none = BTreeMap::new();
    let claims = claims_left_alone(&pods, &[], &none, &none, false, Timestamp::UNIX_EPOCH);
    let expected = ["stays-claim", "stays-scratch"].map(|c| ("ns".to_owned(), c.to_owned()));
    assert_eq!(claims, Ok(BTreeSet::from(expected)));
}

#[test]
fn volumes_of_pods_that_completed_are_waited_for() {
    let labels = json!({"labels": {"cluster.x-k8s.io/drain": "wait-completed"}});
    let mut done = volume_pod("job", labels);
    done.pod["status"] = json!({"phase": "Succeeded"});
    assert!(run(std::slice::from_ref(&done), &[], false).is_complete());
    let none = BTreeMap::new();
    let claims = claims_left_alone(&[done], &[], &none, &none, false, Timestamp::UNIX_EPOCH);
    assert_eq!(claims, Ok(BTreeSet::new()));
}

#[test]
fn a_pod_that_completed_is_not_waited_for() {
    let mut done = pod(
        "done",
        json!({"labels": {"cluster.x-k8s.io/drain": "wait-completed"}}),
    );
    assert_eq!(
        run(std::slice::from_ref(&done), &[], false).completing,
        ["ns/done"]
    );
    done.pod["status"] = json!({"phase": "Succeeded"});
    assert!(run(&[done], &[], false).is_complete());
}

#[test]
fn pods_to_wait_for_have_their_turn_with_order_0() {
    let app = |name: &str| json!({"labels": {"app": name}});
    let selector = |name: &str| json!([{"selector": {"matchLabels": {"app": name}}}]);
    let rules = [
        rule(
            "a",
            json!({"drain": {"behavior": "Drain", "order": -1}, "pods": selector("early")}),
        ),
        rule(
            "b",
            json!({"drain": {"behavior": "WaitCompleted"}, "pods": selector("job")}),
        ),
        rule(
            "c",
            json!({"drain": {"behavior": "Drain", "order": 1}, "pods": selector("late")}),
        ),
    ];
    let pods = [
        pod("job", app("job")),
        pod("late", app("late")),
        pod("early", app("early")),
    ];
    let first = run(&pods, &rules, false);
    assert_eq!(evicted(&first), ["early"]);
    assert_eq!(
        (first.completing_later, first.later),
        (vec!["ns/job".to_owned()], vec!["ns/late".to_owned()])
    );
    let second = run(&pods[..2], &rules, false);
    assert_eq!(second.completing, ["ns/job"]);
    assert!(second.evict.is_empty());
}

#[test]
fn refusals_are_said_in_the_words_that_clients_know() {
    let budget = Refusal::Budget(
        "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 2 healthy pods and has 2 currently".to_owned(),
    );
    let drain = run(
        &[
            pod("a", json!({})),
            pod("b", json!({})),
            pod("c", json!({})),
        ],
        &[],
        false,
    );
    let refused = BTreeMap::from([
        (budget, vec!["ns/a".to_owned()]),
        (Refusal::TurnOver, vec!["ns/b".to_owned()]),
    ]);
    let lines = describe(&drain, &refused);
    assert_eq!(
        lines,
        [
            "* Pod ns/c: deletionTimestamp set, but still not removed from the Node",
            "* Pod ns/a: cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 2 healthy pods and has 2 currently",
            "* Pod ns/b: failed to evict Pod, eviction timeout of 10s reached, eviction will be retried",
        ]
    );
    assert_eq!(
        delays(&lines.join("\n")),
        [
            "PodDisruptionBudgets",
            "Pods not terminating",
            "Pod eviction errors"
        ]
    );
}

#[test]
fn a_drain_is_looked_at_less_often_the_longer_it_takes() {
    let at = |second| Timestamp::from_second(second).expect("in range");
    let after = |second| check_after(Some(at(0)), at(second)).as_secs();
    assert_eq!(
        [after(0), after(20), after(40), after(4000)],
        [2, 5, 10, 20]
    );
}

#[test]
fn many_pods_and_many_refusals_are_a_few_lines() {
    let named = |names: &[&str]| names.iter().map(|name| format!("ns/{name}")).collect();
    let drain = Drain {
        terminating: named(&["a", "b", "c", "d", "e"]),
        completing: named(&["f", "g"]),
        later: named(&["h"]),
        completing_later: named(&["i"]),
        ..Drain::default()
    };
    let refused: BTreeMap<Refusal, Vec<String>> = (0..7)
        .map(|n| (Refusal::Other(format!("no {n}")), vec![format!("ns/{n}")]))
        .collect();
    let lines = describe(&drain, &refused);
    let [first, .., others, completing, later, last] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(
        first,
        "* Pods ns/a, ns/b, ns/c, ... (2 more): deletionTimestamp set, but still not removed from the Node"
    );
    assert_eq!(lines.len(), 1 + 5 + 4, "{lines:?}");
    assert_eq!(others, "* 2 Pods with other issues");
    assert_eq!(completing, "* Pods ns/f, ns/g: waiting for completion");
    assert_eq!(
        later,
        "After above Pods have been removed from the Node, the following Pods will be evicted: ns/h"
    );
    assert_eq!(
        last,
        "After above Pods have been removed from the Node, waiting for the following Pods to complete without eviction: ns/i"
    );
}
