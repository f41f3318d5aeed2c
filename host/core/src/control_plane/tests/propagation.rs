//! Cases of what reaches existing machines in place, and is taken back.

use super::*;

fn patches(seen: &Observed) -> Vec<(MemberPart, Value)> {
    let steps = sync::patches(seen, &seen.members[0], "c").into_iter();
    let patches = steps.filter_map(|step| match step {
        Step::Patch { part, patch, .. } => Some((part, patch)),
        _ => None,
    });
    patches.collect()
}

/// A machine with an infrastructure machine that has the labels of the host.
fn with_infra(labels: &Value) -> Observed {
    let mut seen = running(1, vec![member("a", "a")]);
    let mut all = json!({
        label::CLUSTER_NAME: "c", label::CONTROL_PLANE: "", label::CONTROL_PLANE_NAME: "cp",
    });
    for (name, value) in labels.as_object().unwrap() {
        all[name] = value.clone();
    }
    seen.members[0].infra = Lookup::Found(json!({"metadata": {"labels": all}}).into());
    seen
}

#[test]
fn settings_reach_existing_machines_in_place() {
    let mut seen = with_infra(&json!({}));
    let mut wanted = desired(1);
    wanted.machine_labels = vec![("tier".to_owned(), "silver".to_owned())];
    wanted.machine_annotations = [("note", "x"), (annotation::HOOKS, "{}")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    wanted.deletion = json!({"nodeDrainTimeoutSeconds": 30});
    wanted.readiness_gates = json!([{"conditionType": "Mine"}]);
    wanted.taints = json!([{"key": "k", "effect": "NoSchedule", "propagation": "Always"}]);
    seen.desired = Ok(wanted.clone());
    let machine = json!({
        "metadata": {"labels": {"tier": "silver"}, "annotations": {"note": "x", PROPAGATED: propagated(&["tier"], &["note"])}},
        "spec": {
            "deletion": {"nodeDrainTimeoutSeconds": 30}, "readinessGates": [{"conditionType": "Mine"}],
            "taints": wanted.taints,
        },
    });
    let infra = json!({"metadata": {"labels": {"tier": "silver"}, "annotations": {"note": "x"}}});
    assert_eq!(
        patches(&seen),
        [(MemberPart::Infra, infra), (MemberPart::Machine, machine)],
        "the machine remembers last what was passed on"
    );
    seen.members[0] = deleting(seen.members[0].clone());
    let going = json!({"spec": {
        "deletion": {"nodeDrainTimeoutSeconds": 30}, "taints": wanted.taints,
    }});
    assert_eq!(patches(&seen), [(MemberPart::Machine, going)]);
}

#[test]
fn the_hook_that_holds_a_machine_until_its_member_has_left_is_put_back() {
    let mut seen = with_infra(&json!({"tier": "gold"}));
    let annotations = &mut seen.members[0].machine.metadata.annotations;
    annotations
        .as_mut()
        .unwrap()
        .remove(annotation::KCP_CLEANUP_HOOK);
    let put_back = json!({"metadata": {"annotations": {annotation::KCP_CLEANUP_HOOK: ""}}});
    assert_eq!(patches(&seen), [(MemberPart::Machine, put_back)]);
    seen.members[0] = deleting(seen.members[0].clone());
    assert_eq!(patches(&seen), [], "one that goes was let go");
}

#[test]
fn what_the_control_plane_gave_is_taken_back_and_nothing_else() {
    let mut seen = with_infra(&json!({"tier": "gold", "mine": "x"}));
    let machine = &mut seen.members[0].machine;
    let labels = machine.metadata.labels.as_mut().unwrap();
    labels.insert("mine".to_owned(), "x".to_owned());
    let annotations = machine.metadata.annotations.as_mut().unwrap();
    annotations.insert("note".to_owned(), "x".to_owned());
    annotations.insert("mine".to_owned(), "x".to_owned());
    annotations.insert(PROPAGATED.to_owned(), propagated(&["tier"], &["note"]));
    machine.spec.deletion = Some(
        serde_json::from_value(json!({
            "nodeDrainTimeoutSeconds": 30, "nodeVolumeDetachTimeoutSeconds": 5, "nodeDeletionTimeoutSeconds": 60,
        }))
        .unwrap(),
    );
    machine.spec.taints = serde_json::from_value(
        json!([{"key": "k", "effect": "NoSchedule", "propagation": "Always"}]),
    )
    .unwrap();
    let mut wanted = desired(1);
    wanted.machine_labels.clear();
    wanted.readiness_gates = json!([]);
    seen.desired = Ok(wanted);
    let machine = json!({
        "metadata": {"labels": {"tier": null}, "annotations": {"note": null}},
        "spec": {
            "deletion": {
                "nodeDrainTimeoutSeconds": null, "nodeVolumeDetachTimeoutSeconds": null, "nodeDeletionTimeoutSeconds": 10,
            },
            "readinessGates": null, "taints": null,
        },
    });
    let infra = json!({"metadata": {"labels": {"tier": null}}});
    assert_eq!(
        patches(&seen),
        [(MemberPart::Infra, infra), (MemberPart::Machine, machine)],
        "the infrastructure machine may be refused"
    );
    seen.members[0].infra = with_infra(&json!({"mine": "x"})).members[0].infra.clone();
    let machine = patches(&seen).pop().unwrap().1;
    assert_eq!(
        machine["metadata"]["annotations"],
        json!({"note": null, PROPAGATED: null}),
        "nothing is left to be taken back"
    );
}
