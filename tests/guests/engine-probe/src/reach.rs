//! Everything that the probe tries with its imports.

use serde_json::{Value, json};

use crate::capstan::plugin::event::EventType;
use crate::capstan::plugin::http::{
    BodyPart, Error as HttpError, Request, SecretEncoding, SecretPart, send,
};
use crate::capstan::plugin::log::{Level, emit};
use crate::capstan::plugin::secret::SecretKey;
use crate::capstan::plugin::types::Failure;
use crate::capstan::plugin::workload::{ApiResource, ListOptions, ObjectName, PatchType};
use crate::capstan::plugin::{event, files, secret, workload};
use crate::text;

pub(crate) fn request(
    method: &str,
    url: &str,
    body: Vec<BodyPart>,
    credential: Option<String>,
) -> Request {
    Request {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: vec![("x-probe".to_owned(), "1".to_owned())],
        body,
        credential,
        timeout_ms: 0,
    }
}

pub(crate) fn http(config: &Value, bootstrap: Option<u64>) -> Result<Value, Failure> {
    let mut body = vec![BodyPart::Bytes(text(config, "body").as_bytes().to_vec())];
    if let Some(secret) = config.get("handle").and_then(Value::as_u64).or(bootstrap) {
        body.push(BodyPart::Secret(SecretPart {
            secret,
            encoding: match text(config, "encoding") {
                "base64" => SecretEncoding::Base64,
                "json" => SecretEncoding::JsonString,
                _ => SecretEncoding::Plain,
            },
        }));
    }
    let mut request = request(
        text(config, "method"),
        text(config, "url"),
        body,
        config
            .get("credential")
            .and_then(Value::as_str)
            .map(str::to_owned),
    );
    request.timeout_ms = config.get("timeoutMs").and_then(Value::as_u64).unwrap_or(0);
    if let Some(headers) = config.get("headers").and_then(Value::as_object) {
        for (name, value) in headers {
            request
                .headers
                .push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
    }
    Ok(match send(&request) {
        Ok(answer) => json!({
            "status": answer.status,
            "headers": answer.headers,
            "length": answer.body.len(),
            "body": String::from_utf8_lossy(&answer.body[..answer.body.len().min(4096)]),
        }),
        Err(HttpError::Denied(why)) => json!({"denied": why}),
        Err(HttpError::Planned) => json!({"planned": true}),
        Err(HttpError::Invalid(why)) => json!({"invalid": why}),
        Err(HttpError::Limit(why)) => json!({"limit": why}),
        Err(HttpError::Failed(why)) => json!({"failed": why}),
    })
}

pub(crate) fn times(config: &Value) -> u64 {
    config.get("times").and_then(Value::as_u64).unwrap_or(1)
}

/// `open`, or `read`, which also shows what it got in an event, in a trap or in the status when told to.
pub(crate) fn secret_of(config: &Value) -> Value {
    let asked = SecretKey {
        namespace: config
            .get("namespace")
            .and_then(Value::as_str)
            .map(str::to_owned),
        name: text(config, "name").to_owned(),
        key: text(config, "key").to_owned(),
    };
    let mut last = Value::Null;
    for _ in 0..times(config) {
        last = if config["bytes"] == json!(true) {
            match secret::read(&asked) {
                Ok(bytes) => {
                    let got = String::from_utf8_lossy(&bytes).into_owned();
                    if text(config, "then") == "trap" {
                        panic!("the secret is {got}");
                    }
                    if text(config, "then") == "event" {
                        let _ = event::emit(EventType::Warning, "Leaked", &format!("it is {got}"));
                    }
                    if text(config, "then") == "status" {
                        return json!({"bytes": got});
                    }
                    // What shows that it was read, and does not show it.
                    json!({"reversed": got.chars().rev().collect::<String>()})
                }
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        } else {
            match secret::open(&asked) {
                Ok(handle) if text(config, "then") == "send" => {
                    let body = vec![BodyPart::Secret(SecretPart {
                        secret: handle,
                        encoding: SecretEncoding::Plain,
                    })];
                    let answer = send(&request("POST", text(config, "url"), body, None));
                    json!({"handle": handle, "sent": answer.map(|a| a.status).ok()})
                }
                Ok(handle) => json!({"handle": handle}),
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        };
    }
    last
}

pub(crate) fn workload_of(config: &Value) -> Value {
    let resource = ApiResource {
        group: text(config, "group").to_owned(),
        version: match text(config, "version") {
            "" => "v1",
            version => version,
        }
        .to_owned(),
        plural: text(config, "plural").to_owned(),
    };
    let namespace = config
        .get("namespace")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let name = ObjectName {
        namespace: namespace.clone(),
        name: text(config, "name").to_owned(),
    };
    let mut last = Value::Null;
    for _ in 0..times(config) {
        let answer = match text(config, "verb") {
            "list" => workload::list_objects(
                &resource,
                &ListOptions {
                    namespace: namespace.clone(),
                    label_selector: text(config, "labels").to_owned(),
                    field_selector: String::new(),
                    limit: config["limit"].as_u64().map_or(10, |l| l as u32),
                    next: text(config, "next").to_owned(),
                },
            )
            .map(|page| json!({"count": page.items.len(), "items": page.items, "next": page.next})),
            "apply" => workload::apply(&resource, text(config, "object")).map(Value::String),
            "patch" => workload::patch(&resource, &name, PatchType::Merge, text(config, "patch"))
                .map(Value::String),
            "delete" => workload::delete(&resource, &name, None).map(|()| Value::Null),
            _ => workload::get(&resource, &name).map(Value::String),
        };
        last = match answer {
            Ok(answer) => json!({"ok": answer}),
            Err(error) => json!({"error": format!("{error:?}")}),
        };
    }
    last
}

pub(crate) fn files_of(config: &Value) -> Value {
    let path = text(config, "path");
    let mut last = Value::Null;
    for _ in 0..times(config) {
        last = if config["list"] == json!(true) {
            match files::list_directory(path) {
                Ok(entries) => json!(
                    entries
                        .iter()
                        .map(|e| format!("{} {} {}", e.name, e.is_directory, e.size_bytes))
                        .collect::<Vec<_>>()
                ),
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        } else {
            match files::read(path) {
                Ok(bytes) => json!({"ok": String::from_utf8_lossy(&bytes)}),
                Err(error) => json!({"error": format!("{error:?}")}),
            }
        };
    }
    last
}

pub(crate) fn event_of(config: &Value) -> Value {
    let answers: Vec<String> = (0..times(config))
        .map(|n| {
            let message = match text(config, "message") {
                "huge" => "x".repeat(100_000),
                message => format!("{message}{n}"),
            };
            let answer = event::emit(EventType::Normal, text(config, "reason"), &message);
            format!("{answer:?}")
        })
        .collect();
    json!(answers)
}

/// Puts a handle, and what it can make of it, everywhere where somebody could read it.
pub(crate) fn show_handle(config: &Value) -> Result<Value, Failure> {
    let asked = SecretKey {
        namespace: None,
        name: text(config, "name").to_owned(),
        key: text(config, "key").to_owned(),
    };
    let shown = match secret::open(&asked) {
        Ok(handle) => format!("handle={handle} {handle:?}"),
        Err(error) => format!("{error:?}"),
    };
    emit(Level::Warn, &shown, &[("handle".to_owned(), shown.clone())]);
    eprintln!("{shown}");
    let _ = event::emit(EventType::Normal, "Shown", &shown);
    let url = format!("{}/{}", text(config, "url"), shown.replace(' ', "/"));
    let answer = send(&request("GET", &url, Vec::new(), None));
    Ok(json!({"shown": shown, "status": answer.ok().map(|a| a.status)}))
}
