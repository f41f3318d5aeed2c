//! What calls cost, alone and beside plugins that misbehave, and whether swaps lose any.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use capstan_engine::{CallEnv, Function, Limits, Loaded};
use serde_json::json;
use tokio::task::JoinSet;

use crate::figure::{Figures, Times, short};
use crate::plugin::{engine, env, question, variant};

/// Calls of one measurement.
const CALLS: usize = 500;

/// Versions that take over from each other under load.
const SWAPS: u32 = 100;

pub(crate) async fn measure(directory: &Path, figures: &mut Figures) {
    let engine = engine(&directory.join("cache"));
    let good = engine
        .load(variant("minimal-infrastructure", 0))
        .await
        .unwrap();
    let bad = engine.load(variant("engine-probe", 1)).await.unwrap();
    growth(&good, figures).await;
    beside(&good, &bad, figures).await;
    stop(&bad, figures).await;
    let other = engine
        .load(variant("minimal-infrastructure", 2))
        .await
        .unwrap();
    swaps(&[good, other], figures).await;
}

/// How long each of so many calls took, one after the other.
async fn times(loaded: &Arc<Loaded>, bytes: usize, calls: usize) -> Times {
    let input = question(json!({}), bytes);
    let mut times = Vec::new();
    for _ in 0..calls {
        let input = input.clone();
        let started = Instant::now();
        loaded.ensure_cluster(env(), input).await.unwrap();
        times.push(started.elapsed());
    }
    Times::of(times)
}

async fn growth(loaded: &Arc<Loaded>, figures: &mut Figures) {
    times(loaded, 10_240, 100).await;
    let mut smallest = None;
    for (kib, beside) in [
        (1, ""),
        (10, "241 to 304 us; below 500 us, p99 below 2 ms"),
        (100, ""),
        (500, ""),
    ] {
        let times = times(loaded, kib * 1024, CALLS).await;
        let one = *smallest.get_or_insert(times.median());
        let ratio = times.median().as_secs_f64() / one.as_secs_f64();
        figures.add(
            format!("a call with an object of {kib} KiB"),
            format!("{times} ({ratio:.1} times that of 1 KiB)"),
            beside,
        );
    }
    let stats = loaded.stats();
    let of = stats
        .iter()
        .find(|stats| stats.function == Function::EnsureCluster)
        .unwrap();
    let calls: u64 = of.outcomes.iter().map(|(_, count)| count).sum();
    figures.add(
        "of that, making the instance",
        short(of.instantiate / u32::try_from(calls).unwrap()),
        "20 us",
    );
}

fn spinning(cpu: Duration) -> CallEnv {
    CallEnv {
        limits: Limits {
            cpu,
            ..Limits::default()
        },
        ..env()
    }
}

/// A well-behaved plugin while another one computes in sixteen calls, or traps without end.
async fn beside(good: &Arc<Loaded>, bad: &Arc<Loaded>, figures: &mut Figures) {
    let alone = times(good, 10_240, CALLS).await.median();
    let mut spins = JoinSet::new();
    for _ in 0..16 {
        let bad = bad.clone();
        spins.spawn(async move {
            let input = question(json!({"do": "spin"}), 1024);
            bad.ensure_cluster(spinning(Duration::from_secs(30)), input)
                .await
        });
    }
    while bad.ticks() < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let meanwhile = times(good, 10_240, 100).await;
    spins.shutdown().await;
    let ratio = meanwhile.median().as_secs_f64() / alone.as_secs_f64();
    figures.add(
        "a call of 10 KiB while 16 calls of another plugin compute",
        format!("{meanwhile} ({ratio:.1} times that without)"),
        "",
    );
}

/// How long a guest that never ends runs beyond what it may.
async fn stop(bad: &Arc<Loaded>, figures: &mut Figures) {
    let cpu = Duration::from_millis(100);
    let mut over = Vec::new();
    for turn in 0..4 {
        let started = Instant::now();
        let input = question(json!({"do": "spin"}), 1024);
        let stopped = bad.ensure_cluster(spinning(cpu), input).await;
        assert!(stopped.is_err(), "{turn}");
        over.push(started.elapsed().saturating_sub(cpu));
    }
    figures.add(
        "a guest that never ends, beyond its 100 ms of processor time",
        short(Times::of(over).median()),
        "3 to 4 ms; below 2 ticks of 10 ms",
    );
}

/// Calls by four callers while two versions take over from each other.
async fn swaps(versions: &[Arc<Loaded>; 2], figures: &mut Figures) {
    let active = Arc::new(RwLock::new(versions[0].clone()));
    let ends = Arc::new(AtomicBool::new(false));
    let (done, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (active, ends) = (active.clone(), ends.clone());
        let (done, lost) = (done.clone(), lost.clone());
        callers.spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let loaded = active.read().unwrap().clone();
                let answer = loaded
                    .ensure_cluster(env(), question(json!({}), 10_240))
                    .await;
                done.fetch_add(1, Ordering::Relaxed);
                lost.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
            }
        });
    }
    for swap in 1..=SWAPS {
        // Some calls with each version, and always some in flight.
        let until = done.load(Ordering::Relaxed) + 20;
        while done.load(Ordering::Relaxed) < until {
            tokio::task::yield_now().await;
        }
        let next = versions[usize::try_from(swap % 2).unwrap()].clone();
        *active.write().unwrap() = next;
    }
    ends.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let (done, lost) = (done.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    figures.add(
        format!("{SWAPS} swaps under load: calls lost"),
        format!("{lost} of {done}"),
        "0",
    );
}
