//! Makes and removes what a cluster needs around its machines: a network and a load balancer.

use std::time::Duration;

use capstan_sdk::Failure;
use capstan_sdk::infrastructure::{ClusterAnswer, ClusterInput, DeletionAnswer, FailureDomain};
use serde_json::{Value, json};

use crate::Local;
use crate::cloud::{Cloud, LoadBalancer, Made, Network};
use crate::kinds::ClusterStatus;
use crate::machine::INSTANCE_TYPE;

/// Tag of everything that belongs to a cluster: `<namespace>/<name>`.
pub(crate) const CLUSTER_TAG: &str = "cluster";
const NETWORKS: &str = "networks";
const LOAD_BALANCERS: &str = "load-balancers";
/// Port of API servers when nobody chose another.
const API_SERVER_PORT: u16 = 6443;
const SOON: Duration = Duration::from_millis(250);
const LATER: Duration = Duration::from_secs(2);

/// Value of [`CLUSTER_TAG`].
pub(crate) fn tag(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Makes the network and the load balancer, or finds them.
pub(crate) fn ensure(input: &ClusterInput<Local>) -> Result<ClusterAnswer, Failure> {
    let cloud = Cloud::new(&input.context)?;
    let network = network(input, &cloud)?;
    if network.state != "active" {
        return Ok(network_not_ready(network));
    }
    let balancer = load_balancer(input, &cloud, &network)?;
    let answer = match balancer.state.as_str() {
        "active" => ClusterAnswer::ready(),
        "failed" => {
            let message = format!(
                "load balancer {} has failed: {}",
                balancer.id, balancer.state_message
            );
            return Err(Failure::terminal("LoadBalancerFailed", message));
        }
        state => ClusterAnswer::waiting(
            "LoadBalancerProvisioning",
            format!(
                "load balancer {} is {state}: the cloud is making it",
                balancer.id
            ),
            SOON,
        ),
    };
    let status = ClusterStatus {
        network_id: Some(network.id),
        load_balancer_id: Some(balancer.id.clone()),
    };
    let domains = network.zones.into_iter().map(FailureDomain::new);
    let answer = domains.fold(answer, ClusterAnswer::failure_domain);
    let answer = with_capacities(answer, input, &cloud)?;
    // The address is final from the first answer on, so that it may be known before it answers.
    Ok(answer.endpoint(balancer.host, balancer.port).status(status))
}

/// What machines of the cluster's templates will have. A template whose type the cloud does not have says nothing: its machines will.
fn with_capacities(
    mut answer: ClusterAnswer,
    input: &ClusterInput<Local>,
    cloud: &Cloud,
) -> Result<ClusterAnswer, Failure> {
    let templates = input.machine_templates()?;
    if templates.is_empty() {
        return Ok(answer);
    }
    let types = cloud.instance_types()?;
    for template in &templates {
        let wanted = template.spec.instance_type.as_deref();
        let wanted = wanted.unwrap_or(INSTANCE_TYPE);
        if let Some(found) = types.iter().find(|known| known.name == wanted) {
            answer = answer.capacity(template, &found.capacity());
        }
    }
    Ok(answer)
}

/// Load balancers can be made in a network that is active.
fn network_not_ready(network: Network) -> ClusterAnswer {
    let mut message = format!(
        "network {} is {}: the cloud is making it",
        network.id, network.state
    );
    if !network.state_message.is_empty() {
        message.push_str(": ");
        message.push_str(&network.state_message);
    }
    let status = ClusterStatus {
        network_id: Some(network.id),
        load_balancer_id: None,
    };
    ClusterAnswer::waiting("NetworkProvisioning", message, SOON).status(status)
}

fn network(input: &ClusterInput<Local>, cloud: &Cloud) -> Result<Network, Failure> {
    let known = &input.infra_cluster.status.network_id;
    if let Some(id) = known {
        return cloud.find(NETWORKS, id)?.ok_or_else(|| gone("network", id));
    }
    if let Some(name) = &input.infra_cluster.spec.network {
        return existing_network(cloud, name);
    }
    let tag = tag(input.cluster.namespace(), input.cluster.name());
    let mut found: Vec<Network> = cloud.tagged(NETWORKS, CLUSTER_TAG, &tag)?;
    if let Some(network) = found.pop() {
        return Ok(network);
    }
    let mut body = json!({"name": input.cluster.name(), "tags": {CLUSTER_TAG: tag}});
    if let (Some(fields), Some(backend)) = (body.as_object_mut(), &input.infra_cluster.spec.backend)
    {
        fields.insert("backend".to_owned(), json!(backend));
    }
    match cloud.make(NETWORKS, &body, None)? {
        Made::There(network) => Ok(network),
        Made::Gone => Err(gone("network", "of this cluster")),
    }
}

/// The network that the LocalCluster names. It is the user's: never tagged, never deleted.
fn existing_network(cloud: &Cloud, name: &str) -> Result<Network, Failure> {
    let found: Vec<Network> = cloud.named(NETWORKS, name)?;
    let count = found.len();
    match found.into_iter().next() {
        Some(network) if count == 1 => Ok(network),
        Some(_) => Err(Failure::terminal(
            "NetworkAmbiguous",
            format!("spec.network: the cloud has {count} networks with the name {name:?}"),
        )),
        None => Err(Failure::terminal(
            "NetworkNotFound",
            format!(
                "spec.network: the cloud has no network with the name {name:?}: make it, or leave the field out"
            ),
        )),
    }
}

fn load_balancer(
    input: &ClusterInput<Local>,
    cloud: &Cloud,
    network: &Network,
) -> Result<LoadBalancer, Failure> {
    if let Some(id) = &input.infra_cluster.status.load_balancer_id {
        return cloud
            .find(LOAD_BALANCERS, id)?
            .ok_or_else(|| gone("load balancer", id));
    }
    let tag = tag(input.cluster.namespace(), input.cluster.name());
    let mut found: Vec<LoadBalancer> = cloud.tagged(LOAD_BALANCERS, CLUSTER_TAG, &tag)?;
    if let Some(balancer) = found.pop() {
        return Ok(balancer);
    }
    let port = input.infra_cluster.spec.load_balancer.port;
    let port = port.or(input.cluster.spec.cluster_network.api_server_port);
    let body = json!({
        "name": format!("{}-api", input.cluster.name()),
        "networkId": network.id,
        "targetPort": port.unwrap_or(API_SERVER_PORT),
        "tags": {CLUSTER_TAG: tag},
    });
    match cloud.make(LOAD_BALANCERS, &body, None)? {
        Made::There(balancer) => Ok(balancer),
        Made::Gone => Err(gone("load balancer", "of this cluster")),
    }
}

/// Another one would have another address, which a cluster's certificates and machines do not know.
fn gone(what: &str, id: &str) -> Failure {
    Failure::terminal(
        "InfrastructureGone",
        format!(
            "the {what} {id} has been deleted from the cloud by somebody else: the cluster has to be made again"
        ),
    )
}

/// Removes the load balancer, then the network, by tag: also what an answer that was lost left behind.
pub(crate) fn delete(input: &ClusterInput<Local>) -> Result<DeletionAnswer, Failure> {
    let cloud = Cloud::new(&input.context)?;
    let tag = tag(input.cluster.namespace(), input.cluster.name());
    let balancers: Vec<LoadBalancer> = cloud.tagged(LOAD_BALANCERS, CLUSTER_TAG, &tag)?;
    for balancer in balancers
        .iter()
        .filter(|balancer| balancer.state != "deleting")
    {
        cloud.delete(&format!("{LOAD_BALANCERS}/{}", balancer.id))?;
    }
    if !balancers.is_empty() {
        return Ok(DeletionAnswer::waiting(
            "DeletingLoadBalancer",
            "the cloud is deleting the load balancer",
            SOON,
        ));
    }
    // The listing has all fields; only the ID is of interest.
    let networks: Vec<Value> = cloud.tagged(NETWORKS, CLUSTER_TAG, &tag)?;
    let mut is_leaving = false;
    for network in &networks {
        let id = network
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !cloud.delete(&format!("{NETWORKS}/{id}"))? {
            let message = format!(
                "network {id} still has instances or load balancers: they have to be deleted first"
            );
            return Ok(DeletionAnswer::waiting("NetworkInUse", message, LATER));
        }
        is_leaving |= cloud.find::<Value>(NETWORKS, id)?.is_some();
    }
    if is_leaving {
        return Ok(DeletionAnswer::waiting(
            "DeletingNetwork",
            "the cloud is deleting the network",
            SOON,
        ));
    }
    Ok(DeletionAnswer::gone())
}
