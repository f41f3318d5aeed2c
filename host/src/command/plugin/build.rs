//! `capstan plugin build`: runs cargo for the target and profile of plugins, measures what it made, and says what makes it big.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use capstan_engine::{Anatomy, anatomy};
use serde_json::{Value, json};

use super::EXIT_CODES;
use super::component::{self, Sizes, kib};
use crate::output::Output;

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "plugin";

/// The profile, for crates that have none of this name.
const SETTINGS: [&str; 6] = [
    "inherits=\"release\"",
    "opt-level=\"s\"",
    "lto=true",
    "codegen-units=1",
    "panic=\"abort\"",
    "strip=\"debuginfo\"",
];

/// A provider with an HTTP client and JSON has about 200 KiB.
const USUAL_BYTES_MAX: usize = 600 << 10;

/// A crate with a larger share of the code, in per cent, is named.
const SHARE_PERCENT_MAX: u64 = 25;

/// What to build.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin build
      The package of the working directory, for {TARGET}, small and without unwinding.
  capstan plugin build --manifest-path infrastructure-acme/Cargo.toml -o json
  capstan plugin build -p infrastructure-acme -- --locked
      What follows `--` goes to cargo.

{EXIT_CODES}"))]
pub(in crate::command) struct BuildArgs {
    /// Package of a workspace.
    #[arg(long, short, value_name = "NAME")]
    package: Option<String>,
    /// Another Cargo.toml than the working directory's.
    #[arg(long, value_name = "FILE")]
    manifest_path: Option<PathBuf>,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Arguments for cargo.
    #[arg(last = true)]
    cargo: Vec<String>,
}

/// What cargo made.
struct Built {
    file: PathBuf,
    anatomy: Anatomy,
    sizes: Sizes,
}

pub(super) fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    let has_profile = has_profile(args)?;
    let mut cargo = cargo(args, "build");
    cargo
        .args(["--target", TARGET, "--profile", PROFILE])
        .args(["--message-format", "json-render-diagnostics"]);
    if !has_profile {
        for setting in SETTINGS {
            cargo.args(["--config", &format!("profile.{PROFILE}.{setting}")]);
        }
    }
    if let Some(package) = &args.package {
        cargo.args(["--package", package]);
    }
    let output = cargo
        .args(&args.cargo)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo: install Rust with rustup")?;
    if !output.status.success() {
        bail!(
            "cargo failed with {}; when it lacks the target, `rustup target add {TARGET}` installs it",
            output.status
        );
    }
    let files = components(&output.stdout);
    if files.is_empty() {
        bail!(
            "cargo made no component: Cargo.toml needs `crate-type = [\"cdylib\", \"rlib\"]` in [lib]"
        );
    }
    let mut built = Vec::new();
    for file in files {
        let anatomy = anatomy(&component::read(&file)?)
            .map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
        let sizes = Sizes::of(&anatomy)?;
        built.push(Built {
            file,
            anatomy,
            sizes,
        });
    }
    let value = Value::Array(built.iter().map(value).collect());
    args.output
        .print(&value, || built.iter().map(text).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn cargo(args: &BuildArgs, command: &str) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo.arg(command);
    if let Some(path) = &args.manifest_path {
        cargo.arg("--manifest-path").arg(path);
    }
    cargo
}

/// Whether the workspace says itself how plugins are built.
fn has_profile(args: &BuildArgs) -> anyhow::Result<bool> {
    let output = cargo(args, "locate-project")
        .args(["--workspace", "--message-format", "plain"])
        .output()
        .context("cannot start cargo: install Rust with rustup")?;
    let path = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("there is nothing to build here: {}", why.trim());
    }
    let manifest = Path::new(path.trim());
    let text = std::fs::read_to_string(manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    Ok(text
        .lines()
        .any(|line| line.trim() == format!("[profile.{PROFILE}]")))
}

/// Files of components in cargo's messages.
fn components(messages: &[u8]) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(messages);
    let mut files = Vec::new();
    for line in text.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let is_library = message
            .pointer("/target/crate_types")
            .and_then(Value::as_array)
            .is_some_and(|types| types.iter().any(|kind| kind == "cdylib"));
        let names = message.get("filenames").and_then(Value::as_array);
        for name in names.into_iter().flatten().filter_map(Value::as_str) {
            if is_library && name.ends_with(".wasm") {
                files.push(PathBuf::from(name));
            }
        }
    }
    files
}

/// What makes a component larger than it has to be, and what to do about it.
fn warnings(built: &Built) -> Vec<String> {
    let mut warnings = Vec::new();
    let parts = &built.anatomy;
    if parts.debug_bytes > 0 {
        warnings.push(format!(
            "{} are debugging information that nothing uses: strip = \"debuginfo\" in [profile.{PROFILE}]",
            kib(parts.debug_bytes)
        ));
    }
    if parts.name_bytes == 0 {
        warnings.push(format!(
            "it has no names of functions, so that backtraces say nothing: strip = \"debuginfo\", not true, in [profile.{PROFILE}]"
        ));
    }
    if built.sizes.raw > USUAL_BYTES_MAX {
        warnings.push(format!(
            "it has {}, where providers have some 200 KiB: compiling it takes the host seconds",
            kib(built.sizes.raw)
        ));
        let threshold = parts.code_bytes.saturating_mul(SHARE_PERCENT_MAX) / 100;
        for (name, bytes) in parts.crates.iter().filter(|(_, bytes)| *bytes > threshold) {
            warnings.push(format!(
                "{} of its code are of the crate {name}",
                kib(*bytes)
            ));
        }
    }
    if parts.crates.iter().any(|(name, _)| name == "k8s_openapi") {
        warnings.push(
            "k8s-openapi makes components ten times as large as they have to be: use the SDK's slim types, or your own".to_owned(),
        );
    }
    warnings
}

fn value(built: &Built) -> Value {
    let crates: Vec<Value> = built
        .anatomy
        .crates
        .iter()
        .map(|(name, bytes)| json!({"name": name, "bytes": bytes}))
        .collect();
    json!({
        "file": built.file,
        "digest": built.anatomy.digest,
        "bytes": {"raw": built.sizes.raw, "gzip": built.sizes.gzip, "zstd": built.sizes.zstd},
        "crates": crates,
        "warnings": warnings(built),
    })
}

fn text(built: &Built) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", built.file.display());
    let _ = writeln!(text, "  digest  {}", built.anatomy.digest);
    let _ = writeln!(text, "  size    {}", built.sizes.text());
    let largest: Vec<String> = built
        .anatomy
        .crates
        .iter()
        .take(5)
        .map(|(name, bytes)| format!("{name} {}", kib(*bytes)))
        .collect();
    let _ = writeln!(text, "  code    {}", largest.join(", "));
    for warning in warnings(built) {
        let _ = writeln!(text, "  warning {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"crate_types":["lib"]},"filenames":["a.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"crate_types":["cdylib","rlib"]},"filenames":["t/b.wasm","t/b.rlib"]}"#,
            "\nnot json\n",
        );
        assert_eq!(components(messages.as_bytes()), [PathBuf::from("t/b.wasm")]);
    }

    #[test]
    fn what_makes_it_big_is_named() {
        let mut built = Built {
            file: PathBuf::new(),
            anatomy: Anatomy {
                code_bytes: 900 << 10,
                name_bytes: 1,
                crates: vec![
                    ("k8s_openapi".to_owned(), 800 << 10),
                    ("core".to_owned(), 1 << 10),
                ],
                ..Anatomy::default()
            },
            sizes: Sizes {
                raw: 1 << 20,
                gzip: 1,
                zstd: 1,
            },
        };
        let said = warnings(&built).join("\n");
        assert!(
            said.contains("800 KiB of its code are of the crate k8s_openapi"),
            "{said}"
        );
        assert!(said.contains("slim types"), "{said}");
        built.anatomy.crates.clear();
        built.sizes.raw = 1000;
        assert!(warnings(&built).is_empty());
    }
}
