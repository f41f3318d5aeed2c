//! Whole rollouts told step by step: `version desired/actual/available` of each set after everybody has moved once.

use capstan_core::call::strategy::{Answer, Facts};
use serde_json::json;

use super::oracle;
use super::world::World;

/// Lets everybody move once: the deployment, its sets, the clouds. Until nothing changes any more.
fn tell(world: &mut World, strategy: fn(&Facts) -> Answer) -> String {
    let mut story = vec![world.picture()];
    for _ in 0..50 {
        world.reconcile_deployment(&mut { strategy }, None);
        world.reconcile_sets();
        let moved = world.picture();
        world.deleted_machines_go();
        world.all_become_available();
        world.pass_time(60);
        if story.last() != Some(&moved) {
            story.push(moved);
        }
    }
    story.join("\n")
}

#[test]
fn three_machines_one_more_at_a_time() {
    let mut world = World::settled(3, 1, 0);
    world.change_version("v1.36.0");
    let story = tell(&mut world, oracle::rolling_update);
    assert_eq!(story, include_str!("stories/surge_1.txt").trim_end());
    assert!(world.is_done());
}

#[test]
fn three_machines_one_less_at_a_time() {
    let mut world = World::settled(3, 0, 1);
    world.change_version("v1.36.0");
    let story = tell(&mut world, oracle::rolling_update);
    assert_eq!(story, include_str!("stories/unavailable_1.txt").trim_end());
    assert!(world.is_done());
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = World::settled(2, 1, 0);
    world.deployment_mut()["spec"]["rollout"] = json!({"strategy": {"type": "OnDelete"}});
    world.change_version("v1.36.0");
    tell(&mut world, oracle::on_delete);
    assert_eq!(world.picture(), "v1.35.0 2/2/2  v1.36.0 0/0/0");
    let disabled = world.sets().values().filter(|set| {
        set["metadata"]["annotations"]["cluster.x-k8s.io/disable-machine-create"] == "true"
    });
    assert_eq!(disabled.count(), 1);
    world.delete_machine_of("v1.35.0");
    let story = tell(&mut world, oracle::on_delete);
    assert_eq!(world.picture(), "v1.35.0 1/1/1  v1.36.0 1/1/1", "{story}");
    world.delete_machine_of("v1.35.0");
    tell(&mut world, oracle::on_delete);
    assert!(world.is_done(), "{}", world.picture());
}

#[test]
fn a_rollback_finds_the_old_set_and_gives_it_a_new_revision() {
    let mut world = World::settled(3, 1, 0);
    world.change_version("v1.36.0");
    world.reconcile_deployment(&mut oracle::rolling_update, None);
    world.reconcile_sets();
    world.change_version("v1.35.0");
    tell(&mut world, oracle::rolling_update);
    assert!(world.is_done(), "{}", world.picture());
    let set = world.sets().values().next().expect("one set");
    let annotations = &set["metadata"]["annotations"];
    assert_eq!(
        annotations["machinedeployment.clusters.x-k8s.io/revision"],
        "3"
    );
    assert_eq!(
        annotations["machinedeployment.clusters.x-k8s.io/revision-history"],
        "1"
    );
}

#[test]
fn labels_and_timeouts_change_in_place() {
    let mut world = World::settled(2, 1, 0);
    let before: Vec<String> = world.machine_values().keys().cloned().collect();
    let template = &mut world.deployment_mut()["spec"]["template"];
    template["metadata"] = json!({"labels": {"tier": "b"}, "annotations": {"note": "x"}});
    template["spec"]["deletion"] = json!({"nodeDrainTimeoutSeconds": 7});
    tell(&mut world, oracle::rolling_update);
    assert!(world.is_done(), "{}", world.picture());
    assert_eq!(
        world.machine_values().keys().cloned().collect::<Vec<_>>(),
        before
    );
    for machine in world.machine_values().values() {
        let metadata = &machine["metadata"];
        assert_eq!(metadata["labels"]["tier"], "b");
        assert_eq!(metadata["annotations"]["note"], "x");
        assert!(
            metadata["labels"]["team"].is_null(),
            "the old label left the template: {metadata}"
        );
        assert_eq!(machine["spec"]["deletion"]["nodeDrainTimeoutSeconds"], 7);
    }
}

#[test]
fn a_rollout_in_the_future_begins_when_its_time_has_come() {
    let mut world = World::settled(2, 1, 0);
    let before: Vec<String> = world.machine_values().keys().cloned().collect();
    world.deployment_mut()["spec"]["rollout"]["after"] = json!("2026-06-01T01:00:00Z");
    world.reconcile_deployment(&mut oracle::rolling_update, None);
    assert_eq!(world.sets().len(), 1);
    world.pass_time(3600);
    tell(&mut world, oracle::rolling_update);
    assert!(world.is_done(), "{}", world.picture());
    assert!(
        world
            .machine_values()
            .keys()
            .all(|name| !before.contains(name))
    );
}

#[test]
fn a_paused_deployment_scales_and_makes_no_new_set() {
    let mut world = World::settled(3, 1, 0);
    world.deployment_mut()["spec"]["paused"] = json!(true);
    world.change_version("v1.36.0");
    world.scale(5);
    tell(&mut world, |_| panic!("nobody is asked"));
    assert_eq!(world.picture(), "v1.35.0 5/5/5");
}
