//! Keeps a host that no longer holds its Lease from doing anything: every write and every reconcile passes here.
//!
//! The process may have been stopped for any time between two instructions, so the time is looked at again whenever it goes on: what
//! waits for an answer is given up together with the Lease.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_api::name::ObjectKey;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::time::Instant;

use crate::kube_api::{
    ApiError, Duplex, KubeApi, Page, Patch, Preconditions, Resource, Selection, WatchEvent,
};
use crate::workloads::{Connect, ConnectError, OwnPod};

/// Until when this host may act. Clones share it. The default is never shut: of a host that is alone.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    /// `None` inside: until the end of the process, or not at all.
    until: Option<Arc<Mutex<Option<Instant>>>>,
}

/// The host does not hold its Lease, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host does not hold the lease: another one may be at work")]
pub struct Shut;

impl Fence {
    /// A fence that is shut until it is opened.
    #[must_use]
    pub fn shut() -> Self {
        Self {
            until: Some(Arc::default()),
        }
    }

    /// Lets things pass until then.
    pub fn open_until(&self, until: Instant) {
        if let Some(shared) = &self.until {
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
    }

    /// Lets nothing pass any more.
    pub fn close(&self) {
        if let Some(shared) = &self.until {
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Until when things pass now; `None` for ever.
    fn ends(&self) -> Result<Option<Instant>, Shut> {
        let Some(shared) = &self.until else {
            return Ok(None);
        };
        match *shared.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(until) if Instant::now() < until => Ok(Some(until)),
            _ => Err(Shut),
        }
    }

    /// Whether things pass now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ends().is_ok()
    }

    /// Does something as long as the fence is open, and drops it when it shuts.
    ///
    /// # Errors
    /// When it was shut before the end.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Shut> {
        let mut ends = self.ends()?;
        let mut work = std::pin::pin!(work);
        loop {
            let Some(until) = ends else {
                return Ok(work.await);
            };
            // The time first: after a pause nothing is done before it was looked at.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => {}
                done = &mut work => return Ok(done),
            }
            ends = self.ends()?;
        }
    }
}

impl From<Shut> for ApiError {
    fn from(shut: Shut) -> Self {
        Self::Unavailable(shut.to_string())
    }
}

/// An API server to which nothing is written while the fence is shut. Reading goes on: a standby keeps its caches warm.
pub struct Fenced {
    inner: Arc<dyn KubeApi>,
    fence: Fence,
}

impl Fenced {
    /// Puts the fence before this server.
    #[must_use]
    pub fn new(inner: Arc<dyn KubeApi>, fence: Fence) -> Self {
        Self { inner, fence }
    }

    fn write<'a, T: Send + 'a>(
        &'a self,
        request: BoxFuture<'a, Result<T, ApiError>>,
    ) -> BoxFuture<'a, Result<T, ApiError>> {
        let fence = self.fence.clone();
        async move { fence.guard(request).await? }.boxed()
    }
}

impl KubeApi for Fenced {
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        limit: u32,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, ApiError>> {
        self.inner.list(resource, selection, limit, next)
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        selection: &'a Selection,
        resource_version: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<WatchEvent, ApiError>>, ApiError>> {
        self.inner.watch(resource, selection, resource_version)
    }

    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.inner.get(resource, key)
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.write(self.inner.create(resource, namespace, object, manager))
    }

    fn create_subresource<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: &'a str,
        body: &'a Value,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.write(
            self.inner
                .create_subresource(resource, key, subresource, body),
        )
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        patch: &'a Patch,
        manager: &'a str,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        self.write(self.inner.patch(resource, key, subresource, patch, manager))
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        key: &'a ObjectKey,
        preconditions: &'a Preconditions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        self.write(self.inner.delete(resource, key, preconditions))
    }

    fn port_forward<'a>(
        &'a self,
        pod: &'a ObjectKey,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, ApiError>> {
        self.write(self.inner.port_forward(pod, port))
    }

    fn get_raw<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<String, ApiError>> {
        self.inner.get_raw(path)
    }

    fn shown_certificate(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ApiError>> {
        self.inner.shown_certificate()
    }
}

/// Connections to workload clusters behind the same fence.
pub struct FencedConnect<C> {
    inner: C,
    fence: Fence,
}

impl<C: Connect> FencedConnect<C> {
    /// Puts the fence before every cluster that is connected to.
    #[must_use]
    pub fn new(inner: C, fence: Fence) -> Self {
        Self { inner, fence }
    }
}

impl<C: Connect> Connect for FencedConnect<C> {
    fn connect<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        async move {
            let inner = self.inner.connect(kubeconfig).await?;
            Ok(Arc::new(Fenced::new(inner, self.fence.clone())) as Arc<dyn KubeApi>)
        }
        .boxed()
    }

    fn own_pod(&self) -> Option<&OwnPod> {
        self.inner.own_pod()
    }

    fn connect_inside<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        async move {
            let inner = self.inner.connect_inside(kubeconfig).await?;
            Ok(Arc::new(Fenced::new(inner, self.fence.clone())) as Arc<dyn KubeApi>)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn work(takes: Duration) -> &'static str {
        tokio::time::sleep(takes).await;
        "done"
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_while_it_is_shut() {
        let fence = Fence::shut();
        let begun = async { panic!("it was begun") };
        assert_eq!(fence.guard(begun).await, Err::<(), _>(Shut));
        fence.open_until(Instant::now() + SECOND);
        assert_eq!(fence.guard(work(SECOND / 2)).await, Ok("done"));
        fence.close();
        assert_eq!(fence.guard(work(Duration::ZERO)).await, Err(Shut));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_given_up_with_the_lease_unless_it_is_renewed() {
        let fence = Fence::shut();
        fence.open_until(Instant::now() + SECOND);
        assert_eq!(fence.guard(work(SECOND * 2)).await, Err(Shut));
        fence.open_until(Instant::now() + SECOND);
        let renewal = async {
            tokio::time::sleep(SECOND / 2).await;
            fence.open_until(Instant::now() + SECOND * 5);
        };
        let (done, ()) = tokio::join!(fence.guard(work(SECOND * 2)), renewal);
        assert_eq!(done, Ok("done"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_process_is_noticed_before_anything_goes_on() {
        let fence = Fence::shut();
        fence.open_until(Instant::now() + SECOND);
        let (send, answered) = tokio::sync::oneshot::channel::<()>();
        let guarded = fence.guard(answered);
        let mut guarded = std::pin::pin!(guarded);
        assert!(futures::poll!(&mut guarded).is_pending());
        tokio::time::advance(SECOND * 10).await;
        // The answer is there, and comes too late.
        send.send(()).unwrap();
        assert_eq!(guarded.await, Err(Shut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_alone_is_never_held_up() {
        let fence = Fence::default();
        fence.close();
        assert_eq!(fence.guard(work(SECOND * 1000)).await, Ok("done"));
    }
}
