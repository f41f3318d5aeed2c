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

#[test]
fn machines_of_nobody_are_taken_over_before_anything_else_happens() {
    let mut seen = observed(3);
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
    assert!(decide(&seen, now()).steps.is_empty());
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
    let refused = judge(&desired(3), &all, &[]).refused;
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
    seen.foreign = all.to_vec();
    assert!(
        !decide(&seen, now())
            .steps
            .iter()
            .any(|step| matches!(step, Step::AdoptMachine { .. }))
    );
}
