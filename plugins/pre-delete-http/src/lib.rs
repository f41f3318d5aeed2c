//! pre-delete-http: asks an HTTP endpoint whether a machine may be deleted.

use std::time::Duration;

use capstan_sdk::http::{Request, Response};
use capstan_sdk::log;
use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::serde_json::{Value, json};
use capstan_sdk::{CapabilityRequest, Failure, Manifest, Plugin};
use serde::Deserialize;

/// When the endpoint does not say when to ask again.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// The host's bounds for a wait.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(600);
/// What is shown of the endpoint's message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The operator's settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Where to ask.
    pub url: String,
    /// Name of a granted credential that the host adds.
    pub credential: Option<String>,
    /// How long the endpoint may take; the host's default when absent.
    pub timeout_seconds: Option<u64>,
}

/// The hook.
pub struct AskHttp;

impl Plugin for AskHttp {
    fn manifest() -> Manifest {
        Manifest::new("pre-delete-http", env!("CARGO_PKG_VERSION"))
            .description("Asks an HTTP endpoint whether a machine may be deleted.")
            .asks_for(
                CapabilityRequest::http("Asks the endpoint that the hook's settings name.")
                    .suggest(json!({
                        "capability": "http",
                        "http": {"origins": [
                            {"origin": "https://hooks.example.org", "methods": ["POST"]},
                        ]},
                    })),
            )
    }
}

impl PreDeleteHook for AskHttp {
    type Settings = Settings;

    fn run(input: HookInput<Settings>) -> Result<Verdict, Failure> {
        let mut request = Request::post(&input.settings.url).json(&question(&input));
        if let Some(credential) = &input.settings.credential {
            request = request.credential(credential);
        }
        if let Some(seconds) = input.settings.timeout_seconds {
            request = request.timeout(Duration::from_secs(seconds));
        }
        let response = request.send()?;
        log::info!("asked"; "status" => response.status, "phase" => input.phase.as_str());
        verdict(&response)
    }
}

capstan_sdk::export_pre_delete_hook!(AskHttp);

fn question(input: &HookInput<Settings>) -> Value {
    json!({
        "phase": input.phase.as_str(),
        "namespace": input.machine.namespace(),
        "cluster": input.cluster.name(),
        "machine": input.machine.name(),
        "node": input.machine.status.node_ref.as_ref().map(|node| &node.name),
    })
}

/// What the endpoint's answer means.
fn verdict(response: &Response) -> Result<Verdict, Failure> {
    match response.status {
        200 | 204 => Ok(Verdict::Proceed),
        202 | 409 | 423 | 425 => {
            let after = response.retry_after().unwrap_or(ASK_AGAIN);
            let after = after.clamp(ASK_AGAIN_MIN, ASK_AGAIN_MAX);
            Ok(Verdict::waiting(
                "EndpointSaysWait",
                message(response),
                after,
            ))
        }
        status => {
            let message = format!("the endpoint answered with status {status}");
            let failure = match status {
                500.. => Failure::transient("EndpointFailed", message),
                _ => Failure::terminal("EndpointRefused", message),
            };
            let after = response.retry_after().filter(|_| status >= 500);
            Err(after.into_iter().fold(failure, Failure::retry_after))
        }
    }
}

/// `message` of a JSON body, cut to a bearable length.
fn message(response: &Response) -> String {
    #[derive(Deserialize)]
    struct Body {
        message: String,
    }
    match response.json::<Body>() {
        Ok(Body { mut message }) => {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            format!("the endpoint says: {message}")
        }
        Err(_) => format!("the endpoint answered with status {}", response.status),
    }
}

#[cfg(test)]
mod tests {
    //! One question per kind of answer, against the SDK's fake host.

    use super::*;
    use capstan_sdk::FailureKind;
    use capstan_sdk::http::Error;
    use capstan_sdk::pre_delete_hook::Phase;
    use capstan_sdk::testing::{Host, hook_input};

    fn settings() -> Settings {
        Settings {
            url: "https://hooks.example.org/delete".to_owned(),
            credential: Some("hooks".to_owned()),
            timeout_seconds: Some(5),
        }
    }

    fn ask(response: Response) -> (Result<Verdict, Failure>, Request) {
        let host = Host::scripted([response]);
        let verdict = AskHttp::run(hook_input(Phase::PreDrain, settings()).unwrap());
        (verdict, host.requests().remove(0))
    }

    #[test]
    fn asks_about_the_machine_with_the_credential() {
        let (verdict, request) = ask(Response::new(204));
        assert_eq!(verdict.unwrap(), Verdict::Proceed);
        assert_eq!(request.method, "POST");
        assert_eq!(request.credential.as_deref(), Some("hooks"));
        assert_eq!(request.timeout, Some(Duration::from_secs(5)));
        let asked: Value = capstan_sdk::serde_json::from_str(&request.body_preview()).unwrap();
        let expected = json!({
            "phase": "pre-drain", "namespace": "default", "cluster": "test", "machine": "test-1", "node": null,
        });
        assert_eq!(asked, expected);
    }

    #[test]
    fn waits_as_long_as_the_endpoint_says() {
        let response = Response::new(423)
            .with_json(&json!({"message": "backup is running"}))
            .with_header("Retry-After", "40");
        let expected = Verdict::waiting(
            "EndpointSaysWait",
            "the endpoint says: backup is running",
            Duration::from_secs(40),
        );
        assert_eq!(ask(response).0.unwrap(), expected);
    }

    #[test]
    fn waits_without_a_message_too() {
        for status in [202, 409, 425] {
            let verdict = ask(Response::new(status)).0.unwrap();
            assert!(matches!(verdict, Verdict::Waiting(w) if w.check_after == ASK_AGAIN));
        }
    }

    #[test]
    fn tries_again_when_the_endpoint_is_broken() {
        let response = Response::new(503).with_header("retry-after", "7");
        let failure = ask(response).0.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Transient);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn gives_up_when_the_endpoint_refuses_the_question() {
        assert_eq!(
            ask(Response::new(404)).0.unwrap_err().kind,
            FailureKind::Terminal
        );
        assert_eq!(
            ask(Response::new(301)).0.unwrap_err().kind,
            FailureKind::Terminal
        );
    }

    #[test]
    fn says_what_is_not_granted() {
        let _host = Host::serving(|_| Err(Error::Denied("https://hooks.example.org".to_owned())));
        let input = hook_input(Phase::PreTerminate, settings()).unwrap();
        assert_eq!(AskHttp::run(input).unwrap_err().kind, FailureKind::Denied);
    }
}
