//! The memory of all guests together: one budget, of which a plugin gets more only while it has less than is free. And how the memory
//! that this process may use is shared between the host itself, its guests and the compiler.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::ResourceLimiter;

use crate::error::CallError;
use crate::limit::{COMPILER_EIGHTHS, GUESTS_EIGHTHS, TABLE_ELEMENTS_MAX};

/// Bytes for the linear memories of all calls in flight.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    free: Mutex<usize>,
}

/// What the calls of one plugin have of it.
#[derive(Debug, Default)]
pub(crate) struct OwnBytes {
    held: AtomicUsize,
    /// The most that one call has had.
    peak: AtomicUsize,
}

impl OwnBytes {
    /// The most that one call has had so far.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// What one call has of it, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    own: Arc<OwnBytes>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            free: Mutex::new(bytes),
        })
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is taken.
    pub(crate) fn used(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.bytes.saturating_sub(*free)
    }

    /// Nothing yet, for a call of this plugin.
    pub(crate) fn hold(self: &Arc<Self>, own: &Arc<OwnBytes>) -> Held {
        Held {
            budget: self.clone(),
            own: own.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    /// All that there is for everybody.
    pub(crate) fn budget_bytes(&self) -> usize {
        self.budget.bytes
    }

    /// Takes more, if the plugin's share has it: what it has with that is at most what was free before.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut free = self
            .budget
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let own = self.own.held.load(Ordering::Relaxed);
        let (Some(with), Some(left)) = (own.checked_add(bytes), free.checked_sub(bytes)) else {
            return false;
        };
        if with > *free {
            return false;
        }
        *free = left;
        self.own.held.store(with, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(bytes);
        self.own.peak.fetch_max(self.bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut free = self
            .budget
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_add(self.bytes);
        self.own.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Sums all memories of a store, which the built-in limiter takes one by one.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit_bytes: usize,
    used_bytes: usize,
    held: Held,
    table_elements: usize,
    /// What was refused last.
    pub(crate) denied: Option<CallError>,
}

impl MemoryLimiter {
    /// At most so much, and of that what `held` can have.
    pub(crate) fn new(limit_bytes: usize, held: Held) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
            held,
            table_elements: 0,
            denied: None,
        }
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self
            .used_bytes
            .saturating_add(desired.saturating_sub(current));
        if used > self.limit_bytes {
            self.denied = Some(CallError::Memory {
                limit_bytes: self.limit_bytes,
            });
            return Ok(false);
        }
        if !self.held.grow(desired.saturating_sub(current)) {
            self.denied = Some(CallError::Crowded {
                budget_bytes: self.held.budget_bytes(),
            });
            return Ok(false);
        }
        self.used_bytes = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        if elements > TABLE_ELEMENTS_MAX {
            self.denied = Some(CallError::Table {
                limit: TABLE_ELEMENTS_MAX,
            });
            return Ok(false);
        }
        self.table_elements = elements;
        Ok(true)
    }
}

/// What guests may use together when this process may use so much.
#[must_use]
pub fn share_of_guests(limit_bytes: usize) -> usize {
    eighths(limit_bytes, GUESTS_EIGHTHS)
}

/// What the compiler may use then.
pub(crate) fn share_of_compiler(limit_bytes: usize) -> usize {
    eighths(limit_bytes, COMPILER_EIGHTHS)
}

fn eighths(bytes: usize, count: usize) -> usize {
    bytes.checked_div(8).unwrap_or(0).saturating_mul(count)
}

/// What this process may use: the tightest limit of its cgroup and those above it, or else what the machine has.
#[must_use]
pub fn limit_bytes() -> usize {
    let root = Path::new("/sys/fs/cgroup");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    limit_in(&groups, &|file| fs::read_to_string(root.join(file)).ok())
        .into_iter()
        .chain(machine_bytes(&machine))
        .min()
        .unwrap_or(FALLBACK_BYTES)
}

/// Where nothing is to be found out: what the Deployment of `capstan manifests` has.
const FALLBACK_BYTES: usize = crate::limit::CONTAINER_MEMORY_BYTES;

/// The limit that cgroups set, of version 2 or 1. Within a container their paths begin where the container does.
fn limit_in(groups: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let of = |file: String| read(&file)?.trim().parse::<usize>().ok();
    let paths = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (folder, file) = match controllers {
            "" => ("", "memory.max"),
            "memory" => ("memory/", "memory.limit_in_bytes"),
            _ => return None,
        };
        Some((folder, file, path.trim_matches('/').to_owned()))
    });
    let mut tightest: Option<usize> = None;
    for (folder, file, path) in paths {
        let mut path = path.as_str();
        loop {
            let place = if path.is_empty() {
                format!("{folder}{file}")
            } else {
                format!("{folder}{path}/{file}")
            };
            tightest = tightest.into_iter().chain(of(place)).min();
            if path.is_empty() {
                break;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    tightest
}

/// `MemTotal` of `/proc/meminfo`.
fn machine_bytes(text: &str) -> Option<usize> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_finds_memory_beside_those_who_want_all() {
        let budget = Budget::new(1024);
        let hogs: Vec<Arc<OwnBytes>> = (0..3).map(|_| Arc::default()).collect();
        let taken: Vec<Vec<Held>> = hogs
            .iter()
            .map(|hog| {
                let call = || {
                    let mut held = budget.hold(hog);
                    held.grow(16).then_some(held)
                };
                std::iter::from_fn(call).collect()
            })
            .collect();
        let counts: Vec<usize> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [32, 16, 8]);
        assert_eq!(budget.used(), 56 * 16);
        let mut late = budget.hold(&Arc::default());
        assert!(late.grow(64) && !late.grow(64));
        drop((taken, late));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let budget = Budget::new(100);
        let own: Arc<OwnBytes> = Arc::default();
        let mut held = budget.hold(&own);
        assert!(!held.grow(101) && !held.grow(usize::MAX));
        assert!(held.grow(50));
        assert_eq!((budget.used(), own.peak()), (50, 50));
    }

    #[test]
    fn the_tightest_limit_counts() {
        let read = |file: &str| {
            let limit = match file {
                "kubepods/pod/memory.max" => "2147483648\n",
                "kubepods/memory.max" => "4294967296\n",
                "kubepods/pod/box/memory.max" | "memory.max" => "max\n",
                "memory/docker/memory.limit_in_bytes" => "536870912\n",
                _ => return None,
            };
            Some(limit.to_owned())
        };
        assert_eq!(limit_in("0::/kubepods/pod/box\n", &read), Some(2 << 30));
        assert_eq!(limit_in("0::/\n", &read), None);
        let first = "12:cpu,cpuacct:/docker\n3:memory:/docker\n";
        assert_eq!(limit_in(first, &read), Some(512 << 20));
        assert_eq!(
            machine_bytes("MemTotal:  16384 kB\nMemFree: 1 kB\n"),
            Some(16 << 20)
        );
        assert!(limit_bytes() > 64 << 20);
    }

    #[test]
    fn the_shares_are_not_more_than_all() {
        let all = 2 << 30;
        assert_eq!(share_of_guests(all), 768 << 20);
        assert_eq!(share_of_compiler(all), 1 << 30);
        assert!(share_of_guests(all) + share_of_compiler(all) < all);
    }
}
