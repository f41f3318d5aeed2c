//! Counters of calls: by function and outcome, with how long they took; and of compiling. Cheap enough to count always.

mod duration;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use self::duration::DurationCounters;
pub use self::duration::{BUCKETS_US, Durations};
use crate::error::CallError;

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the WIT function of the same name")]
pub enum Function {
    Describe,
    EnsureCluster,
    DeleteCluster,
    EnsureMachine,
    DeleteMachine,
    BootstrapRequirements,
    Render,
    Desired,
    ControlPlaneRequirements,
    MachineConfig,
    Outdated,
    Components,
    Initialized,
    BeforeRollout,
    AfterStable,
    RunHook,
    PlanUpgrade,
}

impl Function {
    /// Every function, in the order of the counters.
    pub const ALL: [Self; 17] = [
        Self::Describe,
        Self::EnsureCluster,
        Self::DeleteCluster,
        Self::EnsureMachine,
        Self::DeleteMachine,
        Self::BootstrapRequirements,
        Self::Render,
        Self::Desired,
        Self::ControlPlaneRequirements,
        Self::MachineConfig,
        Self::Outdated,
        Self::Components,
        Self::Initialized,
        Self::BeforeRollout,
        Self::AfterStable,
        Self::RunHook,
        Self::PlanUpgrade,
    ];

    /// The function of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|function| function.as_str() == name)
    }

    /// For logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::EnsureCluster => "ensure-cluster",
            Self::DeleteCluster => "delete-cluster",
            Self::EnsureMachine => "ensure-machine",
            Self::DeleteMachine => "delete-machine",
            Self::BootstrapRequirements => "bootstrap-requirements",
            Self::Render => "render",
            Self::Desired => "desired",
            Self::ControlPlaneRequirements => "control-plane-requirements",
            Self::MachineConfig => "machine-config",
            Self::Outdated => "outdated",
            Self::Components => "components",
            Self::Initialized => "initialized",
            Self::BeforeRollout => "before-rollout",
            Self::AfterStable => "after-stable",
            Self::RunHook => "run-hook",
            Self::PlanUpgrade => "plan-upgrade",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallOutcome {
    /// With an answer that was accepted.
    Answered,
    /// With a failure that the plugin answered.
    Failed,
    /// With a trap.
    Trapped,
    /// Too long, by the clock or by CPU time.
    TimedOut,
    /// Out of memory.
    OutOfMemory,
    /// With an answer that was refused.
    BadAnswer,
    /// Before it started: not granted, too large, not offered, no turn, no memory left, stopped.
    Refused,
    /// With trouble of the host itself: nothing that the plugin did.
    Host,
    /// By whoever had made it, before it had ended.
    Dropped,
}

impl CallOutcome {
    /// Every outcome, in the order of the counters.
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::Failed,
        Self::Trapped,
        Self::TimedOut,
        Self::OutOfMemory,
        Self::BadAnswer,
        Self::Refused,
        Self::Host,
        Self::Dropped,
    ];

    /// For metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Trapped => "trapped",
            Self::TimedOut => "timed-out",
            Self::OutOfMemory => "out-of-memory",
            Self::BadAnswer => "bad-answer",
            Self::Refused => "refused",
            Self::Host => "host",
            Self::Dropped => "dropped",
        }
    }

    pub(crate) fn of<T>(result: &Result<T, CallError>) -> Self {
        match result {
            Ok(_) => Self::Answered,
            Err(CallError::Plugin(_)) => Self::Failed,
            Err(CallError::Trap { .. }) => Self::Trapped,
            Err(CallError::Host { .. }) => Self::Host,
            Err(CallError::Deadline { .. } | CallError::Cpu { .. }) => Self::TimedOut,
            Err(CallError::Memory { .. } | CallError::Table { .. }) => Self::OutOfMemory,
            Err(CallError::BadAnswer { .. }) => Self::BadAnswer,
            Err(
                CallError::Refused { .. }
                | CallError::BadInput { .. }
                | CallError::NotOffered { .. }
                | CallError::Busy { .. }
                | CallError::Crowded { .. }
                | CallError::BreakerOpen { .. },
            ) => Self::Refused,
        }
    }
}

/// Counters of one function.
#[derive(Debug, Default)]
struct Line {
    outcomes: [AtomicU64; CallOutcome::ALL.len()],
    took: DurationCounters,
    instantiate_ns: AtomicU64,
}

/// Counters of all functions.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    lines: [Line; Function::ALL.len()],
}

impl Counters {
    /// Counts one call that has ended.
    pub(crate) fn count(
        &self,
        function: Function,
        outcome: CallOutcome,
        total: Duration,
        instantiate: Duration,
    ) {
        let Some(line) = self.lines.get(function as usize) else {
            return;
        };
        if let Some(outcome) = line.outcomes.get(outcome as usize) {
            outcome.fetch_add(1, Ordering::Relaxed);
        }
        line.took.count(total);
        line.instantiate_ns
            .fetch_add(nanoseconds(instantiate), Ordering::Relaxed);
    }

    /// What was counted, functions without calls left out.
    pub(crate) fn read(&self) -> Vec<FunctionStats> {
        Function::ALL
            .into_iter()
            .zip(&self.lines)
            .map(|(function, line)| FunctionStats {
                function,
                outcomes: CallOutcome::ALL
                    .into_iter()
                    .zip(&line.outcomes)
                    .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
                    .collect(),
                took: line.took.read(),
                instantiate: Duration::from_nanos(line.instantiate_ns.load(Ordering::Relaxed)),
            })
            .filter(|stats| stats.outcomes.iter().any(|(_, count)| *count > 0))
            .collect()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What was counted of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionStats {
    /// Which.
    pub function: Function,
    /// How many calls ended how.
    pub outcomes: Vec<(CallOutcome, u64)>,
    /// From the wish to call until the end.
    pub took: Durations,
    /// Of that, making instances, together.
    pub instantiate: Duration,
}

impl FunctionStats {
    /// How many calls ended so.
    #[must_use]
    pub fn count(&self, outcome: CallOutcome) -> u64 {
        self.outcomes
            .iter()
            .find(|(of, _)| *of == outcome)
            .map_or(0, |(_, count)| *count)
    }
}

/// What was counted of the whole engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStats {
    /// Instances come from a pool.
    pub pooling: bool,
    /// Calls in flight.
    pub calls_active: usize,
    /// Bytes of the memories of calls in flight.
    pub guest_memory_bytes: usize,
    /// The most that these may be.
    pub guest_memory_bytes_max: usize,
    /// By function.
    pub calls: Vec<FunctionStats>,
    /// Of components.
    pub code: CodeStats,
}

/// Counters of native code.
#[derive(Debug, Default)]
pub(crate) struct CodeCounters {
    hits: AtomicU64,
    misses: AtomicU64,
    compiled: DurationCounters,
    failed: DurationCounters,
}

impl CodeCounters {
    /// It was there already.
    pub(crate) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// It was not: it is compiled.
    pub(crate) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// The compiler has ended.
    pub(crate) fn compiled(&self, took: Duration, is_good: bool) {
        let counters = if is_good {
            &self.compiled
        } else {
            &self.failed
        };
        counters.count(took);
    }

    /// What was counted.
    pub(crate) fn read(&self) -> CodeStats {
        CodeStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            compiled: self.compiled.read(),
            failed: self.failed.read(),
        }
    }
}

/// What was counted of native code: who finds it in the cache, and how long making it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeStats {
    /// Components whose code was in the cache.
    pub hits: u64,
    /// Components whose code was not.
    pub misses: u64,
    /// Runs of the compiler that made code.
    pub compiled: Durations,
    /// Runs of the compiler that did not.
    pub failed: Durations,
}
