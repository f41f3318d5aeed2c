//! What is decided about a canary, and what is said of it.

use super::*;

pub(super) fn with_canary(attempt: Option<Attempt>) -> Observed {
    let mut observed = observed();
    observed.attempt = loaded("7", Ok(candidate("sha256:stable")));
    observed.active = active("sha256:stable");
    observed.serving = Some(candidate("sha256:stable").manifest);
    observed.plugin.spec.canary = Some(
        serde_json::from_value(
            json!({"source": {"configMap": {"name": "next"}}, "namespaces": ["team-a"]}),
        )
        .expect("a canary"),
    );
    observed.canary = Some(ObservedCanary {
        source: Lookup::Found("9".to_owned()),
        attempt,
        underway: None,
        active: None,
        stopped: false,
        recheck: None,
    });
    observed
}

/// The next component, which calls itself something else.
fn of_another_name() -> Candidate {
    Candidate {
        manifest: Manifest {
            name: "q".to_owned(),
            ..candidate("sha256:next").manifest
        },
        ..candidate("sha256:next")
    }
}

#[test]
fn a_canary_is_loaded_serves_follows_its_spec_and_is_dropped() {
    let mut observed = with_canary(None);
    let load = Step::LoadCanary {
        version: "9".to_owned(),
    };
    assert_eq!(decide(&observed).steps, vec![load]);
    let spec = observed.plugin.spec.canary.clone().expect("a canary");
    observed = with_canary(loaded("9", Ok(candidate("sha256:next"))));
    assert_eq!(decide(&observed).steps, vec![Step::ActivateCanary]);
    let serving = |observed: &mut Observed, spec| {
        if let Some(canary) = &mut observed.canary {
            canary.active = Some(ActiveCanary {
                digest: "sha256:next".to_owned(),
                spec,
            });
        }
    };
    serving(&mut observed, spec.clone());
    assert!(decide(&observed).steps.is_empty());
    // Promotion and the way back are one field.
    let mut promoted = spec.clone();
    promoted.promoted = true;
    observed.plugin.spec.canary = Some(promoted.clone());
    assert_eq!(decide(&observed).steps, vec![Step::ActivateCanary]);
    serving(&mut observed, promoted);
    let status = report::<()>(&observed, &Outcome::default(), Timestamp::UNIX_EPOCH).status;
    assert_eq!(
        status.canary.map(|canary| canary.state.as_str()),
        Some("Promoted")
    );
    observed.plugin.spec.canary = Some(spec);
    assert_eq!(decide(&observed).steps, vec![Step::ActivateCanary]);
    observed.plugin.spec.canary = None;
    assert_eq!(decide(&observed).steps, vec![Step::DropCanary]);
}

#[test]
fn after_a_start_nothing_answers_for_the_objects_of_a_canary_before_it_was_looked_at() {
    let mut observed = with_canary(None);
    observed.active = None;
    observed.serving = None;
    let load = Step::LoadCanary {
        version: "9".to_owned(),
    };
    // It has never served.
    assert_eq!(decide(&observed).steps, [Step::Activate]);
    observed.plugin.status = serde_json::from_value(json!({
        "canary": {"digest": "sha256:next", "state": "Serving"},
    }))
    .ok();
    assert_eq!(decide(&observed).steps, [load]);
    // It is on its way: a moment is waited for, and no longer.
    for (long_after, steps) in [(Some(4), vec![]), (None, vec![Step::Activate])] {
        if let Some(canary) = &mut observed.canary {
            canary.underway = underway(long_after);
        }
        assert_eq!(decide(&observed).steps, steps);
    }
    if let Some(canary) = &mut observed.canary {
        canary.underway = None;
    }
    let stable = candidate("sha256:stable").manifest;
    assert!(!may_serve_beside(&observed, &stable));
    if let Some(canary) = &mut observed.canary {
        canary.attempt = loaded("9", Ok(candidate("sha256:next")));
    }
    assert_eq!(decide(&observed).steps, [Step::Activate]);
    assert!(may_serve_beside(&observed, &stable));
    let other = Manifest {
        name: "q".to_owned(),
        ..stable.clone()
    };
    assert!(!may_serve_beside(&observed, &other));
    // One that cannot be used, or that nobody can look for, keeps nothing waiting.
    let bad = Problem::new("Compiled", "CompileFailed", "it is empty");
    if let Some(canary) = &mut observed.canary {
        canary.attempt = loaded("9", Err(bad));
    }
    assert_eq!(decide(&observed).steps, [Step::Activate]);
    assert!(!may_serve_beside(&observed, &stable));
    if let Some(canary) = &mut observed.canary {
        canary.attempt = None;
        canary.source = Lookup::Unknown("no answer".to_owned());
    }
    assert_eq!(decide(&observed).steps, [Step::Activate]);
}

#[test]
fn a_canary_that_cannot_be_used_changes_nothing_beside_it() {
    let other = of_another_name();
    let bad = Problem::new("Compiled", "CompileFailed", "it is empty");
    for (attempt, words) in [
        (Err(bad), "it is empty"),
        (Ok(other), "they must be the same"),
    ] {
        let observed = with_canary(loaded("9", attempt));
        assert!(decide(&observed).steps.is_empty());
        assert_eq!(said(&observed, "Ready").status, ConditionStatus::True);
        let status = report::<()>(&observed, &Outcome::default(), Timestamp::UNIX_EPOCH).status;
        let canary = status.canary.expect("a canary");
        assert_eq!(canary.state.as_str(), "Failed");
        assert!(canary.message.unwrap_or_default().contains(words));
    }
}

#[test]
fn a_canary_is_held_against_what_answers_calls_and_not_against_its_source() {
    let other = of_another_name();
    // The source beside it has become bad, and what was loaded from it before goes on answering.
    let bad = Problem::new("Compiled", "CompileFailed", "it is empty");
    let mut observed = with_canary(loaded("9", Ok(other)));
    observed.attempt = loaded("7", Err(bad));
    assert!(!decide(&observed).steps.contains(&Step::ActivateCanary));
    let status = report::<()>(&observed, &Outcome::default(), Timestamp::UNIX_EPOCH).status;
    let message = status.canary.and_then(|canary| canary.message);
    assert!(
        message
            .unwrap_or_default()
            .contains("they must be the same")
    );
    // One that serves already goes when another kind of component takes over beside it.
    let spec = observed.plugin.spec.canary.clone().expect("a canary");
    if let Some(canary) = &mut observed.canary {
        canary.active = Some(ActiveCanary {
            digest: "sha256:next".to_owned(),
            spec,
        });
    }
    assert!(decide(&observed).steps.contains(&Step::DropCanary));
}
