//! What is decided about a Plugin, and what is said of it.

use capstan_api::condition::ConditionStatus;
use serde_json::json;

use super::*;
use crate::plan::Outcome;

mod canary;
mod schema;

fn observed() -> Observed {
    Observed {
        plugin: serde_json::from_value(json!({
            "apiVersion": "capstan.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"name": "p", "namespace": "capstan-system", "generation": 1},
            "spec": {"source": {"configMap": {"name": "p"}}},
        }))
        .expect("a Plugin"),
        misplaced: None,
        source: Lookup::Found("7".to_owned()),
        attempt: None,
        underway: None,
        keys_changed: false,
        active: None,
        serving: None,
        conflicts: vec![],
        recheck: None,
        previous: None,
        trapped: false,
        given_up: None,
        last_good: None,
        lost: None,
        canary: None,
        held_back: None,
        calls: (0, 0),
        forgotten_kinds: false,
    }
}

fn candidate(digest: &str) -> Candidate {
    Candidate {
        digest: digest.to_owned(),
        abi: "0.1".to_owned(),
        resolved: None,
        signed_by: None,
        not_signed: None,
        source_bytes: 1,
        compiled_bytes: 2,
        compile_time: None,
        loaded_at: Timestamp::UNIX_EPOCH,
        manifest: Manifest {
            name: "p".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            home_page: String::new(),
            kinds: vec![],
            capabilities: vec![],
        },
        roles: vec!["upgrade-strategy".to_owned()],
        missing: vec![],
        cuts: vec![],
        granted: vec![],
        invalid_grants: None,
    }
}

fn loaded(version: &str, result: Result<Candidate, Problem>) -> Option<Attempt> {
    Some(Attempt {
        version: version.to_owned(),
        pause: None,
        pinned: None,
        result,
    })
}

fn said(observed: &Observed, name: &str) -> Report {
    let reported = report::<()>(observed, &Outcome::default(), Timestamp::UNIX_EPOCH);
    reported
        .conditions
        .into_iter()
        .find(|c| c.type_ == name)
        .expect("reported")
}

#[test]
fn a_new_source_is_loaded_and_then_activated() {
    let mut observed = observed();
    assert_eq!(
        decide(&observed).steps,
        vec![Step::Load {
            version: "7".to_owned()
        }]
    );
    observed.attempt = loaded("7", Ok(candidate("sha256:a")));
    assert_eq!(decide(&observed).steps, vec![Step::Activate]);
    observed.active = Some(Active {
        digest: "sha256:a".to_owned(),
        generation: 1,
    });
    assert!(decide(&observed).steps.is_empty());
    assert_eq!(said(&observed, "Ready").status, ConditionStatus::True);
}

#[test]
fn kinds_of_an_earlier_process_are_recalled_when_nothing_can_answer_for_them() {
    let mut observed = observed();
    observed.forgotten_kinds = true;
    let load = Step::Load {
        version: "7".to_owned(),
    };
    assert_eq!(decide(&observed).steps, [load], "it may answer soon");
    observed.attempt = loaded(
        "7",
        Err(Problem::new("Compiled", "CompileFailed", "it is empty")),
    );
    assert_eq!(decide(&observed).steps, [Step::RecallKinds]);
    observed.source = Lookup::Missing;
    assert_eq!(decide(&observed).steps, [Step::RecallKinds]);
    observed.misplaced = Some("another namespace".to_owned());
    assert!(decide(&observed).steps.is_empty());
}

#[test]
fn a_bad_new_source_leaves_the_old_component_at_work() {
    let mut observed = observed();
    observed.active = Some(Active {
        digest: "sha256:a".to_owned(),
        generation: 1,
    });
    observed.attempt = loaded(
        "7",
        Err(Problem::new("Compiled", "CompileFailed", "it is empty")),
    );
    assert!(decide(&observed).steps.is_empty());
    assert_eq!(said(&observed, "Compiled").status, ConditionStatus::False);
    assert_eq!(
        said(&observed, "Compatible").status,
        ConditionStatus::Unknown
    );
    assert_eq!(said(&observed, "Ready").reason, reason::FELL_BACK);
}

#[test]
fn a_source_that_is_gone_or_suspended_answers_no_calls() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:a")));
    observed.active = Some(Active {
        digest: "sha256:a".to_owned(),
        generation: 1,
    });
    observed.source = Lookup::Missing;
    assert_eq!(decide(&observed).steps, vec![Step::Deactivate]);
    assert_eq!(said(&observed, "Verified").reason, reason::SOURCE_NOT_FOUND);
    observed.source = Lookup::Found("7".to_owned());
    observed.plugin.spec.suspend = true;
    assert_eq!(decide(&observed).steps, vec![Step::Deactivate]);
}

#[test]
fn a_pinned_digest_and_a_kind_of_another_plugin_are_refused() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:a")));
    observed.plugin.spec.digest = Some("sha256:b".to_owned());
    assert_eq!(decide(&observed).steps, [restore("sha256:b")]);
    observed.lost = Some("sha256:b".to_owned());
    assert!(decide(&observed).steps.is_empty());
    assert_eq!(said(&observed, "Verified").reason, reason::DIGEST_MISMATCH);
    observed.plugin.spec.digest = None;
    observed.conflicts = vec![("LocalMachine.x".to_owned(), "plugin first".to_owned())];
    assert!(decide(&observed).steps.is_empty());
    assert!(
        said(&observed, "Compatible")
            .message
            .contains("plugin first")
    );
}

#[test]
fn a_missing_grant_names_the_capability_and_the_lines() {
    let mut observed = observed();
    let mut candidate = candidate("sha256:a");
    candidate.missing = vec![Missing {
        capability: "http".to_owned(),
        why: "to reach the cloud".to_owned(),
        yaml: "- capability: http".to_owned(),
        by_ceiling: false,
    }];
    observed.attempt = loaded("7", Ok(candidate.clone()));
    observed.active = Some(Active {
        digest: "sha256:a".to_owned(),
        generation: 1,
    });
    let granted = said(&observed, "Granted");
    assert!(
        granted.message.contains("to reach the cloud")
            && granted.message.contains("- capability: http")
    );
    assert_eq!(said(&observed, "Ready").reason, reason::GRANT_MISSING);
    candidate.missing[0].by_ceiling = true;
    observed.attempt = loaded("7", Ok(candidate));
    let granted = said(&observed, "Granted");
    assert_eq!(granted.reason, reason::ABOVE_CEILING);
    assert!(granted.message.contains("--ceiling"), "{}", granted.message);
}

#[test]
fn what_the_ceiling_leaves_out_is_said() {
    let mut observed = observed();
    let mut candidate = candidate("sha256:a");
    candidate.cuts = ["http a", "http b", "secrets c", "secrets d"]
        .map(str::to_owned)
        .into();
    observed.attempt = loaded("7", Ok(candidate));
    let granted = said(&observed, "Granted");
    assert_eq!(granted.status, ConditionStatus::True);
    let words = "leaves out of it: http a, http b, secrets c and 1 more";
    assert!(granted.message.contains(words), "{}", granted.message);
}

#[test]
fn grants_that_make_no_sense_are_none_and_say_so() {
    let mut observed = observed();
    let mut candidate = candidate("sha256:a");
    candidate.invalid_grants = Some("spec.grants[0].http.origins".to_owned());
    observed.attempt = loaded("7", Ok(candidate));
    let granted = said(&observed, "Granted");
    assert_eq!(granted.reason, reason::GRANT_INVALID);
    assert!(granted.message.contains("spec.grants[0]"));
}

#[test]
fn what_is_taken_away_is_gone_also_when_the_source_is_bad() {
    let mut observed = observed();
    observed.active = Some(Active {
        digest: "sha256:a".to_owned(),
        generation: 0,
    });
    let bad = Problem::new("Compiled", "CompileFailed", "it is empty");
    observed.attempt = loaded("7", Err(bad));
    assert_eq!(decide(&observed).steps, vec![Step::Regrant]);
    observed.attempt = loaded("7", Ok(candidate("sha256:b")));
    observed.plugin.spec.digest = Some("sha256:a".to_owned());
    assert_eq!(decide(&observed).steps, vec![Step::Regrant]);
    observed.source = Lookup::Unknown("the server is away".to_owned());
    assert_eq!(decide(&observed).steps, vec![Step::Regrant]);
}

#[test]
fn a_digest_that_is_corrected_is_looked_for_again() {
    let mut observed = observed();
    observed.plugin.spec.digest = Some("sha256:b".to_owned());
    let bad = Problem::new("Verified", reason::DIGEST_MISMATCH, "another one");
    let mut attempt = loaded("7", Err(bad)).expect("an attempt");
    attempt.pinned = Some("sha256:a".to_owned());
    observed.attempt = Some(attempt.clone());
    assert!(matches!(
        decide(&observed).steps.as_slice(),
        [Step::Load { .. }]
    ));
    attempt.pinned = observed.plugin.spec.digest.clone();
    observed.attempt = Some(attempt);
    observed.lost = observed.plugin.spec.digest.clone();
    assert!(decide(&observed).steps.is_empty());
}

#[test]
fn what_cannot_be_reached_is_said_and_looked_at_again() {
    let mut observed = observed();
    observed.source = Lookup::Unknown("spec.source.oci: no answer".to_owned());
    observed.recheck = Some(Duration::from_secs(300));
    let plan = decide(&observed);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.next, Next::CheckAfter(Duration::from_secs(300)));
    assert_eq!(
        said(&observed, "Verified").reason,
        reason::SOURCE_UNAVAILABLE
    );
}

#[test]
fn a_load_that_failed_for_a_passing_reason_is_not_tried_at_once() {
    let mut observed = observed();
    let bad = Problem {
        is_transient: true,
        ..Problem::new("Compiled", "CompileTimedOut", "too slow")
    };
    observed.attempt = loaded("7", Err(bad));
    let load = Step::Load {
        version: "7".to_owned(),
    };
    assert_eq!(decide(&observed).steps, [load]);
    let rest = Duration::from_secs(40);
    if let Some(attempt) = &mut observed.attempt {
        attempt.pause = Some(rest);
    }
    let plan = decide(&observed);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.next, Next::CheckAfter(rest));
    assert_eq!(said(&observed, "Compiled").status, ConditionStatus::False);
    // What answered before is not given up for that.
    observed.last_good = Some("sha256:good".to_owned());
    assert_eq!(decide(&observed).steps, [restore("sha256:good")]);
}

fn underway(long_after: Option<u64>) -> Option<Underway> {
    Some(Underway {
        what: "registry r.example.com is asked".to_owned(),
        long_after: long_after.map(Duration::from_secs),
    })
}

#[test]
fn what_is_underway_is_said_and_waited_for_unless_it_takes_long() {
    let mut observed = observed();
    observed.last_good = Some("sha256:good".to_owned());
    for source in [
        Lookup::Unknown("not asked yet".to_owned()),
        Lookup::Found("7".to_owned()),
    ] {
        observed.source = source;
        observed.underway = underway(Some(4));
        let plan = decide(&observed);
        assert!(plan.steps.is_empty(), "it is not begun twice");
        assert_eq!(plan.next, Next::CheckAfter(Duration::from_secs(4)));
        let verified = said(&observed, "Verified");
        assert_eq!(verified.status, ConditionStatus::Unknown);
        assert_eq!(verified.reason, reason::LOADING);
        assert!(verified.message.contains("r.example.com"));
        observed.underway = underway(None);
        assert_eq!(decide(&observed).steps, [restore("sha256:good")]);
        // What answers already goes on.
        observed.active = active("sha256:good");
        assert!(decide(&observed).steps.is_empty());
        assert_eq!(said(&observed, "Ready").status, ConditionStatus::True);
        observed.active = None;
    }
}

#[test]
fn other_keys_are_a_reason_to_look_at_signatures_again_before_anything_else() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:a")));
    observed.keys_changed = true;
    assert_eq!(decide(&observed).steps, [Step::CheckSignatures]);
    let outcome = Outcome {
        done: vec![(Step::CheckSignatures, ())],
        failed: None,
    };
    observed.keys_changed = false;
    let reported = report(&observed, &outcome, Timestamp::UNIX_EPOCH);
    assert_eq!(reported.next, Some(Next::CheckAfter(Duration::ZERO)));
    // Keys that cannot be read are named where signatures are.
    let failed = Outcome::<Step, ()> {
        done: vec![],
        failed: Some((
            Step::CheckSignatures,
            crate::plan::Failure::terminal(reason::KEY_INVALID, "key k of Secret s"),
        )),
    };
    let reported = report(&observed, &failed, Timestamp::UNIX_EPOCH);
    let verified = reported.conditions.iter().find(|c| c.type_ == "Verified");
    assert_eq!(
        verified.map(|c| c.reason.as_str()),
        Some(reason::KEY_INVALID)
    );
}

#[test]
fn grants_of_whatever_is_in_a_source_are_warned_of_until_it_is_named_or_signed() {
    let mut observed = observed();
    let mut candidate = candidate("sha256:a");
    candidate.granted = vec!["log".to_owned(), "event".to_owned()];
    observed.attempt = loaded("7", Ok(candidate.clone()));
    assert_eq!(said(&observed, "Verified").reason, reason::VERIFIED);
    candidate.granted.push("http".to_owned());
    observed.attempt = loaded("7", Ok(candidate.clone()));
    let verified = said(&observed, "Verified");
    assert_eq!(verified.status, ConditionStatus::True);
    assert_eq!(verified.reason, reason::ANY_COMPONENT);
    for word in ["the grants of http:", "spec.digest (sha256:a)"] {
        assert!(verified.message.contains(word), "{}", verified.message);
    }
    observed.plugin.spec.digest = Some("sha256:a".to_owned());
    assert_eq!(said(&observed, "Verified").reason, reason::VERIFIED);
    observed.plugin.spec.digest = None;
    candidate.signed_by = Some("key release.pub".to_owned());
    observed.attempt = loaded("7", Ok(candidate));
    assert_eq!(said(&observed, "Verified").reason, reason::VERIFIED);
}

#[test]
fn an_unsigned_component_is_named_where_that_is_only_a_warning() {
    let mut observed = observed();
    let mut candidate = candidate("sha256:a");
    candidate.not_signed = Some("there is no signature".to_owned());
    observed.attempt = loaded("7", Ok(candidate));
    let verified = said(&observed, "Verified");
    assert_eq!(verified.status, ConditionStatus::True);
    assert_eq!(verified.reason, reason::SIGNATURE_MISSING);
}

#[test]
fn changed_grants_take_over_without_loading_again() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:a")));
    observed.active = Some(Active {
        digest: "sha256:a".to_owned(),
        generation: 0,
    });
    assert_eq!(decide(&observed).steps, vec![Step::Regrant]);
}

fn active(digest: &str) -> Option<Active> {
    Some(Active {
        digest: digest.to_owned(),
        generation: 1,
    })
}

#[test]
fn a_new_version_that_traps_gives_way_to_the_one_before_and_stays_away() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:new")));
    observed.active = active("sha256:new");
    observed.previous = Some("sha256:old".to_owned());
    assert!(decide(&observed).steps.is_empty());
    observed.trapped = true;
    assert_eq!(decide(&observed).steps, vec![Step::FallBack]);
    // As it is afterwards.
    observed.trapped = false;
    observed.active = active("sha256:old");
    observed.given_up = Some(("sha256:new".to_owned(), "it failed so often".to_owned()));
    assert!(decide(&observed).steps.is_empty());
    let ready = said(&observed, "Ready");
    assert_eq!(ready.reason, reason::FELL_BACK);
    assert!(ready.message.contains("it failed so often"));
    assert_eq!(said(&observed, "Compatible").status, ConditionStatus::True);
}

fn restore(digest: &str) -> Step {
    Step::Restore {
        digest: digest.to_owned(),
    }
}

#[test]
fn only_the_digest_that_is_named_answers_calls() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:new")));
    observed.active = active("sha256:new");
    // The one before it is not watched any more: it comes from what the host keeps, however long ago it answered.
    observed.plugin.spec.digest = Some("sha256:old".to_owned());
    assert_eq!(decide(&observed).steps, [restore("sha256:old")]);
    observed.active = active("sha256:old");
    assert!(decide(&observed).steps.is_empty());
    assert_eq!(said(&observed, "Ready").status, ConditionStatus::True);
    // The source is not needed for that, nor is what answered before a restart.
    observed.active = None;
    observed.last_good = Some("sha256:new".to_owned());
    observed.source = Lookup::Unknown("no answer".to_owned());
    assert_eq!(decide(&observed).steps, [restore("sha256:old")]);
    // Without it nothing answers.
    observed.source = Lookup::Found("7".to_owned());
    observed.active = active("sha256:new");
    observed.lost = Some("sha256:old".to_owned());
    assert_eq!(decide(&observed).steps, [Step::Deactivate]);
    observed.active = None;
    assert!(decide(&observed).steps.is_empty());
    let ready = said(&observed, "Ready");
    assert_eq!(ready.status, ConditionStatus::False);
    assert_eq!(ready.reason, reason::DIGEST_MISMATCH);
    // The source has it now.
    observed.attempt = loaded("7", Ok(candidate("sha256:old")));
    assert_eq!(decide(&observed).steps, [Step::Activate]);
}

#[test]
fn one_field_rolls_back_and_forth() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:new")));
    observed.active = active("sha256:new");
    observed.previous = Some("sha256:old".to_owned());
    observed.plugin.spec.digest = Some("sha256:old".to_owned());
    assert_eq!(decide(&observed).steps, vec![Step::FallBack]);
    observed.active = active("sha256:old");
    observed.previous = Some("sha256:new".to_owned());
    assert!(decide(&observed).steps.is_empty());
    observed.plugin.spec.digest = None;
    assert_eq!(decide(&observed).steps, vec![Step::Activate]);
    // Who pins what traps has decided.
    observed.active = active("sha256:new");
    observed.previous = Some("sha256:old".to_owned());
    observed.trapped = true;
    observed.plugin.spec.digest = Some("sha256:new".to_owned());
    assert!(decide(&observed).steps.is_empty());
}

#[test]
fn the_history_says_what_answered_and_how_it_ended() {
    let mut observed = observed();
    let say = |observed: &Observed| {
        report::<()>(observed, &Outcome::default(), Timestamp::UNIX_EPOCH).status
    };
    for digest in ["sha256:a", "sha256:b", "sha256:a"] {
        observed.attempt = loaded("7", Ok(candidate(digest)));
        observed.active = active(digest);
        if digest == "sha256:a" {
            observed.given_up = Some(("sha256:b".to_owned(), "it failed".to_owned()));
        }
        let status = say(&observed);
        assert_eq!(say(&observed), status, "the same again changes nothing");
        observed.plugin.status = Some(status);
    }
    let history = observed.plugin.status.unwrap_or_default().history;
    let states: Vec<_> = history
        .iter()
        .map(|entry| (entry.digest.as_str(), entry.state.as_str()))
        .collect();
    let expected = [
        ("sha256:a", "Active"),
        ("sha256:b", "GivenUp"),
        ("sha256:a", "Replaced"),
    ];
    assert_eq!(states, expected);
    assert_eq!(history[1].message.as_deref(), Some("it failed"));
}

#[test]
fn counts_follow_slowly() {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:a")));
    observed.active = active("sha256:a");
    let at = |observed: &Observed, second| {
        let now = Timestamp::from_second(second).expect("a time");
        report::<()>(observed, &Outcome::default(), now).status
    };
    observed.plugin.status = Some(at(&observed, 0));
    observed.calls = (10, 1);
    assert_eq!(at(&observed, 200).calls.map(|calls| calls.total), Some(0));
    let later = at(&observed, 400).calls.expect("counts");
    assert_eq!((later.total, later.failed), (10, 1));
}

#[test]
fn a_plugin_whose_calls_are_held_back_says_so_and_until_when() {
    let mut seen = observed();
    seen.attempt = loaded("7", Ok(candidate("sha256:a")));
    seen.active = active("sha256:a");
    seen.held_back = Some("calls are held back until noon".to_owned());
    let ready = said(&seen, "Ready");
    assert_eq!(ready.status, ConditionStatus::False);
    assert_eq!(ready.reason, reason::CIRCUIT_OPEN);
    assert!(ready.message.contains("until noon"));
    seen.held_back = None;
    assert_eq!(said(&seen, "Ready").status, ConditionStatus::True);
}

#[test]
fn what_answered_before_a_restart_answers_again_when_what_is_there_must_not() {
    let mut seen = observed();
    seen.last_good = Some("sha256:good".to_owned());
    // Nothing is known of the source yet.
    let load = Step::Load {
        version: "7".to_owned(),
    };
    assert_eq!(decide(&seen).steps, [load]);
    // It has what was given up.
    seen.attempt = loaded("7", Ok(candidate("sha256:bad")));
    seen.given_up = Some(("sha256:bad".to_owned(), "it traps".to_owned()));
    assert_eq!(decide(&seen).steps, [restore("sha256:good")]);
    seen.active = active("sha256:good");
    assert!(decide(&seen).steps.is_empty());
    // It has what cannot be loaded, or cannot be asked.
    seen.active = None;
    seen.given_up = None;
    let bad = Problem::new("Verified", reason::SOURCE_INVALID, "no component");
    seen.attempt = loaded("7", Err(bad));
    assert_eq!(decide(&seen).steps, [restore("sha256:good")]);
    seen.source = Lookup::Unknown("no answer".to_owned());
    assert_eq!(decide(&seen).steps, [restore("sha256:good")]);
    // The operator wants another one.
    seen.plugin.spec.digest = Some("sha256:other".to_owned());
    assert_eq!(decide(&seen).steps, [restore("sha256:other")]);
    // What is there may answer.
    let mut fine = observed();
    fine.last_good = Some("sha256:good".to_owned());
    fine.attempt = loaded("7", Ok(candidate("sha256:fine")));
    assert!(!decide(&fine).steps.contains(&restore("sha256:good")));
}

#[test]
fn a_plugin_owns_kinds_from_its_first_call_on() {
    let kind = crate::call::manifest::OwnedKind {
        role: "infra-machine".to_owned(),
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        kind: "Rack".to_owned(),
        plural: "racks".to_owned(),
        short_names: vec![],
        spec_schema: json!({}),
        status_schema: json!({}),
        columns: vec![],
    };
    let mut observed = observed();
    let mut candidate = candidate("sha256:a");
    candidate.manifest.kinds.push(kind);
    observed.attempt = loaded("7", Ok(candidate));
    observed.conflicts = vec![("Rack.example.com".to_owned(), "plugin q".to_owned())];
    let kinds = |observed: &Observed| {
        let reported = report::<()>(observed, &Outcome::default(), Timestamp::UNIX_EPOCH);
        reported.status.kinds.len()
    };
    assert_eq!(kinds(&observed), 0, "they are another's");
    observed.active = active("sha256:a");
    assert_eq!(kinds(&observed), 1);
}
