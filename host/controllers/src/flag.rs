//! A flag that somebody raises. Who waits for it is woken in the order in which they began to wait, so that the same causes have the
//! same effects.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Raised, until somebody lowers it.
#[derive(Default)]
pub(crate) struct Flag {
    raised: AtomicBool,
    waiting: Notify,
}

impl Flag {
    /// Raises it and wakes who waits.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.waiting.notify_waiters();
    }

    /// Lowers it: who waits from now on waits until it is raised again.
    pub(crate) fn lower(&self) {
        self.raised.store(false, Ordering::SeqCst);
    }

    /// Whether it is raised.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Completes when it is raised.
    pub(crate) async fn raised(&self) {
        loop {
            // Made before the look: what is raised after it wakes this.
            let waiting = self.waiting.notified();
            if self.is_raised() {
                return;
            }
            waiting.await;
        }
    }
}
