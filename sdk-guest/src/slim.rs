//! Structs that are read from JSON without serde's generated code, which would be half of a small plugin.
//!
//! They are for what the API server has checked: a field of another type counts as absent.

use std::collections::BTreeMap;

use serde_json::Value;

/// Reads a value; what is absent or of another type is the default.
pub(crate) trait FromJson {
    fn from_json(value: &Value) -> Self;
}

impl FromJson for Value {
    fn from_json(value: &Value) -> Self {
        value.clone()
    }
}

impl FromJson for String {
    fn from_json(value: &Value) -> Self {
        value.as_str().unwrap_or_default().to_owned()
    }
}

impl FromJson for bool {
    fn from_json(value: &Value) -> Self {
        value.as_bool().unwrap_or_default()
    }
}

impl FromJson for i64 {
    fn from_json(value: &Value) -> Self {
        value.as_i64().unwrap_or_default()
    }
}

impl FromJson for u16 {
    fn from_json(value: &Value) -> Self {
        value
            .as_u64()
            .and_then(|number| number.try_into().ok())
            .unwrap_or_default()
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: &Value) -> Self {
        (!value.is_null()).then(|| T::from_json(value))
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: &Value) -> Self {
        value
            .as_array()
            .map(|items| items.iter().map(T::from_json).collect())
            .unwrap_or_default()
    }
}

impl FromJson for BTreeMap<String, String> {
    fn from_json(value: &Value) -> Self {
        let entry = |(key, value): (&String, &Value)| (key.clone(), String::from_json(value));
        value
            .as_object()
            .map(|entries| entries.iter().map(entry).collect())
            .unwrap_or_default()
    }
}

/// A field, or null.
pub(crate) fn field<T: FromJson>(object: &Value, key: &str) -> T {
    T::from_json(object.get(key).unwrap_or(&Value::Null))
}

/// Declares a struct and how it is read: `pub field: Type = "jsonName",`.
macro_rules! slim {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $($(#[$field_doc:meta])* pub $field:ident: $type:ty = $key:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl $crate::slim::FromJson for $name {
            fn from_json(value: &serde_json::Value) -> Self {
                Self { $($field: $crate::slim::field(value, $key),)+ }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                Ok($crate::slim::FromJson::from_json(&value))
            }
        }
    };
}
pub(crate) use slim;
