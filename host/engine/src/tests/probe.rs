//! Builds the probe guest and makes calls of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use capstan_core::call::infrastructure::{
    BootstrapData, ClusterAnswer, ClusterInput, MachineInput,
};
use capstan_core::call::{Context, Mode, SecretHandle};
use serde_json::{Value, json};

use crate::{CallEnv, CallError, Ceiling, Engine, EngineOptions, Grants, HttpGrant, Loaded};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The probe, built when it is not up to date.
pub(super) fn wasm() -> Bytes {
    static WASM: OnceLock<Bytes> = OnceLock::new();
    WASM.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--profile",
                "plugin",
                "--target",
                "wasm32-wasip2",
                "-p",
                "engine-probe",
            ])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let path = target().join("wasm32-wasip2/plugin/engine_probe.wasm");
        Bytes::from(std::fs::read(path).unwrap())
    })
    .clone()
}

/// The probe with every occurrence of a text replaced by one of the same length.
pub(super) fn patched(from: &str, to: &str) -> Bytes {
    assert_eq!(from.len(), to.len());
    let mut wasm = wasm().to_vec();
    let places: Vec<usize> = (0..wasm.len())
        .filter(|at| wasm[*at..].starts_with(from.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "the probe does not contain {from}");
    for at in places {
        for (place, byte) in wasm.iter_mut().skip(at).zip(to.bytes()) {
            *place = byte;
        }
    }
    Bytes::from(wasm)
}

/// The probe with another manifest.
pub(super) fn with_manifest(mode: &str) -> Bytes {
    patched(
        "capstan-manifest:plain..",
        &format!("{:.<24}", format!("capstan-manifest:{mode}")),
    )
}

/// An engine of its own, which shares compiled code with those of other tests.
pub(super) fn engine() -> Arc<Engine> {
    engine_below(Ceiling::default())
}

/// The same with a ceiling.
pub(super) fn engine_below(ceiling: Ceiling) -> Arc<Engine> {
    engine_with(ceiling, 2 << 30)
}

/// The same with so much memory for all calls together.
pub(super) fn engine_with(ceiling: Ceiling, guest_memory_bytes: usize) -> Arc<Engine> {
    Engine::new(EngineOptions {
        ceiling,
        guest_memory_bytes,
        ..EngineOptions::for_tests(target().join("engine-test-cache"))
    })
    .unwrap()
}

/// The probe in an engine of its own.
pub(super) async fn loaded() -> Arc<Loaded> {
    engine().load(wasm()).await.unwrap()
}

/// Grants for one origin of this machine.
pub(super) fn grants_for(origin: &str, methods: &[&str]) -> Arc<Grants> {
    Arc::new(Grants {
        http: vec![HttpGrant {
            origin: origin.parse().unwrap(),
            methods: methods.iter().map(|m| (*m).to_owned()).collect(),
            private: true,
            ca_pem: None,
        }],
        ..Grants::default()
    })
}

/// A call with a grant that is of no use.
pub(super) fn env() -> CallEnv {
    CallEnv {
        grants: grants_for("https://cloud.example.com", &[]),
        ..CallEnv::new("probe", "ProbeCluster default/a")
    }
}

pub(super) fn context(config: Value) -> Context {
    Context {
        now_ms: 1_700_000_000_000,
        deadline: Duration::from_secs(60),
        attempt: 1,
        idempotency_key: "key-1".to_owned(),
        mode: Mode::Apply,
        config,
        extra: vec![],
    }
}

pub(super) fn cluster(config: Value) -> ClusterInput {
    ClusterInput {
        context: context(config),
        cluster: json!({"kind": "Cluster"}),
        infra_cluster: json!({"kind": "ProbeCluster"}),
        state: None,
        extra: vec![],
    }
}

pub(super) fn machine(config: Value, bootstrap: Option<SecretHandle>) -> MachineInput {
    MachineInput {
        context: context(config),
        cluster: json!({}),
        infra_cluster: json!({}),
        machine: json!({}),
        infra_machine: json!({}),
        failure_domain: None,
        bootstrap: bootstrap.map(|data| BootstrapData {
            data,
            format: "cloud-config".to_owned(),
        }),
        cluster_deleting: false,
        state: None,
        extra: vec![],
    }
}

/// Lets the probe do something and gives back what it noted.
pub(super) async fn note(loaded: &Loaded, env: CallEnv, config: Value) -> Value {
    let answer = loaded.ensure_cluster(env, cluster(config)).await.unwrap();
    answer.status["note"].clone()
}

/// Lets the probe do something and gives back what became of the call.
pub(super) async fn tell(
    loaded: &Loaded,
    env: CallEnv,
    what: &str,
) -> Result<ClusterAnswer, CallError> {
    loaded
        .ensure_cluster(env, cluster(json!({"do": what})))
        .await
}
