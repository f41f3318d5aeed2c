//! Versions of one plugin: a canary for some namespaces, its promotion and the way back; a new version that traps gives way, also after
//! the host was started again; no call is lost when one takes over from another.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::namespace;
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::kube_client::{CLUSTER, CONFIG_MAP, EVENT, Kube, PLUGIN, condition, conditions};
use capstan_tests::probe::{PROBE, PROBE_CLUSTER, probe_cluster};
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

/// What the version says that fails.
const FAILS: &str = "this version fails";
/// How often a version takes over from the other under load.
const SWAPS: usize = 8;

async fn cluster(kube: &Kube, own: &str) {
    namespace(kube, own).await;
    probe_cluster(kube, own).await;
}

/// Changes the object, waits until it was asked about, and gives what it says then. Whoever reconciles a changed object has asked about it:
/// either that went well, or the version that fails says so about this very generation.
async fn ask(kube: &Kube, own: &str, turn: u32) -> String {
    let change = json!({"spec": {"size": turn.to_string()}});
    let object = kube.merge(PROBE_CLUSTER, own, "probe", &change).await;
    // The host may write its spec as well, which is another generation.
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    let is_seen = |observed: &Value| observed.as_i64().is_some_and(|seen| seen >= generation);
    eventually("it was asked about", PATIENCE, async || {
        let object = kube.get(PROBE_CLUSTER, own, "probe").await.ok_or("gone")?;
        let all = object["status"]["conditions"].as_array();
        let mut ready = all.into_iter().flatten().filter(|c| c["type"] == "Ready");
        let said = condition(&object, "Ready").message;
        let fails =
            said.contains(FAILS) && ready.all(|ready| is_seen(&ready["observedGeneration"]));
        let is_new = fails || is_seen(&object["status"]["observedGeneration"]);
        is_new.then_some(said).ok_or(conditions(&object))
    })
    .await
}

/// Waits until the version that answers for this namespace is the failing one, or is not.
async fn answers(kube: &Kube, own: &str, fails: bool) {
    let what = format!("{own} is answered for by the version that fails: {fails}");
    eventually(&what, PATIENCE, async || {
        let said = ask(kube, own, rand::random()).await;
        (said.contains(FAILS) == fails).then_some(()).ok_or(said)
    })
    .await;
}

async fn configure(kube: &Kube, spec: Value) {
    kube.merge(PLUGIN, NAMESPACE, PROBE, &json!({"spec": spec}))
        .await;
}

/// The host with the probe, granted what it needs.
async fn with_probe(host: TestHost) -> TestHost {
    host.put_plugin(PROBE, &wasm::gzip(&wasm::component("engine-probe")))
        .await;
    said(host.kube(), "it lacks its grant", |object| {
        condition(object, "Granted").reason == "GrantMissing"
    })
    .await;
    let http = json!({"capability": "http", "http": {"origins": [{"origin": "https://cloud.example.com"}]}});
    configure(host.kube(), json!({"grants": [http]})).await;
    host.plugin_ready(PROBE).await;
    host
}

async fn said(kube: &Kube, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, PATIENCE, async || {
        let object = plugin(kube, PROBE).await.ok_or("no Plugin")?;
        let said = format!("{} {}", object["status"]["canary"], conditions(&object));
        is_so(&object).then_some(object).ok_or(said)
    })
    .await
}

/// What the program says of who answers for the plugin's objects.
async fn serving(host: &TestHost) -> Vec<Value> {
    let file = host.plane.user_kubeconfig("reader", &["system:masters"]);
    let printed = tokio::process::Command::new(wasm::program())
        .args(["serving", PROBE, "-o", "json", "--kubeconfig"])
        .arg(file.unwrap())
        .output()
        .await
        .unwrap();
    let words = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{words}");
    serde_json::from_slice(&printed.stdout).unwrap()
}

#[test]
fn a_canary_serves_its_namespaces_is_promoted_and_rolled_back_by_one_field() {
    run(async {
        let mut host = with_probe(TestHost::start().await).await;
        let client = host.kube().clone();
        let kube = &client;
        for own in ["canary-a", "canary-b"] {
            cluster(kube, own).await;
            answers(kube, own, false).await;
        }
        let next = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": NAMESPACE, "name": "probe-next", "labels": {"capstan.dev/plugin": PROBE}},
            "binaryData": {"plugin.wasm": BASE64.encode(wasm::gzip(&wasm::probe_that("fails")))},
        });
        kube.apply(CONFIG_MAP, &next).await;
        let canary =
            json!({"source": {"configMap": {"name": "probe-next"}}, "namespaces": ["canary-a"]});
        configure(kube, json!({"canary": canary})).await;
        said(kube, "the canary serves", |o| {
            o["status"]["canary"]["state"] == "Serving"
        })
        .await;
        answers(kube, "canary-a", true).await;
        answers(kube, "canary-b", false).await;

        configure(kube, json!({"canary": {"promoted": true}})).await;
        said(kube, "it is promoted", |o| {
            o["status"]["canary"]["state"] == "Promoted"
        })
        .await;
        answers(kube, "canary-b", true).await;

        configure(kube, json!({"canary": {"promoted": false}})).await;
        said(kube, "it is rolled back", |o| {
            o["status"]["canary"]["state"] == "Serving"
        })
        .await;
        answers(kube, "canary-b", false).await;
        answers(kube, "canary-a", true).await;

        // Instead of a namespace, a label of Clusters.
        let by_label = json!({"namespaces": null, "matchLabels": {"ring": "early"}});
        configure(kube, json!({"canary": by_label})).await;
        answers(kube, "canary-a", false).await;
        let early = json!({"metadata": {"labels": {"ring": "early"}}});
        kube.merge(CLUSTER, "canary-b", "probe", &early).await;
        answers(kube, "canary-b", true).await;
        let by_name = json!({"namespaces": ["canary-a"], "matchLabels": null});
        configure(kube, json!({"canary": by_name})).await;
        answers(kube, "canary-b", false).await;
        answers(kube, "canary-a", true).await;

        // Whoever starts has the canary answer first of all, and not the version beside it for a while.
        host.kill();
        let (first, ()) =
            tokio::join!(ask(kube, "canary-a", rand::random()), host.run_in_process());
        assert!(first.contains(FAILS), "{first}");
        answers(kube, "canary-b", false).await;

        let served = serving(&host).await;
        let of = |own: &str| served.iter().find(|line| line["namespace"] == own).unwrap();
        let object = plugin(kube, PROBE).await.unwrap();
        let canary = &object["status"]["canary"]["digest"];
        for (own, digest) in [
            ("canary-a", canary),
            ("canary-b", &object["status"]["activeDigest"]),
        ] {
            let line = of(own);
            assert_eq!((&line["digest"], &line["objects"]), (digest, &json!(1)));
            assert_eq!(line["canary"], own == "canary-a");
        }

        // The one that is named is had from what the host keeps, though its source has something else by now.
        configure(kube, json!({"canary": {"digest": canary}})).await;
        let gone_on = wasm::gzip(&wasm::component("minimal-infrastructure"));
        let change = json!({"binaryData": {"plugin.wasm": BASE64.encode(gone_on)}});
        kube.merge(CONFIG_MAP, NAMESPACE, "probe-next", &change)
            .await;
        host.kill();
        host.run_in_process().await;
        said(kube, "the named canary serves", |o| {
            let status = &o["status"]["canary"];
            status["state"] == "Serving" && status["digest"] == *canary
        })
        .await;
        answers(kube, "canary-a", true).await;

        // Nor does it need a source: not one that is gone, and not a registry that does not answer.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let image = format!("{}/team/probe:1", silent.local_addr().unwrap());
        let registry = json!({"configMap": null, "oci": {"image": image, "plainHTTP": true}});
        kube.delete(CONFIG_MAP, NAMESPACE, "probe-next").await;
        for source in [json!({}), registry] {
            configure(kube, json!({"canary": {"source": source}})).await;
            host.kill();
            host.run_in_process().await;
            answers(kube, "canary-a", true).await;
            answers(kube, "canary-b", false).await;
            let object = plugin(kube, PROBE).await.unwrap();
            let status = &object["status"]["canary"];
            assert_eq!(
                (&status["state"], &status["digest"]),
                (&json!("Serving"), canary)
            );
        }

        configure(kube, json!({"canary": null})).await;
        said(kube, "it is gone", |o| o["status"]["canary"].is_null()).await;
        answers(kube, "canary-a", false).await;
    });
}

#[test]
fn a_plugin_is_told_how_often_it_was_asked_without_success() {
    run(async {
        let host = with_probe(TestHost::start().await).await;
        let kube = host.kube();
        cluster(kube, "tries").await;
        answers(kube, "tries", false).await;
        configure(kube, json!({"config": {"do": "fail"}})).await;
        let change = json!({"spec": {"size": "tried"}});
        let object = kube.merge(PROBE_CLUSTER, "tries", "probe", &change).await;
        let generation = object["metadata"]["generation"].clone();
        eventually("it has failed", PATIENCE, async || {
            let object = kube.get(PROBE_CLUSTER, "tries", "probe").await.unwrap();
            let said = condition(&object, "Ready").message;
            said.contains("told to fail").then_some(()).ok_or(said)
        })
        .await;
        configure(kube, json!({"config": null})).await;
        let answered = async |generation: &Value| {
            eventually("it has answered", PATIENCE, async || {
                let object = kube.get(PROBE_CLUSTER, "tries", "probe").await.unwrap();
                let is_seen = object["status"]["observedGeneration"] == *generation;
                let is_ready = condition(&object, "Ready").status == "True";
                let attempt = object["status"]["context"]["attempt"].as_u64();
                let attempt = attempt.filter(|_| is_seen && is_ready);
                attempt.ok_or(conditions(&object))
            })
            .await
        };
        let attempt = answered(&generation).await;
        assert!(attempt > 1, "{attempt}");
        let change = json!({"spec": {"size": "changed"}});
        let object = kube.merge(PROBE_CLUSTER, "tries", "probe", &change).await;
        assert_eq!(answered(&object["metadata"]["generation"]).await, 1);
    });
}

#[test]
fn the_digest_that_is_named_answers_and_no_other_also_after_a_restart() {
    run(async {
        let mut host = with_probe(TestHost::start().await).await;
        let client = host.kube().clone();
        let kube = &client;
        cluster(kube, "pinned").await;
        answers(kube, "pinned", false).await;
        let first = plugin(kube, PROBE).await.unwrap()["status"]["activeDigest"].clone();
        host.put_plugin(PROBE, &wasm::gzip(&wasm::probe_that("fails")))
            .await;
        answers(kube, "pinned", true).await;
        // A start forgets what answered before: what is named comes from what the host keeps.
        host.kill();
        host.run_in_process().await;
        answers(kube, "pinned", true).await;
        configure(kube, json!({"digest": first})).await;
        answers(kube, "pinned", false).await;
        host.kill();
        host.run_in_process().await;
        said(kube, "the named one is back at work", |object| {
            object["status"]["activeDigest"] == first
        })
        .await;
        answers(kube, "pinned", false).await;
        // Without the one that is named nothing answers.
        let nobodys = format!("sha256:{}", "0".repeat(64));
        configure(kube, json!({"digest": nobodys})).await;
        let object = said(kube, "nothing answers", |object| {
            condition(object, "Ready").status == "False"
        })
        .await;
        assert_eq!(condition(&object, "Ready").reason, "DigestMismatch");
        assert!(object["status"].get("activeDigest").is_none(), "{object}");
        configure(kube, json!({"digest": null})).await;
        answers(kube, "pinned", true).await;
    });
}

#[test]
fn what_is_taken_away_is_gone_also_while_a_registry_does_not_answer() {
    run(async {
        let host = with_probe(TestHost::start().await).await;
        let kube = host.kube();
        cluster(kube, "taken").await;
        answers(kube, "taken", false).await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let image = format!("{}/team/probe:1", silent.local_addr().unwrap());
        let source = json!({"configMap": null, "oci": {"image": image, "plainHTTP": true}});
        configure(kube, json!({"source": source})).await;
        let _asked = silent.accept().await.unwrap();
        said(kube, "it waits for the registry", |object| {
            condition(object, "Verified").reason == "Loading"
        })
        .await;
        configure(kube, json!({"grants": null})).await;
        let mut turn = 0_u32;
        eventually("calls are refused", PATIENCE, async || {
            turn += 1;
            let change = json!({"spec": {"size": turn.to_string()}});
            kube.merge(PROBE_CLUSTER, "taken", "probe", &change).await;
            let object = kube.get(PROBE_CLUSTER, "taken", "probe").await;
            let said = condition(&object.ok_or("gone")?, "Ready").message;
            said.contains("is not granted").then_some(()).ok_or(said)
        })
        .await;
        let object = plugin(kube, PROBE).await.unwrap();
        let verified = condition(&object, "Verified");
        assert_eq!(
            verified.reason, "Loading",
            "it still waits for the registry"
        );
        assert!(verified.message.contains("is asked what"), "{object}");
    });
}

#[test]
fn a_new_version_that_traps_gives_way_to_the_last_good_one_also_after_a_restart() {
    run(async {
        let mut host = with_probe(TestHost::start_process().await).await;
        let kube = host.kube().clone();
        for place in 0..6 {
            cluster(&kube, &format!("traps-{place}")).await;
        }
        answers(&kube, "traps-0", false).await;
        let good = plugin(&kube, PROBE).await.unwrap()["status"]["activeDigest"].clone();
        host.put_plugin(PROBE, &wasm::gzip(&wasm::probe_that("traps")))
            .await;
        let mut turn = 0_u32;
        let object = eventually("the good version answers again", PATIENCE, async || {
            turn += 1;
            for place in 0..6 {
                let change = json!({"spec": {"size": turn.to_string()}});
                kube.merge(PROBE_CLUSTER, &format!("traps-{place}"), "probe", &change)
                    .await;
            }
            let object = plugin(&kube, PROBE).await.ok_or("no Plugin")?;
            let is_back = object["status"]["activeDigest"] == good
                && object["status"]["history"][1]["state"] == "GivenUp";
            is_back.then_some(object.clone()).ok_or(format!(
                "{} {}",
                object["status"]["history"],
                conditions(&object)
            ))
        })
        .await;
        let ready = condition(&object, "Ready");
        assert_eq!(ready.status, "True");
        assert!(ready.message.contains("answers calls again"), "{ready:?}");
        let told = told(&kube).await;
        assert!(told.iter().any(|told| told == "FellBack"), "{told:?}");
        answers(&kube, "traps-0", false).await;

        // The source still has the version that traps. Who starts now knows that it was given up, and has the other one.
        host.kill();
        host.run_process();
        answers(&kube, "traps-1", false).await;
        let object = said(&kube, "the good version is back at work", |object| {
            object["status"]["activeDigest"] == good
        })
        .await;
        assert_ne!(object["status"]["observedDigest"], good, "{object}");
        assert_eq!(
            object["status"]["history"][1]["state"], "GivenUp",
            "{object}"
        );
    });
}

/// Reasons of the events on the plugin.
async fn told(kube: &Kube) -> Vec<String> {
    let events = kube.list(EVENT, NAMESPACE).await;
    let own = events
        .iter()
        .filter(|event| event["regarding"]["name"] == PROBE);
    own.map(|event| event["reason"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_plugin_that_traps_is_left_alone_for_a_while_says_so_and_comes_back() {
    run(async {
        let host = with_probe(TestHost::start().await).await;
        let kube = host.kube();
        configure(kube, json!({"config": {"do": "trap"}})).await;
        for place in 0..6 {
            cluster(kube, &format!("held-{place}")).await;
        }
        let object = said(kube, "calls are held back", |object| {
            condition(object, "Ready").reason == "CircuitOpen"
        })
        .await;
        let ready = condition(&object, "Ready");
        assert_eq!(ready.status, "False");
        assert!(ready.message.contains("are held back until"), "{ready:?}");
        host.plugins_ready().await;
        configure(kube, json!({"config": null})).await;
        said(kube, "calls go through", |object| {
            condition(object, "Ready").status == "True"
        })
        .await;
        answers(kube, "held-0", false).await;
        let told = told(kube).await;
        for reason in ["Activated", "GrantMissing", "CircuitOpen", "CircuitClosed"] {
            assert!(told.iter().any(|told| told == reason), "{reason}: {told:?}");
        }
    });
}

/// Asks again and again until it is told to stop, and says how often.
async fn keep_asking(kube: &Kube, own: &str, stop: &AtomicBool) -> u32 {
    let mut asked = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        ask(kube, own, asked).await;
    }
    asked
}

/// Since when it is Ready as it is.
async fn ready_since(kube: &Kube, own: &str) -> (String, Value) {
    let object = kube.get(PROBE_CLUSTER, own, "probe").await.unwrap();
    let all = object["status"]["conditions"].as_array().unwrap();
    let ready = all.iter().find(|c| c["type"] == "Ready").unwrap();
    let status = ready["status"].as_str().unwrap().to_owned();
    (status, ready["lastTransitionTime"].clone())
}

#[test]
fn no_call_is_lost_when_versions_change_under_load() {
    run(async {
        let host = with_probe(TestHost::start_process().await).await;
        let kube = host.kube();
        let places: Vec<String> = (0..4).map(|place| format!("swap-{place}")).collect();
        let mut before = Vec::new();
        for own in &places {
            cluster(kube, own).await;
            answers(kube, own, false).await;
            before.push(ready_since(kube, own).await);
        }
        let stop = AtomicBool::new(false);
        let load =
            futures::future::join_all(places.iter().map(|own| keep_asking(kube, own, &stop)));
        let versions = [wasm::probe_that("other"), wasm::component("engine-probe")];
        let swaps = async {
            for version in versions.iter().cycle().take(SWAPS) {
                host.put_plugin(PROBE, &wasm::gzip(version)).await;
                let digest: String = Sha256::digest(version)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let digest = format!("sha256:{digest}");
                said(kube, "the version takes over", |object| {
                    object["status"]["activeDigest"] == digest.as_str()
                })
                .await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (asked, ()) = futures::future::join(load, swaps).await;
        let asked: u32 = asked.iter().sum();
        println!("{asked} questions in {SWAPS} swaps");
        assert!(asked as usize > SWAPS, "there was a load: {asked}");
        for (own, before) in places.iter().zip(before) {
            assert_eq!(
                ready_since(kube, own).await,
                before,
                "{own} was Ready all the time"
            );
        }
        let log = std::fs::read_to_string(host.plane.dir().join("host.log")).unwrap();
        let lost: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("ProbeCluster"))
            .collect();
        assert!(lost.is_empty(), "{lost:#?}");
    });
}
