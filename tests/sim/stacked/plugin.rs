//! The plugins of a control plane: one for its machines, one for their bootstrap data, which says no more than whether the machine
//! makes the cluster or joins it.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::reason::condition_type;
use capstan_core::call::Progress;
use capstan_core::call::bootstrap::{BootstrapAnswer, BootstrapInput, Part, Role};
use capstan_core::call::control_plane::{
    Component, Components, ControlPlaneInput, ControlPlaneMachineInput, DatastoreMember, Desired,
    InitializedWhen, MachineConfigInput, ObjectReference,
};
use capstan_core::call::material::{Material, Requirement};
use capstan_engine::{CallEnv, CallError, Native};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::TEMPLATE;
use crate::kinds as sim;
use crate::object::{name, number, text};
use crate::plugin::call;
use crate::world::World;

/// Bootstrap data of the machine that makes the cluster.
pub(super) const INIT: &str = "init";
/// Bootstrap data of the others.
pub(super) const JOIN: &str = "join";

/// Static pods, with the conditions about them.
pub(super) const PODS: [(&str, &str); 4] = [
    ("kube-apiserver", condition_type::API_SERVER_POD_HEALTHY),
    (
        "kube-controller-manager",
        condition_type::CONTROLLER_MANAGER_POD_HEALTHY,
    ),
    ("kube-scheduler", condition_type::SCHEDULER_POD_HEALTHY),
    ("etcd", condition_type::ETCD_POD_HEALTHY),
];

/// Where static pods are.
pub(super) const SYSTEM: &str = "kube-system";
/// A ConfigMap that says that there is a cluster.
pub(super) const CONFIGURED: &str = "kubeadm-config";

/// The plugin of the control plane.
pub struct SimulatedControlPlane(pub Arc<World>);

/// The plugin of bootstrap data.
pub struct SimulatedBootstrap(pub Arc<World>);

fn authority(name: &str) -> Requirement {
    Requirement::CertificateAuthority {
        name: name.to_owned(),
        common_name: name.to_owned(),
        // The only one that is made in no time.
        algorithm: "ECDSA-P256".to_owned(),
        validity_days: 0,
    }
}

fn desired(input: &ControlPlaneInput) -> Desired {
    let plane = &input.control_plane;
    let replicas = number(plane, "/spec/replicas").unwrap_or_default();
    Desired {
        replicas: u32::try_from(replicas).unwrap_or_default(),
        version: text(plane, "/spec/version").to_owned(),
        infrastructure_template: ObjectReference {
            group: sim::INFRASTRUCTURE.to_owned(),
            kind: "SimMachineTemplate".to_owned(),
            name: TEMPLATE.to_owned(),
        },
        bootstrap_group: sim::BOOTSTRAP.to_owned(),
        bootstrap_kind: "SimStackedConfig".to_owned(),
        machine_labels: Vec::new(),
        machine_annotations: Vec::new(),
        readiness_gates: json!([]),
        deletion: json!({}),
        taints: json!([]),
        machine_naming: String::new(),
        max_surge: 1,
        rollout_after_ms: None,
        rollout_before_expiry_days: None,
        remediation: json!({}),
        extra: Vec::new(),
    }
}

fn components(input: &ControlPlaneMachineInput) -> Components {
    // The Node of a machine has its name.
    let node = name(&input.machine);
    let pod = |name: &str| format!("{name}-{node}");
    Components {
        components: PODS
            .iter()
            .map(|(name, condition)| Component {
                condition_type: (*condition).to_owned(),
                pod_namespace: SYSTEM.to_owned(),
                pod_name: pod(name),
            })
            .collect(),
        datastore: Some(DatastoreMember {
            datastore_type: "etcd".to_owned(),
            pod_namespace: SYSTEM.to_owned(),
            pod_name: pod("etcd"),
            port: 2379,
            certificate_authority: "etcd".to_owned(),
        }),
    }
}

impl Native for SimulatedControlPlane {
    fn desired(
        &self,
        env: CallEnv,
        input: ControlPlaneInput,
    ) -> BoxFuture<'_, Result<Desired, CallError>> {
        async move {
            // The host asks this first of all when it looks at a control plane.
            self.0.lock().look_begins();
            let lie = |answer: &mut Desired, how| match how {
                0 | 1 => answer.version = String::new(),
                _ => answer.max_surge = 7,
            };
            call(&self.0, &env, "desired", |_| desired(&input), lie).await
        }
        .boxed()
    }

    fn control_plane_requirements(
        &self,
        env: CallEnv,
        _: ControlPlaneInput,
    ) -> BoxFuture<'_, Result<Vec<Requirement>, CallError>> {
        async move {
            let lie = |answer: &mut Vec<Requirement>, how| match how {
                0 | 1 => answer.push(authority("kubeconfig")),
                _ => answer.push(authority("../ca")),
            };
            let answer = |_: &World| vec![authority("ca"), authority("etcd")];
            call(&self.0, &env, "requirements", answer, lie).await
        }
        .boxed()
    }

    fn machine_config(
        &self,
        env: CallEnv,
        input: MachineConfigInput,
    ) -> BoxFuture<'_, Result<Value, CallError>> {
        async move {
            let plane = &input.control_plane.control_plane;
            let answer = |_: &World| json!({"settings": number(plane, "/spec/settings")});
            call(&self.0, &env, "machine-config", answer, |_, _| {}).await
        }
        .boxed()
    }

    fn outdated(
        &self,
        env: CallEnv,
        input: ControlPlaneMachineInput,
    ) -> BoxFuture<'_, Result<Vec<String>, CallError>> {
        async move {
            let wanted = number(&input.control_plane.control_plane, "/spec/settings");
            let config = input.bootstrap_config.as_ref();
            let has = config.map(|config| number(config, "/spec/settings"));
            let is_old = has.is_some_and(|has| has != wanted);
            let answer = |_: &World| match is_old {
                true => vec!["settings are not up-to-date".to_owned()],
                false => Vec::new(),
            };
            call(&self.0, &env, "outdated", answer, |_, _| {}).await
        }
        .boxed()
    }

    fn components(
        &self,
        env: CallEnv,
        input: ControlPlaneMachineInput,
    ) -> BoxFuture<'_, Result<Components, CallError>> {
        async move {
            call(
                &self.0,
                &env,
                "components",
                |_| components(&input),
                |_, _| {},
            )
            .await
        }
        .boxed()
    }

    fn initialized(
        &self,
        env: CallEnv,
        _: ControlPlaneInput,
    ) -> BoxFuture<'_, Result<InitializedWhen, CallError>> {
        async move {
            let answer = |_: &World| InitializedWhen::ObjectExists {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                namespace: SYSTEM.to_owned(),
                name: CONFIGURED.to_owned(),
            };
            call(&self.0, &env, "initialized", answer, |_, _| {}).await
        }
        .boxed()
    }

    fn before_rollout(
        &self,
        env: CallEnv,
        _: ControlPlaneInput,
    ) -> BoxFuture<'_, Result<Progress, CallError>> {
        async move {
            call(
                &self.0,
                &env,
                "before-rollout",
                |_| Progress::Ready,
                |_, _| {},
            )
            .await
        }
        .boxed()
    }

    fn after_stable(
        &self,
        env: CallEnv,
        _: ControlPlaneInput,
    ) -> BoxFuture<'_, Result<Progress, CallError>> {
        async move {
            call(
                &self.0,
                &env,
                "after-stable",
                |_| Progress::Ready,
                |_, _| {},
            )
            .await
        }
        .boxed()
    }
}

impl Native for SimulatedBootstrap {
    fn bootstrap_requirements(
        &self,
        env: CallEnv,
        input: BootstrapInput,
    ) -> BoxFuture<'_, Result<Vec<Requirement>, CallError>> {
        async move {
            let token = (input.role != Role::Init).then(|| Requirement::JoinToken {
                name: "token".to_owned(),
                token_type: "bootstrap.kubernetes.io/token".to_owned(),
                lifetime: Duration::from_secs(900),
            });
            let answer = |_: &World| std::iter::once(authority("ca")).chain(token).collect();
            let lie = |answer: &mut Vec<Requirement>, _| answer.push(authority("kubeconfig"));
            call(&self.0, &env, "bootstrap-requirements", answer, lie).await
        }
        .boxed()
    }

    fn render(
        &self,
        env: CallEnv,
        input: BootstrapInput,
        _: Vec<Material>,
    ) -> BoxFuture<'_, Result<BootstrapAnswer, CallError>> {
        async move {
            let data = if input.role == Role::Init { INIT } else { JOIN };
            let answer = |_: &World| BootstrapAnswer {
                parts: vec![Part::Text(data.to_owned())],
                format: "cloud-config".to_owned(),
                conditions: Vec::new(),
                extra: Vec::new(),
            };
            let lie = |answer: &mut BootstrapAnswer, how| match how {
                0 | 1 => answer.parts.clear(),
                _ => answer.format = "floppy".to_owned(),
            };
            call(&self.0, &env, "render", answer, lie).await
        }
        .boxed()
    }
}
