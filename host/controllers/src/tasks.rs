//! The only place that starts background tasks: each has a name, and all end when the host shuts down.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Starts tasks that end together.
#[derive(Clone)]
pub struct Tasks {
    stop: Arc<watch::Sender<bool>>,
    /// Nothing new is begun.
    finishing: Arc<watch::Sender<bool>>,
    /// Pieces of work under way.
    busy: Arc<watch::Sender<usize>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            stop: Arc::new(watch::Sender::new(false)),
            finishing: Arc::new(watch::Sender::new(false)),
            busy: Arc::new(watch::Sender::new(0)),
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

    /// As [`Tasks::spawn`], for a piece of work that [`Tasks::finish`] lets come to its end.
    pub fn spawn_work(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let busy = Busy::new(&self.busy);
        self.spawn(name, async move {
            work.await;
            drop(busy);
        });
    }

    /// Completes when nothing new may be begun any more.
    pub async fn finishing(&self) {
        // The sender lives as long as `self`.
        let _ = self.finishing.subscribe().wait_for(|f| *f).await;
    }

    /// Lets nothing new begin and waits until all work has come to its end; at most this long. Whether it has.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.finishing.send_replace(true);
        let mut busy = self.busy.subscribe();
        let idle = busy.wait_for(|count| *count == 0);
        tokio::time::timeout(patience, idle).await.is_ok()
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

/// Counts one piece of work until it is dropped, however it ends.
struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count = count.saturating_add(1));
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_is_under_way_is_waited_for_and_the_rest_is_not() {
        let tasks = Tasks::default();
        tasks.spawn("for ever", std::future::pending());
        tasks.spawn_work("some seconds", tokio::time::sleep(Duration::from_secs(5)));
        tasks.spawn_work("panics", async { panic!("it counts as ended") });
        assert!(!tasks.finish(Duration::from_secs(1)).await);
        tasks.finishing().await;
        assert!(tasks.finish(Duration::from_secs(10)).await);
    }
}
