//! What the status of a ClusterResourceSet says.

use std::collections::BTreeMap;

use capstan_api::addons::{ClusterResourceSetStatus, ResourceProblem, ResourceRef};
use capstan_api::condition::Report;
use capstan_api::reason::{addons as reason, common, condition_type};

use super::{ItemResult, Observed};
use crate::lookup::Lookup;

/// The most problems that the status names.
const PROBLEMS_MAX: usize = 100;

/// A message is cut to this many characters.
const MESSAGE_MAX: usize = 500;

/// Status and conditions, and what follows from the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Status without conditions.
    pub status: ClusterResourceSetStatus,
    /// Conditions that the controller owns.
    pub conditions: Vec<Report>,
    /// The finalizer may go.
    pub finished: bool,
}

/// What was found out this time, by cluster and resource.
pub type Results = BTreeMap<String, BTreeMap<ResourceRef, ItemResult>>;

fn shown(reference: &ResourceRef) -> String {
    format!("{}/{}", reference.kind, reference.name)
}

fn problem(
    cluster: Option<&str>,
    resource: Option<&ResourceRef>,
    reason: &str,
    message: &str,
) -> ResourceProblem {
    ResourceProblem {
        cluster: cluster.map(str::to_owned),
        resource: resource.map(shown),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_MAX).collect(),
    }
}

/// What the status says; `failed` is the step that could not be taken.
#[must_use]
pub fn report(observed: &Observed, results: &Results, failed: Option<&str>) -> Reported {
    let mut problems = of_resources(observed);
    if let Some(why) = failed {
        problems.push(problem(None, None, "Failed", why));
    }
    for cluster in &observed.clusters {
        let name = Some(cluster.name.as_str());
        if let Some(why) = &cluster.not_connected {
            problems.push(problem(name, None, "NotConnected", why));
            continue;
        }
        let fresh = results.get(&cluster.name);
        for resource in &observed.resources {
            let reference = &resource.reference;
            let result = fresh
                .and_then(|fresh| fresh.get(reference))
                .or_else(|| cluster.memory.results.get(reference));
            let Some(result) = result else { continue };
            for (reason, lines) in [
                ("Failed", &result.errors),
                ("NotReady", &result.not_ready),
                ("Drifted", &result.drift),
            ] {
                if !lines.is_empty() {
                    problems.push(problem(name, Some(reference), reason, &lines.join("; ")));
                }
            }
        }
    }
    let condition = applied(&problems, observed.is_deleting());
    let more = problems.len() > PROBLEMS_MAX;
    problems.truncate(PROBLEMS_MAX);
    if let Some(last) = problems.last_mut().filter(|_| more) {
        last.message.push_str("; there is more");
    }
    Reported {
        status: ClusterResourceSetStatus {
            problems,
            ..ClusterResourceSetStatus::default()
        },
        conditions: vec![condition],
        finished: observed.is_deleting() && observed.bindings.is_empty(),
    }
}

fn of_resources(observed: &Observed) -> Vec<ResourceProblem> {
    let mut problems = Vec::new();
    for resource in &observed.resources {
        let reference = &resource.reference;
        let mut add = |reason: &str, message: &str| {
            problems.push(problem(None, Some(reference), reason, message));
        };
        match &resource.held {
            Lookup::Missing => add("Missing", "it does not exist in this namespace"),
            Lookup::Unknown(why) => add("Missing", why),
            Lookup::Found(held) => {
                if let Some(type_) = &held.wrong_type {
                    add(
                        "WrongType",
                        &format!(
                            "type is {type_}, it must be {}",
                            capstan_api::addons::SECRET_TYPE
                        ),
                    );
                } else if let Err(why) = &held.content {
                    add("Invalid", why);
                }
            }
        }
    }
    problems
}

/// One condition for all: the worst of what there is.
fn applied(problems: &[ResourceProblem], is_deleting: bool) -> Report {
    let type_ = condition_type::RESOURCES_APPLIED;
    let line = |problem: &ResourceProblem| {
        let of = [problem.cluster.as_deref(), problem.resource.as_deref()];
        let of: Vec<&str> = of.into_iter().flatten().collect();
        format!("* {}: {}", of.join(", "), problem.message)
    };
    let lines = |reasons: &[&str]| {
        let all: Vec<String> = problems
            .iter()
            .filter(|problem| reasons.contains(&problem.reason.as_str()))
            .map(line)
            .collect();
        let more = all.len().saturating_sub(3);
        let mut lines: Vec<String> = all.into_iter().take(3).collect();
        if more > 0 {
            lines.push(format!("and {more} more, see status.problems"));
        }
        lines.join("\n")
    };
    let has = |reasons: &[&str]| {
        let mut problems = problems.iter();
        problems.any(|problem| reasons.contains(&problem.reason.as_str()))
    };
    if is_deleting {
        return Report::no(type_, reason::NOT_APPLIED).with_message("Deletion in progress");
    }
    if has(&["WrongType"]) {
        return Report::no(type_, reason::WRONG_SECRET_TYPE).with_message(lines(&["WrongType"]));
    }
    let unseen = ["Missing", "Invalid", "NotConnected"];
    if has(&unseen) {
        return Report::no(type_, common::INTERNAL_ERROR).with_message(lines(&unseen));
    }
    let failed = ["Failed", "NotReady"];
    if has(&failed) {
        let message = format!(
            "Failed to apply ClusterResourceSet resources to Cluster\n{}",
            lines(&failed)
        );
        return Report::no(type_, reason::NOT_APPLIED).with_message(message);
    }
    let report = Report::yes(type_, reason::APPLIED);
    if has(&["Drifted"]) {
        return report.with_message(lines(&["Drifted"]));
    }
    report
}
