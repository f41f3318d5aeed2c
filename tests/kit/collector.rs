//! A collector of traces: takes what a host exports by OTLP over HTTP, and has it ready for a test to look at.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;

use crate::served::Served;

/// A span that was exported.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// Which trace it belongs to.
    pub trace: Vec<u8>,
    /// Itself.
    pub id: Vec<u8>,
    /// The span that it is in; empty for the first of a trace.
    pub parent: Vec<u8>,
    /// Whether it says that something failed.
    pub failed: bool,
    attributes: Vec<(String, String)>,
}

impl Span {
    /// What it says of itself under this name; empty when nothing.
    pub fn says(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    services: Vec<String>,
    /// All that came, byte by byte.
    raw: Vec<u8>,
}

/// The collector. Dropping it ends it.
pub struct Collector {
    state: Arc<Mutex<State>>,
    served: Served,
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let served = Served::start(move |request| take(Arc::clone(&shared), request));
        Self {
            state,
            served: served.await,
        }
    }

    /// What a host is told.
    pub fn endpoint(&self) -> String {
        self.served.origin()
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.state.lock().unwrap().spans.clone()
    }

    /// The names of the services that sent them.
    pub fn services(&self) -> Vec<String> {
        let mut services = self.state.lock().unwrap().services.clone();
        services.dedup();
        services
    }

    /// Whether these bytes were in anything that came.
    pub fn has_seen(&self, bytes: &[u8]) -> bool {
        let state = self.state.lock().unwrap();
        state.raw.windows(bytes.len()).any(|seen| seen == bytes)
    }
}

async fn take(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_traces = request.uri().path() == "/v1/traces"
        && request.headers()["content-type"] == "application/x-protobuf";
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let status = match ExportTraceServiceRequest::decode(body.clone()) {
        Ok(export) if is_traces => {
            let mut state = state.lock().unwrap();
            state.raw.extend_from_slice(&body);
            keep(&mut state, export);
            200
        }
        _ => 400,
    };
    let answer = Response::builder().status(status).body(Full::default());
    answer.unwrap()
}

fn keep(state: &mut State, export: ExportTraceServiceRequest) {
    for of_resource in export.resource_spans {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        let services = resource
            .into_iter()
            .filter(|(name, _)| name == "service.name");
        state.services.extend(services.map(|(_, service)| service));
        for span in of_resource
            .scope_spans
            .into_iter()
            .flat_map(|of_scope| of_scope.spans)
        {
            state.spans.push(Span {
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                // STATUS_CODE_ERROR
                failed: span.status.is_some_and(|status| status.code == 2),
                attributes: attributes(span.attributes),
            });
        }
    }
}

fn attributes(all: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    };
    all.into_iter()
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}
