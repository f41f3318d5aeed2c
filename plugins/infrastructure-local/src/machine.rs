//! Makes and removes the instance of a machine: one, and only one.

use std::time::Duration;

use capstan_sdk::infrastructure::{AddressType, DeletionAnswer, MachineAnswer, MachineInput};
use capstan_sdk::{Condition, ConditionStatus, Failure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Local;
use crate::cloud::{Cloud, Instance, LoadBalancer, Made, Network};
use crate::cluster::{CLUSTER_TAG, tag};
use crate::kinds::MachineStatus;

const INSTANCES: &str = "instances";
const MACHINE_TAG: &str = "machine";
pub(crate) const INSTANCE_TYPE: &str = "small";
/// The condition that tells what the instance did with its bootstrap data.
const BOOTSTRAP_CONDITION: &str = "BootstrapSucceeded";
/// The condition that tells that the instance has bootstrapped long ago and no Node has been seen.
const JOINED_CONDITION: &str = "NodeJoined";
/// A machine that bootstraps or joins takes seconds; after this long its console is shown.
const SLOW_MS: u64 = 180_000;
/// Lines and characters of the console that are shown when something is wrong with the machine.
const CONSOLE_LINES: usize = 10;
const CONSOLE_CHARACTERS: usize = 1500;
/// Waits grow with the time waited so far, between these bounds.
const WAIT_MIN_MS: u64 = 250;
const WAIT_MAX_MS: u64 = 10_000;
/// When nothing changes unless somebody does something.
const WAIT_FOR_PEOPLE: Duration = Duration::from_secs(60);

/// What is kept between calls.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    /// The instance, once it exists. It is never made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
    /// When waiting for the cloud began.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
}

impl Memory {
    fn read(state: Option<&[u8]>) -> Result<Memory, Failure> {
        let Some(bytes) = state.filter(|bytes| !bytes.is_empty()) else {
            return Ok(Memory::default());
        };
        serde_json::from_slice(bytes)
            .map_err(|error| Failure::terminal("InvalidState", format!("kept state: {error}")))
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether it has been waited for so long that something may be wrong with the machine.
    fn has_waited_long(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms.unwrap_or(now_ms)) >= SLOW_MS
    }

    /// How long to wait: half of what has been waited so far, so that quick clouds are asked often and slow ones seldom.
    fn wait(&self, now_ms: u64) -> Duration {
        let waited_ms = now_ms.saturating_sub(self.since_ms.unwrap_or(now_ms));
        Duration::from_millis((waited_ms / 2).clamp(WAIT_MIN_MS, WAIT_MAX_MS))
    }
}

/// Makes the instance, or finds it, and tells how far it is.
pub(crate) fn ensure(input: &MachineInput<Local>) -> Result<MachineAnswer, Failure> {
    let cloud = Cloud::new(&input.context)?;
    let mut memory = Memory::read(input.state.as_deref())?;
    let instance = match known_id(input, &memory) {
        Some(id) => cloud.find(INSTANCES, &id)?.ok_or_else(|| gone(&id))?,
        None => found_or_made(input, &cloud)?,
    };
    memory.instance_id = Some(instance.id.clone());
    memory.since_ms.get_or_insert(input.context.now_ms);
    progress(input, &cloud, &memory, instance)
}

/// The instance's ID as kept, or as the provider ID tells: that one survives when an object is moved to another management cluster.
fn known_id(input: &MachineInput<Local>, memory: &Memory) -> Option<String> {
    let provider_id = || {
        let text = input
            .infra_machine
            .raw
            .pointer("/spec/providerID")?
            .as_str()?;
        text.rsplit_once('/').map(|(_, id)| id.to_owned())
    };
    memory.instance_id.clone().or_else(provider_id)
}

fn machine_tag(input: &MachineInput<Local>) -> String {
    tag(input.machine.namespace(), input.machine.name())
}

fn found_or_made(input: &MachineInput<Local>, cloud: &Cloud) -> Result<Instance, Failure> {
    let mut found: Vec<Instance> = cloud.tagged(INSTANCES, MACHINE_TAG, &machine_tag(input))?;
    if let Some(instance) = found.pop() {
        return Ok(instance);
    }
    let bootstrap = input.bootstrap()?;
    let spec = &input.infra_machine.spec;
    let image = spec.image.as_deref().unwrap_or(&input.machine.spec.version);
    if image.is_empty() {
        return Err(Failure::terminal(
            "ImageUnknown",
            "spec.image is unset and the Machine has no spec.version: set one of them",
        ));
    }
    let owner = tag(input.cluster.namespace(), input.cluster.name());
    let network = network_id(input, cloud, &owner)?;
    let mut body = json!({
        "name": input.machine.name(),
        "networkId": network,
        "type": spec.instance_type.as_deref().unwrap_or(INSTANCE_TYPE),
        "image": image,
        "userDataFormat": bootstrap.format,
        "tags": {CLUSTER_TAG: owner, MACHINE_TAG: machine_tag(input)},
    });
    if let Some(fields) = body.as_object_mut() {
        let optional = [
            ("zone", &input.failure_domain),
            ("backend", &spec.backend),
            ("userDataRunner", &spec.user_data_runner),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        if input.machine.is_control_plane() {
            let balancer = load_balancer_id(input, cloud, &owner)?;
            fields.insert("loadBalancerIds".to_owned(), json!([balancer]));
        }
    }
    match cloud.make(INSTANCES, &body, Some(bootstrap.data))? {
        Made::There(instance) => Ok(instance),
        Made::Gone => Err(gone("of this machine")),
    }
}

fn network_id(input: &MachineInput<Local>, cloud: &Cloud, owner: &str) -> Result<String, Failure> {
    if let Some(id) = &input.infra_cluster.status.network_id {
        return Ok(id.clone());
    }
    let found: Vec<Network> = match &input.infra_cluster.spec.network {
        Some(name) => cloud.named("networks", name)?,
        None => cloud.tagged("networks", CLUSTER_TAG, owner)?,
    };
    found
        .into_iter()
        .next()
        .map(|network| network.id)
        .ok_or_else(|| not_yet("network"))
}

fn load_balancer_id(
    input: &MachineInput<Local>,
    cloud: &Cloud,
    owner: &str,
) -> Result<String, Failure> {
    if let Some(id) = &input.infra_cluster.status.load_balancer_id {
        return Ok(id.clone());
    }
    let found: Vec<LoadBalancer> = cloud.tagged("load-balancers", CLUSTER_TAG, owner)?;
    found
        .into_iter()
        .next()
        .map(|balancer| balancer.id)
        .ok_or_else(|| not_yet("load balancer"))
}

fn not_yet(what: &str) -> Failure {
    Failure::transient(
        "ClusterInfrastructureMissing",
        format!(
            "the cluster's {what} is not in the cloud: its LocalCluster has to be provisioned first"
        ),
    )
}

fn gone(id: &str) -> Failure {
    Failure::terminal(
        "InstanceGone",
        format!(
            "the instance {id} existed and is gone from the cloud: delete the Machine to get another"
        ),
    )
}

/// How far a machine is that runs.
fn running(
    input: &MachineInput<Local>,
    cloud: &Cloud,
    memory: &Memory,
    instance: &Instance,
) -> MachineAnswer {
    let id = &instance.id;
    let is_late = memory.has_waited_long(input.context.now_ms);
    match instance.bootstrap.state.as_str() {
        "failed" => {
            let why = bootstrap_failure(cloud, instance);
            let condition = Condition::new(
                BOOTSTRAP_CONDITION,
                ConditionStatus::False,
                "BootstrapFailed",
                why.clone(),
            );
            MachineAnswer::waiting("BootstrapFailed", why, WAIT_FOR_PEOPLE).condition(condition)
        }
        "waiting" | "running" => {
            let answer = MachineAnswer::waiting(
                "Bootstrapping",
                format!("instance {id} runs and works on its bootstrap data"),
                memory.wait(input.context.now_ms),
            );
            if !is_late {
                return answer;
            }
            let what = format!("instance {id} still works on its bootstrap data");
            answer.condition(Condition::new(
                BOOTSTRAP_CONDITION,
                ConditionStatus::Unknown,
                "BootstrapSlow",
                with_console(&cloud.console(id), what),
            ))
        }
        _ => {
            let done = Condition::new(
                BOOTSTRAP_CONDITION,
                ConditionStatus::True,
                "BootstrapSucceeded",
                "",
            );
            let answer = MachineAnswer::ready(instance.provider_id.clone()).condition(done);
            if !is_late || input.machine.status.node_ref.is_some() {
                return answer;
            }
            let what = format!("instance {id} has bootstrapped, and no Node has its provider ID");
            answer.condition(Condition::new(
                JOINED_CONDITION,
                ConditionStatus::False,
                "NodeMissing",
                with_console(&cloud.console(id), what),
            ))
        }
    }
}

fn progress(
    input: &MachineInput<Local>,
    cloud: &Cloud,
    memory: &Memory,
    instance: Instance,
) -> Result<MachineAnswer, Failure> {
    let wait = memory.wait(input.context.now_ms);
    let id = &instance.id;
    let waiting = |reason: &str, message: String, wait: Duration| {
        MachineAnswer::waiting(reason, message, wait)
    };
    let answer = match instance.state.as_str() {
        "running" => running(input, cloud, memory, &instance),
        "failed" => {
            let message = format!(
                "the cloud could not make instance {id}: {}",
                instance.state_message
            );
            return Err(Failure::terminal("InstanceFailed", message));
        }
        "terminating" | "terminated" => return Err(gone(id)),
        "stopping" | "stopped" => waiting(
            "InstanceStopped",
            match instance.state_message.as_str() {
                "" => format!("instance {id} is stopped: somebody has to start it"),
                why => format!("instance {id} is stopped ({why}): somebody has to start it"),
            },
            WAIT_FOR_PEOPLE,
        ),
        state => waiting(
            "InstanceProvisioning",
            format!("instance {id} is {state}: the cloud is making it"),
            wait,
        ),
    };
    let status = MachineStatus {
        instance_id: Some(instance.id),
    };
    let mut answer = answer
        .provider_id(instance.provider_id)
        .instance_state(instance.state)
        .status(status)
        .state(memory.bytes());
    if !instance.zone.is_empty() {
        answer = answer.failure_domain(instance.zone);
    }
    for address in instance.addresses {
        if let Some(address_type) = address_type(&address.address_type) {
            answer = answer.address(address_type, address.address);
        }
    }
    Ok(answer)
}

fn address_type(name: &str) -> Option<AddressType> {
    let types = [
        AddressType::Hostname,
        AddressType::InternalIp,
        AddressType::ExternalIp,
        AddressType::InternalDns,
        AddressType::ExternalDns,
    ];
    types
        .into_iter()
        .find(|address_type| address_type.as_str() == name)
}

/// What the guest reported and the end of its console, which never has secrets of the user data.
fn bootstrap_failure(cloud: &Cloud, instance: &Instance) -> String {
    let what = format!(
        "instance {} has failed to bootstrap: {}",
        instance.id, instance.bootstrap.message
    );
    with_console(&cloud.console(&instance.id), what)
}

/// A sentence with the end of a console behind it.
fn with_console(console: &str, what: String) -> String {
    let lines: Vec<&str> = console
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines
        .get(lines.len().saturating_sub(CONSOLE_LINES)..)
        .unwrap_or_default()
        .join("\n");
    let skipped = last.chars().count().saturating_sub(CONSOLE_CHARACTERS);
    let tail: String = last.chars().skip(skipped).collect();
    if tail.is_empty() {
        what
    } else {
        format!("{what}; the end of its console:\n{tail}")
    }
}

/// Removes the instance, by tag: also what an answer that was lost left behind. The provider ID and the state are the object's, which
/// its owner can write: they are believed about an instance that the cloud says is this machine's, and about no other.
pub(crate) fn delete(input: &MachineInput<Local>) -> Result<DeletionAnswer, Failure> {
    let cloud = Cloud::new(&input.context)?;
    let mut memory = Memory::read(input.state.as_deref())?;
    let own = machine_tag(input);
    let mut found: Vec<Instance> = cloud.tagged(INSTANCES, MACHINE_TAG, &own)?;
    if let Some(id) = known_id(input, &memory)
        && !found.iter().any(|instance| instance.id == id)
    {
        let known: Option<Instance> = cloud.find(INSTANCES, &id)?;
        found.extend(known.filter(|known| known.tags.get(MACHINE_TAG) == Some(&own)));
    }
    if found.is_empty() {
        return Ok(DeletionAnswer::gone());
    }
    for instance in &found {
        if !matches!(instance.state.as_str(), "terminating" | "terminated") {
            deregister(input, &cloud, &instance.id)?;
            cloud.delete(&format!("{INSTANCES}/{}", instance.id))?;
            memory.since_ms = Some(input.context.now_ms);
        }
    }
    let wait = memory.wait(input.context.now_ms);
    let message = "the cloud is deleting the instance";
    Ok(DeletionAnswer::waiting("DeletingInstance", message, wait).state(memory.bytes()))
}

/// Takes a control-plane machine out of the load balancer before its API server stops.
fn deregister(input: &MachineInput<Local>, cloud: &Cloud, id: &str) -> Result<(), Failure> {
    if let (true, Some(balancer)) = (
        input.machine.is_control_plane(),
        &input.infra_cluster.status.load_balancer_id,
    ) {
        cloud.delete(&format!("load-balancers/{balancer}/targets/{id}"))?;
    }
    Ok(())
}
