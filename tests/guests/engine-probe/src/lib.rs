//! A guest that does on demand what the engine must survive: `context.config.do` (or `settings.do`) says what.
//!
//! The manifest takes no input; tests change [`MANIFEST`] in the built file, byte for byte, to get another one.
#![cfg(target_arch = "wasm32")]

wit_bindgen::generate!({
    path: "../../../wit/v0.1",
    inline: "
        package capstan:engine-probe;
        world probe {
            include capstan:plugin/capabilities@0.1.0;
            export capstan:plugin/manifest@0.1.0;
            export capstan:plugin/infrastructure@0.1.0;
            export capstan:plugin/bootstrap@0.1.0;
            export capstan:plugin/control-plane@0.1.0;
            export capstan:plugin/pre-delete-hook@0.1.0;
            export capstan:plugin/upgrade-strategy@0.1.0;
        }
    ",
    world: "capstan:engine-probe/probe",
    generate_all,
});

use capstan::plugin::event::EventType;
use capstan::plugin::http::{
    BodyPart, Error as HttpError, Request, SecretEncoding, SecretPart, send,
};
use capstan::plugin::log::{Level, emit, enabled};
use capstan::plugin::material::{CertificateAuthority, Material, Requirement};
use capstan::plugin::secret::SecretKey;
use capstan::plugin::state::{get, put};
use capstan::plugin::types::{
    CallContext, Condition, ConditionStatus, Deletion, Endpoint, Failure, FailureKind, Progress,
    Waiting,
};
use capstan::plugin::workload::{ApiResource, ListOptions, ObjectName, PatchType};
use capstan::plugin::{event, files, secret, workload};
use exports::capstan::plugin::bootstrap::{
    BootstrapAnswer, BootstrapInput, Part, SecretEncoding as PartEncoding, SecretPart as DataPart,
};
use exports::capstan::plugin::control_plane::{
    Component, ControlPlaneInput, DatastoreMember, DesiredState, InitializedWhen,
    MachineComponents, MachineConfigInput, MachineInput as ControlPlaneMachineInput,
    ObjectReference,
};
use exports::capstan::plugin::infrastructure::{
    Address, ClusterAnswer, ClusterInput, DeletionAnswer, FailureDomain, MachineAnswer,
    MachineInput,
};
use exports::capstan::plugin::manifest::{CapabilityRequest, Column, Description, OwnedKind};
use exports::capstan::plugin::pre_delete_hook::{HookInput, Verdict};
use exports::capstan::plugin::upgrade_strategy::{Answer, Facts, Target};
use serde_json::{Value, json};

/// Changed by tests in the built file: `plain`, `traps`, `names`, `dupes`, `silent`.
#[used]
static MANIFEST: [u8; 24] = *b"capstan-manifest:plain..";

/// Changed by tests in the built file to get another version: `plain`, `traps` (every call), `fails` (every call).
#[used]
static BEHAVIOUR: [u8; 24] = *b"capstan-behaves:plain...";

struct Probe;

fn mode_of(bytes: [u8; 24]) -> String {
    let text = String::from_utf8_lossy(&core::hint::black_box(bytes)).into_owned();
    let mode = text.split_once(':').map_or("", |(_, mode)| mode);
    mode.trim_end_matches('.').to_owned()
}

fn manifest_mode() -> String {
    mode_of(core::hint::black_box(MANIFEST))
}

impl exports::capstan::plugin::manifest::Guest for Probe {
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

/// `http` is needed, the others are not; the manifest `silent` says nothing of `http`, `needs` cannot do without any.
fn capabilities(mode: &str) -> Vec<CapabilityRequest> {
    let mut asked: Vec<_> = ["secret", "workload", "files"]
        .into_iter()
        .map(|name| CapabilityRequest {
            name: name.to_owned(),
            why: format!("to try what {name} lets through"),
            optional: mode != "needs",
            suggestion: "{}".to_owned(),
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

fn request(method: &str, url: &str, body: Vec<BodyPart>, credential: Option<String>) -> Request {
    Request {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: vec![("x-probe".to_owned(), "1".to_owned())],
        body,
        credential,
        timeout_ms: 0,
    }
}

fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::Transient,
        reason: reason.to_owned(),
        message: message.into(),
        retry_after_ms: Some(1500),
    }
}

fn waiting(reason: &str, check_after_ms: u64) -> Waiting {
    Waiting {
        reason: reason.to_owned(),
        message: "the probe waits".to_owned(),
        check_after_ms,
    }
}

fn config_of(context: &CallContext) -> Value {
    serde_json::from_str(&context.config).unwrap_or(Value::Null)
}

fn text<'a>(config: &'a Value, key: &str) -> &'a str {
    config.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What does not depend on the function that was called. Answers a note for the status.
fn misbehave(config: &Value, bootstrap: Option<u64>) -> Result<Value, Failure> {
    match mode_of(core::hint::black_box(BEHAVIOUR)).as_str() {
        "traps" => panic!("this version traps"),
        "fails" => return Err(failure("ProbeFailed", "this version fails")),
        _ => {}
    }
    match text(config, "do") {
        "trap" => panic!("the probe was told to trap"),
        "spin" => loop {
            core::hint::spin_loop();
        },
        "hog" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(vec![1; 1 << 20]);
                core::hint::black_box(&kept);
            }
        }
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(3600));
            Ok(Value::Null)
        }
        "flood" => {
            for _ in 0..64 {
                emit(
                    Level::Info,
                    &"x".repeat(8 * 1024),
                    &[("k".to_owned(), "v".to_owned())],
                );
            }
            Ok(json!(enabled(Level::Error)))
        }
        "fail" => Err(failure("ProbeFailed", "the probe was told to fail")),
        "fail-oddly" => Err(failure("not camel case", "the probe was told to fail")),
        "http" => http(config, bootstrap),
        "http-many" => {
            let count = config.get("count").and_then(Value::as_u64).unwrap_or(0);
            let mut refused = 0;
            for _ in 0..count {
                if matches!(
                    send(&request("GET", text(config, "url"), Vec::new(), None)),
                    Err(HttpError::Limit(_))
                ) {
                    refused += 1;
                }
            }
            Ok(json!(refused))
        }
        "state" => {
            let before = get();
            let answer = put(text(config, "value").as_bytes());
            let after = get();
            Ok(json!({
                "before": before.map(|b| String::from_utf8_lossy(&b).into_owned()),
                "put": format!("{answer:?}"),
                "after": after.map(|b| String::from_utf8_lossy(&b).into_owned()),
            }))
        }
        "secret" => Ok(secret_of(config)),
        "workload" => Ok(workload_of(config)),
        "files" => Ok(files_of(config)),
        "event" => Ok(event_of(config)),
        "state-huge" => Ok(json!(format!("{:?}", put(&vec![0; 65 * 1024])))),
        "ambient" => Ok(ambient()),
        _ => Ok(Value::Null),
    }
}

fn http(config: &Value, bootstrap: Option<u64>) -> Result<Value, Failure> {
    let mut body = vec![BodyPart::Bytes(text(config, "body").as_bytes().to_vec())];
    if let Some(secret) = config.get("handle").and_then(Value::as_u64).or(bootstrap) {
        body.push(BodyPart::Secret(SecretPart {
            secret,
            encoding: match text(config, "encoding") {
                "base64" => SecretEncoding::Base64,
                "json" => SecretEncoding::JsonString,
                _ => SecretEncoding::Plain,
            },
        }));
    }
    let mut request = request(
        text(config, "method"),
        text(config, "url"),
        body,
        config
            .get("credential")
            .and_then(Value::as_str)
            .map(str::to_owned),
    );
    request.timeout_ms = config.get("timeoutMs").and_then(Value::as_u64).unwrap_or(0);
    if let Some(headers) = config.get("headers").and_then(Value::as_object) {
        for (name, value) in headers {
            request
                .headers
                .push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
    }
    Ok(match send(&request) {
        Ok(answer) => json!({
            "status": answer.status,
            "headers": answer.headers,
            "length": answer.body.len(),
            "body": String::from_utf8_lossy(&answer.body[..answer.body.len().min(4096)]),
        }),
        Err(HttpError::Denied(why)) => json!({"denied": why}),
        Err(HttpError::Planned) => json!({"planned": true}),
        Err(HttpError::Invalid(why)) => json!({"invalid": why}),
        Err(HttpError::Limit(why)) => json!({"limit": why}),
        Err(HttpError::Failed(why)) => json!({"failed": why}),
    })
}

fn times(config: &Value) -> u64 {
    config.get("times").and_then(Value::as_u64).unwrap_or(1)
}

/// `open`, or `read` which also logs what it got and traps with it when told to.
fn secret_of(config: &Value) -> Value {
    let asked = SecretKey {
        namespace: config
            .get("namespace")
            .and_then(Value::as_str)
            .map(str::to_owned),
        name: text(config, "name").to_owned(),
        key: text(config, "key").to_owned(),
    };
    let mut last = Value::Null;
    for _ in 0..times(config) {
        last = if config["bytes"] == json!(true) {
            match secret::read(&asked) {
                Ok(bytes) => {
                    let got = String::from_utf8_lossy(&bytes).into_owned();
                    if text(config, "then") == "trap" {
                        panic!("the secret is {got}");
                    }
                    if text(config, "then") == "event" {
                        let _ = event::emit(EventType::Warning, "Leaked", &format!("it is {got}"));
                    }
                    json!({"bytes": got})
                }
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        } else {
            match secret::open(&asked) {
                Ok(handle) if text(config, "then") == "send" => {
                    let body = vec![BodyPart::Secret(SecretPart {
                        secret: handle,
                        encoding: SecretEncoding::Plain,
                    })];
                    let answer = send(&request("POST", text(config, "url"), body, None));
                    json!({"handle": handle, "sent": answer.map(|a| a.status).ok()})
                }
                Ok(handle) => json!({"handle": handle}),
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        };
    }
    last
}

fn workload_of(config: &Value) -> Value {
    let resource = ApiResource {
        group: text(config, "group").to_owned(),
        version: match text(config, "version") {
            "" => "v1",
            version => version,
        }
        .to_owned(),
        plural: text(config, "plural").to_owned(),
    };
    let namespace = config
        .get("namespace")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let name = ObjectName {
        namespace: namespace.clone(),
        name: text(config, "name").to_owned(),
    };
    let mut last = Value::Null;
    for _ in 0..times(config) {
        let answer = match text(config, "verb") {
            "list" => workload::list_objects(
                &resource,
                &ListOptions {
                    namespace: namespace.clone(),
                    label_selector: text(config, "labels").to_owned(),
                    field_selector: String::new(),
                    limit: config["limit"].as_u64().map_or(10, |l| l as u32),
                    next: text(config, "next").to_owned(),
                },
            )
            .map(|page| json!({"count": page.items.len(), "items": page.items, "next": page.next})),
            "apply" => workload::apply(&resource, text(config, "object")).map(Value::String),
            "patch" => workload::patch(&resource, &name, PatchType::Merge, text(config, "patch"))
                .map(Value::String),
            "delete" => workload::delete(&resource, &name, None).map(|()| Value::Null),
            _ => workload::get(&resource, &name).map(Value::String),
        };
        last = match answer {
            Ok(answer) => json!({"ok": answer}),
            Err(error) => json!({"error": format!("{error:?}")}),
        };
    }
    last
}

fn files_of(config: &Value) -> Value {
    let path = text(config, "path");
    let mut last = Value::Null;
    for _ in 0..times(config) {
        last = if config["list"] == json!(true) {
            match files::list_directory(path) {
                Ok(entries) => json!(
                    entries
                        .iter()
                        .map(|e| format!("{} {} {}", e.name, e.is_directory, e.size_bytes))
                        .collect::<Vec<_>>()
                ),
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        } else {
            match files::read(path) {
                Ok(bytes) => json!({"ok": String::from_utf8_lossy(&bytes)}),
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        };
    }
    last
}

fn event_of(config: &Value) -> Value {
    let answers: Vec<String> = (0..times(config))
        .map(|n| {
            let message = match text(config, "message") {
                "huge" => "x".repeat(100_000),
                message => format!("{message}{n}"),
            };
            let answer = event::emit(EventType::Normal, text(config, "reason"), &message);
            format!("{answer:?}")
        })
        .collect();
    json!(answers)
}

/// What can be seen of the world without any capability.
fn ambient() -> Value {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|d| u64::try_from(d.as_millis()).unwrap_or(0))
        .unwrap_or(0);
    // The keys of a hash map are seeded from the world's randomness.
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(1_u8);
    json!({
        "now": now,
        "random": random.to_string(),
        "env": std::env::vars().count(),
        "args": std::env::args().count(),
        "files": std::fs::read_dir("/").is_ok() || std::fs::read("/etc/hostname").is_ok(),
        "sockets": std::net::TcpStream::connect("127.0.0.1:1").is_ok()
            || std::net::TcpListener::bind("127.0.0.1:0").is_ok()
            || std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
    })
}

/// How often bytes occur in all of the guest's memory. They come inverted, so that asking does not put them there.
fn occurrences(inverted: &[u8]) -> usize {
    let pages = core::arch::wasm32::memory_size(0);
    let start = core::ptr::without_provenance::<u8>(1);
    // SAFETY: all of the linear memory but its first byte exists, and nothing writes to it meanwhile.
    let memory = unsafe { core::slice::from_raw_parts(start, pages * 65_536 - 1) };
    let is_found = |window: &&[u8]| window.iter().zip(inverted).all(|(a, b)| *a == !*b);
    memory.windows(inverted.len()).filter(is_found).count()
}

fn condition(condition_type: &str) -> Condition {
    Condition {
        condition_type: condition_type.to_owned(),
        status: ConditionStatus::IsTrue,
        reason: "Probed".to_owned(),
        message: String::new(),
    }
}

impl exports::capstan::plugin::infrastructure::Guest for Probe {
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

export!(Probe);
