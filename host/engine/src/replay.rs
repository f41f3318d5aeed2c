//! Calls whose input is JSON: made for somebody who tries a plugin, or made again as a record says, without anything outside.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_core::call::Mode;
use serde_json::{Map, Value};

use crate::abi::Abi;
use crate::abi::v0_1;
use crate::call::{CallEnv, CallFacts, Replay};
use crate::error::CallError;
use crate::limit::Limits;
use crate::load::{Body, Loaded};
use crate::secret::SecretTable;
use crate::stats::Function;
use crate::tape::{CallRecord, RecordSink};

/// What is asked: parameters by name, with the fields of `wit/v0.1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Which function.
    pub function: Function,
    /// Its parameters.
    pub parameters: Value,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Everything that happened, with whatever the guest answered.
    pub record: CallRecord,
    /// Whether a host would use the answer.
    pub result: Result<(), CallError>,
}

/// Parameters of a function, to begin with.
#[must_use]
pub fn example(function: Function) -> Value {
    let examples: Value = serde_json::from_str(v0_1::raw::EXAMPLES).unwrap_or_default();
    examples
        .get(function.as_str())
        .cloned()
        .unwrap_or_else(|| Value::Object(Map::new()))
}

impl Question {
    /// Parameters of which the rest is taken from the [`example`]. Objects may stand where the interface has JSON as text, and
    /// fields may be written in any of the usual ways. Where there is one parameter, its name may be left out.
    ///
    /// # Errors
    /// Names the field that the function does not have.
    pub fn completed(function: Function, given: Value) -> Result<Self, String> {
        let mut parameters = example(function);
        let names: Vec<String> = parameters
            .as_object()
            .map(|all| all.keys().cloned().collect())
            .unwrap_or_default();
        let has_names = given
            .as_object()
            .is_some_and(|given| given.keys().any(|key| names.contains(key)));
        let given = match names.first() {
            Some(first) if !has_names => Value::Object(Map::from_iter([(first.clone(), given)])),
            _ => given,
        };
        merge("", &mut parameters, given)?;
        Ok(Self {
            function,
            parameters,
        })
    }

    fn context(&self) -> Option<&Value> {
        let of = |pointer| self.parameters.pointer(pointer);
        of("/input/context").or_else(|| of("/input/control_plane/context"))
    }

    /// What the engine has to know of it.
    fn facts(&self, replay: Option<Replay>) -> CallFacts {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64);
        let facts = self.parameters.get("facts");
        let of = |name: &str| self.context().or(facts).and_then(|all| all.get(name));
        let now_ms = number(of("now_ms")).unwrap_or_default();
        let deadline = number(of("deadline_ms")).map_or(Duration::MAX, |deadline| {
            Duration::from_millis(deadline.saturating_sub(now_ms))
        });
        let seed = of("idempotency_key").or_else(|| of("deployment"));
        let is_plan = of("mode").and_then(Value::as_str) == Some("Plan");
        CallFacts {
            now_ms,
            deadline,
            mode: if is_plan { Mode::Plan } else { Mode::Apply },
            seed: seed.and_then(Value::as_str).unwrap_or_default().to_owned(),
            replay,
            tried: true,
        }
    }
}

/// Puts what was given over the example, field by field as far as the example knows them.
fn merge(path: &str, known: &mut Value, given: Value) -> Result<(), String> {
    match (known, given) {
        (Value::Object(known), Value::Object(given)) => {
            for (key, value) in given {
                let name = snake(&key);
                let at = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let fields = known.keys().cloned().collect::<Vec<_>>().join(", ");
                let field = known
                    .get_mut(&name)
                    .ok_or_else(|| format!("{at}: no such field; there are {fields}"))?;
                merge(&at, field, value)?;
            }
        }
        (Value::String(known), given @ (Value::Object(_) | Value::Array(_))) => {
            // A field that the interface has as text of JSON: objects are put over the example's.
            let mut object: Value = serde_json::from_str(known).unwrap_or_default();
            over(&mut object, given);
            *known = object.to_string();
        }
        (known, given) => *known = given,
    }
    Ok(())
}

/// Puts one Kubernetes object over another.
fn over(known: &mut Value, given: Value) {
    match (known, given) {
        (Value::Object(known), Value::Object(given)) => {
            for (key, value) in given {
                over(known.entry(key).or_insert(Value::Null), value);
            }
        }
        (known, given) => *known = given,
    }
}

/// `infraMachine` and `infra-machine` as `infra_machine`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match letter {
            '-' => text.push('_'),
            'A'..='Z' => {
                text.push('_');
                text.push(letter.to_ascii_lowercase());
            }
            other => text.push(other),
        }
    }
    text
}

/// Catches the one record of a call.
#[derive(Default)]
struct Caught(Mutex<Option<CallRecord>>);

impl RecordSink for Caught {
    fn keep(&self, record: CallRecord) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }
}

impl Loaded {
    /// Makes a call for somebody who looks at all of it.
    ///
    /// # Errors
    /// When the call could not be made at all.
    pub async fn try_call(&self, env: CallEnv, question: Question) -> Result<Tried, CallError> {
        let env = self.granted(question.function, env)?;
        self.caught(env, question, None).await
    }

    /// Makes a recorded call again: imports are answered from the record, nothing outside is touched.
    ///
    /// # Errors
    /// When the call could not be made at all, such as by a plugin of another kind.
    pub async fn replay(&self, record: &CallRecord) -> Result<Tried, CallError> {
        let bad = |rule: String| CallError::BadInput { rule };
        let function = Function::named(&record.function)
            .ok_or_else(|| bad(format!("function: there is no {}", record.function)))?;
        if record.wit != self.abi() {
            return Err(bad(format!(
                "wit: the record is of version {}, the component of {}",
                record.wit,
                self.abi()
            )));
        }
        let mut secrets = SecretTable::new();
        for bytes in &record.secrets {
            let bytes = (*bytes).min(crate::limit::SECRET_BYTES_MAX);
            secrets.add(vec![b'*'; bytes]);
        }
        let env = CallEnv {
            secrets,
            limits: Limits::ceilings(),
            ..CallEnv::new(record.plugin.clone(), record.object.clone())
        };
        let question = Question {
            function,
            parameters: record.input.clone(),
        };
        let replay = Replay {
            seed: record.seed.clone(),
            imports: record.imports.clone(),
        };
        self.caught(env, question, Some(replay)).await
    }

    async fn caught(
        &self,
        env: CallEnv,
        question: Question,
        replay: Option<Replay>,
    ) -> Result<Tried, CallError> {
        let caught = Arc::new(Caught::default());
        let facts = question.facts(replay);
        let Question {
            function,
            parameters,
        } = question;
        let env = CallEnv {
            recorder: Some(caught.clone()),
            ..env
        };
        let Body::Component(prepared) = &self.body else {
            let interface = "component";
            return Err(CallError::NotOffered { interface });
        };
        let result = match prepared.abi.clone() {
            Abi::V0_1(roles) => {
                prepared
                    .call(function, env, facts, move |store, instance, wall| {
                        v0_1::raw::ask_raw(roles, store, instance, wall, function, parameters)
                    })
                    .await
            }
        };
        let record = caught
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (record, result) {
            (Some(record), result) => Ok(Tried { record, result }),
            // It was never begun, or dropped at its deadline.
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(CallError::Host {
                why: "the call has left no record".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_comes_from_the_example() {
        let given = json!({"infraMachine": {"spec": {"size": "small"}}, "cluster-deleting": true});
        let question = Question::completed(Function::EnsureMachine, given).unwrap();
        let input = &question.parameters["input"];
        assert_eq!(input["cluster_deleting"], true);
        let machine: Value =
            serde_json::from_str(input["infra_machine"].as_str().unwrap()).unwrap();
        assert_eq!(machine["spec"]["size"], "small");
        assert_eq!(machine["metadata"]["name"], "example-1");
        let wrong = Question::completed(Function::EnsureMachine, json!({"machin": {}}));
        assert!(
            wrong
                .unwrap_err()
                .starts_with("input.machin: no such field")
        );
    }

    #[test]
    fn there_is_an_example_of_every_function() {
        for function in Function::ALL {
            assert!(example(function).is_object(), "{function:?}");
            assert_eq!(Function::named(function.as_str()), Some(function));
            assert!(function == Function::Describe || example(function) != json!({}));
        }
    }
}
