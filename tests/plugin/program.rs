//! Runs the built program and says what came of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use capstan_tests::wasm;
use serde_json::Value;

/// What a run of the program answered.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The answer, where the program was asked for JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `capstan plugin` with these arguments.
pub fn plugin(arguments: &[&str]) -> Run {
    plugin_in(Path::new("."), arguments)
}

/// The same in another directory.
pub fn plugin_in(dir: &Path, arguments: &[&str]) -> Run {
    let output = Command::new(wasm::program())
        .arg("plugin")
        .args(arguments)
        .current_dir(dir)
        .env(
            "XDG_CACHE_HOME",
            wasm::target_dir().join("plugin-test-cache"),
        )
        .env("DOCKER_CONFIG", "/nonexistent")
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Where a built plugin or guest is.
pub fn file(package: &str) -> PathBuf {
    let name = format!("{}.wasm", package.replace('-', "_"));
    wasm::target_dir().join("wasm32-wasip2/plugin").join(name)
}
