//! What the system says about a process: its identity, whether it has ended, what it has used.

use std::time::{Duration, Instant};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, user and system, of all its threads.
    pub cpu: Duration,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// The most resident memory it ever had; equals `rss_bytes` where the system does not say.
    pub rss_peak_bytes: u64,
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::time::Duration;

    use super::Usage;

    /// Ticks in a second of the times in `/proc`; fixed by the kernel's interface to user space.
    const TICKS_PER_SECOND: u64 = 100;

    /// The fields of `/proc/<pid>/stat` from the third (state) on.
    fn stat(pid: u32) -> Option<Vec<String>> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        Some(rest.split_whitespace().map(str::to_owned).collect())
    }

    pub(crate) fn identity(pid: u32) -> Option<String> {
        let ticks = stat(pid)?.get(19)?.clone();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Some(format!("{}/{ticks}", boot.trim()))
    }

    pub(crate) fn is_zombie(pid: u32) -> bool {
        stat(pid).is_some_and(|fields| {
            fields
                .first()
                .is_some_and(|state| matches!(state.as_str(), "Z" | "X"))
        })
    }

    /// The time that two neighbouring fields of `stat`, user and system, add up to.
    fn cpu(fields: &[String], user: usize) -> Option<Duration> {
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let total = ticks(user)?.saturating_add(ticks(user.checked_add(1)?)?);
        let millis = total.saturating_mul(1000).checked_div(TICKS_PER_SECOND)?;
        Some(Duration::from_millis(millis))
    }

    pub(crate) fn children_cpu() -> Option<Duration> {
        cpu(&stat(std::process::id())?, 13)
    }

    pub(crate) fn usage(pid: u32) -> Option<Usage> {
        let fields = stat(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |key: &str| kib(key).unwrap_or_default().saturating_mul(1024);
        Some(Usage {
            cpu: cpu(&fields, 11)?,
            rss_bytes: bytes("VmRSS:"),
            rss_peak_bytes: bytes("VmHWM:"),
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::process::Command;
    use std::time::Duration;

    use super::Usage;

    fn ps(pid: u32, column: &str) -> Option<String> {
        let column = format!("{column}=");
        let output = Command::new("ps")
            .args(["-o", &column, "-p", &pid.to_string()])
            .output();
        let text = String::from_utf8(output.ok()?.stdout)
            .ok()?
            .trim()
            .to_owned();
        (!text.is_empty()).then_some(text)
    }

    pub(crate) fn identity(pid: u32) -> Option<String> {
        ps(pid, "lstart")
    }

    pub(crate) fn is_zombie(pid: u32) -> bool {
        ps(pid, "state").is_some_and(|state| state.starts_with('Z'))
    }

    pub(crate) fn children_cpu() -> Option<Duration> {
        None
    }

    pub(crate) fn usage(pid: u32) -> Option<Usage> {
        let kib: u64 = ps(pid, "rss")?.parse().ok()?;
        let rss_bytes = kib.saturating_mul(1024);
        let mut seconds = 0.0_f64;
        for part in ps(pid, "time")?.split([':', '-']) {
            seconds = seconds.mul_add(60.0, part.parse().ok()?);
        }
        let cpu = Duration::try_from_secs_f64(seconds).ok()?;
        Some(Usage {
            cpu,
            rss_bytes,
            rss_peak_bytes: rss_bytes,
        })
    }
}

pub(super) use system::{identity, is_zombie};

/// What the process has used; `None` when it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    system::usage(pid)
}

/// The processor time of all child processes that have ended and been waited for; zero where the
/// system does not say.
pub(crate) fn children_cpu() -> Duration {
    system::children_cpu().unwrap_or_default()
}

/// What work took that began at this time, when child processes had used so much processor time:
/// `63 s (101 s of processor time)`.
pub(crate) fn took(begun: Instant, cpu_before: Duration) -> String {
    let cpu = children_cpu().saturating_sub(cpu_before).as_secs_f64();
    let wall = begun.elapsed().as_secs_f64();
    format!("{wall:.0} s ({cpu:.0} s of processor time)")
}
