//! Metrics in the text form that Prometheus reads: of controllers, of plugins by function and outcome, of the process.

mod cluster;
mod code;

use std::fmt;

use capstan_controllers::ctx::Ctx;
use capstan_engine::limit::TICK;
use capstan_engine::{BreakerState, Durations, Engine, Loaded};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use self::cluster::{Certificates, Etcd};
use self::code::{Code, encode_durations};
use super::Phase;

/// Everything that is known in this phase.
pub(super) fn text(phase: &Phase) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    registry.register_collector(Box::new(Working(matches!(phase, Phase::Working { .. }))));
    if let Phase::Working {
        ctx,
        engine,
        metrics,
    } = phase
    {
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Calls::read(ctx, engine)));
        registry.register_collector(Box::new(Code(engine.stats().code)));
        registry.register_collector(Box::new(Certificates::read(ctx)));
        registry.register_collector(Box::new(Etcd::read(ctx)));
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

/// Whether this host works, and does not stand by.
#[derive(Debug)]
struct Working(bool);

impl Collector for Working {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new(i64::from(self.0));
        let help = "1 on the host that works, 0 on one that starts or stands by";
        gauge.encode(encoder.encode_descriptor(
            "capstan_working",
            help,
            None,
            gauge.metric_type(),
        )?)
    }
}

/// One active plugin.
#[derive(Debug)]
struct Plugin {
    name: String,
    version: String,
    digest: String,
    held_back: bool,
    compile_s: f64,
    cached: bool,
    compiled_bytes: u64,
    memory_peak_bytes: u64,
    cpu_s: f64,
    http: Vec<(String, &'static str, u64)>,
}

impl Plugin {
    fn of(name: &str, loaded: &Loaded) -> Self {
        let ticks = u32::try_from(loaded.ticks()).unwrap_or(u32::MAX);
        Self {
            name: name.to_owned(),
            version: loaded.manifest().version.clone(),
            digest: loaded.digest().to_owned(),
            held_back: loaded.breaker() != BreakerState::Closed,
            compile_s: loaded.compile_time().as_secs_f64(),
            cached: loaded.cached(),
            compiled_bytes: loaded.compiled_bytes(),
            memory_peak_bytes: u64::try_from(loaded.memory_peak()).unwrap_or(u64::MAX),
            cpu_s: TICK.as_secs_f64() * f64::from(ticks),
            http: loaded.http_answers(),
        }
    }
}

/// Reads one figure of a plugin.
type Figure = fn(&Plugin) -> f64;

/// Figures of a plugin: name, help, value.
const FIGURES: [(&str, &str, Figure); 5] = [
    (
        "capstan_plugin_held_back",
        "1 while calls are held back because the plugin failed again and again",
        |plugin| f64::from(u8::from(plugin.held_back)),
    ),
    (
        "capstan_plugin_compile_seconds",
        "How long compiling took, also when it was an earlier host that did it",
        |plugin| plugin.compile_s,
    ),
    (
        "capstan_plugin_cached",
        "1 when the native code was in the cache already",
        |plugin| f64::from(u8::from(plugin.cached)),
    ),
    (
        "capstan_plugin_compiled_bytes",
        "Size of the native code",
        |plugin| f64::from(u32::try_from(plugin.compiled_bytes).unwrap_or(u32::MAX)),
    ),
    (
        "capstan_plugin_memory_peak_bytes",
        "The most memory that one call has had",
        |plugin| f64::from(u32::try_from(plugin.memory_peak_bytes).unwrap_or(u32::MAX)),
    ),
];

/// Calls of one function of one plugin.
#[derive(Debug)]
struct Line {
    plugin: String,
    /// Of the canary, and not of the component beside it.
    canary: bool,
    function: &'static str,
    outcomes: Vec<(&'static str, u64)>,
    took: Durations,
    instantiate_s: f64,
}

/// What was counted of plugins.
#[derive(Debug)]
struct Calls {
    lines: Vec<Line>,
    details: Vec<Plugin>,
    active: i64,
    plugins: i64,
    memory_bytes: i64,
    memory_bytes_max: i64,
}

impl Calls {
    fn read(ctx: &Ctx, engine: &Engine) -> Self {
        let names = ctx.plugins.names();
        let plugins = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let stats = engine.stats();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let loaded: Vec<_> = names
            .into_iter()
            .filter_map(|name| Some((ctx.plugins.get(&name)?, name)))
            .collect();
        let details = loaded.iter();
        let details = details.map(|(plugin, name)| Plugin::of(name, &plugin.loaded));
        let details = details.collect();
        let lines = loaded.iter().flat_map(|(plugin, name)| {
            let canary = plugin.canary.as_ref().map(|canary| &canary.plugin.loaded);
            let both = [(false, Some(&plugin.loaded)), (true, canary)];
            let both = both.into_iter();
            both.filter_map(|(canary, loaded)| Some((canary, loaded?)))
                .flat_map(move |(canary, loaded)| Line::of(name, canary, loaded))
        });
        Self {
            lines: lines.collect(),
            details,
            active: gauge(stats.calls_active),
            plugins,
            memory_bytes: gauge(stats.guest_memory_bytes),
            memory_bytes_max: gauge(stats.guest_memory_bytes_max),
        }
    }
}

impl Line {
    fn of(plugin: &str, canary: bool, loaded: &Loaded) -> Vec<Self> {
        let stats = loaded.stats().into_iter();
        stats
            .map(|stats| Self {
                plugin: plugin.to_owned(),
                canary,
                function: stats.function.as_str(),
                outcomes: stats
                    .outcomes
                    .iter()
                    .map(|(outcome, count)| (outcome.as_str(), *count))
                    .collect(),
                took: stats.took,
                instantiate_s: stats.instantiate.as_secs_f64(),
            })
            .collect()
    }

    fn labels(&self) -> [(&str, &str); 3] {
        [
            ("plugin", self.plugin.as_str()),
            ("function", self.function),
            ("canary", self.canary()),
        ]
    }

    fn canary(&self) -> &'static str {
        if self.canary { "true" } else { "false" }
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_sums(&mut encoder)?;
        let help = "Which component answers calls";
        let mut info =
            encoder.encode_descriptor("capstan_plugin_info", help, None, MetricType::Gauge)?;
        for plugin in &self.details {
            let labels = [
                ("plugin", plugin.name.as_str()),
                ("version", plugin.version.as_str()),
                ("digest", plugin.digest.as_str()),
            ];
            ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)?;
        }
        for (name, help, value) in FIGURES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for plugin in &self.details {
                let labels = [("plugin", plugin.name.as_str())];
                ConstGauge::new(value(plugin)).encode(family.encode_family(&labels)?)?;
            }
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
                    ("canary", line.canary()),
                ];
                ConstCounter::new(*count).encode(calls.encode_family(&labels)?)?;
            }
        }
        self.encode_usage(&mut encoder)?;
        let help = "Time of calls, waiting for turns and servers included";
        let name = "capstan_plugin_call_duration_seconds";
        let mut took = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for line in &self.lines {
            encode_durations(&line.took, took.encode_family(&line.labels())?)?;
        }
        let help = "Time of that spent on making instances";
        let name = "capstan_plugin_instantiate_seconds";
        let mut made = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for line in &self.lines {
            ConstCounter::new(line.instantiate_s).encode(made.encode_family(&line.labels())?)?;
        }
        Ok(())
    }
}

impl Calls {
    /// What is counted of all plugins together.
    fn encode_sums(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
            (
                "capstan_plugin_guest_memory_bytes",
                "Memory of the calls in flight",
                self.memory_bytes,
            ),
            (
                "capstan_plugin_guest_memory_limit_bytes",
                "The most that the memory of all calls in flight may be",
                self.memory_bytes_max,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }

    /// Processor time and requests.
    fn encode_usage(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Processor time of calls, in steps of 10 ms; most calls take less than one";
        let name = "capstan_plugin_cpu_seconds";
        let mut cpu = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for plugin in &self.details {
            let labels = [("plugin", plugin.name.as_str())];
            ConstCounter::new(plugin.cpu_s).encode(cpu.encode_family(&labels)?)?;
        }
        let help = "HTTP requests of plugins by granted origin and kind of status";
        let name = "capstan_plugin_http_requests";
        let mut requests = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for plugin in &self.details {
            for (origin, status, count) in &plugin.http {
                let labels = [
                    ("plugin", plugin.name.as_str()),
                    ("origin", origin.as_str()),
                    ("status", status),
                ];
                ConstCounter::new(*count).encode(requests.encode_family(&labels)?)?;
            }
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

    /// Two calls of up to half a millisecond, and one that took longer than all bounds.
    fn durations() -> Durations {
        let mut took = Durations {
            longer: 1,
            sum: std::time::Duration::from_millis(101_001),
            ..Durations::default()
        };
        took.buckets[0] = 2;
        took
    }

    fn calls() -> Calls {
        let line = Line {
            plugin: "infrastructure-local".to_owned(),
            canary: false,
            function: "ensure-machine",
            outcomes: vec![("answered", 3), ("trapped", 0)],
            took: durations(),
            instantiate_s: 0.25,
        };
        let detail = Plugin {
            name: "infrastructure-local".to_owned(),
            version: "1.2.3".to_owned(),
            digest: "sha256:0".to_owned(),
            held_back: true,
            compile_s: 2.5,
            cached: false,
            compiled_bytes: 7,
            memory_peak_bytes: 9,
            cpu_s: 0.5,
            http: vec![("https://*.example.com".to_owned(), "2xx", 4)],
        };
        Calls {
            lines: vec![line],
            details: vec![detail],
            active: 1,
            plugins: 1,
            memory_bytes: 5,
            memory_bytes_max: 6,
        }
    }

    fn everything() -> String {
        let mut registry = Registry::default();
        let metrics = capstan_controllers::metrics::Metrics::default();
        metrics.reconciled("machine", "success", std::time::Duration::from_secs(1));
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Process));
        registry.register_collector(Box::new(Working(true)));
        registry.register_collector(Box::new(calls()));
        registry.register_collector(Box::new(Certificates::default()));
        registry.register_collector(Box::new(Etcd::default()));
        registry.register_collector(Box::new(Code(capstan_engine::CodeStats {
            hits: 3,
            misses: 1,
            failed: durations(),
            ..capstan_engine::CodeStats::default()
        })));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn calls_are_told_apart_by_plugin_function_and_outcome() {
        let text = everything();
        let labels = "plugin=\"infrastructure-local\",function=\"ensure-machine\"";
        for line in [
            format!("capstan_plugin_calls_total{{{labels},outcome=\"answered\",canary=\"false\"}} 3"),
            format!("capstan_plugin_call_duration_seconds_sum{{{labels},canary=\"false\"}} 101.001"),
            format!("capstan_plugin_call_duration_seconds_count{{{labels},canary=\"false\"}} 3"),
            format!("capstan_plugin_call_duration_seconds_bucket{{le=\"0.0005\",{labels},canary=\"false\"}} 2"),
            format!("capstan_plugin_call_duration_seconds_bucket{{le=\"100.0\",{labels},canary=\"false\"}} 2"),
            format!("capstan_plugin_call_duration_seconds_bucket{{le=\"+Inf\",{labels},canary=\"false\"}} 3"),
            "capstan_plugin_code_cache_total{result=\"hit\"} 3".to_owned(),
            "capstan_plugin_code_cache_total{result=\"miss\"} 1".to_owned(),
            "capstan_plugin_compile_duration_seconds_count{outcome=\"compiled\"} 0".to_owned(),
            "capstan_plugin_compile_duration_seconds_count{outcome=\"failed\"} 3".to_owned(),
            "capstan_plugin_http_requests_total{plugin=\"infrastructure-local\",origin=\"https://*.example.com\",status=\"2xx\"} 4"
                .to_owned(),
            "capstan_plugin_cpu_seconds_total{plugin=\"infrastructure-local\"} 0.5".to_owned(),
            "capstan_plugin_held_back{plugin=\"infrastructure-local\"} 1.0".to_owned(),
            "capstan_working 1".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(!text.contains("trapped"), "{text}");
    }

    #[test]
    fn the_documented_buckets_are_those_that_are_served() {
        let text = include_str!("../../METRICS.md");
        let (_, said) = text.split_once("buckets of ").unwrap();
        let (said, _) = said.split_once(" s").unwrap();
        let said: Vec<f64> = said
            .split([',', ' '])
            .filter_map(|word| word.parse().ok())
            .collect();
        let served = capstan_engine::BUCKETS_US.iter();
        let served: Vec<f64> = served
            .map(|us| std::time::Duration::from_micros(*us).as_secs_f64())
            .collect();
        assert_eq!(said, served);
    }

    #[test]
    fn the_table_has_every_metric_and_nothing_else() {
        let text = everything();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut served: Vec<String> = types
            .map(|line| {
                let (name, kind) = line.split_once(' ').unwrap();
                let total = if kind == "counter" { "_total" } else { "" };
                format!("{name}{total} {kind}")
            })
            .collect();
        let rows = include_str!("../../METRICS.md").lines();
        let mut documented: Vec<String> = rows
            .filter_map(|row| {
                let mut cells = row.strip_prefix("| `")?.split(" | ");
                let name = cells.next()?.trim_end_matches('`').to_owned();
                Some(format!("{name} {}", cells.next()?))
            })
            .collect();
        served.sort();
        documented.sort();
        assert_eq!(served, documented);
    }
}
