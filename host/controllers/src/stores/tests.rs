//! Cases of the watch caches with an API server of our own. Time is virtual.

use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::kinds;
use crate::kube_api::ApiError;
use crate::kube_api::staged::{Act, Staged};
use crate::tasks::Tasks;

/// Notes of which kinds it was told that they can be seen.
#[derive(Default)]
struct Noted(RwLock<Vec<String>>);

impl Listener for Noted {
    fn changed(&self, _: &Resource, _: &Change, _: Option<Origin>) {}

    fn listed(&self, resource: &Resource) {
        self.0.write().unwrap().push(resource.kind.clone());
    }
}

fn stores() -> (Arc<Staged>, Arc<Stores>, Arc<Noted>) {
    let api = Staged::new();
    let stores = Stores::new(Arc::clone(&api) as Arc<dyn KubeApi>, Tasks::default());
    let noted = Arc::new(Noted::default());
    stores.listen(Arc::clone(&noted) as Arc<dyn Listener>);
    (api, stores, noted)
}

#[tokio::test(start_paused = true)]
async fn who_was_told_that_a_kind_cannot_be_seen_hears_when_it_can() {
    let (api, stores, noted) = stores();
    let list = "list /apis/cluster.x-k8s.io/v1beta2/machines";
    let refused = ApiError::Forbidden("forbidden".to_owned());
    api.act(list, Act::Refuse(refused));
    let machines = stores.ensure(&kinds::MACHINE, Selection::default());
    let nodes = stores.ensure(&kinds::NODE, Selection::default());
    assert!(nodes.listed().await.is_ok());
    assert!(machines.listed().await.is_err());
    api.act(list, None);
    sleep(Duration::from_secs(15)).await;
    assert!(machines.listed().await.is_ok());
    assert_eq!(*noted.0.read().unwrap(), ["Machine"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_over_sees_what_its_watch_has_not_brought_before_it_counts_as_listed() {
    let (api, stores, _) = stores();
    let machines = stores.ensure(&kinds::MACHINE, Selection::default());
    machines.synced().await;
    // The watch says nothing of a Machine that the host before has made.
    let made = serde_json::json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": {"name": "m", "namespace": "ns", "uid": "m"},
    });
    api.hold(&kinds::MACHINE, made);
    sleep(Duration::from_secs(1)).await;
    assert!(machines.is_synced() && machines.is_empty());
    let list = "list /apis/cluster.x-k8s.io/v1beta2/machines";
    let refused = ApiError::Unavailable("etcdserver: request timed out".to_owned());
    api.act(list, Act::Refuse(refused));
    stores.doubt();
    assert_eq!(stores.unsynced(), [kinds::MACHINE.group_kind()]);
    sleep(Duration::from_secs(60)).await;
    assert!(!machines.is_synced(), "it cannot be listed");
    api.act(list, None);
    // Also a wait after failures ends when it is doubted.
    stores.doubt();
    sleep(Duration::from_millis(1)).await;
    assert!(machines.is_synced());
    assert_eq!(machines.len(), 1);
}
