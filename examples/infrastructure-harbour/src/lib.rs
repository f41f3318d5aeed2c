//! A provider for a cloud with a REST API, whole: networks, load balancers, instances. The local cloud is such a cloud.

use std::time::Duration;

use capstan_sdk::http::{Client, Next, SecretEncoding};
use capstan_sdk::infrastructure::{
    AddressType, ClusterAnswer, ClusterInput, DeletionAnswer, FailureDomain, Infrastructure,
    MachineAnswer, MachineInput,
};
use capstan_sdk::schema::{object, string};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::{
    CapabilityRequest, Cluster, Context, Failure, KindRole, Manifest, NoStatus, OwnedKind, Plugin,
};
use serde::Deserialize;

const GROUP: &str = "infrastructure.cluster.x-k8s.io";
const SOON: Duration = Duration::from_secs(1);

/// `spec.config` of the Plugin object.
#[derive(Deserialize)]
struct Config {
    endpoint: String,
}

/// `spec` of a HarbourCluster.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterSpec {}

/// `spec` of a HarbourMachine.
#[derive(Clone, Debug, Deserialize)]
pub struct MachineSpec {
    /// Size of the instance.
    #[serde(rename = "type")]
    pub size: String,
}

/// A network, a load balancer or an instance: what this provider looks at.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resource {
    id: String,
    state: String,
    zones: Vec<String>,
    host: String,
    port: u16,
    provider_id: String,
    zone: String,
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// The plugin.
pub struct Harbour;

impl Plugin for Harbour {
    fn manifest() -> Manifest {
        let size = string()
            .length(1, 63)
            .describe("Size of the instance, such as small.");
        let machine = object().required("type", size.immutable());
        let kind = |role, name: &str| OwnedKind::new(role, GROUP, name);
        Manifest::new("infrastructure-harbour", env!("CARGO_PKG_VERSION"))
            .description("Machines of a cloud with a REST API.")
            .kind(kind(KindRole::InfraCluster, "HarbourCluster").spec(object()))
            .kind(kind(KindRole::InfraMachine, "HarbourMachine").spec(machine.clone()))
            .kind(kind(KindRole::InfraMachineTemplate, "HarbourMachineTemplate").spec(machine))
            .asks_for(CapabilityRequest::http(
                "Makes networks, load balancers and instances in the cloud of spec.config.endpoint.",
            ))
    }
}

fn cloud(context: &Context) -> Result<Client, Failure> {
    let config: Config = context.config_as()?;
    Ok(Client::new(format!("{}/v1", config.endpoint), context).credential("harbour"))
}

fn owner(cluster: &Cluster) -> String {
    format!("cluster={}", cluster.key())
}

/// All of a kind that carry a tag, page by page.
fn tagged(cloud: &Client, kind: &str, tag: &str) -> Result<Vec<Resource>, Failure> {
    let next = Next::cursor("/nextPageToken", "pageToken");
    let request = cloud.request("GET", kind).query("tag", tag);
    cloud.list(&request.url, "/items", &next)
}

/// The one that is there, or a new one: the cloud makes one for an idempotency key, however often it is asked.
fn ensure(cloud: &Client, kind: &str, owner: &str, body: &Value) -> Result<Resource, Failure> {
    match tagged(cloud, kind, owner)?.pop() {
        Some(found) => Ok(found),
        None => cloud.create(kind, body),
    }
}

fn instance(cloud: &Client, input: &MachineInput<Harbour>) -> Result<Option<Resource>, Failure> {
    let tag = format!("machine={}", input.machine.key());
    Ok(tagged(cloud, "instances", &tag)?.pop())
}

impl Infrastructure for Harbour {
    type ClusterSpec = ClusterSpec;
    type ClusterStatus = NoStatus;
    type MachineSpec = MachineSpec;
    type MachineStatus = NoStatus;

    fn ensure_cluster(input: ClusterInput<Self>) -> Result<ClusterAnswer, Failure> {
        let (cloud, owner) = (cloud(&input.context)?, owner(&input.cluster));
        let tags = json!({"cluster": input.cluster.key()});
        let body = json!({"name": input.cluster.name(), "tags": tags});
        let network = ensure(&cloud, "networks", &owner, &body)?;
        if network.state != "active" {
            let message = format!("network {} is {}", network.id, network.state);
            return Ok(ClusterAnswer::waiting("NetworkPending", message, SOON));
        }
        let body = json!({"name": input.cluster.name(), "networkId": network.id, "tags": tags});
        let balancer = ensure(&cloud, "load-balancers", &owner, &body)?;
        let answer = if balancer.state == "active" {
            ClusterAnswer::ready()
        } else {
            let message = format!("load balancer {} is {}", balancer.id, balancer.state);
            ClusterAnswer::waiting("LoadBalancerPending", message, SOON)
        };
        let zones = network.zones.into_iter().map(FailureDomain::new);
        Ok(zones
            .fold(answer, ClusterAnswer::failure_domain)
            .endpoint(balancer.host, balancer.port))
    }

    fn delete_cluster(input: ClusterInput<Self>) -> Result<DeletionAnswer, Failure> {
        let (cloud, owner) = (cloud(&input.context)?, owner(&input.cluster));
        // The cloud takes no network away while something is in it: one after the other.
        for kind in ["load-balancers", "networks"] {
            let left = tagged(&cloud, kind, &owner)?;
            for found in &left {
                cloud.remove(&format!("{kind}/{}", found.id))?;
            }
            if !left.is_empty() {
                let message = format!("{} of {kind} are being deleted", left.len());
                return Ok(DeletionAnswer::waiting("Deleting", message, SOON));
            }
        }
        Ok(DeletionAnswer::gone())
    }

    fn ensure_machine(input: MachineInput<Self>) -> Result<MachineAnswer, Failure> {
        let cloud = cloud(&input.context)?;
        let found = match instance(&cloud, &input)? {
            Some(instance) => instance,
            None => make(&cloud, &input)?,
        };
        let answer = match found.state.as_str() {
            "running" => MachineAnswer::ready(&found.provider_id),
            "pending" | "provisioning" => {
                let message = format!("instance {} is {}", found.id, found.state);
                MachineAnswer::waiting("InstancePending", message, SOON)
            }
            other => {
                let message = format!("instance {} is {other}: delete the Machine", found.id);
                return Err(Failure::terminal("InstanceLost", message));
            }
        };
        let answer = answer.failure_domain(found.zone);
        let answer = answer
            .provider_id(found.provider_id)
            .instance_state(found.state);
        let addresses = found.addresses.into_iter();
        Ok(addresses.fold(answer, |answer, found| {
            match AddressType::named(&found.kind) {
                Some(kind) => answer.address(kind, found.address),
                None => answer,
            }
        }))
    }

    fn delete_machine(input: MachineInput<Self>) -> Result<DeletionAnswer, Failure> {
        let cloud = cloud(&input.context)?;
        let Some(found) = instance(&cloud, &input)? else {
            return Ok(DeletionAnswer::gone());
        };
        cloud.remove(&format!("instances/{}", found.id))?;
        let message = format!("instance {} is being deleted", found.id);
        Ok(DeletionAnswer::waiting("InstanceDeleting", message, SOON))
    }
}

fn make(cloud: &Client, input: &MachineInput<Harbour>) -> Result<Resource, Failure> {
    let owner = owner(&input.cluster);
    let network = tagged(cloud, "networks", &owner)?.pop();
    let network = network.ok_or_else(|| Failure::transient("NoNetwork", "the network is gone"))?;
    let balancers = match input.machine.is_control_plane() {
        true => tagged(cloud, "load-balancers", &owner)?,
        false => Vec::new(),
    };
    let balancers: Vec<&str> = balancers.iter().map(|found| found.id.as_str()).collect();
    let body = json!({
        "name": input.machine.name(), "networkId": network.id, "zone": input.failure_domain,
        "type": input.infra_machine.spec.size, "image": input.machine.spec.version,
        "tags": {"cluster": input.cluster.key(), "machine": input.machine.key()},
        "loadBalancerIds": balancers,
    });
    // The plugin holds a handle; the host puts the bootstrap data in.
    let data = input.bootstrap()?.data;
    let request = cloud.creating("instances");
    let request = request.json_with_secret(&body, "/userData", data, SecretEncoding::Base64);
    cloud.send(request)?.json()
}

capstan_sdk::export_infrastructure!(Harbour);

#[cfg(test)]
mod tests;
