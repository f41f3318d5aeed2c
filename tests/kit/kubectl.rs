//! kubectl, as the owner of a cluster would use it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use capstan_local::progress::Progress;
use capstan_local::toolchain;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running port-forward. It prints a line for each connection, for which somebody must listen.
pub struct Forward {
    /// The port of this machine.
    pub port: u16,
    _child: Child,
    _lines: Lines<BufReader<ChildStdout>>,
}

/// kubectl with a kubeconfig.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// This program with this kubeconfig.
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// The one of this machine, or one that is built for the purpose.
    pub async fn found(kubeconfig: &Path) -> Self {
        let progress = Progress::new(|line| eprintln!("{line}"));
        let program = toolchain::ensure_kubectl(&progress).await.unwrap();
        Self::new(&program, kubeconfig)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--request-timeout=20s")
            .args(words);
        command
    }

    /// What it prints, or what it complains about.
    pub async fn run(&self, words: &[&str]) -> Result<String, String> {
        self.with_input(words, "").await
    }

    /// As [`Kubectl::run`], with this on its standard input.
    pub async fn with_input(&self, words: &[&str], input: &str) -> Result<String, String> {
        finish(self.command(words), input)
            .await
            .map_err(|complaint| format!("kubectl {}: {complaint}", words.join(" ")))
    }

    /// Creates or changes objects.
    pub async fn apply(&self, object: &Value) -> Result<String, String> {
        self.with_input(&["apply", "-f", "-"], &object.to_string())
            .await
    }

    /// Creates an object.
    pub async fn create(&self, object: &Value) -> Result<String, String> {
        self.with_input(&["create", "-f", "-"], &object.to_string())
            .await
    }

    /// Objects as JSON.
    pub async fn get(&self, words: &[&str]) -> Result<Vec<Value>, String> {
        let words: Vec<&str> = ["get", "-o", "json"].iter().chain(words).copied().collect();
        let list: Value = serde_json::from_str(&self.run(&words).await?).unwrap();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// A port of this host that leads to a Service, as long as what is answered lives.
    ///
    /// # Panics
    /// When there is none.
    pub async fn forward(&self, service: &str, port: u16) -> Forward {
        let ports = format!(":{port}");
        let mut command = self.command(&["port-forward", service, &ports]);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // "Forwarding from 127.0.0.1:40123 -> 8080"
        let line = lines.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("kubectl does not forward to {service}"));
        let port = line
            .split(' ')
            .nth(2)
            .and_then(|address| address.rsplit(':').next());
        Forward {
            port: port.unwrap().parse().unwrap(),
            _child: child,
            _lines: lines,
        }
    }
}

/// Runs a program to its end: what it printed, or what it complained about.
pub(crate) async fn finish(mut command: Command, input: &str) -> Result<String, String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // An early end of the reader shows in the exit code.
    drop(stdin.write_all(input.as_bytes()).await);
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}
