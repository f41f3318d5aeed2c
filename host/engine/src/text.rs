//! Makes foreign text fit for conditions and logs: bounded, one line where one line is wanted.

/// The beginning of the text, at most so many bytes, ending at a character.
pub(crate) fn clipped(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// One line: control characters and runs of white space become single spaces.
pub(crate) fn one_line(text: &str, bytes: usize) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    clipped(&line, bytes).to_owned()
}

/// An error and its causes in one line, without a host backtrace.
pub(crate) fn chain_of(error: &wasmtime::Error, bytes: usize) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    one_line(&text, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_at_characters() {
        assert_eq!(clipped("häuser", 2), "h");
        assert_eq!(clipped("häuser", 3), "hä");
        assert_eq!(clipped("x", 10), "x");
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("a\n  b\tc\u{7}d", 100), "a b c d");
    }
}
