//! Placeholders in addresses and bodies, such as `{instance}`.

use capstan_sdk::Failure;
use capstan_sdk::http::escaped;
use capstan_sdk::pre_delete_hook::HookInput;
use capstan_sdk::serde_json::Value;

use crate::Settings;

/// How much of a UID tells machines of one name apart.
const UID_CHARACTERS: usize = 8;

/// What placeholders stand for.
pub(crate) struct Values {
    /// Name of the snapshot: the same in every call for one Machine.
    pub(crate) name: String,
    all: Vec<(&'static str, String)>,
}

impl Values {
    pub(crate) fn of(input: &HookInput<Settings>) -> Result<Self, Failure> {
        let machine = &input.machine;
        let Some(provider_id) = machine.spec.provider_id.clone() else {
            return Err(Failure::terminal(
                "NoInstance",
                "the Machine has no spec.providerID: there is nothing to take a snapshot of",
            ));
        };
        let instance = provider_id.rsplit('/').next().unwrap_or_default();
        let uid = machine.raw.pointer("/metadata/uid").and_then(Value::as_str);
        let uid: String = uid
            .unwrap_or_default()
            .chars()
            .take(UID_CHARACTERS)
            .collect();
        let name = format!("pre-delete-{}-{uid}", machine.name());
        let node = machine.status.node_ref.as_ref().map(|node| &node.name);
        let all = vec![
            ("name", name.clone()),
            ("namespace", machine.namespace().to_owned()),
            ("cluster", input.cluster.name().to_owned()),
            ("machine", machine.name().to_owned()),
            ("node", node.cloned().unwrap_or_default()),
            ("instance", instance.to_owned()),
            ("providerID", provider_id.clone()),
        ];
        Ok(Self { name, all })
    }

    /// An address: what is put in is escaped.
    pub(crate) fn url(&self, template: &str) -> Result<String, Failure> {
        self.fill(template, escaped)
    }

    /// A body: texts in it are filled, keys are not.
    pub(crate) fn json(&self, template: &Value) -> Result<Value, Failure> {
        Ok(match template {
            Value::String(text) => Value::String(self.fill(text, str::to_owned)?),
            Value::Array(items) => {
                let items: Result<Vec<Value>, Failure> =
                    items.iter().map(|item| self.json(item)).collect();
                Value::Array(items?)
            }
            Value::Object(fields) => {
                let mut filled = capstan_sdk::serde_json::Map::new();
                for (key, value) in fields {
                    filled.insert(key.clone(), self.json(value)?);
                }
                Value::Object(filled)
            }
            other => other.clone(),
        })
    }

    fn fill(&self, template: &str, put: impl Fn(&str) -> String) -> Result<String, Failure> {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, behind)) = rest.split_once('{') {
            text.push_str(before);
            let Some((key, after)) = behind.split_once('}') else {
                let message = format!("{template:?} has a {{ without a }}");
                return Err(Failure::terminal("SettingsInvalid", message));
            };
            let Some((_, value)) = self.all.iter().find(|(name, _)| *name == key) else {
                let names: Vec<&str> = self.all.iter().map(|(name, _)| *name).collect();
                let message = format!(
                    "{{{key}}} in {template:?} is no placeholder: there are {}",
                    names.join(", ")
                );
                return Err(Failure::terminal("SettingsInvalid", message));
            };
            text.push_str(&put(value));
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }
}
