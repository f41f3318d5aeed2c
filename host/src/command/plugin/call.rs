//! `capstan plugin call`: one call of one function, with the grants and secrets that are chosen for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use capstan_controllers::plugin::Terms;
use capstan_controllers::plugins::SecretSource as Place;
use capstan_engine::{
    CallEnv, Credential, CredentialSource, FoundSecret, Function, PlannedEffects, Question,
    SecretSource, SecretTable, StateStore, Tried, example,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::component::EngineArgs;
use super::{ANSWER_IS_NO, EXIT_CODES, terms};
use crate::input;
use crate::output::Output;

/// The reason with which the SDK's clients give up a call whose effect was only planned.
const PLANNED: &str = "Planned";

/// The largest input: an object of the API server with its surroundings, several times over.
const INPUT_BYTES_MAX: u64 = 8 << 20;

/// What stands for the bootstrap data of a machine unless a file is named.
const DATA: &[u8] = b"#cloud-config\n# stands for the bootstrap data\n";

/// What to call.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin call acme.wasm describe
  capstan plugin call acme.wasm ensure-machine --example > machine.json
      An input to begin with. Everything that you leave out of it is taken from there again.
  capstan plugin call acme.wasm ensure-machine --input - --grants plugin.yaml --secret acme/token=token.txt <<'END'
  {{\"infraMachine\": {{\"spec\": {{\"size\": \"small\"}}}}}}
  END
      With the grants, config and limits of a Plugin object, and a file for each Secret that its credentials name.
  capstan plugin call acme.wasm delete-machine --input machine.json --grants plugin.yaml --plan
      Effects are listed and none is performed.

Fields are those of wit/v0.1, in any spelling; where it says json, an object may stand. A workload cluster and files of other
objects are not there: the capability `workload` answers that the object belongs to no Cluster.

{EXIT_CODES}"))]
pub(in crate::command) struct CallArgs {
    /// The component.
    file: PathBuf,
    /// A function, such as describe, ensure-machine, render, plan-upgrade or run-hook.
    function: String,
    /// The input as JSON, `-` for standard input.
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A YAML file with a Plugin object, or with its grants, config and limits alone.
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    /// A key of a Secret, and the file with its value.
    #[arg(long, value_name = "NAME/KEY=FILE")]
    secret: Vec<String>,
    /// A file with the bootstrap data, for ensure-machine.
    #[arg(long, value_name = "FILE")]
    bootstrap_data: Option<PathBuf>,
    /// A file that holds the plugin's state of the object: read when it is there, and written.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Perform no effects: list them.
    #[arg(long)]
    plan: bool,
    /// Print an input of the function, and call nothing.
    #[arg(long)]
    example: bool,
    /// Write a record of the call, for `replay` and `test`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(super) async fn run(args: CallArgs) -> anyhow::Result<ExitCode> {
    let Some(function) = Function::named(&args.function) else {
        let names: Vec<&str> = Function::ALL.iter().map(|known| known.as_str()).collect();
        bail!("FUNCTION {}: there are {}", args.function, names.join(", "));
    };
    if args.example {
        let output = match args.output {
            Output::Text => Output::Json,
            other => other,
        };
        output.print(&open(example(function)), String::new)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (spec, terms) = match &args.grants {
        Some(path) => terms::read(path)?,
        None => Default::default(),
    };
    let given = args.input.as_deref().map(read).transpose()?;
    let mut question = Question::completed(function, given.unwrap_or_else(|| json!({})))
        .map_err(|why| anyhow::anyhow!("--input: {why}"))?;
    in_context(&mut question, &spec.config, &terms, args.plan);
    let loaded = args.engine.load(&args.file).await?;
    let planned = PlannedEffects::default();
    let env = env(&args, &terms, loaded.manifest().name.clone(), &planned)?;
    let tried = loaded.try_call(env, question).await;
    let tried = match tried {
        Ok(tried) => tried,
        Err(error) => {
            let value =
                json!({"used": false, "error": error.to_string(), "reason": error.reason()});
            args.output
                .print(&value, || format!("{}: {error}", error.reason()))?;
            return Ok(ExitCode::from(ANSWER_IS_NO));
        }
    };
    if let Some(path) = &args.record {
        let mut text = serde_json::to_vec_pretty(&tried.record)?;
        text.push(b'\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let effects: Vec<String> = planned
        .list()
        .into_iter()
        .map(|effect| format!("{}: {}", effect.capability, effect.what))
        .collect();
    // A plan goes as far as the first effect whose answer is needed: that is all that was asked for.
    let is_plan = args.plan
        && !effects.is_empty()
        && tried
            .result
            .as_ref()
            .is_err_and(|error| error.reason() == PLANNED);
    let value = value(&tried, &effects);
    args.output
        .print(&value, || text(&tried, &effects, is_plan))?;
    Ok(if tried.result.is_ok() || is_plan {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(ANSWER_IS_NO)
    })
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = input::text(path, INPUT_BYTES_MAX).context("--input")?;
    serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("--input {}: {error}", path.display()))
}

/// What the host says of every call, where the input says nothing of it.
fn in_context(
    question: &mut Question,
    config: &serde_json::Map<String, Value>,
    terms: &Terms,
    plan: bool,
) {
    let unsaid = example(question.function);
    let pointers = ["/input/context", "/input/control_plane/context", "/facts"];
    for pointer in pointers {
        let Some(Value::Object(context)) = question.parameters.pointer_mut(pointer) else {
            continue;
        };
        let given = context.get("now_ms").filter(|now| {
            let was = unsaid.pointer(pointer).and_then(|all| all.get("now_ms"));
            Some(*now) != was
        });
        // A time of the input's own is when the call is made: its deadline follows from it.
        let now = given.and_then(Value::as_u64).unwrap_or_else(|| {
            u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
        });
        let wall = u64::try_from(terms.limits.wall.as_millis()).unwrap_or_default();
        let mut set = |name: &str, value: Value| {
            let was = unsaid.pointer(pointer).and_then(|all| all.get(name));
            if let Some(field) = context.get_mut(name).filter(|field| Some(&**field) == was) {
                *field = value;
            }
        };
        set("deadline_ms", json!(now.saturating_add(wall)));
        set("now_ms", json!(now));
        if !config.is_empty() {
            set("config", json!(Value::Object(config.clone()).to_string()));
        }
        if plan {
            set("mode", json!("Plan"));
        }
    }
}

fn env(
    args: &CallArgs,
    terms: &Terms,
    plugin: String,
    planned: &PlannedEffects,
) -> anyhow::Result<CallEnv> {
    let secrets = Arc::new(Files::of(&args.secret, &terms.credentials)?);
    let data = match &args.bootstrap_data {
        Some(path) => {
            std::fs::read(path).with_context(|| format!("--bootstrap-data {}", path.display()))?
        }
        None => DATA.to_vec(),
    };
    let mut table = SecretTable::new();
    table.add(data);
    let state: Arc<dyn StateStore> = match &args.state {
        Some(path) => Arc::new(StateFile(path.clone())),
        None => Arc::new(Memory::default()),
    };
    Ok(CallEnv {
        grants: Arc::new(terms.grants.clone()),
        limits: terms.limits,
        secrets: table,
        state: Some(state),
        credentials: secrets.clone(),
        namespace: "default".to_owned(),
        secret_source: Some(secrets),
        planned: planned.clone(),
        ..CallEnv::new(plugin, "(capstan plugin call)")
    })
}

/// Secrets from files, in the place of a cluster's.
struct Files {
    values: BTreeMap<(String, String), Vec<u8>>,
    credentials: BTreeMap<String, Place>,
}

impl Files {
    fn of(arguments: &[String], credentials: &BTreeMap<String, Place>) -> anyhow::Result<Self> {
        let mut values = BTreeMap::new();
        for argument in arguments {
            let parts = argument
                .split_once('=')
                .and_then(|(place, file)| Some((place.split_once('/')?, file)));
            let Some(((name, key), file)) = parts else {
                bail!("--secret {argument}: write NAME/KEY=FILE, such as acme/token=token.txt");
            };
            let bytes = std::fs::read(file).with_context(|| format!("--secret {argument}"))?;
            values.insert((name.to_owned(), key.to_owned()), bytes);
        }
        Ok(Self {
            values,
            credentials: credentials.clone(),
        })
    }

    fn value(&self, name: &str, key: &str) -> Option<&Vec<u8>> {
        self.values.get(&(name.to_owned(), key.to_owned()))
    }
}

impl CredentialSource for Files {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, String>> {
        let found = self.credentials.get(name).map(|place| {
            let value = self.value(&place.secret, &place.key);
            value.map_or_else(
                || {
                    Err(format!(
                        "its value is not given: add --secret {}/{}=FILE",
                        place.secret, place.key
                    ))
                },
                |secret| {
                    Ok(Credential {
                        scheme: place.scheme.clone(),
                        secret: secret.clone(),
                    })
                },
            )
        });
        let found = found.unwrap_or_else(|| Err(format!("no credential is named {name}")));
        async move { found }.boxed()
    }
}

impl SecretSource for Files {
    fn read<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<FoundSecret>, String>> {
        let found = self.value(name, key).map(|bytes| FoundSecret {
            bytes: bytes.clone(),
            secret_type: "Opaque".to_owned(),
        });
        async move { Ok(found) }.boxed()
    }
}

/// State for one call.
#[derive(Default)]
struct Memory(Mutex<Option<Vec<u8>>>);

impl StateStore for Memory {
    fn get(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>> {
        let state = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        async move { Ok(state) }.boxed()
    }

    fn put(&self, value: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        async { Ok(()) }.boxed()
    }
}

/// State in a file.
struct StateFile(PathBuf);

impl StateStore for StateFile {
    fn get(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>> {
        let read = match std::fs::read(&self.0) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        async move { read }.boxed()
    }

    fn put(&self, value: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        let written = std::fs::write(&self.0, value).map_err(|error| error.to_string());
        async move { written }.boxed()
    }
}

/// Texts of JSON as what they stand for, for people.
fn open(value: Value) -> Value {
    match value {
        Value::String(text) if text.starts_with(['{', '[']) => {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(open).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, open(value)))
                .collect(),
        ),
        other => other,
    }
}

fn value(tried: &Tried, effects: &[String]) -> Value {
    let error = tried.result.as_ref().err();
    json!({
        "function": tried.record.function,
        "used": error.is_none(),
        "answer": tried.record.outcome.answer.clone().map(open),
        "error": error.map(ToString::to_string),
        "reason": error.map(|error| error.reason().to_owned()),
        "planned": effects,
        "imports": tried.record.imports.iter().map(|exchange| json!({
            "import": exchange.import,
            "request": open(exchange.request.clone()),
            "answer": open(exchange.answer.clone()),
        })).collect::<Vec<_>>(),
    })
}

fn text(tried: &Tried, effects: &[String], is_plan: bool) -> String {
    let mut text = String::new();
    for exchange in &tried.record.imports {
        let _ = writeln!(text, "{} {}", exchange.import, exchange.request);
        let _ = writeln!(text, "  -> {}", exchange.answer);
    }
    for effect in effects {
        let _ = writeln!(text, "planned, not done: {effect}");
    }
    if is_plan {
        text.push_str("the plan ends here: what follows depends on the answer\n");
        return text;
    }
    if let Some(answer) = &tried.record.outcome.answer {
        text.push_str(&capstan_api::yaml::print(&open(answer.clone())));
    }
    if let Err(error) = &tried.result {
        let _ = writeln!(text, "{}: {error}", error.reason());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(given: Value) -> (u64, u64) {
        let mut question = Question::completed(Function::EnsureCluster, given).unwrap();
        in_context(
            &mut question,
            &serde_json::Map::new(),
            &Terms::default(),
            false,
        );
        let time = |name: &str| {
            question.parameters["input"]["context"][name]
                .as_u64()
                .unwrap()
        };
        (time("now_ms"), time("deadline_ms"))
    }

    #[test]
    fn a_deadline_follows_the_time_of_the_input() {
        let wall = u64::try_from(Terms::default().limits.wall.as_millis()).unwrap();
        assert_eq!(
            times(json!({"context": {"now_ms": 1000}})),
            (1000, 1000 + wall)
        );
        assert_eq!(
            times(json!({"context": {"now_ms": 1000, "deadline_ms": 1500}})),
            (1000, 1500)
        );
        let (now, deadline) = times(json!({}));
        assert!(now > 1_700_000_000_000);
        assert_eq!(deadline, now + wall);
    }
}
