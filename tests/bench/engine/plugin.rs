//! Engines, plugins and calls for measuring.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capstan_core::call::infrastructure::ClusterInput;
use capstan_core::call::{Context, Mode, State};
use capstan_engine::{
    CallEnv, Ceiling, Compiler, Engine, EngineOptions, Grants, HttpGrant, Limits, SourceOptions,
    StateStore,
};
use capstan_tests::wasm;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// An engine as the host has it, which compiles in a process of this program's own.
pub(crate) fn engine(cache: &Path) -> Arc<Engine> {
    Engine::new(EngineOptions {
        cache_dir: cache.to_owned(),
        compiler: Compiler::Exe(std::env::current_exe().unwrap(), vec!["compile".into()]),
        ceilings: Limits::ceilings(),
        ceiling: Ceiling::default(),
        sources: SourceOptions::default(),
        guest_memory_bytes: 1 << 30,
        guest_threads: 2,
    })
    .unwrap()
}

/// A component of the workspace, and as many that differ from it in their digest alone.
pub(crate) fn variant(package: &str, number: u8) -> Bytes {
    let mut component = wasm::component(package);
    // A custom section of another content.
    component.extend([0, 3, 1, b'n', number]);
    Bytes::from(component)
}

/// A call that may do what the probe asks for, which it never does here.
pub(crate) fn env() -> CallEnv {
    let grants = Grants {
        http: vec![HttpGrant {
            origin: "https://cloud.example.com".parse().unwrap(),
            methods: vec![],
            private: false,
            ca_pem: None,
        }],
        ..Grants::default()
    };
    CallEnv {
        grants: Arc::new(grants),
        ..CallEnv::new("bench", "Cluster default/bench")
    }
}

/// A question about an infrastructure cluster whose object has so many bytes.
pub(crate) fn question(config: Value, bytes: usize) -> ClusterInput {
    // Entries as large as those of usual objects.
    let entries =
        (0..bytes / 64).map(|number| (format!("example.com/{number:08}"), json!("x".repeat(36))));
    let annotations: serde_json::Map<String, Value> = entries.collect();
    ClusterInput {
        context: Context {
            now_ms: 1_700_000_000_000,
            deadline: Duration::from_secs(60),
            attempt: 1,
            idempotency_key: "key".to_owned(),
            mode: Mode::Apply,
            config,
            extra: vec![],
        },
        cluster: json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "bench"}}),
        infra_cluster: json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "RackCluster",
            "metadata": {"name": "bench", "annotations": annotations},
            "spec": {"host": "10.0.0.1", "port": 6443},
        }),
        state: None,
        extra: vec![],
    }
}

/// A state that is read when the gate opens: calls that read it stay in flight until then.
pub(crate) struct Gate {
    pub(crate) waiting: Semaphore,
    pub(crate) open: Semaphore,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: Semaphore::new(0),
            open: Semaphore::new(0),
        })
    }
}

impl StateStore for Gate {
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>> {
        async {
            self.waiting.add_permits(1);
            let _open = self
                .open
                .acquire()
                .await
                .map_err(|error| error.to_string())?;
            Ok(None)
        }
        .boxed()
    }

    fn put(&self, _: State) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}
