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

/// How long a value is as JSON text, without making it.
pub(crate) fn json_bytes(value: &serde_json::Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
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
    fn json_is_counted_as_it_is_written() {
        let value = serde_json::json!({"a": ["x\n", 1.5, null]});
        assert_eq!(json_bytes(&value), value.to_string().len());
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("a\n  b\tc\u{7}d", 100), "a b c d");
    }
}
