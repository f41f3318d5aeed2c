//! `capstan plugin push`: puts a component into an OCI registry, in the layout that hosts read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use capstan_controllers::plugin::login_of;
use capstan_engine::{Reference, RegistryAccess, anatomy, push};
use jiff::Timestamp;
use serde_json::json;

use super::EXIT_CODES;
use super::component::{self, EngineArgs, kib};
use crate::output::Output;

/// What to push.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin push infrastructure_acme.wasm registry.example.com/team/acme:1.2.0
      The login is the one that `docker login` keeps; --login names another file of that form.
  capstan plugin push acme.wasm localhost:5000/acme:dev --plain-http

The Plugin object then has spec.source.oci.image: `capstan plugin manifest FILE --oci REFERENCE` prints it.

{EXIT_CODES}"))]
pub(in crate::command) struct PushArgs {
    /// The component: plain, or packed with gzip or zstd, which is undone.
    file: PathBuf,
    /// Registry, repository and tag: registry.example.com/team/plugin:1.2.3.
    reference: String,
    /// A docker configuration with the login; $DOCKER_CONFIG/config.json or ~/.docker/config.json by default.
    #[arg(long, value_name = "FILE")]
    login: Option<PathBuf>,
    /// Certificates in PEM that are trusted instead of the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Without TLS: logins and components can be read and changed on the way.
    #[arg(long)]
    plain_http: bool,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(super) async fn run(args: PushArgs) -> anyhow::Result<ExitCode> {
    let reference = Reference::parse(&args.reference).map_err(|why| anyhow::anyhow!("{why}"))?;
    let ca_pem = args.ca.as_deref().map(|file| {
        std::fs::read_to_string(file).with_context(|| format!("--ca {}", file.display()))
    });
    let access = RegistryAccess {
        login: login(args.login.as_deref(), reference.host())?,
        ca_pem: ca_pem.transpose()?,
        plain_http: args.plain_http,
    };
    // What a host would refuse is not published.
    let loaded = args.engine.load(&args.file).await?;
    let parts = anatomy(&component::read(&args.file)?).map_err(|why| anyhow::anyhow!("{why}"))?;
    let manifest = loaded.manifest();
    let pushed = push(
        &reference,
        &access,
        &parts,
        &manifest.name,
        &manifest.version,
        Timestamp::now(),
    )
    .await?;
    let pinned = reference.pinned(&pushed.manifest);
    let value = json!({
        "reference": args.reference, "pinned": pinned, "manifestDigest": pushed.manifest,
        "digest": parts.digest, "bytesSent": pushed.bytes,
    });
    args.output.print(&value, || {
        format!(
            "{} {} is {} ({} sent)\nspec.source.oci.image: {pinned}\nspec.digest: {}",
            manifest.name,
            manifest.version,
            args.reference,
            kib(pushed.bytes),
            parts.digest
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The login for a registry, when there is one.
fn login(named: Option<&Path>, host: &str) -> anyhow::Result<Option<(String, String)>> {
    if let Some(file) = named {
        let config = std::fs::read(file).with_context(|| format!("--login {}", file.display()))?;
        let Some(found) = login_of(&config, host) else {
            bail!("--login {}: it has no login for {host}", file.display());
        };
        return Ok(Some(found));
    }
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let file = dir.or(home).map(|dir| dir.join("config.json"));
    let config = file.and_then(|file| std::fs::read(file).ok());
    Ok(config.and_then(|config| login_of(&config, host)))
}
