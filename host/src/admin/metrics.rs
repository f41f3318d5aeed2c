//! Metrics in the text form that Prometheus reads: of controllers, of plugins by function and outcome, of the process.

use std::fmt;

use capstan_controllers::ctx::Ctx;
use capstan_engine::Engine;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::Phase;

/// Reads one figure of a line.
type Seconds = fn(&Line) -> f64;

/// Everything that is known in this phase.
pub(super) fn text(phase: &Phase) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    if let Phase::Working {
        ctx,
        engine,
        metrics,
    } = phase
    {
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Calls::read(ctx, engine)));
        registry.register_collector(Box::new(Certificates::read(ctx)));
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What the system says of this process.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(usage) = capstan_local::process::usage(std::process::id()) else {
            return Ok(());
        };
        let cpu = ConstCounter::new(usage.cpu.as_secs_f64());
        let help = "Processor time that the host has used";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            cpu.metric_type(),
        )?)?;
        for (name, help, bytes) in [
            (
                "process_resident_memory_bytes",
                "Resident memory of the host",
                usage.rss_bytes,
            ),
            (
                "capstan_resident_memory_peak_bytes",
                "Most resident memory so far",
                usage.rss_peak_bytes,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Calls of one function of one plugin.
#[derive(Debug)]
struct Line {
    plugin: String,
    function: &'static str,
    outcomes: Vec<(&'static str, u64)>,
    total_s: f64,
    instantiate_s: f64,
}

/// What was counted of plugins.
#[derive(Debug)]
struct Calls {
    lines: Vec<Line>,
    active: i64,
    plugins: i64,
}

impl Calls {
    fn read(ctx: &Ctx, engine: &Engine) -> Self {
        let names = ctx.plugins.names();
        let plugins = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let active = i64::try_from(engine.stats().calls_active).unwrap_or(i64::MAX);
        let loaded = names
            .into_iter()
            .filter_map(|name| Some((ctx.plugins.get(&name)?, name)));
        let lines = loaded.flat_map(|(plugin, name)| {
            plugin.loaded.stats().into_iter().map(move |stats| Line {
                plugin: name.clone(),
                function: stats.function.as_str(),
                outcomes: stats
                    .outcomes
                    .iter()
                    .map(|(o, count)| (o.as_str(), *count))
                    .collect(),
                total_s: stats.total.as_secs_f64(),
                instantiate_s: stats.instantiate.as_secs_f64(),
            })
        });
        Self {
            lines: lines.collect(),
            active,
            plugins,
        }
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in [
            (
                "capstan_plugins_active",
                "Plugins that are called",
                self.plugins,
            ),
            (
                "capstan_plugin_calls_active",
                "Calls of plugins in flight",
                self.active,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let help = "Calls of plugins by function and outcome, since the plugin's digest is active";
        let mut calls =
            encoder.encode_descriptor("capstan_plugin_calls", help, None, MetricType::Counter)?;
        for line in &self.lines {
            for (outcome, count) in line.outcomes.iter().filter(|(_, count)| *count > 0) {
                let labels = [
                    ("plugin", line.plugin.as_str()),
                    ("function", line.function),
                    ("outcome", outcome),
                ];
                ConstCounter::new(*count).encode(calls.encode_family(&labels)?)?;
            }
        }
        let seconds: [(&str, &str, Seconds); 2] = [
            (
                "capstan_plugin_call_seconds",
                "Time of calls, waiting for turns and servers included",
                |l| l.total_s,
            ),
            (
                "capstan_plugin_instantiate_seconds",
                "Time of that spent on making instances",
                |l| l.instantiate_s,
            ),
        ];
        for (name, help, value) in seconds {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for line in &self.lines {
                let labels = [
                    ("plugin", line.plugin.as_str()),
                    ("function", line.function),
                ];
                ConstCounter::new(value(line)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// When certificates of clusters end, as their control planes list them.
#[derive(Debug, Default)]
struct Certificates(Vec<Certificate>);

#[derive(Debug)]
struct Certificate {
    namespace: String,
    control_plane: String,
    name: String,
    end_s: i64,
}

impl Certificates {
    fn read(ctx: &Ctx) -> Self {
        let mut all = Self::default();
        for resource in ctx.plugins.kinds_with(&["control-plane"]) {
            let Some(store) = ctx.stores.get(&resource.group_kind()) else {
                continue;
            };
            for object in store.all() {
                all.add(&object.key.namespace, &object.key.name, &object.value);
            }
        }
        all
    }

    fn add(&mut self, namespace: &str, control_plane: &str, object: &Value) {
        let listed = object
            .pointer("/status/certificates")
            .and_then(Value::as_array);
        for entry in listed.into_iter().flatten() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str);
            let end = text("expirationDate").and_then(|end| end.parse::<Timestamp>().ok());
            let (Some(name), Some(end)) = (text("name"), end) else {
                continue;
            };
            self.0.push(Certificate {
                namespace: namespace.to_owned(),
                control_plane: control_plane.to_owned(),
                name: name.to_owned(),
                end_s: end.as_second(),
            });
        }
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "When a certificate of a cluster ends, in seconds since the Unix epoch";
        let name = "capstan_certificate_expiration_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for certificate in &self.0 {
            let labels = [
                ("namespace", certificate.namespace.as_str()),
                ("control_plane", certificate.control_plane.as_str()),
                ("certificate", certificate.name.as_str()),
            ];
            ConstGauge::new(certificate.end_s).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured_in_every_phase() {
        let text = text(&Phase::Starting).unwrap();
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_end_of_each_certificate_is_a_line() {
        let mut all = Certificates::default();
        let object = serde_json::json!({"status": {"certificates": [
            {"name": "ca", "expirationDate": "2036-01-01T00:00:00Z"}, {"name": "bad", "expirationDate": "soon"},
        ]}});
        all.add("n", "cp", &object);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(all));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = "capstan_certificate_expiration_timestamp_seconds{namespace=\"n\",control_plane=\"cp\",certificate=\"ca\"} 2082758400";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("bad"), "{text}");
    }

    #[test]
    fn calls_are_told_apart_by_plugin_function_and_outcome() {
        let line = Line {
            plugin: "infrastructure-local".to_owned(),
            function: "ensure-machine",
            outcomes: vec![("answered", 3), ("trapped", 0)],
            total_s: 1.5,
            instantiate_s: 0.25,
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Calls {
            lines: vec![line],
            active: 1,
            plugins: 1,
        }));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let labels = "plugin=\"infrastructure-local\",function=\"ensure-machine\"";
        assert!(
            text.contains(&format!(
                "capstan_plugin_calls_total{{{labels},outcome=\"answered\"}} 3"
            )),
            "{text}"
        );
        assert!(!text.contains("trapped"), "{text}");
        assert!(
            text.contains(&format!(
                "capstan_plugin_call_seconds_total{{{labels}}} 1.5"
            )),
            "{text}"
        );
    }
}
