//! Pre-delete hooks: they decide whether a machine may go on being deleted.

use std::fmt::Debug;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::answer::{Failure, Waiting};
use crate::bindings::base::capstan::plugin::types;
use crate::bindings::pre_delete_hook::exports::capstan::plugin::pre_delete_hook as wit;
use crate::context::{Context, Extra, read_extra};
use crate::export::Exported;
use crate::kinds::{Cluster, Machine, Node};
use crate::manifest::Plugin;
use crate::object::{Object, parse, typed};

/// A hook. The operator binds it to machines; the host orders hooks, records each result and owns timeouts.
pub trait PreDeleteHook: Plugin {
    /// The operator's settings for the hook.
    type Settings: DeserializeOwned + Clone + Debug;

    /// May the machine go on? Asked again and again until it may.
    ///
    /// # Errors
    /// What the host shows in the Machine's condition; the operator's binding says whether it blocks.
    fn run(input: HookInput<Self::Settings>) -> Result<Verdict, Failure>;
}

/// When the hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the node is cordoned and drained.
    PreDrain,
    /// After drain and volume detachment, before the infrastructure is deleted.
    PreTerminate,
}

impl Phase {
    /// The phase's name in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreDrain => "pre-drain",
            Self::PreTerminate => "pre-terminate",
        }
    }
}

/// Input of `run`.
#[derive(Clone, Debug)]
pub struct HookInput<Settings> {
    /// The same for every call.
    pub context: Context,
    /// When the hook runs.
    pub phase: Phase,
    /// The Machine.
    pub machine: Machine,
    /// The Cluster.
    pub cluster: Cluster,
    /// The Node, when the workload cluster can be reached and has it.
    pub node: Option<Node>,
    /// The whole Cluster is being deleted.
    pub cluster_deleting: bool,
    /// When this hook first ran for this machine and phase, in milliseconds since the Unix epoch.
    pub first_run_ms: u64,
    /// The operator's settings.
    pub settings: Settings,
    /// Room for growth.
    pub extra: Extra,
}

/// Answer of `run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The machine may go on.
    Proceed,
    /// Not yet.
    Waiting(Waiting),
}

impl Verdict {
    /// Not yet.
    pub fn waiting(
        reason: impl Into<String>,
        message: impl Into<String>,
        check_after: Duration,
    ) -> Self {
        Self::Waiting(Waiting::new(reason, message, check_after))
    }
}

impl<Settings: DeserializeOwned> HookInput<Settings> {
    fn read(input: wit::HookInput) -> Result<Self, Failure> {
        Ok(Self {
            context: Context::read(input.context)?,
            phase: match input.phase {
                wit::Phase::PreDrain => Phase::PreDrain,
                wit::Phase::PreTerminate => Phase::PreTerminate,
            },
            machine: Object::read_foreign(&input.machine, "machine")?,
            cluster: Object::read_foreign(&input.cluster, "cluster")?,
            node: Object::read_optional(input.node, "node")?,
            cluster_deleting: input.cluster_deleting,
            first_run_ms: input.first_run_ms,
            settings: typed(&parse(&input.settings, "settings")?, "settings")?,
            extra: read_extra(input.extra)?,
        })
    }
}

impl<T: PreDeleteHook> wit::Guest for Exported<T> {
    fn run(input: wit::HookInput) -> Result<wit::Verdict, types::Failure> {
        Ok(match HookInput::read(input).and_then(T::run)? {
            Verdict::Proceed => wit::Verdict::Proceed,
            Verdict::Waiting(waiting) => wit::Verdict::Waiting(waiting.into()),
        })
    }
}
