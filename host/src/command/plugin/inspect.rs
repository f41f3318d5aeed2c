//! `capstan plugin inspect`: what a component says of itself, what it asks for and why, and what it is made of.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use capstan_engine::grant::suggested;
use capstan_engine::{Anatomy, Loaded, anatomy};
use serde_json::{Value, json};

use super::EXIT_CODES;
use super::component::{self, EngineArgs, Sizes, kib};
use crate::output::Output;

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin inspect infrastructure_acme.wasm
  capstan plugin inspect infrastructure_acme.wasm -o json | jq '.capabilities[] | {{name, why}}'

{EXIT_CODES}"))]
pub(in crate::command) struct InspectArgs {
    /// The component: plain, or packed with gzip or zstd; `-` for standard input.
    file: PathBuf,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(super) async fn run(args: InspectArgs) -> anyhow::Result<ExitCode> {
    let source = component::read(&args.file)?;
    let parts =
        anatomy(&source).map_err(|why| anyhow::anyhow!("{}: {why}", args.file.display()))?;
    let loaded = args.engine.try_load(&source).await?.map_err(|why| {
        anyhow::anyhow!(
            "{} is refused: {why}; `capstan plugin check` says more",
            args.file.display()
        )
    })?;
    let sizes = Sizes::of(&parts)?;
    let value = value(&loaded, &parts, sizes);
    args.output.print(&value, || text(&loaded, &parts, sizes))?;
    Ok(ExitCode::SUCCESS)
}

fn value(loaded: &Loaded, parts: &Anatomy, sizes: Sizes) -> Value {
    let manifest = loaded.manifest();
    let exports: Vec<&str> = loaded.kinds().iter().map(|kind| kind.as_str()).collect();
    let kinds: Vec<Value> = manifest
        .kinds
        .iter()
        .map(|kind| {
            json!({
                "role": kind.role, "apiVersion": format!("{}/{}", kind.group, kind.version),
                "kind": kind.kind, "plural": kind.plural,
                "specSchema": kind.spec_schema, "statusSchema": kind.status_schema,
            })
        })
        .collect();
    let capabilities: Vec<Value> = manifest
        .capabilities
        .iter()
        .map(|asked| {
            json!({
                "name": asked.name, "why": asked.why, "optional": asked.optional,
                "grant": suggested(&asked.name, Some(&asked.suggestion)),
            })
        })
        .collect();
    let crates: Vec<Value> = parts
        .crates
        .iter()
        .map(|(name, bytes)| json!({"name": name, "bytes": bytes}))
        .collect();
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "homePage": manifest.home_page,
        "digest": loaded.digest(),
        "witVersion": loaded.abi(),
        "provides": exports,
        "kinds": kinds,
        "capabilities": capabilities,
        "imports": parts.imports,
        "exports": parts.exports,
        "packing": parts.packing,
        "bytes": {
            "raw": sizes.raw, "gzip": sizes.gzip, "zstd": sizes.zstd, "native": loaded.compiled_bytes(),
            "code": parts.code_bytes, "data": parts.data_bytes, "names": parts.name_bytes,
            "debug": parts.debug_bytes,
        },
        "crates": crates,
    })
}

fn text(loaded: &Loaded, parts: &Anatomy, sizes: Sizes) -> String {
    let manifest = loaded.manifest();
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{}", format!("{name:<14}{value}").trim_end());
    };
    row("name", &manifest.name);
    row("version", &manifest.version);
    row("description", &manifest.description);
    row("digest", loaded.digest());
    row("interface", &format!("capstan:plugin@{}", loaded.abi()));
    let provides: Vec<&str> = loaded.kinds().iter().map(|kind| kind.as_str()).collect();
    row("provides", &provides.join(", "));
    for kind in &manifest.kinds {
        row(
            "kind",
            &format!(
                "{} {}/{} ({})",
                kind.kind, kind.group, kind.version, kind.role
            ),
        );
    }
    if manifest.capabilities.is_empty() {
        row("asks for", "nothing that must be granted");
    }
    for asked in &manifest.capabilities {
        let optional = if asked.optional { ", optional" } else { "" };
        row(
            "asks for",
            &format!("{}{optional}: {}", asked.name, asked.why),
        );
        let grant = suggested(&asked.name, Some(&asked.suggestion));
        row("", &format!("spec.grants: {grant}"));
    }
    for import in &parts.imports {
        row("imports", import);
    }
    row("size", &sizes.text());
    row("native code", &kib(loaded.compiled_bytes()));
    let largest: Vec<String> = parts
        .crates
        .iter()
        .take(5)
        .map(|(name, bytes)| format!("{name} {}", kib(*bytes)))
        .collect();
    row("code of", &largest.join(", "));
    text
}
