//! A small snapshot API behind the SDK's fake host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use capstan_sdk::FailureKind;
use capstan_sdk::pre_delete_hook::Phase;
use capstan_sdk::testing::{Host, hook_input};

/// Snapshots by path, with their states.
type Snapshots = Rc<RefCell<BTreeMap<String, String>>>;

/// Answers as an API would; `POST /snapshots` takes the name from the body.
fn api() -> (Host, Snapshots) {
    let snapshots = Snapshots::default();
    let kept = Rc::clone(&snapshots);
    let host = Host::serving(move |request| {
        let path = request.url.trim_start_matches("https://cloud.example.org");
        let mut kept = kept.borrow_mut();
        Ok(match request.method.as_str() {
            "GET" => match kept.get(path) {
                Some(state) => Response::new(200).with_json(&json!({"snapshot": {"state": state}})),
                None => Response::new(404),
            },
            "PUT" => {
                kept.insert(path.to_owned(), "pending".to_owned());
                Response::new(202)
            }
            _ => {
                let body: Value =
                    capstan_sdk::serde_json::from_str(&request.body_preview()).unwrap();
                let path = format!("{path}/{}", body["name"].as_str().unwrap());
                match kept.insert(path, "pending".to_owned()) {
                    Some(_) => Response::new(409),
                    None => Response::new(201),
                }
            }
        })
    });
    (host, snapshots)
}

fn settings(more: Value) -> Settings {
    let mut all = json!({
        "url": "https://cloud.example.org/snapshots/{name}",
        "state": {"pointer": "/snapshot/state", "ready": ["available"], "failed": ["error"]},
        "credential": "cloud",
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    capstan_sdk::serde_json::from_value(all).unwrap()
}

fn ask(settings: Settings) -> Result<Verdict, Failure> {
    let mut input = hook_input(Phase::PreTerminate, settings).unwrap();
    input.machine.spec.provider_id = Some("cloud:///zone-a/i-42".to_owned());
    TakeSnapshot::run(input)
}

fn reason(verdict: Verdict) -> String {
    match verdict {
        Verdict::Proceed => "Proceed".to_owned(),
        Verdict::Waiting(waiting) => waiting.reason,
    }
}

#[test]
fn asks_once_waits_and_lets_the_machine_go() {
    let (host, snapshots) = api();
    assert_eq!(
        reason(ask(settings(json!({}))).unwrap()),
        "SnapshotRequested"
    );
    assert_eq!(
        reason(ask(settings(json!({}))).unwrap()),
        "SnapshotNotReady"
    );
    for state in snapshots.borrow_mut().values_mut() {
        "available".clone_into(state);
    }
    assert_eq!(ask(settings(json!({}))).unwrap(), Verdict::Proceed);
    assert_eq!(snapshots.borrow().len(), 1);
    let requests = host.requests();
    let made: Vec<&Request> = requests.iter().filter(|r| r.method == "PUT").collect();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].credential.as_deref(), Some("cloud"));
}

#[test]
fn the_body_names_instance_and_machine_and_a_conflict_means_that_it_exists() {
    let (host, snapshots) = api();
    let post = json!({"create": {
        "method": "POST", "url": "https://cloud.example.org/snapshots",
        "body": {"name": "{name}", "of": ["{instance}"], "tags": {"machine": "{namespace}/{machine}"}, "full": true},
    }});
    assert_eq!(
        reason(ask(settings(post.clone())).unwrap()),
        "SnapshotRequested"
    );
    let request = host.requests().pop().unwrap();
    let body: Value = capstan_sdk::serde_json::from_str(&request.body_preview()).unwrap();
    assert_eq!(body["of"], json!(["i-42"]));
    assert_eq!(body["tags"]["machine"], "default/test-1");
    assert_eq!(body["full"], true);
    // Somebody made it between the look and the request.
    let hidden =
        json!({"url": "https://cloud.example.org/elsewhere/{name}", "create": post["create"]});
    assert_eq!(reason(ask(settings(hidden)).unwrap()), "SnapshotRequested");
    assert_eq!(snapshots.borrow().len(), 1);
}

#[test]
fn a_snapshot_that_failed_is_a_final_failure_that_says_what_to_do() {
    let (_host, snapshots) = api();
    ask(settings(json!({}))).unwrap();
    for state in snapshots.borrow_mut().values_mut() {
        "error".clone_into(state);
    }
    let failure = ask(settings(json!({}))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Terminal);
    assert!(failure.message.contains("delete it to have it taken again"));
}

#[test]
fn an_api_that_has_too_much_to_do_is_asked_again_and_one_that_refuses_is_not() {
    for (status, kind) in [
        (429, FailureKind::Transient),
        (503, FailureKind::Transient),
        (403, FailureKind::Terminal),
    ] {
        let _host = Host::scripted([Response::new(status).with_header("Retry-After", "9")]);
        let failure = ask(settings(json!({}))).unwrap_err();
        assert_eq!(failure.kind, kind, "{status}");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(9)));
    }
}

#[test]
fn what_is_put_into_an_address_is_escaped() {
    let (host, _) = api();
    let url = json!({"url": "https://cloud.example.org/of/{providerID}/{node}"});
    ask(settings(url)).unwrap();
    let asked = host.requests().remove(0).url;
    assert_eq!(
        asked,
        "https://cloud.example.org/of/cloud%3A%2F%2F%2Fzone-a%2Fi-42/"
    );
}

#[test]
fn unknown_placeholders_and_machines_without_an_instance_are_named() {
    let (_host, _) = api();
    let bad = settings(json!({"url": "https://cloud.example.org/{volume}"}));
    assert!(ask(bad).unwrap_err().message.contains("{volume}"));
    let input = hook_input(Phase::PreTerminate, settings(json!({}))).unwrap();
    let mut input = input;
    input.machine.spec.provider_id = None;
    let failure = TakeSnapshot::run(input).unwrap_err();
    assert!(failure.message.contains("spec.providerID"));
}
