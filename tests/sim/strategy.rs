//! The shipped upgrade strategy as the host calls it, sometimes failing, trapping, or answering what must be refused.

use std::sync::Arc;

use capstan_core::call::strategy::{Answer, Facts};
use capstan_core::machine_deployment::StrategyAnswer;
use capstan_engine::{CallEnv, CallError, Native};
use capstan_strategy_tests::ask::ask;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;
use upgrade_rolling_update::RollingUpdate;

use crate::world::World;

/// The plugin `upgrade-rolling-update`.
pub struct SimulatedStrategy {
    world: Arc<World>,
}

impl SimulatedStrategy {
    /// A plugin for this world.
    #[must_use]
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

impl Native for SimulatedStrategy {
    fn plan_upgrade(&self, _: CallEnv, facts: Facts) -> BoxFuture<'_, Result<Answer, CallError>> {
        async move {
            let (takes, how) = {
                let mut state = self.world.lock();
                let rate = state.rates().plugin;
                let takes = state.plugins.millis(1, 20);
                let goes_wrong = state.plugins.happens(rate);
                (takes, goes_wrong.then(|| state.plugins.below(4)))
            };
            sleep(takes).await;
            let trap = |message: &str| CallError::Trap {
                message: message.to_owned(),
                backtrace_last_line: String::new(),
            };
            if how == Some(0) {
                return Err(trap("unreachable"));
            }
            let mut answer = match ask::<RollingUpdate>(&facts) {
                StrategyAnswer::Answer(answer) => *answer,
                other => return Err(trap(&format!("{other:?}"))),
            };
            match how {
                // Everything at once: above the surge or below the floor, which the host must not do.
                Some(1) => {
                    for target in &mut answer.targets {
                        target.replicas = facts.replicas.saturating_mul(3);
                    }
                }
                Some(2) => {
                    for target in &mut answer.targets {
                        target.replicas = 0;
                    }
                }
                Some(3) => answer.delete_first.push("nobody".to_owned()),
                _ => {}
            }
            Ok(answer)
        }
        .boxed()
    }
}
