//! The simulated server does what the real one does, as far as controllers depend on it; `tests/it` has the other half.

use std::sync::Arc;

use capstan_simulation::Plan;
use capstan_simulation::behaviour::{self, Place};
use capstan_simulation::fault::Rates;
use capstan_simulation::scenario::NAMESPACE;
use capstan_simulation::server::HostApi;
use capstan_simulation::world::{Server, World};

macro_rules! simulated {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let world = World::new(1, Rates::default());
                world.lock().found(&Plan { steps: Vec::new(), ..Plan::of(1) });
                let nature = tokio::spawn(capstan_simulation::nature::run(Arc::clone(&world)));
                let api = HostApi::new(world, Server::Management);
                behaviour::$name(&Place { api: &api, namespace: NAMESPACE }).await;
                nature.abort();
            }
        )*
    };
}

capstan_simulation::behaviours!(simulated);
