//! Spans of reconciles, for a collector of traces: calls of plugins are below them.

use capstan_engine::TRACE_TARGET;
use tracing::Span;
use tracing::field::{Empty, display};

use crate::object::{Locator, Object};
use crate::plugins::cluster_of;

/// The span of one pass over an object.
pub(crate) fn reconcile(controller: &str, locator: &Locator) -> Span {
    tracing::trace_span!(
        target: TRACE_TARGET, "reconcile",
        "otel.name" = format!("reconcile {}", locator.kind.kind), controller,
        kind = locator.kind.kind, group = locator.kind.group,
        namespace = locator.key.namespace, name = locator.key.name,
        cluster = Empty, outcome = Empty, "error.type" = Empty, "otel.status_code" = Empty,
    )
}

/// Says in the pass's span which Cluster the object belongs to.
pub(crate) fn belongs(object: &Object) {
    let span = Span::current();
    // Without a collector this is the span of the log, which has no such field.
    if span.has_field("cluster")
        && let Some(cluster) = cluster_of(object)
    {
        span.record("cluster", display(cluster));
    }
}

/// Says in the pass's span how it ended, and for what reason it failed.
pub(crate) fn reconciled(span: &Span, outcome: &str, reason: Option<&str>) {
    span.record("outcome", outcome);
    if let Some(reason) = reason {
        span.record("error.type", reason);
        span.record("otel.status_code", "ERROR");
    }
}
