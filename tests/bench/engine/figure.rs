//! What was measured, as a table: the figure, and what it is held against.

use std::fmt;
use std::time::Duration;

/// Lines of the table, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Figures(Vec<[String; 3]>);

impl Figures {
    /// Adds a line; `beside` is what trial code cost, or the threshold.
    pub(crate) fn add(&mut self, what: impl Into<String>, figure: String, beside: &str) {
        let what = what.into();
        println!("{what}: {figure}");
        self.0.push([what, figure, beside.to_owned()]);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "measured", "trial code, threshold"].map(str::to_owned);
        let width = |column: usize| {
            let cells = self.0.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0).max(head[column].chars().count())
        };
        let (first, second) = (width(0), width(1));
        for [what, figure, beside] in std::iter::once(&head).chain(&self.0) {
            writeln!(f, "{what:first$}  {figure:second$}  {beside}")?;
        }
        Ok(())
    }
}

/// Sorted times.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that so many of a hundred stay below.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} median, {} p99",
            short(self.median()),
            short(self.percentile(99))
        )
    }
}

/// `243 us`, `1.2 ms`, `2.1 s`.
pub(crate) fn short(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..1000 => format!("{us} us"),
        us @ 1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// `12.3 MiB`.
pub(crate) fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// Memory of this process in KiB: `VmRSS` now, `VmHWM` at its highest.
pub(crate) fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
