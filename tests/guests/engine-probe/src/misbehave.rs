//! What the probe does whatever function was called.

use serde_json::{Value, json};

use crate::capstan::plugin::http::{Error as HttpError, send};
use crate::capstan::plugin::log::{Level, emit, enabled};
use crate::capstan::plugin::state::{get, put};
use crate::capstan::plugin::types::Failure;
use crate::reach::{event_of, files_of, http, request, secret_of, show_handle, workload_of};
use crate::world::{ambient, leak_handles, look_back, recurse, remember, timer};
use crate::{behaviour, failure, text};

/// What does not depend on the function that was called. Answers a note for the status.
pub(crate) fn misbehave(config: &Value, bootstrap: Option<u64>) -> Result<Value, Failure> {
    match behaviour().as_str() {
        "traps" => panic!("this version traps"),
        "fails" => return Err(failure("ProbeFailed", "this version fails")),
        _ => {}
    }
    match text(config, "do") {
        "trap" => panic!("the probe was told to trap"),
        "spin" => {
            emit(Level::Warn, "spins", &[]);
            loop {
                core::hint::spin_loop();
            }
        }
        "hog" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(vec![1; 1 << 20]);
                core::hint::black_box(&kept);
            }
        }
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(3600));
            Ok(Value::Null)
        }
        "flood" => {
            for _ in 0..64 {
                emit(
                    Level::Info,
                    &"x".repeat(8 * 1024),
                    &[("k".to_owned(), "v".to_owned())],
                );
            }
            Ok(json!(enabled(Level::Error)))
        }
        "recurse" => Ok(json!(recurse(1))),
        "retry" => retry(config),
        "leak-handles" => leak_handles(),
        "remember" => Ok(remember()),
        "look-back" => Ok(look_back(config)),
        "timer" => Ok(timer()),
        "show-handle" => show_handle(config),
        "fail" => Err(failure("ProbeFailed", "the probe was told to fail")),
        "fail-oddly" => Err(failure("not camel case", "the probe was told to fail")),
        "http" => http(config, bootstrap),
        "http-many" => {
            let count = config.get("count").and_then(Value::as_u64).unwrap_or(0);
            let mut refused = 0;
            for _ in 0..count {
                if matches!(
                    send(&request("GET", text(config, "url"), Vec::new(), None)),
                    Err(HttpError::Limit(_))
                ) {
                    refused += 1;
                }
            }
            Ok(json!(refused))
        }
        "state" => {
            let before = get();
            let answer = put(text(config, "value").as_bytes());
            let after = get();
            Ok(json!({
                "before": before.map(|b| String::from_utf8_lossy(&b).into_owned()),
                "put": format!("{answer:?}"),
                "after": after.map(|b| String::from_utf8_lossy(&b).into_owned()),
            }))
        }
        "secret" => Ok(secret_of(config)),
        "workload" => Ok(workload_of(config)),
        "files" => Ok(files_of(config)),
        "event" => Ok(event_of(config)),
        "state-huge" => Ok(json!(format!("{:?}", put(&vec![0; 65 * 1024])))),
        "ambient" => Ok(ambient()),
        _ => Ok(Value::Null),
    }
}

/// Asks the host for the same thing for ever, whatever it says.
fn retry(config: &Value) -> Result<Value, Failure> {
    let mut refused = 0_u64;
    loop {
        match text(config, "what") {
            "http" => {
                let answer = send(&request("GET", text(config, "url"), Vec::new(), None));
                refused += u64::from(answer.is_err());
            }
            "state" => refused += u64::from(put(&refused.to_le_bytes()).is_err()),
            "log" => emit(Level::Info, "again", &[]),
            "secret" => refused += u64::from(!secret_of(config).is_null()),
            "event" => refused += u64::from(!event_of(config).is_null()),
            "workload" => refused += u64::from(!workload_of(config).is_null()),
            "files" => refused += u64::from(!files_of(config).is_null()),
            other => return Err(failure("ProbeFailed", other)),
        }
        core::hint::black_box(refused);
    }
}
