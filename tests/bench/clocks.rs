//! Where the host says that its time goes: its own counters of reconciles and of plugin calls, which include waiting for servers.

use std::collections::BTreeMap;

use capstan_tests::process::scrape;

/// Counters of seconds that are told.
const SECONDS: [&str; 2] = [
    "capstan_reconcile_seconds_total{",
    "capstan_plugin_call_duration_seconds_sum{",
];
/// How many lines are told of a scenario: the rest is small.
const LINES: usize = 8;

/// Seconds so far, by counter with its labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks(BTreeMap<String, f64>);

impl Clocks {
    /// As they are now; none when the host does not answer, which the scenario itself will show.
    pub(crate) fn read(port: u16) -> Self {
        let text = scrape(port).unwrap_or_default();
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let is_told = SECONDS.iter().any(|counter| name.starts_with(counter));
            is_told.then_some((name.to_owned(), value.parse().ok()?))
        });
        Self(lines.collect())
    }

    /// What took longest since then, one line each.
    pub(crate) fn since(&self, before: &Self) -> Vec<String> {
        let spent = self.0.iter().map(|(name, seconds)| {
            let earlier = before.0.get(name).copied().unwrap_or_default();
            (seconds - earlier, name)
        });
        let mut spent: Vec<(f64, &String)> = spent.filter(|(seconds, _)| *seconds > 0.0).collect();
        spent.sort_by(|a, b| b.0.total_cmp(&a.0));
        spent.truncate(LINES);
        let lines = spent
            .into_iter()
            .map(|(seconds, name)| format!("{seconds:>10.2} s {name}"));
        lines.collect()
    }
}
