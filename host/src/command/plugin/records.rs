//! `capstan plugin records`: what a host has recorded, as a list or one of it, also where there is nothing but this program.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use capstan_controllers::records;
use capstan_engine::CallRecord;
use serde_json::{Value, json};

use super::EXIT_CODES;
use crate::out;
use crate::output::Output;

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin records records
      The calls in the directory of `capstan run --record-dir records`, the newest last.
  capstan plugin records records --newest > failure.json
      One of them, whole, for `capstan plugin replay`.
  kubectl -n capstan-system exec POD -- /capstan plugin records /var/cache/capstan/records
      The same in the Pod of the host that holds the Lease `capstan` (`capstan manifests --record`).

{EXIT_CODES}"))]
pub(in crate::command) struct RecordsArgs {
    /// A directory with records.
    dir: PathBuf,
    /// Print this one, by the name of its file.
    #[arg(conflicts_with = "newest")]
    record: Option<String>,
    /// Print the newest one.
    #[arg(long)]
    newest: bool,
    /// How the list is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &RecordsArgs) -> anyhow::Result<ExitCode> {
    let shown = args.dir.display();
    let paths = records::list(&args.dir).with_context(|| format!("cannot read {shown}"))?;
    let wanted = match &args.record {
        Some(name) => {
            let mut paths = paths.iter();
            paths.find(|path| path.file_name().is_some_and(|file| *file == **name))
        }
        None => paths.last().filter(|_| args.newest),
    };
    if let Some(path) = wanted {
        let text = std::fs::read_to_string(path);
        out::result(&text.with_context(|| format!("cannot read {}", path.display()))?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = &args.record {
        bail!("{shown} has no record {name}; without a name all are listed");
    }
    if args.newest {
        bail!(
            "{shown} has no records: what asks for them has the annotation capstan.dev/record: \"true\", and of several hosts only the one that holds the Lease makes calls"
        );
    }
    let mut all = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The host takes the oldest away at any time.
        let Ok(bytes) = std::fs::read(path) else {
            continue;
        };
        all.push(match CallRecord::parse(&bytes) {
            Ok(record) => line(&name, &record),
            Err(why) => json!({"record": name, "problem": why}),
        });
    }
    args.output.print(&all, || text(&all))?;
    Ok(ExitCode::SUCCESS)
}

fn line(name: &str, record: &CallRecord) -> Value {
    let answer = record.outcome.answer.as_ref();
    let outcome = match answer {
        Some(answer) if answer.get("Err").is_some() => "failed",
        Some(_) if record.outcome.error.is_none() => "answered",
        _ => "stopped",
    };
    json!({
        "record": name, "plugin": record.plugin, "function": record.function, "object": record.object,
        "callId": record.call_id, "digest": record.digest, "outcome": outcome,
    })
}

fn text(all: &[Value]) -> String {
    let mut text = String::new();
    for record in all {
        let said = |field: &str| {
            record
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let what = match said("problem") {
            "" => format!(
                "{} of {}: {}",
                said("function"),
                said("object"),
                said("outcome")
            ),
            problem => problem.to_owned(),
        };
        let _ = writeln!(text, "{}  {what}", said("record"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_call_ended_is_told_apart() {
        let record = |outcome: Value| {
            let record = json!({
                "form": capstan_engine::RECORD_FORM, "plugin": "p", "object": "o", "digest": "d", "wit": "0.1",
                "function": "render", "seed": "", "secrets": [], "input": {}, "imports": [], "outcome": outcome,
            });
            let record: CallRecord = serde_json::from_value(record).unwrap();
            line("1.json", &record)["outcome"].clone()
        };
        assert_eq!(record(json!({"answer": {"Ok": 1}})), "answered");
        assert_eq!(record(json!({"answer": {"Err": {}}})), "failed");
        assert_eq!(
            record(json!({"answer": {"Ok": 1}, "error": "too long"})),
            "stopped"
        );
        assert_eq!(record(json!({"error": "a trap"})), "stopped");
        let shown = text(&[json!({"record": "1.json", "problem": "not whole"})]);
        assert_eq!(shown, "1.json  not whole\n");
    }
}
