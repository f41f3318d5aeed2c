//! Schema fragments that several kinds share: patterns, list kinds and types that Kubernetes defines.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A DNS-1123 subdomain, such as an API group or an object name.
pub const DNS_SUBDOMAIN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A DNS-1123 label, such as a namespace name.
pub const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A Kubernetes kind.
pub const KIND: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";

/// `group/version`.
pub const API_VERSION: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[a-z]([-a-z0-9]*[a-z0-9])?$";

/// A condition type, with or without a domain before it.
pub const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// A taint key, which has the form of a label key.
pub const TAINT_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";

/// A label value.
pub const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// A range of machine counts, `[3-5]`.
pub const COUNT_RANGE: &str = r"^\[[0-9]+-[0-9]+\]$";

/// A condition's reason.
pub const CONDITION_REASON: &str = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// Schema of `status.conditions`: a list-map by type, at most 32 items.
///
/// Bounds are those of `metav1.Condition`: type 316, reason 1024, message 32768 characters.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": condition_item(),
    })
}

/// The schema of one condition, also for kinds that plugins bring.
pub fn condition_item() -> Value {
    json!({
        "type": "object",
        "description": "One observation about the object: what is observed, whether it holds, and why.",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "lastTransitionTime": {
                "type": "string", "format": "date-time",
                "description": "When status last changed; a change of reason or message alone does not move it.",
            },
            "message": {
                "type": "string", "maxLength": 32768,
                "description": "Details for a person: what is wrong and what would fix it. May be empty.",
            },
            "observedGeneration": {
                "type": "integer", "format": "int64", "minimum": 0,
                "description": "The metadata.generation that this observation is about.",
            },
            "reason": {
                "type": "string", "minLength": 1, "maxLength": 1024, "pattern": CONDITION_REASON,
                "description": "The cause of the current status as one CamelCase word.",
            },
            "status": {
                "type": "string", "enum": ["True", "False", "Unknown"],
                "description": "Whether the observation holds: True, False or Unknown.",
            },
            "type": {
                "type": "string", "maxLength": 316, "pattern": CONDITION_TYPE,
                "description": "What is observed, in CamelCase, optionally behind a domain and a slash.",
            },
        },
    })
}

/// Schema of a label selector with the operators that exist, so that a selector always parses.
pub fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 100,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "description": "Labels that must be present with exactly these values.",
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 100,
                "x-kubernetes-list-type": "atomic",
                "description": "Requirements on labels; all of them must hold.",
                "items": {
                    "type": "object",
                    "description": "One requirement on one label.",
                    "required": ["key", "operator"],
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
                        "message": "values are needed for In and NotIn, and must be left out for Exists and DoesNotExist",
                    }],
                    "properties": {
                        "key": {"type": "string", "description": "Key of the label."},
                        "operator": {
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label relates to values: In, NotIn, Exists or DoesNotExist.",
                        },
                        "values": {
                            "type": "array",
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string"},
                            "description": "Values for In and NotIn; empty for Exists and DoesNotExist.",
                        },
                    },
                },
            },
        },
    })
}

/// Schema of a value that may be a count or a percentage, such as `1` or `25%`.
///
/// Numbers are checked by `minimum` and text by `pattern`; neither costs anything of the server's budget for rules.
pub fn int_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maxLength": 16,
        "pattern": "^[0-9]+%$",
    })
}

/// A semantic version with the leading `v`.
pub const VERSION_RULE: &str = r"self.matches('^v(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z-]+([.][0-9A-Za-z-]+)*)?([+][0-9A-Za-z-]+([.][0-9A-Za-z-]+)*)?$')";

/// Adds the rule that a text is a semantic version with the leading `v`.
pub fn version_rule(schema: &mut Schema) {
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{
            "rule": VERSION_RULE, "message": "must be a version such as v1.36.0",
        }]),
    );
}

/// Adds the rule that a value cannot be changed.
pub fn immutable(schema: &mut Schema) {
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{
            "rule": "self == oldSelf", "message": "cannot be changed",
        }]),
    );
}

/// Schema of a value of any type, kept as it was written.
pub fn any_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Schema of an object with any members, kept as it was written.
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Removes `default` from a schema and all schemas inside it: what a template leaves out stays out.
pub fn without_defaults(schema: &mut Schema) {
    fn strip(value: &mut Value) {
        let Value::Object(map) = value else { return };
        map.remove("default");
        for (key, member) in map.iter_mut() {
            match key.as_str() {
                "properties" => {
                    if let Value::Object(properties) = member {
                        properties.values_mut().for_each(strip);
                    }
                }
                "items" | "additionalProperties" => strip(member),
                "anyOf" | "allOf" | "oneOf" => {
                    if let Value::Array(branches) = member {
                        branches.iter_mut().for_each(strip);
                    }
                }
                _ => {}
            }
        }
    }
    let mut value = std::mem::take(schema).to_value();
    strip(&mut value);
    if let Ok(stripped) = Schema::try_from(value) {
        *schema = stripped;
    }
}

/// Defines a closed set of strings: a Rust enum, its JSON form, its schema and its text form.
///
/// A derived schema would carry one branch per variant with its description, which a structural
/// schema cannot hold; this one is `type: string` with `enum`.
macro_rules! string_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $name {
            $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of its definition.
            pub const ALL: &[$name] = &[$($name::$variant,)+];

            /// The value as it is written in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": [$($text,)+]})
            }
        }
    };
}
pub(crate) use string_enum;
