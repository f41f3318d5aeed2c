//! `capstan plugin check`: everything that the host would find wrong with a component, found before it is in a cluster.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use capstan_api::reason::plugin as reason;
use capstan_controllers::plugin::definitions;
use capstan_engine::{Grants, LoadCondition, LoadError, Loaded};
use serde_json::{Value, json};

use super::component::{self, EngineArgs, kib};
use super::{ANSWER_IS_NO, EXIT_CODES, terms};
use crate::output::Output;

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES, after_long_help = format!("\
Examples:
  capstan plugin check infrastructure_acme.wasm
      Is it a component that this host can load? Which grants does it ask for?
  capstan plugin check infrastructure_acme.wasm --grants plugin.yaml
      The same, and exit code 3 when the Plugin object in plugin.yaml grants too little.
  capstan plugin check infrastructure_acme.wasm -o json | jq '.conditions[] | select(.status != \"True\")'

{EXIT_CODES}"))]
pub(in crate::command) struct CheckArgs {
    /// The component: plain, or packed with gzip or zstd; `-` for standard input.
    file: PathBuf,
    /// A YAML file with a Plugin object, or with its grants alone: nothing may be missing in it.
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

/// One of the conditions that a Plugin object would have.
struct Condition {
    name: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

pub(super) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let granted = args.grants.as_deref().map(terms::read).transpose()?;
    let must_suffice = granted.is_some();
    let granted = Arc::new(granted.map_or_else(Grants::default, |(_, terms)| terms.grants));
    let source = component::read(&args.file)?;
    let loaded = args.engine.try_load(&source).await?;
    let conditions = match &loaded {
        Ok(loaded) => accepted(loaded, &granted),
        Err(error) => refused(error),
    };
    let is_bad = |condition: &&Condition| {
        condition.status == "False" && (must_suffice || condition.name != "Granted")
    };
    let answer = conditions.iter().find(is_bad).is_none();
    let value = value(&conditions, loaded.as_deref().ok(), answer);
    args.output
        .print(&value, || text(&conditions, loaded.as_deref().ok()))?;
    Ok(if answer {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(ANSWER_IS_NO)
    })
}

/// The conditions of a component that the engine took.
fn accepted(loaded: &Loaded, granted: &Arc<Grants>) -> Vec<Condition> {
    let good = |name, message: String| Condition {
        name,
        status: "True",
        reason: name,
        message,
    };
    let mut conditions = vec![
        good("Verified", loaded.digest().to_owned()),
        good(
            "Compiled",
            format!(
                "{} of native code, compiled in {} ms",
                kib(loaded.compiled_bytes()),
                loaded.compile_time().as_millis()
            ),
        ),
    ];
    conditions.push(match definitions(loaded.manifest()) {
        Ok(_) => good("Compatible", format!("capstan:plugin@{}", loaded.abi())),
        Err(failure) => Condition {
            name: "Compatible",
            status: "False",
            reason: "ManifestInvalid",
            message: failure.message,
        },
    });
    let missing = loaded.missing(granted);
    conditions.push(if missing.is_empty() {
        good("Granted", "nothing is missing".to_owned())
    } else {
        Condition {
            name: "Granted",
            status: "False",
            reason: reason::GRANT_MISSING,
            message: missing
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        }
    });
    conditions
}

/// The conditions of a component that the engine refuses: true up to the one that is false, unknown behind it.
fn refused(error: &LoadError) -> Vec<Condition> {
    let (at, reason) = error.condition();
    let order = [
        LoadCondition::Verified,
        LoadCondition::Compiled,
        LoadCondition::Compatible,
    ];
    let mut is_before = true;
    let mut conditions = Vec::new();
    for condition in order {
        let (status, reason, message) = if condition == at {
            is_before = false;
            ("False", reason, error.to_string())
        } else if is_before {
            ("True", condition.as_str(), String::new())
        } else {
            ("Unknown", "NotChecked", String::new())
        };
        conditions.push(Condition {
            name: condition.as_str(),
            status,
            reason,
            message,
        });
    }
    conditions.push(Condition {
        name: "Granted",
        status: "Unknown",
        reason: "NotChecked",
        message: String::new(),
    });
    conditions
}

fn value(conditions: &[Condition], loaded: Option<&Loaded>, accepted: bool) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|c| json!({"type": c.name, "status": c.status, "reason": c.reason, "message": c.message}))
        .collect();
    let mut value = json!({"accepted": accepted, "conditions": conditions});
    if let (Some(loaded), Some(fields)) = (loaded, value.as_object_mut()) {
        let manifest = loaded.manifest();
        fields.insert("name".to_owned(), json!(manifest.name));
        fields.insert("version".to_owned(), json!(manifest.version));
        fields.insert("digest".to_owned(), json!(loaded.digest()));
    }
    value
}

fn text(conditions: &[Condition], loaded: Option<&Loaded>) -> String {
    let mut text = String::new();
    if let Some(loaded) = loaded {
        let manifest = loaded.manifest();
        let _ = writeln!(text, "{} {}", manifest.name, manifest.version);
    }
    for condition in conditions {
        let reason = if condition.status == "True" {
            ""
        } else {
            condition.reason
        };
        let line = format!(
            "{:<12}{:<9}{reason:<18}{}",
            condition.name, condition.status, condition.message
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_refusal_is_not_known() {
        let conditions = refused(&LoadError::CompileFailed {
            why: "odd".to_owned(),
        });
        let statuses: Vec<_> = conditions.iter().map(|c| (c.name, c.status)).collect();
        assert_eq!(
            statuses,
            [
                ("Verified", "True"),
                ("Compiled", "False"),
                ("Compatible", "Unknown"),
                ("Granted", "Unknown")
            ]
        );
        let shown = text(&conditions, None);
        assert!(
            shown.contains("CompileFailed     the component cannot be compiled: odd"),
            "{shown}"
        );
    }
}
