//! A controller's queue: each object is in it once, is worked on by one task at a time, and waits out its back-off.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kube_api::GroupKind;
use crate::object::Locator;

/// Back-off of a failing object: 0.5 s doubling up to a minute.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How soon a lost race is looked at again: 50 ms, since the winner's object is on its way, doubling up to 2 s for a watch that lags.
const CONFLICT_FIRST: Duration = Duration::from_millis(50);
const CONFLICT_MAX: Duration = Duration::from_secs(2);

/// Objects that want to be looked at.
pub struct Queue {
    settle: Duration,
    /// How many are worked on at the same time, where kinds share them.
    shared: Option<usize>,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Locator>,
    queued: BTreeSet<Locator>,
    delayed: BTreeMap<(Instant, u64), Locator>,
    due: HashMap<Locator, (Instant, u64)>,
    working: BTreeSet<Locator>,
    again: BTreeSet<Locator>,
    failures: HashMap<Locator, u32>,
    conflicts: HashMap<Locator, u32>,
    sequence: u64,
}

impl Queue {
    /// A queue in which an object is looked at most once per `settle` time, so that changes that come together are seen
    /// together.
    #[must_use]
    pub fn new(settle: Duration) -> Self {
        Self {
            settle,
            shared: None,
            inner: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// The same for a controller of many kinds that works on so many objects at the same time. A kind gets one more only while fewer of
    /// it are worked on than are free: however slow the plugin of one is, there is room for the others.
    #[must_use]
    pub fn shared_by_kind(settle: Duration, concurrency: usize) -> Self {
        Self {
            shared: Some(concurrency),
            ..Self::new(settle)
        }
    }

    /// Something about the object changed.
    pub fn add(&self, locator: Locator) {
        let mut inner = self.lock();
        if inner.working.contains(&locator) {
            inner.again.insert(locator);
            return;
        }
        let now = Instant::now();
        let at = now.checked_add(self.settle).unwrap_or(now);
        inner.delay_until(locator, at);
        drop(inner);
        self.wake.notify_one();
    }

    /// Looks at the object after this time at the latest.
    pub fn add_after(&self, locator: Locator, after: Duration) {
        let mut inner = self.lock();
        let now = Instant::now();
        let at = now.checked_add(after.max(self.settle)).unwrap_or(now);
        inner.delay_until(locator, at);
        drop(inner);
        self.wake.notify_one();
    }

    /// The next object to work on; waits for one. Every `next` is followed by one [`Queue::done`].
    pub async fn next(&self) -> Locator {
        loop {
            let wait = {
                let mut inner = self.lock();
                inner.promote(Instant::now());
                if let Some(locator) = inner.take(self.shared) {
                    inner.queued.remove(&locator);
                    inner.working.insert(locator.clone());
                    if !inner.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return locator;
                }
                inner.delayed.keys().next().map(|(at, _)| *at)
            };
            match wait {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = self.wake.notified() => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// The object was worked on.
    pub fn done(&self, locator: &Locator) {
        let again = {
            let mut inner = self.lock();
            inner.working.remove(locator);
            inner.again.remove(locator)
        };
        if again {
            self.add(locator.clone());
        } else {
            self.wake.notify_one();
        }
    }

    /// How long to wait after one more failure in a row.
    #[must_use]
    pub fn failed(&self, locator: &Locator) -> Duration {
        let failures = &mut self.lock().failures;
        doubled(failures, locator, BACKOFF_FIRST, BACKOFF_MAX)
    }

    /// How long to wait after one more lost race in a row.
    #[must_use]
    pub fn conflicted(&self, locator: &Locator) -> Duration {
        let conflicts = &mut self.lock().conflicts;
        doubled(conflicts, locator, CONFLICT_FIRST, CONFLICT_MAX)
    }

    /// How often the object has failed in a row.
    #[must_use]
    pub fn failures(&self, locator: &Locator) -> u32 {
        self.lock()
            .failures
            .get(locator)
            .copied()
            .unwrap_or_default()
    }

    /// The object succeeded: its next failure is its first.
    pub fn succeeded(&self, locator: &Locator) {
        let mut inner = self.lock();
        inner.failures.remove(locator);
        inner.conflicts.remove(locator);
    }

    /// The object is gone: nothing of it stays.
    pub fn forget(&self, locator: &Locator) {
        let mut inner = self.lock();
        inner.failures.remove(locator);
        inner.conflicts.remove(locator);
        if let Some(due) = inner.due.remove(locator) {
            inner.delayed.remove(&due);
        }
    }

    /// Objects that wait to be looked at now.
    #[must_use]
    pub fn depth(&self) -> usize {
        let inner = self.lock();
        inner.ready.len().saturating_add(inner.working.len())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wait after one more in a row.
fn doubled(
    counts: &mut HashMap<Locator, u32>,
    locator: &Locator,
    first: Duration,
    most: Duration,
) -> Duration {
    let count = counts.entry(locator.clone()).or_default();
    let wait = backoff(first, most, *count);
    *count = count.saturating_add(1);
    wait
}

/// The wait that begins with `first`, after so many of them twice as long each, up to `most`.
pub(crate) fn backoff(first: Duration, most: Duration, before: u32) -> Duration {
    first.saturating_mul(1 << before.min(10)).min(most)
}

impl Inner {
    /// The next that may be worked on.
    fn take(&mut self, shared: Option<usize>) -> Option<Locator> {
        let Some(concurrency) = shared else {
            return self.ready.pop_front();
        };
        let mut working: HashMap<&GroupKind, usize> = HashMap::new();
        for locator in &self.working {
            let count = working.entry(&locator.kind).or_default();
            *count = count.saturating_add(1);
        }
        let free = concurrency.saturating_sub(self.working.len());
        let has_room = |locator: &Locator| {
            let own = working.get(&locator.kind).copied().unwrap_or_default();
            own < free
        };
        let place = self.ready.iter().position(has_room)?;
        self.ready.remove(place)
    }

    /// Puts the object where it is due at `at`, or earlier if it already was.
    fn delay_until(&mut self, locator: Locator, at: Instant) {
        if self.queued.contains(&locator) {
            return;
        }
        if let Some(due) = self.due.get(&locator).copied() {
            if due.0 <= at {
                return;
            }
            self.delayed.remove(&due);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let due = (at, self.sequence);
        self.delayed.insert(due, locator.clone());
        self.due.insert(locator, due);
    }

    /// Moves what is due to the ready list. What is being worked on comes again when it is done.
    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let locator = entry.remove();
            self.due.remove(&locator);
            if self.working.contains(&locator) {
                self.again.insert(locator);
            } else if self.queued.insert(locator.clone()) {
                self.ready.push_back(locator);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::name::ObjectKey;

    use super::*;

    fn locator(name: &str) -> Locator {
        Locator {
            kind: GroupKind {
                group: "g".to_owned(),
                kind: "K".to_owned(),
            },
            key: ObjectKey {
                namespace: "ns".to_owned(),
                name: name.to_owned(),
            },
        }
    }

    #[test]
    fn lost_races_in_a_row_are_looked_at_less_and_less_often() {
        let queue = Queue::new(Duration::ZERO);
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(queue.conflicted(&locator("a")).as_millis());
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        queue.succeeded(&locator("a"));
        assert_eq!(queue.conflicted(&locator("a")).as_millis(), 50);
        assert_eq!(queue.failures(&locator("a")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_come_together_are_seen_together() {
        let queue = Queue::new(Duration::from_millis(20));
        queue.add(locator("a"));
        queue.add(locator("a"));
        queue.add(locator("b"));
        assert_eq!(queue.next().await, locator("a"));
        assert_eq!(queue.next().await, locator("b"));
        queue.done(&locator("a"));
        queue.done(&locator("b"));
        assert!(
            tokio::time::timeout(Duration::from_secs(9), queue.next())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_worked_on_by_one_task_at_a_time() {
        let queue = Queue::new(Duration::ZERO);
        queue.add(locator("a"));
        let first = queue.next().await;
        queue.add(locator("a"));
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.next())
                .await
                .is_err()
        );
        queue.done(&first);
        assert_eq!(queue.next().await, locator("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts() {
        let queue = Queue::new(Duration::ZERO);
        let start = Instant::now();
        queue.add_after(locator("a"), Duration::from_secs(60));
        queue.add_after(locator("a"), Duration::from_secs(5));
        queue.add_after(locator("a"), Duration::from_secs(30));
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_keeps_its_workers_leaves_room_for_others() {
        let queue = Queue::shared_by_kind(Duration::ZERO, 8);
        let of = |kind: &str, name: usize| {
            let mut locator = locator(&name.to_string());
            locator.kind.kind = kind.to_owned();
            locator
        };
        (0..20).for_each(|name| queue.add(of("Slow", name)));
        let mut slow = Vec::new();
        for _ in 0..4 {
            slow.push(queue.next().await);
        }
        let mut more = Box::pin(queue.next());
        assert!(futures::poll!(&mut more).is_pending());
        // It comes last and is next.
        queue.add(of("Quick", 0));
        assert_eq!(more.await, of("Quick", 0));
        queue.done(&of("Quick", 0));
        let mut more = Box::pin(queue.next());
        assert!(futures::poll!(&mut more).is_pending());
        queue.done(&slow[0]);
        assert_eq!(more.await.kind.kind, "Slow");
    }

    #[test]
    fn back_off_doubles_up_to_a_minute_and_starts_anew_after_success() {
        let queue = Queue::new(Duration::ZERO);
        let a = locator("a");
        assert_eq!(queue.failed(&a), Duration::from_millis(500));
        assert_eq!(queue.failed(&a), Duration::from_secs(1));
        for _ in 0..20 {
            let _ = queue.failed(&a);
        }
        assert_eq!(queue.failed(&a), Duration::from_secs(60));
        queue.succeeded(&a);
        assert_eq!(queue.failed(&a), Duration::from_millis(500));
    }
}
