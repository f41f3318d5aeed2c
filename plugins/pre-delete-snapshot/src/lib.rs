//! pre-delete-snapshot: asks the infrastructure's API for a snapshot before a machine goes, and waits until it is there.

mod text;

use std::time::Duration;

use capstan_sdk::http::{Request, Response};
use capstan_sdk::log;
use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::{CapabilityRequest, Failure, Manifest, Plugin};
use serde::Deserialize;

use text::Values;

/// Snapshots take minutes.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The operator's settings. Texts may hold placeholders: see the README.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Address of the snapshot itself: it is looked for there, and watched.
    pub url: String,
    /// How it is asked for.
    #[serde(default)]
    pub create: Create,
    /// How it says that it is finished.
    #[serde(default)]
    pub state: State,
    /// Name of a granted credential that the host adds.
    pub credential: Option<String>,
    /// How long a request may take; the host's default when absent.
    pub timeout_seconds: Option<u64>,
}

/// How a snapshot is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Create {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// Where; the snapshot's own address when absent.
    pub url: Option<String>,
    /// The body, as JSON.
    #[serde(default)]
    pub body: Value,
}

/// Methods that create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// The address names what is made.
    #[default]
    Put,
    /// The address names where it is made.
    Post,
}

/// How a snapshot says that it is finished.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// JSON pointer to the word.
    pub pointer: String,
    /// Words that mean that it is there.
    pub ready: Vec<String>,
    /// Words that mean that it will never be.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            pointer: "/state".to_owned(),
            ready: vec!["available".to_owned()],
            failed: vec!["failed".to_owned()],
        }
    }
}

/// The hook.
pub struct TakeSnapshot;

impl Plugin for TakeSnapshot {
    fn manifest() -> Manifest {
        Manifest::new("pre-delete-snapshot", env!("CARGO_PKG_VERSION"))
            .description("Asks the infrastructure for a snapshot before a machine goes.")
            .asks_for(
                CapabilityRequest::http("Asks the infrastructure's API for the snapshot.").suggest(
                    json!({
                        "capability": "http",
                        "http": {"origins": [
                            {"origin": "https://cloud.example.org", "methods": ["GET", "PUT", "POST"]},
                        ]},
                    }),
                ),
            )
    }
}

impl PreDeleteHook for TakeSnapshot {
    type Settings = Settings;

    fn run(input: HookInput<Settings>) -> Result<Verdict, Failure> {
        let values = Values::of(&input)?;
        let settings = &input.settings;
        let url = values.url(&settings.url)?;
        let found = send(settings, Request::get(&url))?;
        log::info!("looked"; "status" => found.status, "snapshot" => &values.name);
        match found.status {
            200 => look(settings, &values.name, &found),
            404 | 410 => create(settings, &values, &url, &input.context.idempotency_key),
            _ => Err(refused("looking for the snapshot", &found)),
        }
    }
}

capstan_sdk::export_pre_delete_hook!(TakeSnapshot);

fn send(settings: &Settings, mut request: Request) -> Result<Response, Failure> {
    if let Some(credential) = &settings.credential {
        request = request.credential(credential);
    }
    if let Some(seconds) = settings.timeout_seconds {
        request = request.timeout(Duration::from_secs(seconds));
    }
    Ok(request.send()?)
}

/// How far the snapshot is.
fn look(settings: &Settings, name: &str, found: &Response) -> Result<Verdict, Failure> {
    let state = &settings.state;
    let body: Value = found.json()?;
    let word = body.pointer(&state.pointer).and_then(Value::as_str);
    let Some(word) = word else {
        let message = format!(
            "state.pointer: the answer about snapshot {name} has no text at {}",
            state.pointer
        );
        return Err(Failure::terminal("SettingsInvalid", message));
    };
    let is_among = |words: &[String]| words.iter().any(|other| other == word);
    if is_among(&state.ready) {
        return Ok(Verdict::Proceed);
    }
    if is_among(&state.failed) {
        let message = format!(
            "snapshot {name} is {word}: find out why, and delete it to have it taken again"
        );
        return Err(Failure::terminal("SnapshotFailed", message));
    }
    let message = format!("snapshot {name} is {word}: the infrastructure is taking it");
    Ok(Verdict::waiting("SnapshotNotReady", message, LOOK_AGAIN))
}

fn create(
    settings: &Settings,
    values: &Values,
    url: &str,
    idempotency_key: &str,
) -> Result<Verdict, Failure> {
    let create = &settings.create;
    let url = match &create.url {
        Some(url) => values.url(url)?,
        None => url.to_owned(),
    };
    let request = match create.method {
        Method::Put => Request::put(url),
        Method::Post => Request::post(url),
    };
    let request = request
        .json(&values.json(&create.body)?)
        // An answer that was lost must not mean two snapshots, whatever the API makes of names.
        .header("idempotency-key", idempotency_key);
    let answer = send(settings, request)?;
    match answer.status {
        200..=299 | 409 => {
            let message = format!("snapshot {} has been asked for", values.name);
            Ok(Verdict::waiting("SnapshotRequested", message, LOOK_AGAIN))
        }
        _ => Err(refused("asking for the snapshot", &answer)),
    }
}

/// A status that nothing follows from.
fn refused(doing: &str, response: &Response) -> Failure {
    let status = response.status;
    let message = format!("{doing}: the infrastructure's API answered with status {status}");
    let failure = match status {
        408 | 429 | 500.. => Failure::transient("InfrastructureFailed", message),
        _ => Failure::terminal("InfrastructureRefused", message),
    };
    let after = response.retry_after();
    after.into_iter().fold(failure, Failure::retry_after)
}

#[cfg(test)]
mod tests;
