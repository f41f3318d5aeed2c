//! Infrastructure providers: machines, and what clusters need around them.

mod template;

use std::fmt::Debug;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Condition, Endpoint, Failure, Progress, Status, Waiting, each};
use crate::bindings::base::capstan::plugin::types;
use crate::bindings::infrastructure::exports::capstan::plugin::infrastructure as wit;
use crate::context::{Context, Extra, SecretHandle, read_extra, write_extra};
use crate::export::{Exported, input_traits};
use crate::kinds::{Cluster, Machine};
use crate::manifest::Plugin;
use crate::object::Object;

pub use template::{Capacity, MachineTemplate, NodeInfo};

/// An infrastructure provider. Every function is called again and again, from any state, also after a crash in the middle of an
/// earlier call. The host owns finalizers, owner references, pause, retries, contract fields and contract conditions.
pub trait Infrastructure: Plugin {
    /// The provider's own fields in the `spec` of its cluster kind.
    type ClusterSpec: DeserializeOwned + Clone + Debug;
    /// The provider's own fields in the `status` of its cluster kind; [`NoStatus`](crate::NoStatus) when it has none.
    type ClusterStatus: DeserializeOwned + Clone + Debug + Default;
    /// The provider's own fields in the `spec` of its machine kind.
    type MachineSpec: DeserializeOwned + Clone + Debug;
    /// The provider's own fields in the `status` of its machine kind.
    type MachineStatus: DeserializeOwned + Clone + Debug + Default;

    /// Makes everything that the cluster's machines need before the first of them.
    ///
    /// # Errors
    /// What the host shows in the object's condition, and when it tries again.
    fn ensure_cluster(input: ClusterInput<Self>) -> Result<ClusterAnswer, Failure>;

    /// Called after the last machine is gone.
    ///
    /// # Errors
    /// As for [`ensure_cluster`](Self::ensure_cluster).
    fn delete_cluster(input: ClusterInput<Self>) -> Result<DeletionAnswer, Failure>;

    /// Makes one instance, and only one, however often it is called: pass `context.idempotency_key` to the cloud or look up by it.
    ///
    /// # Errors
    /// As for [`ensure_cluster`](Self::ensure_cluster).
    fn ensure_machine(input: MachineInput<Self>) -> Result<MachineAnswer, Failure>;

    /// Ends when the instance no longer exists. "Not found" is success.
    ///
    /// # Errors
    /// As for [`ensure_cluster`](Self::ensure_cluster).
    fn delete_machine(input: MachineInput<Self>) -> Result<DeletionAnswer, Failure>;
}

/// Input of the cluster functions.
pub struct ClusterInput<P: Infrastructure + ?Sized> {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Cluster,
    /// The infrastructure cluster object.
    pub infra_cluster: Object<P::ClusterSpec, P::ClusterStatus>,
    /// What the last answer for this object kept; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

input_traits!(ClusterInput<Infrastructure> { context, cluster, infra_cluster, state, extra });

/// Input of the machine functions.
pub struct MachineInput<P: Infrastructure + ?Sized> {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Cluster,
    /// The infrastructure cluster object.
    pub infra_cluster: Object<P::ClusterSpec, P::ClusterStatus>,
    /// The Machine.
    pub machine: Machine,
    /// The infrastructure machine object.
    pub infra_machine: Object<P::MachineSpec, P::MachineStatus>,
    /// Where to place the machine, when the cluster has failure domains.
    pub failure_domain: Option<String>,
    /// Present for `ensure_machine`, absent for `delete_machine`.
    pub bootstrap: Option<BootstrapData>,
    /// The whole Cluster is being deleted.
    pub cluster_deleting: bool,
    /// What the last answer for this object kept; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

input_traits!(MachineInput<Infrastructure> { context, cluster, infra_cluster, machine, infra_machine, failure_domain, bootstrap, cluster_deleting, state, extra });

impl<P: Infrastructure + ?Sized> MachineInput<P> {
    /// The bootstrap data of a call of `ensure_machine`.
    ///
    /// # Errors
    /// A transient failure when the host gave none.
    pub fn bootstrap(&self) -> Result<&BootstrapData, Failure> {
        self.bootstrap.as_ref().ok_or_else(|| {
            Failure::transient("BootstrapDataMissing", "the host gave no bootstrap data")
        })
    }
}

/// Bootstrap data of a machine. The bytes stay in the host; [`http`](crate::http) takes the handle as a part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapData {
    /// The bytes, by handle.
    pub data: SecretHandle,
    /// Such as `cloud-config` or `ignition`.
    pub format: String,
}

/// Where machines can be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureDomain {
    /// Unique within the cluster.
    pub name: String,
    /// Suited for control-plane machines.
    pub control_plane: bool,
    /// The provider's own attributes.
    pub attributes: Vec<(String, String)>,
}

impl FailureDomain {
    /// A failure domain that is suited for control-plane machines too.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            control_plane: true,
            attributes: Vec::new(),
        }
    }
}

/// Answer of `ensure_cluster`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterAnswer {
    /// Provisioned or waiting.
    pub progress: Progress,
    /// Where the workload API server is reached, when this provider makes that endpoint. Must not change once given.
    pub endpoint: Option<Endpoint>,
    /// Where machines can be placed.
    pub failure_domains: Vec<FailureDomain>,
    /// The provider's own status fields.
    pub status: Status,
    /// The provider's own conditions.
    pub conditions: Vec<Condition>,
    /// Kept for the next call; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

impl ClusterAnswer {
    /// All that the cluster's machines need exists.
    #[must_use]
    pub fn ready() -> Self {
        Self::of(Progress::Ready)
    }

    /// Not yet.
    pub fn waiting(
        reason: impl Into<String>,
        message: impl Into<String>,
        check_after: Duration,
    ) -> Self {
        Self::of(Progress::waiting(reason, message, check_after))
    }

    fn of(progress: Progress) -> Self {
        Self {
            progress,
            endpoint: None,
            failure_domains: Vec::new(),
            status: Status::default(),
            conditions: Vec::new(),
            state: None,
            extra: Extra::new(),
        }
    }

    /// Where the workload API server is reached. Must not change once given.
    #[must_use]
    pub fn endpoint(mut self, host: impl Into<String>, port: u16) -> Self {
        self.endpoint = Some(Endpoint::new(host, port));
        self
    }

    /// Adds a failure domain.
    #[must_use]
    pub fn failure_domain(mut self, domain: FailureDomain) -> Self {
        self.failure_domains.push(domain);
        self
    }
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// `Hostname`
    Hostname,
    /// `InternalIP`
    InternalIp,
    /// `ExternalIP`
    ExternalIp,
    /// `InternalDNS`
    InternalDns,
    /// `ExternalDNS`
    ExternalDns,
}

impl AddressType {
    /// The type of this name, as Kubernetes and many clouds write it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Hostname,
            Self::InternalIp,
            Self::ExternalIp,
            Self::InternalDns,
            Self::ExternalDns,
        ];
        all.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The type's name in Kubernetes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "Hostname",
            Self::InternalIp => "InternalIP",
            Self::ExternalIp => "ExternalIP",
            Self::InternalDns => "InternalDNS",
            Self::ExternalDns => "ExternalDNS",
        }
    }
}

/// Answer of `ensure_machine`.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineAnswer {
    /// Provisioned or waiting.
    pub progress: Progress,
    /// Must not change once given.
    pub provider_id: Option<String>,
    /// Where the machine is reached.
    pub addresses: Vec<(AddressType, String)>,
    /// Where the machine really is.
    pub failure_domain: Option<String>,
    /// The cloud may take the machine away at any time.
    pub interruptible: bool,
    /// By when the cloud will take the machine away, in milliseconds since the Unix epoch.
    pub interruption_deadline_ms: Option<u64>,
    /// The instance's state in the cloud's own words; empty when unknown.
    pub instance_state: String,
    /// The provider's own status fields.
    pub status: Status,
    /// The provider's own conditions.
    pub conditions: Vec<Condition>,
    /// Kept for the next call; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

impl MachineAnswer {
    /// The instance exists and runs. The provider ID must not change once given.
    pub fn ready(provider_id: impl Into<String>) -> Self {
        Self::of(Progress::Ready).provider_id(provider_id)
    }

    /// Not yet.
    pub fn waiting(
        reason: impl Into<String>,
        message: impl Into<String>,
        check_after: Duration,
    ) -> Self {
        Self::of(Progress::waiting(reason, message, check_after))
    }

    fn of(progress: Progress) -> Self {
        Self {
            progress,
            provider_id: None,
            addresses: Vec::new(),
            failure_domain: None,
            interruptible: false,
            interruption_deadline_ms: None,
            instance_state: String::new(),
            status: Status::default(),
            conditions: Vec::new(),
            state: None,
            extra: Extra::new(),
        }
    }

    /// Such as `aws:///eu-central-1a/i-0123`; may be given while waiting, must not change once given.
    #[must_use]
    pub fn provider_id(mut self, provider_id: impl Into<String>) -> Self {
        self.provider_id = Some(provider_id.into());
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn address(mut self, address_type: AddressType, address: impl Into<String>) -> Self {
        self.addresses.push((address_type, address.into()));
        self
    }

    /// Where the machine really is; an empty text is nowhere in particular.
    #[must_use]
    pub fn failure_domain(mut self, name: impl Into<String>) -> Self {
        self.failure_domain = Some(name.into()).filter(|name| !name.is_empty());
        self
    }

    /// The cloud may take the machine away at any time.
    #[must_use]
    pub fn interruptible(mut self) -> Self {
        self.interruptible = true;
        self
    }

    /// The cloud has said that it will take the machine away by then, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn interruption_deadline_ms(mut self, deadline_ms: u64) -> Self {
        self.interruption_deadline_ms = Some(deadline_ms);
        self
    }

    /// The instance's state in the cloud's own words.
    #[must_use]
    pub fn instance_state(mut self, state: impl Into<String>) -> Self {
        self.instance_state = state.into();
        self
    }
}

/// Answer of `delete_cluster` and `delete_machine`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeletionAnswer {
    /// What is waited for; `None` when nothing is left.
    pub waiting: Option<Waiting>,
    /// The provider's own status fields.
    pub status: Status,
    /// The provider's own conditions.
    pub conditions: Vec<Condition>,
    /// Kept for the next call; at most 64 KiB.
    pub state: Option<Vec<u8>>,
    /// Room for growth.
    pub extra: Extra,
}

impl DeletionAnswer {
    /// Nothing is left.
    #[must_use]
    pub fn gone() -> Self {
        Self::of(None)
    }

    /// Not yet.
    pub fn waiting(
        reason: impl Into<String>,
        message: impl Into<String>,
        check_after: Duration,
    ) -> Self {
        Self::of(Some(Waiting::new(reason, message, check_after)))
    }

    fn of(waiting: Option<Waiting>) -> Self {
        Self {
            waiting,
            status: Status::default(),
            conditions: Vec::new(),
            state: None,
            extra: Extra::new(),
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.waiting.is_none()
    }
}

/// What the three answers have in common.
macro_rules! common_builders {
    ($($answer:ty),+) => {$(
        impl $answer {
            /// The provider's own status fields. They replace what was there before.
            #[must_use]
            pub fn status(mut self, status: impl Serialize) -> Self {
                self.status = Status::of(status);
                self
            }

            /// Adds a condition of the provider's own.
            #[must_use]
            pub fn condition(mut self, condition: Condition) -> Self {
                self.conditions.push(condition);
                self
            }

            /// Kept for the next call; at most 64 KiB.
            #[must_use]
            pub fn state(mut self, state: impl Into<Vec<u8>>) -> Self {
                self.state = Some(state.into());
                self
            }
        }
    )+};
}

common_builders!(ClusterAnswer, MachineAnswer, DeletionAnswer);

impl<P: Infrastructure> ClusterInput<P> {
    fn read(input: wit::ClusterInput) -> Result<Self, Failure> {
        Ok(Self {
            context: Context::read(input.context)?,
            cluster: Object::read_foreign(&input.cluster, "cluster")?,
            infra_cluster: Object::read(&input.infra_cluster, "infra-cluster")?,
            state: input.state,
            extra: read_extra(input.extra)?,
        })
    }
}

impl<P: Infrastructure> MachineInput<P> {
    fn read(input: wit::MachineInput) -> Result<Self, Failure> {
        Ok(Self {
            context: Context::read(input.context)?,
            cluster: Object::read_foreign(&input.cluster, "cluster")?,
            infra_cluster: Object::read(&input.infra_cluster, "infra-cluster")?,
            machine: Object::read_foreign(&input.machine, "machine")?,
            infra_machine: Object::read(&input.infra_machine, "infra-machine")?,
            failure_domain: input.failure_domain,
            bootstrap: input.bootstrap.map(|b| BootstrapData {
                data: SecretHandle(b.data),
                format: b.format,
            }),
            cluster_deleting: input.cluster_deleting,
            state: input.state,
            extra: read_extra(input.extra)?,
        })
    }
}

impl From<FailureDomain> for wit::FailureDomain {
    fn from(domain: FailureDomain) -> Self {
        Self {
            name: domain.name,
            control_plane: domain.control_plane,
            attributes: domain.attributes,
        }
    }
}

impl ClusterAnswer {
    fn write(self) -> Result<wit::ClusterAnswer, Failure> {
        Ok(wit::ClusterAnswer {
            progress: self.progress.into(),
            control_plane_endpoint: self.endpoint.map(Into::into),
            failure_domains: each(self.failure_domains),
            status: self.status.into_text()?,
            conditions: each(self.conditions),
            state: self.state,
            extra: write_extra(self.extra),
        })
    }
}

impl MachineAnswer {
    fn write(self) -> Result<wit::MachineAnswer, Failure> {
        let address = |(address_type, address): (AddressType, String)| wit::Address {
            address_type: address_type.as_str().to_owned(),
            address,
        };
        Ok(wit::MachineAnswer {
            progress: self.progress.into(),
            provider_id: self.provider_id,
            addresses: self.addresses.into_iter().map(address).collect(),
            failure_domain: self.failure_domain,
            interruptible: self.interruptible,
            interruption_deadline_ms: self.interruption_deadline_ms,
            instance_state: self.instance_state,
            status: self.status.into_text()?,
            conditions: each(self.conditions),
            state: self.state,
            extra: write_extra(self.extra),
        })
    }
}

impl DeletionAnswer {
    fn write(self) -> Result<wit::DeletionAnswer, Failure> {
        Ok(wit::DeletionAnswer {
            deletion: match self.waiting {
                None => types::Deletion::Gone,
                Some(waiting) => types::Deletion::Waiting(waiting.into()),
            },
            status: self.status.into_text()?,
            conditions: each(self.conditions),
            state: self.state,
            extra: write_extra(self.extra),
        })
    }
}

impl<T: Infrastructure> wit::Guest for Exported<T> {
    fn ensure_cluster(input: wit::ClusterInput) -> Result<wit::ClusterAnswer, types::Failure> {
        let answer = ClusterInput::read(input).and_then(T::ensure_cluster);
        Ok(answer.and_then(ClusterAnswer::write)?)
    }

    fn delete_cluster(input: wit::ClusterInput) -> Result<wit::DeletionAnswer, types::Failure> {
        let answer = ClusterInput::read(input).and_then(T::delete_cluster);
        Ok(answer.and_then(DeletionAnswer::write)?)
    }

    fn ensure_machine(input: wit::MachineInput) -> Result<wit::MachineAnswer, types::Failure> {
        let answer = MachineInput::read(input).and_then(T::ensure_machine);
        Ok(answer.and_then(MachineAnswer::write)?)
    }

    fn delete_machine(input: wit::MachineInput) -> Result<wit::DeletionAnswer, types::Failure> {
        let answer = MachineInput::read(input).and_then(T::delete_machine);
        Ok(answer.and_then(DeletionAnswer::write)?)
    }
}
