//! The cloud's resources as they are kept on disk and as clients see them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backend::NetworkSpec;

/// Tags.
pub(crate) type Tags = BTreeMap<String, String>;

/// The zones of every network.
pub(crate) const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

/// Pods that a machine of any type takes: kubelet's own default.
const PODS: u32 = 110;

/// An instance type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceType {
    /// Name.
    pub(crate) name: &'static str,
    /// CPUs.
    pub(crate) cpu: u32,
    /// Memory.
    pub(crate) memory_mib: u32,
}

impl InstanceType {
    /// The one with this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        TYPES.into_iter().find(|known| known.name == name)
    }

    /// What clients see: what a Node of this type has, as Kubernetes writes quantities.
    pub(crate) fn view(&self) -> Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "name": self.name, "cpu": self.cpu, "memoryMiB": self.memory_mib,
            "architecture": architecture, "operatingSystem": "linux",
            "capacity": {"cpu": self.cpu.to_string(), "memory": format!("{}Mi", self.memory_mib), "pods": PODS.to_string()},
        })
    }
}

/// All instance types.
pub(crate) const TYPES: [InstanceType; 3] = [
    InstanceType {
        name: "small",
        cpu: 2,
        memory_mib: 4096,
    },
    InstanceType {
        name: "medium",
        cpu: 4,
        memory_mib: 8192,
    },
    InstanceType {
        name: "large",
        cpu: 8,
        memory_mib: 16_384,
    },
];

/// What every resource has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    /// Identity.
    pub(crate) id: String,
    /// Name.
    pub(crate) name: String,
    /// Tags.
    pub(crate) tags: Tags,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// Order of creation.
    pub(crate) serial: u64,
    /// The creating request's key and the digest of its body.
    pub(crate) idempotency: Option<(String, String)>,
}

/// A resource that can be listed.
pub(crate) trait Record: Clone + Serialize {
    /// Singular, for messages and idempotency.
    const KIND: &'static str;
    /// Directory below the cloud's.
    const DIR: &'static str;

    /// What every resource has.
    fn head(&self) -> &Head;
    /// What clients see.
    fn view(&self) -> Value;
}

/// What the records of a cloud had before backends could be chosen.
fn light() -> String {
    "light".into()
}

fn active() -> String {
    "active".into()
}

fn localhost() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn at_localhost() -> Option<IpAddr> {
    Some(localhost())
}

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    /// What every resource has.
    pub(crate) head: Head,
    /// Backend's name.
    #[serde(default = "light")]
    pub(crate) backend: String,
    /// `pending`, `active` or `deleting`.
    #[serde(default = "active")]
    pub(crate) state: String,
    /// Why it is not active.
    #[serde(default)]
    pub(crate) state_message: String,
    /// Address of this host that its machines reach; absent until it is active.
    #[serde(default = "at_localhost")]
    pub(crate) address: Option<IpAddr>,
}

impl Network {
    /// As its backend sees it.
    pub(crate) fn spec(&self) -> NetworkSpec {
        NetworkSpec {
            id: self.head.id.clone(),
            name: self.head.name.clone(),
            zones: ZONES.map(str::to_owned).to_vec(),
        }
    }
}

impl Record for Network {
    const KIND: &'static str = "network";
    const DIR: &'static str = "networks";

    fn head(&self) -> &Head {
        &self.head
    }

    fn view(&self) -> Value {
        let head = &self.head;
        json!({
            "id": head.id, "name": head.name, "state": self.state, "stateMessage": self.state_message, "backend": self.backend,
            "zones": ZONES, "tags": head.tags, "createdAt": head.created_at,
        })
    }
}

/// A load balancer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadBalancer {
    /// What every resource has.
    pub(crate) head: Head,
    /// Its network.
    pub(crate) network_id: String,
    /// `provisioning`, `active` or `deleting`.
    pub(crate) state: String,
    /// Why it is not active.
    pub(crate) state_message: String,
    /// Address on which it listens.
    #[serde(default = "localhost")]
    pub(crate) host: IpAddr,
    /// Port there.
    pub(crate) port: u16,
    /// Port on the targets.
    pub(crate) target_port: u16,
    /// Instances.
    pub(crate) targets: Vec<String>,
}

impl Record for LoadBalancer {
    const KIND: &'static str = "load balancer";
    const DIR: &'static str = "load-balancers";

    fn head(&self) -> &Head {
        &self.head
    }

    fn view(&self) -> Value {
        let head = &self.head;
        json!({
            "id": head.id, "name": head.name, "networkId": self.network_id, "state": self.state,
            "stateMessage": self.state_message, "host": self.host, "port": self.port, "targetPort": self.target_port,
            "targets": self.targets, "tags": head.tags, "createdAt": head.created_at,
        })
    }
}

/// State of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InstanceState {
    /// Asked for.
    Pending,
    /// Being made.
    Provisioning,
    /// On.
    Running,
    /// On its way off.
    Stopping,
    /// Off.
    Stopped,
    /// Being deleted.
    Terminating,
    /// Deleted, about to be forgotten.
    Terminated,
    /// Could not be made.
    Failed,
}

impl InstanceState {
    /// As clients see it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Terminating => "terminating",
            Self::Terminated => "terminated",
            Self::Failed => "failed",
        }
    }
}

/// What a machine's bootstrap has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BootstrapState {
    /// Not booted yet.
    Waiting,
    /// User data is running.
    Running,
    /// It did what it should.
    Done,
    /// It did not.
    Failed,
}

impl BootstrapState {
    /// As clients see it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether the user data has run to its end.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// What fault rules have in store for an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Fate {
    /// Provisioning takes so much longer.
    pub(crate) delay_ms: u64,
    /// It stays pending.
    pub(crate) never: bool,
    /// It fails with this message.
    pub(crate) fail: Option<String>,
    /// It is gone so long after it runs.
    pub(crate) disappear_after_ms: Option<u64>,
    /// Its kubelet falls silent so long after its Node is ready.
    pub(crate) silent_after_ms: Option<u64>,
}

/// An instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    /// What every resource has.
    pub(crate) head: Head,
    /// Its network.
    pub(crate) network_id: String,
    /// Its zone.
    pub(crate) zone: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub(crate) type_: String,
    /// Kubernetes version.
    pub(crate) image: String,
    /// Backend's name.
    pub(crate) backend: String,
    /// User data, base64.
    pub(crate) user_data: String,
    /// Whether the distribution's own cloud-init runs it.
    #[serde(default)]
    pub(crate) cloud_init: bool,
    /// State.
    pub(crate) state: InstanceState,
    /// Why it is in this state.
    pub(crate) state_message: String,
    /// Its address, empty until it has one.
    pub(crate) address: String,
    /// What its bootstrap has come to.
    pub(crate) bootstrap: BootstrapState,
    /// More about that.
    pub(crate) bootstrap_message: String,
    /// What fault rules have in store.
    #[serde(default)]
    pub(crate) fate: Fate,
}

impl Instance {
    /// The identity that a Node carries.
    pub(crate) fn provider_id(&self) -> String {
        format!("local:///{}/{}", self.zone, self.head.id)
    }
}

impl Record for Instance {
    const KIND: &'static str = "instance";
    const DIR: &'static str = "instances";

    fn head(&self) -> &Head {
        &self.head
    }

    fn view(&self) -> Value {
        let head = &self.head;
        let addresses = if self.address.is_empty() {
            json!([])
        } else {
            json!([{"type": "InternalIP", "address": self.address}, {"type": "Hostname", "address": head.name}])
        };
        json!({
            "id": head.id, "name": head.name, "providerId": self.provider_id(), "state": self.state.as_str(),
            "stateMessage": self.state_message, "networkId": self.network_id, "zone": self.zone, "type": self.type_,
            "image": self.image, "backend": self.backend, "tags": head.tags, "createdAt": head.created_at,
            "addresses": addresses,
            "bootstrap": {"state": self.bootstrap.as_str(), "message": self.bootstrap_message},
        })
    }
}
