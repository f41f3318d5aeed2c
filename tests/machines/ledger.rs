//! What the life of a control plane costs: seconds, writes to the management cluster, and the memory of the host.

use std::time::Instant;

use capstan_local::audit::{AuditLog, Mark};
use capstan_tests::host::{TestHost, USER};

/// A line for each thing that was done.
pub struct Ledger {
    audit: AuditLog,
    mark: Mark,
    since: Instant,
    lines: Vec<String>,
}

impl Ledger {
    /// Begins now.
    pub fn open(host: &TestHost) -> Self {
        let audit = host.plane.audit().unwrap();
        Self {
            mark: audit.mark().unwrap(),
            audit,
            since: Instant::now(),
            lines: Vec::new(),
        }
    }

    /// What was done since the last entry is this.
    pub fn enter(&mut self, what: &str) {
        let counts = self.audit.counts_since(self.mark).unwrap();
        let line = format!(
            "| {what} | {} | {} | {} |",
            self.since.elapsed().as_secs(),
            counts.writes_of(USER),
            resident_mib()
        );
        eprintln!("{line}");
        self.lines.push(line);
        self.mark = counts.end;
        self.since = Instant::now();
    }

    /// The table.
    pub fn print(&self) {
        eprintln!(
            "\n| what | s | writes of the host | MiB of the host, this test included |\n| --- | ---: | ---: | ---: |\n{}\n",
            self.lines.join("\n")
        );
    }
}

/// Resident memory of this process, in which the host runs.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB").trim();
    kib.parse::<u64>().unwrap() >> 10
}
