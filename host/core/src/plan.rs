//! What `decide` and `perform` exchange: plans of complete steps, waits, outcomes and failures.

use std::time::Duration;

/// The most steps that one plan may have; the driver refuses longer ones. A MachineSet of 500 replicas creates its machines in
/// several plans, each as large as is useful to do in parallel.
pub const STEPS_MAX: usize = 64;

/// What should happen next, what is waited for, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    /// In order; each complete, so that performing it needs no further choice.
    pub steps: Vec<S>,
    /// What is waited for, for people.
    pub waits: Vec<Wait>,
    /// When to look again if nothing changes before.
    pub next: Next,
}

impl<S> Plan<S> {
    /// A plan that does nothing and waits for changes.
    #[must_use]
    pub fn settled() -> Self {
        Self {
            steps: Vec::new(),
            waits: Vec::new(),
            next: Next::Settled,
        }
    }

    /// A plan of these steps.
    #[must_use]
    pub fn of(steps: Vec<S>) -> Self {
        Self {
            steps,
            waits: Vec::new(),
            next: Next::Settled,
        }
    }

    /// Adds a wait.
    #[must_use]
    pub fn waiting(mut self, on: impl Into<String>, message: impl Into<String>) -> Self {
        self.waits.push(Wait {
            on: on.into(),
            message: message.into(),
        });
        self
    }

    /// Looks again after this time at the latest.
    #[must_use]
    pub fn check_after(mut self, after: Duration) -> Self {
        self.next = self.next.min(Next::CheckAfter(after));
        self
    }
}

/// One thing that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The condition reason that names the wait.
    pub on: String,
    /// The thing waited for and who makes the next move.
    pub message: String,
}

/// When to look again. There is no "at once".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something that is watched changes.
    Settled,
    /// After this time at the latest.
    CheckAfter(Duration),
}

impl Next {
    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::Settled, next) | (next, Self::Settled) => next,
            (Self::CheckAfter(a), Self::CheckAfter(b)) => Self::CheckAfter(a.min(b)),
        }
    }
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<S, E = ()> {
    /// Steps that were done, in order, each with what it answered.
    pub done: Vec<(S, E)>,
    /// The first step that failed; later ones were not tried, unless they do not build on each other.
    pub failed: Option<(S, Failure)>,
}

impl<S, E> Default for Outcome<S, E> {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            failed: None,
        }
    }
}

/// What a failure means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Try again, with back-off.
    Transient,
    /// Of no use until the object changes.
    Terminal,
    /// A grant, a credential or a right is missing.
    Denied,
}

/// Why a step could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What it means for the next try.
    pub kind: FailureKind,
    /// CamelCase, for a condition.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Not before this time has passed.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that is worth another try.
    #[must_use]
    pub fn transient(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Transient,
            reason: reason.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// Whether somebody else was faster: it is looked at again at once, and is news to nobody.
    #[must_use]
    pub fn is_lost_race(&self) -> bool {
        self.reason == capstan_api::reason::failure::CONFLICT
    }

    /// A failure that stays until the object changes.
    #[must_use]
    pub fn terminal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Terminal,
            reason: reason.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// A missing permission.
    #[must_use]
    pub fn denied(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Denied,
            reason: reason.into(),
            message: message.into(),
            retry_after: None,
        }
    }
}
