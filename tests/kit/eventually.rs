//! Waiting for what must become true, with a deadline that only a failure reaches.

use std::time::{Duration, Instant};

/// The usual deadline: many times what a slow machine needs.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// After how long it is said what is still missing, and again after each such time.
const IMPATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` answers `Ok`, and gives its answer. `Err` says what is still missing, for the message of a test that fails.
///
/// # Panics
/// When the deadline passes, with the last thing that was missing.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    let mut said = begun;
    loop {
        let missing = match probe().await {
            Ok(answer) => return answer,
            Err(missing) => missing,
        };
        assert!(
            begun.elapsed() < deadline,
            "not {what} after {} s: {missing}\n(what hosts in this process did: {})",
            deadline.as_secs(),
            crate::runtime::log_path().display()
        );
        if said.elapsed() >= IMPATIENCE {
            said = Instant::now();
            eprintln!("{} s: not {what}: {missing}", begun.elapsed().as_secs());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
