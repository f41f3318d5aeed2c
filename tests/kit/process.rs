//! The host as a process of its own, which can be killed at any instruction.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Child;

use capstan_local::control_plane::ControlPlane;
use capstan_local::process::{self, Record, Spec};

use crate::host::{NAMESPACE, USER};
use crate::wasm;

/// Sends a process a signal, such as `STOP`.
///
/// # Panics
/// When that is not possible.
pub fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &pid])
        .status();
    assert!(sent.unwrap().success(), "SIG{name} to {pid}");
}

/// A running `capstan run`. Dropping it kills it.
pub struct HostProcess {
    child: Child,
    record: Record,
}

impl HostProcess {
    /// Starts one against this control plane, with its files beside the control plane's.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(plane: &ControlPlane) -> Self {
        Self::start_program(&wasm::program(), plane)
    }

    /// As [`HostProcess::start`], with a program of the caller's.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_program(program: &std::path::Path, plane: &ControlPlane) -> Self {
        let kubeconfig = plane.user_kubeconfig(USER, &["system:masters"]).unwrap();
        let args = ["run", "--namespace", NAMESPACE].map(str::to_owned);
        Self::start_as(program, plane, "host", &kubeconfig, &args)
    }

    /// Starts one of several, with a name for its files, a kubeconfig and arguments of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_as(
        program: &std::path::Path,
        plane: &ControlPlane,
        name: &str,
        kubeconfig: &std::path::Path,
        args: &[String],
    ) -> Self {
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let mut argv = vec![text(program)];
        argv.extend_from_slice(args);
        argv.extend([
            "--kubeconfig".to_owned(),
            text(kubeconfig),
            "--cache-dir".to_owned(),
            text(&plane.dir().join(format!("{name}-cache"))),
            "--admin-listen".to_owned(),
            "0".to_owned(),
        ]);
        let spec = Spec {
            name: name.to_owned(),
            argv,
            cwd: None,
            env: Vec::new(),
            log: plane.dir().join(format!("{name}.log")),
            ports: Vec::new(),
        };
        let (child, record) = process::spawn(&spec, None).unwrap();
        Self { child, record }
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.record.pid, name);
    }

    /// What it has logged so far.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.record.log).unwrap()
    }

    /// The metrics that it serves now.
    ///
    /// # Errors
    /// When it does not answer yet.
    pub fn metrics(&self) -> Result<String, String> {
        let port = admin_port(&self.log()).ok_or("its log does not say where")?;
        scrape(port).map_err(|error| error.to_string())
    }

    /// Where its log is.
    pub fn log_path(&self) -> std::path::PathBuf {
        self.record.log.clone()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When that cannot be found out.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.record.pid
    }

    /// Whether it still runs, and if not, the end of its log.
    pub fn check(&self) -> Result<(), String> {
        if process::is_alive(&self.record) {
            return Ok(());
        }
        Err(process::log_tail(&self.record.log, 20))
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        // Fails only for a process that has already ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

/// The port of the admin endpoints of the host that wrote last into this log.
#[must_use]
pub fn admin_port(log: &str) -> Option<u16> {
    let (_, rest) = log.rsplit_once("capstan starts")?;
    let (_, rest) = rest.split_once("admin")?;
    let (_, rest) = rest.split_once("127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The metrics that the host with its admin endpoints at this port serves now.
///
/// # Errors
/// When it does not answer.
pub fn scrape(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
