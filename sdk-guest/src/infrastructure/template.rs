//! Machine templates: what machines will have before there is one, for autoscalers that grow a group from zero.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{ClusterAnswer, ClusterInput, Infrastructure};
use crate::answer::Failure;
use crate::context::Extra;

const TEMPLATES: &str = "machineTemplates";
const CAPACITIES: &str = "machineCapacities";

/// A machine template of the cluster, of a kind that this plugin owns.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineTemplate<S> {
    /// Its kind.
    pub kind: String,
    /// Its name, in the cluster's namespace.
    pub name: String,
    /// What a machine made from it asks for.
    pub spec: S,
}

/// What a machine will have, as its Node will report it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Kubernetes quantities by resource: `cpu` and `memory` are what an autoscaler needs at least.
    #[serde(rename = "capacity")]
    pub resources: BTreeMap<String, String>,
    /// What else the Node will report.
    pub node_info: NodeInfo,
}

/// What a Node will report of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// `amd64`, `arm64`, `s390x` or `ppc64le`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Such as `linux`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operating_system: Option<String>,
}

#[derive(Serialize)]
struct Told<'a> {
    kind: &'a str,
    name: &'a str,
    #[serde(flatten)]
    capacity: &'a Capacity,
}

impl<P: Infrastructure + ?Sized> ClusterInput<P> {
    /// The templates of the cluster's groups of machines, at most 64. Empty on a host that does not ask about them.
    ///
    /// # Errors
    /// When a template has a field of the wrong type.
    pub fn machine_templates(&self) -> Result<Vec<MachineTemplate<P::MachineSpec>>, Failure> {
        let told = self.extra.get(TEMPLATES).and_then(Value::as_array);
        let read = |template: &Value| {
            let text = |field: &str| {
                let text = template.get(field).and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            let (kind, name) = (text("kind"), text("name"));
            let spec = template.get("spec").cloned().unwrap_or_default();
            let spec = serde_json::from_value(spec).map_err(|error| {
                Failure::terminal("InvalidTemplate", format!("{kind} {name}: {error}"))
            })?;
            Ok(MachineTemplate { kind, name, spec })
        };
        told.into_iter().flatten().map(read).collect()
    }
}

impl ClusterAnswer {
    /// Says what machines of a template will have. The host writes it into the template's `status`.
    #[must_use]
    pub fn capacity<S>(mut self, template: &MachineTemplate<S>, capacity: &Capacity) -> Self {
        let told = Told {
            kind: &template.kind,
            name: &template.name,
            capacity,
        };
        push(
            &mut self.extra,
            serde_json::to_value(told).unwrap_or_default(),
        );
        self
    }
}

fn push(extra: &mut Extra, told: Value) {
    let all = extra
        .entry(CAPACITIES.to_owned())
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(all) = all.as_array_mut() {
        all.push(told);
    }
}
