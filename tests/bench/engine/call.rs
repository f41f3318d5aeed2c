//! What calls cost, alone and beside plugins that misbehave, and whether swaps lose any.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use capstan_engine::{CallEnv, Function, Limits, Loaded};
use serde_json::json;
use tokio::task::JoinSet;

use crate::Counts;
use crate::figure::{Figures, Times, short};
use crate::plugin::{engine, env, question, variant};

/// The longest that anything is waited for: only what hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn measure(directory: &Path, counts: Counts, figures: &mut Figures) {
    let engine = engine(&directory.join("cache"));
    let good = engine
        .load(variant("minimal-infrastructure", 0))
        .await
        .unwrap();
    let bad = engine.load(variant("engine-probe", 1)).await.unwrap();
    growth(&good, counts, figures).await;
    beside(&good, &bad, counts, figures).await;
    stop(&bad, figures).await;
    let other = engine
        .load(variant("minimal-infrastructure", 2))
        .await
        .unwrap();
    swaps(&[good, other], counts, figures).await;
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

async fn growth(loaded: &Arc<Loaded>, counts: Counts, figures: &mut Figures) {
    times(loaded, 10_240, counts.calls / 5).await;
    let mut smallest = None;
    for (kib, beside) in [
        (1, ""),
        (10, "241 to 304 us; below 500 us, p99 below 2 ms"),
        (100, ""),
        (500, ""),
    ] {
        let times = times(loaded, kib * 1024, counts.calls).await;
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

/// Waits until something has happened.
///
/// # Panics
/// When it does not.
async fn happened(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a plugin does beside a well-behaved one: a word for the table, what the probe is told, and how many calls of it there always are.
const BESIDE: [(&str, &str, usize); 3] = [
    ("compute", "spin", 16),
    ("answer what is too large", "giant", 4),
    ("flood the log", "flood", 4),
];

/// A well-behaved plugin, and a task of the host, while another plugin misbehaves in calls without end.
async fn beside(good: &Arc<Loaded>, bad: &Arc<Loaded>, counts: Counts, figures: &mut Figures) {
    let alone = times(good, 10_240, counts.calls).await.median();
    for (what, told, count) in BESIDE {
        let begun = Arc::new(AtomicU64::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let (bad, begun) = (bad.clone(), begun.clone());
            calls.spawn(async move {
                loop {
                    begun.fetch_add(1, Ordering::Relaxed);
                    let input = question(json!({"do": told}), 1024);
                    // How it ends is not the question here.
                    let _ = bad
                        .ensure_cluster(spinning(Duration::from_secs(20)), input)
                        .await;
                }
            });
        }
        let (all, before) = (u64::try_from(count).unwrap(), bad.ticks());
        happened("the plugin misbehaves", || {
            begun.load(Ordering::Relaxed) >= all && bad.ticks() > before
        })
        .await;
        let beats = JoinSet::from_iter([heartbeat()]);
        let meanwhile = times(good, 10_240, (counts.calls / 5).max(2)).await;
        calls.shutdown().await;
        let late = beats.join_all().await.into_iter().max().unwrap_or_default();
        let ratio = meanwhile.median().as_secs_f64() / alone.as_secs_f64();
        figures.add(
            format!("a call of 10 KiB while {count} calls of another plugin {what}"),
            format!("{meanwhile} ({ratio:.1} times that without)"),
            "below 2 ticks of 10 ms more",
        );
        figures.add(
            format!("a task of the host that sleeps 10 ms, meanwhile at most late by ({what})"),
            short(late),
            "below 100 ms",
        );
    }
}

/// How late a task of the host is woken at most, in half a second.
async fn heartbeat() -> Duration {
    const BEAT: Duration = Duration::from_millis(10);
    let mut late = Duration::ZERO;
    for _ in 0..50 {
        let started = Instant::now();
        tokio::time::sleep(BEAT).await;
        late = late.max(started.elapsed().saturating_sub(BEAT));
    }
    late
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
async fn swaps(versions: &[Arc<Loaded>; 2], counts: Counts, figures: &mut Figures) {
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
    for swap in 1..=counts.swaps {
        // Some calls with each version, and always some in flight.
        let until = done.load(Ordering::Relaxed) + 20;
        happened("calls under load", || done.load(Ordering::Relaxed) >= until).await;
        let next = versions[usize::try_from(swap % 2).unwrap()].clone();
        *active.write().unwrap() = next;
    }
    ends.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let (done, lost) = (done.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    figures.add(
        format!("{} swaps under load: calls lost", counts.swaps),
        format!("{lost} of {done}"),
        "0",
    );
}
