//! Guests that do harm: each is refused or stopped with its own words, and calls that are in flight meanwhile go on, those of other
//! plugins and those of the same one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capstan_core::call::State;
use capstan_core::call::infrastructure::ClusterAnswer;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::calls::Kept;
use super::module::{
    probe_and, that_grows_a_table, that_is_slow_to_compile, with_memory, with_table,
};
use super::probe::{
    cluster, engine, engine_with, env, loaded, note, patched, tell, wasm, with_manifest,
};
use crate::limit::{POOL_MEMORIES_PER_COMPONENT, POOL_TABLES_PER_COMPONENT, SHORT_TICKS};
use crate::{CallEnv, CallError, Engine, Limits, LoadError, Loaded, StateStore};

/// A state that is read only when the test lets it: who reads it stays in the middle of a call.
struct Gate {
    waiting: Semaphore,
    open: Semaphore,
}

impl StateStore for Gate {
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>> {
        async {
            self.waiting.add_permits(1);
            let _open = self.open.acquire().await.map_err(|e| e.to_string())?;
            Ok(Some(b"kept".to_vec()))
        }
        .boxed()
    }

    fn put(&self, _: State) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}

/// Well-behaved calls that are in flight.
struct InFlight {
    gate: Arc<Gate>,
    calls: Vec<JoinHandle<Result<ClusterAnswer, CallError>>>,
}

impl InFlight {
    /// Starts one call of each plugin and returns when all are in the middle of it.
    async fn of(plugins: &[&Arc<Loaded>]) -> Self {
        let gate = Arc::new(Gate {
            waiting: Semaphore::new(0),
            open: Semaphore::new(0),
        });
        let calls = plugins.iter().map(|loaded| {
            let env = CallEnv {
                state: Some(gate.clone()),
                ..env()
            };
            let loaded = Arc::clone(loaded);
            tokio::spawn(async move {
                let input = cluster(json!({"do": "state", "value": "mine"}));
                loaded.ensure_cluster(env, input).await
            })
        });
        let calls: Vec<_> = calls.collect();
        let count = u32::try_from(calls.len()).unwrap();
        gate.waiting.acquire_many(count).await.unwrap().forget();
        Self { gate, calls }
    }

    /// None of them has ended meanwhile, and each ends well now.
    async fn go_on(self) {
        assert!(self.calls.iter().all(|call| !call.is_finished()));
        self.gate.open.add_permits(1);
        for call in self.calls {
            let answer = call.await.unwrap().unwrap();
            assert_eq!(answer.status["note"]["after"], json!("mine"));
        }
    }
}

fn little(cpu_ms: u64) -> CallEnv {
    CallEnv {
        limits: Limits {
            cpu: Duration::from_millis(cpu_ms),
            ..Limits::default()
        },
        ..env()
    }
}

/// Lets a plugin misbehave while calls of itself and of another plugin are in flight, which go on.
async fn amid_others(bad: &Arc<Loaded>, env: CallEnv, config: Value) -> CallError {
    let other = bad.engine().load(wasm()).await.unwrap();
    let others = InFlight::of(&[bad, &other]).await;
    let error = bad.ensure_cluster(env, cluster(config)).await.unwrap_err();
    others.go_on().await;
    error
}

/// What a guest tries, and a word of what it gets: how its call ends, or what it is answered.
fn refusals() -> Vec<(Value, &'static str)> {
    let http = |url: &str| json!({"do": "http", "method": "GET", "url": url});
    let mut smuggling = http("https://cloud.example.com/");
    smuggling["headers"] = json!({"x": "a\r\nhost: b"});
    vec![
        (json!({"do": "trap"}), "Trap"),
        (json!({"do": "hog"}), "Memory"),
        (json!({"do": "sleep"}), "Deadline"),
        (json!({"do": "spin"}), "Cpu"),
        (json!({"do": "giant"}), "BadAnswer"),
        (json!({"do": "huge"}), "BadAnswer"),
        (json!({"do": "huge-state"}), "BadAnswer"),
        (json!({"do": "contract-condition"}), "BadAnswer"),
        (json!({"do": "bad-port"}), "BadAnswer"),
        (json!({"do": "flood"}), "Ok"),
        (json!({"do": "state-huge"}), "Limit"),
        (http("http://169.254.169.254/latest/meta-data"), "denied"),
        (http("http://[::ffff:127.0.0.1]/"), "denied"),
        (http("https://elsewhere.example.com/"), "denied"),
        (smuggling, "invalid"),
        (json!({"do": "secret", "name": "a", "key": "b"}), "Denied"),
        (json!({"do": "files", "path": "../etc/passwd"}), "Denied"),
        (
            json!({"do": "workload", "verb": "list", "plural": "secrets"}),
            "Denied",
        ),
    ]
}

#[tokio::test]
async fn others_go_on_whatever_a_guest_is_refused() {
    let other = loaded().await;
    for (config, wanted) in refusals() {
        // Each on its own: what is stopped again and again is left alone.
        let bad = other.engine().load(wasm()).await.unwrap();
        let others = InFlight::of(&[&bad, &other]).await;
        let limits = Limits {
            memory_bytes: 64 << 20,
            cpu: Duration::from_millis(500),
            // A busy machine takes a while for that.
            wall: Duration::from_secs(20),
            ..Limits::default()
        };
        let few = CallEnv { limits, ..env() };
        let ended = bad.ensure_cluster(few, cluster(config.clone())).await;
        let ended = format!("{ended:?}");
        assert!(ended.contains(wanted), "{config}: {ended}");
        others.go_on().await;
    }
}

#[tokio::test]
async fn others_go_on_whatever_is_refused_as_a_component() {
    let good = loaded().await;
    let bomb = zstd::encode_all(&vec![0_u8; 64 << 20][..], 1).unwrap();
    for (source, wanted) in [
        (Bytes::from(bomb), "Bomb"),
        (
            Bytes::from_static(b"\x7fELF\x02\x01\x01rest"),
            "Precompiled",
        ),
        (wasm().slice(..10_000), "Truncated"),
        (
            patched("capstan:plugin/state@", "capstan:plugin/stale@"),
            "UnknownImport",
        ),
        (with_manifest("traps"), "ManifestTrapped"),
    ] {
        let others = InFlight::of(&[&good]).await;
        let refused = good.engine().load(source).await.unwrap_err();
        assert!(
            format!("{refused:?}").contains(wanted),
            "{wanted}: {refused:?}"
        );
        others.go_on().await;
    }
}

#[tokio::test]
async fn a_loop_around_a_host_call_meets_the_limit_like_any_other() {
    for what in [
        "http", "state", "log", "secret", "event", "workload", "files",
    ] {
        let loaded = loaded().await;
        let config = json!({
            "do": "retry", "what": what, "url": "http://127.0.0.1:1/", "name": "a", "key": "b",
            "reason": "Again", "plural": "pods", "path": "a",
        });
        let error = amid_others(&loaded, little(100), config).await;
        let limit = Duration::from_millis(100);
        assert_eq!(error, CallError::Cpu { limit }, "{what}");
    }
}

#[tokio::test]
async fn a_recursion_without_end_is_a_trap() {
    let loaded = loaded().await;
    let error = amid_others(&loaded, env(), json!({"do": "recurse"})).await;
    assert!(
        matches!(&error, CallError::Trap { message, .. } if message.contains("stack")),
        "{error}"
    );
}

#[tokio::test]
async fn handles_are_counted() {
    let loaded = loaded().await;
    let error = amid_others(&loaded, env(), json!({"do": "leak-handles"})).await;
    assert!(
        matches!(&error, CallError::Trap { message, .. } if message.contains("handle limit")),
        "{error}"
    );
}

#[tokio::test]
async fn memory_is_summed_over_all_memories() {
    const EACH: usize = 24 << 20;
    let limit_bytes = Limits::default().memory_bytes;
    // Each is far below the limit, two are as well, three are not.
    let two = engine()
        .load(probe_and(&[with_memory(EACH), with_memory(EACH)]))
        .await
        .unwrap();
    assert_eq!(
        note(&two, env(), json!({"do": "remember"})).await,
        json!(1),
        "what is within the limit works"
    );
    let modules = [with_memory(EACH), with_memory(EACH), with_memory(EACH)];
    let three = two.engine().load(probe_and(&modules)).await.unwrap();
    let others = InFlight::of(&[&two]).await;
    let error = three.ensure_cluster(env(), cluster(json!({}))).await;
    assert_eq!(error.unwrap_err(), CallError::Memory { limit_bytes });
    others.go_on().await;
}

#[tokio::test]
async fn a_component_that_needs_more_than_a_slot_is_refused_when_it_is_loaded() {
    let good = loaded().await;
    let others = InFlight::of(&[&good]).await;
    let modules: Vec<_> = (0..8).map(|_| with_memory(65_536)).collect();
    let error = good.engine().load(probe_and(&modules)).await.unwrap_err();
    assert!(
        matches!(&error, LoadError::TooDemanding { what, limit: 4 } if what == "9 memories"),
        "{error}"
    );
    others.go_on().await;
}

#[tokio::test]
async fn a_plugin_that_takes_memory_in_all_its_calls_leaves_some_to_others() {
    const EACH: usize = 24 << 20;
    let engine = engine_with(crate::Ceiling::default(), 256 << 20);
    let good = engine.load(wasm()).await.unwrap();
    let hog = engine.load(probe_and(&[with_memory(EACH)])).await.unwrap();
    let gate = Arc::new(Gate {
        waiting: Semaphore::new(0),
        open: Semaphore::new(0),
    });
    let call = || {
        let (hog, gate) = (hog.clone(), gate.clone());
        tokio::spawn(async move {
            let env = CallEnv {
                state: Some(gate),
                ..env()
            };
            let input = cluster(json!({"do": "state"}));
            hog.ensure_cluster(env, input).await
        })
    };
    let mut held = Vec::new();
    let refused = loop {
        let mut next = call();
        tokio::select! {
            waits = gate.waiting.acquire() => waits.unwrap().forget(),
            ended = &mut next => break ended.unwrap().unwrap_err(),
        }
        held.push(next);
    };
    // Half of all there is: with what is the probe's own, four or five calls.
    assert!((3..=5).contains(&held.len()), "{} calls", held.len());
    assert_eq!(
        refused,
        CallError::Crowded {
            budget_bytes: 256 << 20
        }
    );
    assert!(!refused.is_strike());
    assert_eq!(refused.failure().reason, "PluginBusy");
    assert!(tell(&good, env(), "").await.is_ok());
    gate.open.add_permits(64);
    for call in held {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(call().await.unwrap().is_ok(), "it was given back");
    assert_eq!(engine.stats().guest_memory_bytes, 0);
}

/// The probe with as many memories and tables as a component may have.
async fn hungriest(engine: &Arc<Engine>) -> Arc<Loaded> {
    let all = |tables: u32| {
        let mut modules: Vec<_> = (1..POOL_MEMORIES_PER_COMPONENT)
            .map(|_| with_memory(65_536))
            .collect();
        modules.extend((0..tables).map(|_| with_table()));
        probe_and(&modules)
    };
    // It has some of its own.
    let error = engine.load(all(POOL_TABLES_PER_COMPONENT)).await;
    let LoadError::TooDemanding { what, .. } = error.unwrap_err() else {
        panic!("more tables than there may be were accepted");
    };
    let count = what.strip_suffix(" tables").unwrap();
    let count = count.parse::<u32>().unwrap();
    let spare = (2 * POOL_TABLES_PER_COMPONENT).saturating_sub(count);
    engine.load(all(spare)).await.unwrap()
}

#[tokio::test]
async fn calls_that_take_all_that_a_component_may_leave_the_pool_to_others() {
    let good = loaded().await;
    let hog = hungriest(good.engine()).await;
    let gate = Arc::new(Gate {
        waiting: Semaphore::new(0),
        open: Semaphore::new(0),
    });
    let mut held = Vec::new();
    for _ in 0..64 {
        let (hog, gate) = (hog.clone(), gate.clone());
        held.push(tokio::spawn(async move {
            let env = CallEnv {
                state: Some(gate),
                limits: Limits {
                    concurrency: 64,
                    ..Limits::default()
                },
                ..env()
            };
            let input = cluster(json!({"do": "state"}));
            hog.ensure_cluster(env, input).await
        }));
    }
    gate.waiting.acquire_many(64).await.unwrap().forget();
    assert!(tell(&good, env(), "").await.is_ok());
    assert!(held.iter().all(|call| !call.is_finished()));
    gate.open.add_permits(64);
    for call in held {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn tables_do_not_grow_for_ever() {
    let good = loaded().await;
    let others = InFlight::of(&[&good]).await;
    let error = good
        .engine()
        .load(probe_and(&[that_grows_a_table()]))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, LoadError::ManifestTrapped { why } if why.contains("elements of its tables")),
        "{error}"
    );
    others.go_on().await;
}

#[tokio::test]
async fn what_is_no_text_or_a_bomb_of_json_is_refused_with_the_rule() {
    for (what, named) in [
        ("bad-utf8", "not UTF-8"),
        ("deep", "values"),
        ("deep-objects", "status is not JSON: recursion limit"),
        ("wide", "status has more than 100000 values"),
        ("wide-objects", "status has more than 100000 values"),
        ("number", "status is not JSON: number out of range"),
        ("long-number", "status is not JSON: number out of range"),
    ] {
        let loaded = loaded().await;
        match amid_others(&loaded, env(), json!({"do": what})).await {
            CallError::BadAnswer { rule } => assert!(rule.contains(named), "{what}: {rule}"),
            other => panic!("{what}: {other}"),
        }
    }
}

#[tokio::test]
async fn another_version_of_a_name_is_no_way_around_a_grant() {
    // A patch level that this host has never seen: the same interface, and the same grant.
    let newer = patched("capstan:plugin/http@0.1.0", "capstan:plugin/http@0.1.9");
    let loaded = engine().load(newer).await.unwrap();
    assert!(loaded.imports().contains("http"));
    let error = loaded
        .ensure_cluster(CallEnv::new("probe", "x"), cluster(json!({})))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { capability, .. } if capability == "http"),
        "{error}"
    );
    let denied = json!({"do": "http", "method": "GET", "url": "http://127.0.0.1:1/"});
    let answer = note(&loaded, env(), denied).await;
    assert!(answer.get("denied").is_some(), "{answer}");
}

#[tokio::test]
async fn a_call_finds_nothing_of_the_one_before() {
    let loaded = loaded().await;
    let pattern: Vec<u8> = b"what an earlier call left behind"
        .iter()
        .map(|byte| !byte)
        .collect();
    for _ in 0..20 {
        let look = json!({"do": "look-back", "inverted": pattern});
        assert_eq!(note(&loaded, env(), look).await, json!(0));
        let turn = note(&loaded, env(), json!({"do": "remember"})).await;
        assert_eq!(turn, json!(1));
    }
}

#[tokio::test]
async fn no_clock_shows_how_long_something_takes() {
    let loaded = loaded().await;
    let passed = note(&loaded, env(), json!({"do": "timer"})).await;
    assert_eq!(passed, json!({"steady": 0, "wall": 0}));
}

#[tokio::test]
async fn the_state_is_that_of_the_calls_object_and_no_other() {
    let loaded = loaded().await;
    let (mine, theirs) = (Arc::new(Kept::default()), Arc::new(Kept::default()));
    let of = |kept: &Arc<Kept>| CallEnv {
        state: Some(kept.clone()),
        ..env()
    };
    let put = |value: &str| json!({"do": "state", "value": value});
    note(&loaded, of(&mine), put("secret of mine")).await;
    let seen = note(&loaded, of(&theirs), put("x")).await;
    assert_eq!(seen["before"], Value::Null);
    assert_eq!(
        mine.0.lock().unwrap().as_deref(),
        Some(&b"secret of mine"[..])
    );
}

#[tokio::test]
async fn a_component_made_to_be_slow_to_compile_is_given_up() {
    let good = loaded().await;
    let others = InFlight::of(&[&good]).await;
    let dir = tempfile::tempdir().unwrap();
    let slow = probe_and(&[that_is_slow_to_compile()]);
    assert!(slow.len() < 2 << 20, "{} bytes are not small", slow.len());
    let args = ["--exact", "tests::loading::compiles_when_told_to"].map(Into::into);
    let wall = Duration::from_secs(2);
    let ended = crate::compile::in_child(
        &std::env::current_exe().unwrap(),
        &args,
        &slow,
        &dir.path().join("slow.tmp"),
        wall,
    )
    .await;
    assert_eq!(ended, Err(LoadError::CompileTimeout { limit: wall }));
    assert!(!Path::new(&dir.path().join("slow.tmp")).exists());
    others.go_on().await;
}

/// Calls of one plugin that compute until they are dropped.
struct Spinning(Vec<JoinHandle<Result<ClusterAnswer, CallError>>>);

impl Spinning {
    /// Starts them and returns when all of them are long, and run.
    async fn of(loaded: &Arc<Loaded>, count: u32) -> Self {
        let calls = (0..count).map(|_| {
            let loaded = Arc::clone(loaded);
            let env = little(30_000);
            tokio::spawn(async move {
                let input = cluster(json!({"do": "spin"}));
                loaded.ensure_cluster(env, input).await
            })
        });
        let calls = calls.collect();
        while loaded.ticks() < u64::from(count) * (SHORT_TICKS + 1) {
            tokio::task::yield_now().await;
        }
        Self(calls)
    }

    fn is_complete(&self) -> bool {
        self.0.iter().all(|call| !call.is_finished())
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for call in &self.0 {
            call.abort();
        }
    }
}

#[tokio::test]
async fn short_calls_end_while_another_plugin_computes_in_all_its_calls() {
    let bad = loaded().await;
    let good = bad.engine().load(wasm()).await.unwrap();
    let spinning = Spinning::of(&bad, 8).await;
    for _ in 0..20 {
        assert!(tell(&good, env(), "").await.is_ok());
    }
    assert!(spinning.is_complete());
}

#[tokio::test]
async fn the_processor_is_shared_by_plugins_and_not_by_calls() {
    let bad = loaded().await;
    let good = bad.engine().load(wasm()).await.unwrap();
    let spinning = Spinning::of(&bad, 8).await;
    let before = bad.ticks();
    let error = tell(&good, little(300), "spin").await.unwrap_err();
    assert!(matches!(error, CallError::Cpu { .. }), "{error}");
    let theirs = bad.ticks() - before;
    assert!(spinning.is_complete());
    // One call against eight: 30 ticks and as many of the others, or a little more; shared by calls it were 240.
    assert!(theirs < 90, "{theirs} ticks of the others in 30 of its own");
}

#[tokio::test]
async fn whoever_comes_finds_a_place_beside_plugins_that_hold_all_they_can() {
    let good = loaded().await;
    let gate = Arc::new(Gate {
        waiting: Semaphore::new(0),
        open: Semaphore::new(0),
    });
    let mut held = Vec::new();
    // Each wants 64 of 128 places.
    for share in [64, 32, 16] {
        let hog = good.engine().load(wasm()).await.unwrap();
        for _ in 0..64 {
            let hog = hog.clone();
            let env = CallEnv {
                state: Some(gate.clone()),
                limits: Limits {
                    concurrency: 64,
                    ..Limits::default()
                },
                ..env()
            };
            held.push(tokio::spawn(async move {
                let input = cluster(json!({"do": "state"}));
                hog.ensure_cluster(env, input).await
            }));
        }
        gate.waiting.acquire_many(share).await.unwrap().forget();
    }
    assert!(tell(&good, env(), "").await.is_ok());
    assert!(held.iter().all(|call| !call.is_finished()));
    for call in held {
        call.abort();
    }
}
