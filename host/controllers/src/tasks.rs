//! The only place that starts background tasks: each has a name, and all end when the host shuts down.

use std::future::Future;
use std::sync::Arc;

use crate::flag::Flag;

/// Starts tasks that end together.
#[derive(Clone, Default)]
pub struct Tasks {
    stop: Arc<Flag>,
}

impl Tasks {
    /// Runs a task until it ends or all are stopped. A panic in it is logged and ends only it.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        tokio::spawn(async move {
            let running = tokio::spawn(task);
            let abort = running.abort_handle();
            tokio::select! {
                biased;
                ended = running => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(task = name, "a background task panicked");
                    }
                }
                () = stop.raised() => abort.abort(),
            }
        });
    }

    /// Ends all tasks at their next await.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// Completes when the tasks were stopped.
    pub async fn stopped(&self) {
        self.stop.raised().await;
    }
}
