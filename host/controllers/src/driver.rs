//! The one reconcile loop. It owns the clock, the span, the finalizer, pause, back-off, the comparison of statuses and their
//! patch; controllers own what is particular to a kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_core::plan::{Failure, FailureKind, Next, Outcome, Plan, STEPS_MAX};
use capstan_engine::limit::{QUEUE_WAIT, WALL_CEILING};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::Instrument;

use crate::attempt::{self, Attempts};
use crate::controller::{Controller, Primary, Report, Spec};
use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::{ApiError, GroupKind, Patch, Resource};
use crate::metrics::Metrics;
use crate::object::{Locator, Object};
use crate::queue::Queue;
use crate::status;
use crate::trace;

/// A reconcile that takes longer is dropped and tried again: every effect is bounded by itself, so this catches what nobody
/// thought of.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(120);

// A call of a plugin that waits for its turn and takes all its time ends before, and its end is told.
const _: () = assert!(
    QUEUE_WAIT.as_secs() + WALL_CEILING.as_secs() < RECONCILE_DEADLINE.as_secs(),
    "a plugin's call outlasts the reconcile"
);

/// A terminal or denied failure is looked at again after this time all the same: what it depends on may not be watched.
const STUCK_RETRY: Duration = Duration::from_secs(300);

/// So many statuses that wait lengthen the wait by its own length: those of ten clusters come within seconds, those of thirty do not.
const HELD_PER_HOLD: usize = 10;

/// The wait is never longer than so many of itself: who looks at a status sees it change within a quarter of a minute.
const HOLDS_MAX: usize = 5;

/// An object is said to be unobserved after so many failures in a row, about four seconds: objects that are applied together refer to
/// each other before all are there.
const SAID_AFTER: u32 = 3;

/// One controller with its queue.
pub struct Driver<C> {
    controller: C,
    ctx: Arc<Ctx>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    held: Mutex<HashMap<Locator, Instant>>,
    attempts: Attempts,
}

/// What one pass over an object came to.
enum Pass {
    /// Look again as said.
    Next(Next),
    /// Lost a race: look again soon.
    Conflict,
    /// Failed, and what else there is to do wants to be looked at by then.
    Failed(Failure, Next),
    /// The object is gone, or somebody else's.
    Gone,
}

impl<C: Controller> Driver<C> {
    /// A driver; [`Driver::run`] starts it.
    pub fn new(
        controller: C,
        ctx: Arc<Ctx>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            controller,
            ctx,
            queue,
            metrics,
            held: Mutex::default(),
            attempts: Attempts::default(),
        })
    }

    /// Works on the queue until the host stops.
    pub async fn run(self: Arc<Self>) {
        let slots = Arc::new(tokio::sync::Semaphore::new(
            self.controller.spec().concurrency,
        ));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let locator = tokio::select! {
                biased;
                () = self.ctx.tasks.finishing() => return,
                locator = self.queue.next() => locator,
            };
            let driver = Arc::clone(&self);
            self.ctx.tasks.spawn_work("reconcile", async move {
                driver.work(&locator).await;
                drop(slot);
            });
        }
    }

    /// One pass over an object outside of the queue, and what it came to, in words. For a context in which nothing is written.
    pub async fn rehearse(&self, locator: &Locator) -> String {
        let pass = tokio::time::timeout(RECONCILE_DEADLINE, self.pass(locator)).await;
        match pass {
            Ok(Pass::Gone) => "the object is gone".to_owned(),
            Ok(Pass::Next(Next::Settled)) => "looks again when something changes".to_owned(),
            Ok(Pass::Next(Next::CheckAfter(after))) => {
                format!("looks again after {} s", after.as_secs_f32().ceil())
            }
            Ok(Pass::Conflict) => "somebody else has written it: looks again at once".to_owned(),
            Ok(Pass::Failed(failure, _)) => format!("{}: {}", failure.reason, failure.message),
            Err(_) => format!("not done within {} s", RECONCILE_DEADLINE.as_secs()),
        }
    }

    async fn work(&self, locator: &Locator) {
        // Put back even when the reconcile panics: the object must not be lost to the queue.
        let _done = Done {
            queue: &self.queue,
            locator,
        };
        let spec = self.controller.spec();
        let span = tracing::info_span!("reconcile", controller = spec.name, object = %locator);
        let started = Instant::now();
        let traced = trace::reconcile(spec.name, locator);
        let pass = self.pass(locator).instrument(traced.clone());
        let pass = pass.instrument(span.clone());
        // Calls of plugins have effects as well: nothing goes on without the Lease.
        let pass = self.ctx.fence.guard(pass);
        let pass = match tokio::time::timeout(RECONCILE_DEADLINE, pass).await {
            Ok(Ok(pass)) => pass,
            Ok(Err(shut)) => {
                let failure = Failure::transient("LeaseLost", shut.to_string());
                Pass::Failed(failure, Next::Settled)
            }
            Err(_) => {
                let message = format!("not done within {} s", RECONCILE_DEADLINE.as_secs());
                let failure = Failure::transient("ReconcileDeadlineExceeded", message);
                Pass::Failed(failure, Next::Settled)
            }
        };
        let _entered = span.enter();
        let mut failed = None;
        let outcome = match pass {
            Pass::Gone => {
                self.queue.forget(locator);
                self.attempts.over(locator);
                self.controller.forget(&self.ctx, locator);
                self.held().remove(locator);
                "gone"
            }
            Pass::Next(next) => {
                self.queue.succeeded(locator);
                let next = self.resync().map_or(next, |again| next.min(again));
                if let Next::CheckAfter(after) = next {
                    self.queue.add_after(locator.clone(), after);
                }
                "success"
            }
            Pass::Conflict => {
                let after = self.queue.conflicted(locator);
                self.queue.add_after(locator.clone(), after);
                "conflict"
            }
            Pass::Failed(failure, next) => {
                let backoff = self.queue.failed(locator);
                let after = match failure.kind {
                    FailureKind::Transient => backoff.max(failure.retry_after.unwrap_or_default()),
                    FailureKind::Terminal | FailureKind::Denied => stuck_for(next, backoff),
                };
                tracing::warn!(reason = %failure.reason, retry_s = after.as_secs_f32(), "{failure}");
                self.queue.add_after(locator.clone(), after);
                failed = Some(failure.reason);
                "failure"
            }
        };
        trace::reconciled(&traced, outcome, failed.as_deref());
        self.metrics
            .reconciled(spec.name, outcome, started.elapsed());
    }

    /// When an object of Cluster API's own kinds is looked at again though nothing called for it: a wake-up that is missed must not be
    /// missed for ever. Spread by a fifth, so that what was made together is not looked at together.
    fn resync(&self) -> Option<Next> {
        let Primary::Kind(resource) = &self.controller.spec().primary else {
            return None;
        };
        let every = self
            .ctx
            .resync
            .filter(|_| resource.group == kinds::CLUSTER.group)?;
        let fifth = u32::try_from(self.ctx.clock.luck() % 200).unwrap_or_default();
        let more = every.saturating_mul(fifth).checked_div(1000)?;
        Some(Next::CheckAfter(every.saturating_add(more)))
    }

    /// Whether the object is one of those that the controller reconciles: references lead to objects of others' providers as well.
    fn is_primary(&self, kind: &GroupKind) -> bool {
        match &self.controller.spec().primary {
            Primary::Kind(_) => true,
            Primary::Roles(roles) => {
                let role = self.ctx.plugins.role_of(kind);
                role.is_some_and(|role| roles.contains(&role.as_str()))
            }
        }
    }

    async fn pass(&self, locator: &Locator) -> Pass {
        if !self.is_primary(&locator.kind) {
            return Pass::Gone;
        }
        let Some(store) = self.ctx.stores.get(&locator.kind) else {
            return Pass::Gone;
        };
        // What is not listed yet would look as if it did not exist, and what was listed by a standby may be old.
        if let Err(why) = store.listed().await {
            return Pass::Failed(Failure::transient("KindNotListed", why), Next::Settled);
        }
        let Some(object) = store.get(&locator.key) else {
            return Pass::Gone;
        };
        let resource = store.resource().clone();
        let pass = Reconcile {
            driver: self,
            resource: &resource,
            locator,
        };
        let number = self.attempts.begin(locator, object.generation());
        match attempt::numbered(number, pass.run(object)).await {
            Ok(next) => {
                self.attempts.over(locator);
                Pass::Next(next)
            }
            Err(Stop::Conflict) => {
                self.attempts.was_none(locator);
                Pass::Conflict
            }
            Err(Stop::Failed(failure, next)) => Pass::Failed(failure, next),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Locator, Instant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Done<'a> {
    queue: &'a Queue,
    locator: &'a Locator,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.queue.done(self.locator);
    }
}

enum Stop {
    Conflict,
    Failed(Failure, Next),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure, Next::Settled)
    }
}

impl Stop {
    fn write(doing: &str, error: &ApiError) -> Self {
        match error {
            ApiError::Conflict(_) => Self::Conflict,
            other => failure(doing, other).into(),
        }
    }
}

struct Reconcile<'a, C> {
    driver: &'a Driver<C>,
    resource: &'a Resource,
    locator: &'a Locator,
}

impl<C: Controller> Reconcile<'_, C> {
    fn ctx(&self) -> &Ctx {
        &self.driver.ctx
    }

    fn spec(&self) -> &Spec {
        self.driver.controller.spec()
    }

    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec().name,
            manager: self.spec().manager,
        }
    }

    async fn run(&self, object: Arc<Object>) -> Result<Next, Stop> {
        let controller = &self.driver.controller;
        if let Some(finalizer) = self.spec().finalizer
            && object.is_deleting()
            && !object.finalizers().any(|f| f == finalizer)
        {
            return Ok(Next::Settled);
        }
        if let Some(why) = self.paused(&object) {
            self.write_status(
                &object,
                status::paused(&object, &why, self.ctx().now()),
                false,
            )
            .await?;
            return Ok(Next::Settled);
        }
        let object = self.adopt(object).await?;
        trace::belongs(&object);
        let observed = match controller.observe(self.ctx(), Arc::clone(&object)).await {
            Ok(observed) => observed,
            Err(failure) => {
                self.say_unobserved(&object, &failure).await?;
                return Err(failure.into());
            }
        };
        let now = self.ctx().now();
        let plan = controller.decide(&observed, now);
        if plan.steps.len() > STEPS_MAX {
            let message = format!(
                "a plan of {} steps, at most {STEPS_MAX} are allowed",
                plan.steps.len()
            );
            return Err(Failure::terminal("PlanTooLong", message).into());
        }
        let outcome = self.perform(&observed, &plan).await;
        // What is only planned has no next look.
        let is_seen_again = outcome.failed.is_none() && self.ctx().planned.is_none();
        if is_seen_again && controller.reports_next_time(&outcome) {
            return Ok(Next::CheckAfter(Duration::ZERO));
        }
        let report = controller.report(&observed, &plan, &outcome, now);
        let next = report
            .next
            .map_or(plan.next, |sooner| plan.next.min(sooner));
        let next = if report.finished {
            self.remove_finalizer(&object).await?;
            Next::Settled
        } else {
            next.min(
                self.report(&object, report, outcome.failed.as_ref())
                    .await?,
            )
        };
        match outcome.failed {
            Some((_, failure)) if failure.is_lost_race() => Err(Stop::Conflict),
            Some((step, failure)) => {
                tracing::debug!(?step, "step failed");
                let is_alone = controller.goes_on(&observed, &step);
                let next = if is_alone { next } else { Next::Settled };
                Err(Stop::Failed(failure, next))
            }
            None => Ok(next),
        }
    }

    /// Says why an object cannot be observed, once that is no passing thing.
    async fn say_unobserved(&self, object: &Object, failure: &Failure) -> Result<(), Stop> {
        if self.driver.queue.failures(self.locator) < SAID_AFTER || self.ctx().planned.is_some() {
            return Ok(());
        }
        let said = self.driver.controller.unobserved(object, failure);
        if said.is_empty() {
            return Ok(());
        }
        let desired = status::with(object, said, self.ctx().now());
        self.write_status(object, desired, false).await.map(drop)
    }

    async fn perform(
        &self,
        observed: &C::Observed,
        plan: &Plan<C::Step>,
    ) -> Outcome<C::Step, C::Effect> {
        let mut outcome = Outcome::default();
        for step in &plan.steps {
            tracing::debug!(?step, "perform");
            match self
                .driver
                .controller
                .perform(self.ctx(), observed, step)
                .await
            {
                Ok(effect) => outcome.done.push((step.clone(), effect)),
                Err(failure) => {
                    let controller = &self.driver.controller;
                    let ends = !controller.goes_on(observed, step) || failure.is_lost_race();
                    outcome.failed.get_or_insert((step.clone(), failure));
                    if ends {
                        break;
                    }
                }
            }
        }
        outcome
    }

    /// Why nothing is done with this object, if it is paused (contract: upstream `util/paused`).
    fn paused(&self, object: &Object) -> Option<String> {
        if !self.spec().pausable {
            return None;
        }
        let cluster = self.driver.controller.cluster(object);
        let cluster = cluster.and_then(|key| self.ctx().get(&crate::kinds::CLUSTER, &key));
        status::paused_because(cluster.as_deref(), object)
    }

    /// Finalizer, labels and owner references, in one write, before the first effect.
    async fn adopt(&self, object: Arc<Object>) -> Result<Arc<Object>, Stop> {
        if object.is_deleting() {
            return Ok(object);
        }
        let adoption = self.driver.controller.adopt(self.ctx(), &object);
        let finalizer = self.spec().finalizer;
        let finalizer = finalizer.filter(|_| self.driver.controller.finalizes(&object));
        let Some(patch) = status::adoption_patch(&object, finalizer, &adoption) else {
            return Ok(object);
        };
        self.ctx()
            .patch(
                &self.writer(),
                self.resource,
                &object.key,
                &Patch::Merge(patch),
            )
            .await
            .map_err(|error| Stop::write("setting finalizer, labels and owners", &error))
    }

    async fn remove_finalizer(&self, object: &Object) -> Result<(), Stop> {
        let Some(finalizer) = self.spec().finalizer else {
            return Ok(());
        };
        let left: Vec<&str> = object.finalizers().filter(|f| *f != finalizer).collect();
        let patch = Patch::Merge(json!({"metadata": {
            "finalizers": left, "uid": object.uid,
            "resourceVersion": object.resource_version.to_string(),
        }}));
        let answer = self
            .ctx()
            .patch(&self.writer(), self.resource, &object.key, &patch)
            .await;
        match answer {
            Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
            Err(error) => Err(Stop::write("removing the finalizer", &error)),
        }
    }

    async fn report(
        &self,
        object: &Arc<Object>,
        report: Report,
        failed: Option<&(C::Step, Failure)>,
    ) -> Result<Next, Stop> {
        // A step may have written the object: compare with the newest that is known.
        let current = self.ctx().get(self.resource, &object.key);
        let current = current
            .filter(|c| c.uid == object.uid)
            .unwrap_or_else(|| Arc::clone(object));
        let (is_last_word, keeps_generation) = (report.is_last_word, report.keeps_generation);
        let desired = status::desired(
            &current,
            object.generation(),
            report,
            self.ctx().now(),
            self.spec().pausable,
            failed.is_none() && !keeps_generation,
        );
        // Who is stuck is not looked at again soon: it must be said now.
        let is_stuck = failed.is_some_and(|(_, failure)| failure.kind != FailureKind::Transient);
        let stored = current.value.get("status").unwrap_or(&Value::Null);
        let is_news = is_last_word && status::says_something_new(stored, &desired);
        self.write_status(&current, desired, !is_stuck && !is_news)
            .await
    }

    /// Writes the status if it differs; a difference that nobody acts on waits a little for company.
    async fn write_status(
        &self,
        object: &Object,
        desired: Value,
        may_hold: bool,
    ) -> Result<Next, Stop> {
        let empty = json!({});
        let current = object.value.get("status").unwrap_or(&empty);
        let Some(patch) = status::difference(current, &desired) else {
            self.driver.held().remove(self.locator);
            return Ok(Next::Settled);
        };
        let may_hold = may_hold && self.ctx().planned.is_none();
        if may_hold && !status::is_urgent(object, current, &desired) {
            let now = Instant::now();
            let (since, waiting) = {
                let mut held = self.driver.held();
                let since = *held.entry(self.locator.clone()).or_insert(now);
                (since, held.len())
            };
            let left = patience(self.spec().hold, waiting)
                .saturating_sub(now.saturating_duration_since(since));
            if !left.is_zero() {
                return Ok(Next::CheckAfter(left));
            }
        }
        self.driver.held().remove(self.locator);
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": object.resource_version.to_string(), "uid": object.uid},
            "status": patch,
        }));
        let answer = self
            .ctx()
            .patch_status(&self.writer(), self.resource, &object.key, &patch)
            .await;
        match answer {
            Ok(_) => Ok(Next::Settled),
            Err(ApiError::NotFound(_)) if object.is_deleting() => Ok(Next::Settled),
            Err(error) => Err(Stop::write("writing the status", &error)),
        }
    }
}

/// When an object is looked at again of which something is refused: what does not depend on that goes on, though no faster than what fails.
fn stuck_for(next: Next, backoff: Duration) -> Duration {
    match next {
        Next::CheckAfter(soon) => soon.max(backoff).min(STUCK_RETRY),
        Next::Settled => STUCK_RETRY,
    }
}

/// How long a status waits for company while so many of the controller's wait: many objects in motion settle later, and each status on
/// the way would be one write more for the API server that they all wait for.
fn patience(hold: Duration, waiting: usize) -> Duration {
    let times = waiting.div_ceil(HELD_PER_HOLD).clamp(1, HOLDS_MAX);
    hold.saturating_mul(u32::try_from(times).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_holds_up_nothing_else_and_is_not_tried_all_the_time() {
        let seconds = Duration::from_secs;
        let soon = |s| Next::CheckAfter(seconds(s));
        assert_eq!(stuck_for(Next::Settled, seconds(1)), STUCK_RETRY);
        assert_eq!(stuck_for(soon(1), seconds(8)), seconds(8));
        assert_eq!(stuck_for(soon(20), seconds(8)), seconds(20));
        assert_eq!(stuck_for(soon(900), seconds(60)), STUCK_RETRY);
    }

    #[test]
    fn the_more_statuses_wait_the_longer_they_wait_within_bounds() {
        let seconds = |waiting| patience(Duration::from_secs(3), waiting).as_secs();
        assert_eq!([0, 1, 10, 11, 40, 5000].map(seconds), [3, 3, 3, 6, 12, 15]);
        assert!(patience(Duration::ZERO, 5000).is_zero());
    }
}
