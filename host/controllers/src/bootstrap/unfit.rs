//! What of a user's is in the way when the parts of bootstrap data cannot be joined: a Secret that is not text, or more than there is
//! room for. What is not the user's is the plugin's.

use capstan_api::name::ObjectKey;
use capstan_api::reason::failure;
use capstan_core::call::SecretHandle;
use capstan_core::call::bootstrap::Part;
use capstan_core::call::material::{Material, MaterialValue, Requirement};
use capstan_core::material::{DATA_BYTES_MAX, JoinError, requirement_name, secret_key};
use capstan_core::plan::Failure;
use serde_json::Value;

/// How many of the largest things are named.
const NAMED: usize = 3;

/// Where the secrets of one call come from.
pub(super) struct Origins<'a> {
    requirements: &'a [Requirement],
    /// Names of requirements by the handles that were given for them.
    names: Vec<(SecretHandle, String)>,
}

impl<'a> Origins<'a> {
    /// Those of this material.
    pub(super) fn of(requirements: &'a [Requirement], material: &[Material]) -> Self {
        let names = material.iter().filter_map(|material| match material.value {
            MaterialValue::Secret(handle) => Some((handle, material.name.clone())),
            MaterialValue::Text(_) => None,
        });
        Self {
            requirements,
            names: names.collect(),
        }
    }

    fn requirement(&self, handle: SecretHandle) -> Option<&'a Requirement> {
        let (_, name) = self.names.iter().find(|(known, _)| *known == handle)?;
        self.requirements
            .iter()
            .find(|requirement| requirement_name(requirement) == name)
    }

    /// The Secret that a part's bytes are from; none for what the host makes for this machine only.
    fn secret(&self, part: &Part, cluster: &ObjectKey) -> Option<String> {
        let Part::Secret(handle, _) = part else {
            return None;
        };
        match self.requirement(*handle)? {
            Requirement::SecretValue { secret, key, .. } => Some(format!(
                "Secret {}, key {key},",
                ObjectKey::new(cluster.namespace.clone(), secret.as_str())
            )),
            Requirement::CertificateAuthority { name, .. }
            | Requirement::KeyPair { name, .. }
            | Requirement::SharedSecret { name, .. } => {
                Some(format!("Secret {}", secret_key(cluster, name)))
            }
            Requirement::JoinToken { .. } => None,
        }
    }
}

/// Why the parts of an answer were not joined.
pub(super) fn why(
    error: &JoinError,
    parts: &[Part],
    origins: &Origins<'_>,
    (config, cluster): (&Value, &ObjectKey),
    length: impl Fn(SecretHandle) -> usize,
) -> Failure {
    let secret = |part: &usize| {
        let part = parts.get(*part)?;
        origins.secret(part, cluster)
    };
    match error {
        JoinError::NotText { part } | JoinError::NotJson { part } => secret(part).map(|secret| {
            format!("{secret} is not text: keep it there as base64 and say encoding: base64, say encoding: gzip if it is that, or use format: ignition")
        }),
        JoinError::Unprintable { part } => secret(part).map(|secret| {
            format!("{secret} has control characters or lone carriage returns, which YAML has no place for: remove them, keep it there as base64 and say encoding: base64, or use format: ignition")
        }),
        JoinError::TooLarge => {
            return Failure::terminal(
                failure::BOOTSTRAP_DATA_TOO_LARGE,
                too_large(parts, origins, config, cluster, length),
            );
        }
        JoinError::UnknownHandle { .. } | JoinError::Indent { .. } => None,
    }
    .map_or_else(
        || Failure::terminal(failure::PLUGIN_BAD_ANSWER, error.to_string()),
        |message| Failure::terminal(failure::SECRET_NOT_TEXT, message),
    )
}

fn too_large(
    parts: &[Part],
    origins: &Origins<'_>,
    config: &Value,
    cluster: &ObjectKey,
    length: impl Fn(SecretHandle) -> usize,
) -> String {
    let mut all: Vec<(usize, String)> = Vec::new();
    for part in parts {
        if let (Part::Secret(handle, _), Some(secret)) = (part, origins.secret(part, cluster)) {
            all.push((length(*handle), secret.trim_end_matches(',').to_owned()));
        }
    }
    let files = config.pointer("/spec/files").and_then(Value::as_array);
    for (position, file) in files.into_iter().flatten().enumerate() {
        if let Some(content) = file.get("content").and_then(Value::as_str) {
            all.push((content.len(), format!("spec.files[{position}].content")));
        }
    }
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    all.dedup();
    let named = all.iter().take(NAMED);
    let named: Vec<String> = named
        .map(|(bytes, what)| format!("{what} ({bytes} bytes)"))
        .collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let largest = match named.as_slice() {
        [] => String::new(),
        named => format!("; the largest of it: {}{more}", named.join(", ")),
    };
    format!(
        "the bootstrap data is larger than {DATA_BYTES_MAX} bytes, for which a Secret has room: let a command of the machine fetch what is large{largest}"
    )
}

#[cfg(test)]
mod tests {
    use capstan_core::call::bootstrap::SecretEncoding;
    use capstan_core::material::join;
    use serde_json::json;

    use super::*;

    /// What is said of these bytes in a place that takes text only, when they are this requirement's.
    fn said(requirement: Requirement, bytes: &[u8], encoding: SecretEncoding) -> Failure {
        let material = Material {
            name: requirement_name(&requirement).to_owned(),
            part: "value".to_owned(),
            value: MaterialValue::Secret(SecretHandle(1)),
        };
        let parts = [
            Part::Text("a: |\n".to_owned()),
            Part::Secret(SecretHandle(1), encoding),
        ];
        let error = join(&parts, |_| Some(bytes)).unwrap_err();
        let requirements = [requirement];
        let origins = Origins::of(&requirements, &[material]);
        let config = json!({"spec": {"files": [
            {"content": "short"}, {"content": "longer"}, {"path": "/a"}, {"content": "a"}, {"content": "b"},
        ]}});
        let cluster = ObjectKey::new("n", "c");
        why(&error, &parts, &origins, (&config, &cluster), |_| {
            bytes.len()
        })
    }

    fn value() -> Requirement {
        Requirement::SecretValue {
            name: "file-0".to_owned(),
            secret: "own".to_owned(),
            key: "k".to_owned(),
            template: Vec::new(),
        }
    }

    #[test]
    fn a_secret_that_is_no_text_is_named_and_not_the_plugin() {
        let (indent, inside) = (SecretEncoding::Indent(2), SecretEncoding::JsonString);
        for (bytes, encoding, says) in [
            (&[0xff_u8][..], indent, "is not text"),
            (&[0xff], inside, "is not text"),
            (b"a\x07", indent, "control characters"),
        ] {
            let failure = said(value(), bytes, encoding);
            assert_eq!(failure.reason, "SecretNotText");
            for part in [
                "Secret n/own, key k, ",
                says,
                "encoding: base64",
                "format: ignition",
            ] {
                assert!(
                    failure.message.contains(part),
                    "{part}: {}",
                    failure.message
                );
            }
        }
        let kept = Requirement::KeyPair {
            name: "sa".to_owned(),
            algorithm: String::new(),
        };
        let failure = said(kept, &[0xff], indent);
        assert!(
            failure.message.starts_with("Secret n/c-sa is not text"),
            "{}",
            failure.message
        );
        // The rest is the plugin's.
        let failure = said(value(), b"a", SecretEncoding::Indent(65));
        assert_eq!(failure.reason, "PluginBadAnswer");
    }

    #[test]
    fn what_there_is_no_room_for_is_named_by_size() {
        let bytes = vec![b'a'; DATA_BYTES_MAX];
        let failure = said(value(), &bytes, SecretEncoding::Plain);
        assert_eq!(failure.reason, "BootstrapDataTooLarge");
        let largest = "the largest of it: Secret n/own, key k (1000000 bytes), spec.files[1].content (6 bytes), spec.files[0].content (5 bytes) and 2 more";
        assert!(failure.message.ends_with(largest), "{}", failure.message);
    }
}
