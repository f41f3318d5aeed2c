//! What becomes of networks after they were asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::backend::NetworkSpec;
use super::records::Network;
use super::region::Region;

/// Between two tries to make or to remove a network.
const RETRY: Duration = Duration::from_secs(1);

fn find(region: &Region, id: &str) -> Option<Network> {
    region.lock().networks.get(id).cloned()
}

/// Changes a network in memory and, when that makes a difference, on disk; nothing happens when it is gone.
fn note(region: &Region, id: &str, change: impl FnOnce(&mut Network)) {
    let mut records = region.lock();
    let Some(network) = records.networks.get_mut(id) else {
        return;
    };
    let before = (
        network.state.clone(),
        network.state_message.clone(),
        network.address,
    );
    change(network);
    let is_same = before
        == (
            network.state.clone(),
            network.state_message.clone(),
            network.address,
        );
    let copy = network.clone();
    if !is_same && let Err(error) = region.save(&copy) {
        tracing::error!(%error, network = id, "a network's state could not be written to disk");
    }
}

/// Makes a network ready, or finds it so, and says so in its record.
pub(crate) async fn ready(region: &Region, id: &str) -> io::Result<NetworkSpec> {
    let gone = || io::Error::other(format!("network {id:?} is gone"));
    let network = find(region, id).ok_or_else(gone)?;
    let spec = network.spec();
    let backend = region.backend(&network.backend);
    match backend.ensure_network(spec.clone()).await {
        Ok(address) => {
            note(region, id, |network| {
                if network.state != "deleting" {
                    "active".clone_into(&mut network.state);
                }
                network.state_message.clear();
                network.address = Some(address);
            });
            Ok(spec)
        }
        Err(error) => {
            note(region, id, |network| {
                network.state_message = error.to_string();
            });
            Err(error)
        }
    }
}

/// Makes a network ready, however often that has to be tried.
pub(crate) async fn make(region: Arc<Region>, id: String) {
    while find(&region, &id).is_some_and(|network| network.state != "deleting") {
        match ready(&region, &id).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, network = id, "a network could not be made"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Removes a network and forgets it.
pub(crate) async fn remove(region: Arc<Region>, id: String) {
    while let Some(network) = find(&region, &id) {
        let backend = region.backend(&network.backend);
        let removed = match backend.delete_network(&id).await {
            Ok(()) => {
                let mut records = region.lock();
                let forgotten = region.forget(&mut records, &network);
                if forgotten.is_ok() {
                    records.networks.remove(&id);
                    records.tasks.remove(&id);
                }
                forgotten
            }
            Err(error) => Err(error),
        };
        let Err(error) = removed else {
            return;
        };
        tracing::warn!(%error, network = id, "a network could not be removed");
        note(&region, &id, |network| {
            network.state_message = format!("it cannot be removed yet: {error}");
        });
        tokio::time::sleep(RETRY).await;
    }
}
