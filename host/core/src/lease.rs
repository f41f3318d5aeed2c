//! Who of several hosts works: the decision of a leader election over one Lease.
//!
//! Clocks of machines differ, so nobody believes the time that is written in a Lease: a candidate waits until the Lease has
//! not changed for its whole duration by its own clock (contract: client-go `leaderelection`).

use std::time::Duration;

/// How long a Lease holds without being renewed.
pub const HOLD: Duration = Duration::from_secs(15);

/// How long the holder may fail to renew before it gives up; less than [`HOLD`], so that it stops before another starts.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at the Lease, and between two renewals.
pub const RETRY: Duration = Duration::from_secs(2);

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
    /// Look again after [`RETRY`].
    Wait,
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
    let is_free = holder.is_empty() || observed.unchanged_for >= lease.duration.unwrap_or(HOLD);
    if is_free {
        Step::Take {
            transitions: lease.transitions.saturating_add(1),
        }
    } else {
        Step::Wait
    }
}

/// Whether a holder that last renewed so long ago must stop working.
#[must_use]
pub fn is_lost(since_renewal: Duration) -> bool {
    since_renewal >= RENEW_DEADLINE
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
        assert_eq!(step(Some(&lease), 14), Step::Wait);
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
        assert!(!is_lost(Duration::from_secs(9)));
        assert!(is_lost(RENEW_DEADLINE));
        assert!(RENEW_DEADLINE.saturating_add(RETRY) < HOLD);
    }
}
