//! The only place of this crate that prints: results to standard output, progress to standard
//! error. A reader that has gone away is not an error.

use std::io::{self, Write as _};

/// Prints a line of the result.
pub(crate) fn result(line: impl AsRef<str>) {
    let _: io::Result<()> = writeln!(io::stdout(), "{}", line.as_ref());
}

/// Prints what a program in a machine printed, as it is, to where it did.
pub(crate) fn of_program(stdout: &str, stderr: &str) {
    let _: io::Result<()> = io::stdout().write_all(stdout.as_bytes());
    let _: io::Result<()> = io::stderr().write_all(stderr.as_bytes());
    let _: io::Result<()> = io::stdout().flush();
}

/// Prints a line of progress.
pub(crate) fn progress(line: &str) {
    let _: io::Result<()> = writeln!(io::stderr(), "{line}");
}
