//! The shipped upgrade strategies of Cluster API's two types as the host calls it, sometimes failing, trapping, or answering what must be refused.

use std::sync::Arc;

use capstan_core::call::strategy::{Answer, Facts};
use capstan_core::machine_deployment::StrategyAnswer;
use capstan_engine::{CallEnv, CallError, Native};
use capstan_strategy_tests::ask::Strategy;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;

use crate::plugin::trap;
use crate::world::World;

/// The plugin of a strategy.
pub struct SimulatedStrategy {
    world: Arc<World>,
    strategy: Strategy,
}

impl SimulatedStrategy {
    /// A plugin for this world.
    #[must_use]
    pub fn new(world: Arc<World>, strategy: Strategy) -> Self {
        Self { world, strategy }
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
                (takes, goes_wrong.then(|| state.plugins.below(5)))
            };
            sleep(takes).await;
            if how == Some(0) {
                return Err(trap("unreachable"));
            }
            let mut answer = match (self.strategy)(&facts) {
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
                // Only the one that may grow at all.
                Some(3) => {
                    for target in &mut answer.targets {
                        let mut sets = facts.machine_sets.iter();
                        if sets.any(|set| set.current && set.name == target.machine_set) {
                            target.replicas = facts.replicas.saturating_add(facts.max_surge + 1);
                        }
                    }
                }
                Some(4) => answer.delete_first.push("nobody".to_owned()),
                _ => {}
            }
            Ok(answer)
        }
        .boxed()
    }
}
