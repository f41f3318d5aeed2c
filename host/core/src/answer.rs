//! Checks of infrastructure answers: nothing that a plugin says is written before it has passed here.
//!
//! The engine has already bounded sizes and parsed JSON; these are the rules of the contract, above all that what was once
//! said is not taken back.

use serde_json::Value;

use crate::call::control_plane::Desired;
use crate::call::infrastructure::{ClusterAnswer, DeletionAnswer, MachineAnswer};
use crate::call::{Endpoint, PluginCondition, Progress};
use crate::material::is_named;
use crate::plan::Failure;

/// Address types of the contract (upstream `api/core/v1beta2/common_types.go`).
const ADDRESS_TYPES: [&str; 5] = [
    "Hostname",
    "ExternalIP",
    "InternalIP",
    "ExternalDNS",
    "InternalDNS",
];

/// Conditions that the contract defines: the host's to set, on every kind of provider object. A plugin may not.
pub const CONTRACT_CONDITIONS: [&str; 5] =
    ["Ready", "Available", "Paused", "Deleting", "Initialized"];

/// Status fields that the contract defines: a plugin says these in its answer's own fields, not in `status`.
const HOST_STATUS_FIELDS: [&str; 8] = [
    "initialization",
    "addresses",
    "failureDomain",
    "failureDomains",
    "interruptible",
    "conditions",
    "observedGeneration",
    "deprecated",
];

/// Parts of an object that are not its status: whoever answers with them means to change more than that.
const OBJECT_PARTS: [&str; 3] = ["metadata", "spec", "status"];

/// Upper bound of a condition's message (metav1.Condition).
const MESSAGE_BYTES_MAX: usize = 32_768;

/// A rule that an answer breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Violation {
    /// The rule and what broke it.
    pub rule: String,
}

impl Violation {
    pub(crate) fn new(rule: impl Into<String>) -> Self {
        Self { rule: rule.into() }
    }

    /// The failure that the object shows.
    #[must_use]
    pub fn failure(&self, plugin: &str) -> Failure {
        Failure::terminal(
            "PluginBadAnswer",
            format!("plugin {plugin} was refused: {}", self.rule),
        )
    }
}

/// Checks an answer of `ensure-cluster` against what is known of the cluster.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_cluster(answer: &ClusterAnswer, known: Option<&Endpoint>) -> Result<(), Violation> {
    check_own(&answer.status, &answer.conditions)?;
    if let Some(endpoint) = &answer.control_plane_endpoint {
        if endpoint.host.is_empty() || endpoint.host.len() > 512 || endpoint.port == 0 {
            return Err(Violation::new(format!(
                "control plane endpoint {:?}:{} needs a host of 1 to 512 characters and a port above 0",
                endpoint.host, endpoint.port
            )));
        }
        if let Some(known) = known
            && known != endpoint
        {
            return Err(Violation::new(format!(
                "the control plane endpoint is {}:{} and must not change to {}:{}",
                known.host, known.port, endpoint.host, endpoint.port
            )));
        }
    }
    let mut names: Vec<&str> = answer
        .failure_domains
        .iter()
        .map(|d| d.name.as_str())
        .collect();
    names.sort_unstable();
    if names.len() > 100 {
        return Err(Violation::new(format!(
            "{} failure domains, at most 100 are allowed",
            names.len()
        )));
    }
    if names.iter().any(|name| name.is_empty() || name.len() > 256) {
        return Err(Violation::new(
            "a failure domain's name has 1 to 256 characters",
        ));
    }
    let count = names.len();
    names.dedup();
    if names.len() != count {
        return Err(Violation::new("two failure domains have the same name"));
    }
    Ok(())
}

/// Checks an answer of `ensure-machine` against what is known of the machine.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_machine(answer: &MachineAnswer, known: Option<&str>) -> Result<(), Violation> {
    check_own(&answer.status, &answer.conditions)?;
    match (&answer.provider_id, known) {
        (Some(id), _) if id.is_empty() || id.len() > 512 => {
            return Err(Violation::new("a provider ID has 1 to 512 characters"));
        }
        (Some(id), Some(known)) if id != known => {
            return Err(Violation::new(format!(
                "the provider ID is {known} and must not change to {id}"
            )));
        }
        (None, None) if answer.progress == Progress::Ready => {
            return Err(Violation::new(
                "a machine that is ready needs a provider ID",
            ));
        }
        _ => {}
    }
    if answer.addresses.len() > 256 {
        return Err(Violation::new(format!(
            "{} addresses, at most 256 are allowed",
            answer.addresses.len()
        )));
    }
    for (kind, address) in &answer.addresses {
        if !ADDRESS_TYPES.contains(&kind.as_str()) {
            return Err(Violation::new(format!(
                "{kind:?} is not an address type: {}",
                ADDRESS_TYPES.join(", ")
            )));
        }
        if address.is_empty() || address.len() > 256 {
            return Err(Violation::new("an address has 1 to 256 characters"));
        }
    }
    if answer
        .failure_domain
        .as_ref()
        .is_some_and(|d| d.is_empty() || d.len() > 256)
    {
        return Err(Violation::new(
            "a failure domain's name has 1 to 256 characters",
        ));
    }
    Ok(())
}

/// Checks an answer of `delete-cluster` and `delete-machine`.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_deletion(answer: &DeletionAnswer) -> Result<(), Violation> {
    check_own(&answer.status, &answer.conditions)
}

/// Checks what a control-plane plugin says of the objects that are made of its control plane: the template is the one that the object's
/// spec names, and the config of a kind for configs (`is_bootstrap`). The host has the right to make other kinds, too.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_desired(
    desired: &Desired,
    control_plane: &Value,
    is_bootstrap: bool,
) -> Result<(), Violation> {
    let template = &desired.infrastructure_template;
    let names = |what: &str| is_named(control_plane, what);
    if !names(&template.kind) || !names(&template.name) {
        return Err(Violation::new(format!(
            "the control plane's spec does not name {} {}, which machines would be made of",
            template.kind, template.name
        )));
    }
    if !is_bootstrap {
        return Err(Violation::new(format!(
            "{}.{} is not a kind of bootstrap configs",
            desired.bootstrap_kind, desired.bootstrap_group
        )));
    }
    Ok(())
}

fn check_own(status: &Value, conditions: &[PluginCondition]) -> Result<(), Violation> {
    let Some(fields) = status.as_object() else {
        return Err(Violation::new("status is not a JSON object"));
    };
    if let Some(name) = fields
        .keys()
        .find(|name| HOST_STATUS_FIELDS.contains(&name.as_str()))
    {
        return Err(Violation::new(format!(
            "status field {name} is the host's to write"
        )));
    }
    if let Some(part) = OBJECT_PARTS.iter().find(|part| fields.contains_key(**part)) {
        return Err(Violation::new(format!(
            "status has a field {part}: a plugin changes nothing of its object but its status"
        )));
    }
    if conditions.len() > 16 {
        return Err(Violation::new(format!(
            "{} conditions, at most 16 are allowed",
            conditions.len()
        )));
    }
    for condition in conditions {
        let name = &condition.condition_type;
        if CONTRACT_CONDITIONS.contains(&name.as_str()) {
            return Err(Violation::new(format!(
                "condition {name} is the host's to set"
            )));
        }
        if !is_condition_type(name) {
            return Err(Violation::new(format!("{name:?} is not a condition type")));
        }
        if !is_camel_case(&condition.reason) {
            return Err(Violation::new(format!(
                "condition {name} needs a CamelCase reason, not {:?}",
                condition.reason
            )));
        }
        if condition.message.len() > MESSAGE_BYTES_MAX {
            return Err(Violation::new(format!(
                "the message of condition {name} is over {MESSAGE_BYTES_MAX} bytes"
            )));
        }
    }
    Ok(())
}

fn is_condition_type(name: &str) -> bool {
    (1..=316).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn is_camel_case(reason: &str) -> bool {
    (1..=256).contains(&reason.len())
        && reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_,:".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::call::Waiting;
    use crate::call::control_plane::ObjectReference;

    fn machine() -> MachineAnswer {
        MachineAnswer {
            progress: Progress::Ready,
            provider_id: Some("local:///a/1".to_owned()),
            addresses: vec![("InternalIP".to_owned(), "10.0.0.1".to_owned())],
            failure_domain: Some("a".to_owned()),
            interruptible: false,
            interruption_deadline_ms: None,
            instance_state: "running".to_owned(),
            status: json!({}),
            conditions: vec![],
            state: None,
            extra: vec![],
        }
    }

    fn cluster(host: &str, port: u16) -> ClusterAnswer {
        ClusterAnswer {
            progress: Progress::Ready,
            control_plane_endpoint: Some(Endpoint {
                host: host.to_owned(),
                port,
            }),
            failure_domains: vec![],
            status: json!({}),
            conditions: vec![],
            state: None,
            extra: vec![],
        }
    }

    #[test]
    fn a_provider_id_never_changes() {
        assert_eq!(check_machine(&machine(), None), Ok(()));
        assert_eq!(check_machine(&machine(), Some("local:///a/1")), Ok(()));
        let error = check_machine(&machine(), Some("local:///a/2")).expect_err("changed");
        assert!(error.rule.contains("local:///a/2"), "{error}");
    }

    #[test]
    fn a_ready_machine_has_a_provider_id() {
        let mut answer = MachineAnswer {
            provider_id: None,
            ..machine()
        };
        assert!(check_machine(&answer, None).is_err());
        answer.progress = Progress::Waiting(Waiting {
            reason: "Pending".to_owned(),
            message: String::new(),
            check_after: std::time::Duration::from_secs(1),
        });
        assert_eq!(check_machine(&answer, None), Ok(()));
    }

    #[test]
    fn an_endpoint_never_changes() {
        let known = Endpoint {
            host: "a".to_owned(),
            port: 1,
        };
        assert_eq!(check_cluster(&cluster("a", 1), Some(&known)), Ok(()));
        assert!(check_cluster(&cluster("b", 1), Some(&known)).is_err());
        assert!(check_cluster(&cluster("a", 0), None).is_err());
    }

    #[test]
    fn what_is_the_hosts_is_refused() {
        let mut answer = machine();
        answer.status = json!({"initialization": {"provisioned": true}});
        assert!(check_machine(&answer, None).is_err());
        answer.status = json!([]);
        assert!(check_machine(&answer, None).is_err());
        answer.status = json!({});
        answer.conditions = vec![PluginCondition {
            condition_type: "Ready".to_owned(),
            status: "True",
            reason: "Fine".to_owned(),
            message: String::new(),
        }];
        assert!(check_machine(&answer, None).is_err());
    }

    #[test]
    fn a_control_plane_is_made_of_the_template_that_it_names_and_of_configs() {
        let template = |kind: &str, name: &str| ObjectReference {
            group: "infrastructure.cluster.x-k8s.io".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let mut desired = crate::control_plane::tests::desired(1);
        let reference = json!({"kind": "LocalMachineTemplate", "name": "cp"});
        let plane =
            json!({"spec": {"machineTemplate": {"spec": {"infrastructureRef": reference}}}});
        for (kind, name, is_right) in [
            ("LocalMachineTemplate", "cp", true),
            ("LocalMachineTemplate", "other", false),
            ("ClusterResourceSetTemplate", "cp", false),
        ] {
            desired.infrastructure_template = template(kind, name);
            assert_eq!(
                check_desired(&desired, &plane, true).is_ok(),
                is_right,
                "{kind} {name}"
            );
            assert!(check_desired(&desired, &plane, false).is_err());
        }
    }

    #[test]
    fn an_object_in_the_place_of_a_status_is_refused() {
        for part in [
            json!({"metadata": {"finalizers": [], "ownerReferences": []}}),
            json!({"spec": {"providerID": "local:///a/2"}}),
            json!({"note": 1, "status": {"initialization": {"provisioned": true}}}),
        ] {
            let mut answer = machine();
            answer.status = part;
            let error = check_machine(&answer, None).expect_err("smuggled");
            assert!(error.rule.contains("nothing of its object"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(id in ".*", kind in ".*", address in ".*", reason in ".*") {
            let mut answer = machine();
            answer.provider_id = Some(id);
            answer.addresses = vec![(kind, address)];
            answer.conditions = vec![PluginCondition {
                condition_type: reason.clone(), status: "True", reason, message: String::new(),
            }];
            let _ = check_machine(&answer, Some("x"));
        }
    }
}
