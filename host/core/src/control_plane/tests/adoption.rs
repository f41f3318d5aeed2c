//! Cases of machines that others made.

use super::super::adoption::{Foreign, judge};
use super::*;

fn orphan(name: &str) -> Foreign {
    Foreign {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        version: "v1.36.0".to_owned(),
        config: Some((
            "bootstrap.cluster.x-k8s.io".to_owned(),
            "KubeadmConfig".to_owned(),
        )),
        owner: None,
        is_deleting: false,
    }
}

/// What is done besides telling.
fn made(seen: &Observed) -> Vec<Step> {
    let mut steps = decide(seen, now()).steps;
    steps.retain(|step| !matches!(step, Step::Tell { .. }));
    steps
}

/// What is told.
fn told(seen: &Observed) -> Option<String> {
    decide(seen, now())
        .steps
        .into_iter()
        .find_map(|step| match step {
            Step::Tell { reason, note } => Some(format!("{reason}: {note}")),
            _ => None,
        })
}

#[test]
fn nothing_is_taken_over_before_the_cluster_answers_to_its_secrets() {
    let mut seen = observed(1);
    seen.foreign = vec![orphan("a")];
    seen.material = Lookup::Found(MaterialState {
        unowned: vec!["c-ca".to_owned()],
        kubeconfig_due: true,
        ..MaterialState::default()
    });
    let proof = Step::EnsureKubeconfig {
        server: "https://h:6443".to_owned(),
    };
    let proof = [proof];
    assert_eq!(made(&seen), proof, "the authority stays whose it is");
    assert_eq!(told(&seen), None, "it may just be slow");
    seen.connection_said = Some("another authority".to_owned());
    assert_eq!(made(&seen), proof);
    let news = told(&seen).unwrap();
    assert!(
        news.starts_with("AdoptionFailed: ") && news.ends_with(": another authority"),
        "{news}"
    );
    let message = message_of(&reported(&seen), "ScalingUp").to_owned();
    assert!(message.ends_with(": another authority"), "{message}");
    seen.object["status"] = json!({"conditions": [
        {"type": "ScalingUp", "status": "True", "reason": "ScalingUp", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]});
    assert_eq!(told(&seen), None, "it is said once");
    seen.connected = true;
    assert!(made(&seen).contains(&Step::EnsureMaterial));
    if let Lookup::Found(material) = &mut seen.material {
        material.other_authority = Some("Secret c-kubeconfig trusts another one".to_owned());
    }
    assert_eq!(made(&seen), []);
    assert!(told(&seen).unwrap().contains("trusts another one"));
}

#[test]
fn machines_of_nobody_are_taken_over_before_anything_else_happens() {
    let mut seen = observed(3);
    seen.connected = true;
    seen.foreign = vec![orphan("a"), orphan("b")];
    seen.material = Lookup::Found(MaterialState {
        unowned: vec!["c-ca".to_owned()],
        ..MaterialState::default()
    });
    let adopt = |name: &str| Step::AdoptMachine {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    };
    let plan = decide(&seen, now());
    assert_eq!(plan.steps, [Step::EnsureMaterial, adopt("a"), adopt("b")]);
    assert!(
        plan.waits
            .iter()
            .any(|wait| wait.message.contains("taking over the Machines a, b"))
    );
}

#[test]
fn a_cluster_that_others_made_never_gets_new_certificates() {
    let mut seen = observed(1);
    seen.foreign = vec![orphan("a")];
    seen.material = Lookup::Found(MaterialState {
        missing: vec!["c-ca".to_owned(), "c-etcd".to_owned()],
        kubeconfig_due: true,
        ..MaterialState::default()
    });
    assert_eq!(made(&seen), []);
    let said = reported(&seen);
    let message = message_of(&said, "ScalingUp");
    assert!(
        message.contains("c-ca, c-etcd") && message.contains("/etc/kubernetes/pki"),
        "{message}"
    );
}

#[test]
fn everything_that_is_in_the_way_is_said_at_once() {
    let all = [
        Foreign {
            owner: Some("KubeadmControlPlane other".to_owned()),
            ..orphan("owned")
        },
        Foreign {
            version: "v1.34.9".to_owned(),
            is_deleting: true,
            ..orphan("old")
        },
        Foreign {
            version: String::new(),
            config: None,
            ..orphan("bare")
        },
        Foreign {
            config: Some(("x.io".to_owned(), "OtherConfig".to_owned())),
            ..orphan("odd")
        },
        Foreign {
            version: "v1.37.2".to_owned(),
            ..orphan("near")
        },
    ];
    let refused = judge(&desired(3), &all, &MaterialState::default()).refused;
    let about = |name: &str| {
        refused
            .iter()
            .filter(|why| why.starts_with(&format!("Machine {name}:")))
            .count()
    };
    assert_eq!(
        ["owned", "old", "bare", "odd", "near"].map(about),
        [1, 2, 2, 1, 0],
        "{refused:#?}"
    );
    let mut seen = observed(3);
    seen.connected = true;
    seen.foreign = all.to_vec();
    assert!(
        !decide(&seen, now())
            .steps
            .iter()
            .any(|step| matches!(step, Step::AdoptMachine { .. }))
    );
}
