//! Which Machines go first when there are too many (contract: upstream `machineset_delete_policy.go`).

use std::cmp::Reverse;

use capstan_api::annotation;
use capstan_api::v1beta2::{Machine, MachineSetDeletionOrder};
use jiff::Timestamp;

use crate::rollout::count::{
    age_ms, has_annotation, is_available, is_deleting, is_unhealthy, name,
};

/// Ten days: after so long age makes most of its difference.
const AGE_SCALE_S: f64 = 864_000.0;

/// How soon a Machine should go; 0 to 100, higher first.
#[must_use]
pub fn priority(machine: &Machine, order: &MachineSetDeletionOrder, now: Timestamp) -> f64 {
    if is_deleting(&machine.metadata) {
        return 100.0;
    }
    if has_annotation(&machine.metadata, annotation::DELETE_MACHINE) {
        return 80.0;
    }
    if has_annotation(&machine.metadata, annotation::UPDATE_IN_PROGRESS) {
        return 75.0;
    }
    if is_unhealthy(machine) {
        return 50.0;
    }
    let age_s = std::time::Duration::from_millis(age_ms(&machine.metadata, now)).as_secs_f64();
    let oldest = 50.0 * (1.0 - (-age_s / AGE_SCALE_S).exp());
    match order {
        MachineSetDeletionOrder::Random => 20.0,
        MachineSetDeletionOrder::Oldest => oldest,
        MachineSetDeletionOrder::Newest => 50.0 - oldest,
    }
}

/// Machines in the order in which they go. Among equals those that are not available go first, then by name.
#[must_use]
pub fn ranked<'a>(
    machines: impl IntoIterator<Item = &'a Machine>,
    order: &MachineSetDeletionOrder,
    now: Timestamp,
) -> Vec<&'a Machine> {
    let mut ranked: Vec<(&Machine, f64)> = machines
        .into_iter()
        .map(|machine| (machine, priority(machine, order, now)))
        .collect();
    ranked.sort_by(|(a, pa), (b, pb)| {
        Reverse(Total(*pa))
            .cmp(&Reverse(Total(*pb)))
            .then_with(|| is_available(a).cmp(&is_available(b)))
            .then_with(|| name(&a.metadata).cmp(name(&b.metadata)))
    });
    ranked.into_iter().map(|(machine, _)| machine).collect()
}

/// A number that is always in order.
#[derive(Clone, Copy, PartialEq)]
struct Total(f64);

impl Eq for Total {}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn machine(name: &str, age_s: i64, extra: &Value) -> Machine {
        let created = now()
            .saturating_sub(jiff::SignedDuration::from_secs(age_s))
            .expect("in range");
        let mut value = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": name, "creationTimestamp": created.to_string()},
            "spec": {"clusterName": "c", "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": "n"}},
            "status": {"nodeRef": {"name": "n"}, "conditions": [
                {"type": "Available", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]},
        });
        for (key, part) in extra.as_object().expect("an object") {
            for (name, field) in part.as_object().expect("an object") {
                value[key][name] = field.clone();
            }
        }
        serde_json::from_value(value).expect("a machine")
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().expect("a time")
    }

    fn order(machines: &[Machine], order: MachineSetDeletionOrder) -> Vec<&str> {
        ranked(machines, &order, now())
            .iter()
            .map(|machine| name(&machine.metadata))
            .collect()
    }

    #[test]
    fn marked_then_unhealthy_then_by_the_order() {
        let machines = [
            machine("old", 9_000_000, &json!({})),
            machine("young", 60, &json!({})),
            machine("nodeless", 500, &json!({"status": {"nodeRef": null}})),
            machine(
                "updating",
                500,
                &json!({"metadata": {"annotations": {"in-place-updates.internal.cluster.x-k8s.io/update-in-progress": ""}}}),
            ),
            machine(
                "marked",
                500,
                &json!({"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": ""}}}),
            ),
            machine(
                "going",
                500,
                &json!({"metadata": {"deletionTimestamp": "2026-05-31T00:00:00Z"}}),
            ),
        ];
        let first = ["going", "marked", "updating", "nodeless"];
        let all = |rest: [&'static str; 2]| [first.as_slice(), rest.as_slice()].concat();
        assert_eq!(
            order(&machines, MachineSetDeletionOrder::Oldest),
            all(["old", "young"])
        );
        assert_eq!(
            order(&machines, MachineSetDeletionOrder::Newest),
            all(["young", "old"])
        );
        assert_eq!(
            order(&machines, MachineSetDeletionOrder::Random),
            all(["old", "young"])
        );
    }

    #[test]
    fn among_equals_the_unavailable_go_first() {
        let machines = [
            machine("a", 60, &json!({})),
            machine("b", 60, &json!({"status": {"conditions": []}})),
        ];
        assert_eq!(
            order(&machines, MachineSetDeletionOrder::Random),
            ["b", "a"]
        );
    }
}
