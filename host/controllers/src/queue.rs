//! A controller's queue: each object is in it once, is worked on by one task at a time, and waits out its back-off.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// What is to be looked at after this time or later is a poll: nothing has happened to it that anybody waits for. The wait for a plugin or a
/// machine is some seconds, a back-off is less than a minute until it has failed eight times, and a provisioned machine is asked about
/// after five.
const POLL: Duration = Duration::from_secs(60);

/// One in so many objects is a poll while polls wait, however much happens: they come late, but they come.
const POLL_EVERY: u32 = 8;

/// Objects that want to be looked at.
pub struct Queue {
    settle: Duration,
    /// How many are worked on at the same time, where kinds share them.
    shared: Option<usize>,
    inner: Mutex<Inner>,
    wake: Notify,
}

/// For what an object is looked at: in order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Something happened, or somebody waits.
    Event,
    /// It has been a while.
    Poll,
}

#[derive(Default)]
struct Inner {
    /// What may be worked on now, by kind. A kind with nothing to do and nothing under way is not in it.
    kinds: BTreeMap<GroupKind, Kind>,
    /// Where in its kind each object is.
    queued: HashMap<Locator, (Lane, u64)>,
    delayed: BTreeMap<(Instant, u64), Locator>,
    due: HashMap<Locator, Due>,
    working: BTreeSet<Locator>,
    again: BTreeSet<Locator>,
    failures: HashMap<Locator, u32>,
    conflicts: HashMap<Locator, u32>,
    sequence: u64,
    /// Events that were taken since the last poll, while polls waited.
    passed_over: u32,
    /// Kinds that were looked at to find what comes next.
    #[cfg(test)]
    looked_at: usize,
}

/// When an object comes due, its place among what comes due then, and for what.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    sequence: u64,
    lane: Lane,
}

/// What comes first of a lane: its place and its kind.
type First = Option<(u64, GroupKind)>;

/// What there is of one kind, in the order in which it came.
#[derive(Default)]
struct Kind {
    events: BTreeMap<u64, Locator>,
    polls: BTreeMap<u64, Locator>,
    working: usize,
}

impl Kind {
    fn lane(&self, lane: Lane) -> &BTreeMap<u64, Locator> {
        match lane {
            Lane::Event => &self.events,
            Lane::Poll => &self.polls,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut BTreeMap<u64, Locator> {
        match lane {
            Lane::Event => &mut self.events,
            Lane::Poll => &mut self.polls,
        }
    }
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
        inner.delay_until(locator, at, Lane::Event);
        drop(inner);
        self.wake.notify_one();
    }

    /// Looks at the object after this time at the latest. After a minute or more that is a poll, which comes after what happens to objects,
    /// though no more than seven of those come between two polls.
    pub fn add_after(&self, locator: Locator, after: Duration) {
        let mut inner = self.lock();
        let now = Instant::now();
        let at = now.checked_add(after.max(self.settle)).unwrap_or(now);
        let lane = if after < POLL {
            Lane::Event
        } else {
            Lane::Poll
        };
        inner.delay_until(locator, at, lane);
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
                    if !inner.queued.is_empty() {
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
            inner.worked_on(locator);
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
            inner.delayed.remove(&(due.at, due.sequence));
        }
    }

    /// Objects that wait to be looked at now.
    #[must_use]
    pub fn depth(&self) -> usize {
        let inner = self.lock();
        inner.queued.len().saturating_add(inner.working.len())
    }

    /// All that is looked at now or some time later, but for what is worked on.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> BTreeSet<Locator> {
        let inner = self.lock();
        inner
            .queued
            .keys()
            .chain(inner.due.keys())
            .cloned()
            .collect()
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
    /// The next that may be worked on, which is worked on from now on: the first that came, of the kinds that have room. Looks at
    /// the first of each kind, of which there are as many as plugins own, and at no other object.
    fn take(&mut self, shared: Option<usize>) -> Option<Locator> {
        let (event, poll) = self.firsts(shared);
        let is_polls_turn = self.passed_over.saturating_add(1) >= POLL_EVERY;
        let (kind, lane, sequence) = match (event, poll) {
            (None, None) => return None,
            (Some((sequence, kind)), None) => (kind, Lane::Event, sequence),
            (Some((sequence, kind)), Some(_)) if !is_polls_turn => {
                self.passed_over = self.passed_over.saturating_add(1);
                (kind, Lane::Event, sequence)
            }
            (_, Some((sequence, kind))) => {
                self.passed_over = 0;
                (kind, Lane::Poll, sequence)
            }
        };
        let kind = self.kinds.get_mut(&kind)?;
        let locator = kind.lane_mut(lane).remove(&sequence)?;
        kind.working = kind.working.saturating_add(1);
        self.queued.remove(&locator);
        self.working.insert(locator.clone());
        Some(locator)
    }

    /// The first event and the first poll of the kinds that have room, each with its place.
    fn firsts(&mut self, shared: Option<usize>) -> (First, First) {
        #[cfg(test)]
        {
            self.looked_at = self.looked_at.saturating_add(self.kinds.len());
        }
        let free = shared.map(|concurrency| concurrency.saturating_sub(self.working.len()));
        let first = |lane: Lane| {
            let kinds = self.kinds.iter();
            let with_room = kinds.filter(|(_, kind)| free.is_none_or(|free| kind.working < free));
            let firsts = with_room.filter_map(|(name, kind)| {
                let (sequence, _) = kind.lane(lane).first_key_value()?;
                Some((*sequence, name))
            });
            firsts
                .min()
                .map(|(sequence, name)| (sequence, name.clone()))
        };
        (first(Lane::Event), first(Lane::Poll))
    }

    /// An object is no longer worked on.
    fn worked_on(&mut self, locator: &Locator) {
        if !self.working.remove(locator) {
            return;
        }
        if let Some(kind) = self.kinds.get_mut(&locator.kind) {
            kind.working = kind.working.saturating_sub(1);
            if kind.working == 0 && kind.events.is_empty() && kind.polls.is_empty() {
                self.kinds.remove(&locator.kind);
            }
        }
    }

    /// Puts an object at the end of a lane of its kind.
    fn push(&mut self, locator: Locator, lane: Lane) {
        let sequence = self.next_sequence();
        self.queued.insert(locator.clone(), (lane, sequence));
        let kind = self.kinds.entry(locator.kind.clone()).or_default();
        kind.lane_mut(lane).insert(sequence, locator);
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Puts the object where it is due at `at`, or earlier if it already was, and for the more urgent of the reasons. What waits as a poll moves
    /// up when something happens to it.
    fn delay_until(&mut self, locator: Locator, at: Instant, lane: Lane) {
        if let Some((queued, sequence)) = self.queued.get(&locator).copied() {
            if lane < queued {
                if let Some(kind) = self.kinds.get_mut(&locator.kind) {
                    kind.lane_mut(queued).remove(&sequence);
                }
                self.push(locator, lane);
            }
            return;
        }
        let mut lane = lane;
        if let Some(due) = self.due.get_mut(&locator) {
            lane = lane.min(due.lane);
            if due.at <= at {
                due.lane = lane;
                return;
            }
            let before = (due.at, due.sequence);
            self.delayed.remove(&before);
        }
        let sequence = self.next_sequence();
        self.delayed.insert((at, sequence), locator.clone());
        self.due.insert(locator, Due { at, sequence, lane });
    }

    /// Moves what is due to its lane. What is being worked on comes again when it is done.
    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let locator = entry.remove();
            let lane = self
                .due
                .remove(&locator)
                .map_or(Lane::Event, |due| due.lane);
            if self.working.contains(&locator) {
                self.again.insert(locator);
            } else if !self.queued.contains_key(&locator) {
                self.push(locator, lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::name::ObjectKey;
    use futures::FutureExt;

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

    fn of(kind: &str, name: usize) -> Locator {
        let mut locator = locator(&name.to_string());
        locator.kind.kind = kind.to_owned();
        locator
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

    #[tokio::test(start_paused = true)]
    async fn many_of_a_kind_without_room_cost_the_others_nothing() {
        let queue = Queue::shared_by_kind(Duration::ZERO, 8);
        (0..50_000).for_each(|name| queue.add(of("Slow", name)));
        let mut slow = Vec::new();
        for _ in 0..4 {
            slow.push(queue.next().await);
        }
        queue.add(of("Quick", 0));
        let before = queue.lock().looked_at;
        for _ in 0..1000 {
            let quick = queue.next().await;
            assert_eq!(quick, of("Quick", 0));
            assert!(futures::poll!(Box::pin(queue.next())).is_pending());
            queue.add(quick.clone());
            queue.done(&quick);
        }
        let looked_at = queue.lock().looked_at - before;
        assert!(looked_at <= 1000 * 6, "{looked_at}");
        // The slow ones go on in their order, and have come before it.
        queue.done(&slow[0]);
        assert_eq!(queue.next().await, of("Slow", 4));
        assert_eq!(queue.next().await, of("Quick", 0));
        let working: Vec<_> = queue.lock().working.iter().cloned().collect();
        working.iter().for_each(|locator| queue.done(locator));
        drained(&queue);
        assert!(queue.lock().kinds.is_empty());
    }

    /// What comes next without any waiting, until nothing does; each is done at once.
    fn drained(queue: &Queue) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(locator) = queue.next().now_or_never() {
            queue.done(&locator);
            names.push(locator.key.name);
        }
        names
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_comes_before_polls_which_come_all_the_same() {
        let queue = Queue::new(Duration::ZERO);
        (0..3).for_each(|n| queue.add_after(locator(&format!("poll-{n}")), POLL));
        tokio::time::advance(POLL).await;
        // They are all due, and are put in their lane.
        assert_eq!(queue.next().await, locator("poll-0"));
        (0..16).for_each(|n| queue.add(locator(&format!("event-{n}"))));
        let names = drained(&queue);
        let polls = names.iter().enumerate();
        let polls = polls.filter(|(_, name)| name.starts_with("poll"));
        let polls: Vec<_> = polls.map(|(at, name)| (at, &**name)).collect();
        assert_eq!(polls, [(7, "poll-1"), (15, "poll-2")]);
        let events: Vec<_> = names.iter().filter(|n| n.starts_with("event")).collect();
        let first_come: Vec<_> = (0..16).map(|n| format!("event-{n}")).collect();
        assert_eq!(events, first_come.iter().collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_to_which_something_happens_moves_up() {
        let queue = Queue::new(Duration::ZERO);
        ["a", "b", "c"]
            .iter()
            .for_each(|name| queue.add_after(locator(name), POLL));
        queue.add_after(locator("not-due"), POLL * 2);
        tokio::time::advance(POLL).await;
        assert_eq!(queue.next().await, locator("a"));
        queue.add(locator("c"));
        queue.add(locator("not-due"));
        assert_eq!(drained(&queue), ["c", "not-due", "b"]);
        assert_eq!(queue.depth(), 1, "each of them once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_wait_is_no_poll() {
        let queue = Queue::new(Duration::ZERO);
        queue.add_after(locator("poll"), POLL);
        tokio::time::advance(POLL - Duration::from_secs(1)).await;
        queue.add_after(locator("waits"), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(drained(&queue), ["waits", "poll"]);
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
