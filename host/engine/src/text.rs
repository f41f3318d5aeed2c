//! Makes foreign text fit for conditions and logs: bounded, one line where one line is wanted.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

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

/// The text without anything that a terminal, or a reader of lines, takes for more than text: those characters are written out.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters, ends of lines and paragraphs, and what turns the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many values JSON text can have at the most: each but the first comes after a comma or an opening bracket.
pub fn json_values(text: impl AsRef<[u8]>) -> usize {
    let (mut count, mut quoted, mut is_escaped) = (1_usize, false, false);
    for byte in text.as_ref() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if quoted => is_escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => count = count.saturating_add(1),
            _ => {}
        }
    }
    count
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
    counted(value, CompactFormatter)
}

/// The same of an answer, in which lists of bytes are as long as they are.
pub(crate) fn answer_bytes(answer: &impl Serialize) -> usize {
    counted(answer, Bytewise)
}

/// Writes a byte as one character and nothing between the entries of lists.
struct Bytewise;

impl Formatter for Bytewise {
    fn write_u8<W: ?Sized + io::Write>(&mut self, writer: &mut W, _: u8) -> io::Result<()> {
        writer.write_all(b"0")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W, _: bool) -> io::Result<()> {
        Ok(())
    }
}

fn counted(value: &impl Serialize, formatter: impl Formatter) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    let mut serializer = serde_json::Serializer::with_formatter(&mut count, formatter);
    match value.serialize(&mut serializer) {
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
        assert_eq!(answer_bytes(&[0_u8, 200, 255]), "[000]".len());
        assert_eq!(answer_bytes(&("a", 1_u32)), "[\"a\"1]".len());
    }

    #[test]
    fn values_are_counted_where_they_are() {
        for (text, count) in [
            ("1", 1),
            (r#"{"a":[1,2,3],"b":{}}"#, 7),
            (r#""[[[,,,\"[[[""#, 1),
            (r#"["a\\",1]"#, 3),
        ] {
            assert_eq!(json_values(text), count, "{text}");
        }
    }

    #[test]
    fn what_would_begin_a_line_of_its_own_is_written_out() {
        let forged =
            "fine\n2026-01-01T00:00:00Z ERROR capstan: gone\r\u{1b}[2Kx\u{2028}y\u{202e}z\u{85}";
        let shown = escaped(forged);
        assert_eq!(
            shown,
            "fine\\n2026-01-01T00:00:00Z ERROR capstan: gone\\r\\u{1b}[2Kx\\u{2028}y\\u{202e}z\\u{85}"
        );
        assert_eq!(escaped("a häuser \"x\" \\ ok"), "a häuser \"x\" \\ ok");
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("a\n  b\tc\u{7}d", 100), "a b c d");
    }
}
