//! Runs the system's own programs (`mount`, `ip`, `nsenter`, ...) and says what they said when they fail.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where such programs are, also for somebody whose own PATH lacks the `sbin` directories.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The caller's PATH with the system's directories behind it.
pub(crate) fn path() -> String {
    match std::env::var("PATH") {
        Ok(own) if !own.is_empty() => format!("{own}:{SYSTEM_PATH}"),
        _ => SYSTEM_PATH.to_owned(),
    }
}

/// A command of the system that reads nothing.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", path()).stdin(Stdio::null());
    command
}

/// Where a program is, if it is there.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    path()
        .split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs a program with words as its arguments, to its end; its standard output.
pub(crate) fn run<T: AsRef<OsStr>>(program: &str, arguments: &[T]) -> io::Result<String> {
    let output = command(program)
        .args(arguments)
        .output()
        .map_err(|source| named(program, &source))?;
    finished(program, arguments, output)
}

/// Runs a program that reads `input`.
pub(crate) fn feed<T: AsRef<OsStr>>(
    program: &str,
    arguments: &[T],
    input: &str,
) -> io::Result<String> {
    let mut child = command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| named(program, &source))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It ended before it had read everything: its own words say why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    finished(program, arguments, child.wait_with_output()?)
}

fn named(program: &str, source: &io::Error) -> io::Error {
    io::Error::new(source.kind(), format!("{program}: {source}"))
}

fn finished<T: AsRef<OsStr>>(
    program: &str,
    arguments: &[T],
    output: std::process::Output,
) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.as_ref().to_string_lossy().into_owned())
        .collect();
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty());
    Err(io::Error::other(format!(
        "{program} {}: {}",
        words.join(" "),
        said.map_or_else(
            || crate::process::describe_exit(output.status),
            |line| line.trim().to_owned()
        )
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_program_said() {
        assert_eq!(run("echo", &["a"]).unwrap(), "a\n");
        assert_eq!(feed("cat", &[] as &[&str], "b").unwrap(), "b");
        let error = run("sh", &["-c", "echo broken >&2; exit 3"]).unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo broken >&2; exit 3: broken");
        let error = run("capstan-no-such-program", &[] as &[&str]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().starts_with("capstan-no-such-program: "));
    }
}
