//! What all calls have in common: context, failures, waiting, conditions, endpoints.

use std::time::Duration;

use capstan_core::answer::CONTRACT_CONDITIONS;
use capstan_core::call::{
    Context, Deletion, Endpoint, Extra, Mode, PluginCondition, PluginFailure, PluginFailureKind,
    Progress, Waiting,
};

use super::check::{self, Checked};
use super::imports::types as wit;
use crate::error::CallError;
use crate::limit::{CHECK_AFTER_MAX, CHECK_AFTER_MIN, RETRY_AFTER_MAX};

pub(super) fn context(context: &Context, wall: Duration) -> Result<wit::CallContext, CallError> {
    let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    Ok(wit::CallContext {
        now_ms: context.now_ms,
        deadline_ms: context.now_ms.saturating_add(millis),
        attempt: context.attempt,
        idempotency_key: context.idempotency_key.clone(),
        mode: match context.mode {
            Mode::Apply => wit::Mode::Apply,
            Mode::Plan => wit::Mode::Plan,
        },
        config: check::json_text("the plugin's config", &context.config)?,
        extra: extra(&context.extra)?,
    })
}

pub(super) fn extra(values: &Extra) -> Result<Vec<wit::NamedJson>, CallError> {
    values
        .iter()
        .map(|(name, value)| {
            Ok(wit::NamedJson {
                name: name.clone(),
                value: check::json_text(name, value)?,
            })
        })
        .collect()
}

pub(super) fn endpoint(endpoint: Option<&Endpoint>) -> Option<wit::Endpoint> {
    endpoint.map(|endpoint| wit::Endpoint {
        host: endpoint.host.clone(),
        port: endpoint.port,
    })
}

/// What the guest answered instead of an answer. A failure with a bad reason is a bad answer.
pub(super) fn failure(failure: wit::Failure) -> CallError {
    match checked_failure(failure) {
        Ok(failure) => CallError::Plugin(failure),
        Err(bad) => bad.into(),
    }
}

fn checked_failure(failure: wit::Failure) -> Checked<PluginFailure> {
    Ok(PluginFailure {
        kind: match failure.kind {
            wit::FailureKind::Transient => PluginFailureKind::Transient,
            wit::FailureKind::Terminal => PluginFailureKind::Terminal,
            wit::FailureKind::Denied => PluginFailureKind::Denied,
            wit::FailureKind::Unsupported => PluginFailureKind::Unsupported,
        },
        reason: check::reason("failure.reason", failure.reason)?,
        message: check::message("failure.message", failure.message)?,
        retry_after: failure
            .retry_after_ms
            .map(|ms| Duration::from_millis(ms).min(RETRY_AFTER_MAX)),
    })
}

pub(super) fn waiting(waiting: wit::Waiting) -> Checked<Waiting> {
    Ok(Waiting {
        reason: check::reason("waiting.reason", waiting.reason)?,
        message: check::message("waiting.message", waiting.message)?,
        check_after: Duration::from_millis(waiting.check_after_ms)
            .clamp(CHECK_AFTER_MIN, CHECK_AFTER_MAX),
    })
}

pub(super) fn progress(progress: wit::Progress) -> Checked<Progress> {
    Ok(match progress {
        wit::Progress::Ready => Progress::Ready,
        wit::Progress::Waiting(wait) => Progress::Waiting(waiting(wait)?),
    })
}

pub(super) fn deletion(deletion: wit::Deletion) -> Checked<Deletion> {
    Ok(match deletion {
        wit::Deletion::Gone => Deletion::Gone,
        wit::Deletion::Waiting(wait) => Deletion::Waiting(waiting(wait)?),
    })
}

pub(super) fn conditions(conditions: Vec<wit::Condition>) -> Checked<Vec<PluginCondition>> {
    check::list("conditions", conditions.len())?;
    conditions.into_iter().map(condition).collect()
}

fn condition(condition: wit::Condition) -> Checked<PluginCondition> {
    let name = condition.condition_type;
    let fits = (1..=316).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/'));
    check::rule(fits, || {
        format!("{} is not a condition type", check::shown(&name))
    })?;
    check::rule(!CONTRACT_CONDITIONS.contains(&name.as_str()), || {
        format!("the condition {name} is the contract's, which only the host sets")
    })?;
    Ok(PluginCondition {
        reason: check::reason(
            &format!("the reason of the condition {name}"),
            condition.reason,
        )?,
        message: check::message(
            &format!("the message of the condition {name}"),
            condition.message,
        )?,
        condition_type: name,
        status: match condition.status {
            wit::ConditionStatus::IsTrue => "True",
            wit::ConditionStatus::IsFalse => "False",
            wit::ConditionStatus::IsUnknown => "Unknown",
        },
    })
}

pub(super) fn checked_endpoint(endpoint: wit::Endpoint) -> Checked<Endpoint> {
    Ok(Endpoint {
        host: check::host("controlPlaneEndpoint.host", endpoint.host)?,
        port: check::port("controlPlaneEndpoint.port", endpoint.port)?,
    })
}
