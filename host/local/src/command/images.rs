//! `capstan local images`: what machines of the local cloud are made from.

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::images::{self, VERSIONS};
use crate::out;
use crate::progress::Progress;

/// The subcommands of `capstan local images`; `list` is the default.
#[derive(Clone, Debug, Args)]
pub struct ImagesArgs {
    #[command(subcommand)]
    command: Option<ImagesCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum ImagesCommand {
    /// Build what is missing, once; takes minutes and needs root.
    Build {
        /// Only this Kubernetes version; may be given several times.
        #[arg(long = "version", value_name = "VERSION", value_parser = VERSIONS)]
        versions: Vec<String>,
        /// Also a root file system with cloud-init, for machines that ask for it.
        #[arg(long)]
        cloud_init: bool,
    },
    /// Show what is there.
    List,
    /// Remove all images. Binaries that the management cluster uses stay.
    Remove {
        /// Only those that this program would not use.
        #[arg(long)]
        old: bool,
    },
}

/// `capstan local images`.
pub(super) async fn run(args: ImagesArgs, progress: &Progress) -> anyhow::Result<()> {
    match args.command.unwrap_or(ImagesCommand::List) {
        ImagesCommand::Build {
            versions,
            cloud_init,
        } => {
            let wanted = if versions.is_empty() {
                VERSIONS.map(str::to_owned).to_vec()
            } else {
                versions
            };
            for version in wanted {
                images::ensure(&version, progress)
                    .await
                    .with_context(|| format!("no machine image of Kubernetes {version}"))?;
            }
            if cloud_init {
                images::ensure_cloud_init(progress)
                    .await
                    .context("no root file system with cloud-init")?;
            }
            list()
        }
        ImagesCommand::List => list(),
        ImagesCommand::Remove { old } => {
            match images::remove(old, progress)? {
                0 => out::result("there was nothing to remove"),
                removed => out::result(format!("removed {removed} directories of machine images")),
            }
            Ok(())
        }
    }
}

fn list() -> anyhow::Result<()> {
    out::result(format!("{:<10} {:>9}  STORE", "VERSION", "SIZE"));
    for listed in images::list()? {
        let line = match &listed.image {
            Some((image, bytes, _)) => {
                let mib = bytes >> 20;
                let store = image.store.display();
                format!("{:<10} {mib:>5} MiB  {store}", listed.version)
            }
            None => format!(
                "{:<10} {:>9}  not built: capstan local images build --version {}",
                listed.version, "-", listed.version
            ),
        };
        out::result(line);
    }
    Ok(())
}
