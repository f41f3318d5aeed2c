//! What happens in one call, as JSON: kept for a record, or answered from one. Everything that a guest can learn comes through here
//! or from the record's own input, so that a replay is the same call.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{CallError, HostTrouble};
use crate::limit::{RECORD_BYTES_MAX, RECORD_EXCHANGES_MAX, RECORD_VALUE_BYTES_MAX};
use crate::secret::SecretTable;
use crate::stats::Function;
use crate::trace::CallId;

/// How records of this form are marked.
pub const RECORD_FORM: &str = "capstan.dev/call-record/v1";

/// One call: everything that went in and came out. Secrets are in it by handle only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallRecord {
    /// [`RECORD_FORM`].
    pub form: String,
    /// Name of the Plugin object.
    pub plugin: String,
    /// Kind, namespace and name of the object that the call was about.
    pub object: String,
    /// Digest of the component that answered.
    pub digest: String,
    /// Which call it was, as log lines and traces name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Version of the interfaces, such as `0.1`: it says what the fields are.
    pub wit: String,
    /// As in the WIT interfaces.
    pub function: String,
    /// What the call's randomness is made of.
    pub seed: String,
    /// Bytes of each secret that came with the input; the first has the handle 1.
    pub secrets: Vec<usize>,
    /// The function's parameters by name.
    pub input: Value,
    /// Every import that was called, in order.
    pub imports: Vec<Exchange>,
    /// What came of it.
    pub outcome: RecordedOutcome,
    /// Why the record is not whole and cannot be replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// One import that was called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Interface and function, such as `http.send`.
    pub import: String,
    /// Its parameters.
    pub request: Value,
    /// What the host answered.
    pub answer: Value,
}

/// How a call ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedOutcome {
    /// What the guest returned: `Ok` or `Err` and its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// Why there is nothing to use: a trap, a limit, an answer that breaks a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Takes the records of calls.
pub trait RecordSink: Send + Sync {
    /// Keeps one. What cannot be kept is the sink's to say: a record is never a reason to fail.
    fn keep(&self, record: CallRecord);
}

/// What a call does with what goes through it.
#[derive(Default)]
pub(crate) enum Tape {
    /// Nothing.
    #[default]
    Off,
    /// Keeps it.
    Recording(Box<Track>),
    /// Answers imports from a record, and keeps what is asked now.
    Replaying(Box<Track>, Vec<Exchange>),
}

/// What has gone through.
#[derive(Default)]
pub(crate) struct Track {
    input: Map<String, Value>,
    imports: Vec<Exchange>,
    answer: Option<Value>,
    bytes: usize,
    incomplete: Option<String>,
    tried: bool,
    /// Bytes that must not be in a record, beside those of the call's secrets.
    hidden: Vec<Vec<u8>>,
}

/// What an import does.
pub(crate) enum Asked {
    /// It is done; the request is kept when there is somebody who keeps it.
    Go(Option<Value>),
    /// It was done once, with this answer.
    Known(Value),
}

impl Tape {
    /// A tape that keeps what goes through, for a file or for somebody who is there.
    pub(crate) fn recording(tried: bool) -> Self {
        Self::Recording(Box::new(Track {
            tried,
            ..Track::default()
        }))
    }

    /// Nobody listens.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// A value as JSON, as far as a record may hold it.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Value {
        self.track().map_or(Value::Null, |track| track.value(value))
    }

    fn track(&mut self) -> Option<&mut Track> {
        match self {
            Self::Off => None,
            Self::Recording(track) | Self::Replaying(track, _) => Some(track),
        }
    }

    /// The parameters of the exported function.
    pub(crate) fn heard(&mut self, name: &str, value: &impl Serialize) {
        if let Some(track) = self.track() {
            let value = track.value(value);
            track.input.insert(name.to_owned(), value);
        }
    }

    /// What the exported function returned.
    pub(crate) fn answered(&mut self, value: &impl Serialize) {
        if let Some(track) = self.track() {
            track.answer = Some(track.value(value));
        }
    }

    /// The guest calls an import.
    pub(crate) fn asks(&mut self, import: &str, request: Value) -> Result<Asked, HostTrouble> {
        let (track, pending) = match self {
            Self::Off => return Ok(Asked::Go(None)),
            Self::Recording(_) => return Ok(Asked::Go(Some(request))),
            Self::Replaying(track, pending) => (track, pending),
        };
        let place = pending
            .iter()
            .position(|known| known.import == import && known.request == request);
        let answer = match place {
            Some(place) => pending.remove(place).answer,
            // What a newer build logs is a difference, and no reason to stop.
            None => match import {
                "log.enabled" => Value::Bool(true),
                "log.emit" => Value::Null,
                "event.emit" => json!({"Ok": null}),
                _ => {
                    track.exchange(import, request.clone(), Value::Null);
                    return Err(HostTrouble(format!(
                        "the record has no answer for {import} {request}"
                    )));
                }
            },
        };
        track.exchange(import, request, answer.clone());
        Ok(Asked::Known(answer))
    }

    /// The host has answered an import.
    pub(crate) fn answers(
        &mut self,
        import: &str,
        request: Option<Value>,
        answer: &impl Serialize,
    ) {
        if let (Some(request), Self::Recording(track)) = (request, self) {
            let answer = track.value(answer);
            track.exchange(import, request, answer);
        }
    }

    /// Something happened that must not be written down.
    pub(crate) fn must_not_keep(&mut self, why: &str) {
        if let Self::Recording(track) = self
            && !track.tried
        {
            track.incomplete.get_or_insert_with(|| why.to_owned());
        }
    }

    /// These bytes go into requests on the host's side: they must not come back in a record.
    pub(crate) fn hide(&mut self, bytes: &[u8]) {
        if let Self::Recording(track) = self {
            track.hidden.push(bytes.to_vec());
        }
    }

    /// The record of the call; none when nobody asked for one.
    pub(crate) fn finish(
        self,
        about: About<'_>,
        secrets: &SecretTable,
        error: Option<&CallError>,
    ) -> Option<CallRecord> {
        let (mut track, is_replay) = match self {
            Self::Off => return None,
            Self::Recording(track) => (*track, false),
            Self::Replaying(track, _) => (*track, true),
        };
        if track.incomplete.is_some() {
            track.input.clear();
            track.imports.clear();
            track.answer = None;
        }
        let error = error.filter(|error| !matches!(error, CallError::Plugin(_)));
        let mut record = CallRecord {
            form: RECORD_FORM.to_owned(),
            plugin: about.plugin.to_owned(),
            object: about.object.to_owned(),
            digest: about.digest.to_owned(),
            call_id: (!is_replay).then(|| about.call.to_string()),
            wit: about.wit.to_owned(),
            function: about.function.as_str().to_owned(),
            seed: about.seed,
            secrets: secrets.given_sizes(),
            input: Value::Object(track.input),
            imports: track.imports,
            outcome: RecordedOutcome {
                answer: track.answer,
                error: error.map(ToString::to_string),
            },
            incomplete: track.incomplete,
        };
        if !is_replay {
            let hide = Hide {
                secrets,
                others: &track.hidden,
            };
            redact(&mut record.input, &hide);
            for exchange in &mut record.imports {
                redact(&mut exchange.request, &hide);
                redact(&mut exchange.answer, &hide);
            }
            if let Some(answer) = &mut record.outcome.answer {
                redact(answer, &hide);
            }
            record.outcome.error = record.outcome.error.map(|error| hide.text(&error));
        }
        Some(record)
    }
}

/// Whose call it was.
pub(crate) struct About<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) object: &'a str,
    pub(crate) call: CallId,
    pub(crate) digest: &'a str,
    pub(crate) wit: &'static str,
    pub(crate) function: Function,
    pub(crate) seed: String,
}

impl Track {
    /// The value as JSON, within what a record may hold.
    fn value(&mut self, value: &impl Serialize) -> Value {
        let mut limited = Limited(Vec::new());
        if serde_json::to_writer(&mut limited, value).is_err() {
            let why = format!("a value has more than {RECORD_VALUE_BYTES_MAX} bytes of JSON");
            self.incomplete.get_or_insert(why);
            return Value::Null;
        }
        self.bytes = self.bytes.saturating_add(limited.0.len());
        if self.bytes > RECORD_BYTES_MAX {
            let why = format!("the call has more than {RECORD_BYTES_MAX} bytes of JSON");
            self.incomplete.get_or_insert(why);
            return Value::Null;
        }
        serde_json::from_slice(&limited.0).map_or(Value::Null, readable)
    }

    fn exchange(&mut self, import: &str, request: Value, answer: Value) {
        if self.imports.len() >= RECORD_EXCHANGES_MAX {
            let why = format!("the call uses imports more than {RECORD_EXCHANGES_MAX} times");
            self.incomplete.get_or_insert(why);
            return;
        }
        self.imports.push(Exchange {
            import: import.to_owned(),
            request,
            answer,
        });
    }
}

/// A buffer that refuses to grow over what one value may have.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > RECORD_VALUE_BYTES_MAX {
            return Err(io::Error::other("too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Under this name a record has bytes that are text.
const TEXT: &str = "utf8";
/// Under this name a record has bytes that are not.
const BYTES: &str = "base64";

/// Lists of bytes as text where they are text, and in base64 otherwise.
fn readable(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let bytes: Option<Vec<u8>> = items
                .iter()
                .map(|item| item.as_u64().and_then(|n| u8::try_from(n).ok()))
                .collect();
            match bytes.filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => json!({TEXT: text}),
                    Err(error) => json!({BYTES: encode(error.as_bytes())}),
                },
                None => Value::Array(items.into_iter().map(readable).collect()),
            }
        }
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, readable(value)))
                .collect(),
        ),
        other => other,
    }
}

/// The same backwards.
pub(crate) fn exact(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(exact).collect()),
        Value::Object(fields) => {
            if fields.len() == 1 {
                let text = fields.get(TEXT).and_then(Value::as_str);
                if let Some(text) = text {
                    return json!(text.as_bytes());
                }
                let bytes = fields.get(BYTES).and_then(Value::as_str).and_then(decode);
                if let Some(bytes) = bytes {
                    return json!(bytes);
                }
            }
            Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name, exact(value)))
                    .collect(),
            )
        }
        other => other,
    }
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// What must not be in a record.
struct Hide<'a> {
    secrets: &'a SecretTable,
    others: &'a [Vec<u8>],
}

impl Hide<'_> {
    fn text(&self, text: &str) -> String {
        self.secrets.redact_all(text, self.others)
    }

    /// Bytes as a record has them.
    fn encoded(&self, bytes: &[u8]) -> String {
        encode(&self.secrets.redact_bytes(bytes, self.others))
    }
}

/// Takes secrets out of every text, every name and all bytes of a value.
fn redact(value: &mut Value, hide: &Hide<'_>) {
    match value {
        Value::String(text) => *text = hide.text(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, hide)),
        Value::Object(fields) => {
            let bytes = (fields.len() == 1)
                .then(|| fields.get(BYTES).and_then(Value::as_str).and_then(decode))
                .flatten();
            if let Some(bytes) = bytes {
                fields.insert(BYTES.to_owned(), Value::String(hide.encoded(&bytes)));
                return;
            }
            let before = std::mem::take(fields);
            for (name, mut value) in before {
                redact(&mut value, hide);
                let mut name = hide.text(&name);
                // Two secrets of one length are two names all the same.
                while fields.contains_key(&name) {
                    name.push('*');
                }
                fields.insert(name, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl CallRecord {
    /// A record from a file's text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let record: Self =
            serde_json::from_slice(text).map_err(|error| format!("not a record: {error}"))?;
        if record.form != RECORD_FORM {
            return Err(format!("form is {:?}, not {RECORD_FORM}", record.form));
        }
        if let Some(why) = &record.incomplete {
            return Err(format!("the record is not whole: {why}"));
        }
        Ok(record)
    }

    /// Where another record of the same call differs in what the plugin did: path, here, there. Empty when it did the same.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let both = |record: &Self| {
            let imports: Vec<Value> = record
                .imports
                .iter()
                .map(|exchange| json!({"import": exchange.import, "request": exchange.request}))
                .collect();
            json!({
                "imports": imports,
                "answer": record.outcome.answer,
                "error": record.outcome.error,
            })
        };
        compare("", &both(self), &both(other), &mut found);
        found
    }
}

/// One place where two records differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Such as `answer.Ok.progress`.
    pub path: String,
    /// What is in the record; `null` where there is nothing.
    pub recorded: String,
    /// What it is now.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, self.recorded, self.now)
    }
}

/// The value that a text of JSON stands for: objects cross the interfaces as text.
fn parsed(value: &Value) -> Option<Value> {
    let text = value.as_str()?;
    let is_json = text.starts_with(['{', '[']);
    is_json.then(|| serde_json::from_str(text).ok()).flatten()
}

fn compare(path: &str, a: &Value, b: &Value, found: &mut Vec<Difference>) {
    if a == b || found.len() >= RECORD_EXCHANGES_MAX {
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (a, b) {
        (Value::Object(first), Value::Object(second)) => {
            let mut names: Vec<&String> = first.keys().chain(second.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let (a, b) = (first.get(name), second.get(name));
                compare(
                    &below(name),
                    a.unwrap_or(&Value::Null),
                    b.unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        (Value::Array(first), Value::Array(second)) => {
            for place in 0..first.len().max(second.len()) {
                let (a, b) = (first.get(place), second.get(place));
                compare(
                    &format!("{path}[{place}]"),
                    a.unwrap_or(&Value::Null),
                    b.unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        _ => match (parsed(a), parsed(b)) {
            (Some(first), Some(second)) if first != second => compare(path, &first, &second, found),
            _ => found.push(Difference {
                path: path.to_owned(),
                recorded: a.to_string(),
                now: b.to_string(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_are_redacted_as_texts_are() {
        let mut secrets = SecretTable::new();
        secrets.add(b"hunter2-hunter2".to_vec());
        let others = [b"hunter3-hunter3".to_vec()];
        let hide = Hide {
            secrets: &secrets,
            others: &others,
        };
        let body = encode(b"\xffhunter2-hunter2");
        let mut value = json!({"hunter2-hunter2": 1, "hunter3-hunter3": {"base64": body}, "a": "hunter3-hunter3"});
        redact(&mut value, &hide);
        assert_eq!(
            value,
            json!({"[secret]*******": 1, "[secret]********": {"base64": encode(b"\xff[secret]*******")}, "a": "[secret]*******"})
        );
    }

    #[test]
    fn bytes_are_readable_and_come_back_exactly() {
        for value in [
            json!({"body": [104, 105], "more": [255, 0], "none": [], "list": [[1, "a"]]}),
            json!([["a", "b"], 300]),
        ] {
            assert_eq!(exact(readable(value.clone())), value);
        }
        assert_eq!(readable(json!([104, 105])), json!({"utf8": "hi"}));
        assert_eq!(readable(json!([255])), json!({"base64": "/w=="}));
    }

    #[test]
    fn differences_are_named_also_inside_of_json_text() {
        let mut found = Vec::new();
        let a = json!({"status": "{\"size\":\"small\"}", "list": [1]});
        let b = json!({"status": "{\"size\":\"large\"}", "list": [1, 2]});
        compare("", &a, &b, &mut found);
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["list[1]: null -> 2", "status.size: \"small\" -> \"large\""]
        );
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut tape = Tape::Recording(Box::default());
        tape.heard("input", &"x".repeat(RECORD_VALUE_BYTES_MAX));
        let about = About {
            plugin: "p",
            object: "o",
            call: crate::trace::CallIds::default().next(),
            digest: "d",
            wit: "0.1",
            function: Function::Render,
            seed: String::new(),
        };
        let record = tape.finish(about, &SecretTable::new(), None).unwrap();
        assert!(record.incomplete.is_some() && record.input == json!({}));
        let text = serde_json::to_vec(&record).unwrap();
        assert!(CallRecord::parse(&text).unwrap_err().contains("not whole"));
    }
}
