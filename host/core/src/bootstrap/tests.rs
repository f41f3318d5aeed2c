//! Cases of the bootstrap decisions.

use super::*;
use crate::plan::Failure;

fn machine(labels: &Value, spec: &Value, status: &Value) -> Machine {
    let mut object = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {"name": "m", "namespace": "n", "labels": labels},
        "spec": {
            "clusterName": "c", "bootstrap": {},
            "infrastructureRef": {"apiGroup": "g", "kind": "K", "name": "m"},
        },
        "status": status,
    });
    if let (Some(own), Some(more)) = (object["spec"].as_object_mut(), spec.as_object()) {
        own.extend(more.clone());
    }
    serde_json::from_value(object).unwrap()
}

fn cluster(provisioned: bool, initialized: bool) -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {"controlPlaneEndpoint": {"host": "h", "port": 6443}},
        "status": {"initialization": {
            "infrastructureProvisioned": provisioned, "controlPlaneInitialized": initialized,
        }},
    }))
    .unwrap()
}

fn observed(control_plane: bool, initialized: bool) -> Observed {
    let labels = if control_plane {
        json!({label::CONTROL_PLANE: ""})
    } else {
        json!({})
    };
    Observed {
        config: json!({"kind": "KubeadmConfig", "metadata": {"name": "m"}, "spec": {}}),
        machine: Lookup::Found(machine(&labels, &json!({}), &json!({}))),
        cluster: Lookup::Found(cluster(true, initialized)),
        owner: Some("bootstrap-kubeadm".to_owned()),
        plugin: Some("bootstrap-kubeadm".to_owned()),
        is_shared: false,
        is_serialized: true,
        is_orphaned: false,
        token: Token::Settled,
    }
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn of<'a>(reported: &'a Reported, type_: &str) -> &'a Report {
    reported
        .conditions
        .iter()
        .find(|report| report.type_ == type_)
        .unwrap()
}

#[test]
fn roles_follow_from_machine_and_cluster() {
    let role =
        |control_plane, initialized| match decide(&observed(control_plane, initialized), now())
            .steps
            .first()
        {
            Some(Step::Prepare {
                role,
                lock: Lock::Leave,
            }) => Some(*role),
            Some(other) => panic!("{other:?}"),
            None => None,
        };
    assert_eq!(role(true, false), Some(Role::Init));
    assert_eq!(role(true, true), Some(Role::JoinControlPlane));
    assert_eq!(role(false, true), Some(Role::JoinWorker));
    assert_eq!(
        role(false, false),
        None,
        "a worker waits for the first control-plane machine"
    );
}

#[test]
fn a_foreign_control_plane_gets_the_lock() {
    let mut seen = observed(true, false);
    seen.is_serialized = false;
    assert_eq!(
        decide(&seen, now()).steps,
        [Step::Prepare {
            role: Role::Init,
            lock: Lock::Take
        }]
    );
    seen.cluster = Lookup::Found(cluster(true, true));
    let expected = [Step::Prepare {
        role: Role::JoinControlPlane,
        lock: Lock::Release,
    }];
    assert_eq!(decide(&seen, now()).steps, expected);
}

#[test]
fn a_worker_releases_the_lock_where_no_control_plane_object_did_without() {
    let mut seen = observed(false, true);
    seen.is_serialized = false;
    let worker = |lock| {
        [Step::Prepare {
            role: Role::JoinWorker,
            lock,
        }]
    };
    assert_eq!(decide(&seen, now()).steps, worker(Lock::Release));
    let mut owned = cluster(true, true);
    owned.spec.control_plane_ref =
        Some(serde_json::from_value(json!({"apiGroup": "g", "kind": "K", "name": "cp"})).unwrap());
    seen.cluster = Lookup::Found(owned);
    assert_eq!(decide(&seen, now()).steps, worker(Lock::Leave));
}

#[test]
fn a_secret_with_another_controller_is_taken_over_and_its_token_kept_alive() {
    let mut seen = observed(false, true);
    let restored = json!({"bootstrap": {"dataSecretName": "m"}});
    seen.machine = Lookup::Found(machine(&json!({}), &restored, &json!({})));
    assert!(decide(&seen, now()).steps.is_empty(), "it is ours");
    seen.is_orphaned = true;
    seen.token = Token::Expires {
        id: "abcdef".to_owned(),
        at: now(),
    };
    let steps = decide(&seen, now()).steps;
    let adopt = Step::AdoptSecret {
        name: "m".to_owned(),
    };
    assert_eq!(steps.first(), Some(&adopt));
    assert!(matches!(steps.get(1), Some(Step::ExtendToken { .. })));
}

#[test]
fn nothing_is_made_before_what_it_needs() {
    let mut seen = observed(true, false);
    seen.cluster = Lookup::Found(cluster(false, false));
    assert!(decide(&seen, now()).steps.is_empty());
    let reported = report(&seen, &Outcome::default());
    let data = of(&reported, "DataSecretAvailable");
    assert_eq!(
        (data.status, data.reason.as_str()),
        (ConditionStatus::False, "NotAvailable")
    );
    assert!(data.message.contains("infrastructureProvisioned"));
    assert_eq!(of(&reported, "Ready").reason, "NotReady");
    for broken in [
        Observed {
            machine: Lookup::Missing,
            ..seen.clone()
        },
        Observed {
            cluster: Lookup::Missing,
            ..seen.clone()
        },
        Observed {
            cluster: Lookup::Unknown("x".to_owned()),
            ..seen.clone()
        },
        Observed {
            plugin: None,
            ..observed(true, false)
        },
    ] {
        assert!(decide(&broken, now()).steps.is_empty());
        assert!(
            !of(&report(&broken, &Outcome::default()), "DataSecretAvailable")
                .message
                .is_empty()
        );
    }
}

#[test]
fn the_machines_data_is_adopted_after_a_move() {
    let mut seen = observed(false, true);
    let spec = json!({"bootstrap": {"dataSecretName": "m"}});
    seen.machine = Lookup::Found(machine(
        &json!({}),
        &spec,
        &json!({"nodeRef": {"name": "n"}}),
    ));
    assert!(decide(&seen, now()).steps.is_empty());
    let reported = report(&seen, &Outcome::default());
    assert_eq!(reported.status["dataSecretName"], "m");
    assert_eq!(reported.status["initialization"]["dataSecretCreated"], true);
    assert_eq!(of(&reported, "Ready").status, ConditionStatus::True);
}

#[test]
fn a_token_is_kept_alive_until_the_machine_has_joined() {
    let mut seen = observed(false, true);
    seen.config["status"] =
        json!({"dataSecretName": "m", "initialization": {"dataSecretCreated": true}});
    let left = |minutes: i64| Token::Expires {
        id: "abcdef".to_owned(),
        at: now() + SignedDuration::from_mins(minutes),
    };
    seen.token = left(12);
    let plan = decide(&seen, now());
    let until = now() + TOKEN_TTL;
    assert_eq!(
        plan.steps,
        [Step::ExtendToken {
            id: "abcdef".to_owned(),
            until
        }]
    );
    assert_eq!(plan.next, Next::CheckAfter(TOKEN_CHECK));
    seen.token = left(13);
    assert!(decide(&seen, now()).steps.is_empty());
    seen.token = left(1);
    seen.machine = Lookup::Found(machine(
        &json!({}),
        &json!({}),
        &json!({"nodeRef": {"name": "n"}}),
    ));
    assert_eq!(decide(&seen, now()), Plan::settled());
}

/// The config of a pool with data, with or without Nodes.
fn of_pool(has_nodes: bool, token: Token) -> Observed {
    let mut seen = observed(false, true);
    seen.is_shared = true;
    seen.config["status"] =
        json!({"dataSecretName": "m", "initialization": {"dataSecretCreated": true}});
    let status = if has_nodes {
        json!({"nodeRef": {"name": "n"}})
    } else {
        json!({})
    };
    seen.machine = Lookup::Found(machine(&json!({}), &json!({}), &status));
    seen.token = token;
    seen
}

#[test]
fn the_token_of_a_pool_is_kept_alive_until_a_machine_has_joined_and_then_replaced_in_time() {
    let left = |seconds: i64| Token::Expires {
        id: "abcdef".to_owned(),
        at: now() + SignedDuration::from_secs(seconds),
    };
    let remade = [Step::Prepare {
        role: Role::JoinWorker,
        lock: Lock::Leave,
    }];
    let extended = [Step::ExtendToken {
        id: "abcdef".to_owned(),
        until: now() + TOKEN_TTL,
    }];
    for (has_nodes, token, steps) in [
        (false, left(751), &[][..]),
        (false, left(749), &extended),
        (true, left(749), &[]),
        (true, left(451), &[]),
        (true, left(449), &remade),
        (true, left(-1), &remade),
        (true, Token::Settled, &[]),
        (true, Token::Unknown("no connection".to_owned()), &[]),
    ] {
        let seen = of_pool(has_nodes, token.clone());
        let plan = decide(&seen, now());
        assert_eq!(plan.steps, steps, "{has_nodes} {token:?}");
        assert_eq!(plan.next, Next::CheckAfter(TOKEN_CHECK));
    }
    // Without somebody who makes the data, what is there has to do.
    let mut seen = of_pool(true, left(449));
    seen.plugin = None;
    assert_eq!(decide(&seen, now()).steps, []);
}

#[test]
fn a_token_of_a_pool_that_is_gone_is_made_again_and_said_until_it_is() {
    let gone = || Token::Gone {
        id: "abcdef".to_owned(),
    };
    for has_nodes in [false, true] {
        let seen = of_pool(has_nodes, gone());
        let steps = decide(&seen, now()).steps;
        let [step @ Step::Prepare { .. }] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        let said = |outcome: &Outcome<Step, Effect>| {
            of(&report(&seen, outcome), "DataSecretAvailable").clone()
        };
        let failed = Outcome {
            done: vec![],
            failed: Some((
                step.clone(),
                Failure::transient("RequestFailed", "no answer"),
            )),
        };
        let lacking = said(&failed);
        assert_eq!(lacking.reason, kubeadm::JOIN_TOKEN_GONE);
        assert_eq!(
            lacking.message,
            "the join token abcdef is gone from the workload cluster, and no other was made yet: no answer"
        );
        let prepared = Effect::Prepared {
            secret: "m".to_owned(),
            has_token: true,
            conditions: vec![],
        };
        let made = said(&Outcome {
            done: vec![(step.clone(), prepared)],
            failed: None,
        });
        assert_eq!(made.status, ConditionStatus::True);
    }
}

#[test]
fn data_with_a_token_that_is_gone_is_not_available() {
    let mut seen = observed(false, true);
    seen.config["status"] =
        json!({"dataSecretName": "m", "initialization": {"dataSecretCreated": true}});
    let said = |seen: &Observed| {
        let reported = report(seen, &Outcome::default());
        let data = of(&reported, "DataSecretAvailable");
        assert_eq!(of(&reported, "Ready").status, data.status);
        assert_eq!(reported.status["initialization"]["dataSecretCreated"], true);
        (data.status, data.reason.clone(), data.message.clone())
    };
    seen.token = Token::Gone {
        id: "abcdef".to_owned(),
    };
    let gone = said(&seen);
    assert_eq!(
        (gone.0, gone.1.as_str()),
        (ConditionStatus::False, "JoinTokenGone")
    );
    assert!(
        gone.2.contains("abcdef") && gone.2.contains("delete the Machine"),
        "{}",
        gone.2
    );
    // Not to be able to look is no token.
    seen.config["status"]["conditions"] = json!([{
        "type": "DataSecretAvailable", "status": "False", "reason": gone.1, "message": gone.2,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    seen.token = Token::Unknown("no connection".to_owned());
    assert_eq!(said(&seen), gone);
    seen.token = Token::Settled;
    assert_eq!(said(&seen).0, ConditionStatus::True);
    seen.config["status"]["conditions"] = json!([]);
    seen.token = Token::Unknown("no connection".to_owned());
    assert_eq!(said(&seen).0, ConditionStatus::True);
}

#[test]
fn a_token_whose_turn_has_not_come_is_asked_for_again_soon() {
    let mut seen = observed(false, true);
    seen.config["status"] =
        json!({"dataSecretName": "m", "initialization": {"dataSecretCreated": true}});
    seen.token = Token::NotItsTurn;
    for is_shared in [false, true] {
        seen.is_shared = is_shared;
        let plan = decide(&seen, now());
        assert_eq!(
            (plan.steps, plan.next),
            (vec![], Next::CheckAfter(TOKEN_TURN))
        );
    }
    // Nothing is said of what was not looked at.
    let reported = report(&seen, &Outcome::default());
    assert_eq!(
        of(&reported, "DataSecretAvailable").status,
        ConditionStatus::True
    );
    let step = Step::ExtendToken {
        id: "abcdef".to_owned(),
        until: now(),
    };
    let outcome = Outcome {
        done: vec![(step, Effect::NotItsTurn)],
        failed: None,
    };
    let reported = report(&seen, &outcome);
    assert_eq!(reported.next, Some(Next::CheckAfter(TURN_RECHECK)));
    assert_eq!(
        of(&reported, "DataSecretAvailable").status,
        ConditionStatus::True
    );
}

#[test]
fn what_came_of_the_plugin_is_said() {
    let seen = observed(false, true);
    let step = Step::Prepare {
        role: Role::JoinWorker,
        lock: Lock::Leave,
    };
    let done = |effect| Outcome {
        done: vec![(step.clone(), effect)],
        failed: None,
    };
    let prepared = Effect::Prepared {
        secret: "m".to_owned(),
        has_token: true,
        conditions: vec![],
    };
    let reported = report(&seen, &done(prepared));
    assert_eq!(reported.status["dataSecretName"], "m");
    assert_eq!(reported.next, Some(Next::CheckAfter(TOKEN_CHECK)));
    let reported = report(&seen, &done(Effect::NotConnected));
    assert!(
        of(&reported, "DataSecretAvailable")
            .message
            .contains("connection")
    );
    let reported = report(&seen, &done(Effect::NotItsTurn));
    assert_eq!(reported.next, Some(Next::CheckAfter(TURN_RECHECK)));
    assert!(
        of(&reported, "DataSecretAvailable")
            .message
            .contains("its turn")
    );
    let reported = report(
        &seen,
        &done(Effect::CertificatesMissing(vec!["ca".to_owned()])),
    );
    assert_eq!(
        of(&reported, "CertificatesAvailable").status,
        ConditionStatus::False
    );
    let failed = Outcome {
        done: vec![],
        failed: Some((step, Failure::terminal("BadFile", "no such file"))),
    };
    let reported = report(&seen, &failed);
    let data = of(&reported, "DataSecretAvailable");
    assert_eq!(
        (data.reason.as_str(), data.message.as_str()),
        ("BadFile", "bootstrap-kubeadm: no such file")
    );
    assert!(reported.status.get("dataSecretName").is_none());
}

#[test]
fn a_config_that_is_deleted_is_left_alone() {
    let mut seen = observed(true, false);
    seen.config["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(decide(&seen, now()), Plan::settled());
}

#[test]
fn a_machine_that_failed_once_and_joined_after_all_is_ready() {
    let report = |phase: &str| {
        json!({"phase": phase, "exitCode": 1, "time": "2026-01-01T00:00:00Z", "log": "x"})
            .to_string()
    };
    let seen = |phase: &str, status: Value| {
        let mut seen = observed(false, true);
        seen.config["metadata"]["annotations"] =
            json!({capstan_api::annotation::BOOTSTRAP_REPORT: report(phase)});
        seen.config["status"] = json!({
            "dataSecretName": "m", "initialization": {"dataSecretCreated": true},
            "conditions": [{"type": "BootstrapSucceeded", "status": "False", "reason": "BootstrapFailed", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        seen.machine = Lookup::Found(machine(&json!({}), &json!({}), &status));
        super::report(&seen, &Outcome::default())
    };
    let node = json!({"nodeRef": {"name": "m"}});
    let status = |reported: &Reported, type_: &str| of(reported, type_).status;
    for phase in ["commands", "kubeadm-init", "kubeadm-join"] {
        let failed = seen(phase, json!({}));
        assert_eq!(
            status(&failed, "BootstrapSucceeded"),
            ConditionStatus::False
        );
        assert_eq!(status(&failed, "Ready"), ConditionStatus::False);
        let joined = seen(phase, node.clone());
        assert_eq!(status(&joined, "BootstrapSucceeded"), ConditionStatus::True);
        assert_eq!(status(&joined, "Ready"), ConditionStatus::True, "{phase}");
    }
    let later = seen("something-later", node);
    assert_eq!(status(&later, "BootstrapSucceeded"), ConditionStatus::False);
}
