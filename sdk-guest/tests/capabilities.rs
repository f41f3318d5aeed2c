//! The capability modules as a plugin's own test sees them, through the fake host.

use capstan_sdk::event::{self, EventType};
use capstan_sdk::http::{BodyPart, Error, Request, Response, SecretEncoding};
use capstan_sdk::log::{self, Level};
use capstan_sdk::secret::{self, SecretKey};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::testing::{self, Host};
use capstan_sdk::workload::{self, ApiResource, ListOptions, ObjectName, Patch};
use capstan_sdk::{Failure, FailureKind, files, state};

#[test]
fn a_secret_goes_into_json_only_where_the_author_says() {
    let host = Host::scripted([Response::new(201)]);
    // A user who writes the marker into a field of the object gains nothing.
    let body = json!({"name": "capstan-secret", "spec": {"size": 2}});
    let sent = Request::post("http://127.0.0.1/instances")
        .json_with_secret(
            &body,
            "/spec/userData",
            testing::secret(9),
            SecretEncoding::Base64,
        )
        .send()
        .unwrap();
    assert!(sent.is_success());
    let request = host.requests().remove(0);
    assert_eq!(
        request.body[1],
        BodyPart::Secret(testing::secret(9), SecretEncoding::Base64)
    );
    let shown: Value = capstan_sdk::serde_json::from_str(&request.body_preview()).unwrap();
    let expected = json!({"name": "capstan-secret", "spec": {"size": 2, "userData": "secret(9)"}});
    assert_eq!(shown, expected);
}

#[test]
fn a_secret_without_a_place_is_not_sent() {
    let host = Host::scripted([Response::new(201)]);
    let request = Request::post("http://127.0.0.1/").json_with_secret(
        &json!({}),
        "/spec/userData",
        testing::secret(1),
        SecretEncoding::Plain,
    );
    assert!(matches!(request.send(), Err(Error::Invalid(_))));
    assert!(host.requests().is_empty());
}

#[test]
fn statuses_become_failures_of_the_right_kind() {
    let kind = |status| {
        Response::new(status)
            .failure("X", "create the instance")
            .kind
    };
    assert_eq!(kind(403), FailureKind::Denied);
    assert_eq!(kind(404), FailureKind::Terminal);
    assert_eq!(kind(429), FailureKind::Transient);
    assert_eq!(kind(502), FailureKind::Transient);
    let throttled = Response::new(429)
        .with_header("Retry-After", "3")
        .failure("X", "list");
    assert_eq!(throttled.retry_after.map(|after| after.as_secs()), Some(3));
}

#[test]
fn the_host_breaks_off_when_its_script_is_over() {
    let _host = Host::scripted([]);
    let failure = Failure::from(Request::get("http://127.0.0.1/").send().unwrap_err());
    assert_eq!(
        (failure.kind, failure.reason.as_str()),
        (FailureKind::Transient, "HttpFailed")
    );
}

#[test]
fn log_lines_carry_their_fields() {
    let host = Host::new();
    let zone = "a";
    log::info!("made an instance in {zone}"; "id" => 7, "zone" => zone);
    log::warn!("{} left", 2);
    let expected = [
        (Level::Info, "made an instance in a id=7 zone=a".to_owned()),
        (Level::Warn, "2 left".to_owned()),
    ];
    assert_eq!(host.logs(), expected);
}

#[test]
fn state_is_kept_until_the_next_host() {
    let host = Host::new();
    state::put_json(&json!({"id": "i-1"})).unwrap();
    assert_eq!(host.state().as_deref(), Some(br#"{"id":"i-1"}"#.as_slice()));
    assert_eq!(
        state::get_json::<Value>().unwrap(),
        Some(json!({"id": "i-1"}))
    );
    assert!(matches!(
        state::put(&[0; 65_537]),
        Err(state::Error::Limit(_))
    ));
    drop(host);
    assert_eq!(state::get(), None);
}

#[test]
fn a_secret_is_opened_for_a_body_and_read_only_when_it_is_there() {
    let host = Host::scripted([Response::new(201)]);
    let key = SecretKey::new("cloud", "token");
    let missing = Failure::from(secret::open(&key).unwrap_err());
    assert_eq!(missing.reason, "SecretNotFound");
    host.set_secret(key.clone(), "t0ken");
    let handle = secret::open(&key).unwrap();
    assert_eq!(host.opened(handle), Some(key.clone()));
    assert_eq!(secret::read(&key).unwrap(), b"t0ken");
    let other = key.in_namespace("elsewhere");
    assert!(matches!(
        secret::read(&other),
        Err(secret::Error::NotFound(_))
    ));
}

#[test]
fn files_are_found_below_the_directory_only() {
    let host = Host::new();
    host.set_file("images/list.json", "[]");
    host.set_file("readme", "hello");
    assert_eq!(files::read("images/list.json").unwrap(), b"[]");
    assert!(matches!(
        files::read("../readme"),
        Err(files::Error::Invalid(_))
    ));
    let names: Vec<_> = files::list_directory("")
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.is_directory))
        .collect();
    let expected = [("images".to_owned(), true), ("readme".to_owned(), false)];
    assert_eq!(names, expected);
}

#[test]
fn events_are_kept_in_order() {
    let host = Host::new();
    event::emit(EventType::Normal, "Made", "made the instance").unwrap();
    let expected = (
        EventType::Normal,
        "Made".to_owned(),
        "made the instance".to_owned(),
    );
    assert_eq!(host.events(), [expected]);
    for _ in 0..7 {
        event::emit(EventType::Warning, "Slow", "it takes long").unwrap();
    }
    let over = event::emit(EventType::Normal, "Made", "again");
    assert!(matches!(over, Err(event::Error::Limit(_))));
}

#[test]
fn a_workload_cluster_keeps_what_is_applied_and_lists_it_in_pages() {
    let host = Host::new();
    let maps = ApiResource::core("configmaps");
    for name in ["a", "b", "c"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "kube-system", "name": name, "labels": {"of": "us"}}});
        workload::apply(&maps, &map).unwrap();
    }
    let options = ListOptions {
        label_selector: "of=us".to_owned(),
        limit: 2,
        ..ListOptions::default()
    };
    assert_eq!(workload::list(&maps, &options).unwrap().items.len(), 2);
    assert_eq!(workload::list_all(&maps, &options).unwrap().len(), 3);
    let a = ObjectName::new("kube-system", "a");
    let change = Patch::Merge(json!({"data": {"x": "1"}, "metadata": {"labels": null}}));
    workload::patch(&maps, &a, &change).unwrap();
    let stored = host.workload_object(&maps, &a).unwrap();
    assert_eq!(
        (&stored["data"]["x"], stored["metadata"].get("labels")),
        (&json!("1"), None)
    );
    workload::delete(&maps, &a, None).unwrap();
    workload::delete(&maps, &a, None).unwrap();
    assert_eq!(workload::find(&maps, &a).unwrap(), None);
}
