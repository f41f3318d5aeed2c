//! Runs one world from its beginning to its verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::host::Host;
use crate::nature;
use crate::scenario::{Deed, End, Plan};
use crate::stacked::Stacked;
use crate::trace::Trace;
use crate::world::World;

/// A world in which nothing goes wrong any more is as its people want it after this time.
const SETTLES_WITHIN: Duration = Duration::from_secs(7_200);

/// The same of a world with a control plane, whose machines are replaced one by one, some of them again and again.
const CONTROL_PLANE_SETTLES_WITHIN: Duration = Duration::from_secs(14_400);

/// Between two looks whether it is.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was held back is written within this time; so is what follows from a connection that came back only now, and from looks that
/// are taken again every minute or so.
const HOLD: Duration = Duration::from_secs(240);

/// What became of a world.
#[derive(Debug)]
pub struct Outcome {
    /// What was not true; empty when all was well.
    pub violations: Vec<String>,
    /// What happened.
    pub trace: Trace,
    /// Time that passed in it.
    pub simulated: Duration,
    /// Writes of the host.
    pub writes: u64,
    /// Machines that the host made.
    pub machines: u64,
    /// Members of etcd that the host removed.
    pub removed: u64,
    /// Whether it was left to people, who were told what to do.
    pub is_left: bool,
    /// What the management cluster held at the end; only after a violation.
    pub picture: Vec<String>,
}

impl Outcome {
    /// Whether something was not true.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !self.violations.is_empty()
    }
}

/// Runs the world of a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads");
    let outcome = runtime.block_on(live(plan));
    drop(runtime);
    outcome
}

async fn live(plan: &Plan) -> Outcome {
    let world = World::new(plan.seed, plan.rates);
    world.lock().found(plan);
    let nature = tokio::spawn(nature::run(Arc::clone(&world)));
    let mut life = Life {
        host: Some(Host::start(&world)),
        began: Instant::now(),
        is_left: false,
        world,
    };
    let verdict = life.judge(plan).await;
    if let Some(host) = life.host.take() {
        host.stop(&life.world);
    }
    nature.abort();
    let mut state = life.world.lock();
    if let Some(violation) = verdict {
        state.note(&format!("VIOLATION: {violation}"));
        state.watchman.violated(violation);
    }
    let violations = state.watchman.violations().to_vec();
    Outcome {
        picture: if violations.is_empty() {
            Vec::new()
        } else {
            state.picture()
        },
        violations,
        simulated: state.now(),
        writes: state.watchman.host_writes_total,
        machines: state.watchman.machines_made,
        removed: state.stacked.as_ref().map_or(0, Stacked::removed),
        is_left: life.is_left,
        trace: std::mem::take(&mut state.trace),
    }
}

struct Life {
    world: Arc<World>,
    host: Option<Host>,
    began: Instant,
    is_left: bool,
}

/// What happens at a time; the number keeps what happens at the same time in order.
type Agenda = BTreeMap<(Duration, usize), Event>;

enum Event {
    Deed(Deed),
    End(End),
    Restart,
}

impl Life {
    fn is_violated(&self) -> bool {
        !self.world.lock().watchman.violations().is_empty()
    }

    /// Lives through the plan, then waits for the world to settle, then for nothing to happen. What was not so, if anything.
    async fn judge(&mut self, plan: &Plan) -> Option<String> {
        self.suffer(plan).await;
        if self.is_violated() {
            return None;
        }
        {
            let mut state = self.world.lock();
            state.is_calm = true;
            state.down_until = Duration::ZERO;
            for workload in state.workloads.values_mut() {
                workload.down_until = Duration::ZERO;
            }
            state.plane_calms();
            state.note("from now on nothing goes wrong");
        }
        let within = match plan.control_plane {
            Some(_) => CONTROL_PLANE_SETTLES_WITHIN,
            None => SETTLES_WITHIN,
        };
        let deadline = Instant::now() + within;
        loop {
            if self.is_violated() {
                return None;
            }
            let why = self.world.lock().not_settled();
            if why.is_empty() {
                break;
            }
            if Instant::now() > deadline && self.world.lock().is_left_to_people() {
                self.is_left = true;
                break;
            }
            if Instant::now() > deadline {
                return Some(format!("the world did not settle: {}", why.join("; ")));
            }
            sleep(LOOK_EVERY).await;
        }
        sleep(HOLD).await;
        drop(self.world.lock().watchman.take_host_writes());
        self.world.note("settled: nothing is written from now on");
        sleep(plan.quiet).await;
        if self.is_violated() {
            return None;
        }
        let mut state = self.world.lock();
        let written = state.watchman.take_host_writes();
        if self.is_left {
            // The join token of a machine that waits is kept alive for as long as it waits.
            let is_kept_alive =
                |write: &&String| write.contains(" Secret kube-system/bootstrap-token-");
            let written: Vec<&str> = written
                .iter()
                .filter(|write| !is_kept_alive(write))
                .map(String::as_str)
                .collect();
            if !written.is_empty() {
                let written = written.join("; ");
                return Some(format!(
                    "only people can help and the host writes: {written}"
                ));
            }
            return state.not_told();
        }
        let why = state.not_settled();
        if !written.is_empty() {
            return Some(format!("a settled world wrote: {}", written.join("; ")));
        }
        (!why.is_empty()).then(|| format!("a settled world is not: {}", why.join("; ")))
    }

    /// Lives through what people and misfortune do.
    async fn suffer(&mut self, plan: &Plan) {
        let mut agenda: Agenda = plan
            .steps
            .iter()
            .enumerate()
            .map(|(number, step)| ((step.at, number), Event::Deed(step.deed.clone())))
            .collect();
        let mut number = agenda.len();
        let mut calm_at = plan.calm_at;
        while let Some(((at, _), event)) = agenda.pop_first() {
            sleep_until(self.began + at).await;
            if self.is_violated() {
                return;
            }
            if let Some((after, event)) = self.happen(event) {
                number += 1;
                calm_at = calm_at.max(at + after);
                agenda.insert((at + after, number), event);
            }
            self.world.changed();
        }
        sleep_until(self.began + calm_at).await;
    }

    /// Something happens; what lasts a while answers its end.
    fn happen(&mut self, event: Event) -> Option<(Duration, Event)> {
        match event {
            Event::Deed(Deed::Crash(millis)) => {
                self.host.take()?.stop(&self.world);
                Some((Duration::from_millis(millis), Event::Restart))
            }
            Event::Deed(deed) => {
                let end = self.world.lock().perform(&deed);
                end.map(|(after, end)| (after, Event::End(end)))
            }
            Event::End(end) => {
                self.world.lock().end(&end);
                None
            }
            Event::Restart => {
                self.host = Some(Host::start(&self.world));
                None
            }
        }
    }
}
