//! What mirror, summary and aggregate make of conditions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

const READY: Reasons<'static> = Reasons {
    on_true: "Ready",
    on_false: "NotReady",
    on_unknown: "ReadyUnknown",
};

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::from_second(100).unwrap()),
    }
}

#[test]
fn mirror_falls_back_to_what_initialization_says() {
    let mut fallback = Fallback {
        done: false,
        reason_when_done: "Ready",
        reason_until_done: "NotReady",
        message_until_done: "LocalMachine status.initialization.provisioned is false",
    };
    let waiting = mirror("InfrastructureReady", None, &fallback);
    assert_eq!(
        (waiting.status, waiting.reason.as_str()),
        (ConditionStatus::False, "NotReady")
    );
    assert_eq!(waiting.message, fallback.message_until_done);
    fallback.done = true;
    assert_eq!(
        mirror("InfrastructureReady", None, &fallback),
        Report::yes("InfrastructureReady", "Ready")
    );
}

#[test]
fn mirror_copies_the_source_and_names_a_missing_reason() {
    let fallback = Fallback {
        done: false,
        reason_when_done: "Ready",
        reason_until_done: "NotReady",
        message_until_done: "",
    };
    let copied = mirror(
        "X",
        Some(&condition("Ready", "False", "Broken", "disk full")),
        &fallback,
    );
    assert_eq!(
        (copied.reason.as_str(), copied.message.as_str()),
        ("Broken", "disk full")
    );
    assert_eq!(copied.transition.map(Timestamp::as_second), Some(100));
    let unnamed = mirror(
        "X",
        Some(&condition("Ready", "True", "NoReasonReported", "")),
        &fallback,
    );
    assert_eq!(unnamed.reason, "Ready");
    let unnamed = mirror("X", Some(&condition("Ready", "False", "", "")), &fallback);
    assert_eq!(unnamed.reason, "NoReasonReported");
}

#[test]
fn summary_lists_issues_and_unknowns_in_the_declared_order() {
    let conditions = [
        condition("Deleting", "True", "Deleting", "Deletion started\nwaiting"),
        condition("InfrastructureReady", "False", "NotReady", ""),
        condition("NodeHealthy", "True", "NodeHealthy", "all good"),
    ];
    let parts = [
        Part::of(&conditions, "Deleting", Polarity::Negative),
        Part::of(&conditions, "BootstrapConfigReady", Polarity::Positive),
        Part::of(&conditions, "InfrastructureReady", Polarity::Positive),
        Part::of(&conditions, "NodeHealthy", Polarity::Positive),
        Part::if_reported(&conditions, "HealthCheckSucceeded", Polarity::Positive),
    ];
    let ready = summary("Ready", &parts, &READY);
    assert_eq!(
        (ready.status, ready.reason.as_str()),
        (ConditionStatus::False, "NotReady")
    );
    assert_eq!(
        ready.message,
        "* Deleting:\n  Deletion started\n  waiting\n* BootstrapConfigReady: Condition not yet reported\n* InfrastructureReady: NotReady"
    );
}

#[test]
fn summary_is_unknown_without_an_issue_and_true_with_info_only() {
    let conditions = [
        condition("A", "Unknown", "Lost", ""),
        condition("B", "True", "Fine", "since noon"),
    ];
    let parts = [
        Part::of(&conditions, "A", Polarity::Positive),
        Part::of(&conditions, "B", Polarity::Positive),
    ];
    let unknown = summary("Ready", &parts, &READY);
    assert_eq!(
        (unknown.status, unknown.message.as_str()),
        (ConditionStatus::Unknown, "* A: Lost")
    );
    let parts = parts.map(Part::as_info);
    let fine = summary("Ready", &parts[1..], &READY);
    assert_eq!(
        (fine.status, fine.message.as_str()),
        (ConditionStatus::True, "* B: since noon")
    );
}

#[test]
fn aggregate_groups_names_and_folds_the_rest() {
    let machine = |name: &'static str, cp: bool, status: &str, message: &str| Source {
        kind: "Machine",
        name,
        is_control_plane: cp,
        condition: (!status.is_empty()).then(|| condition("Ready", status, "R", message)),
    };
    let sources = [
        machine("w5", false, "False", "no node"),
        machine("w2", false, "False", "no node"),
        machine("w3", false, "False", "no node"),
        machine("w4", false, "False", "no node"),
        machine("w1", false, "True", "fine"),
        machine("w6", false, "", ""),
        machine("w7", false, "False", "other"),
        machine("c1", true, "Unknown", "* a\n* b"),
    ];
    let ready = aggregate(
        "MachinesReady",
        "Ready",
        &sources,
        Polarity::Positive,
        &READY,
    );
    assert_eq!(ready.status, ConditionStatus::False);
    assert_eq!(
        ready.message,
        "* Machine c1:\n  * a\n  * b\n* Machines w2, w3, w4, ... (1 more): no node\n* Machine w7: other\nAnd 1 Machine with status unknown"
    );
}

#[test]
fn aggregate_counts_what_it_does_not_spell_out() {
    let line = |names: [&'static str; 5], status: &str| {
        let sources = names.map(|name| Source {
            kind: "Machine",
            name,
            is_control_plane: false,
            condition: Some(condition("Ready", status, "R", &format!("says {name}"))),
        });
        let ready = aggregate(
            "MachinesReady",
            "Ready",
            &sources,
            Polarity::Positive,
            &READY,
        );
        let last = ready.message.lines().last().map(str::to_owned);
        (ready.status, last.unwrap_or_default())
    };
    let all = ["a", "b", "c", "d", "e"];
    let told = |status, words: &str| (status, words.to_owned());
    assert_eq!(
        line(all, "True"),
        told(ConditionStatus::True, "And 2 Machines with additional info")
    );
    assert_eq!(
        line(all, "False"),
        told(ConditionStatus::False, "And 2 Machines with other issues")
    );
    assert_eq!(
        line(all, "Unknown"),
        told(
            ConditionStatus::Unknown,
            "And 2 Machines with status unknown"
        )
    );
}

#[test]
fn aggregate_of_negative_polarity_is_true_when_one_source_is() {
    let reasons = Reasons {
        on_true: "ScalingUp",
        on_false: "NotScalingUp",
        on_unknown: "ScalingUpUnknown",
    };
    let source = |status: &str| Source {
        kind: "MachineDeployment",
        name: "md",
        is_control_plane: false,
        condition: Some(condition(
            "ScalingUp",
            status,
            "R",
            "Scaling up from 1 to 2 replicas",
        )),
    };
    let up = aggregate(
        "ScalingUp",
        "ScalingUp",
        &[source("True")],
        Polarity::Negative,
        &reasons,
    );
    assert_eq!(
        (up.status, up.reason.as_str()),
        (ConditionStatus::True, "ScalingUp")
    );
    assert_eq!(
        up.message,
        "* MachineDeployment md: Scaling up from 1 to 2 replicas"
    );
    let idle = aggregate("ScalingUp", "ScalingUp", &[], Polarity::Negative, &reasons);
    assert_eq!(
        (idle.status, idle.reason.as_str()),
        (ConditionStatus::False, "NotScalingUp")
    );
}
