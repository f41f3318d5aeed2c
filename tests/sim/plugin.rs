//! How the call of a simulated plugin goes: on time or late, honest or lying, trapping now and then.

use std::time::Duration;

use capstan_core::call::{PluginFailure, PluginFailureKind};
use capstan_engine::{CallEnv, CallError};
use tokio::time::sleep;

use crate::random::Random;
use crate::world::World;

/// What a call does beside what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Honest,
    /// Answers after so long.
    Late(Duration),
    /// Traps before it has done anything.
    TrapsBefore,
    /// Traps after it has done everything.
    TrapsAfter,
    /// Says that it failed, before it has done anything.
    Fails,
    /// Answers what must be refused.
    Lies(u64),
}

fn mood(random: &mut Random, rate: u32) -> Mood {
    if !random.happens(rate) {
        return Mood::Honest;
    }
    match random.below(6) {
        0 => Mood::Late(random.millis(100, 40_000)),
        1 => Mood::TrapsBefore,
        2 => Mood::TrapsAfter,
        3 => Mood::Fails,
        _ => Mood::Lies(random.below(4)),
    }
}

/// A plugin that trapped.
#[must_use]
pub fn trap(message: &str) -> CallError {
    CallError::Trap {
        message: message.to_owned(),
        backtrace_last_line: String::new(),
    }
}

/// Makes one call: `act` does what the plugin should, `lie` spoils the answer.
///
/// # Errors
/// What went wrong, by luck.
pub async fn call<T>(
    world: &World,
    env: &CallEnv,
    what: &str,
    act: impl FnOnce(&World) -> T,
    lie: impl FnOnce(&mut T, u64),
) -> Result<T, CallError> {
    let (mood, takes) = {
        let mut state = world.lock();
        let rate = state.rates().plugin;
        let mood = mood(&mut state.plugins, rate);
        (mood, state.plugins.millis(5, 80))
    };
    let takes = if let Mood::Late(late) = mood {
        late
    } else {
        takes
    };
    let limit = env.limits.wall;
    if takes > limit {
        sleep(limit).await;
        // Nobody waits for the answer any more, but the plugin may have done its work.
        if takes.as_millis() % 2 == 0 {
            drop(act(world));
            world.note(&format!("plugin {what} for {}: too late", env.object));
        }
        return Err(CallError::Deadline { limit });
    }
    sleep(takes).await;
    match mood {
        Mood::TrapsBefore => return Err(trap("unreachable")),
        Mood::Fails => {
            return Err(CallError::Plugin(PluginFailure {
                kind: PluginFailureKind::Transient,
                reason: "CloudBusy".to_owned(),
                message: "the cloud has no time".to_owned(),
                retry_after: None,
            }));
        }
        _ => {}
    }
    let mut answer = act(world);
    world.note(&format!("plugin {what} for {}: {mood:?}", env.object));
    world.changed();
    match mood {
        Mood::TrapsAfter => Err(trap("unreachable")),
        Mood::Lies(how) => {
            lie(&mut answer, how);
            Ok(answer)
        }
        _ => Ok(answer),
    }
}
