//! What goes on by itself on the machines of a control plane: elections, members that join, Nodes, static pods.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use serde_json::{Value, json};

use super::plugin::{CONFIGURED, PODS, SYSTEM};
use super::{Body, Stacked};
use crate::membership::Membership;
use crate::nature::{ready, workload};
use crate::object::{is_condition, text};
use crate::scenario::{CLUSTER, NAMESPACE};
use crate::world::{Server, State};

/// How soon everybody knows of a kubelet that does not answer, in seconds.
const NODE_GRACE: u64 = 40;

/// What came of a second.
enum News {
    /// This is to be noted.
    Note(String),
    /// The cluster has begun.
    Founded,
    /// This must not be.
    Wrong(String),
}

/// One second of a control plane.
pub(crate) fn live(state: &mut State) {
    let Some(stacked) = &state.stacked else {
        return;
    };
    let names = stacked.bodies.keys();
    let up: BTreeSet<String> = names.filter(|name| state.is_up(name)).cloned().collect();
    let members = stacked.etcd.members.iter();
    let working = members.filter(|member| state.works(member));
    let working: Vec<u64> = working.map(|member| member.id).collect();
    let (now, going) = (state.seconds(), state.going_bodies());
    let (takes_writes, is_plane_up) = (state.takes_writes(), state.is_plane_up());
    let Some(stacked) = &mut state.stacked else {
        return;
    };
    let mut news = Vec::new();
    if stacked.is_founded
        && let Some(leader) = stacked.etcd.elect(now, &working, &mut stacked.luck)
    {
        news.push(News::Note(format!("etcd: member {leader:x} leads")));
    }
    for name in up.iter().filter(|name| !going.contains(name)) {
        stacked.step(name, now, (takes_writes, is_plane_up), &mut news);
    }
    for news in news {
        match news {
            News::Note(words) => state.note(&words),
            News::Wrong(what) => state.violated(what),
            News::Founded => found(state),
        }
    }
    if state.stacked.as_ref().is_some_and(|own| own.is_founded) && state.takes_writes() {
        nodes(state, &up);
    }
}

impl Stacked {
    /// What a machine that runs does next.
    fn step(
        &mut self,
        name: &str,
        now: u64,
        (takes_writes, is_plane_up): (bool, bool),
        news: &mut Vec<News>,
    ) {
        let Some(mut body) = self.bodies.get(name).cloned() else {
            return;
        };
        if body.member_off_until > now || (body.votes && body.node) {
            return;
        }
        let soon = self.luck.between(2, 30);
        let due = *body.due.get_or_insert(now + soon);
        if due <= now {
            body.due = None;
            if body.founds {
                self.found(name, &mut body, is_plane_up, news);
            } else if takes_writes {
                self.join(name, &mut body, now, news);
            }
        }
        self.bodies.insert(name.to_owned(), body);
    }

    fn found(&mut self, name: &str, body: &mut Body, is_plane_up: bool, news: &mut Vec<News>) {
        if body.votes {
            body.node = true;
        } else if self.is_founded && is_plane_up {
            body.node = true;
            body.votes = true;
            news.push(News::Wrong(format!(
                "Machine {name} makes a second cluster"
            )));
        } else {
            self.etcd = Membership::default();
            self.etcd.add(name, true);
            self.is_founded = true;
            body.joined = true;
            body.votes = true;
            news.push(News::Note(format!("etcd: {name} begins")));
            news.push(News::Founded);
        }
    }

    fn join(&mut self, name: &str, body: &mut Body, now: u64, news: &mut Vec<News>) {
        if !body.node && (!body.node_last || body.votes) {
            body.node = true;
            return;
        }
        let has_learner = self.etcd.members.iter().any(|member| member.learner);
        match self.etcd.of_mut(name) {
            // etcd takes one member at a time.
            None if !body.joined && !has_learner => {
                self.etcd.add(name, false);
                body.joined = true;
                news.push(News::Note(format!("etcd: {name} joins")));
            }
            Some(member) if !member.started => {
                member.started = true;
                body.due = Some(now + self.luck.between(5, 60));
            }
            Some(member) if member.learner && !body.is_stuck => {
                member.learner = false;
                body.votes = true;
                news.push(News::Note(format!("etcd: {name} has a vote")));
            }
            _ => {}
        }
    }
}

fn server() -> Server {
    Server::Workload(ObjectKey::new(NAMESPACE, CLUSTER))
}

/// The API server of a cluster that has begun.
fn found(state: &mut State) {
    let cluster = ObjectKey::new(NAMESPACE, CLUSTER);
    let mut workload = workload(&cluster);
    workload.store.serve(&kinds::SECRET, false);
    workload.store.serve(&kinds::CONFIG_MAP, false);
    state.workloads.insert(cluster, workload);
    let system = json!({"metadata": {"name": SYSTEM}});
    let configured = json!({"metadata": {"name": CONFIGURED}});
    for (resource, namespace, object) in [
        (&*kinds::NAMESPACE, "", system),
        (&*kinds::CONFIG_MAP, SYSTEM, configured),
    ] {
        let key = ObjectKey::new(namespace, crate::object::name(&object));
        state.nature_writes(
            &server(),
            "kubeadm",
            "create",
            resource,
            &key,
            |store, now| store.create(resource, namespace, &object, now),
        );
    }
}

/// Nodes and static pods are as their kubelets say, or as everybody knows of those that say nothing.
fn nodes(state: &mut State, up: &BTreeSet<String>) {
    let now = state.seconds();
    let Some(stacked) = &mut state.stacked else {
        return;
    };
    let mut due = Vec::new();
    for (name, body) in &mut stacked.bodies {
        if !body.node {
            continue;
        }
        let is_new = !std::mem::replace(&mut body.registered, true);
        if up.contains(name) {
            body.silent_since = None;
        } else {
            body.silent_since.get_or_insert(now);
        }
        let silent = body.silent_since.map(|since| now - since);
        let runs =
            stacked.etcd.of(name).is_some_and(|own| !own.learner) && body.member_off_until <= now;
        match silent {
            None => due.push((name.clone(), is_new, "True", runs)),
            Some(silent) if silent >= NODE_GRACE => {
                due.push((name.clone(), is_new, "Unknown", false));
            }
            Some(_) => {}
        }
    }
    for (name, is_new, status, runs) in due {
        if is_new {
            register(state, &name);
        }
        let node = ObjectKey::new("", name.clone());
        let cluster = ObjectKey::new(NAMESPACE, CLUSTER);
        let Ok(found) = state.workloads[&cluster].store.get(&kinds::NODE, &node) else {
            continue;
        };
        if !is_condition(&found, "Ready", status) {
            let ready = ready(status, &state.now_text());
            let by = "kubelet";
            state.nature_patches(&server(), by, &kinds::NODE, &node, Some("status"), ready);
        }
        for (component, _) in PODS {
            let needs_etcd = ["etcd", "kube-apiserver"].contains(&component);
            let is_ready = status == "True" && (runs || !needs_etcd);
            say(state, &format!("{component}-{name}"), is_ready);
        }
    }
}

/// A new Node with its static pods.
fn register(state: &mut State, name: &str) {
    let mut instances = state.cloud.instances.values();
    let id = instances.find(|own| own.name == name);
    let id = id.map(|own| own.id.clone()).unwrap_or_default();
    let node = json!({
        "metadata": {"name": name, "labels": {label::NODE_ROLE_CONTROL_PLANE: ""}},
        "spec": {"providerID": id},
    });
    let pods = PODS.map(|(component, _)| {
        json!({
            "metadata": {
                "name": format!("{component}-{name}"),
                "annotations": {"kubernetes.io/config.mirror": "static"},
            },
            "spec": {"nodeName": name, "containers": [{"name": "c", "image": "i"}]},
        })
    });
    let objects = std::iter::once((&*kinds::NODE, "", node));
    for (resource, namespace, object) in objects.chain(pods.map(|pod| (&*kinds::POD, SYSTEM, pod)))
    {
        let key = ObjectKey::new(namespace, crate::object::name(&object));
        state.nature_writes(
            &server(),
            "kubelet",
            "create",
            resource,
            &key,
            |store, now| store.create(resource, namespace, &object, now),
        );
    }
}

/// Has a static pod be ready or not.
fn say(state: &mut State, pod: &str, is_ready: bool) {
    let key = ObjectKey::new(SYSTEM, pod);
    let cluster = ObjectKey::new(NAMESPACE, CLUSTER);
    let found: Result<Arc<Value>, _> = state.workloads[&cluster].store.get(&kinds::POD, &key);
    let status = if is_ready { "True" } else { "False" };
    let is_said =
        |pod: &Value| text(pod, "/status/phase") == "Running" && is_condition(pod, "Ready", status);
    if found.is_ok_and(|pod| !is_said(&pod)) {
        let status = json!({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": status}],
        }});
        let by = "kubelet";
        state.nature_patches(&server(), by, &kinds::POD, &key, Some("status"), status);
    }
}
