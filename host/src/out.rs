//! The only place of this program that prints: results to standard output, errors to standard error. A reader that has gone
//! away is not an error.

use std::io::{self, Write as _};

/// Prints the result of a command.
pub(crate) fn result(text: &str) {
    let _: io::Result<()> = writeln!(io::stdout(), "{text}");
}

/// Prints a line that says what is wrong.
pub(crate) fn complaint(text: &str) {
    let _: io::Result<()> = writeln!(io::stderr(), "{text}");
}

/// Prints why a command failed, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    let _: io::Result<()> = writeln!(io::stderr(), "{text}");
}
