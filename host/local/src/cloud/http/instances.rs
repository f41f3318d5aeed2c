//! Operations on instances.

use std::sync::Arc;

use ::http::StatusCode;

use super::listing::find;
use super::networks::network_for_new;
use super::{Answer, Call, json_answer, key_of, patiently};
use crate::cloud::answer::Refusal;
use crate::cloud::lifecycle;
use crate::cloud::records::{BootstrapState, Fate, Instance, InstanceState, Record, ZONES};
use crate::cloud::region::{Records, Region};
use crate::cloud::requests::{self, NewInstance, UserDataRunner};

pub(super) fn create_instance(
    region: &Arc<Region>,
    call: &Call,
    fate: Fate,
) -> Result<Answer, Refusal> {
    let body: NewInstance = requests::parse(&call.body)?;
    body.check()?;
    let key = key_of(call, &body)?;
    let mut records = region.lock();
    if let Some(id) = records.replayed(Instance::KIND, key.as_ref())? {
        return Ok(json_answer(
            StatusCode::OK,
            &find(&records.instances, &id)?.view(),
        ));
    }
    let network = network_for_new(&records, &body.network_id)?;
    if body
        .backend
        .as_ref()
        .is_some_and(|name| *name != network.backend)
    {
        return Err(Refusal::invalid(format!(
            "backend: the network {:?} is one of backend {:?}, and so are its instances",
            network.head.id, network.backend
        )));
    }
    region
        .backend(&network.backend)
        .check_image(&body.image)
        .map_err(|reason| Refusal::invalid(format!("image: {reason}")))?;
    let mut balancers = Vec::new();
    for id in &body.load_balancer_ids {
        balancers.push(find(&records.balancers, id)?);
    }
    let zone = body
        .zone
        .clone()
        .unwrap_or_else(|| emptiest_zone(&records, &body.network_id));
    let instance = Instance {
        head: records.new_head("i", &body.name, &body.tags, key),
        network_id: body.network_id,
        zone,
        type_: body.type_,
        image: body.image,
        backend: network.backend,
        user_data: body.user_data,
        cloud_init: body.user_data_runner == UserDataRunner::CloudInit,
        state: InstanceState::Pending,
        state_message: String::new(),
        address: String::new(),
        bootstrap: BootstrapState::Waiting,
        bootstrap_message: String::new(),
        fate,
    };
    let id = instance.head.id.clone();
    for mut balancer in balancers {
        balancer.targets.push(id.clone());
        region
            .save(&balancer)
            .map_err(|error| Refusal::disk(&error))?;
        records.balancers.insert(balancer.head.id.clone(), balancer);
    }
    region
        .save(&instance)
        .map_err(|error| Refusal::disk(&error))?;
    records.remember_key(&instance);
    let view = instance.view();
    records.instances.insert(id.clone(), instance);
    drop(records);
    lifecycle::spawn(region, &id, lifecycle::provision);
    Ok(json_answer(StatusCode::ACCEPTED, &view))
}

fn emptiest_zone(records: &Records, network: &str) -> String {
    let count = |zone: &str| {
        records
            .instances
            .values()
            .filter(|instance| instance.network_id == network && instance.zone == zone)
            .count()
    };
    ZONES
        .iter()
        .min_by_key(|zone| count(zone))
        .map_or_else(String::new, |zone| (*zone).to_owned())
}

pub(super) fn delete_instance(region: &Arc<Region>, id: &str) -> Result<Answer, Refusal> {
    let mut records = region.lock();
    let mut instance = find(&records.instances, id)?;
    if !matches!(
        instance.state,
        InstanceState::Terminating | InstanceState::Terminated
    ) {
        instance.state = InstanceState::Terminating;
        region
            .save(&instance)
            .map_err(|error| Refusal::disk(&error))?;
        records.instances.insert(id.to_owned(), instance.clone());
        drop(records);
        lifecycle::spawn(region, id, lifecycle::terminate);
    }
    Ok(json_answer(StatusCode::ACCEPTED, &instance.view()))
}

pub(super) async fn act(
    region: &Arc<Region>,
    id: &str,
    operation: &str,
) -> Result<Answer, Refusal> {
    let stops = operation == "StopInstance";
    {
        let mut records = region.lock();
        let mut instance = find(&records.instances, id)?;
        let allowed = match operation {
            "StartInstance" => instance.state == InstanceState::Stopped,
            _ => instance.state == InstanceState::Running,
        };
        if !allowed {
            let message = format!(
                "instance {id:?} is {}, which does not allow this action",
                instance.state.as_str()
            );
            return Err(Refusal::conflict("InvalidState", message));
        }
        instance.state = if stops {
            InstanceState::Stopping
        } else {
            InstanceState::Running
        };
        instance.state_message.clear();
        region
            .save(&instance)
            .map_err(|error| Refusal::disk(&error))?;
        records.instances.insert(id.to_owned(), instance);
    }
    region
        .console(id)
        .line(if stops { "powering off" } else { "powering on" });
    match operation {
        "StartInstance" => {
            lifecycle::spawn(region, id, lifecycle::run);
        }
        "RebootInstance" => {
            lifecycle::spawn(region, id, lifecycle::reboot);
        }
        _ => patiently(lifecycle::spawn(region, id, lifecycle::power_off)).await,
    }
    Ok(json_answer(
        StatusCode::ACCEPTED,
        &find(&region.lock().instances, id)?.view(),
    ))
}
