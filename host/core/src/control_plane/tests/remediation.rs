//! Cases of machines that are given up: how tries are counted, and when that ends.

use super::*;

/// So many machines, the first of them outdated, after the machine that was to take its place was given up for the second time.
fn rolling(replicas: u32, alive: usize) -> (Observed, String) {
    let names = ["a", "b", "c", "d"].into_iter().take(alive);
    let mut seen = running(replicas, names.map(|name| member(name, "a")).collect());
    seen.members[0].machine.spec.version = Some("v1.35.0".to_owned());
    let text = noted(&mut seen, "gone", 1);
    (seen, text)
}

/// The steps that change machines or the record.
fn changes(seen: &Observed) -> Vec<Step> {
    let mut steps = decide(seen, now()).steps;
    steps.retain(|step| {
        matches!(
            step,
            Step::CreateMachine { .. } | Step::DeleteMachine { .. } | Step::Annotate { .. }
        )
    });
    steps
}

fn forgets(step: &Step) -> bool {
    matches!(step, Step::Annotate { annotations } if annotations[annotation::REMEDIATION_IN_PROGRESS].is_null())
}

#[test]
fn a_rollout_whose_new_machines_fail_counts_its_tries() {
    for replicas in [1, 3] {
        let (mut seen, text) = rolling(replicas, usize::try_from(replicas).unwrap());
        let steps = changes(&seen);
        let [
            Step::CreateMachine {
                remediation_for, ..
            },
            last,
        ] = steps.as_slice()
        else {
            panic!("{steps:?}")
        };
        assert_eq!(remediation_for.as_deref(), Some(text.as_str()));
        assert!(forgets(last), "{last:?}");
        // The replacement fails as well: two tries are all that there are to be.
        let mut fails = given_up(member("e", "a"));
        fails.components[0].pod = pod("False");
        let annotations = fails.machine.metadata.annotations.as_mut().unwrap();
        annotations.insert(annotation::REMEDIATION_FOR.to_owned(), text);
        seen.members.push(fails);
        seen.etcd = etcd_of(&seen.members);
        seen.object["metadata"]["annotations"] = json!({});
        if let Ok(desired) = &mut seen.desired {
            desired.remediation = json!({"maxRetry": 1});
        }
        assert_eq!(changes(&seen), []);
        let told = reported(&seen);
        let said = message_of(&told, "Remediating");
        assert!(said.contains("maxRetry: 1 tries have failed"), "{said}");
    }
}

#[test]
fn a_remediation_is_forgotten_once_no_machine_comes_for_it() {
    let is_forgotten = |seen: &Observed| {
        let steps = changes(seen);
        matches!(steps.as_slice(), [only] if forgets(only))
    };
    let (mut seen, _) = rolling(3, 3);
    assert!(!is_forgotten(&seen), "the rollout makes another");
    seen.members[0].outdated = Err(Failure::transient("PluginFailed", "no answer"));
    seen.members[0].machine.spec.version = Some("v1.36.0".to_owned());
    assert!(!is_forgotten(&seen), "nobody knows whether it goes on");
    seen.members[0].outdated = Ok(vec![]);
    assert!(is_forgotten(&seen), "the rollout is over");
    let (mut seen, _) = rolling(3, 3);
    if let Ok(desired) = &mut seen.desired {
        desired.max_surge = 0;
    }
    assert!(is_forgotten(&seen), "one goes before another comes");
    let (mut seen, _) = rolling(3, 2);
    if let Ok(desired) = &mut seen.desired {
        desired.max_surge = 0;
    }
    assert!(!is_forgotten(&seen), "one has gone");
    let (seen, _) = rolling(3, 4);
    assert!(is_forgotten(&seen), "there are too many");
    let (mut seen, _) = rolling(3, 3);
    seen.desired = Ok(desired(1));
    assert!(is_forgotten(&seen), "fewer are wanted");
}
