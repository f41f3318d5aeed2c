//! Operations on networks.

use std::sync::Arc;

use ::http::StatusCode;

use super::listing::find;
use super::{Answer, Call, answer, json_answer, key_of, patiently, with_backends};
use crate::cloud::answer::Refusal;
use crate::cloud::records::{Network, Record};
use crate::cloud::region::{Records, Region};
use crate::cloud::requests::{self, NewNetwork};
use crate::cloud::{lifecycle, networks};

pub(super) async fn create_network(region: &Arc<Region>, call: &Call) -> Result<Answer, Refusal> {
    let body: NewNetwork = requests::parse(&call.body)?;
    body.check()?;
    let key = key_of(call, &body)?;
    let asked = body.backend.clone();
    let backend = with_backends(region, move |backends| {
        let name = asked.unwrap_or_else(|| backends.default().to_owned());
        backends.get(&name).map(|_| name)
    });
    let backend = backend
        .await?
        .map_err(|reason| Refusal::invalid(format!("backend: {reason}")))?;
    let id = {
        let mut records = region.lock();
        if let Some(id) = records.replayed(Network::KIND, key.as_ref())? {
            return Ok(json_answer(
                StatusCode::OK,
                &find(&records.networks, &id)?.view(),
            ));
        }
        let network = Network {
            head: records.new_head("net", &body.name, &body.tags, key),
            backend,
            state: "pending".into(),
            state_message: String::new(),
            address: None,
        };
        region
            .save(&network)
            .map_err(|error| Refusal::disk(&error))?;
        records.remember_key(&network);
        let id = network.head.id.clone();
        records.networks.insert(id.clone(), network);
        id
    };
    patiently(lifecycle::spawn(region, &id, networks::make)).await;
    Ok(json_answer(
        StatusCode::CREATED,
        &find(&region.lock().networks, &id)?.view(),
    ))
}

pub(super) async fn delete_network(region: &Arc<Region>, id: &str) -> Result<Answer, Refusal> {
    {
        let mut records = region.lock();
        let mut network = find(&records.networks, id)?;
        let instances = records
            .instances
            .values()
            .filter(|instance| instance.network_id == id)
            .count();
        let balancers = records
            .balancers
            .values()
            .filter(|balancer| balancer.network_id == id)
            .count();
        if instances > 0 || balancers > 0 {
            let message = format!(
                "network {id:?} still has {instances} instances and {balancers} load balancers"
            );
            return Err(Refusal::conflict("InUse", message));
        }
        if network.state == "deleting" {
            return Ok(json_answer(StatusCode::ACCEPTED, &network.view()));
        }
        "deleting".clone_into(&mut network.state);
        region
            .save(&network)
            .map_err(|error| Refusal::disk(&error))?;
        records.networks.insert(id.to_owned(), network);
    }
    patiently(lifecycle::spawn(region, id, networks::remove)).await;
    match region.lock().networks.get(id) {
        Some(network) => Ok(json_answer(StatusCode::ACCEPTED, &network.view())),
        None => Ok(answer(
            StatusCode::NO_CONTENT,
            "application/json",
            String::new(),
        )),
    }
}

/// The network in which something new is to be; refused while it is being deleted.
pub(super) fn network_for_new(records: &Records, id: &str) -> Result<Network, Refusal> {
    let network = find(&records.networks, id)?;
    if network.state == "deleting" {
        let message = format!("network {id:?} is being deleted");
        return Err(Refusal::conflict("InvalidState", message));
    }
    Ok(network)
}
