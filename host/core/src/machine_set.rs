//! MachineSet: which Machines to make, complete, change in place and delete, and what the status says (contract: upstream
//! `internal/controllers/machineset`, contract 3.4).

pub mod decide;
pub mod desired;
pub mod observed;
pub mod preflight;
pub mod priority;
pub mod remediation;
pub mod report;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub use decide::{Step, decide};
pub use observed::{MachineSeen, Observed, is_selected};
pub use report::{Reported, report};

/// A selector as text, as `kubectl` takes it.
#[must_use]
pub fn selector_text(match_labels: &BTreeMap<String, String>, selector: &LabelSelector) -> String {
    let mut parts: Vec<String> = match_labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for requirement in selector.match_expressions.iter().flatten() {
        let values = requirement.values.as_deref().unwrap_or_default().join(",");
        parts.push(match requirement.operator.as_str() {
            "In" => format!("{} in ({values})", requirement.key),
            "NotIn" => format!("{} notin ({values})", requirement.key),
            "DoesNotExist" => format!("!{}", requirement.key),
            _ => requirement.key.clone(),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests;
