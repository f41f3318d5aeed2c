//! `capstan local status`: a table of what runs here. Reads without locking, so that it also
//! answers while another command works.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::out;
use crate::process::{self, Record};
use crate::state::{FILE_NAME, Phase, State};

/// The line for a directory in which nothing is up.
pub(super) fn nothing(dir: &Path) -> String {
    format!("nothing is up in {}", dir.display())
}

/// Prints the table. The exit code is 0 when everything runs and 1 otherwise.
pub(super) fn print(dir: &Path) -> anyhow::Result<ExitCode> {
    let path = dir.join(FILE_NAME);
    if !path.exists() {
        out::result(nothing(dir));
        return Ok(ExitCode::FAILURE);
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("could not read {}", path.display()))?;
    let state: State = serde_json::from_str(&text)
        .with_context(|| format!("could not understand {}", path.display()))?;
    if state.phase == Phase::Starting {
        out::result("`capstan local up` is at work here, or was interrupted");
    }
    if let Some(server) = &state.server {
        out::result(format!(
            "server {server}, kubeconfig {}",
            dir.join("kubeconfig").display()
        ));
    }
    out::result(row([
        "NAME", "STATE", "PID", "UPTIME", "MEMORY", "CPU", "PORTS", "LOG",
    ]));
    let mut is_whole = state.phase == Phase::Up;
    for record in state.processes() {
        let is_alive = process::is_alive(record);
        is_whole &= is_alive;
        out::result(describe(record, is_alive));
    }
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(record: &Record, is_alive: bool) -> String {
    let Record { name, pid, log, .. } = record;
    let pid = pid.to_string();
    let log = log.display().to_string();
    let usage = if is_alive {
        process::usage(record.pid)
    } else {
        None
    };
    let Some(usage) = usage else {
        return row([name, "ended", &pid, "-", "-", "-", "-", &log]);
    };
    let uptime_s = jiff::Timestamp::now()
        .duration_since(record.started_at)
        .as_secs();
    let ports: Vec<String> = record.ports.iter().map(u16::to_string).collect();
    let ports = if ports.is_empty() {
        "-".to_owned()
    } else {
        ports.join(",")
    };
    let memory = format!("{} MiB", usage.rss_bytes >> 20);
    let cpu = format!("{:.1} s", usage.cpu.as_secs_f64());
    row([
        name,
        "running",
        &pid,
        &uptime(uptime_s),
        &memory,
        &cpu,
        &ports,
        &log,
    ])
}

fn row([name, state, pid, uptime, memory, cpu, ports, log]: [&str; 8]) -> String {
    format!("{name:<24} {state:<8} {pid:>8} {uptime:>9} {memory:>9} {cpu:>9}  {ports:<11} {log}")
}

/// `42s`, `12m3s`, `5h2m`, `3d4h`.
fn uptime(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_shows_the_two_largest_units() {
        let shown: Vec<String> = [42, 723, 18_120, 273_600].map(uptime).into();
        assert_eq!(shown, ["42s", "12m3s", "5h2m", "3d4h"]);
    }
}
