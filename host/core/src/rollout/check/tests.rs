//! What the check lets pass and what it refuses.

use serde_json::json;

use super::*;

fn machine(name: &str, available: bool) -> MachineFacts {
    MachineFacts {
        name: name.to_owned(),
        ready: available,
        available,
        healthy: available,
        ..MachineFacts::default()
    }
}

fn set(name: &str, current: bool, desired: u32, machines: Vec<MachineFacts>) -> MachineSetFacts {
    let count = |is: fn(&MachineFacts) -> bool| {
        u32::try_from(machines.iter().filter(|m| is(m)).count()).expect("few")
    };
    MachineSetFacts {
        name: name.to_owned(),
        current,
        desired_replicas: desired,
        actual_replicas: count(|_| true),
        ready_replicas: count(|m| m.ready),
        available_replicas: count(|m| m.available),
        machines,
        ..MachineSetFacts::default()
    }
}

/// Three available machines of an old template, one of them not healthy when `sick`; surge 1, unavailable 0.
fn facts(current: MachineSetFacts, old: MachineSetFacts) -> Facts {
    Facts {
        now_ms: 0,
        deployment: "ns/d".to_owned(),
        version: "v1.36.0".to_owned(),
        replicas: 3,
        max_surge: 1,
        max_unavailable: 0,
        machine_sets: vec![current, old],
        settings: json!({}),
        state: None,
        extra: Vec::new(),
    }
}

fn old_of_three() -> MachineSetFacts {
    set(
        "old",
        false,
        3,
        ["a", "b", "c"].map(|name| machine(name, true)).to_vec(),
    )
}

fn answer(targets: &[(&str, u32)]) -> Answer {
    let targets = targets.iter().map(|(name, replicas)| Target {
        machine_set: (*name).to_owned(),
        replicas: *replicas,
        create_disabled: false,
    });
    Answer {
        targets: targets.collect(),
        ..Answer::default()
    }
}

fn start() -> Facts {
    facts(set("new", true, 0, Vec::new()), old_of_three())
}

#[test]
fn a_set_that_is_not_named_keeps_its_replicas() {
    let checked = check(&start(), answer(&[("new", 1)])).expect("within surge");
    let replicas: Vec<u32> = checked
        .targets()
        .iter()
        .map(|target| target.replicas)
        .collect();
    assert_eq!(replicas, [1, 3]);
    assert!(!checked.is_idle());
}

#[test]
fn what_belongs_to_others_is_not_touched() {
    assert!(matches!(
        check(&start(), answer(&[("x", 1)])),
        Err(Violation::ForeignSet { .. })
    ));
    assert!(matches!(
        check(&start(), answer(&[("new", 1), ("new", 0)])),
        Err(Violation::TwoTargets { .. })
    ));
    let foreign = Answer {
        delete_first: vec!["z".to_owned()],
        ..Answer::default()
    };
    assert!(matches!(
        check(&start(), foreign),
        Err(Violation::ForeignMachine { .. })
    ));
}

#[test]
fn growth_stops_at_replicas_and_surge() {
    assert_eq!(
        check(&start(), answer(&[("new", 2)])),
        Err(Violation::AboveSurge {
            total: 5,
            ceiling: 4,
            replicas: 3,
            surge: 1
        })
    );
    // What still has to go counts, also if it was told to go.
    assert!(matches!(
        check(&start(), answer(&[("new", 4), ("old", 0)])),
        Err(Violation::AboveSurge { total: 7, .. })
    ));
}

#[test]
fn available_machines_stay_above_the_floor() {
    assert_eq!(
        check(&start(), answer(&[("old", 2)])),
        Err(Violation::BelowFloor {
            available: 2,
            floor: 3,
            replicas: 3,
            unavailable: 0
        })
    );
    let ready = set("new", true, 1, vec![machine("n", true)]);
    assert!(check(&facts(ready.clone(), old_of_three()), answer(&[("old", 2)])).is_ok());
    assert!(check(&facts(ready, old_of_three()), answer(&[("old", 1)])).is_err());
    let starting = set("new", true, 1, vec![machine("n", false)]);
    assert!(check(&facts(starting, old_of_three()), answer(&[("old", 2)])).is_err());
}

#[test]
fn what_is_promised_already_counts() {
    // The old set was told to shrink to two and has not done so yet.
    let ready = set("new", true, 1, vec![machine("n", true)]);
    let old = MachineSetFacts {
        desired_replicas: 2,
        ..old_of_three()
    };
    assert!(check(&facts(ready.clone(), old.clone()), answer(&[("old", 1)])).is_err());
    assert!(check(&facts(ready, old), answer(&[])).is_ok());
}

#[test]
fn unavailable_machines_may_go_as_far_as_they_go_first() {
    let one_sick = set(
        "old",
        false,
        3,
        vec![machine("a", true), machine("b", true), machine("c", false)],
    );
    let new = set("new", true, 1, vec![machine("n", true)]);
    assert!(check(&facts(new.clone(), one_sick.clone()), answer(&[("old", 2)])).is_ok());
    assert!(check(&facts(new.clone(), one_sick.clone()), answer(&[("old", 1)])).is_err());
    // Marking an available one turns that around.
    let marked = Answer {
        delete_first: vec!["a".to_owned()],
        ..answer(&[("old", 2)])
    };
    assert!(check(&facts(new, one_sick), marked).is_err());
}

#[test]
fn by_age_a_healthy_machine_that_is_not_available_does_not_go_first() {
    let waiting = MachineFacts {
        healthy: true,
        ..machine("c", false)
    };
    let old = set(
        "old",
        false,
        3,
        vec![machine("a", true), machine("b", true), waiting],
    );
    let mut facts = facts(set("new", true, 1, vec![machine("n", true)]), old);
    assert!(check(&facts, answer(&[("old", 2)])).is_ok());
    facts
        .extra
        .push((DELETION_ORDER.to_owned(), json!("Oldest")));
    assert!(check(&facts, answer(&[("old", 2)])).is_err());
    let named = Answer {
        delete_first: vec!["c".to_owned()],
        ..answer(&[("old", 2)])
    };
    assert!(check(&facts, named).is_ok());
}

#[test]
fn what_is_not_available_yet_may_be_so_before_it_is_gone() {
    let sick = set(
        "old",
        false,
        3,
        ["a", "b", "c"].map(|name| machine(name, false)).to_vec(),
    );
    let refused = |staying| {
        Err(Violation::TooFewStay {
            staying,
            floor: 3,
            replicas: 3,
            unavailable: 0,
        })
    };
    let new = set("new", true, 1, vec![machine("n", false)]);
    let all = facts(new, sick.clone());
    assert_eq!(check(&all, answer(&[("old", 0), ("new", 0)])), refused(0));
    // One of the current set that is not available does not stand for an old one that may be so again.
    assert_eq!(check(&all, answer(&[("old", 2)])), refused(2));
    let new = set("new", true, 1, vec![machine("n", true)]);
    assert!(check(&facts(new, sick.clone()), answer(&[("old", 2)])).is_ok());
    // A deployment that was scaled down shrinks where it can, and so does one without a rollout.
    let mut fewer = facts(set("new", true, 1, vec![machine("n", false)]), sick.clone());
    fewer.replicas = 2;
    assert!(check(&fewer, answer(&[("old", 1)])).is_ok());
    let none = set("none", false, 0, Vec::new());
    let only = MachineSetFacts {
        current: true,
        ..sick
    };
    let mut fewer = facts(only, none);
    fewer.replicas = 2;
    assert!(check(&fewer, answer(&[("old", 2)])).is_ok());
    assert!(check(&fewer, answer(&[("old", 1)])).is_err());
}

#[test]
fn the_rollout_can_always_finish() {
    let small = set("old", false, 1, vec![machine("a", true)]);
    let grown = answer(&[("old", 2)]);
    assert!(matches!(
        check(&facts(set("new", true, 0, Vec::new()), small), grown),
        Err(Violation::OldSetGrows { from: 1, to: 2, .. })
    ));
    let mut disabled = answer(&[("new", 1)]);
    disabled.targets[0].create_disabled = true;
    assert!(matches!(
        check(&start(), disabled),
        Err(Violation::CurrentDisabled { .. })
    ));
    assert!(
        check(&start(), Answer::default())
            .expect("nothing changes")
            .is_idle()
    );
    let waiting = Waiting {
        reason: "Window".to_owned(),
        message: "waits for the night".to_owned(),
        check_after: std::time::Duration::from_secs(60),
    };
    let waits = Answer {
        waiting: Some(waiting),
        ..Answer::default()
    };
    assert!(!check(&start(), waits).expect("nothing changes").is_idle());
}

#[test]
fn too_much_state_is_refused() {
    let large = Answer {
        state: Some(vec![0; STATE_BYTES_MAX + 1]),
        ..Answer::default()
    };
    assert!(matches!(
        check(&start(), large),
        Err(Violation::StateTooLarge { .. })
    ));
}
