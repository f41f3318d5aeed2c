//! OpenAPI v3 schemas of the provider's own fields: a small builder, or a JSON file by `include_str!`.

use serde_json::{Map, Value, json};

/// A schema. The host checks it and adds what Cluster API's contract asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema(Map<String, Value>);

/// An object; give it fields with [`Schema::field`] and [`Schema::required`].
#[must_use]
pub fn object() -> Schema {
    Schema::of("object")
}

/// Text.
#[must_use]
pub fn string() -> Schema {
    Schema::of("string")
}

/// A whole number, 64 bits.
#[must_use]
pub fn integer() -> Schema {
    Schema::of("integer").with("format", "int64")
}

/// True or false.
#[must_use]
pub fn boolean() -> Schema {
    Schema::of("boolean")
}

/// A list.
#[must_use]
pub fn list(items: Schema) -> Schema {
    Schema::of("array").with("items", items.0)
}

/// An object whose keys are the user's.
#[must_use]
pub fn map(values: Schema) -> Schema {
    Schema::of("object").with("additionalProperties", values.0)
}

/// Any JSON object, kept as it is.
#[must_use]
pub fn any_object() -> Schema {
    Schema::of("object").with("x-kubernetes-preserve-unknown-fields", true)
}

/// A schema file's text. Text that is not a JSON object becomes a schema that the host refuses with the parser's message.
#[must_use]
pub fn from_json(text: &str) -> Schema {
    match serde_json::from_str(text) {
        Ok(schema) => Schema(schema),
        Err(error) => Schema::of("invalid").describe(error.to_string()),
    }
}

impl Schema {
    fn of(kind: &str) -> Self {
        Self(Map::new()).with("type", kind)
    }

    /// Sets any OpenAPI keyword, such as `pattern` or `x-kubernetes-validations`.
    #[must_use]
    pub fn with(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    /// An optional field of an object.
    #[must_use]
    pub fn field(mut self, name: &str, schema: Self) -> Self {
        let properties = self.0.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            properties.insert(name.to_owned(), Value::Object(schema.0));
        }
        self
    }

    /// A field of an object that must be there.
    #[must_use]
    pub fn required(mut self, name: &str, schema: Self) -> Self {
        let required = self.0.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            required.push(name.into());
        }
        self.field(name, schema)
    }

    /// What the field means, shown by `kubectl explain`.
    #[must_use]
    pub fn describe(self, text: impl Into<String>) -> Self {
        self.with("description", text.into())
    }

    /// The value that the server fills in.
    #[must_use]
    pub fn default(self, value: impl Into<Value>) -> Self {
        self.with("default", value)
    }

    /// The only values allowed.
    #[must_use]
    pub fn one_of(self, values: &[&str]) -> Self {
        self.with("enum", values.to_vec())
    }

    /// Length of text.
    #[must_use]
    pub fn length(self, min: u64, max: u64) -> Self {
        self.with("minLength", min).with("maxLength", max)
    }

    /// Range of a number.
    #[must_use]
    pub fn range(self, min: i64, max: i64) -> Self {
        self.with("minimum", min).with("maximum", max)
    }

    /// Number of items of a list.
    #[must_use]
    pub fn items(self, min: u64, max: u64) -> Self {
        self.with("minItems", min).with("maxItems", max)
    }

    /// Cannot change once set.
    #[must_use]
    pub fn immutable(self) -> Self {
        self.with(
            "x-kubernetes-validations",
            json!([{"rule": "self == oldSelf", "message": "cannot be changed"}]),
        )
    }

    /// The schema as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}
