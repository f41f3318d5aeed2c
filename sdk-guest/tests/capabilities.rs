//! The capability modules as a plugin's own test sees them, through the fake host.

use capstan_sdk::http::{BodyPart, Error, Request, Response, SecretEncoding};
use capstan_sdk::log::{self, Level};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::testing::{Host, secret};
use capstan_sdk::{Failure, FailureKind, state};

#[test]
fn a_secret_goes_into_json_only_where_the_author_says() {
    let host = Host::scripted([Response::new(201)]);
    // A user who writes the marker into a field of the object gains nothing.
    let body = json!({"name": "capstan-secret", "spec": {"size": 2}});
    let sent = Request::post("http://127.0.0.1/instances")
        .json_with_secret(&body, "/spec/userData", secret(9), SecretEncoding::Base64)
        .send()
        .unwrap();
    assert!(sent.is_success());
    let request = host.requests().remove(0);
    assert_eq!(
        request.body[1],
        BodyPart::Secret(secret(9), SecretEncoding::Base64)
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
        secret(1),
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
