//! clusterctl, as its users run it, with a configuration and a local repository of its own.

use std::path::{Path, PathBuf};

use capstan_local::progress::Progress;
use capstan_local::toolchain;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::kubectl::finish;

/// clusterctl with a kubeconfig.
pub struct Clusterctl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
}

/// A provider in the local repository.
#[derive(Clone, Debug)]
pub struct Release {
    /// Name, such as `local`.
    pub name: String,
    /// Type, such as `InfrastructureProvider`.
    pub provider_type: String,
    /// Version, such as `v0.1.0`.
    pub version: String,
    /// Files beside `metadata.yaml`, with their contents.
    pub files: Vec<(String, String)>,
}

impl Release {
    /// The label of the provider, which is the name of its directory.
    fn label(&self) -> String {
        let prefix = match self.provider_type.as_str() {
            "CoreProvider" => return self.name.clone(),
            "BootstrapProvider" => "bootstrap",
            "ControlPlaneProvider" => "control-plane",
            "InfrastructureProvider" => "infrastructure",
            "IPAMProvider" => "ipam",
            "RuntimeExtensionProvider" => "runtime-extension",
            _ => "addon",
        };
        format!("{prefix}-{}", self.name)
    }

    /// The file that holds its components.
    fn components(&self) -> &'static str {
        match self.provider_type.as_str() {
            "CoreProvider" => "core-components.yaml",
            "BootstrapProvider" => "bootstrap-components.yaml",
            "ControlPlaneProvider" => "control-plane-components.yaml",
            "InfrastructureProvider" => "infrastructure-components.yaml",
            _ => "components.yaml",
        }
    }

    /// Which contract each minor version keeps, up to this one.
    fn metadata(&self) -> Value {
        let mut numbers = self.version.trim_start_matches('v').split('.');
        let mut number = || -> u32 { numbers.next().unwrap().parse().unwrap() };
        let (major, last) = (number(), number());
        let series =
            (0..=last).map(|minor| json!({"major": major, "minor": minor, "contract": "v1beta2"}));
        json!({
            "apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3", "kind": "Metadata",
            "releaseSeries": series.collect::<Value>(),
        })
    }
}

impl Clusterctl {
    /// The pinned version, which is built for the purpose once, with this kubeconfig.
    pub async fn new(kubeconfig: &Path) -> Self {
        let progress = Progress::new(|line| eprintln!("{line}"));
        let clusterctl = Self {
            program: toolchain::ensure_clusterctl(&progress).await.unwrap(),
            kubeconfig: kubeconfig.to_owned(),
            home: tempfile::tempdir().unwrap(),
        };
        clusterctl.publish(&[]);
        clusterctl
    }

    /// A directory that goes with this value.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Puts these releases, and no others, into the configuration. Of each provider the newest comes last.
    pub fn publish(&self, releases: &[Release]) {
        let root = self.home().join("repository");
        let mut providers = Vec::new();
        for release in releases {
            let dir = root.join(release.label()).join(&release.version);
            std::fs::create_dir_all(&dir).unwrap();
            let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
            write("metadata.yaml", &release.metadata().to_string());
            write(release.components(), "");
            for (name, text) in &release.files {
                write(name, text);
            }
            let url = dir.join(release.components());
            providers.retain(|other: &Value| {
                other["name"] != release.name.as_str()
                    || other["type"] != release.provider_type.as_str()
            });
            providers
                .push(json!({"name": release.name, "type": release.provider_type, "url": url}));
        }
        let config = json!({"providers": providers});
        std::fs::write(self.config(), config.to_string()).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.home().join("clusterctl.yaml")
    }

    /// What it prints, or what it complains about.
    pub async fn run(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--config")
            .arg(self.config())
            .env_clear()
            .env("HOME", self.home())
            .env("XDG_CONFIG_HOME", self.home().join("xdg"))
            .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
            .env("NO_COLOR", "1")
            // Whatever it looks for outside of this machine, it shall not find.
            .env("HTTPS_PROXY", "http://127.0.0.1:9");
        finish(command, "")
            .await
            .map_err(|complaint| format!("clusterctl {}: {complaint}", words.join(" ")))
    }
}
