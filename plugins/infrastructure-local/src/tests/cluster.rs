//! Networks and load balancers.

use super::*;

#[test]
fn a_cluster_gets_a_network_and_a_load_balancer_and_waits_for_it() {
    let model = Model::new();
    let mut input = cluster_input(json!({"loadBalancer": {"port": 7443}}));
    let answer = Local::ensure_cluster(input.clone()).unwrap();
    assert_eq!(wait_reason(&answer.progress), "LoadBalancerProvisioning");
    let endpoint = answer.endpoint.clone().unwrap();
    assert_eq!(
        (endpoint.host.as_str(), endpoint.port),
        ("127.0.0.1", 23456)
    );
    assert_eq!(
        answer
            .failure_domains
            .iter()
            .map(|domain| domain.name.as_str())
            .collect::<Vec<_>>(),
        ["zone-a", "zone-b"]
    );
    assert_eq!(model.all("load-balancers")[0]["targetPort"], 7443);
    assert_eq!(model.all("networks")[0]["tags"]["cluster"], "default/test");
    keep_cluster(&mut input, &answer);
    model.set("load-balancers", "state", json!("active"));
    let answer = Local::ensure_cluster(input).unwrap();
    assert_eq!(answer.progress, Progress::Ready);
    assert_eq!(model.made(), 2);
}

#[test]
fn the_backend_is_the_networks_and_a_network_that_is_not_active_is_waited_for() {
    let model = Model::new();
    let mut input = cluster_input(json!({"backend": "machines"}));
    model.slow_networks("no free range of addresses");
    let answer = Local::ensure_cluster(input.clone()).unwrap();
    assert_eq!(wait_reason(&answer.progress), "NetworkProvisioning");
    let Progress::Waiting(waiting) = &answer.progress else {
        panic!("ready")
    };
    assert!(waiting.message.ends_with("no free range of addresses"));
    assert_eq!(answer.endpoint, None);
    assert_eq!(model.all("networks")[0]["backend"], "machines");
    assert!(model.all("load-balancers").is_empty());
    keep_cluster(&mut input, &answer);
    model.set("networks", "state", json!("active"));
    let answer = Local::ensure_cluster(input.clone()).unwrap();
    assert_eq!(wait_reason(&answer.progress), "LoadBalancerProvisioning");
    assert_eq!(model.made(), 2);
    model.clear("load-balancers");
    let answer = Local::delete_cluster(input.clone()).unwrap();
    assert_eq!(answer.waiting.unwrap().reason, "DeletingNetwork");
    model.clear("networks");
    assert!(Local::delete_cluster(input).unwrap().is_gone());
}

#[test]
fn neither_lost_answers_nor_crashes_nor_throttling_make_a_second_one() {
    for kind in ["networks", "load-balancers"] {
        let model = Model::new();
        let calls = if kind == "networks" {
            ["POST networks", "GET networks"]
        } else {
            ["POST load", "GET load"]
        };
        model.fault(calls[0], Fault::LoseAnswer);
        model.fault(calls[0], Fault::Throttle);
        model.fault(calls[1], Fault::LoseAnswer);
        let input = cluster_input(json!({}));
        let (_, failures) = until_it_answers(|| Local::ensure_cluster(input.clone()));
        assert!(failures >= 2, "{failures}");
        // The host crashed before it kept the answer.
        Local::ensure_cluster(input).unwrap();
        assert_eq!((model.made(), model.all(kind).len()), (2, 1));
    }
}

#[test]
fn templates_are_told_what_their_machines_will_have() {
    let model = Model::new();
    let mut input = cluster_input(json!({}));
    let templates = [
        json!({}),
        json!({"instanceType": "small"}),
        json!({"instanceType": "none"}),
    ];
    let templates = templates.iter().enumerate().map(|(number, spec)| {
        json!({"kind": "LocalMachineTemplate", "name": number.to_string(), "spec": spec})
    });
    let templates: Vec<Value> = templates.collect();
    input
        .extra
        .insert("machineTemplates".to_owned(), json!(templates));
    let answer = Local::ensure_cluster(input).unwrap();
    let of = |name: &str| {
        json!({
            "kind": "LocalMachineTemplate", "name": name,
            "capacity": {"cpu": "2", "memory": "4096Mi", "pods": "110"},
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux"},
        })
    };
    assert_eq!(answer.extra["machineCapacities"], json!([of("0"), of("1")]));
    assert_eq!(model.made(), 2);
}

#[test]
fn throttling_says_when_to_come_back() {
    let model = Model::new();
    model.fault("GET networks", Fault::Throttle);
    let failure = Local::ensure_cluster(cluster_input(json!({}))).unwrap_err();
    assert_eq!(
        (failure.kind, failure.retry_after),
        (FailureKind::Transient, Some(Duration::from_secs(7)))
    );
    assert_eq!(failure.reason, "CloudThrottled");
}

#[test]
fn a_load_balancer_that_somebody_deleted_is_not_replaced() {
    let model = Model::new();
    let mut input = cluster_input(json!({}));
    let answer = Local::ensure_cluster(input.clone()).unwrap();
    model.clear("load-balancers");
    // Whether the host remembers it or only the cloud does.
    for _ in 0..2 {
        let failure = Local::ensure_cluster(input.clone()).unwrap_err();
        assert_eq!(
            (failure.kind, failure.reason.as_str()),
            (FailureKind::Terminal, "InfrastructureGone")
        );
        keep_cluster(&mut input, &answer);
    }
    assert_eq!(model.made(), 2);
}

#[test]
fn a_named_network_must_exist_and_stays() {
    let model = Model::new();
    let mut input = cluster_input(json!({"network": "shared"}));
    let failure = Local::ensure_cluster(input.clone()).unwrap_err();
    assert!(failure.message.contains("spec.network"), "{failure}");
    let mut other = cluster_input(json!({}));
    other.context.idempotency_key = "other".to_owned();
    Local::ensure_cluster(other).unwrap();
    model.clear("load-balancers");
    model.set("networks", "name", json!("shared"));
    model.set("networks", "tags", json!({}));
    let answer = Local::ensure_cluster(input.clone()).unwrap();
    keep_cluster(&mut input, &answer);
    model.clear("load-balancers");
    assert!(Local::delete_cluster(input).unwrap().is_gone());
    assert_eq!(model.all("networks").len(), 1);
}

#[test]
fn deletion_takes_the_load_balancer_then_the_network_and_is_repeatable() {
    let model = Model::new();
    let input = cluster_input(json!({}));
    assert!(
        Local::delete_cluster(input.clone()).unwrap().is_gone(),
        "what was never made is gone"
    );
    Local::ensure_cluster(input.clone()).unwrap();
    model.fault("DELETE load", Fault::LoseAnswer);
    let (answer, failures) = until_it_answers(|| Local::delete_cluster(input.clone()));
    assert_eq!(failures, 1);
    assert_eq!(answer.waiting.unwrap().reason, "DeletingLoadBalancer");
    assert_eq!(model.all("networks").len(), 1);
    model.clear("load-balancers");
    assert!(Local::delete_cluster(input.clone()).unwrap().is_gone());
    assert!(model.all("networks").is_empty());
    assert!(Local::delete_cluster(input).unwrap().is_gone());
}

#[test]
fn a_network_in_use_is_waited_for() {
    let model = Model::new();
    let input = cluster_input(json!({}));
    let answer = Local::ensure_cluster(input.clone()).unwrap();
    Local::ensure_machine(machine_input(answer.status.json(), "m", false)).unwrap();
    model.clear("load-balancers");
    let answer = Local::delete_cluster(input).unwrap();
    assert_eq!(answer.waiting.unwrap().reason, "NetworkInUse");
}
