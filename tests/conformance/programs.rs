//! The programs that hold the tests, as cargo builds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::table::Target;

/// A program of tests.
pub(crate) struct Program {
    /// What to run.
    pub(crate) executable: PathBuf,
    /// Its package's directory: tests run in it.
    pub(crate) dir: PathBuf,
    package: String,
    /// The test target's name; none of a library.
    test: Option<String>,
}

impl Program {
    /// Whether it holds the tests of this target.
    pub(crate) fn is(&self, target: Target) -> bool {
        (self.package.as_str(), self.test.as_deref()) == target.program()
    }

    /// What a line of cargo says was built, when it is a program of tests.
    fn of(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        let executable = PathBuf::from(text("/executable")?);
        let dir = Path::new(text("/manifest_path")?).parent()?.to_owned();
        // `path+file:///…/core#capstan-core@0.1.0`, or without a name when the directory has it.
        let (path, fragment) = text("/package_id")?.rsplit_once('#')?;
        let package = match fragment.split_once('@') {
            Some((name, _)) => name,
            None => path.rsplit('/').next()?,
        };
        let test = match text("/target/kind/0")? {
            "lib" | "cdylib" | "rlib" => None,
            "test" => Some(text("/target/name")?.to_owned()),
            _ => return None,
        };
        Some(Self {
            executable,
            dir,
            package: package.to_owned(),
            test,
        })
    }
}

/// Builds the tests of the whole workspace, as `just test` does, and says where each program is.
///
/// # Errors
/// When cargo fails; it has said why.
pub(crate) fn built() -> Result<Vec<Program>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--message-format",
            "json",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(Program::of).collect())
}
