//! `capstan plugin replay` and `capstan plugin test`: recorded calls made again by a component, offline, and compared.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use capstan_engine::{CallRecord, Difference, Loaded};
use serde_json::{Value, json};

use super::component::EngineArgs;
use super::{ANSWER_IS_NO, EXIT_CODES};
use crate::output::Output;

/// The largest record that is read: four times what the engine keeps of one call.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// Records that one directory may hold.
const RECORDS_MAX: usize = 10_000;

/// What to replay.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin replay 0000000042-infrastructure-acme-ensure-machine.json --plugin infrastructure_acme.wasm
      Makes the call again. Every import is answered from the record: nothing outside is touched.
  capstan plugin replay record.json --plugin target/wasm32-wasip2/plugin/infrastructure_acme.wasm -o json
      With a newer build: exit code 3 when it asks or answers something else, and where.

A host writes records with `capstan run --record-dir DIR`, for objects and Plugins with the annotation capstan.dev/record: \"true\".

{EXIT_CODES}"))]
pub(in crate::command) struct ReplayArgs {
    /// The record of a call.
    record: PathBuf,
    /// The component that makes the call now.
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What to test.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin test tests/records --plugin target/wasm32-wasip2/plugin/infrastructure_acme.wasm
      Replays every *.json of the directory. Exit code 3 when one comes out otherwise.
  capstan plugin test tests/records --plugin new.wasm --update
      What comes out now is what is wanted from now on; read the difference before you commit it.

{EXIT_CODES}"))]
pub(in crate::command) struct TestArgs {
    /// A directory with records of calls.
    dir: PathBuf,
    /// The component that is tested.
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
    /// Write what comes out into the records.
    #[arg(long)]
    update: bool,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A record that was replayed.
struct Replayed {
    name: String,
    recorded: CallRecord,
    now: CallRecord,
    differences: Vec<Difference>,
}

pub(super) async fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let loaded = args.engine.load(&args.plugin).await?;
    let replayed = replay(&loaded, &args.record).await?;
    args.output.print(&value(&replayed), || text(&replayed))?;
    Ok(code(replayed.differences.is_empty()))
}

pub(super) async fn test(args: TestArgs) -> anyhow::Result<ExitCode> {
    let loaded = args.engine.load(&args.plugin).await?;
    let shown = args.dir.display();
    let entries = std::fs::read_dir(&args.dir).with_context(|| format!("cannot read {shown}"))?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    paths.sort();
    if paths.is_empty() || paths.len() > RECORDS_MAX {
        bail!(
            "{shown} has {} records (*.json): there must be 1 to {RECORDS_MAX}",
            paths.len()
        );
    }
    let mut all = Vec::new();
    for path in &paths {
        let replayed = replay(&loaded, path).await?;
        if args.update && !replayed.differences.is_empty() {
            let mut record = serde_json::to_vec_pretty(&replayed.now)?;
            record.push(b'\n');
            std::fs::write(path, record)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        all.push(replayed);
    }
    let failed = all
        .iter()
        .filter(|replayed| !replayed.differences.is_empty())
        .count();
    let is_good = failed == 0 || args.update;
    let value = json!({
        "passed": all.len().saturating_sub(failed), "failed": failed, "updated": args.update,
        "records": all.iter().map(value).collect::<Vec<_>>(),
    });
    args.output.print(&value, || {
        let mut lines: String = all.iter().map(text).collect();
        let _ = writeln!(
            lines,
            "{} the same, {failed} {}",
            all.len().saturating_sub(failed),
            if args.update { "updated" } else { "different" }
        );
        lines
    })?;
    Ok(code(is_good))
}

fn code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(ANSWER_IS_NO)
    }
}

async fn replay(loaded: &Arc<Loaded>, path: &Path) -> anyhow::Result<Replayed> {
    let shown = path.display();
    let length = std::fs::metadata(path)
        .with_context(|| format!("cannot read {shown}"))?
        .len();
    if length > RECORD_BYTES_MAX {
        bail!("{shown} has more than {RECORD_BYTES_MAX} bytes: it is no record");
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let recorded = CallRecord::parse(&bytes).map_err(|why| anyhow::anyhow!("{shown}: {why}"))?;
    let tried = loaded
        .replay(&recorded)
        .await
        .with_context(|| format!("{shown} cannot be replayed"))?;
    let name = path.file_name().unwrap_or_default();
    Ok(Replayed {
        name: name.to_string_lossy().into_owned(),
        differences: recorded.differences(&tried.record),
        recorded,
        now: tried.record,
    })
}

fn value(replayed: &Replayed) -> Value {
    json!({
        "record": replayed.name,
        "function": replayed.recorded.function,
        "object": replayed.recorded.object,
        "same": replayed.differences.is_empty(),
        "sameDigest": replayed.recorded.digest == replayed.now.digest,
        "differences": replayed.differences,
        "outcome": replayed.now.outcome,
    })
}

fn text(replayed: &Replayed) -> String {
    let mut text = String::new();
    let build = if replayed.recorded.digest == replayed.now.digest {
        "the same component"
    } else {
        "another build"
    };
    let verdict = if replayed.differences.is_empty() {
        "the same"
    } else {
        "different"
    };
    let _ = writeln!(
        text,
        "{}: {} of {}: {verdict} ({build})",
        replayed.name, replayed.recorded.function, replayed.recorded.object
    );
    for difference in &replayed.differences {
        let _ = writeln!(text, "  {difference}");
    }
    text
}
