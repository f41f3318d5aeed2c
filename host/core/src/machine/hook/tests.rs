//! Bound hooks: whom they are bound to, when they are asked, and what answers, failures and silence lead to.

use capstan_api::v1beta2::ConditionStatus;
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000_i64.saturating_add(second)).expect("in range")
}

/// When the Machine's deletion began.
const BEGUN: Option<Timestamp> = Some(Timestamp::UNIX_EPOCH);

fn binding(spec: Value) -> MachineHook {
    let mut all = json!({"plugin": "p", "phase": "PreDrain"});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "capstan.dev/v1alpha1", "kind": "MachineHook", "metadata": {"name": "h"}, "spec": all,
    }))
    .expect("a MachineHook")
}

fn hook(spec: Value) -> Hook {
    Hook::bound(&binding(spec))
}

/// The hook after a turn.
fn after(mut hook: Hook, turn: &Turn) -> Hook {
    hook.record = Some(turn.record.clone());
    hook.said = Some(turn.said.clone());
    hook
}

fn waiting() -> Answer {
    Answer::Waiting {
        words: "backup runs".to_owned(),
        check_after: Duration::from_secs(40),
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn a_hook_is_bound_by_namespace_cluster_and_machine() {
    let hook = binding(json!({
        "namespaces": ["prod"],
        "clusterSelector": {"matchLabels": {"tier": "gold"}},
        "machineSelector": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
    }));
    let gold = labels(&[("tier", "gold")]);
    let gpu = labels(&[("gpu", "")]);
    assert!(is_bound(&hook, "prod", &gpu, &gold));
    assert!(!is_bound(&hook, "dev", &gpu, &gold));
    assert!(!is_bound(&hook, "prod", &labels(&[]), &gold));
    assert!(!is_bound(&hook, "prod", &gpu, &labels(&[("tier", "tin")])));
    assert!(is_bound(
        &binding(json!({})),
        "dev",
        &labels(&[]),
        &labels(&[])
    ));
}

#[test]
fn it_is_asked_at_its_turn_and_again_when_it_said() {
    let hook = hook(json!({}));
    assert_eq!(hook.next(at(0)), NextTurn::Ask);
    let turn = hook.answered(&waiting(), at(0));
    assert_eq!(turn.news.as_ref().map(|news| news.0), Some("HookWaiting"));
    let hook = after(hook, &turn);
    assert_eq!(hook.next(at(10)), NextTurn::Wait(Duration::from_secs(30)));
    assert_eq!(hook.next(at(40)), NextTurn::Ask);
    let again = hook.answered(&waiting(), at(40));
    assert_eq!(again.news, None, "said once");
    assert_eq!(again.record.since, at(0), "since its first turn");
    let done = hook.answered(&Answer::Proceed, at(50));
    assert_eq!(done.record.outcome, Some(Outcome::Proceeded));
    assert!(after(hook, &done).is_done());
}

#[test]
fn another_host_goes_on_with_what_was_written_down() {
    let first = hook(json!({"timeoutSeconds": 60, "onTimeout": "Proceed"}));
    let turn = first.answered(&waiting(), at(0));
    let patch = record_patch(None, BEGUN, at(0), "7", &turn).expect("news");
    let text = patch["metadata"]["annotations"][annotation::HOOKS]
        .as_str()
        .expect("text")
        .to_owned();
    assert_eq!(record_patch(Some(&text), BEGUN, at(0), "7", &turn), None);
    let mut second = hook(json!({"timeoutSeconds": 60, "onTimeout": "Proceed"}));
    second.record = records(Some(&text), BEGUN, at(0)).remove("h");
    assert_eq!(second.next(at(1)), NextTurn::Ask, "nothing is remembered");
    assert!(
        matches!(second.next(at(60)), NextTurn::GiveUp(_)),
        "but the clock runs on"
    );
}

#[test]
fn what_is_written_already_is_not_begun_again() {
    let written = |patch: Option<Value>| {
        let patch = patch.expect("news");
        let text = patch["metadata"]["annotations"][annotation::HOOKS].as_str();
        text.expect("text").to_owned()
    };
    let hook = hook(json!({"timeoutSeconds": 60}));
    let first = written(record_patch(
        None,
        BEGUN,
        at(0),
        "7",
        &hook.answered(&waiting(), at(0)),
    ));
    let late = hook.answered(&waiting(), at(40));
    assert_eq!(record_patch(Some(&first), BEGUN, at(50), "8", &late), None);
    let done = hook.answered(&Answer::Proceed, at(50));
    let done = written(record_patch(Some(&first), BEGUN, at(50), "8", &done));
    let record = records(Some(&done), BEGUN, at(50))
        .remove("h")
        .expect("is written");
    assert_eq!((record.since, record.done), (at(0), Some(at(50))));
    assert_eq!(record_patch(Some(&done), BEGUN, at(50), "9", &late), None);
}

#[test]
fn what_was_written_down_before_the_deletion_or_for_later_answers_for_no_hook() {
    let text = |since: i64| {
        let record = json!({"since": at(since), "done": at(since), "outcome": "Proceeded"});
        json!({"h": record}).to_string()
    };
    let counts = |since: i64, begun: Option<i64>, now: i64| {
        let written = records(Some(&text(since)), begun.map(at), at(now));
        written.contains_key("h")
    };
    assert!(counts(0, Some(0), 10));
    assert!(!counts(-1, Some(0), 10), "of a template, or a backup");
    assert!(!counts(5, None, 10), "nobody deletes the Machine");
    assert!(!counts(100, Some(0), 10), "for a deletion to come");
    assert!(counts(70, Some(0), 10), "another host's clock is ahead");
    // What does not count is written over, whatever it says.
    let hook = Hook {
        begun: Some(at(0)),
        ..hook(json!({}))
    };
    let turn = hook.answered(&waiting(), at(10));
    let patch = record_patch(Some(&text(-1)), hook.begun, at(10), "7", &turn).expect("news");
    let text = patch["metadata"]["annotations"][annotation::HOOKS].as_str();
    let record = records(text, hook.begun, at(10)).remove("h");
    assert_eq!(record, Some(turn.record));
}

#[test]
fn a_host_whose_clock_is_behind_the_servers_believes_what_it_wrote() {
    let behind = Hook {
        begun: Some(at(300)),
        ..hook(json!({}))
    };
    for answer in [waiting(), Answer::Proceed] {
        let turn = behind.answered(&answer, at(0));
        let patch = record_patch(None, behind.begun, at(0), "7", &turn).expect("news");
        let text = patch["metadata"]["annotations"][annotation::HOOKS].as_str();
        let record = records(text, behind.begun, at(1)).remove("h");
        assert_eq!(record, Some(turn.record));
    }
}

#[test]
fn a_timeout_blocks_or_lets_go_as_the_operator_said() {
    for (policy, lets_go) in [("Block", false), ("Proceed", true)] {
        let hook = hook(json!({"timeoutSeconds": 30, "onTimeout": policy}));
        let turn = hook.answered(&waiting(), at(0));
        let hook = after(hook, &turn);
        assert_eq!(
            hook.next(at(10)),
            NextTurn::Wait(Duration::from_secs(20)),
            "the deadline is first"
        );
        match hook.next(at(30)) {
            NextTurn::GiveUp(turn) => {
                assert!(lets_go);
                assert_eq!(turn.record.outcome, Some(Outcome::TimedOut));
            }
            next => {
                assert!(!lets_go);
                assert_eq!(
                    next,
                    NextTurn::Wait(Duration::from_secs(10)),
                    "it is asked on"
                );
            }
        }
        let said = report(
            std::slice::from_ref(&hook),
            Phase::PreDrain,
            &[&hook],
            at(31),
        );
        assert_eq!(said.expect("said").reason, "HookTimedOut");
    }
}

#[test]
fn a_failure_blocks_or_lets_go_as_the_operator_said() {
    let passing = Answer::Failed(Failure::transient("EndpointFailed", "status 503"));
    let last = Answer::Failed(Failure::terminal("EndpointRefused", "status 404"));
    let blocking = hook(json!({}));
    let turn = blocking.answered(&last, at(0));
    assert_eq!(turn.record.done, None);
    assert_eq!(turn.said.next, at(300));
    let blocking = after(blocking, &turn);
    let said = report(
        std::slice::from_ref(&blocking),
        Phase::PreDrain,
        &[&blocking],
        at(1),
    );
    let said = said.expect("said");
    assert_eq!(
        (said.status, said.reason.as_str()),
        (ConditionStatus::False, "HookFailed")
    );
    assert!(said.message.contains("EndpointRefused") && said.message.contains("status 404"));
    let lenient = hook(json!({"onFailure": "Proceed"}));
    assert_eq!(
        lenient.answered(&last, at(0)).record.outcome,
        Some(Outcome::Failed)
    );
    let mut lenient = lenient;
    let mut tries = 0;
    let outcome = loop {
        tries += 1;
        let turn = lenient.answered(&passing, at(tries));
        lenient = after(lenient, &turn);
        if let Some(outcome) = turn.record.outcome {
            break outcome;
        }
    };
    assert_eq!((tries, outcome), (3, Outcome::Failed));
}

#[test]
fn a_plugin_that_had_no_time_for_the_machine_has_not_failed() {
    let mut hook = hook(json!({"onFailure": "Proceed"}));
    for second in 0..10 {
        let turn = hook.answered(&Answer::Busy("plugin p is busy".to_owned()), at(second * 2));
        assert_eq!(
            (turn.record.done, turn.said.failures, turn.news.is_some()),
            (None, 0, false)
        );
        assert_eq!(turn.said.next, at(second * 2 + 2));
        hook = after(hook, &turn);
    }
}

#[test]
fn a_missing_plugin_is_waited_for_even_when_failures_let_go() {
    let hook = hook(json!({"onFailure": "Proceed", "timeoutSeconds": 60, "onTimeout": "Proceed"}));
    let turn = hook.answered(
        &Answer::Unavailable("Plugin p does not exist".to_owned()),
        at(0),
    );
    assert_eq!(turn.record.done, None);
    let mut hook = after(hook, &turn);
    hook.unavailable = Some("Plugin p does not exist".to_owned());
    let said = report(
        std::slice::from_ref(&hook),
        Phase::PreDrain,
        &[&hook],
        at(1),
    );
    assert_eq!(said.expect("said").reason, "HookNotAvailable");
    assert!(matches!(hook.next(at(60)), NextTurn::GiveUp(_)));
}

#[test]
fn the_condition_shows_every_hook_in_order() {
    let named = |name: &str, order: i32| {
        let mut hook = hook(json!({"order": order}));
        hook.name = name.to_owned();
        hook
    };
    let first = named("first", -1);
    let done = first.answered(&Answer::Proceed, at(0));
    let second = named("a-second", 0);
    let waits = second.answered(&waiting(), at(5));
    let hooks = [
        named("b-third", 0),
        after(second, &waits),
        after(first, &done),
    ];
    let pending: Vec<&Hook> = in_order(&hooks, Phase::PreDrain)
        .into_iter()
        .filter(|hook| !hook.is_done())
        .collect();
    let said = report(&hooks, Phase::PreDrain, &pending, at(6)).expect("said");
    assert_eq!(said.reason, "WaitingForHook");
    let lines: Vec<&str> = said.message.lines().collect();
    assert_eq!(
        lines,
        [
            format!("* first (plugin p): proceeded at {}", at(0)),
            format!(
                "* a-second (plugin p): waits since {}: plugin p says \"backup runs\"",
                at(5)
            ),
            "* b-third (plugin p): waits for its turn".to_owned(),
        ]
    );
    assert_eq!(report(&hooks, Phase::PreTerminate, &[], at(6)), None);
}

#[test]
fn what_the_deletion_of_the_cluster_means_is_the_operators_choice() {
    let runs = |phase: &str, choice: &str| {
        hook(json!({"phase": phase, "onClusterDeletion": choice})).runs_on_cluster_deletion()
    };
    assert!(!runs("PreDrain", "Default"));
    assert!(runs("PreTerminate", "Default"));
    assert!(runs("PreDrain", "Run"));
    assert!(!runs("PreTerminate", "Skip"));
}

proptest! {
    #[test]
    fn a_blocking_hook_is_only_done_when_it_proceeds(answers in proptest::collection::vec(0_u8..4, 1..40), gap in 1_i64..500) {
        let mut hook = hook(json!({"timeoutSeconds": 20}));
        let mut now = 0;
        for answer in answers {
            now = i64::saturating_add(now, gap);
            match hook.next(at(now)) {
                NextTurn::Ask => {}
                NextTurn::GiveUp(_) => prop_assert!(false, "it blocks"),
                NextTurn::Wait(left) => {
                    prop_assert!(left > Duration::ZERO && left <= CHECK_MAX);
                    continue;
                }
            }
            let answer = match answer {
                0 => Answer::Proceed,
                1 => waiting(),
                2 => Answer::Failed(Failure::transient("A", "b")),
                _ => Answer::Failed(Failure::denied("A", "b")),
            };
            let turn = hook.answered(&answer, at(now));
            prop_assert_eq!(turn.record.done.is_some(), answer == Answer::Proceed);
            hook = after(hook, &turn);
            if hook.is_done() {
                break;
            }
        }
    }
}
