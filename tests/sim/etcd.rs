//! The etcd of a control plane under misfortune: the decisions of `capstan_core::control_plane` as they run in production, second by
//! second, over members that join as learners, lead, fall silent, run full and are left behind. What the host looks at is of the
//! moment, except its cache, which may be late; what it does comes later, one step at a time, and may be lost or cut off.

mod check;
mod deed;
mod host;
mod nature;
mod observe;
mod world;

use std::collections::VecDeque;
use std::fmt;

use capstan_api::condition::ConditionStatus;
use capstan_core::control_plane::in_cluster::StableWork;
use capstan_core::control_plane::report;
use capstan_core::control_plane::snapshot::Taking;
use capstan_core::plan::Outcome;

use crate::random::Random;
use crate::shrink::Shrinks;
use crate::trace::Trace;
pub use deed::Deed;
use deed::{End, deeds};
use host::Reconcile;
use observe::timestamp;
use world::{Machine, World};

/// A control plane of five that is rolled, with machines given up in between, has settled after this time.
const SETTLES_WITHIN: u64 = 14_400;
/// How long nothing is done once it has settled: longer than everything that the host looks at again by itself.
const QUIET: u64 = 1_800;
/// What was under way when it had settled has ended after this time: a record of a remediation is taken back, a condition written.
const ENDS_WITHIN: u64 = 600;
/// Limits that people change are taken at their most generous for so long: a late cache, a lost answer and a slow step.
const STALE: u64 = 600;
/// How many steps of the host in a thousand go wrong, while anything does.
const BAD_STEPS: u32 = 40;

/// What a world begins with and what happens in it. All else follows from the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Machines at first.
    pub replicas: u32,
    /// The operator wants a snapshot before a member is removed.
    pub keeps_snapshots: bool,
    /// How many steps of the host in a thousand go wrong.
    pub bad_steps: u32,
    /// What people and misfortune do, and at which second.
    pub deeds: Vec<(u64, Deed)>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed).fork(21);
        Self {
            seed,
            replicas: [1, 3, 3, 5][usize::try_from(random.below(4)).unwrap_or(1)],
            deeds: deeds(&mut random),
            keeps_snapshots: random.happens(500),
            bad_steps: BAD_STEPS,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            replicas,
            keeps_snapshots,
            bad_steps,
            ..
        } = self;
        writeln!(
            f,
            "{replicas} machines, snapshots: {keeps_snapshots}, {bad_steps} of 1000 steps go wrong"
        )?;
        for (at, deed) in &self.deeds {
            writeln!(f, "{at:>10} s {deed:?}")?;
        }
        Ok(())
    }
}

/// What became of a world.
#[derive(Debug)]
pub struct Told {
    /// What was not true; empty when all was well.
    pub violations: Vec<String>,
    /// What happened.
    pub trace: Trace,
    /// Seconds that passed in it.
    pub simulated_s: u64,
    /// Machines that the host made.
    pub machines: u64,
    /// Members that the host removed.
    pub removed: u64,
    /// Whether it was left to people, who were told what to do.
    pub is_left: bool,
}

impl Shrinks for Plan {
    type Outcome = Told;

    fn run(&self) -> Told {
        run(self)
    }

    fn first(outcome: &Told) -> Option<&str> {
        outcome.violations.first().map(String::as_str)
    }

    fn smaller(&self) -> Vec<Self> {
        let without = |at: usize| {
            let mut fewer = self.clone();
            fewer.deeds.remove(at);
            fewer
        };
        let mut smaller: Vec<Self> = (0..self.deeds.len()).map(without).collect();
        if self.bad_steps > 0 {
            smaller.push(Self {
                bad_steps: 0,
                ..self.clone()
            });
        }
        if self.keeps_snapshots {
            smaller.push(Self {
                keeps_snapshots: false,
                ..self.clone()
            });
        }
        smaller
    }
}

/// A control plane, its host, and what is still to come.
struct Life {
    world: World,
    bad_steps: u32,
    ends: Vec<(u64, End)>,
    reconcile: Option<Reconcile>,
    look_at: u64,
    /// It is killed, and starts again then.
    off_until: u64,
    /// Its Machines as they woke the host last.
    seen: Vec<Machine>,
    keeps_snapshots: bool,
    /// The last one that was whole, and for which removal.
    snapshot: Option<(u64, String)>,
    /// The one that was begun last and is not noted, and when it ends.
    taking: Option<(u64, Taking)>,
    snapshot_failures: u32,
    work: Option<StableWork>,
    /// Wanted machines, and until when they count.
    wanted: Vec<(u64, u32)>,
    /// Steps that change something, other than what is told.
    acts: u64,
}

/// Runs a world.
#[must_use]
pub fn run(plan: &Plan) -> Told {
    let mut deeds = VecDeque::from(plan.deeds.clone());
    let mut life = Life {
        world: World::new(plan.seed, plan.replicas),
        bad_steps: plan.bad_steps,
        ends: Vec::new(),
        reconcile: None,
        look_at: 1,
        off_until: 0,
        seen: Vec::new(),
        keeps_snapshots: plan.keeps_snapshots,
        snapshot: None,
        taking: None,
        snapshot_failures: 0,
        work: None,
        wanted: vec![(u64::MAX, plan.replicas)],
        acts: 0,
    };
    while let Some((at, deed)) = deeds.pop_front() {
        life.pass_until(at);
        life.perform_deed(deed);
    }
    life.calm();
    let is_left = life.settle();
    if !is_left && life.is_well_so_far() {
        life.stay();
    }
    Told {
        violations: life.world.violations,
        trace: life.world.trace,
        simulated_s: life.world.now,
        machines: life.world.made,
        removed: life.world.removed,
        is_left,
    }
}

impl Life {
    fn is_well_so_far(&self) -> bool {
        self.world.violations.is_empty()
    }

    fn pass_until(&mut self, at: u64) {
        while self.world.now < at && self.is_well_so_far() {
            self.world.tick();
            let now = self.world.now;
            let (due, later) = self.ends.drain(..).partition(|(at, _)| *at <= now);
            self.ends = later;
            let due: Vec<(u64, End)> = due;
            for (_, end) in due {
                self.end(end);
            }
            self.host();
        }
    }

    /// Waits until everything is as people want it. Whether it is left to them instead.
    fn settle(&mut self) -> bool {
        let deadline = self.world.now + SETTLES_WITHIN;
        while !self.world.not_settled().is_empty() && self.is_well_so_far() {
            if self.world.now >= deadline {
                return self.judge_unsettled();
            }
            self.pass_until(self.world.now + 30);
        }
        false
    }

    /// Nothing is done any more.
    fn stay(&mut self) {
        self.pass_until(self.world.now + ENDS_WITHIN);
        self.world.note("settled: nothing is done from now on");
        let before = self.acts;
        self.pass_until(self.world.now + QUIET);
        let why = self.world.not_settled();
        if self.acts != before || !why.is_empty() {
            let acts = self.acts - before;
            let why = why.join("; ");
            self.world.violated(format!(
                "a settled control plane was changed {acts} times: {why}"
            ));
        }
    }

    /// Not settled in time: right only where nothing but people can help, and then it must be said what they do. Whether that is so.
    fn judge_unsettled(&mut self) -> bool {
        let (seen, plan) = self.seen_now();
        let now = timestamp(self.world.now);
        let told = report(&seen, &plan, &Outcome::default(), now);
        let said: Vec<String> = told
            .conditions
            .iter()
            .filter(|said| !said.message.is_empty())
            .map(|said| format!("{} {:?} {}", said.type_, said.status, said.message))
            .collect();
        let why = self.world.not_settled().join("; ");
        let has_quorum = self.world.has_quorum();
        if has_quorum && !self.world.is_left_to_people() {
            let waits: Vec<&str> = plan.waits.iter().map(|wait| &*wait.message).collect();
            self.world.violated(format!(
                "it did not settle: {why}; it waits for {waits:?} and says {said:?}"
            ));
            return false;
        }
        let acts = self.acts;
        self.pass_until(self.world.now + QUIET);
        if self.acts != acts {
            self.world
                .violated("only people can help and the host acts".to_owned());
        }
        let is_available = told
            .conditions
            .iter()
            .any(|said| said.type_ == "Available" && said.status == ConditionStatus::True);
        let advice = [
            "To recover: ",
            "ring it back",
            "ring one of the",
            "ring one back",
        ];
        let is_told = said
            .iter()
            .any(|said| advice.iter().any(|advice| said.contains(advice)));
        if (is_available && !has_quorum) || !is_told {
            self.world.violated(format!(
                "only people can help and are not told how: {why}; it says {said:?}"
            ));
        }
        true
    }
}
