//! What is measured in processes of its own: compilation, cold start, memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use capstan_tests::wasm;
use serde_json::{Value, json};

use crate::Counts;
use crate::figure::{Figures, Times, memory_kib, mib, short};
use crate::plugin::{Gate, engine, env, question, variant};

/// The body of a compiling process. What it needed is for whoever started it by hand.
pub(crate) fn compile(output: &Path) {
    if let Err(why) = capstan_engine::compile_main(output) {
        panic!("{why}");
    }
    println!("{}", memory_kib("VmHWM"));
}

/// Compiles, and starts hosts that find everything compiled.
pub(crate) fn measure(directory: &Path, counts: Counts, figures: &mut Figures) {
    for package in ["minimal-infrastructure", "bootstrap-kubeadm"] {
        let component = wasm::component(package);
        let mut times = Vec::new();
        let mut peak = 0;
        for turn in 0..counts.compilations {
            let input = directory.join("component.wasm");
            std::fs::write(&input, &component).unwrap();
            let started = Instant::now();
            let output = Command::new(std::env::current_exe().unwrap())
                .arg("compile")
                .arg(directory.join(format!("{package}-{turn}.cwasm")))
                .stdin(std::fs::File::open(&input).unwrap())
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            assert!(output.status.success());
            times.push(started.elapsed());
            let said = String::from_utf8(output.stdout).unwrap();
            peak = said.trim().parse::<u64>().unwrap().max(peak);
        }
        figures.add(
            format!("compile {package} ({} KiB)", component.len() / 1024),
            format!("{}, child {}", short(Times::of(times).median()), mib(peak)),
            "181 KiB: 206 ms, 28 MB; below 2 s",
        );
    }
    for count in counts.plugins {
        cold_starts(directory, *count, counts.in_flight, figures);
    }
}

/// Starts hosts that find everything compiled.
fn cold_starts(directory: &Path, count: u8, in_flight: u64, figures: &mut Figures) {
    let cache = directory.join(format!("cache-{count}"));
    // Once to compile, then some that find it all.
    let mut runs: Vec<Value> = (0..4)
        .map(|_| load_in_child(&cache, count, in_flight))
        .collect();
    runs.remove(0);
    let median = |name: &str| {
        let times = runs
            .iter()
            .map(|run| Duration::from_micros(run[name].as_u64().unwrap()));
        Times::of(times.collect()).median()
    };
    let kib = |name: &str| {
        let mut all: Vec<u64> = runs.iter().map(|run| run[name].as_u64().unwrap()).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    let each = median("ready_us") / u32::from(count);
    figures.add(
        format!("{count} cached plugins: start of the engine until all are ready"),
        format!("{}, {} each", short(median("ready_us")), short(each)),
        "each below 50 ms",
    );
    figures.add(
        format!("{count} cached plugins: until the first answer"),
        short(median("first_us")),
        "one plugin: 4 to 7 ms",
    );
    figures.add(
        format!("{count} plugins idle: resident"),
        format!(
            "{} ({} without plugins)",
            mib(kib("loaded_kib")),
            mib(kib("empty_kib"))
        ),
        "20: below 60 MB; 0.5 MB each",
    );
    figures.add(
        format!("{count} plugins: resident for each call in flight"),
        format!(
            "{} KiB",
            kib("in_flight_kib").saturating_sub(kib("used_kib")) / in_flight
        ),
        "80 to 90 KB; below 120 KB",
    );
}

fn load_in_child(cache: &Path, count: u8, in_flight: u64) -> Value {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("load")
        .arg(cache)
        .env("BENCH_PLUGINS", count.to_string())
        .env("BENCH_IN_FLIGHT", in_flight.to_string())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The body of a process that starts an engine and loads plugins; prints what that took.
pub(crate) fn load(cache: &Path) {
    let said = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let count = u8::try_from(said("BENCH_PLUGINS")).unwrap();
    let in_flight = said("BENCH_IN_FLIGHT");
    let sources: Vec<_> = (0..count)
        .map(|number| variant("engine-probe", number))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let empty_kib = memory_kib("VmRSS");
        let started = Instant::now();
        let engine = engine(cache);
        let mut plugins = Vec::new();
        for source in sources {
            plugins.push(engine.load(source).await.unwrap());
        }
        let ready = started.elapsed();
        let loaded_kib = memory_kib("VmRSS");
        plugins[0].ensure_cluster(env(), question(json!({}), 10_240)).await.unwrap();
        let first = started.elapsed();
        // Every plugin has answered once: what comes on top is what a call costs.
        for plugin in &plugins {
            plugin.ensure_cluster(env(), question(json!({}), 10_240)).await.unwrap();
        }
        let used_kib = memory_kib("VmRSS");
        let gate = Gate::new();
        let mut calls = Vec::new();
        for number in 0..in_flight {
            let plugin = plugins[usize::try_from(number).unwrap() % plugins.len()].clone();
            let mut env = env();
            env.state = Some(gate.clone());
            calls.push(tokio::spawn(async move {
                plugin.ensure_cluster(env, question(json!({"do": "state"}), 10_240)).await
            }));
            // One after the other, or inputs that stand in line for their guests are counted as well.
            gate.waiting.acquire().await.unwrap().forget();
        }
        let in_flight_kib = memory_kib("VmRSS");
        gate.open.add_permits(1);
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap();
        println!(
            "{}",
            json!({
                "ready_us": us(ready), "first_us": us(first), "empty_kib": empty_kib, "loaded_kib": loaded_kib,
                "used_kib": used_kib, "in_flight_kib": in_flight_kib,
            })
        );
    });
}
