//! Answers of the other kinds: bootstrap, control plane, hook, strategy.

use serde_json::{Value, json};

use crate::capstan::plugin::material::{CertificateAuthority, Material, Requirement};
use crate::capstan::plugin::types::{Failure, Progress};
use crate::exports::capstan::plugin::bootstrap::{
    BootstrapAnswer, BootstrapInput, Part, SecretEncoding as PartEncoding, SecretPart as DataPart,
};
use crate::exports::capstan::plugin::control_plane::{
    Component, ControlPlaneInput, DatastoreMember, DesiredState, InitializedWhen,
    MachineComponents, MachineConfigInput, MachineInput as ControlPlaneMachineInput,
    ObjectReference,
};
use crate::exports::capstan::plugin::pre_delete_hook::{HookInput, Verdict};
use crate::exports::capstan::plugin::upgrade_strategy::{Answer, Facts, Target};
use crate::misbehave::misbehave;
use crate::world::occurrences;
use crate::{Probe, config_of, exports, text, waiting};

impl exports::capstan::plugin::bootstrap::Guest for Probe {
    fn requirements(input: BootstrapInput) -> Result<Vec<Requirement>, Failure> {
        misbehave(&config_of(&input.context), None)?;
        Ok(vec![Requirement::CertificateAuthority(
            CertificateAuthority {
                name: "ca".to_owned(),
                common_name: "kubernetes".to_owned(),
                algorithm: String::new(),
                validity_days: 0,
            },
        )])
    }

    fn render(input: BootstrapInput, material: Vec<Material>) -> Result<BootstrapAnswer, Failure> {
        let config = config_of(&input.context);
        misbehave(&config, None)?;
        let mut parts = vec![Part::Text("#cloud-config\n".to_owned())];
        if text(&config, "do") == "search-memory" {
            let inverted: Vec<u8> = serde_json::from_value(config["inverted"].clone()).unwrap();
            parts.push(Part::Text(occurrences(&inverted).to_string()));
        }
        for piece in material {
            if let Some(secret) = piece.secret {
                parts.push(Part::Secret(DataPart {
                    secret,
                    encoding: PartEncoding::Indent(4),
                }));
            }
        }
        if text(&config, "do") == "bad-handle" {
            parts.push(Part::Secret(DataPart {
                secret: 999,
                encoding: PartEncoding::Plain,
            }));
        }
        Ok(BootstrapAnswer {
            parts,
            format: if text(&config, "do") == "bad-format" {
                "floppy"
            } else {
                "cloud-config"
            }
            .to_owned(),
            conditions: vec![],
            extra: vec![],
        })
    }
}

impl exports::capstan::plugin::control_plane::Guest for Probe {
    fn desired(input: ControlPlaneInput) -> Result<DesiredState, Failure> {
        let config = config_of(&input.context);
        misbehave(&config, None)?;
        Ok(DesiredState {
            replicas: 3,
            version: if text(&config, "do") == "bad-version" {
                "1.36"
            } else {
                "v1.36.0"
            }
            .to_owned(),
            infrastructure_template: ObjectReference {
                group: "infrastructure.cluster.x-k8s.io".to_owned(),
                kind: "ProbeMachineTemplate".to_owned(),
                name: "t".to_owned(),
            },
            bootstrap_group: "bootstrap.cluster.x-k8s.io".to_owned(),
            bootstrap_kind: "KubeadmConfig".to_owned(),
            machine_labels: vec![],
            machine_annotations: vec![],
            readiness_gates: "[]".to_owned(),
            deletion: "{}".to_owned(),
            taints: "[]".to_owned(),
            machine_naming: String::new(),
            max_surge: 1,
            rollout_after_ms: None,
            rollout_before_expiry_days: None,
            remediation: "{}".to_owned(),
            extra: vec![],
        })
    }

    fn requirements(_: ControlPlaneInput) -> Result<Vec<Requirement>, Failure> {
        Ok(vec![])
    }

    fn machine_config(_: MachineConfigInput) -> Result<String, Failure> {
        Ok(json!({"spec": 1}).to_string())
    }

    fn outdated(_: ControlPlaneMachineInput) -> Result<Vec<String>, Failure> {
        Ok(vec!["The probe says so.".to_owned()])
    }

    fn components(_: ControlPlaneMachineInput) -> Result<MachineComponents, Failure> {
        Ok(MachineComponents {
            components: vec![Component {
                condition_type: "APIServerPodHealthy".to_owned(),
                pod_namespace: "kube-system".to_owned(),
                pod_name: "kube-apiserver-a".to_owned(),
            }],
            datastore: Some(DatastoreMember {
                datastore_type: "etcd".to_owned(),
                pod_namespace: "kube-system".to_owned(),
                pod_name: "etcd-a".to_owned(),
                port: 2379,
                certificate_authority: "etcd".to_owned(),
            }),
        })
    }

    fn initialized(_: ControlPlaneInput) -> Result<InitializedWhen, Failure> {
        Ok(InitializedWhen::ApiServerAnswers)
    }

    fn before_rollout(_: ControlPlaneInput) -> Result<Progress, Failure> {
        Ok(Progress::Ready)
    }

    fn after_stable(_: ControlPlaneInput) -> Result<Progress, Failure> {
        Ok(Progress::Waiting(waiting("Settling", 50)))
    }
}

impl exports::capstan::plugin::pre_delete_hook::Guest for Probe {
    fn run(input: HookInput) -> Result<Verdict, Failure> {
        misbehave(&config_of(&input.context), None)?;
        Ok(if input.cluster_deleting {
            Verdict::Proceed
        } else {
            Verdict::Waiting(waiting("ProbeWaits", 3_600_000))
        })
    }
}

impl exports::capstan::plugin::upgrade_strategy::Guest for Probe {
    fn plan(facts: Facts) -> Result<Answer, Failure> {
        let settings: Value = serde_json::from_str(&facts.settings).unwrap_or(Value::Null);
        misbehave(&settings, None)?;
        Ok(Answer {
            targets: facts
                .machine_sets
                .iter()
                .map(|set| Target {
                    machine_set: if text(&settings, "do") == "foreign-set" {
                        "other".to_owned()
                    } else {
                        set.name.clone()
                    },
                    replicas: facts.replicas,
                    create_disabled: false,
                })
                .collect(),
            delete_first: vec![],
            waiting: None,
            message: "planned by the probe".to_owned(),
            state: None,
            extra: vec![],
        })
    }
}
