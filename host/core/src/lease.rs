//! Who of several hosts works: the decision of a leader election over one Lease.
//!
//! Clocks of machines differ, so nobody believes the time that is written in a Lease: a candidate waits until the Lease has
//! not changed for its whole duration by its own clock (contract: client-go `leaderelection`).

use std::time::Duration;

/// How long a Lease holds that does not say it, and by default.
pub const HOLD: Duration = Duration::from_secs(15);

/// How a Lease is held and kept. The default is that of Kubernetes' own controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it holds without being renewed.
    pub hold: Duration,
    /// How long the holder may fail to renew before it gives up; less than `hold`, so that it stops before another starts.
    pub renew_deadline: Duration,
    /// Between two renewals, and before a request that failed is repeated.
    pub retry: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            hold: HOLD,
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

impl Terms {
    /// These terms, if a Lease can be kept by them.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn check(self) -> Result<Self, String> {
        let Self {
            hold,
            renew_deadline,
            retry,
        } = self;
        if retry < Duration::from_secs(1) {
            return Err("the retry period is less than 1 s".to_owned());
        }
        if renew_deadline <= retry {
            return Err(format!(
                "the renew deadline of {} s is not longer than the retry period of {} s: one lost answer would cost the lease",
                renew_deadline.as_secs(),
                retry.as_secs()
            ));
        }
        if hold <= renew_deadline {
            return Err(format!(
                "the lease duration of {} s is not longer than the renew deadline of {} s: two hosts would work at once",
                hold.as_secs(),
                renew_deadline.as_secs()
            ));
        }
        Ok(self)
    }

    /// Whether a holder that last renewed so long ago must stop working.
    #[must_use]
    pub fn is_lost(self, since_renewal: Duration) -> bool {
        since_renewal >= self.renew_deadline
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// `spec.holderIdentity`; nobody when absent or empty.
    pub holder: Option<String>,
    /// `spec.leaseDurationSeconds`.
    pub duration: Option<Duration>,
    /// `spec.leaseTransitions`.
    pub transitions: u64,
}

/// What a candidate or holder knows.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Who looks.
    pub me: &'a str,
    /// The Lease, if there is one.
    pub lease: Option<&'a Lease>,
    /// For how long it has been seen without a change, by the looker's own clock.
    pub unchanged_for: Duration,
}

/// What to do with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create it, held by me.
    Create,
    /// Write me as its holder, with this many transitions.
    Take {
        /// `spec.leaseTransitions` from now on.
        transitions: u64,
    },
    /// Write that I still hold it.
    Renew,
    /// It is somebody else's: look again when it changes, or after this time, when it is free unless it was renewed.
    Wait(Duration),
}

/// Decides the next step of one that wants to hold the Lease.
#[must_use]
pub fn decide(observed: &Observed<'_>) -> Step {
    let Some(lease) = observed.lease else {
        return Step::Create;
    };
    let holder = lease.holder.as_deref().unwrap_or_default();
    if holder == observed.me {
        return Step::Renew;
    }
    let duration = lease.duration.unwrap_or(HOLD);
    let left = duration.saturating_sub(observed.unchanged_for);
    if holder.is_empty() || left.is_zero() {
        Step::Take {
            transitions: lease.transitions.saturating_add(1),
        }
    } else {
        Step::Wait(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> Lease {
        Lease {
            holder: Some(holder.to_owned()),
            duration: Some(HOLD),
            transitions: 3,
        }
    }

    fn step(lease: Option<&Lease>, unchanged_s: u64) -> Step {
        decide(&Observed {
            me: "a",
            lease,
            unchanged_for: Duration::from_secs(unchanged_s),
        })
    }

    #[test]
    fn a_lease_of_somebody_else_is_waited_for_until_it_has_not_changed_for_its_duration() {
        let lease = held_by("b");
        assert_eq!(step(Some(&lease), 14), Step::Wait(Duration::from_secs(1)));
        assert_eq!(step(Some(&lease), 15), Step::Take { transitions: 4 });
    }

    #[test]
    fn a_missing_or_released_lease_is_taken_at_once() {
        assert_eq!(step(None, 0), Step::Create);
        assert_eq!(step(Some(&held_by("")), 0), Step::Take { transitions: 4 });
        assert_eq!(
            step(Some(&Lease::default()), 0),
            Step::Take { transitions: 1 }
        );
    }

    #[test]
    fn the_holder_renews_however_old_the_lease_looks() {
        assert_eq!(step(Some(&held_by("a")), 900), Step::Renew);
    }

    #[test]
    fn the_holder_stops_before_another_may_start() {
        let terms = Terms::default().check().unwrap();
        assert!(!terms.is_lost(Duration::from_secs(9)));
        assert!(terms.is_lost(terms.renew_deadline));
        assert!(terms.renew_deadline + terms.retry < terms.hold);
    }

    #[test]
    fn terms_by_which_two_would_work_at_once_or_none_for_long_are_refused() {
        let terms = |hold, renew_deadline, retry| Terms {
            hold: Duration::from_secs(hold),
            renew_deadline: Duration::from_secs(renew_deadline),
            retry: Duration::from_secs(retry),
        };
        assert!(terms(3, 2, 1).check().is_ok());
        for (hold, renew_deadline, retry) in [(10, 10, 2), (15, 2, 2), (3, 2, 0)] {
            assert!(terms(hold, renew_deadline, retry).check().is_err());
        }
    }
}
