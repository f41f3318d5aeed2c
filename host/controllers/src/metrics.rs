//! Metrics of controllers, beside what they measure.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

/// Counters of all controllers.
#[derive(Default)]
pub struct Metrics {
    reconciles: Family<Reconcile, Counter>,
    seconds: Family<OfController, Counter<f64, std::sync::atomic::AtomicU64>>,
}

impl Metrics {
    /// Makes them visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "capstan_reconciles",
            "Reconciles by controller and outcome (success, conflict, failure, gone)",
            self.reconciles.clone(),
        );
        registry.register(
            "capstan_reconcile_seconds",
            "Time spent in reconciles, waiting for servers and plugins included",
            self.seconds.clone(),
        );
    }

    /// One reconcile ended.
    pub fn reconciled(&self, controller: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&Reconcile {
                controller,
                outcome,
            })
            .inc();
        self.seconds
            .get_or_create(&OfController { controller })
            .inc_by(took.as_secs_f64());
    }
}
