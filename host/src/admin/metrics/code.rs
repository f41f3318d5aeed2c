//! Metrics of native code: how often the cache had it, and how long the compiler takes.

use std::fmt;

use capstan_engine::{BUCKETS_US, CodeStats, Durations};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// What was counted by the engine.
#[derive(Debug)]
pub(super) struct Code(pub(super) CodeStats);

impl Collector for Code {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Components that were loaded, by whether their native code was in the cache";
        let name = "capstan_plugin_code_cache";
        let mut cache = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, count) in [("hit", self.0.hits), ("miss", self.0.misses)] {
            let labels = [("result", result)];
            ConstCounter::new(count).encode(cache.encode_family(&labels)?)?;
        }
        let help = "Time of the compiler by outcome";
        let name = "capstan_plugin_compile_duration_seconds";
        let mut compile = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (outcome, durations) in [("compiled", &self.0.compiled), ("failed", &self.0.failed)] {
            let labels = [("outcome", outcome)];
            encode_durations(durations, compile.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Writes a histogram with the engine's buckets.
pub(super) fn encode_durations(
    durations: &Durations,
    mut encoder: MetricEncoder<'_>,
) -> fmt::Result {
    let bounds = BUCKETS_US.iter();
    let bounds = bounds.map(|us| std::time::Duration::from_micros(*us).as_secs_f64());
    let mut buckets: Vec<(f64, u64)> = bounds.zip(durations.buckets).collect();
    buckets.push((f64::INFINITY, durations.longer));
    encoder.encode_histogram::<NoLabelSet>(
        durations.sum.as_secs_f64(),
        durations.count(),
        &buckets,
        None,
    )
}
