//! Traces for a collector of OpenTelemetry, over HTTP with Protocol Buffers. Without an endpoint there is none of it: no thread, no
//! client, no span.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use capstan_engine::TRACE_TARGET;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Where collectors take traces, below what they are reached at.
const PATH: &str = "/v1/traces";

/// How long one request to the collector may take: what the protocol's specification says.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last spans may take at the stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The most of an answer: a collector says nothing but what it did not take.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The name of this host among the services of a collector.
const SERVICE: &str = "capstan";

/// What the environment says, where OpenTelemetry has a variable for it.
fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable of traces alone, or the one of everything.
fn said_of_traces(name: &str) -> Option<String> {
    said(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
        .or_else(|| said(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Where traces go, if anywhere: what the flag says, and otherwise the environment, by the names of its variables.
fn endpoint(flag: Option<&str>, said: impl Fn(&str) -> Option<String>) -> Option<String> {
    let below = |base: &str| format!("{}{PATH}", base.trim_end_matches('/'));
    if let Some(flag) = flag {
        return Some(below(flag));
    }
    let is_off = said("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
        || said("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    if is_off {
        return None;
    }
    said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| said("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| below(&base)))
}

/// Spans on their way to a collector.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Sends spans from now on, with requests made on this runtime; `None` when nobody is named who takes them.
    ///
    /// # Errors
    /// When what is said of the collector cannot be.
    pub(crate) fn start(flag: Option<&str>, runtime: &Handle) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = endpoint(flag, said) else {
            return Ok(None);
        };
        if let Some(protocol) = said_of_traces("PROTOCOL")
            && protocol != "http/protobuf"
        {
            bail!(
                "OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}: the host speaks http/protobuf, which collectors take at port 4318"
            );
        }
        let ca = said_of_traces("CERTIFICATE");
        let client = Collector::new(&endpoint, ca.as_deref().map(Path::new), runtime.clone())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(&endpoint)
            .build()
            .with_context(|| format!("traces to {endpoint}"))?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        Ok(Some(Self { provider }))
    }

    /// What makes spans of the host into spans of a trace. Other spans, and what is logged within them, stay here.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_filter(filter_fn(|of| of.is_span() && of.target() == TRACE_TARGET))
    }

    /// Sends what is left. The runtime must still run.
    pub(crate) fn end(self) {
        // What does not arrive now is lost, as whatever a collector that is down does not take.
        let _ = self.provider.shutdown_with_timeout(STOP_PATIENCE);
    }
}

/// Who sends.
fn resource() -> Resource {
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let has_name = said("OTEL_SERVICE_NAME").is_some()
        || said("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let builder = if has_name {
        builder
    } else {
        builder.with_service_name(Value::from(SERVICE))
    };
    builder.build()
}

/// The collector, asked with the host's own HTTP and TLS.
struct Collector {
    endpoint: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    fails: AtomicBool,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Collector {
    fn new(endpoint: &str, ca: Option<&Path>, runtime: Handle) -> anyhow::Result<Self> {
        let tls = ClientConfig::builder();
        let tls = match ca {
            None => tls.with_webpki_roots(),
            Some(file) => tls.with_root_certificates(authorities(file)?),
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            endpoint: endpoint.to_owned(),
            client,
            runtime,
            fails: AtomicBool::new(false),
        })
    }

    /// Says once when the collector is not to be had, and once when it is again.
    fn tell(&self, trouble: Option<&str>) {
        let fails = trouble.is_some();
        if self.fails.swap(fails, Ordering::Relaxed) == fails {
            return;
        }
        let endpoint = &self.endpoint;
        match trouble {
            Some(why) => tracing::warn!(endpoint, why, "traces do not reach their collector"),
            None => tracing::info!(endpoint, "traces reach their collector again"),
        }
    }
}

/// The certificates in a file of PEM.
fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let shown = file.display();
    let trouble = || format!("OTEL_EXPORTER_OTLP_CERTIFICATE {shown}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(trouble)? {
        roots.add(certificate.with_context(trouble)?)?;
    }
    if roots.is_empty() {
        bail!("OTEL_EXPORTER_OTLP_CERTIFICATE {shown}: there is no certificate in it");
    }
    Ok(roots)
}

impl HttpClient for Collector {
    /// The exporter waits on a thread of its own; the request is made where connections live.
    fn send_bytes<'this, 'answer>(
        &'this self,
        request: Request<Bytes>,
    ) -> BoxFuture<'answer, Result<Response<Bytes>, HttpError>>
    where
        'this: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let client = self.client.clone();
            let exchange = async move {
                let answer = client.request(request.map(Full::new)).await?;
                let (head, body) = answer.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
                Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
            };
            // Timers belong to the runtime as well: nothing of it is made on the exporter's thread.
            let work = async move { tokio::time::timeout(REQUEST_PATIENCE, exchange).await };
            let work = self.runtime.spawn(work);
            let answer: Result<Response<Bytes>, HttpError> = match work.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(format!("no answer within {REQUEST_PATIENCE:?}").into()),
                Err(_) => Err("the host is stopping".into()),
            };
            match &answer {
                Ok(answer) if answer.status().is_success() => self.tell(None),
                Ok(answer) => self.tell(Some(&format!("it answers {}", answer.status()))),
                Err(error) => self.tell(Some(&error.to_string())),
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where traces go with this flag and these variables.
    fn where_to(flag: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        endpoint(flag, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_flag_comes_first_then_the_variable_of_traces_then_that_of_everything() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/");
        let traces = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://traces:4318/own",
        );
        assert_eq!(where_to(None, &[]), None);
        let to = |text: &str| Some(text.to_owned());
        assert_eq!(where_to(None, &[all]), to("http://all:4318/v1/traces"));
        assert_eq!(where_to(None, &[all, traces]), to("http://traces:4318/own"));
        let flag = Some("https://flag:4318");
        let off = ("OTEL_SDK_DISABLED", "TRUE");
        assert_eq!(
            where_to(flag, &[all, traces, off]),
            to("https://flag:4318/v1/traces")
        );
        assert_eq!(where_to(None, &[all, off]), None);
        assert_eq!(
            where_to(None, &[all, ("OTEL_TRACES_EXPORTER", "none")]),
            None
        );
        assert!(where_to(None, &[all, ("OTEL_TRACES_EXPORTER", "otlp")]).is_some());
    }
}
