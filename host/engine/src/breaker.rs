//! Stops calling a plugin that keeps trapping, and tries again after a growing pause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limit::{BREAKER_PAUSE_MAX, BREAKER_PAUSE_MIN, BREAKER_STRIKES, BREAKER_WINDOW};

/// Whether a plugin is being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// No calls until then.
    Open {
        /// When one call is tried.
        until: Instant,
        /// How often the plugin has been stopped since it last worked.
        times: u32,
    },
    /// One call is trying whether the plugin works again.
    Trying,
}

/// Counts strikes of one plugin version. A strike is a trap, a missed deadline or running out of memory; a failure that the
/// plugin answers is none.
#[derive(Debug)]
pub(crate) struct Breaker {
    strikes: VecDeque<Instant>,
    state: BreakerState,
    times: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            strikes: VecDeque::new(),
            state: BreakerState::Closed,
            times: 0,
        }
    }
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// How much longer.
    pub(crate) retry_after: Duration,
}

impl Breaker {
    /// Whether a call may start now. The first one after a pause is a trial, and the only one until it has ended.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Stopped> {
        match self.state {
            BreakerState::Closed => Ok(()),
            BreakerState::Open { until, .. } if now >= until => {
                self.state = BreakerState::Trying;
                Ok(())
            }
            BreakerState::Open { until, .. } => Err(Stopped {
                retry_after: until.saturating_duration_since(now),
            }),
            BreakerState::Trying => Err(Stopped {
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// A call ended in a way that shows the plugin to work.
    pub(crate) fn worked(&mut self) {
        if self.state == BreakerState::Trying {
            *self = Self::default();
        }
    }

    /// A call ended without showing anything: it was refused, or dropped by its caller.
    pub(crate) fn undecided(&mut self, now: Instant) {
        if self.state == BreakerState::Trying {
            self.state = BreakerState::Open {
                until: now,
                times: self.times,
            };
        }
    }

    /// A call trapped, missed its deadline or ran out of memory.
    pub(crate) fn strike(&mut self, now: Instant) {
        self.strikes.push_back(now);
        while self
            .strikes
            .front()
            .is_some_and(|strike| now.saturating_duration_since(*strike) > BREAKER_WINDOW)
        {
            self.strikes.pop_front();
        }
        match self.state {
            BreakerState::Trying => self.open(now),
            BreakerState::Closed if self.strikes.len() >= BREAKER_STRIKES => self.open(now),
            BreakerState::Closed | BreakerState::Open { .. } => {}
        }
    }

    /// The state as a status shows it.
    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    fn open(&mut self, now: Instant) {
        let factor = 1_u32.checked_shl(self.times.min(16)).unwrap_or(u32::MAX);
        let pause = BREAKER_PAUSE_MIN
            .saturating_mul(factor)
            .min(BREAKER_PAUSE_MAX);
        self.times = self.times.saturating_add(1);
        self.strikes.clear();
        let until = now.checked_add(pause).unwrap_or(now);
        self.state = BreakerState::Open {
            until,
            times: self.times,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(breaker: &mut Breaker, now: Instant, times: usize) {
        for _ in 0..times {
            breaker.strike(now);
        }
    }

    #[test]
    fn five_strikes_within_a_minute_stop_the_calls() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        struck(&mut breaker, now, 4);
        assert!(breaker.admit(now).is_ok());
        breaker.strike(now);
        assert_eq!(
            breaker.admit(now),
            Err(Stopped {
                retry_after: BREAKER_PAUSE_MIN
            })
        );
    }

    #[test]
    fn old_strikes_are_forgotten() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        struck(&mut breaker, now, 4);
        breaker.strike(now + BREAKER_WINDOW + Duration::from_secs(1));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn one_trial_decides_and_pauses_grow_up_to_five_minutes() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        struck(&mut breaker, now, 5);
        let mut last = BREAKER_PAUSE_MIN;
        for _ in 0..8 {
            now += last;
            assert!(breaker.admit(now).is_ok());
            assert!(
                breaker.admit(now).is_err(),
                "a second call waits for the trial"
            );
            breaker.strike(now);
            last = breaker.admit(now).unwrap_err().retry_after;
        }
        assert_eq!(last, BREAKER_PAUSE_MAX);
        now += last;
        assert!(breaker.admit(now).is_ok());
        breaker.worked();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_trial_that_shows_nothing_leaves_room_for_the_next() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        struck(&mut breaker, now, 5);
        let later = now + BREAKER_PAUSE_MIN;
        assert!(breaker.admit(later).is_ok());
        breaker.undecided(later);
        assert!(breaker.admit(later).is_ok());
    }
}
