//! Spans of calls and of what guests ask of the host, for a collector of traces. While there is none, a call costs a few loads more.
//! They name things and say how they ended: no bodies, no headers, no paths of URLs, no words of guests.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use tracing::Span;
use tracing::field::{Empty, display};

use crate::call::CallEnv;
use crate::error::CallError;
use crate::grant::{Origin, Target};
use crate::stats::{CallOutcome, Function};

/// Target of every span that is for a collector. Logs have it at the level `trace` only.
pub const TRACE_TARGET: &str = "capstan_trace";

/// Which call it was: in log lines, in records and in traces. Unique beyond one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId {
    process: u32,
    number: u64,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.process, self.number)
    }
}

/// Gives every call of a process its own.
#[derive(Debug)]
pub(crate) struct CallIds {
    process: u32,
    next: AtomicU64,
}

impl Default for CallIds {
    fn default() -> Self {
        Self {
            process: rand::random(),
            next: AtomicU64::new(1),
        }
    }
}

impl CallIds {
    pub(crate) fn next(&self) -> CallId {
        CallId {
            process: self.process,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// The span of a call, from when its turn is waited for.
pub(crate) fn call(function: Function, env: &CallEnv, digest: &str, id: CallId) -> Span {
    tracing::trace_span!(
        target: TRACE_TARGET, "call",
        "otel.name" = function.as_str(), function = function.as_str(), plugin = %env.plugin, digest,
        object = %env.object, call_id = %id,
        outcome = Empty, instantiate_us = Empty, "error.type" = Empty, "otel.status_code" = Empty,
    )
}

/// Says in a call's span how it ended.
pub(crate) fn called<T>(span: &Span, result: &Result<T, CallError>, instantiate: Duration) {
    if span.is_disabled() {
        return;
    }
    span.record("outcome", CallOutcome::of(result).as_str());
    let instantiate = u64::try_from(instantiate.as_micros()).unwrap_or(u64::MAX);
    span.record("instantiate_us", instantiate);
    if let Err(error) = result {
        span.record("error.type", error.reason());
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of one import. Log lines have none: there are many, and they are in the log.
pub(crate) fn import(name: &'static str) -> Span {
    if name.starts_with("log.") {
        return Span::none();
    }
    tracing::trace_span!(
        target: TRACE_TARGET, "import",
        "otel.name" = name, import = name,
        "http.request.method" = Empty, "http.origin" = Empty, "http.response.status_code" = Empty,
        "workload.verb" = Empty, "workload.resource" = Empty, "workload.object" = Empty,
        "error.type" = Empty, "otel.status_code" = Empty,
    )
}

/// In the import's span, where a request goes: for one that is redirected, where it goes in the end.
pub(crate) fn request(method: &Method, origin: &Origin) {
    let span = Span::current();
    span.record("http.request.method", method.as_str());
    span.record("http.origin", display(origin));
}

/// In the import's span, what came back.
pub(crate) fn response(status: u16) {
    Span::current().record("http.response.status_code", status);
}

/// In the import's span, what is asked of the workload cluster.
pub(crate) fn workload(target: &Target<'_>) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    span.record("workload.verb", target.verb.as_str());
    let resource = if target.group.is_empty() {
        target.plural.to_owned()
    } else {
        format!("{}.{}", target.plural, target.group)
    };
    span.record("workload.resource", resource);
    if let Some(name) = target.name {
        let namespace = target.namespace.map(|namespace| format!("{namespace}/"));
        let object = format!("{}{name}", namespace.unwrap_or_default());
        span.record("workload.object", object);
    }
}

/// In the import's span, why there is no answer.
pub(crate) fn refused(why: &'static str) {
    let span = Span::current();
    span.record("error.type", why);
    span.record("otel.status_code", "ERROR");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_calls_have_one_id() {
        let (one, other) = (CallIds::default(), CallIds::default());
        let first = one.next().to_string();
        assert_eq!(first.len(), "01234567-1".len());
        assert_ne!(first, one.next().to_string());
        // Of another process, unless two of four thousand million are the same.
        assert_ne!(one.process, other.process);
    }
}
