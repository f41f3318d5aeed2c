//! Operations on load balancers.

use std::sync::Arc;

use ::http::StatusCode;

use super::listing::find;
use super::networks::network_for_new;
use super::{Answer, Call, json_answer, key_of};
use crate::cloud::answer::Refusal;
use crate::cloud::records::{LoadBalancer, Record};
use crate::cloud::region::Region;
use crate::cloud::requests::{self, NewLoadBalancer};
use crate::cloud::{free_port, lifecycle};

pub(super) fn create_balancer(region: &Arc<Region>, call: &Call) -> Result<Answer, Refusal> {
    let body: NewLoadBalancer = requests::parse(&call.body)?;
    body.check()?;
    let key = key_of(call, &body)?;
    let mut records = region.lock();
    if let Some(id) = records.replayed(LoadBalancer::KIND, key.as_ref())? {
        return Ok(json_answer(
            StatusCode::OK,
            &find(&records.balancers, &id)?.view(),
        ));
    }
    let network = network_for_new(&records, &body.network_id)?;
    let Some(host) = network.address else {
        let message = format!(
            "network {:?} is {}: a load balancer can be made when it is active",
            network.head.id, network.state
        );
        return Err(Refusal::conflict("InvalidState", message));
    };
    let (listener, port) = free_port(host).map_err(|error| Refusal::disk(&error))?;
    let balancer = LoadBalancer {
        head: records.new_head("lb", &body.name, &body.tags, key),
        network_id: body.network_id,
        state: "provisioning".into(),
        state_message: String::new(),
        host,
        port,
        target_port: body.target_port,
        targets: Vec::new(),
    };
    region
        .save(&balancer)
        .map_err(|error| Refusal::disk(&error))?;
    records.remember_key(&balancer);
    records
        .balancers
        .insert(balancer.head.id.clone(), balancer.clone());
    drop(records);
    lifecycle::start_balancer(region, &balancer, Some(listener));
    Ok(json_answer(StatusCode::ACCEPTED, &balancer.view()))
}

pub(super) fn delete_balancer(region: &Arc<Region>, id: &str) -> Result<Answer, Refusal> {
    let mut records = region.lock();
    let mut balancer = find(&records.balancers, id)?;
    if balancer.state != "deleting" {
        balancer.state = "deleting".into();
        region
            .save(&balancer)
            .map_err(|error| Refusal::disk(&error))?;
        records.balancers.insert(id.to_owned(), balancer.clone());
        drop(records);
        lifecycle::delete_balancer(region, id);
    }
    Ok(json_answer(StatusCode::ACCEPTED, &balancer.view()))
}

pub(super) fn set_target(
    region: &Arc<Region>,
    id: &str,
    instance: &str,
    wanted: bool,
) -> Result<Answer, Refusal> {
    let mut records = region.lock();
    let mut balancer = find(&records.balancers, id)?;
    if wanted {
        find(&records.instances, instance)?;
    }
    let is_there = balancer.targets.iter().any(|target| target == instance);
    if is_there != wanted {
        balancer.targets.retain(|target| target != instance);
        if wanted {
            balancer.targets.push(instance.to_owned());
        }
        region
            .save(&balancer)
            .map_err(|error| Refusal::disk(&error))?;
        records.balancers.insert(id.to_owned(), balancer.clone());
        region.refresh_targets(&records);
    }
    Ok(json_answer(StatusCode::OK, &balancer.view()))
}
