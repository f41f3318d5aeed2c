//! Answers about clusters and machines, good and bad.

use serde_json::json;

use crate::capstan::plugin::types::{
    Condition, ConditionStatus, Deletion, Endpoint, Failure, Progress,
};
use crate::exports::capstan::plugin::infrastructure::{
    Address, ClusterAnswer, ClusterInput, DeletionAnswer, FailureDomain, Guest, MachineAnswer,
    MachineInput,
};
use crate::misbehave::misbehave;
use crate::{Probe, config_of, text, waiting};

fn condition(condition_type: &str) -> Condition {
    Condition {
        condition_type: condition_type.to_owned(),
        status: ConditionStatus::IsTrue,
        reason: "Probed".to_owned(),
        message: String::new(),
    }
}

impl Guest for Probe {
    fn ensure_cluster(input: ClusterInput) -> Result<ClusterAnswer, Failure> {
        let config = config_of(&input.context);
        let note = misbehave(&config, None)?;
        let odd = text(&config, "do");
        Ok(ClusterAnswer {
            progress: if odd == "wait" {
                Progress::Waiting(waiting(
                    "ProbeWaits",
                    config["checkAfterMs"].as_u64().unwrap_or(0),
                ))
            } else {
                Progress::Ready
            },
            control_plane_endpoint: Some(Endpoint {
                host: "127.0.0.1".to_owned(),
                port: if odd == "bad-port" { 0 } else { 6443 },
            }),
            failure_domains: vec![FailureDomain {
                name: if odd == "bad-domain" {
                    String::new()
                } else {
                    "a".to_owned()
                },
                control_plane: true,
                attributes: vec![("rack".to_owned(), "1".to_owned())],
            }],
            status: match odd {
                "bad-json" => "{not json".to_owned(),
                "not-an-object" => "[1]".to_owned(),
                "huge" => json!({"fill": "x".repeat(1_100_000)}).to_string(),
                // SAFETY: not text at all, which is what the host must notice.
                "bad-utf8" => unsafe { String::from_utf8_unchecked(b"{\"a\":\"\xff\"}".to_vec()) },
                "deep" => "[".repeat(500_000),
                "deep-objects" => "{\"a\":".repeat(50_000),
                "wide" => format!("{{\"a\":[{}0]}}", "0,".repeat(500_000)),
                "wide-objects" => format!("{{{}\"a\":0}}", "\"a\":{},".repeat(120_000)),
                "number" => "{\"a\":1e99999}".to_owned(),
                "long-number" => format!("{{\"a\":{}}}", "9".repeat(1_000_000)),
                "smuggle" => json!({
                    "metadata": {"finalizers": [], "ownerReferences": [], "name": "other"},
                    "spec": {"providerID": "probe://other"}, "kind": "Secret",
                })
                .to_string(),
                "giant" => json!({"fill": "x".repeat(8_000_000)}).to_string(),
                _ => json!({"note": note, "context": {
                    "now": input.context.now_ms, "deadline": input.context.deadline_ms,
                    "attempt": input.context.attempt, "key": input.context.idempotency_key,
                }})
                .to_string(),
            },
            conditions: vec![condition(match odd {
                "contract-condition" => "Ready",
                "bad-condition" => "not a type",
                _ => "ProbeReady",
            })],
            state: if odd == "huge-state" {
                Some(vec![0; 65 * 1024])
            } else {
                input.state
            },
            extra: vec![],
        })
    }

    fn delete_cluster(input: ClusterInput) -> Result<DeletionAnswer, Failure> {
        misbehave(&config_of(&input.context), None)?;
        Ok(DeletionAnswer {
            deletion: Deletion::Gone,
            status: "{}".to_owned(),
            conditions: vec![],
            state: None,
            extra: vec![],
        })
    }

    fn ensure_machine(input: MachineInput) -> Result<MachineAnswer, Failure> {
        let config = config_of(&input.context);
        let note = misbehave(&config, input.bootstrap.map(|b| b.data))?;
        let odd = text(&config, "do");
        Ok(MachineAnswer {
            progress: Progress::Ready,
            provider_id: Some(
                if odd == "bad-provider-id" {
                    "no scheme"
                } else {
                    "probe://1"
                }
                .to_owned(),
            ),
            addresses: vec![Address {
                address_type: if odd == "bad-address" {
                    "Postal"
                } else {
                    "InternalIP"
                }
                .to_owned(),
                address: "10.0.0.1".to_owned(),
            }],
            failure_domain: input.failure_domain,
            interruptible: false,
            interruption_deadline_ms: None,
            instance_state: "running".to_owned(),
            status: json!({"note": note}).to_string(),
            conditions: vec![],
            state: None,
            extra: vec![],
        })
    }

    fn delete_machine(input: MachineInput) -> Result<DeletionAnswer, Failure> {
        misbehave(&config_of(&input.context), None)?;
        Ok(DeletionAnswer {
            deletion: Deletion::Waiting(waiting("ProbeWaits", 1000)),
            status: "{}".to_owned(),
            conditions: vec![],
            state: None,
            extra: vec![],
        })
    }
}
