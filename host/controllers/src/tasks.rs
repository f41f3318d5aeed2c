//! The only place that starts background tasks: each has a name, and all end when the host shuts down.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

/// Starts tasks that end together.
#[derive(Clone)]
pub struct Tasks {
    stop: Arc<watch::Sender<bool>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            stop: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Tasks {
    /// Runs a task until it ends or all are stopped. A panic in it is logged and ends only it.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            let running = tokio::spawn(task);
            let abort = running.abort_handle();
            tokio::select! {
                ended = running => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(task = name, "a background task panicked");
                    }
                }
                _ = stop.wait_for(|stop| *stop) => abort.abort(),
            }
        });
    }

    /// Ends all tasks at their next await.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Completes when the tasks were stopped.
    pub async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}
