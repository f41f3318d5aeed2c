//! Runs kubectl the way a person would, with files or documents.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::progress::Progress;
use crate::toolchain;

/// Whose changes these are.
const MANAGER: &str = "--field-manager=capstan-quickstart";

/// kubectl against the management cluster.
pub(super) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Finds it, or builds it.
    pub(super) async fn find(dir: &Path, progress: &Progress) -> anyhow::Result<Self> {
        let program = toolchain::ensure_kubectl(progress)
            .await
            .context("no kubectl")?;
        let kubeconfig = dir.join("kubeconfig");
        Ok(Self {
            program,
            kubeconfig,
        })
    }

    /// Where it is, when the person has none on the `PATH`.
    pub(super) fn unless_on_path(&self) -> Option<&Path> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has_one = std::env::split_paths(&path).any(|dir| dir.join("kubectl").is_file());
        (!has_one).then_some(&*self.program)
    }

    /// Applies what is the person's from now on: what somebody else has set stays.
    pub(super) async fn apply_new(&self, document: &Value) -> anyhow::Result<()> {
        let words = ["apply", "--server-side", MANAGER, "-f", "-"];
        quietly(self.command(&words), Some(document)).await
    }

    /// Applies a document.
    pub(super) async fn apply(&self, document: &Value) -> anyhow::Result<()> {
        let words = [
            "apply",
            "--server-side",
            "--force-conflicts",
            MANAGER,
            "-f",
            "-",
        ];
        quietly(self.command(&words), Some(document)).await
    }

    /// Merges a document into a Plugin object.
    pub(super) async fn patch_plugin(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> anyhow::Result<()> {
        let words = [
            "--namespace",
            namespace,
            "patch",
            "plugin",
            name,
            "--type=merge",
            MANAGER,
            "--patch-file=/dev/stdin",
        ];
        quietly(self.command(&words), Some(patch)).await
    }

    /// Runs it with this kubeconfig; what it prints goes to the person.
    pub(super) async fn show(&self, kubeconfig: &Path, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(kubeconfig).args(words);
        let status = command.stdin(Stdio::null()).status().await;
        let status = status.with_context(|| format!("could not run {}", self.program.display()))?;
        if !status.success() {
            bail!("`kubectl {}` failed", words.join(" "));
        }
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(words);
        command
    }
}

/// Runs a command that has nothing to say unless it fails.
async fn quietly(mut command: Command, input: Option<&Value>) -> anyhow::Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("could not run kubectl")?;
    if let Some(mut stdin) = child.stdin.take()
        && let Some(document) = input
    {
        // An early end of the reader shows in the exit code.
        let _: std::io::Result<()> = stdin.write_all(document.to_string().as_bytes()).await;
    }
    let ended = child.wait_with_output().await.context("kubectl was lost")?;
    if !ended.status.success() {
        bail!("kubectl: {}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    Ok(())
}
