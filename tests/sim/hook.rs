//! A simulated pre-delete hook: holds each Machine for its time, and answers late, wrongly or not at all like other plugins. What it
//! was asked and what it answered is remembered, for what must be true of hooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_core::call::hook::{HookInput, Verdict};
use capstan_core::call::{PluginFailure, PluginFailureKind, Waiting};
use capstan_engine::{CallEnv, CallError, Native};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::object::{number, text, uid};
use crate::plugin::call;
use crate::world::World;

/// What one hook was asked about one Machine, and said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// It lets go from then on; absent until it was asked.
    lets_go_at: Option<Duration>,
    /// The host was told that the Machine may go.
    pub has_let_go: bool,
    /// How often in a row the host was told of a failure.
    pub failures: u32,
    /// One of them was final.
    pub has_failed_for_good: bool,
}

/// What hooks were asked, by UID of the Machine and name of the binding.
#[derive(Clone, Debug, Default)]
pub struct Hooks(BTreeMap<(String, String), Asked>);

impl Hooks {
    /// What became of one hook of one Machine.
    #[must_use]
    pub fn of(&self, machine: &str, hook: &str) -> Asked {
        let key = (machine.to_owned(), hook.to_owned());
        self.0.get(&key).copied().unwrap_or_default()
    }

    fn entry(&mut self, machine: &str, hook: &str) -> &mut Asked {
        self.0
            .entry((machine.to_owned(), hook.to_owned()))
            .or_default()
    }
}

/// The plugin.
pub struct SimulatedHook {
    world: Arc<World>,
}

impl SimulatedHook {
    /// A plugin for this world.
    #[must_use]
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// What goes wrong with hooks in particular.
    fn goes_wrong(&self) -> Option<CallError> {
        let mut state = self.world.lock();
        let rate = state.rates().plugin / 2;
        if !state.plugins.happens(rate) {
            return None;
        }
        Some(match state.plugins.below(3) {
            0 => CallError::Plugin(PluginFailure {
                kind: PluginFailureKind::Terminal,
                reason: "NoSuchVolume".to_owned(),
                message: "that will never work".to_owned(),
                retry_after: None,
            }),
            // These never reach the plugin: others made it trap, or take all memory.
            1 => CallError::BreakerOpen {
                retry_after: Duration::from_secs(10),
            },
            _ => CallError::Crowded { budget_bytes: 1 },
        })
    }
}

fn verdict(world: &World, machine: &str, hook: &str, holds: Duration) -> Verdict {
    let mut state = world.lock();
    let now = state.now();
    let asked = state.hooks.entry(machine, hook);
    let lets_go_at = *asked.lets_go_at.get_or_insert(now + holds);
    if lets_go_at <= now {
        return Verdict::Proceed;
    }
    Verdict::Waiting(Waiting {
        reason: "Busy".to_owned(),
        message: "not yet".to_owned(),
        check_after: Duration::from_secs(5),
    })
}

/// What the host must not believe, or not take at its word.
fn lie(verdict: &mut Verdict, how: u64) {
    let Verdict::Waiting(waiting) = verdict else {
        return;
    };
    match how {
        0 => waiting.check_after = Duration::ZERO,
        1 => waiting.check_after = Duration::from_secs(30 * 24 * 3_600),
        2 => waiting.message = "é".repeat(10_000),
        _ => waiting.reason = String::new(),
    }
}

impl Native for SimulatedHook {
    fn run_hook(
        &self,
        env: CallEnv,
        input: HookInput,
    ) -> BoxFuture<'_, Result<Verdict, CallError>> {
        async move {
            let (machine, hook) = (uid(&input.machine), text(&input.settings, "/name"));
            let wrong = self.goes_wrong();
            if let Some(error @ (CallError::BreakerOpen { .. } | CallError::Crowded { .. })) = wrong
            {
                return Err(error);
            }
            self.world.lock().check_hook_is_asked(&input);
            let holds = number(&input.settings, "/holdsSeconds").unwrap_or_default();
            let holds = Duration::from_secs(u64::try_from(holds).unwrap_or_default());
            let result = match wrong {
                Some(error) => Err(error),
                None => {
                    let act = |world: &World| verdict(world, machine, hook, holds);
                    call(&self.world, &env, "run-hook", act, lie).await
                }
            };
            let mut state = self.world.lock();
            let asked = state.hooks.entry(machine, hook);
            match &result {
                Ok(Verdict::Proceed) => asked.has_let_go = true,
                Ok(Verdict::Waiting(_)) => asked.failures = 0,
                Err(error) => {
                    asked.failures += 1;
                    asked.has_failed_for_good |= matches!(error, CallError::Plugin(failure)
                        if failure.kind == PluginFailureKind::Terminal);
                }
            }
            result
        }
        .boxed()
    }
}
