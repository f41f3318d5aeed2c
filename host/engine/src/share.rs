//! Fair shares between plugins: of the calls that can be in flight, and of the processor. What one plugin takes, however many calls it
//! has, leaves room for the others.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::limit::{HOLD_USUAL_MAX, SHORT_TICKS};

/// Places for calls in flight. A plugin gets one more only while it has fewer than are free: alone it can have half of them, with one
/// like it a third, and however many want all, as much as each has stays free for whoever comes.
#[derive(Debug)]
pub(crate) struct Places {
    free: Mutex<usize>,
    freed: Notify,
}

/// Calls that one plugin has in flight.
#[derive(Debug, Default)]
pub(crate) struct Own(AtomicUsize);

/// One call's place, given back when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    own: Arc<Own>,
}

impl Places {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Notify::new(),
        })
    }

    /// A place for a plugin, as soon as its share has one.
    pub(crate) async fn take(self: &Arc<Self>, own: &Arc<Own>) -> Place {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on no place is freed unnoticed.
            freed.as_mut().enable();
            if let Some(place) = self.try_take(own) {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>, own: &Arc<Own>) -> Option<Place> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if own.0.load(Ordering::Relaxed) >= *free {
            return None;
        }
        *free = free.checked_sub(1)?;
        own.0.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            places: self.clone(),
            own: own.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut free = self
            .places
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_add(1);
        self.own.0.fetch_sub(1, Ordering::Relaxed);
        drop(free);
        self.places.freed.notify_waiters();
    }
}

/// Who computes next of calls that share some of the threads: plugins one after the other, and of each its calls one after the other.
#[derive(Debug)]
pub(crate) struct Turns {
    threads: usize,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    free: usize,
    /// Plugins that have calls waiting, the next one first.
    plugins: VecDeque<(u64, VecDeque<Arc<Ticket>>)>,
    known: u64,
}

/// One call's claim to a turn.
#[derive(Debug, Default)]
struct Ticket {
    is_called: AtomicBool,
    waker: AtomicWaker,
}

/// The turns of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct PluginTurns {
    /// Of the calls of all plugins that compute long.
    long: Arc<Turns>,
    /// Of its own calls that do not: as many as there are threads, so that a burst of them is not a line that others stand behind.
    short: Arc<Turns>,
    plugin: u64,
    /// For how many microseconds its calls hold a thread as a rule, until they step aside, wait for the host, or end.
    held_us: Arc<AtomicU64>,
}

impl Turns {
    /// Calls that compute long have all threads but one, so that short ones find one that is free within a tick.
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        Self::of(threads, threads.saturating_sub(1).max(1))
    }

    fn of(threads: usize, free: usize) -> Arc<Self> {
        Arc::new(Self {
            threads,
            line: Mutex::new(Line {
                free,
                plugins: VecDeque::new(),
                known: 0,
            }),
        })
    }

    /// The turns of one more plugin.
    pub(crate) fn of_plugin(self: &Arc<Self>) -> PluginTurns {
        let mut line = self.line();
        line.known = line.known.wrapping_add(1);
        PluginTurns {
            long: self.clone(),
            short: Self::of(self.threads, self.threads),
            plugin: line.known,
            held_us: Arc::default(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PluginTurns {
    /// Where a call waits that has used so many ticks. A plugin whose calls hold threads for long is not asked which of the next ones will.
    fn of_call(&self, ticks: u64) -> &Arc<Turns> {
        let held = Duration::from_micros(self.held_us.load(Ordering::Relaxed));
        if ticks >= SHORT_TICKS || held > HOLD_USUAL_MAX {
            &self.long
        } else {
            &self.short
        }
    }

    /// Takes note of how long a call has held its thread. The last time weighs as much as all before it.
    fn held(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let before = self.held_us.load(Ordering::Relaxed);
        self.held_us.store(before.midpoint(us), Ordering::Relaxed);
    }
}

/// Processor time of this thread, which others that run meanwhile are no part of.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Line {
    fn join(&mut self, plugin: u64) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::default());
        match self.plugins.iter_mut().find(|(known, _)| *known == plugin) {
            Some((_, waiting)) => waiting.push_back(ticket.clone()),
            None => self
                .plugins
                .push_back((plugin, VecDeque::from([ticket.clone()]))),
        }
        ticket
    }

    /// Calls the next ones, as many as there is room for.
    fn call(&mut self) {
        while let Some(free) = self.free.checked_sub(1)
            && let Some((plugin, mut waiting)) = self.plugins.pop_front()
        {
            if let Some(ticket) = waiting.pop_front() {
                self.free = free;
                ticket.is_called.store(true, Ordering::Release);
                ticket.waker.wake();
            }
            if !waiting.is_empty() {
                self.plugins.push_back((plugin, waiting));
            }
        }
    }

    fn release(&mut self) {
        self.free = self.free.saturating_add(1);
        self.call();
    }

    /// A claim that nobody holds any more.
    fn leave(&mut self, ticket: &Arc<Ticket>) {
        if ticket.is_called.load(Ordering::Acquire) {
            return self.release();
        }
        for (_, waiting) in &mut self.plugins {
            waiting.retain(|other| !Arc::ptr_eq(other, ticket));
        }
    }
}

/// Lets others run, and comes back at the end of the line. Tokio's own waits until a thread has nothing else to do.
pub(crate) fn step_aside() -> impl Future<Output = ()> + Send {
    let mut is_back = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut is_back, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Runs a guest in its turn: among its plugin's own calls while it is short, and from its [`SHORT_TICKS`] on among all that compute long.
/// A turn lasts until the guest steps aside, which it does at every tick, or waits for the host.
pub(crate) struct Fair<F> {
    guest: Pin<Box<F>>,
    ticks: Arc<AtomicU64>,
    turns: PluginTurns,
    ticket: Option<(Arc<Turns>, Arc<Ticket>)>,
}

impl<F> Fair<F> {
    /// `ticks` is what the guest has used so far.
    pub(crate) fn new(guest: F, ticks: Arc<AtomicU64>, turns: PluginTurns) -> Self {
        Self {
            guest: Box::pin(guest),
            ticks,
            turns,
            ticket: None,
        }
    }

    fn join(&mut self) -> (Arc<Turns>, Arc<Ticket>) {
        let (turns, ticks) = (&self.turns, &self.ticks);
        let join = || {
            let shared = turns.of_call(ticks.load(Ordering::Relaxed));
            let ticket = shared.line().join(turns.plugin);
            (shared.clone(), ticket)
        };
        self.ticket.get_or_insert_with(join).clone()
    }
}

impl<F: Future> Future for Fair<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = self.ticks.load(Ordering::Relaxed);
        let (turns, ticket) = self.join();
        ticket.waker.register(cx.waker());
        turns.line().call();
        if !ticket.is_called.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let began = thread_time();
        let polled = self.guest.as_mut().poll(cx);
        self.turns.held(thread_time().saturating_sub(began));
        self.ticket = None;
        if polled.is_pending() && self.ticks.load(Ordering::Relaxed) > before {
            // It goes on as soon as it may: it is in the line again before its turn is anybody's.
            self.join().1.waker.register(cx.waker());
        }
        turns.line().release();
        polled
    }
}

impl<F> Drop for Fair<F> {
    fn drop(&mut self) {
        if let Some((turns, ticket)) = self.ticket.take() {
            turns.line().leave(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn whoever_comes_finds_room_beside_those_who_want_all() {
        let places = Places::new(128);
        let hogs: Vec<Arc<Own>> = (0..5).map(|_| Arc::default()).collect();
        let taken: Vec<Vec<Place>> = hogs
            .iter()
            .map(|hog| std::iter::from_fn(|| places.try_take(hog)).collect())
            .collect();
        let counts: Vec<usize> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [64, 32, 16, 8, 4]);
        assert!(places.try_take(&Arc::default()).is_some());
    }

    #[tokio::test]
    async fn a_place_that_is_given_back_is_taken_by_who_waits() {
        let places = Places::new(2);
        let own = Arc::default();
        let first = places.take(&own).await;
        let mut second = Box::pin(places.take(&own));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await;
        assert_eq!(*places.free.lock().unwrap(), 2);
    }

    #[tokio::test]
    async fn one_that_waits_for_the_host_keeps_nobody_waiting() {
        let turns = Turns::new(1);
        let long = || Arc::new(AtomicU64::new(SHORT_TICKS));
        let mut stuck = Fair::new(std::future::pending::<()>(), long(), turns.of_plugin());
        assert!(futures::poll!(&mut stuck).is_pending());
        assert_eq!(Fair::new(async { 1 }, long(), turns.of_plugin()).await, 1);
    }

    /// A guest that computes for ever, and notes each tick of it.
    fn endless(
        name: char,
        ticks: u64,
        seen: &Arc<Mutex<String>>,
        turns: &PluginTurns,
    ) -> Fair<impl Future<Output = ()>> {
        let ticks = Arc::new(AtomicU64::new(ticks));
        let (used, seen) = (ticks.clone(), seen.clone());
        let guest = async move {
            loop {
                seen.lock().unwrap().push(name);
                used.fetch_add(1, Ordering::Relaxed);
                step_aside().await;
            }
        };
        Fair::new(guest, ticks, turns.clone())
    }

    #[tokio::test]
    async fn plugins_take_turns_and_not_calls() {
        let turns = Turns::new(2);
        let seen = Arc::new(Mutex::new(String::new()));
        let (many, one) = (turns.of_plugin(), turns.of_plugin());
        let long = |name, turns| endless(name, SHORT_TICKS, &seen, turns);
        let mut calls: Vec<_> = "abc".chars().map(|c| long(c, &many)).collect();
        calls.push(long('x', &one));
        for _ in 0..40 {
            for call in &mut calls {
                assert!(futures::poll!(call).is_pending());
            }
        }
        let order = seen.lock().unwrap().clone();
        let shares = (
            order.matches(|c| c != 'x').count(),
            order.matches('x').count(),
        );
        assert!(shares.1 > 20 && shares.0.abs_diff(shares.1) <= 2, "{order}");
        // Who has left takes no turn with it, called or not.
        drop(calls);
        let line = turns.line();
        assert_eq!(
            (
                line.free,
                line.plugins.iter().map(|(_, w)| w.len()).sum::<usize>()
            ),
            (1, 0)
        );
    }

    /// What was computed when each of so many new calls has been polled once.
    fn burst(turns: &PluginTurns) -> usize {
        let seen = Arc::new(Mutex::new(String::new()));
        let mut calls: Vec<_> = (0..16).map(|_| endless('a', 0, &seen, turns)).collect();
        for call in &mut calls {
            assert!(call.now_or_never().is_none());
        }
        seen.lock().unwrap().len()
    }

    #[tokio::test]
    async fn a_burst_of_new_calls_takes_no_more_than_all_threads() {
        let turns = Turns::new(3);
        let (bursting, other) = (turns.of_plugin(), turns.of_plugin());
        assert_eq!(burst(&bursting), 3);
        let long = Arc::new(AtomicU64::new(SHORT_TICKS));
        assert_eq!(Fair::new(async { 1 }, long, other).await, 1);
    }

    #[tokio::test]
    async fn calls_of_a_plugin_that_holds_threads_for_long_leave_one_free_from_the_first_on() {
        let turns = Turns::new(3);
        let plugin = turns.of_plugin();
        for _ in 0..3 {
            assert_eq!(burst(&plugin), 3);
            plugin.held(HOLD_USUAL_MAX);
        }
        plugin.held(HOLD_USUAL_MAX * 40);
        assert_eq!(burst(&plugin), 2);
        assert_eq!(burst(&turns.of_plugin()), 3);
        // It is forgiven as soon as its calls are short again.
        for _ in 0..32 {
            plugin.held(Duration::ZERO);
        }
        assert_eq!(burst(&plugin), 3);
    }
}
