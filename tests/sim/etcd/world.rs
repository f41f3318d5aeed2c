//! What is true of a control plane: its Machines, what runs on them, and the members of its etcd.

use std::collections::BTreeSet;
use std::time::Duration;

use capstan_api::condition::{self, Report};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::observe::timestamp;
use crate::membership::{Member, Membership};
use crate::random::Random;
use crate::trace::Trace;

/// How soon everybody knows of a kubelet that does not answer: its Node is Unknown and its pods count as not ready.
pub const KUBELET_MISSED_AFTER: u64 = 40;

/// How long connections outlive the majority of etcd, in seconds.
const LINGERS: u64 = 40;

/// What runs, or not, in place of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Starts, until then.
    Boots(u64),
    /// Runs.
    Up,
    /// Is broken, or off.
    Down,
    /// The cloud has it no more.
    Gone,
}

/// A Machine of the control plane, with what is true of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Its name, and those of its Node and its member.
    pub name: String,
    /// UID.
    pub uid: String,
    /// When it was made.
    pub created: u64,
    /// Version of Kubernetes.
    pub version: String,
    /// Failure domain.
    pub domain: String,
    /// The annotation of the remediation that it was made for.
    pub remediation_for: Option<String>,
    /// The host holds its termination.
    pub hook: bool,
    /// When its deletion began.
    pub deleted: Option<u64>,
    /// It has a Node.
    pub node: bool,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// What runs.
    pub body: Body,
    /// Cut off from all others until then.
    pub isolated_until: u64,
    /// Does not answer the host in time until then.
    pub slow_until: u64,
    /// Its member stands still until then.
    pub member_off_until: u64,
    /// Its API server stands still until then.
    pub server_off_until: u64,
    /// Since when its kubelet is dead.
    pub kubelet_dead_since: Option<u64>,
    /// Somebody has deleted its Node by hand.
    pub is_node_dropped: bool,
    /// When its next step is due: joining, catching up, waiting for hooks, going.
    pub(super) due: Option<u64>,
    /// Its member was added.
    pub(super) joined: bool,
    /// Its member has a vote.
    pub(super) votes: bool,
    /// Its Node comes when its own API server is up, after the member; else before.
    pub(super) node_last: bool,
    /// Its member never catches up.
    pub(super) is_stuck: bool,
    pub(super) unwell_since: Option<u64>,
}

/// A control plane and its luck.
pub struct World {
    /// Seconds since the beginning.
    pub now: u64,
    /// Luck.
    pub random: Random,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
    /// Wanted machines.
    pub replicas: u32,
    /// Wanted version.
    pub version: String,
    /// The control plane object.
    pub object: Value,
    /// Machines.
    pub machines: Vec<Machine>,
    /// Machines as the host's cache has them.
    pub cache: Vec<Machine>,
    /// The cache stands still until then.
    pub late_until: u64,
    /// Members.
    pub etcd: Membership,
    /// The next machine's member never catches up.
    pub next_is_stuck: bool,
    /// What happened.
    pub trace: Trace,
    /// What was not true.
    pub violations: Vec<String>,
    /// Machines made by the host.
    pub made: u64,
    /// Members removed by the host.
    pub removed: u64,
    /// Names that Machines have had, but for those that people took away: of these nothing says any more that they were.
    pub names: BTreeSet<String>,
    /// When the host was connected last.
    pub connected_at: u64,
}

impl World {
    /// So many machines that are all well.
    pub fn new(seed: u64, replicas: u32) -> Self {
        let mut world = Self {
            now: 0,
            random: Random::new(seed).fork(20),
            is_calm: false,
            replicas,
            version: "v1.36.0".to_owned(),
            object: json!({
                "kind": "KubeadmControlPlane",
                "metadata": {"name": "cp", "namespace": "ns", "uid": "cp", "generation": 1, "annotations": {}},
                "status": {"initialization": {"controlPlaneInitialized": true}},
            }),
            machines: Vec::new(),
            cache: Vec::new(),
            late_until: 0,
            etcd: Membership::default(),
            next_is_stuck: false,
            trace: Trace::default(),
            violations: Vec::new(),
            made: 0,
            removed: 0,
            names: BTreeSet::new(),
            connected_at: 0,
        };
        for number in 0..replicas {
            let name = format!("first-{number}");
            let domain = ["a", "b", "c"][number as usize % 3];
            world.add_machine(&name, domain, None);
            world.etcd.add(&name, true);
        }
        for machine in &mut world.machines {
            machine.body = Body::Up;
            machine.node = true;
            machine.joined = true;
            machine.votes = true;
            machine.due = None;
        }
        world.etcd.leader = world.etcd.members.first().map(|member| member.id);
        world.cache.clone_from(&world.machines);
        world
    }

    /// Something happened.
    pub fn note(&mut self, words: &str) {
        self.trace.note(Duration::from_secs(self.now), words);
    }

    /// Something was not true.
    pub fn violated(&mut self, what: String) {
        self.note(&format!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    /// A new Machine.
    pub fn add_machine(&mut self, name: &str, domain: &str, remediation_for: Option<String>) {
        let boots = self.now + self.random.between(20, 200);
        let machine = Machine {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            created: self.now,
            version: self.version.clone(),
            domain: domain.to_owned(),
            remediation_for,
            hook: true,
            deleted: None,
            node: false,
            conditions: Vec::new(),
            body: Body::Boots(boots),
            isolated_until: 0,
            slow_until: 0,
            member_off_until: 0,
            server_off_until: 0,
            kubelet_dead_since: None,
            is_node_dropped: false,
            due: None,
            joined: false,
            votes: false,
            node_last: self.random.happens(500),
            is_stuck: std::mem::take(&mut self.next_is_stuck),
            unwell_since: None,
        };
        self.names.insert(name.to_owned());
        self.machines.push(machine);
    }

    /// The Machine of a member.
    pub fn machine_of(&self, member: &Member) -> Option<&Machine> {
        let mut machines = self.machines.iter();
        machines.find(|machine| machine.name == member.machine)
    }

    /// Whether a machine runs and reaches the others.
    pub fn is_up(&self, machine: &Machine) -> bool {
        machine.body == Body::Up && machine.isolated_until <= self.now
    }

    /// Whether a member does its part.
    pub fn works(&self, member: &Member) -> bool {
        member.started
            && self
                .machine_of(member)
                .is_some_and(|machine| self.is_up(machine) && machine.member_off_until <= self.now)
    }

    /// Whether the host reaches what runs on a machine: through its kubelet, of which its Node tells.
    pub fn is_reached(&self, machine: &Machine) -> bool {
        machine.node
            && self.is_up(machine)
            && machine.kubelet_dead_since.is_none()
            && !machine.is_node_dropped
            && machine.slow_until <= self.now
    }

    /// Whether a member does its part and answers the host.
    pub fn reaches(&self, member: &Member) -> bool {
        self.works(member)
            && self
                .machine_of(member)
                .is_some_and(|machine| self.is_reached(machine))
    }

    /// Whether everybody can know by now that a machine is not well.
    pub fn is_known_ill(&self, machine: &Machine) -> bool {
        let kubelet = machine.kubelet_dead_since;
        let is_missed = kubelet.is_some_and(|since| self.now >= since + KUBELET_MISSED_AFTER);
        machine.node
            && (!self.is_up(machine)
                || is_missed
                || machine.is_node_dropped
                || machine.member_off_until > self.now
                || machine.server_off_until > self.now)
    }

    /// Whether an API server runs.
    pub fn has_server(&self) -> bool {
        let runs = |own: &Machine| own.node && self.is_up(own) && own.server_off_until <= self.now;
        self.machines.iter().any(runs)
    }

    /// Whether a majority works.
    pub fn has_quorum(&self) -> bool {
        self.etcd.has_quorum(|member| self.works(member))
    }

    /// Whether etcd answers: a majority has elected a leader.
    pub fn answers(&self) -> bool {
        self.etcd.leader.is_some() && self.has_quorum()
    }

    /// Whether the host is connected: some API server runs, and it has not been long without etcd.
    pub fn is_connected(&self) -> bool {
        let lost = self.etcd.lost_since.map(|since| self.now - since);
        self.has_server() && lost.is_none_or(|lost| lost < LINGERS)
    }

    /// Whether it takes writes.
    pub(super) fn takes_writes(&self) -> bool {
        self.answers() && self.etcd.has_space()
    }

    /// One second.
    pub fn tick(&mut self) {
        self.now += 1;
        self.elect();
        for at in 0..self.machines.len() {
            self.live(at);
            self.judge_health(at);
        }
        if self.is_connected() {
            self.connected_at = self.now;
        }
        let gone = |machine: &Machine| machine.deleted.is_some() && machine.body == Body::Gone;
        let left: Vec<String> = self
            .machines
            .iter()
            .filter(|machine| gone(machine) && !machine.hook)
            .map(|machine| machine.name.clone())
            .collect();
        for name in left {
            self.note(&format!("Machine {name} is gone"));
            self.machines.retain(|machine| machine.name != name);
        }
        if self.late_until <= self.now && self.cache != self.machines {
            self.cache.clone_from(&self.machines);
        }
    }

    /// Whether only people can help: each machine that is not well is needed, since without its member those that are known to work are
    /// no majority, or since somebody has deleted all others that are well. What the host cannot reach it must not count on.
    pub fn is_left_to_people(&self) -> bool {
        let is_ill = |own: &&Machine| own.body == Body::Gone || self.is_known_ill(own);
        let mut ill = self.machines.iter().filter(is_ill).peekable();
        let is_needed = |machine: &Machine| {
            let voting = self
                .etcd
                .members
                .iter()
                .filter(|member| !member.learner && member.machine != machine.name);
            let known = voting.clone().filter(|member| self.reaches(member));
            let stays =
                |own: &Machine| own.name != machine.name && own.deleted.is_none() && !is_ill(&own);
            known.count() * 2 <= voting.count() || !self.machines.iter().any(stays)
        };
        ill.peek().is_some() && ill.all(is_needed)
    }

    /// Whether everything is as it should be.
    pub fn not_settled(&self) -> Vec<String> {
        let mut why = Vec::new();
        let wanted = self.replicas as usize;
        if self.machines.len() != wanted {
            why.push(format!(
                "{} machines, {wanted} are wanted",
                self.machines.len()
            ));
        }
        for machine in &self.machines {
            if machine.deleted.is_some()
                || machine.version != self.version
                || !self.is_up(machine)
                || machine.kubelet_dead_since.is_some()
                || machine.is_node_dropped
            {
                why.push(format!("Machine {} is old, broken or going", machine.name));
            }
        }
        let orphans = self.etcd.members.iter().filter(|member| {
            let machine = self.machine_of(member);
            machine.is_none() || member.learner
        });
        for member in orphans {
            why.push(format!(
                "member {:x} of {} is left behind",
                member.id, member.machine
            ));
        }
        if self.etcd.members.len() != wanted {
            why.push(format!(
                "{} members for {wanted} machines",
                self.etcd.members.len()
            ));
        }
        if !self.etcd.alarms.is_empty() {
            why.push(format!("alarms {:?}", self.etcd.alarms));
        }
        why
    }
}

/// Sets a condition.
pub fn set(conditions: &mut Vec<Condition>, report: Report, now: u64) {
    *conditions = condition::merge(conditions, [report], None, timestamp(now));
}
