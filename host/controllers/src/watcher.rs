//! Keeps one store up to date: list in pages, then watch, and list again when the server has forgotten where we were, or somebody doubts what
//! the store holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use crate::kube_api::{ApiError, KubeApi, PAGE, Resource, Room, Selection, WatchEvent};
use crate::object::Object;
use crate::store::{Change, Store};

/// Waits after failures: doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// A watch that brings nothing for so long is taken for dead. A connection can break without a word to this end, and what happened since would
/// never be seen. Servers say once a minute that nothing has changed (upstream `apiserver/pkg/storage/cacher`, `bookmarkFrequency`), so two
/// of these are missing. Everything is listed anew then: behind the same address there may be a server that has begun anew, or was restored,
/// whose versions are below those that are known, and which would say nothing until it has come as far.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// So many objects of a list are taken in before others have a turn: who is told of one looks for whom to wake, among thousands it may be.
const AT_ONCE: usize = 100;

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
    // Where it was last, also when it goes on with a list.
    let mut reached: Option<String> = None;
    loop {
        let begun = Instant::now();
        let turn = async {
            match at.clone() {
                None => {
                    match list(&*api, &store, &selection, reached.as_deref(), &mut changed).await {
                        Ok(version) => (Some(version), Ok(())),
                        Err(error) => (None, Err(error)),
                    }
                }
                Some(version) => {
                    let (reached, ended) =
                        follow(&*api, &store, &selection, version, &mut changed).await;
                    (Some(reached), ended)
                }
            }
        };
        let outcome;
        (at, outcome) = tokio::select! {
            biased;
            () = store.doubted() => (None, Ok(())),
            turn = turn => turn,
        };
        reached = at.clone().or(reached);
        match outcome {
            Ok(()) => retry = RETRY_FIRST,
            Err(ApiError::Expired(_)) => {
                at = None;
                retry = RETRY_FIRST;
            }
            Err(error @ ApiError::TooLarge(_)) => return error,
            Err(error) => {
                tracing::debug!(kind = %resource.kind, %error, "watch broke off");
                store.not_listed(error.to_string());
                // The kind is not served (yet, or any more): what we knew of it is not there.
                let is_not_served = matches!(error, ApiError::NotFound(_) | ApiError::NotServed(_));
                // What answers next may be another server than the one that broke off, with versions of its own.
                let may_be_another = store.bytes_max().is_some();
                if is_not_served || may_be_another {
                    at = None;
                }
                if begun.elapsed() >= RETRY_MAX {
                    // It went well for a while: this is no failure in a row.
                    retry = RETRY_FIRST;
                }
                tokio::select! {
                    biased;
                    () = store.doubted() => {
                        at = None;
                        retry = RETRY_FIRST;
                    }
                    () = sleep(retry) => retry = retry.saturating_mul(2).min(RETRY_MAX),
                }
            }
        }
    }
}

async fn list(
    api: &dyn KubeApi,
    store: &Store,
    selection: &Selection,
    reached: Option<&str>,
    changed: &mut (impl FnMut(&Resource, Change) + Send),
) -> Result<String, ApiError> {
    let begun = store.begin_list();
    let mut listed = BTreeSet::new();
    // All of a server that has gone back: it takes the place of everything at once.
    let mut anew = None;
    let mut next: Option<String> = None;
    let mut room = Room::new(store.bytes_max());
    loop {
        let page = api
            .list(store.resource(), selection, PAGE, next.as_deref())
            .await?;
        room.take(store.resource(), &page)?;
        let version = page.resource_version;
        if listed.is_empty() && reached.is_some_and(|reached| is_before(&version, reached)) {
            anew.get_or_insert_with(Vec::new);
        }
        let mut objects = page.items.into_iter().filter_map(Object::new);
        if let Some(all) = &mut anew {
            all.extend(objects.by_ref());
        }
        loop {
            let some: Vec<Object> = objects.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            for change in store.take_listed(some, begun, &mut listed) {
                changed(store.resource(), change);
            }
            // Who is given up here has told of all that it has put into the store.
            tokio::task::yield_now().await;
        }
        next = page.next;
        if next.is_none() {
            let changes = match anew {
                Some(all) => store.start_over(all),
                None => store.end_list(&listed, version.parse().unwrap_or_default()),
            };
            for change in changes {
                changed(store.resource(), change);
            }
            store.mark_synced(begun);
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
    let begun = Instant::now();
    let watch = api.watch(store.resource(), selection, &version);
    let mut events = match timeout(SILENCE_MAX, watch).await {
        Ok(Ok(events)) => events,
        Ok(Err(error)) => return (version, Err(error)),
        Err(_) => return (version, Err(ApiError::Unavailable(silence()))),
    };
    let mut is_empty = true;
    loop {
        let event = match timeout(SILENCE_MAX, events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) if is_empty && begun.elapsed() < RETRY_MAX => {
                let words = "the watch ended at once".to_owned();
                return (version, Err(ApiError::Unavailable(words)));
            }
            Ok(None) => return (version, Ok(())),
            Err(_) => return (version, Err(ApiError::Expired(silence()))),
        };
        is_empty = false;
        let change = match event {
            Ok(WatchEvent::Bookmark(at)) if is_before(&at, &version) => {
                let words = format!("the server has gone back from version {version} to {at}");
                return (version, Err(ApiError::Expired(words)));
            }
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
}

/// Whether one version is older than another, as far as that can be seen.
fn is_before(version: &str, other: &str) -> bool {
    let number = |version: &str| version.parse::<u64>().ok();
    number(version).is_some_and(|version| number(other).is_some_and(|other| version < other))
}

fn silence() -> String {
    format!("the watch has said nothing for {} s", SILENCE_MAX.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use capstan_api::name::ObjectKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds;
    use crate::kube_api::staged::{Act, Staged};
    use crate::tasks::Tasks;

    const LIST: &str = "list /api/v1/nodes";
    const WATCH: &str = "watch /api/v1/nodes";

    fn node(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}})
    }

    /// A watch of Nodes that has its list, and the server.
    async fn watching() -> (Arc<Staged>, Arc<Store>) {
        let api = Staged::new();
        let store = Arc::new(Store::new(kinds::NODE.clone()));
        let watched = Arc::clone(&store);
        let server = Arc::clone(&api);
        Tasks::default().spawn("watch", async move {
            run(server, watched, Selection::default(), |_, _| {}).await;
        });
        store.synced().await;
        settle().await;
        (api, store)
    }

    /// Lets everything happen that needs no time.
    async fn settle() {
        sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_taken_in_as_it_comes_and_others_have_their_turn() {
        const NODES: usize = 1200;
        let api = Staged::new();
        for index in 0..NODES {
            api.hold(&kinds::NODE, node(&format!("n-{index:04}")));
        }
        api.act(&format!("{LIST} from 1000"), Act::Hang);
        let store = Arc::new(Store::new(kinds::NODE.clone()));
        store.apply(Object::new(node("old")).unwrap());
        let (told, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (server, watched) = (Arc::clone(&api), Arc::clone(&store));
        let (since, peak) = (Arc::clone(&told), Arc::clone(&most));
        let tasks = Tasks::default();
        tasks.spawn("watch", async move {
            run(server, watched, Selection::default(), |_, _| {
                let in_a_row = since.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(in_a_row, Ordering::SeqCst);
            })
            .await;
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
            told.store(0, Ordering::SeqCst);
        }
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        assert_eq!(store.len(), 1000 + 1, "nothing is gone before all is known");
        assert!(!store.is_synced());
        api.act(&format!("{LIST} from 1000"), None);
        store.doubt();
        store.synced().await;
        assert_eq!(store.len(), NODES);
        assert!(store.get(&ObjectKey::new("", "old")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_watch_that_says_nothing_any_more_everything_is_listed_anew() {
        let (api, _) = watching().await;
        api.tell(&kinds::NODE, Ok(WatchEvent::Bookmark("17".to_owned())));
        settle().await;
        assert_eq!(api.asked(LIST).len(), 1);
        sleep(SILENCE_MAX + Duration::from_secs(1)).await;
        assert_eq!(api.asked(LIST).len(), 2);
        assert_eq!(api.asked(WATCH).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_asked_again_from_where_the_watch_was() {
        let (api, store) = watching().await;
        api.tell(&kinds::NODE, Ok(WatchEvent::Bookmark("17".to_owned())));
        settle().await;
        api.act(WATCH, Act::Hang);
        api.tell(&kinds::NODE, Err(ApiError::Unavailable(String::new())));
        sleep(SILENCE_MAX + Duration::from_secs(1)).await;
        let after = |version: u32| format!("{WATCH} after {version}");
        assert_eq!(api.asked(WATCH), [after(10), after(17), after(17)]);
        api.act(WATCH, None);
        api.hold(&kinds::NODE, node("n"));
        sleep(SILENCE_MAX + Duration::from_secs(1)).await;
        api.give(&kinds::NODE, node("n"));
        settle().await;
        assert_eq!(store.len(), 1);
        assert_eq!(api.asked(LIST).len(), 1, "nothing was forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_cluster_that_broke_off_is_listed_anew() {
        let api = Staged::new();
        let store = Arc::new(Store::bounded(kinds::NODE.clone(), usize::MAX));
        let (server, watched) = (Arc::clone(&api), Arc::clone(&store));
        Tasks::default().spawn("watch", async move {
            run(server, watched, Selection::default(), |_, _| {}).await;
        });
        store.synced().await;
        settle().await;
        api.tell(&kinds::NODE, Err(ApiError::Unavailable(String::new())));
        sleep(RETRY_MAX).await;
        assert_eq!(api.asked(LIST).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_gone_back_is_listed_anew() {
        let (api, store) = watching().await;
        let mut old = node("old");
        old["metadata"]["resourceVersion"] = json!("16");
        api.tell(&kinds::NODE, Ok(WatchEvent::Applied(old)));
        for (version, lists, nodes) in [(17, 1, 1), (17, 1, 1), (3, 2, 0)] {
            let bookmark = WatchEvent::Bookmark(version.to_string());
            api.tell(&kinds::NODE, Ok(bookmark));
            settle().await;
            assert_eq!(api.asked(LIST).len(), lists, "{version}");
            // What was known of the server before is not there any more, whatever its version.
            assert_eq!(store.len(), nodes, "{version}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_told_that_nothing_changes_goes_on() {
        let (api, _) = watching().await;
        for minute in 0..10 {
            sleep(Duration::from_secs(60)).await;
            let bookmark = WatchEvent::Bookmark((20 + minute).to_string());
            api.tell(&kinds::NODE, Ok(bookmark));
        }
        assert_eq!(api.asked(WATCH).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_asked_for_less_and_less_often() {
        let (api, _) = watching().await;
        api.act(WATCH, Act::End);
        api.tell(&kinds::NODE, Err(ApiError::Unavailable(String::new())));
        sleep(Duration::from_secs(60)).await;
        let asked = api.asked(WATCH).len();
        assert!(asked < 15, "{asked} times in a minute");
    }
}
