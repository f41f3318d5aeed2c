//! Control planes that a plugin owns: certificates, kubeconfig, machines one by one, deletion in the contract's order.
//!
//! The plugin answers what its kind asks for; everything else is here, once for all of them (contract: upstream
//! `controlplane/kubeadm/internal/controllers`).

pub mod adoption;
pub mod certificates;
pub mod decide;
pub mod etcd;
pub mod health;
pub mod in_cluster;
pub mod leave;
mod news;
pub mod remediation;
pub mod report;
pub mod rotation;
pub mod size;
pub mod snapshot;
pub mod sync;

use std::sync::Arc;
use std::time::Duration;

use capstan_api::reason::condition_type;
use capstan_api::v1beta2::{Cluster, Machine};
use capstan_api::{annotation, label};
use jiff::Timestamp;
use serde_json::Value;

use crate::call::bootstrap::Role;
use crate::call::control_plane::Desired;
use crate::lookup::Lookup;
use crate::plan::Failure;

pub use self::decide::decide;
pub use self::report::report;

/// All that the decision may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The control plane object.
    pub object: Value,
    /// The Cluster that owns it.
    pub cluster: Lookup<Cluster>,
    /// Name of the plugin that owns the kind.
    pub plugin: Option<String>,
    /// What the plugin made of the object.
    pub desired: Result<Desired, Failure>,
    /// Certificates, keys and the kubeconfig.
    pub material: Lookup<MaterialState>,
    /// The plugin requires an authority of etcd: its machines are to be members of one that the host looks after.
    pub expects_etcd: bool,
    /// The template of the machines' infrastructure.
    pub template: Lookup<Template>,
    /// Its Machines, by name.
    pub members: Vec<Member>,
    /// Names of Machines of the cluster that are not the control plane's.
    pub workers: Vec<String>,
    /// Names of MachinePools of the cluster.
    pub pools: Vec<String>,
    /// How long it took to read all this.
    pub took: Duration,
    /// There is a connection to the workload cluster.
    pub connected: bool,
    /// When it last answered.
    pub last_success: Option<Timestamp>,
    /// Since when this host has tried: what another host has seen before stands for as long as what this one has.
    pub tried_since: Option<Timestamp>,
    /// What failed last in asking whether it answers, if that was the last thing that happened.
    pub connection_error: Option<String>,
    /// Why there is no connection, in words for people, once that is certain.
    pub connection_said: Option<String>,
    /// What the plugin names as the sign that the control plane is initialized.
    pub initialized: Lookup<()>,
    /// What the members of its etcd say; `Missing` when there was no reason to look.
    pub etcd: Lookup<etcd::View>,
    /// The operator wants a snapshot of etcd before a member is removed.
    pub keeps_snapshots: bool,
    /// The snapshot that was begun last and is not noted yet.
    pub snapshot: Option<snapshot::Taking>,
    /// Control-plane machines of the cluster that belong to somebody else, or to nobody.
    pub foreign: Vec<adoption::Foreign>,
    /// What became of the plugin's work in the cluster, if it was tried for what the object asks for now.
    pub stable_work: Option<in_cluster::StableWork>,
    /// What a rotation of its authorities looks at.
    pub rotation: rotation::Seen,
}

/// What there is of the secrets that the host makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaterialState {
    /// Secrets that do not exist.
    pub missing: Vec<String>,
    /// Secrets that do not have the control plane as their controller.
    pub unowned: Vec<String>,
    /// What is wrong with those that exist and those that somebody else must provide, with the way out: no machine is made with them.
    pub unusable: Vec<String>,
    /// Why the kubeconfig proves nothing of the authority: it trusts another one. Only looked at when there are machines of others.
    pub other_authority: Option<String>,
    /// What somebody else must provide and is gone now that the control plane is up, with the way out: no machine is made until it is back,
    /// and everything else goes on.
    pub lost: Vec<String>,
    /// The kubeconfig is missing, not ours yet, or due to be renewed.
    pub kubeconfig_due: bool,
    /// When the certificates in the secrets end, by the purpose of the secret.
    pub certificates: Vec<(String, Timestamp)>,
}

/// The infrastructure template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// The Cluster is among its owners.
    pub is_owned: bool,
}

/// A Machine of the control plane with what belongs to it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The Machine.
    pub machine: Machine,
    /// Its bootstrap config.
    pub config: Lookup<Arc<Value>>,
    /// Its infrastructure machine.
    pub infra: Lookup<Arc<Value>>,
    /// Its Node.
    pub node: Lookup<Arc<Value>>,
    /// Its static pods, each with the condition about it.
    pub components: Vec<ComponentState>,
    /// Condition of the pod that is its member of the datastore.
    pub datastore: Option<String>,
    /// Where its member of etcd answers.
    pub etcd: Option<etcd::Address>,
    /// When the certificate of its API server ends; `Missing` when that is noted already, or cannot be seen yet.
    pub expiry: Lookup<Timestamp>,
    /// Why it is not up to date, as far as the plugin says.
    pub outdated: Result<Vec<String>, Failure>,
    /// Why the plugin did not say what there is to look at: then nobody knows whether there is a member of the datastore.
    pub unseen: Option<Failure>,
}

/// A static pod.
#[derive(Clone, Debug)]
pub struct ComponentState {
    /// Condition type on the Machine.
    pub condition_type: String,
    /// The pod.
    pub pod: Lookup<Arc<Value>>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the certificates and keys that are missing, and take over the others.
    EnsureMaterial,
    /// Take over, make or renew the kubeconfig.
    EnsureKubeconfig {
        /// `https://host:port`.
        server: String,
    },
    /// Have the Secrets of the authorities hold these certificates, made first where there are none yet.
    HoldAuthorities {
        /// Which.
        hold: rotation::Hold,
        /// Of which rotation.
        id: String,
    },
    /// Tell machines that join to trust what the Secrets say.
    PublishAuthorities,
    /// Note on the Cluster how far the rotation is.
    RecordRotation {
        /// That far.
        record: rotation::Record,
    },
    /// Make the Cluster an owner of the infrastructure template, so that it moves with it.
    AdoptTemplate,
    /// Make a Machine with its bootstrap config and infrastructure machine.
    CreateMachine {
        /// Name of all three.
        name: String,
        /// What it will be.
        role: Role,
        /// Where.
        failure_domain: Option<String>,
        /// The remediation that it is made for, as its annotation has it.
        remediation_for: Option<String>,
    },
    /// Make what a crash left out.
    CompleteMachine {
        /// Name.
        name: String,
        /// What it will be.
        role: Role,
        /// The bootstrap config is missing.
        config: bool,
        /// The infrastructure machine is missing.
        infra: bool,
    },
    /// Become the controller of a Machine that nobody owns.
    AdoptMachine {
        /// Name.
        name: String,
        /// The one that was seen.
        uid: String,
    },
    /// Bring an object of a Machine up to date in place.
    Patch {
        /// Which.
        part: MemberPart,
        /// Name of the Machine.
        name: String,
        /// Merge patch.
        patch: Value,
    },
    /// Write the control plane's conditions on a Machine.
    ReportMachine {
        /// Name.
        name: String,
        /// Conditions.
        conditions: Vec<capstan_api::condition::Report>,
    },
    /// Take back from a Machine that has recovered what was said about its remediation.
    ForgetRemediation {
        /// Name of the Machine.
        name: String,
    },
    /// Say what stands in the way, once.
    Tell {
        /// Reason of the event.
        reason: &'static str,
        /// For people.
        note: String,
    },
    /// Make another member the leader of etcd.
    MoveLeader {
        /// The leader.
        from: etcd::Address,
        /// ID of the next one.
        to: u64,
        /// Its name.
        to_name: String,
    },
    /// Begin to take a snapshot of etcd.
    Snapshot {
        /// Whom to ask, one after the other.
        from: Vec<etcd::Address>,
        /// The member that is removed afterwards.
        before: String,
    },
    /// Note on the control plane where a snapshot is.
    NoteSnapshot {
        /// What it was taken for.
        taking: Box<snapshot::Taking>,
        /// Where it is.
        taken: Box<snapshot::Taken>,
    },
    /// Take a member out of etcd.
    RemoveEtcdMember {
        /// Its ID.
        id: u64,
        /// Its name.
        name: String,
        /// Whom to ask, one after the other.
        through: Vec<etcd::Address>,
    },
    /// End an alarm of a member that is gone: it would count for ever.
    EndAlarm {
        /// The alarm.
        alarm: etcd::Alarm,
        /// Whom to ask, one after the other.
        through: Vec<etcd::Address>,
    },
    /// Have the plugin do what must be done in the cluster before a machine joins or makes room for another.
    BeforeJoin {
        /// Some machine is to be other than it is. Where none is, a plugin without the right to do it is no obstacle.
        is_rollout: bool,
    },
    /// Have the plugin do what is to be done in a cluster whose machines are up to date. What comes of it is noted and said.
    AfterStable,
    /// Change annotations of the control plane object.
    Annotate {
        /// Merge patch of the annotations.
        annotations: Value,
    },
    /// Delete a Machine.
    DeleteMachine {
        /// Name.
        name: String,
        /// The one that was seen.
        uid: String,
    },
}

/// Which object of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberPart {
    /// The Machine.
    Machine,
    /// The bootstrap config.
    Config,
    /// The infrastructure machine.
    Infra,
}

impl Step {
    /// Whether later steps of a plan do not need this one: one object that a webhook refuses keeps no other machine from being looked after. When
    /// the control plane is deleted, its machines are deleted one as the other.
    #[must_use]
    pub fn is_on_its_own(&self, is_deletion: bool) -> bool {
        match self {
            Self::Patch { .. }
            | Self::CompleteMachine { .. }
            | Self::ReportMachine { .. }
            | Self::ForgetRemediation { .. }
            | Self::AdoptTemplate
            | Self::Tell { .. } => true,
            Self::DeleteMachine { .. } => is_deletion,
            _ => false,
        }
    }

    /// Whether etcd is asked to do it.
    #[must_use]
    pub fn is_of_etcd(&self) -> bool {
        matches!(
            self,
            Self::MoveLeader { .. }
                | Self::Snapshot { .. }
                | Self::RemoveEtcdMember { .. }
                | Self::EndAlarm { .. }
        )
    }
}

impl ComponentState {
    /// Whether the pod is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let conditions = self
            .pod
            .found()
            .and_then(|pod| pod.pointer("/status/conditions"));
        conditions
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|it| {
                it.get("type").and_then(Value::as_str) == Some("Ready")
                    && it.get("status").and_then(Value::as_str) == Some("True")
            })
    }
}

impl Member {
    /// When the certificates of its API server end: as its Machine has it, else as its bootstrap config does (contract 3.3).
    #[must_use]
    pub fn certificates_end(&self) -> Option<Timestamp> {
        let on_machine = || {
            let annotations = self.machine.metadata.annotations.as_ref()?;
            annotations
                .get(annotation::CERTIFICATES_EXPIRY)?
                .parse()
                .ok()
        };
        let on_config = || {
            let annotations = self.config.found()?.pointer("/metadata/annotations")?;
            let text = annotations.get(annotation::CERTIFICATES_EXPIRY)?.as_str()?;
            text.parse().ok()
        };
        let in_status = || {
            let status = self.machine.status.as_ref()?;
            Some(status.certificates_expiry_date.as_ref()?.0)
        };
        on_machine().or_else(on_config).or_else(in_status)
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.machine.metadata.name.as_deref().unwrap_or_default()
    }

    /// UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.machine.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.machine.metadata.deletion_timestamp.is_some()
    }

    /// Whether it has an annotation.
    #[must_use]
    pub fn has_annotation(&self, name: &str) -> bool {
        self.machine
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(name))
    }

    /// Whether its bootstrap data were made: certificates and keys are in them.
    #[must_use]
    pub fn has_data(&self) -> bool {
        let spec = &self.machine.spec;
        spec.provider_id.is_some() || spec.bootstrap.data_secret_name.is_some()
    }

    /// Whether this host holds its termination.
    #[must_use]
    pub fn has_hook(&self) -> bool {
        self.has_annotation(annotation::KCP_CLEANUP_HOOK)
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.machine
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::MAX, |time| time.0)
    }

    /// Name of its Node.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        let node = self.machine.status.as_ref()?.node_ref.as_ref()?;
        Some(node.name.as_str())
    }

    /// Whether a health check has given it up.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        let conditions = self
            .machine
            .status
            .as_ref()
            .map(|s| s.conditions.as_slice());
        capstan_api::condition::is_false(
            conditions.unwrap_or_default(),
            condition_type::HEALTH_CHECK_SUCCEEDED,
        )
    }

    /// Whether a health check has given it up and left it to its owner.
    #[must_use]
    pub fn waits_for_owner(&self) -> bool {
        let conditions = self
            .machine
            .status
            .as_ref()
            .map(|s| s.conditions.as_slice());
        self.is_unhealthy()
            && capstan_api::condition::is_false(
                conditions.unwrap_or_default(),
                condition_type::OWNER_REMEDIATED,
            )
    }

    /// Whether a condition of the Machine is True.
    #[must_use]
    pub fn is_true(&self, type_: &str) -> bool {
        let conditions = self
            .machine
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice());
        capstan_api::condition::is_true(conditions.unwrap_or_default(), type_)
    }
}

impl Observed {
    /// Whether the control plane has been initialized: once true it stays (contract 2.6).
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.was_initialized()
            || (self.connected && self.initialized.found().is_some() && self.has_initializer())
    }

    /// Whether there is a machine to join to. A first machine that goes again, or that is to be replaced, leaves nothing behind however far it
    /// came: to say that it had would stay for ever, and the next machine would wait for it (contract: upstream `setControlPlaneInitialized`).
    fn has_initializer(&self) -> bool {
        match self.members.as_slice() {
            // Machines of others are a cluster as well, and so is one that needs no machines.
            [] => {
                let needs_none = self.desired.as_ref().is_ok_and(|it| it.replicas == 0);
                needs_none || !self.foreign.is_empty()
            }
            [only] => !only.is_deleting() && !only.waits_for_owner(),
            _ => true,
        }
    }

    /// Whether the status says so already.
    #[must_use]
    pub fn was_initialized(&self) -> bool {
        self.object
            .pointer("/status/initialization/controlPlaneInitialized")
            == Some(&Value::Bool(true))
    }

    /// Whether the object is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.object
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(|time| !time.is_null())
    }

    /// Whether the workload cluster is asked about the control plane's machines: not once all of them are deleted with it. The API server goes with
    /// its machines, nothing depends on the answers any more, and a question to an API server that is gone takes as long as patience lasts.
    #[must_use]
    pub fn asks_about(&self, machines_deleting: impl IntoIterator<Item = bool>) -> bool {
        !self.is_deleting() || machines_deleting.into_iter().any(|deleting| !deleting)
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.object
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What the plugin could not be asked, about the control plane or else about one of its machines: what is to change is not known.
    #[must_use]
    pub fn unasked(&self) -> Option<&Failure> {
        let of_members = || {
            self.members
                .iter()
                .find_map(|it| it.outdated.as_ref().err())
        };
        self.desired.as_ref().err().or_else(of_members)
    }

    /// Whether a machine of this control plane is a member of a datastore that the host looks after.
    #[must_use]
    pub fn has_datastore(&self) -> bool {
        self.members.iter().any(|member| member.datastore.is_some())
    }

    /// Why a machine is not up to date. Empty when it is.
    #[must_use]
    pub fn outdated(&self, member: &Member, now: Timestamp) -> Vec<String> {
        match &self.desired {
            Ok(desired) => {
                let kind = self.object.get("kind").and_then(Value::as_str);
                let kind = kind.unwrap_or("control plane");
                outdated(kind, desired, self.cluster.found(), member, now)
            }
            Err(_) => Vec::new(),
        }
    }
}

/// Why a machine is not up to date: what the host sees itself, in Cluster API's words, then what the plugin says. Empty when it is. `kind` is
/// that of the control plane.
#[must_use]
pub fn outdated(
    kind: &str,
    desired: &Desired,
    cluster: Option<&Cluster>,
    member: &Member,
    now: Timestamp,
) -> Vec<String> {
    let mut why = Vec::new();
    let version = member.machine.spec.version.as_deref().unwrap_or_default();
    if version != desired.version {
        why.push(format!("Version {version}, {} required", desired.version));
    }
    if let Some(infra) = member.infra.found() {
        let cloned = |name: &str| {
            let annotations = infra.pointer("/metadata/annotations");
            annotations
                .and_then(|all| all.get(name))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let template = &desired.infrastructure_template;
        let group_kind = format!("{}.{}", template.kind, template.group);
        let name = cloned(annotation::CLONED_FROM_NAME);
        let kind = cloned(annotation::CLONED_FROM_GROUP_KIND);
        // An object that says nothing was not made from a template, and counts as up to date.
        if name.is_some_and(|name| name != template.name)
            || kind.is_some_and(|kind| kind != group_kind)
        {
            let kind = infra
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or("infrastructure");
            why.push(format!("{kind} is not up-to-date"));
        }
    }
    if let Some(after) = desired.rollout_after_ms
        && let Ok(after) = i64::try_from(after)
        && after <= now.as_millisecond()
        && member.created().as_millisecond() < after
    {
        why.push(format!("{kind} spec.rolloutAfter expired"));
    }
    if let (Some(days), Some(expiry)) = (
        desired.rollout_before_expiry_days,
        member.certificates_end(),
    ) {
        let left_s = expiry.duration_since(now).as_secs();
        if left_s < i64::from(days).saturating_mul(86_400) {
            why.push("Certificates will expire soon".to_owned());
        }
    }
    let record = cluster.and_then(|cluster| rotation::Record::of(cluster).ok()?);
    if record.is_some_and(|record| record.is_machine_due(member.created(), now)) {
        why.push("its certificates are older than the rotation's stage".to_owned());
    }
    if let Ok(own) = &member.outdated {
        why.extend(own.iter().cloned());
    }
    why
}

/// Labels of a control plane's machines and of what belongs to them.
#[must_use]
pub fn machine_labels(
    desired: &Desired,
    cluster_name: &str,
    control_plane_name: &str,
) -> std::collections::BTreeMap<String, String> {
    let mut labels: std::collections::BTreeMap<String, String> =
        desired.machine_labels.iter().cloned().collect();
    labels.insert(label::CLUSTER_NAME.to_owned(), cluster_name.to_owned());
    labels.insert(label::CONTROL_PLANE.to_owned(), String::new());
    labels.insert(
        label::CONTROL_PLANE_NAME.to_owned(),
        capstan_api::name::label_value(control_plane_name),
    );
    labels
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "code of tests: a number that is not as expected ends the test"
)]
pub(crate) mod tests;
