//! Reads user data as cloud-init does: jinja rendering, `#cloud-config` YAML, files with their encodings, commands.

mod user;

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub use user::User;

/// What user data can refer to about its machine.
#[derive(Debug, Clone)]
pub struct MachineFacts {
    /// Host name, the instance's name.
    pub hostname: String,
    /// Instance id.
    pub instance_id: String,
    /// Provider id.
    pub provider_id: String,
    /// The machine's address.
    pub address: String,
    /// Zone.
    pub zone: String,
}

/// Why user data is of no use. The messages carry no content of files.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserDataError {
    /// Not text.
    #[error("the user data is not UTF-8 text")]
    NotText,
    /// Compressed, and broken.
    #[error("{0} cannot be decompressed with gzip")]
    Gzip(String),
    /// Not a cloud-config.
    #[error("the user data does not start with \"#cloud-config\"")]
    NotCloudConfig,
    /// Jinja that cannot be rendered.
    #[error("the user data is a jinja template that cannot be rendered: {0}")]
    Jinja(String),
    /// Not YAML.
    #[error("the cloud-config is not valid YAML: {0}")]
    Yaml(String),
    /// A part has the wrong shape.
    #[error("cloud-config {0}: {1}")]
    Part(String, String),
}

/// A file that the user data wants.
#[derive(Clone, PartialEq, Eq)]
pub struct UserFile {
    /// Content after decoding.
    pub content: Vec<u8>,
    /// Mode, as octal digits.
    pub permissions: String,
    /// `user:group`.
    pub owner: String,
    /// Whether the content comes behind what the file holds already.
    pub appends: bool,
    /// Whether it is written at the end, when users and packages are there.
    pub deferred: bool,
}

impl std::fmt::Debug for UserFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserFile")
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// User data, taken apart.
#[derive(Debug, Default)]
pub struct UserData {
    /// Files by path.
    pub files: BTreeMap<String, UserFile>,
    /// Commands that run early in every boot.
    pub boot_commands: Vec<String>,
    /// Commands that run once, at the end of the first boot.
    pub commands: Vec<String>,
    /// Users to make.
    pub users: Vec<User>,
    /// Other parts that are there, as they are.
    pub others: Vec<(String, Value)>,
}

fn gunzip(what: &str, data: &[u8]) -> Result<Vec<u8>, UserDataError> {
    let mut out = Vec::new();
    let limit = 16 * 1024 * 1024;
    flate2::read::MultiGzDecoder::new(data)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|_| UserDataError::Gzip(what.to_owned()))?;
    Ok(out)
}

impl UserData {
    /// Takes user data apart for this machine.
    ///
    /// # Errors
    ///
    /// Says which part is wrong, as the machine's console shows it.
    pub fn parse(data: &[u8], facts: &MachineFacts) -> Result<Self, UserDataError> {
        let unpacked;
        let data = if data.starts_with(&[0x1f, 0x8b]) {
            unpacked = gunzip("the user data", data)?;
            unpacked.as_slice()
        } else {
            data
        };
        let text = std::str::from_utf8(data).map_err(|_| UserDataError::NotText)?;
        let mut lines = text.trim_start().lines();
        let first = lines.next().unwrap_or_default().trim();
        let is_template = first.starts_with("## template:") && first.contains("jinja");
        let header = if is_template {
            lines.next().unwrap_or_default().trim()
        } else {
            first
        };
        if header != "#cloud-config" {
            return Err(UserDataError::NotCloudConfig);
        }
        let rendered = if is_template {
            render(text, facts)?
        } else {
            text.to_owned()
        };
        let config: Value = serde_saphyr::from_str(&rendered).map_err(|error| {
            let message = error.to_string();
            UserDataError::Yaml(message.lines().next().unwrap_or_default().to_owned())
        })?;
        Self::from_config(&config)
    }

    fn from_config(config: &Value) -> Result<Self, UserDataError> {
        let mut data = Self::default();
        let Some(parts) = config.as_object() else {
            return if config.is_null() {
                Ok(data)
            } else {
                Err(UserDataError::Yaml("the document is not a mapping".into()))
            };
        };
        for (name, part) in parts {
            match name.as_str() {
                "write_files" => data.read_files(part)?,
                "bootcmd" => data.boot_commands = commands(name, part)?,
                "runcmd" => data.commands = commands(name, part)?,
                "users" => data.users = User::read(part)?,
                other => data.others.push((other.to_owned(), part.clone())),
            }
        }
        Ok(data)
    }

    fn read_files(&mut self, part: &Value) -> Result<(), UserDataError> {
        if part.is_null() {
            return Ok(());
        }
        let Some(files) = part.as_array() else {
            return Err(UserDataError::Part(
                "write_files".into(),
                "is not a list".into(),
            ));
        };
        for (at, file) in files.iter().enumerate() {
            let wrong =
                |why: &str| UserDataError::Part(format!("write_files[{at}]"), why.to_owned());
            let text = |key: &str| file.get(key).and_then(Value::as_str).unwrap_or_default();
            let path = text("path").to_owned();
            if !path.starts_with('/') {
                return Err(wrong("path is missing or not absolute"));
            }
            let raw = match file.get("content") {
                Some(Value::String(content)) => content.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            let content = decode(&path, text("encoding"), raw).map_err(|why| wrong(&why))?;
            let or = |text: &str, default: &str| {
                if text.is_empty() {
                    default.to_owned()
                } else {
                    text.to_owned()
                }
            };
            let permissions = match file.get("permissions") {
                Some(Value::Number(number)) => number.to_string(),
                _ => or(text("permissions"), "0644"),
            };
            let is = |key: &str| file.get(key).and_then(Value::as_bool) == Some(true);
            let file = UserFile {
                content,
                permissions,
                owner: or(text("owner"), "root:root"),
                appends: is("append"),
                deferred: is("defer"),
            };
            match self.files.get_mut(&path) {
                Some(present) if file.appends => present.content.extend(file.content),
                _ => {
                    self.files.insert(path, file);
                }
            }
        }
        Ok(())
    }

    /// The text of a file that the user data wrote.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(&self.files.get(path)?.content).ok()
    }
}

fn decode(path: &str, encoding: &str, content: String) -> Result<Vec<u8>, String> {
    let from_base64 = |content: String| {
        let compact: String = content.split_whitespace().collect();
        STANDARD
            .decode(compact)
            .map_err(|_| format!("the content of {path} is not base64"))
    };
    let unzip = |content: &[u8]| {
        gunzip(&format!("the content of {path}"), content).map_err(|error| error.to_string())
    };
    match encoding.to_ascii_lowercase().as_str() {
        "" | "text/plain" => Ok(content.into_bytes()),
        "b64" | "base64" => from_base64(content),
        "gz" | "gzip" => unzip(content.as_bytes()),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => unzip(&from_base64(content)?),
        other => Err(format!("the encoding {other:?} of {path} is not known")),
    }
}

fn commands(name: &str, part: &Value) -> Result<Vec<String>, UserDataError> {
    if part.is_null() {
        return Ok(Vec::new());
    }
    let wrong = |why: &str| UserDataError::Part(name.to_owned(), why.to_owned());
    let list = part.as_array().ok_or_else(|| wrong("is not a list"))?;
    list.iter()
        .map(|command| match command {
            Value::String(line) => Ok(line.clone()),
            Value::Array(words) => {
                let words: Vec<String> = words
                    .iter()
                    .map(|word| {
                        word.as_str()
                            .map_or_else(|| word.to_string(), str::to_owned)
                    })
                    .map(|word| quoted(&word))
                    .collect();
                Ok(words.join(" "))
            }
            _ => Err(wrong("a command is neither a string nor a list")),
        })
        .collect()
}

/// A word as a shell reads it as one.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | '@' | '%' | '+' | ',')
    };
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Renders the variables of the machine's metadata; nothing else of jinja.
fn render(text: &str, facts: &MachineFacts) -> Result<String, UserDataError> {
    if text.contains("{%") {
        return Err(UserDataError::Jinja(
            "statements ({% ... %}) are not supported".into(),
        ));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((expression, tail)) = after.split_once("}}") else {
            return Err(UserDataError::Jinja("a \"{{\" has no \"}}\"".into()));
        };
        out.push_str(&variable(expression.trim(), facts)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(expression: &str, facts: &MachineFacts) -> Result<String, UserDataError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if expression.is_empty() || !expression.chars().all(is_name) {
        return Err(UserDataError::Jinja(format!(
            "{expression:?} is not the name of a variable"
        )));
    }
    let name = expression
        .strip_prefix("ds.meta_data.")
        .or_else(|| expression.strip_prefix("v1."))
        .unwrap_or(expression);
    let value = match name {
        "local_hostname" | "hostname" => &facts.hostname,
        "instance_id" | "instance-id" => &facts.instance_id,
        "provider_id" => &facts.provider_id,
        "local_ipv4" => &facts.address,
        "availability_zone" | "zone" => &facts.zone,
        "region" | "cloud_name" | "platform" => return Ok("local".into()),
        _ => {
            return Ok(format!(
                "CI_MISSING_JINJA_VAR/{}",
                expression.rsplit('.').next().unwrap_or_default()
            ));
        }
    };
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> MachineFacts {
        MachineFacts {
            hostname: "m-1".into(),
            instance_id: "i-1".into(),
            provider_id: "local:///zone-a/i-1".into(),
            address: "127.70.0.1".into(),
            zone: "zone-a".into(),
        }
    }

    #[test]
    fn renders_the_host_name_and_reads_every_encoding() {
        let text = "## template: jinja\n#cloud-config\nwrite_files:\n\
            - {path: /a, content: '{{ ds.meta_data.local_hostname }}', permissions: '0600', owner: 'a:b'}\n\
            - {path: /b, content: aGk=, encoding: base64}\n- {path: /b, content: '!', append: true}\n\
            - {path: /c, encoding: gzip+base64, content: H4sIAAAAAAACA8vIBACsKpPYAgAAAA==}\n\
            runcmd:\n- echo a\n- [echo, b, \"it's\", 3]\nusers:\n- name: x\n";
        let data = UserData::parse(text.as_bytes(), &facts()).unwrap();
        assert_eq!(data.text("/a"), Some("m-1"));
        assert_eq!(
            (
                data.files["/a"].permissions.as_str(),
                data.files["/a"].owner.as_str()
            ),
            ("0600", "a:b")
        );
        assert_eq!(data.text("/b"), Some("hi!"));
        assert_eq!(data.text("/c"), Some("hi"));
        assert_eq!(data.commands, ["echo a", "echo b 'it'\\''s' 3"]);
        assert_eq!(data.users.len(), 1);
        assert_eq!(data.users[0].name, "x");
    }

    #[test]
    fn says_what_is_wrong() {
        let wrong = |text: &str| {
            UserData::parse(text.as_bytes(), &facts())
                .unwrap_err()
                .to_string()
        };
        assert!(wrong("#!/bin/sh\n").contains("#cloud-config"));
        assert!(wrong("#cloud-config\na: [\n").contains("not valid YAML"));
        assert!(wrong("#cloud-config\nwrite_files:\n- {path: a}\n").contains("write_files[0]"));
        assert!(
            wrong("#cloud-config\nwrite_files:\n- {path: /a, encoding: base64, content: '%%'}\n")
                .contains("not base64")
        );
        assert!(wrong("#cloud-config\nruncmd: 3\n").contains("runcmd"));
        assert!(wrong("## template: jinja\n#cloud-config\na: '{{ b'\n").contains("jinja"));
    }
}
