//! Keeps one store up to date: list in pages, then watch, and list again when the server has forgotten where we were.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::kube_api::{ApiError, KubeApi, PAGE, Resource, Room, Selection, WatchEvent};
use crate::object::Object;
use crate::store::{Change, Store};

/// Waits after failures: doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Lists and watches for ever, unless there is more than the store has room for: then it ends with that.
pub async fn run(
    api: Arc<dyn KubeApi>,
    store: Arc<Store>,
    selection: Selection,
    mut changed: impl FnMut(&Resource, Change) + Send,
) -> ApiError {
    let resource = store.resource().clone();
    let mut retry = RETRY_FIRST;
    let mut at: Option<String> = None;
    loop {
        let outcome = match &at {
            None => list(&*api, &store, &selection, &mut changed)
                .await
                .map(|version| {
                    store.mark_synced();
                    at = Some(version);
                }),
            Some(version) => {
                let version = version.clone();
                match follow(&*api, &store, &selection, version, &mut changed).await {
                    (version, Ok(())) => {
                        at = Some(version);
                        Ok(())
                    }
                    (version, Err(error)) => {
                        at = Some(version);
                        Err(error)
                    }
                }
            }
        };
        match outcome {
            Ok(()) => retry = RETRY_FIRST,
            Err(ApiError::Expired(_)) => {
                at = None;
                retry = RETRY_FIRST;
            }
            Err(error @ ApiError::TooLarge(_)) => return error,
            Err(error) => {
                tracing::debug!(kind = %resource.kind, %error, "watch broke off");
                if matches!(error, ApiError::NotFound(_)) {
                    // The kind is not served (yet, or any more): what we knew of it is not there.
                    at = None;
                }
                tokio::time::sleep(retry).await;
                retry = retry.saturating_mul(2).min(RETRY_MAX);
            }
        }
    }
}

async fn list(
    api: &dyn KubeApi,
    store: &Store,
    selection: &Selection,
    changed: &mut (impl FnMut(&Resource, Change) + Send),
) -> Result<String, ApiError> {
    let mut objects = Vec::new();
    let mut next: Option<String> = None;
    let mut room = Room::new(store.bytes_max());
    loop {
        let page = api
            .list(store.resource(), selection, PAGE, next.as_deref())
            .await?;
        room.take(store.resource(), &page)?;
        objects.extend(page.items.into_iter().filter_map(Object::new));
        next = page.next;
        if next.is_none() {
            let version = page.resource_version;
            for change in store.replace(objects, version.parse().unwrap_or_default()) {
                changed(store.resource(), change);
            }
            return Ok(version);
        }
    }
}

/// Follows a watch to its end; the answer's version is where to go on.
async fn follow(
    api: &dyn KubeApi,
    store: &Store,
    selection: &Selection,
    mut version: String,
    changed: &mut (impl FnMut(&Resource, Change) + Send),
) -> (String, Result<(), ApiError>) {
    let mut events = match api.watch(store.resource(), selection, &version).await {
        Ok(events) => events,
        Err(error) => return (version, Err(error)),
    };
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(WatchEvent::Bookmark(at)) => {
                version = at;
                continue;
            }
            Ok(WatchEvent::Applied(value)) => match Object::new(value) {
                Some(object) => {
                    if let Err(error) = store.check_room(&object) {
                        return (version, Err(error));
                    }
                    version = object.resource_version.to_string();
                    store.apply(object)
                }
                None => None,
            },
            Ok(WatchEvent::Deleted(value)) => Object::new(value).and_then(|object| {
                version = object.resource_version.to_string();
                store.remove(&object.key, &object.uid, object.resource_version)
            }),
            Err(error) => return (version, Err(error)),
        };
        if let Some(change) = change {
            changed(store.resource(), change);
        }
    }
    (version, Ok(()))
}
