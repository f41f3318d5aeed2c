//! What the probe says of itself, and what a manifest must not reach.

use serde_json::json;

use crate::capstan::plugin::http::{Error as HttpError, send};
use crate::exports::capstan::plugin::manifest::{
    CapabilityRequest, Column, Description, Guest, OwnedKind,
};
use crate::reach::{files_of, request, secret_of, workload_of};
use crate::{Probe, manifest_mode};

impl Guest for Probe {
    fn describe() -> Description {
        let mode = manifest_mode();
        if mode == "traps" {
            panic!("no manifest today");
        }
        if mode == "reach" {
            // A manifest that tries to use a capability must find it denied.
            let answer = send(&request("GET", "http://127.0.0.1:1/", Vec::new(), None));
            if !matches!(answer, Err(HttpError::Denied(_))) {
                panic!("http worked inside describe");
            }
            for answer in [
                secret_of(&json!({"name": "a", "key": "b"})),
                workload_of(&json!({"plural": "pods", "name": "a"})),
                files_of(&json!({"path": "a"})),
            ] {
                if !answer.to_string().contains("Denied") {
                    panic!("a capability worked inside describe: {answer}");
                }
            }
        }
        let kind = OwnedKind {
            role: "infra-machine".to_owned(),
            group: "infrastructure.cluster.x-k8s.io".to_owned(),
            version: "v1beta2".to_owned(),
            kind: "ProbeMachine".to_owned(),
            plural: "probemachines".to_owned(),
            short_names: vec![],
            spec_schema: json!({"type": "object", "properties": {"size": {"type": "string"}}})
                .to_string(),
            status_schema: json!({"type": "object"}).to_string(),
            columns: vec![Column {
                name: "Size".to_owned(),
                json_path: ".spec.size".to_owned(),
                column_type: "string".to_owned(),
                priority: 0,
            }],
        };
        let cluster = OwnedKind {
            role: "infra-cluster".to_owned(),
            kind: "ProbeCluster".to_owned(),
            plural: "probeclusters".to_owned(),
            status_schema: json!({"type": "object", "properties": {
                "note": {"x-kubernetes-preserve-unknown-fields": true},
                "context": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }})
            .to_string(),
            columns: vec![],
            ..kind.clone()
        };
        let mut kinds = vec![kind.clone(), cluster];
        if mode == "column" {
            for column in kinds.iter_mut().flat_map(|kind| &mut kind.columns) {
                column.column_type = "x".repeat(100_000);
            }
        }
        if mode == "dupes" {
            kinds.push(kind);
        }
        Description {
            name: if mode == "names" {
                "Probe!"
            } else {
                "infrastructure-probe"
            }
            .to_owned(),
            version: "0.1.0".to_owned(),
            description: "Does on demand what the engine must survive.".to_owned(),
            home_page: String::new(),
            kinds,
            capabilities: capabilities(&mode),
            extra: vec![],
        }
    }
}

/// `http` is needed, the others are not; the manifest `silent` says nothing of `http`, `needs` cannot do without any, `suggest` has
/// suggestions that are too long.
fn capabilities(mode: &str) -> Vec<CapabilityRequest> {
    let mut asked: Vec<_> = ["secret", "workload", "files"]
        .into_iter()
        .map(|name| CapabilityRequest {
            name: name.to_owned(),
            why: format!("to try what {name} lets through"),
            optional: mode != "needs",
            suggestion: match mode {
                "suggest" => json!({"comment": "x".repeat(5000)}).to_string(),
                _ => "{}".to_owned(),
            },
        })
        .collect();
    if mode != "silent" {
        asked.push(CapabilityRequest {
            name: "http".to_owned(),
            why: "to reach the test's server".to_owned(),
            optional: false,
            suggestion: json!({"http": {"origins": [{"origin": "https://cloud.example.com", "methods": ["GET", "POST"]}]}}).to_string(),
        });
    }
    asked
}
