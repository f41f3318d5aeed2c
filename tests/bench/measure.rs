//! What a scenario cost: time, writes by resource, processor time and memory of each process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use capstan_local::audit::{AuditLog, Counts, Mark};
use capstan_local::process::{Usage, usage};
use capstan_tests::host::USER;

use crate::clocks::Clocks;

/// The processes that are measured, by name.
#[derive(Clone, Debug)]
pub(crate) struct Processes(pub(crate) Vec<(String, u32)>);

/// The cost of one scenario.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// How many clusters.
    pub(crate) clusters: u32,
    /// What was done.
    pub(crate) scenario: &'static str,
    /// How long it took.
    pub(crate) took: Duration,
    /// How many machines it was about.
    pub(crate) machines: u32,
    /// The host's requests.
    pub(crate) counts: Counts,
    /// Processor time of each process.
    pub(crate) cpu: BTreeMap<String, Duration>,
    /// Peak resident memory of each process since its start, in MiB.
    pub(crate) peak_mib: BTreeMap<String, u64>,
    /// Where the host's time went.
    pub(crate) spent: Vec<String>,
}

/// A scenario that is under way.
pub(crate) struct Stopwatch<'a> {
    audit: &'a AuditLog,
    processes: &'a Processes,
    begun: Instant,
    mark: Mark,
    before: BTreeMap<String, Usage>,
    port: u16,
    clocks: Clocks,
}

fn usages(processes: &Processes) -> BTreeMap<String, Usage> {
    let all = processes.0.iter();
    all.filter_map(|(name, pid)| Some((name.clone(), usage(*pid)?)))
        .collect()
}

impl<'a> Stopwatch<'a> {
    /// Begins. The port is that of the host's metrics.
    pub(crate) fn start(audit: &'a AuditLog, processes: &'a Processes, port: u16) -> Self {
        Self {
            audit,
            processes,
            begun: Instant::now(),
            mark: audit.mark().unwrap(),
            before: usages(processes),
            port,
            clocks: Clocks::read(port),
        }
    }

    /// Ends, and says what it cost.
    pub(crate) fn stop(self, clusters: u32, scenario: &'static str, machines: u32) -> Row {
        let took = self.begun.elapsed();
        let after = usages(self.processes);
        let cpu = |(name, usage): (&String, &Usage)| {
            let before = self
                .before
                .get(name)
                .map(|usage| usage.cpu)
                .unwrap_or_default();
            (name.clone(), usage.cpu.saturating_sub(before))
        };
        let row = Row {
            clusters,
            scenario,
            took,
            machines,
            counts: self.audit.counts_since(self.mark).unwrap(),
            cpu: after.iter().map(cpu).collect(),
            peak_mib: after
                .iter()
                .map(|(name, usage)| (name.clone(), usage.rss_peak_bytes >> 20))
                .collect(),
            spent: Clocks::read(self.port).since(&self.clocks),
        };
        println!("{}", row.describe());
        row
    }
}

impl Row {
    fn writes(&self) -> u64 {
        self.counts.writes_of(USER)
    }

    fn per_machine(&self, count: f64) -> f64 {
        count / f64::from(self.machines.max(1))
    }

    fn cpu_s(&self, name: &str) -> f64 {
        self.cpu
            .get(name)
            .map(Duration::as_secs_f64)
            .unwrap_or_default()
    }

    fn peak(&self, name: &str) -> u64 {
        self.peak_mib.get(name).copied().unwrap_or_default()
    }

    /// The numbers, with the writes by resource.
    fn describe(&self) -> String {
        let mut text = format!(
            "{:<8} {:>7.1} s  {} machines, {} writes ({:.1} a machine)\n",
            self.scenario,
            self.took.as_secs_f64(),
            self.machines,
            self.writes(),
            self.per_machine(self.writes() as f64)
        );
        for (name, cpu) in &self.cpu {
            let cpu_s = cpu.as_secs_f64();
            let _ = writeln!(
                text,
                "    {name:<24} {cpu_s:>7.2} s processor ({:.3} a machine), peak {} MiB",
                self.per_machine(cpu_s),
                self.peak(name)
            );
        }
        for line in &self.spent {
            let _ = writeln!(text, "    {line}");
        }
        let mut writes: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut conflicts = 0;
        for (request, count) in self
            .counts
            .iter()
            .filter(|(request, _)| request.user == USER)
        {
            if request.is_write() {
                *writes
                    .entry((request.resource.clone(), request.verb.clone()))
                    .or_default() += count;
                conflicts += if request.code == 409 { count } else { 0 };
            }
        }
        for ((resource, verb), count) in writes {
            let each = self.per_machine(count as f64);
            let _ = writeln!(
                text,
                "    {count:>7} {verb:<7} {resource} ({each:.2} a machine)"
            );
        }
        let reads = self.counts.of_user(USER).saturating_sub(
            self.counts
                .count(|request| request.user == USER && request.is_write()),
        );
        let _ = write!(text, "    {reads:>7} reads, {conflicts} conflicts");
        text
    }
}

/// All rows in short, as a Markdown table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| clusters | scenario | s | writes/machine | host CPU s | CPU s/machine | host peak MiB | apiserver CPU s | apiserver peak MiB | etcd CPU s | etcd peak MiB |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {:.2} | {:.3} | {} | {:.2} | {} | {:.2} | {} |",
            row.clusters,
            row.scenario,
            row.took.as_secs_f64(),
            row.per_machine(row.writes() as f64),
            row.cpu_s("host"),
            row.per_machine(row.cpu_s("host")),
            row.peak("host"),
            row.cpu_s("kube-apiserver"),
            row.peak("kube-apiserver"),
            row.cpu_s("etcd"),
            row.peak("etcd"),
        );
    }
    text
}
