//! What is a violation and what is none, where that depends on who did what, and when.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{Patch, Resource};
use serde_json::{Value, json};

use super::{RECONCILE, STALE};
use crate::fault::Rates;
use crate::object::{key, uid};
use crate::scenario::{DEPLOYMENT, NAMESPACE, Plan};
use crate::world::{Actor, Server, State, World, Write};

/// A MachineDeployment of three machines that may have one more and must keep three.
fn world() -> Arc<World> {
    let world = World::new(1, Rates::default());
    world.lock().found(&Plan {
        replicas: 3,
        limits: (1, 0),
        steps: Vec::new(),
        ..Plan::of(1)
    });
    world
}

fn creates(state: &mut State, actor: Actor, resource: &Resource, object: &Value) -> Value {
    let key = ObjectKey::new(NAMESPACE, crate::object::name(object));
    let write = Write {
        actor,
        by: "test",
        verb: "create",
        resource,
        key: &key,
    };
    let effect =
        |store: &mut crate::store::Store, now: &str| store.create(resource, NAMESPACE, object, now);
    state.write(&Server::Management, &write, effect).unwrap()
}

fn patches(
    state: &mut State,
    actor: Actor,
    verb: &'static str,
    resource: &Resource,
    name: &str,
    patch: Value,
) {
    let key = ObjectKey::new(NAMESPACE, name);
    let write = Write {
        actor,
        by: "test",
        verb,
        resource,
        key: &key,
    };
    let part = (verb == "patch-status").then_some("status");
    let patch = Patch::Merge(patch);
    let effect =
        |store: &mut crate::store::Store, _: &str| store.patch(resource, &key, part, &patch);
    state.write(&Server::Management, &write, effect).unwrap();
}

fn deletes(state: &mut State, machine: &Value) {
    let key = key(machine);
    let write = Write {
        actor: Actor::Host,
        by: "test",
        verb: "delete",
        resource: &kinds::MACHINE,
        key: &key,
    };
    let none = capstan_controllers::kube_api::Preconditions::default();
    let effect = |store: &mut crate::store::Store, now: &str| {
        store.delete(&kinds::MACHINE, &key, &none, now, 0)
    };
    state.write(&Server::Management, &write, effect).unwrap();
}

fn set(state: &mut State, name: &str, replicas: u32) -> Value {
    let object = json!({
        "metadata": {"name": name, "labels": {"cluster.x-k8s.io/deployment-name": DEPLOYMENT}},
        "spec": {"clusterName": "c", "replicas": replicas},
    });
    creates(state, Actor::Host, &kinds::MACHINE_SET, &object)
}

fn machine(state: &mut State, set: &Value, name: &str) -> Value {
    let object = json!({
        "metadata": {
            "name": name,
            "finalizers": ["test/held"],
            "labels": {
                "cluster.x-k8s.io/deployment-name": DEPLOYMENT,
                "cluster.x-k8s.io/set-name": crate::object::name(set),
            },
            "ownerReferences": [{
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineSet", "name": crate::object::name(set),
                "uid": uid(set), "controller": true,
            }],
        },
        "spec": {"clusterName": "c"},
    });
    let made = creates(state, Actor::Host, &kinds::MACHINE, &object);
    state.host_learns(&made);
    made
}

fn becomes_available(state: &mut State, machine: &Value) {
    let status = json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}});
    let name = crate::object::name(machine);
    patches(
        state,
        Actor::Host,
        "patch-status",
        &kinds::MACHINE,
        name,
        status,
    );
}

fn replicas(state: &mut State, actor: Actor, resource: &Resource, name: &str, replicas: u32) {
    let patch = json!({"spec": {"replicas": replicas}});
    patches(state, actor, "patch", resource, name, patch);
}

#[tokio::test(start_paused = true)]
async fn sets_are_not_told_to_have_more_than_the_ceiling() {
    let world = world();
    let mut state = world.lock();
    let old = set(&mut state, "a", 3);
    set(&mut state, "b", 1);
    machine(&mut state, &old, "a-1");
    assert_eq!(state.watchman.violations(), [""; 0]);
    replicas(&mut state, Actor::Host, &kinds::MACHINE_SET, "b", 2);
    let said = state.watchman.violations().join("; ");
    assert!(
        said.contains("could then have 5 Machines, at most 4"),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn machines_that_still_have_to_go_count_when_another_set_is_told_to_have_more() {
    let world = world();
    let old = set(&mut world.lock(), "a", 3);
    for name in ["a-1", "a-2", "a-3"] {
        machine(&mut world.lock(), &old, name);
    }
    tokio::time::advance(RECONCILE + Duration::from_secs(1)).await;
    let mut state = world.lock();
    replicas(&mut state, Actor::Host, &kinds::MACHINE_SET, "a", 1);
    set(&mut state, "b", 1);
    assert_eq!(state.watchman.violations(), [""; 0]);
    replicas(&mut state, Actor::Host, &kinds::MACHINE_SET, "b", 2);
    assert_eq!(state.watchman.violations().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_set_may_make_up_to_what_it_was_told_before_people_wanted_fewer() {
    let world = world();
    let (old, new) = {
        let mut state = world.lock();
        (set(&mut state, "a", 3), set(&mut state, "b", 1))
    };
    let of_deployment = &*kinds::MACHINE_DEPLOYMENT;
    replicas(&mut world.lock(), Actor::User, of_deployment, DEPLOYMENT, 1);
    tokio::time::advance(STALE * 2).await;
    // The next look at the deployment: the wish before this one is too old for any decision now.
    replicas(&mut world.lock(), Actor::User, of_deployment, DEPLOYMENT, 2);
    tokio::time::advance(STALE * 2).await;
    let mut state = world.lock();
    for name in ["a-1", "a-2", "a-3"] {
        machine(&mut state, &old, name);
    }
    machine(&mut state, &new, "b-1");
    assert_eq!(state.watchman.violations(), [""; 0]);
    machine(&mut state, &new, "b-2");
    let said = state.watchman.violations().join("; ");
    assert!(said.contains("has 5 Machines, at most 4"), "{said}");
    assert!(said.contains("it never wanted more than 1"), "{said}");
}

/// A set that replaced a machine, and the machine that it lets go when it is told to have one less.
async fn replaced(mark: Option<Actor>) -> Vec<String> {
    let world = world();
    let (one, old) = {
        let mut state = world.lock();
        let old = set(&mut state, "a", 4);
        let machines = ["a-1", "a-2", "a-3"].map(|name| machine(&mut state, &old, name));
        for machine in &machines {
            becomes_available(&mut state, machine);
        }
        if let Some(actor) = mark {
            let marked = json!({"metadata": {"annotations": {annotation::DELETE_MACHINE: "yes"}}});
            patches(&mut state, actor, "patch", &kinds::MACHINE, "a-1", marked);
        }
        let [one, ..] = machines;
        (one, old)
    };
    tokio::time::advance(STALE * 2).await;
    let mut state = world.lock();
    machine(&mut state, &old, "a-4");
    deletes(&mut state, &one);
    state.watchman.violations().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_people_marked_may_go_instead_of_one_that_was_just_made() {
    let floor = |said: &Vec<String>| {
        said.iter()
            .any(|what| what.contains("at least 3 must stay"))
    };
    assert!(!floor(&replaced(Some(Actor::User)).await));
    assert!(floor(&replaced(Some(Actor::Host)).await));
    assert!(floor(&replaced(None).await));
}
