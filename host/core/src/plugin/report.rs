//! What the status of a Plugin says.

use std::time::Duration;

use capstan_api::condition::{Report, bounded};
use capstan_api::plugin::{
    PluginCallsStatus, PluginCapabilityStatus, PluginCompiledStatus, PluginLastError,
    PluginManifestStatus, PluginMissingGrant, PluginOwnedKindStatus, PluginSourceStatus,
    PluginStatus, PluginVersionState, PluginVersionStatus,
};
use capstan_api::reason::plugin as reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Candidate, Observed, Problem, Reported, Step, obstacle};
use crate::call::manifest::{HARMLESS, Manifest};
use crate::plan::{Next, Outcome};

/// What the status says. `observed` is as it is after the steps.
#[must_use]
pub fn report<E>(observed: &Observed, outcome: &Outcome<Step, E>, now: Timestamp) -> Reported {
    let problem = obstacle(observed).or_else(|| {
        let (step, failure) = outcome.failed.as_ref()?;
        let condition = if matches!(step, Step::Load { .. } | Step::CheckSignatures) {
            "Verified"
        } else {
            "Compatible"
        };
        Some(Problem::new(
            condition,
            &failure.reason,
            failure.message.clone(),
        ))
    });
    let candidate = observed
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.result.as_ref().ok());
    let mut status = observed.plugin.status.clone().unwrap_or_default();
    status.conditions = Vec::new();
    status.observed_generation = None;
    status.active_digest = observed.active.as_ref().map(|active| active.digest.clone());
    status.active_digest_short = status
        .active_digest
        .as_ref()
        .map(|d| d.trim_start_matches("sha256:").chars().take(12).collect());
    if let Some(candidate) = candidate {
        describe(&mut status, observed, candidate);
    }
    status.canary = super::canary::report(observed);
    history(&mut status, observed, candidate, now);
    calls(&mut status, observed, now);
    status.last_error = problem.as_ref().map(|problem| PluginLastError {
        time: kept_time(observed, problem, now),
        reason: problem.reason.clone(),
        message: bounded(problem.message.clone()),
    });
    // What was begun and is done already, or was checked anew, is to be used.
    let is_news = outcome.done.iter().any(|(step, _)| match step {
        Step::Load { .. } => observed.underway.is_none(),
        Step::CheckSignatures => true,
        _ => false,
    });
    let pause = observed.attempt.as_ref().and_then(|attempt| attempt.pause);
    let long = observed.underway.as_ref().and_then(|u| u.long_after);
    let soon = (is_news && pause.is_none()).then_some(Duration::ZERO);
    let next = [pause, long, soon].into_iter().flatten().min();
    let next = next.map(Next::CheckAfter);
    Reported {
        status,
        conditions: conditions(observed, candidate, problem.as_ref()),
        next,
    }
}

/// Digests that are remembered.
const HISTORY_MAX: usize = 10;

fn second(now: Timestamp) -> Option<Time> {
    Timestamp::from_second(now.as_second()).ok().map(Time)
}

/// What answers calls is the first entry; what answered before says how it ended.
fn history(
    status: &mut PluginStatus,
    observed: &Observed,
    candidate: Option<&Candidate>,
    now: Timestamp,
) {
    let Some(active) = &observed.active else {
        return;
    };
    if status.history.first().map(|entry| &entry.digest) == Some(&active.digest) {
        return;
    }
    if let Some(first) = status.history.first_mut() {
        let given_up = observed.given_up.as_ref();
        let given_up = given_up.filter(|(digest, _)| *digest == first.digest);
        first.state = match given_up {
            Some(_) => PluginVersionState::GivenUp,
            None => PluginVersionState::Replaced,
        };
        first.message = given_up.map(|(_, why)| bounded(why.clone()));
    }
    let known = status.history.iter();
    let known = known.filter(|entry| entry.digest == active.digest);
    let version = candidate
        .filter(|candidate| candidate.digest == active.digest)
        .map(|candidate| candidate.manifest.version.clone())
        .or_else(|| known.clone().find_map(|entry| entry.version.clone()));
    let entry = PluginVersionStatus {
        digest: active.digest.clone(),
        version,
        since: second(now),
        state: PluginVersionState::Active,
        message: None,
    };
    status.history.insert(0, entry);
    status.history.truncate(HISTORY_MAX);
}

/// Counts for people: they follow slowly, as every call would be a write otherwise.
fn calls(status: &mut PluginStatus, observed: &Observed, now: Timestamp) {
    let Some(active) = &observed.active else {
        return;
    };
    let digest = Some(&active.digest);
    let fresh = status.calls.as_ref().is_some_and(|calls| {
        let since = calls
            .at_time
            .as_ref()
            .map(|at| now.duration_since(at.0).unsigned_abs());
        calls.digest.as_ref() == digest && since.is_some_and(|since| since < super::COUNTED_EVERY)
    });
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let (total, failed) = observed.calls;
    let same = status.calls.as_ref().is_some_and(|calls| {
        calls.digest.as_ref() == digest
            && calls.total == count(total)
            && calls.failed == count(failed)
    });
    if fresh || same {
        return;
    }
    status.calls = Some(PluginCallsStatus {
        digest: digest.cloned(),
        at_time: second(now),
        total: count(total),
        failed: count(failed),
    });
}

/// When a problem was first seen: an error that stays the same does not change the status.
fn kept_time(observed: &Observed, problem: &Problem, now: Timestamp) -> Option<Time> {
    let before = observed
        .plugin
        .status
        .as_ref()
        .and_then(|s| s.last_error.as_ref());
    let message = bounded(problem.message.clone());
    let same = before.filter(|e| e.reason == problem.reason && e.message == message);
    match same {
        Some(before) => before.time.clone(),
        None => Timestamp::from_second(now.as_second()).ok().map(Time),
    }
}

fn describe(status: &mut PluginStatus, observed: &Observed, candidate: &Candidate) {
    let size = |bytes: u64| i64::try_from(bytes).ok();
    status.observed_digest = Some(candidate.digest.clone());
    status.source = Some(PluginSourceStatus {
        resource_version: observed.source.found().cloned(),
        resolved: candidate.resolved.clone(),
        signed_by: candidate.signed_by.clone(),
        size_bytes: size(candidate.source_bytes),
        ..status.source.clone().unwrap_or_default()
    });
    if let Some(took) = candidate.compile_time {
        status.compiled = Some(PluginCompiledStatus {
            at_time: Timestamp::from_second(candidate.loaded_at.as_second())
                .ok()
                .map(Time),
            duration_ms: i64::try_from(took.as_millis()).ok(),
            size_bytes: size(candidate.compiled_bytes),
        });
    }
    let manifest = &candidate.manifest;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    status.manifest = Some(PluginManifestStatus {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: some(&manifest.description),
        home_page: some(&manifest.home_page),
        abi: Some(candidate.abi.clone()),
    });
    status.roles = candidate.roles.clone();
    // Those of what answers calls: a plugin owns them from its first call on, and what may not answer owns nothing.
    let is_active = observed.active.as_ref();
    if is_active.is_some_and(|active| active.digest == candidate.digest) {
        status.kinds = kinds(manifest);
    }
    status.capabilities = manifest
        .capabilities
        .iter()
        .map(|request| PluginCapabilityStatus {
            name: request.name.clone(),
            why: clipped(&request.why, WHY_BYTES_MAX),
            optional: request.optional,
            granted: candidate.granted.contains(&request.name),
        })
        .collect();
    status.missing_grants = candidate
        .missing
        .iter()
        .map(|missing| PluginMissingGrant {
            capability: missing.capability.clone(),
            why: clipped(&missing.why, WHY_BYTES_MAX),
            yaml: clipped(&missing.yaml, GRANT_BYTES_MAX),
        })
        .collect();
}

fn kinds(manifest: &Manifest) -> Vec<PluginOwnedKindStatus> {
    manifest
        .kinds
        .iter()
        .filter_map(|kind| {
            Some(PluginOwnedKindStatus {
                role: serde_json::from_value(serde_json::json!(kind.role)).ok()?,
                group: kind.group.clone(),
                version: kind.version.clone(),
                kind: kind.kind.clone(),
                plural: kind.plural.clone(),
            })
        })
        .collect()
}

/// The first three, and how many more there are.
fn some_of(words: &[String]) -> String {
    let first: Vec<&str> = words.iter().take(3).map(String::as_str).collect();
    let more = words.len().saturating_sub(first.len());
    match more {
        0 => first.join(", "),
        _ => format!("{} and {more} more", first.join(", ")),
    }
}

/// A plugin's reason for a capability, in the schema of the status.
const WHY_BYTES_MAX: usize = 4096;

/// An entry for `spec.grants`, there as well.
const GRANT_BYTES_MAX: usize = 8192;

/// The beginning of a text: the schema's limits are in characters, so bytes are safe.
fn clipped(text: &str, bytes: usize) -> String {
    let end = text.floor_char_boundary(bytes);
    text.get(..end).unwrap_or(text).to_owned()
}

/// The order in which a plugin gets there; a condition waits for those before it.
const STAGES: [(&str, &str); 3] = [
    ("Verified", reason::VERIFIED),
    ("Compiled", reason::COMPILED),
    ("Compatible", reason::COMPATIBLE),
];

fn conditions(
    observed: &Observed,
    candidate: Option<&Candidate>,
    problem: Option<&Problem>,
) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut stopped = false;
    for (stage, good) in STAGES {
        let failed = problem.filter(|problem| problem.condition == stage);
        reports.push(match failed {
            _ if stopped => waiting(stage),
            Some(problem) => {
                stopped = true;
                Report::no(stage, &problem.reason).with_message(problem.message.clone())
            }
            None if stage == "Verified" && is_new(observed) => {
                let underway = observed.underway.as_ref();
                let what = underway.map(|underway| underway.what.clone());
                Report::unknown(stage, reason::LOADING).with_message(what.unwrap_or_default())
            }
            None if candidate.is_some() || problem.is_some() => {
                candidate.filter(|_| stage == "Verified").map_or_else(
                    || Report::yes(stage, good),
                    |candidate| verified(observed, candidate),
                )
            }
            None => waiting(stage),
        });
    }
    reports.push(granted(candidate));
    reports.push(ready(observed, candidate, problem));
    reports
}

/// Whether the source is looked at for the first time, so that nothing can be said of it.
fn is_new(observed: &Observed) -> bool {
    let is_unknown = observed.source.found().is_none() || observed.attempt.is_none();
    observed.underway.is_some() && is_unknown
}

/// That the bytes are those that were meant, as far as anybody has said which those are.
fn verified(observed: &Observed, candidate: &Candidate) -> Report {
    if let Some(why) = &candidate.not_signed {
        let message =
            format!("the component is not signed, and this host only warns about that: {why}");
        return Report::yes("Verified", reason::SIGNATURE_MISSING).with_message(message);
    }
    let spec = &observed.plugin.spec;
    let is_meant = spec.digest.is_some() || candidate.signed_by.is_some();
    let granted = candidate.granted.iter();
    let granted = granted.filter(|name| !HARMLESS.contains(&name.as_str()));
    let granted: Vec<String> = granted.cloned().collect();
    if is_meant || granted.is_empty() {
        return Report::yes("Verified", reason::VERIFIED);
    }
    let message = format!(
        "whoever can write the source decides what uses the grants of {}: name this component in spec.digest ({}), or sign it and give \
         the host the key",
        some_of(&granted),
        candidate.digest
    );
    Report::yes("Verified", reason::ANY_COMPONENT).with_message(message)
}

fn waiting(stage: &str) -> Report {
    Report::unknown(stage, reason::WAITING)
}

fn granted(candidate: Option<&Candidate>) -> Report {
    let Some(candidate) = candidate else {
        return waiting("Granted");
    };
    if let Some(why) = &candidate.invalid_grants {
        return Report::no("Granted", reason::GRANT_INVALID)
            .with_message(format!("nothing is granted until this is corrected: {why}"));
    }
    if candidate.missing.is_empty() {
        let granted = Report::yes("Granted", reason::GRANTED);
        return match candidate.cuts.as_slice() {
            [] => granted,
            cuts => granted.with_message(format!(
                "what is granted counts as far as the ceiling of this host goes, which leaves out of it: {}",
                some_of(cuts)
            )),
        };
    }
    let lines: Vec<String> = candidate
        .missing
        .iter()
        .map(|missing| {
            let place = if missing.by_ceiling {
                "the ceiling of this host allows nothing of what is granted; add to grants of the file that --ceiling names"
            } else {
                "add to spec.grants"
            };
            format!(
                "* {} ({}): {place}: {}",
                missing.capability,
                missing.why,
                missing.yaml.trim()
            )
        })
        .collect();
    let reason = if candidate.missing.iter().all(|missing| missing.by_ceiling) {
        reason::ABOVE_CEILING
    } else {
        reason::GRANT_MISSING
    };
    Report::no("Granted", reason).with_message(lines.join("\n"))
}

fn ready(observed: &Observed, candidate: Option<&Candidate>, problem: Option<&Problem>) -> Report {
    if observed.plugin.spec.suspend {
        return Report::no("Ready", reason::SUSPENDED).with_message("spec.suspend is true");
    }
    match (&observed.active, problem) {
        (Some(active), Some(problem)) => {
            Report::yes("Ready", reason::FELL_BACK).with_message(format!(
                "{} goes on answering calls: {}",
                active.digest, problem.message
            ))
        }
        (None, Some(problem)) => {
            Report::no("Ready", &problem.reason).with_message(problem.message.clone())
        }
        (Some(_), None) if observed.held_back.is_some() => {
            let why = observed.held_back.clone().unwrap_or_default();
            Report::no("Ready", reason::CIRCUIT_OPEN).with_message(why)
        }
        (Some(_), None) if candidate.is_some_and(|c| !c.missing.is_empty()) => {
            Report::no("Ready", reason::GRANT_MISSING)
                .with_message("calls are refused until the missing grants are given")
        }
        (Some(_), None) => Report::yes("Ready", "Ready"),
        (None, None) => waiting("Ready"),
    }
}
