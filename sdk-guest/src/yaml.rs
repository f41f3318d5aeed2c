//! Reads YAML, and writes it in block style, with secret bytes left as handles for the host to fill in.
//!
//! What is written passes through cloud-init's jinja before it is read as YAML, so text with jinja markers is never written in a
//! style that changes its characters.

mod reader;

use serde_json::{Map, Value};

pub use reader::read;

use crate::bootstrap::SecretEncoding;

/// A value as a document.
#[must_use]
pub fn write(value: Value) -> String {
    let mut writer = Writer::default();
    writer.document(&Node::from(value), 0);
    let text = writer
        .into_parts()
        .into_iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(text),
            // A value has no secrets.
            Part::Secret { .. } => None,
        });
    text.collect()
}

/// A piece of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// A secret that the host fills in.
    Secret {
        /// The host's handle.
        handle: u64,
        /// How it is put in.
        encoding: SecretEncoding,
    },
}

/// A YAML node.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`, `true`, `1`: what has one spelling.
    Literal(String),
    /// A string, in whatever style keeps it.
    Text(String),
    /// A secret of one line without quotes or backslashes, such as a token.
    SecretLine(u64),
    /// A secret of any number of lines, as a block scalar. `chomp` is the indicator: empty for one newline at the end, `-` for none.
    SecretBlock {
        /// The host's handle.
        handle: u64,
        /// Chomping indicator.
        chomp: &'static str,
    },
    /// A secret as base64 text.
    SecretBase64(u64),
    /// YAML documents inside a block scalar.
    Documents(Vec<Node>),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in this order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A mapping.
    #[must_use]
    pub fn map<const N: usize>(entries: [(&str, Node); N]) -> Node {
        Node::Map(
            entries
                .into_iter()
                .map(|(key, node)| (key.to_owned(), node))
                .collect(),
        )
    }

    /// A string.
    pub fn text(text: impl Into<String>) -> Node {
        Node::Text(text.into())
    }

    /// `true` or `false`.
    #[must_use]
    pub fn bool(value: bool) -> Node {
        Node::Literal(value.to_string())
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Node {
        match value {
            Value::String(text) => Node::Text(text),
            Value::Array(items) => Node::List(items.into_iter().map(Node::from).collect()),
            Value::Object(entries) => Node::from(entries),
            literal => Node::Literal(literal.to_string()),
        }
    }
}

impl From<Map<String, Value>> for Node {
    fn from(entries: Map<String, Value>) -> Node {
        Node::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key, Node::from(value)))
                .collect(),
        )
    }
}

/// Collects parts; neighbouring text becomes one part.
#[derive(Debug, Default)]
pub struct Writer {
    parts: Vec<Part>,
}

impl Writer {
    /// What was written.
    #[must_use]
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        if let Some(Part::Text(last)) = self.parts.last_mut() {
            last.push_str(text);
        } else {
            self.parts.push(Part::Text(text.to_owned()));
        }
    }

    /// Adds a secret.
    pub fn secret(&mut self, handle: u64, encoding: SecretEncoding) {
        self.parts.push(Part::Secret { handle, encoding });
    }

    fn spaces(&mut self, count: usize) {
        self.text(&" ".repeat(count));
    }

    /// Adds documents, every line preceded by `indent` spaces.
    pub fn documents(&mut self, documents: &[Node], indent: usize) {
        for (position, document) in documents.iter().enumerate() {
            if position > 0 {
                self.spaces(indent);
                self.text("---\n");
            }
            self.document(document, indent);
        }
    }

    /// Adds a document whose root is a mapping, every line preceded by `indent` spaces.
    pub fn document(&mut self, node: &Node, indent: usize) {
        match node {
            Node::Map(entries) if !entries.is_empty() => self.entries(entries, indent, false),
            Node::List(items) if !items.is_empty() => self.items(items, indent, false),
            scalar => {
                self.spaces(indent);
                self.scalar(scalar, indent);
            }
        }
    }

    fn entries(&mut self, entries: &[(String, Node)], indent: usize, first_is_placed: bool) {
        for (position, (key, node)) in entries.iter().enumerate() {
            if position > 0 || !first_is_placed {
                self.spaces(indent);
            }
            self.text(&scalar_text(key).unwrap_or_else(|| double_quoted(key)));
            self.text(":");
            match node {
                Node::Map(inner) if !inner.is_empty() => {
                    self.text("\n");
                    self.entries(inner, indent.saturating_add(2), false);
                }
                Node::List(items) if !items.is_empty() => {
                    self.text("\n");
                    self.items(items, indent, false);
                }
                scalar => {
                    self.text(" ");
                    self.scalar(scalar, indent);
                }
            }
        }
    }

    fn items(&mut self, items: &[Node], indent: usize, first_is_placed: bool) {
        for (position, item) in items.iter().enumerate() {
            if position > 0 || !first_is_placed {
                self.spaces(indent);
            }
            self.text("- ");
            match item {
                Node::List(inner) if !inner.is_empty() => {
                    self.items(inner, indent.saturating_add(2), true)
                }
                Node::Map(inner) if !inner.is_empty() => {
                    self.entries(inner, indent.saturating_add(2), true)
                }
                scalar => self.scalar(scalar, indent),
            }
        }
    }

    /// Writes a node behind a key or a dash, with the newline at its end. `indent` is the column of its parent.
    fn scalar(&mut self, node: &Node, indent: usize) {
        let inner = indent.saturating_add(2);
        match node {
            Node::Literal(literal) => self.line(literal),
            Node::Text(text) => match scalar_text(text) {
                Some(line) => self.line(&line),
                None if is_block_safe(text) => self.block(text, inner),
                None => self.line(&double_quoted(text)),
            },
            Node::SecretLine(handle) => {
                self.text("\"");
                self.secret(*handle, SecretEncoding::Plain);
                self.text("\"\n");
            }
            Node::SecretBlock { handle, chomp } => {
                // The explicit indentation keeps content that begins with spaces.
                self.text(&format!("|2{chomp}\n"));
                self.secret(
                    *handle,
                    SecretEncoding::Indent(u32::try_from(inner).unwrap_or(u32::MAX)),
                );
                self.text("\n");
            }
            Node::SecretBase64(handle) => {
                self.secret(*handle, SecretEncoding::Base64);
                self.text("\n");
            }
            Node::Documents(documents) => {
                self.text("|\n");
                self.documents(documents, inner);
            }
            // Both are empty here: others are written by `entries` and `items`.
            Node::List(_) => self.line("[]"),
            Node::Map(_) => self.line("{}"),
        }
    }

    fn line(&mut self, text: &str) {
        self.text(text);
        self.text("\n");
    }

    fn block(&mut self, text: &str, indent: usize) {
        let body = text.trim_end_matches('\n');
        let newlines = text.len().saturating_sub(body.len());
        self.text(match newlines {
            0 => "|-\n",
            1 => "|\n",
            _ => "|+\n",
        });
        for line in body.split('\n') {
            if !line.is_empty() {
                self.spaces(indent);
            }
            self.line(line);
        }
        self.text(&"\n".repeat(newlines.saturating_sub(1)));
    }
}

/// The text on one line, in the plainest style that keeps it; `None` when it needs a block or escapes.
fn scalar_text(text: &str) -> Option<String> {
    if is_plain(text) {
        return Some(text.to_owned());
    }
    if text.chars().any(is_special) {
        return None;
    }
    let has_quote = text.contains('\'');
    if !(has_quote && has_jinja(text)) {
        return Some(format!("'{}'", text.replace('\'', "''")));
    }
    // A doubled quote would reach jinja, which reads the text first.
    (!text.contains(['"', '\\'])).then(|| format!("\"{text}\""))
}

fn has_jinja(text: &str) -> bool {
    ["{{", "{%", "{#"]
        .iter()
        .any(|marker| text.contains(marker))
}

/// Whether every YAML reader takes the bare text for this string.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let first = text.chars().next();
    first.is_some_and(|first| first.is_ascii_alphabetic() || first == '/')
        && text
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "/._-".contains(character))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Characters that YAML does not take as they are.
fn is_special(character: char) -> bool {
    character.is_control() || matches!(character, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

/// Whether a block scalar keeps the text.
fn is_block_safe(text: &str) -> bool {
    !text.starts_with([' ', '\n', '\t'])
        && !text.trim_end_matches('\n').is_empty()
        && text
            .chars()
            .all(|character| matches!(character, '\n' | '\t') || !is_special(character))
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            special if is_special(special) => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(special)))
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
