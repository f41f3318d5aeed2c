//! Control planes of Machines with an etcd on each of them, in worlds of the real controllers: what runs on the machines, what the
//! members are asked, and what must be true of every step.

mod check;
mod client;
mod deed;
mod nature;
mod plugin;
mod snapshot;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::label;
use capstan_api::name::ObjectKey;
use capstan_controllers::kinds;
use capstan_controllers::kube_api::Resource;
use serde_json::{Value, json};

use crate::cloud::Phase;
use crate::kinds as sim;
use crate::membership::{Member, Membership};
use crate::object::{flag, is_deleting, label as label_of, name};
use crate::random::Random;
use crate::scenario::CLUSTER;
use crate::world::State;
use check::Look;
use snapshot::Shelf;

pub use client::SimulatedEtcd;
pub use deed::Trouble;
pub use plugin::{SimulatedBootstrap, SimulatedControlPlane};
pub use snapshot::{KEEP as SNAPSHOTS_KEPT, SnapshotPlace};

pub(crate) use nature::live;

/// Name of the machines' template, and of their health check.
const TEMPLATE: &str = "cp";

/// How long connections outlive the majority of etcd, in seconds.
const LINGERS: u64 = 40;

/// What is true of a machine of the control plane beside its instance.
#[derive(Clone, Debug)]
struct Body {
    /// It makes the cluster; others join it.
    founds: bool,
    /// When its next step is due, in seconds: joining, catching up.
    due: Option<u64>,
    /// Its member was added.
    joined: bool,
    /// Its member has a vote.
    votes: bool,
    /// Its kubelet makes a Node.
    node: bool,
    /// It has made it.
    registered: bool,
    /// Its Node comes after its member has a vote; else before.
    node_last: bool,
    /// Its member never catches up.
    is_stuck: bool,
    /// Off, or cut off from all others, until then.
    off_until: u64,
    /// Does its part and does not answer the host until then.
    mute_until: u64,
    /// Its member stands still until then.
    member_off_until: u64,
    /// Since when nobody hears of its kubelet.
    silent_since: Option<u64>,
}

/// A control plane with what is true of its etcd.
#[derive(Debug)]
pub struct Stacked {
    etcd: Membership,
    /// By name of the Machine, which is that of the Node and of the member.
    bodies: BTreeMap<String, Body>,
    luck: Random,
    is_founded: bool,
    next_is_stuck: bool,
    look: Look,
    /// Machines that were wanted, and since when.
    wanted: Vec<(Duration, usize)>,
    /// Members that the host removed.
    removed: u64,
    /// Where snapshots are, if the operator wants them.
    shelf: Option<Shelf>,
}

impl Stacked {
    /// One that nobody has begun to make, of an operator who wants snapshots or not.
    #[must_use]
    pub fn new(random: &Random, keeps_snapshots: bool) -> Self {
        Self {
            etcd: Membership::default(),
            bodies: BTreeMap::new(),
            luck: random.fork(5),
            is_founded: false,
            next_is_stuck: false,
            look: Look::default(),
            wanted: Vec::new(),
            removed: 0,
            shelf: keeps_snapshots.then(Shelf::default),
        }
    }

    /// An instance was made with this bootstrap data.
    pub fn instance_made(&mut self, machine: &str, data: &str) {
        if !matches!(data, plugin::INIT | plugin::JOIN) {
            return;
        }
        let body = Body {
            founds: data == plugin::INIT,
            due: None,
            joined: false,
            votes: false,
            node: false,
            registered: false,
            node_last: self.luck.happens(500),
            is_stuck: std::mem::take(&mut self.next_is_stuck),
            off_until: 0,
            mute_until: 0,
            member_off_until: 0,
            silent_since: None,
        };
        self.bodies.insert(machine.to_owned(), body);
    }

    /// Members that the host removed.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }
}

/// The objects that people make for a control plane.
#[must_use]
pub fn objects(replicas: u32) -> Vec<(&'static Resource, Value)> {
    let condition = |condition: &str, status: &str| json!({"type": condition, "status": status, "timeoutSeconds": 300});
    vec![
        (
            &*sim::SIM_STACKED_CONTROL_PLANE,
            json!({"metadata": {"name": CLUSTER}, "spec": {
                "replicas": replicas, "version": "v1.36.0", "settings": 0,
                "machineTemplate": {"spec": {"infrastructureRef": {"kind": "SimMachineTemplate", "name": TEMPLATE}}},
            }}),
        ),
        (
            &*sim::SIM_MACHINE_TEMPLATE,
            json!({"metadata": {"name": TEMPLATE}, "spec": {"template": {"spec": {}}}}),
        ),
        (
            &*kinds::MACHINE_HEALTH_CHECK,
            json!({"metadata": {"name": TEMPLATE}, "spec": {
                "clusterName": CLUSTER,
                "selector": {"matchLabels": {label::CONTROL_PLANE: ""}},
                "checks": {
                    "nodeStartupTimeoutSeconds": 1200,
                    "unhealthyNodeConditions": [condition("Ready", "Unknown"), condition("Ready", "False")],
                    "unhealthyMachineConditions": [condition("EtcdMemberHealthy", "False")],
                },
                "remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": "100%"}},
            }}),
        ),
    ]
}

/// Whether a Machine is of the control plane.
fn is_control_plane(machine: &Value) -> bool {
    label_of(machine, label::CONTROL_PLANE).is_some()
}

impl State {
    fn seconds(&self) -> u64 {
        self.now().as_secs()
    }

    fn body(&self, machine: &str) -> Option<&Body> {
        self.stacked.as_ref()?.bodies.get(machine)
    }

    /// Whether this is a machine of the control plane: its Node is not like others.
    #[must_use]
    pub fn is_body(&self, machine: &str) -> bool {
        self.body(machine).is_some()
    }

    /// Whether a machine of the control plane runs and reaches the others.
    fn is_up(&self, machine: &str) -> bool {
        let mut instances = self.cloud.instances.values();
        self.body(machine)
            .is_some_and(|body| body.off_until <= self.seconds())
            && instances.any(|own| own.name == machine && own.phase == Phase::Running)
    }

    /// Whether a member does its part.
    fn works(&self, member: &Member) -> bool {
        let body = self.body(&member.machine);
        member.started
            && self.is_up(&member.machine)
            && body.is_some_and(|body| body.member_off_until <= self.seconds())
    }

    /// Whether the host reaches what runs on a machine: through its kubelet, of which its Node tells.
    fn is_reached(&self, machine: &str) -> bool {
        let node = ObjectKey::new("", machine);
        let mut workloads = self.workloads.values();
        let body = self.body(machine);
        self.is_up(machine)
            && body.is_some_and(|body| body.mute_until <= self.seconds())
            && workloads.any(|workload| workload.store.get(&kinds::NODE, &node).is_ok())
    }

    fn has_quorum(&self) -> bool {
        let stacked = self.stacked.as_ref();
        stacked.is_none_or(|stacked| stacked.etcd.has_quorum(|member| self.works(member)))
    }

    /// Whether etcd answers: a majority has elected a leader.
    fn etcd_answers(&self) -> bool {
        let stacked = self.stacked.as_ref();
        stacked.is_none_or(|stacked| stacked.etcd.leader.is_some() && self.has_quorum())
    }

    /// Whether the workload cluster takes writes: always, where its etcd is nobody's concern.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        let stacked = self.stacked.as_ref();
        stacked.is_none_or(|stacked| self.etcd_answers() && stacked.etcd.has_space())
    }

    /// Whether an API server runs.
    fn has_server(&self) -> bool {
        let serves = |stacked: &Stacked| {
            let mut members = stacked.etcd.members.iter();
            members.any(|member| !member.learner && self.is_up(&member.machine))
        };
        self.stacked.as_ref().is_none_or(serves)
    }

    /// Whether no API server of the workload cluster answers anything.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        !self.has_server()
    }

    /// What an API server says instead of an answer, while its etcd does not do what is asked.
    #[must_use]
    pub fn etcd_refusal(&self, is_write: bool) -> Option<&'static str> {
        let stacked = self.stacked.as_ref()?;
        let lost = stacked.etcd.lost_since.map(|since| self.seconds() - since);
        if lost.is_some_and(|lost| lost >= LINGERS) || (is_write && !self.etcd_answers()) {
            return Some("etcdserver: request timed out");
        }
        (is_write && !stacked.etcd.has_space())
            .then_some("etcdserver: mvcc: database space exceeded")
    }

    /// Machines of the control plane.
    fn own_machines(&self) -> impl Iterator<Item = &Value> {
        let all = self.management.all(&kinds::MACHINE);
        all.map(|machine| &**machine)
            .filter(|machine| is_control_plane(machine))
    }

    /// Whether the control plane is to go, with all that belongs to it.
    fn is_plane_going(&self) -> bool {
        let plane = self.management.all(&sim::SIM_STACKED_CONTROL_PLANE).next();
        let cluster = self.management.all(&kinds::CLUSTER).next();
        let goes = |object: Option<&Arc<Value>>| object.is_none_or(|it| is_deleting(it));
        goes(plane) || goes(cluster)
    }

    /// Whether the control plane has been up, and it is known: before, the first machine may be given up, and another one begins anew.
    fn is_plane_up(&self) -> bool {
        let mut planes = self.management.all(&sim::SIM_STACKED_CONTROL_PLANE);
        planes.any(|plane| flag(plane, "/status/initialization/controlPlaneInitialized"))
    }

    /// Names of Machines of the control plane that go.
    fn going_bodies(&self) -> Vec<String> {
        let going = self.own_machines().filter(|machine| is_deleting(machine));
        going.map(|machine| name(machine).to_owned()).collect()
    }
}
