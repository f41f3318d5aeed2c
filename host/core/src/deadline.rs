//! How long it is until a time that is given in whole seconds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is left of so many seconds since then; `None` when they are over. Kubernetes keeps times in whole seconds, so parts of one do not
/// count.
#[must_use]
pub fn left(since: Timestamp, seconds: i64, now: Timestamp) -> Option<Duration> {
    let deadline = since.as_second().saturating_add(seconds);
    let left = deadline.saturating_sub(now.as_second());
    u64::try_from(left)
        .ok()
        .filter(|left| *left > 0)
        .map(Duration::from_secs)
}

/// Whether something that began then lasts longer than so many seconds; what has not begun does not.
#[must_use]
pub fn lasts(since: Option<&Time>, seconds: i64, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since.0).as_secs() > seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_ends_with_the_second() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(left(at(100), 10, at(103)), Some(Duration::from_secs(7)));
        assert_eq!(left(at(100), 10, at(110)), None);
        assert_eq!(left(at(100), 0, at(200)), None);
    }
}
