//! Native fakes of all capabilities, and inputs to start tests from. Each thread has its own host: tests do not disturb each other.

mod capability;
mod workload;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Failure;
use crate::bootstrap::{Bootstrap, BootstrapInput, Role};
use crate::context::{Context, Extra, Mode, SecretHandle};
use crate::control_plane::{ControlPlane, ControlPlaneInput};
use crate::event::EventType;
use crate::http::{Error, Request, Response};
use crate::infrastructure::{BootstrapData, ClusterInput, Infrastructure, MachineInput};
use crate::kinds::{Cluster, Machine};
use crate::log::Level;
use crate::object::Object;
use crate::pre_delete_hook::{HookInput, Phase};
use crate::secret::SecretKey;
use crate::workload::{ApiResource, ObjectName};

pub(crate) use capability::{board, disk, vault};
pub(crate) use workload::cluster;

/// Handles from here on are of secrets that the plugin opened; those of inputs are small numbers.
const OPENED_FROM: u64 = 1 << 32;

type Handler = Rc<dyn Fn(&Request) -> Result<Response, Error>>;

#[derive(Default)]
struct Fakes {
    handler: Option<Handler>,
    requests: Vec<Request>,
    logs: Vec<(Level, String)>,
    state: Option<Vec<u8>>,
    secrets: BTreeMap<SecretKey, Vec<u8>>,
    opened: Vec<SecretKey>,
    files: BTreeMap<String, Vec<u8>>,
    events: Vec<(EventType, String, String)>,
    workload: BTreeMap<(ApiResource, ObjectName), Value>,
    slept: Duration,
}

thread_local! {
    static FAKES: RefCell<Fakes> = RefCell::new(Fakes::default());
}

/// The fake host of this thread. Making one forgets what an earlier one held, and so does dropping it.
#[derive(Debug)]
pub struct Host(());

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        FAKES.take();
    }
}

impl Host {
    /// A host that refuses every request and holds nothing.
    #[must_use]
    pub fn new() -> Self {
        FAKES.take();
        Self(())
    }

    /// A host that answers requests with a function.
    pub fn serving(handler: impl Fn(&Request) -> Result<Response, Error> + 'static) -> Self {
        let host = Self::new();
        FAKES.with_borrow_mut(|fakes| fakes.handler = Some(Rc::new(handler)));
        host
    }

    /// A host that gives these responses, in order, and breaks off every request after the last.
    pub fn scripted(responses: impl IntoIterator<Item = Response>) -> Self {
        let script = RefCell::new(
            responses
                .into_iter()
                .collect::<std::collections::VecDeque<_>>(),
        );
        Self::serving(move |_| {
            let next = script.borrow_mut().pop_front();
            next.ok_or_else(|| Error::Failed("the script has no more responses".to_owned()))
        })
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        FAKES.with_borrow(|fakes| fakes.requests.clone())
    }

    /// How long the plugin has waited by itself so far; nothing really waits in a test.
    #[must_use]
    pub fn slept(&self) -> Duration {
        FAKES.with_borrow(|fakes| fakes.slept)
    }

    /// All log messages so far, with their fields behind as `key=value`.
    #[must_use]
    pub fn logs(&self) -> Vec<(Level, String)> {
        FAKES.with_borrow(|fakes| fakes.logs.clone())
    }

    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> Option<Vec<u8>> {
        FAKES.with_borrow(|fakes| fakes.state.clone())
    }

    /// The state that the plugin finds.
    pub fn set_state(&self, state: impl Into<Vec<u8>>) {
        FAKES.with_borrow_mut(|fakes| fakes.state = Some(state.into()));
    }
}

/// `http::pause` off wasm.
pub(crate) fn pause(time: Duration) {
    FAKES.with_borrow_mut(|fakes| fakes.slept = fakes.slept.saturating_add(time));
}

pub(crate) mod transport {
    //! `http` off wasm.

    use super::{Error, FAKES, Request, Response};

    pub(crate) fn send(request: Request) -> Result<Response, Error> {
        let handler = FAKES.with_borrow_mut(|fakes| {
            fakes.requests.push(request.clone());
            fakes.handler.clone()
        });
        match handler {
            Some(handler) => handler(&request),
            None => Err(Error::Denied(
                "make a testing::Host that serves requests".to_owned(),
            )),
        }
    }
}

pub(crate) mod sink {
    //! `log` off wasm.

    use std::fmt::Write;

    use super::{FAKES, Level};

    pub(crate) fn enabled(_: Level) -> bool {
        true
    }

    pub(crate) fn emit(level: Level, message: &str, fields: &[(String, String)]) {
        let mut line = message.to_owned();
        for (key, value) in fields {
            // Writing to a String cannot fail.
            let _ = write!(line, " {key}={value}");
        }
        FAKES.with_borrow_mut(|fakes| fakes.logs.push((level, line)));
    }
}

pub(crate) mod store {
    //! `state` off wasm.

    use super::FAKES;
    use crate::state::Error;

    pub(crate) fn get() -> Option<Vec<u8>> {
        FAKES.with_borrow(|fakes| fakes.state.clone())
    }

    pub(crate) fn put(value: &[u8]) -> Result<(), Error> {
        if value.len() > 64 * 1024 {
            return Err(Error::Limit(format!(
                "{} bytes are over 64 KiB",
                value.len()
            )));
        }
        FAKES.with_borrow_mut(|fakes| fakes.state = Some(value.to_vec()));
        Ok(())
    }
}

/// A handle, as the host would give it.
#[must_use]
pub fn secret(number: u64) -> SecretHandle {
    SecretHandle(number)
}

/// The context of a first try, with 30 s to go.
#[must_use]
pub fn context() -> Context {
    Context {
        now_ms: 1_800_000_000_000,
        deadline_ms: 1_800_000_030_000,
        attempt: 1,
        idempotency_key: "0123456789abcdef".to_owned(),
        mode: Mode::Apply,
        config: json!({}),
        extra: Extra::new(),
    }
}

/// A Cluster `default/test` with pod and service networks and an endpoint.
///
/// # Errors
/// Never, unless the SDK is broken.
pub fn cluster() -> Result<Cluster, Failure> {
    Object::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2",
        "kind": "Cluster",
        "metadata": {"name": "test", "namespace": "default", "uid": "cluster-uid"},
        "spec": {
            "clusterNetwork": {
                "pods": {"cidrBlocks": ["10.244.0.0/16"]},
                "services": {"cidrBlocks": ["10.96.0.0/12"]},
            },
            "controlPlaneEndpoint": {"host": "192.0.2.10", "port": 6443},
        },
    }))
}

/// A worker Machine `default/test-1` of that Cluster.
///
/// # Errors
/// Never, unless the SDK is broken.
pub fn machine() -> Result<Machine, Failure> {
    Object::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2",
        "kind": "Machine",
        "metadata": {"name": "test-1", "namespace": "default", "uid": "machine-uid",
            "labels": {"cluster.x-k8s.io/cluster-name": "test"}},
        "spec": {"clusterName": "test", "version": "v1.36.0"},
    }))
}

fn own<S, T>(kind: &str, spec: Value) -> Result<Object<S, T>, Failure>
where
    S: serde::de::DeserializeOwned,
    T: serde::de::DeserializeOwned + Default,
{
    Object::from_value(json!({
        "apiVersion": "test.cluster.x-k8s.io/v1beta2",
        "kind": kind,
        "metadata": {"name": "test-1", "namespace": "default", "uid": "own-uid"},
        "spec": spec,
    }))
}

/// Input of the cluster functions of an infrastructure provider.
///
/// # Errors
/// When the spec does not fit the provider's type, with the message that an operator would see.
pub fn cluster_input<P: Infrastructure>(spec: Value) -> Result<ClusterInput<P>, Failure> {
    Ok(ClusterInput {
        context: context(),
        cluster: cluster()?,
        infra_cluster: own("InfraCluster", spec)?,
        state: None,
        extra: Extra::new(),
    })
}

/// Input of the machine functions of an infrastructure provider, with cloud-config as [`secret`] 1.
///
/// # Errors
/// As for [`cluster_input`].
pub fn machine_input<P: Infrastructure>(
    cluster_spec: Value,
    machine_spec: Value,
) -> Result<MachineInput<P>, Failure> {
    Ok(MachineInput {
        context: context(),
        cluster: cluster()?,
        infra_cluster: own("InfraCluster", cluster_spec)?,
        machine: machine()?,
        infra_machine: own("InfraMachine", machine_spec)?,
        failure_domain: None,
        bootstrap: Some(BootstrapData {
            data: secret(1),
            format: "cloud-config".to_owned(),
        }),
        cluster_deleting: false,
        state: None,
        extra: Extra::new(),
    })
}

/// Input of a bootstrap provider.
///
/// # Errors
/// As for [`cluster_input`].
pub fn bootstrap_input<P: Bootstrap>(
    role: Role,
    spec: Value,
) -> Result<BootstrapInput<P>, Failure> {
    let cluster = cluster()?;
    Ok(BootstrapInput {
        context: context(),
        control_plane_endpoint: cluster.endpoint(),
        cluster,
        machine: machine()?,
        config: own("BootstrapConfig", spec)?,
        role,
        kubernetes_version: "v1.36.0".to_owned(),
        control_plane_version: "v1.36.0".to_owned(),
        extra: Extra::new(),
    })
}

/// Input of a control-plane provider.
///
/// # Errors
/// As for [`cluster_input`].
pub fn control_plane_input<P: ControlPlane>(spec: Value) -> Result<ControlPlaneInput<P>, Failure> {
    Ok(ControlPlaneInput {
        context: context(),
        cluster: cluster()?,
        control_plane: own("ControlPlane", spec)?,
        extra: Extra::new(),
    })
}

/// Input of a hook that runs for the first time.
///
/// # Errors
/// Never, unless the SDK is broken.
pub fn hook_input<Settings>(
    phase: Phase,
    settings: Settings,
) -> Result<HookInput<Settings>, Failure> {
    let context = context();
    Ok(HookInput {
        first_run_ms: context.now_ms,
        context,
        phase,
        machine: machine()?,
        cluster: cluster()?,
        node: None,
        cluster_deleting: false,
        settings,
        extra: Extra::new(),
    })
}
