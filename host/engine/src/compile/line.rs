//! Who is compiled next. One component at a time, and those first that were tried least: one that takes longer than it may keeps others
//! waiting for its own time and no longer, however often it comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limit::{COMPILE_GIVEN_UP_MAX, COMPILE_PAUSE_FIRST, COMPILE_PAUSE_MAX};

/// The line.
#[derive(Debug, Default)]
pub(crate) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    arrivals: u64,
    /// By how often they were given up, and when they came.
    waiting: BTreeMap<(u32, u64), oneshot::Sender<Turn>>,
    /// By digest.
    given_up: BTreeMap<String, GivenUp>,
}

#[derive(Clone, Copy, Debug)]
struct GivenUp {
    times: u32,
    until: Instant,
}

/// Permission to compile, passed on when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Line>);

impl Line {
    /// Waits for a turn; `None` while the component's pause lasts.
    pub(crate) async fn turn(self: &Arc<Self>, digest: &str) -> Option<Turn> {
        let called = {
            let mut state = self.lock();
            let before = state.given_up.get(digest).copied();
            if before.is_some_and(|before| Instant::now() < before.until) {
                return None;
            }
            if !state.is_taken {
                state.is_taken = true;
                return Some(Turn(Arc::clone(self)));
            }
            let (call, called) = oneshot::channel();
            let place = (before.map_or(0, |before| before.times), state.arrivals);
            state.arrivals = state.arrivals.wrapping_add(1);
            state.waiting.insert(place, call);
            called
        };
        called.await.ok()
    }

    /// It took longer than it may: it is left alone for a while, each time for longer.
    pub(crate) fn gave_up(&self, digest: &str) {
        let mut state = self.lock();
        let times = state.given_up.get(digest).map_or(0, |before| before.times);
        let pause = COMPILE_PAUSE_FIRST
            .saturating_mul(1 << times.min(16))
            .min(COMPILE_PAUSE_MAX);
        let now = Instant::now();
        let given_up = GivenUp {
            times: times.saturating_add(1),
            until: now.checked_add(pause).unwrap_or(now),
        };
        state.given_up.insert(digest.to_owned(), given_up);
        if state.given_up.len() > COMPILE_GIVEN_UP_MAX {
            let first = state
                .given_up
                .iter()
                .min_by_key(|(_, given_up)| given_up.until);
            if let Some(first) = first.map(|(digest, _)| digest.clone()) {
                state.given_up.remove(&first);
            }
        }
    }

    /// It is compiled.
    pub(crate) fn compiled(&self, digest: &str) {
        self.lock().given_up.remove(digest);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            let next = state.waiting.pop_first();
            state.is_taken = next.is_some();
            next
        };
        if let Some((_, call)) = next {
            // Who does not wait any more drops the turn, which calls the one after.
            let _ = call.send(Turn(Arc::clone(&self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_given_up_waits_behind_those_who_come_for_the_first_time() {
        let line = Arc::new(Line::default());
        line.gave_up("slow");
        assert!(line.turn("slow").await.is_none());
        tokio::time::advance(COMPILE_PAUSE_FIRST).await;
        let first = line.turn("a").await.unwrap();
        let mut slow = Box::pin(line.turn("slow"));
        assert!(poll!(&mut slow).is_pending());
        let mut others: Vec<_> = ["b", "c"].map(|other| Box::pin(line.turn(other))).into();
        for other in &mut others {
            assert!(poll!(other).is_pending());
        }
        drop(first);
        for other in others {
            drop(other.await.unwrap());
        }
        assert!(slow.await.is_some());
        // Its next pause is longer, and is forgotten when it is compiled after all.
        line.gave_up("slow");
        tokio::time::advance(COMPILE_PAUSE_FIRST).await;
        assert!(line.turn("slow").await.is_none());
        line.compiled("slow");
        assert!(line.turn("slow").await.is_some());
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_is_passed_on() {
        let line = Arc::new(Line::default());
        let first = line.turn("a").await.unwrap();
        let mut gone: Vec<_> = ["b", "c"].map(|other| Box::pin(line.turn(other))).into();
        for other in &mut gone {
            assert!(poll!(other).is_pending());
        }
        let mut last = Box::pin(line.turn("d"));
        assert!(poll!(&mut last).is_pending());
        let called = gone.pop();
        drop(gone);
        drop(first);
        assert!(poll!(&mut last).is_pending());
        // It was called, and is dropped before it looked.
        drop(called);
        drop(last.await.unwrap());
        assert!(!line.lock().is_taken);
    }

    #[test]
    fn what_was_given_up_is_remembered_within_bounds() {
        let line = Line::default();
        for digest in 0..COMPILE_GIVEN_UP_MAX.saturating_add(10) {
            line.gave_up(&digest.to_string());
        }
        assert_eq!(line.lock().given_up.len(), COMPILE_GIVEN_UP_MAX);
    }
}
