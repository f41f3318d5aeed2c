//! Calls that end well and badly, and that one never disturbs another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use capstan_core::call::{Mode, State};
use capstan_core::plan::FailureKind;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use super::probe::{cluster, context, engine, env, loaded, machine, note, tell, wasm};
use crate::limit::BREAKER_STRIKES;
use crate::{BreakerState, CallEnv, CallError, CallOutcome, Function, Limits, StateStore};

fn limited(limits: Limits) -> CallEnv {
    CallEnv { limits, ..env() }
}

#[tokio::test]
async fn a_call_gets_its_input_and_gives_its_answer() {
    let loaded = loaded().await;
    let mut input = cluster(json!({}));
    input.state = Some(b"kept".to_vec());
    let answer = loaded.ensure_cluster(env(), input).await.unwrap();
    assert_eq!(answer.control_plane_endpoint.unwrap().port, 6443);
    assert_eq!(answer.state.as_deref(), Some(&b"kept"[..]));
    assert_eq!(
        answer.status["context"],
        json!({"now": 1_700_000_000_000_u64, "deadline": 1_700_000_060_000_u64, "attempt": 1, "key": "key-1"})
    );
}

#[tokio::test]
async fn a_trap_names_the_panic_and_the_next_call_works() {
    let loaded = loaded().await;
    let error = tell(&loaded, env(), "trap").await.unwrap_err();
    let CallError::Trap { message, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(message.contains("the probe was told to trap"), "{message}");
    assert_eq!(error.failure().reason, "PluginTrapped");
    assert!(tell(&loaded, env(), "").await.is_ok());
    let stats = loaded.stats();
    let calls = stats
        .iter()
        .find(|s| s.function == Function::EnsureCluster)
        .unwrap();
    assert_eq!(
        (
            calls.count(CallOutcome::Trapped),
            calls.count(CallOutcome::Answered)
        ),
        (1, 1)
    );
    // Each is in a bucket, and instances were made in a part of that time.
    assert_eq!(calls.took.count(), 2);
    assert!(calls.took.sum >= calls.instantiate, "{calls:?}");
}

#[tokio::test]
async fn a_spinning_guest_is_stopped_and_lets_others_run() {
    let loaded = loaded().await;
    let spin = limited(Limits {
        cpu: Duration::from_millis(300),
        ..Limits::default()
    });
    // One thread for guests: the other call must run while the first one spins.
    let (spun, other) = tokio::join!(tell(&loaded, spin, "spin"), tell(&loaded, env(), ""));
    assert_eq!(
        spun.unwrap_err(),
        CallError::Cpu {
            limit: Duration::from_millis(300)
        }
    );
    assert!(other.is_ok());
}

#[tokio::test]
async fn memory_is_limited_and_named() {
    let loaded = loaded().await;
    let error = tell(
        &loaded,
        limited(Limits {
            memory_bytes: 16 << 20,
            ..Limits::default()
        }),
        "hog",
    )
    .await;
    assert_eq!(
        error.unwrap_err(),
        CallError::Memory {
            limit_bytes: 16 << 20
        }
    );
    let peak = loaded.memory_peak();
    assert!(peak > 8 << 20 && peak <= 16 << 20, "{peak}");
}

#[tokio::test]
async fn a_sleeping_guest_meets_its_deadline() {
    let loaded = loaded().await;
    let wall = Duration::from_millis(200);
    let error = tell(
        &loaded,
        limited(Limits {
            wall,
            ..Limits::default()
        }),
        "sleep",
    )
    .await;
    assert_eq!(error.unwrap_err(), CallError::Deadline { limit: wall });
}

#[tokio::test]
async fn dropping_the_future_drops_the_call() {
    let loaded = loaded().await;
    let one = limited(Limits {
        concurrency: 1,
        ..Limits::default()
    });
    {
        let mut sleeping = Box::pin(tell(&loaded, one.clone(), "sleep"));
        assert!(futures::poll!(&mut sleeping).is_pending());
        while loaded.engine().stats().calls_active == 0 {
            assert!(futures::poll!(&mut sleeping).is_pending());
            tokio::task::yield_now().await;
        }
    }
    // The only turn is free again.
    assert!(tell(&loaded, one, "").await.is_ok());
}

#[tokio::test]
async fn a_flood_of_messages_does_no_harm() {
    let loaded = loaded().await;
    assert!(tell(&loaded, env(), "flood").await.is_ok());
}

#[tokio::test]
async fn a_failure_keeps_the_plugins_words() {
    let loaded = loaded().await;
    let failure = tell(&loaded, env(), "fail").await.unwrap_err().failure();
    assert_eq!(failure.kind, FailureKind::Transient);
    assert_eq!(failure.reason, "ProbeFailed");
    assert_eq!(failure.retry_after, Some(Duration::from_millis(1500)));
    let odd = tell(&loaded, env(), "fail-oddly").await.unwrap_err();
    assert!(matches!(odd, CallError::BadAnswer { rule } if rule.contains("failure.reason")));
}

#[tokio::test]
async fn a_call_that_is_dropped_is_counted_and_is_no_strike() {
    let loaded = loaded().await;
    for _ in 0..BREAKER_STRIKES {
        let call = tell(&loaded, env(), "sleep");
        let dropped = tokio::time::timeout(Duration::from_millis(200), call).await;
        assert!(dropped.is_err());
    }
    let stats = loaded.stats();
    let calls = stats
        .iter()
        .find(|calls| calls.function == Function::EnsureCluster)
        .unwrap();
    let dropped = u64::try_from(BREAKER_STRIKES).unwrap();
    assert_eq!(calls.count(CallOutcome::Dropped), dropped);
    assert_eq!(loaded.breaker(), BreakerState::Closed);
    assert!(tell(&loaded, env(), "").await.is_ok());
}

#[tokio::test]
async fn trouble_of_the_host_is_not_the_plugins() {
    let error = CallError::Host {
        why: "no connection".to_owned(),
    };
    assert!(!error.is_strike());
    let result: Result<(), _> = Err(error);
    assert_eq!(CallOutcome::of(&result), CallOutcome::Host);
}

#[tokio::test]
async fn five_traps_stop_the_calls() {
    let loaded = loaded().await;
    for _ in 0..5 {
        assert!(matches!(
            tell(&loaded, env(), "trap").await,
            Err(CallError::Trap { .. })
        ));
    }
    let stopped = tell(&loaded, env(), "").await.unwrap_err();
    assert_eq!(stopped.reason(), "PluginStopped");
    assert!(stopped.failure().retry_after.is_some());
    assert!(matches!(
        loaded.breaker(),
        BreakerState::Open { times: 1, .. }
    ));
    // Another plugin of the same engine is not affected, not even another version of this one.
    let fresh = loaded.engine().load(wasm()).await.unwrap();
    assert!(tell(&fresh, env(), "").await.is_ok());
}

#[tokio::test]
async fn failures_that_a_plugin_answers_stop_nothing() {
    let loaded = loaded().await;
    for _ in 0..8 {
        assert!(tell(&loaded, env(), "fail").await.is_err());
    }
    assert_eq!(loaded.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn a_plugin_without_its_grant_is_not_instantiated() {
    let loaded = loaded().await;
    let error = tell(&loaded, CallEnv::new("probe", "x"), "")
        .await
        .unwrap_err();
    let CallError::Refused { capability, why } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(capability, "http");
    assert!(why.contains("to reach the test's server"), "{why}");
    assert!(
        why.contains(r#"{"capability":"http","http":{"origins":[{"#),
        "{why}"
    );
    assert_eq!(error.failure().kind, FailureKind::Denied);
}

#[tokio::test]
async fn the_world_is_empty_and_the_same_each_time() {
    let loaded = loaded().await;
    let seen = note(&loaded, env(), json!({"do": "ambient"})).await;
    assert_eq!(seen["now"], json!(1_700_000_000_000_u64));
    assert_eq!((&seen["env"], &seen["args"]), (&json!(0), &json!(0)));
    assert_eq!(
        (&seen["files"], &seen["sockets"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(note(&loaded, env(), json!({"do": "ambient"})).await, seen);
    let mut other = cluster(json!({"do": "ambient"}));
    other.context.idempotency_key = "key-2".to_owned();
    let other = loaded.ensure_cluster(env(), other).await.unwrap();
    assert_ne!(other.status["note"]["random"], seen["random"]);
}

/// Remembers what was put, as the Kubernetes API would.
#[derive(Default)]
pub(super) struct Kept(pub(super) Mutex<Option<State>>);

impl StateStore for Kept {
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>> {
        async { Ok(self.0.lock().unwrap().clone()) }.boxed()
    }

    fn put(&self, value: State) -> BoxFuture<'_, Result<(), String>> {
        async {
            *self.0.lock().unwrap() = Some(value);
            Ok(())
        }
        .boxed()
    }
}

#[tokio::test]
async fn state_is_kept_before_the_call_ends() {
    let loaded = loaded().await;
    let kept = Arc::new(Kept::default());
    let with_state = || CallEnv {
        state: Some(kept.clone()),
        ..env()
    };
    let first = note(
        &loaded,
        with_state(),
        json!({"do": "state", "value": "one"}),
    )
    .await;
    assert_eq!(
        first,
        json!({"before": null, "put": "Ok(())", "after": "one"})
    );
    let second = note(
        &loaded,
        with_state(),
        json!({"do": "state", "value": "two"}),
    )
    .await;
    assert_eq!(second["before"], json!("one"));
    assert_eq!(kept.0.lock().unwrap().as_deref(), Some(&b"two"[..]));
    let huge = note(&loaded, with_state(), json!({"do": "state-huge"})).await;
    assert!(huge.as_str().unwrap().contains("Limit"), "{huge}");
}

#[tokio::test]
async fn answers_and_states_over_the_plugins_own_limits_are_refused() {
    let loaded = loaded().await;
    let ask = async |limits: Limits| {
        let mut input = cluster(json!({}));
        input.state = Some(b"kept".to_vec());
        loaded.ensure_cluster(limited(limits), input).await
    };
    let refused = async |limits: Limits, says: &str| {
        let CallError::BadAnswer { rule } = ask(limits).await.unwrap_err() else {
            panic!("{says}")
        };
        assert!(rule.contains(says), "{rule}");
    };
    let whole = Limits::default();
    let small = Limits {
        answer_bytes: 100,
        ..whole
    };
    refused(small, "more than 100").await;
    let enough = Limits {
        answer_bytes: 10 << 10,
        state_bytes: 4,
        ..whole
    };
    assert!(ask(enough).await.is_ok());
    let no_state = Limits {
        state_bytes: 3,
        ..whole
    };
    refused(no_state, "a state has at most 3 bytes, not 4").await;
    // The same for what is kept before the answer.
    let kept = Arc::new(Kept::default());
    let env = CallEnv {
        state: Some(kept.clone()),
        ..limited(no_state)
    };
    let told = note(&loaded, env, json!({"do": "state", "value": "four"})).await;
    assert!(told["put"].as_str().unwrap().contains("Limit"), "{told}");
    assert_eq!(*kept.0.lock().unwrap(), None);
}

/// A store that cannot be read or written now.
struct Unreachable;

impl StateStore for Unreachable {
    fn get(&self) -> BoxFuture<'_, Result<Option<State>, String>> {
        async { Err("no connection".to_owned()) }.boxed()
    }

    fn put(&self, _: State) -> BoxFuture<'_, Result<(), String>> {
        async { Err("no connection".to_owned()) }.boxed()
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_not_taken_for_none() {
    let loaded = loaded().await;
    let env = CallEnv {
        state: Some(Arc::new(Unreachable)),
        ..env()
    };
    for _ in 0..6 {
        let error = tell(&loaded, env.clone(), "state").await.unwrap_err();
        assert!(matches!(&error, CallError::Host { why } if why.contains("no connection")));
        assert_eq!(error.failure().kind, FailureKind::Transient);
    }
    assert_eq!(
        loaded.breaker(),
        BreakerState::Closed,
        "it is not the plugin's fault"
    );
}

#[tokio::test]
async fn a_plan_keeps_no_state_and_says_what_it_would_have_kept() {
    let loaded = loaded().await;
    let kept = Arc::new(Kept::default());
    let env = CallEnv {
        state: Some(kept.clone()),
        ..env()
    };
    let mut input = cluster(json!({"do": "state", "value": "one"}));
    input.context.mode = Mode::Plan;
    let answer = loaded.ensure_cluster(env.clone(), input).await.unwrap();
    assert!(
        answer.status["note"]["put"]
            .as_str()
            .unwrap()
            .contains("Planned")
    );
    assert_eq!(*kept.0.lock().unwrap(), None);
    assert_eq!(env.planned.list().len(), 1);
}

#[tokio::test]
async fn too_large_a_question_is_not_asked() {
    let loaded = loaded().await;
    let mut input = machine(json!({}), None);
    input.machine = json!({"fill": "x".repeat(2 << 20)});
    let error = loaded.ensure_machine(env(), input).await.unwrap_err();
    assert!(matches!(error, CallError::BadInput { rule } if rule.starts_with("the Machine")));
}

#[tokio::test]
async fn calls_run_without_a_pool_of_threads_of_their_own_caller() {
    // The caller's runtime has one thread, which is free while a guest spins.
    let loaded = engine().load(wasm()).await.unwrap();
    let spin = limited(Limits {
        cpu: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut call = Box::pin(tell(&loaded, spin, "spin"));
    let mut turns = 0_u32;
    while futures::poll!(&mut call).is_pending() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert!(turns > 1);
    assert_eq!(context(json!({})).attempt, 1);
}
