//! A histogram of durations: from a call that asks nothing of anybody to the longest that a call, or the compiler, may take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds; what takes longer than the last one counts only in the sum of all. A call that computes
/// takes some hundred microseconds, one that asks a server some hundred milliseconds, and 100 s is the longest that a call may take: twelve
/// bounds, each two to four times the one before, tell them apart and cost each function of a plugin a dozen lines.
pub const BUCKETS_US: [u64; 12] = [
    500,
    1_000,
    2_500,
    10_000,
    25_000,
    100_000,
    250_000,
    1_000_000,
    2_500_000,
    10_000_000,
    25_000_000,
    100_000_000,
];

/// Counters of one histogram.
#[derive(Debug, Default)]
pub(crate) struct DurationCounters {
    buckets: [AtomicU64; BUCKETS_US.len()],
    longer: AtomicU64,
    sum_ns: AtomicU64,
}

impl DurationCounters {
    /// Counts one.
    pub(crate) fn count(&self, took: Duration) {
        let us = took.as_micros();
        let place = BUCKETS_US.iter().position(|bound| us <= u128::from(*bound));
        let bucket = place.and_then(|place| self.buckets.get(place));
        bucket
            .unwrap_or(&self.longer)
            .fetch_add(1, Ordering::Relaxed);
        self.sum_ns
            .fetch_add(super::nanoseconds(took), Ordering::Relaxed);
    }

    /// What was counted.
    pub(crate) fn read(&self) -> Durations {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Durations {
            buckets: self.buckets.each_ref().map(read),
            longer: read(&self.longer),
            sum: Duration::from_nanos(read(&self.sum_ns)),
        }
    }
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many took no longer than the bound of [`BUCKETS_US`] in the same place, and longer than the one before it.
    pub buckets: [u64; BUCKETS_US.len()],
    /// How many took longer than the last bound.
    pub longer: u64,
    /// All together.
    pub sum: Duration,
}

impl Durations {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(self.longer, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_fits_in() {
        assert!(BUCKETS_US.is_sorted());
        let counters = DurationCounters::default();
        for us in [0, 500, 501, 100_000_000, 100_000_001] {
            counters.count(Duration::from_micros(us));
        }
        let read = counters.read();
        assert_eq!(read.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((read.longer, read.count()), (1, 5));
        assert_eq!(read.sum, Duration::from_micros(200_001_002));
    }
}
