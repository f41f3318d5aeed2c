//! Traces: a host that is told of a collector sends it its reconciles, the calls of plugins within them, and what these ask of the
//! outside; no secret is in them. One that is not told sends nothing, and says nothing of it.

use capstan_tests::cluster::TestCluster;
use capstan_tests::collector::{Collector, Span};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::SECRET;
use capstan_tests::{PATIENCE, eventually, run, wasm};

const OWN: &str = "traced";

/// The span that `span` is in.
fn around<'a>(spans: &'a [Span], span: &Span) -> Option<&'a Span> {
    spans.iter().find(|other| other.id == span.parent)
}

#[test]
fn a_collector_sees_reconciles_calls_and_requests_and_no_secret() {
    run(async {
        let collector = Collector::start().await;
        let mut host = TestHost::without_host().await;
        host.runs_with("traced", &["--otlp-endpoint", &collector.endpoint()]);
        host.plugins_ready().await;
        let cluster = TestCluster::new(OWN, "seen", 1);
        cluster.create(host.kube()).await;
        cluster.available(&host, 1).await;
        let made = |span: &Span| {
            span.name == "http.send"
                && span.says("http.request.method") == "POST"
                && span.says("http.response.status_code") == "201"
        };
        let spans = eventually("an instance is made in a trace", PATIENCE, async || {
            let spans = collector.spans();
            let made = spans.iter().any(|span| {
                made(span)
                    && around(&spans, span).is_some_and(|call| around(&spans, call).is_some())
            });
            made.then_some(spans.clone())
                .ok_or(format!("{} spans", spans.len()))
        })
        .await;
        let request = spans
            .iter()
            .find(|span| {
                made(span)
                    && around(&spans, span).is_some_and(|call| around(&spans, call).is_some())
            })
            .unwrap();
        assert_eq!(request.says("http.origin"), host.cloud.access().endpoint);
        let call = around(&spans, request).unwrap();
        assert_eq!(call.says("plugin"), "infrastructure-local", "{call:?}");
        assert!(call.says("digest").starts_with("sha256:"), "{call:?}");
        assert!(
            !call.says("call_id").is_empty() && !call.says("outcome").is_empty(),
            "{call:?}"
        );
        assert_eq!(call.name, call.says("function"));
        let reconcile = around(&spans, call).unwrap();
        assert!(reconcile.parent.is_empty(), "{reconcile:?}");
        assert_eq!(reconcile.says("namespace"), OWN);
        assert_eq!(reconcile.says("cluster"), format!("{OWN}/seen"));
        let (kind, name) = (reconcile.says("kind"), reconcile.says("name"));
        assert_eq!(reconcile.name, format!("reconcile {kind}"));
        assert_eq!(call.says("object"), format!("{kind} {OWN}/{name}"));
        for span in [request, call] {
            assert_eq!(span.trace, reconcile.trace);
        }
        let failed: Vec<&Span> = spans.iter().filter(|span| span.failed).collect();
        assert!(
            failed
                .iter()
                .all(|span| !span.says("error.type").is_empty()),
            "{failed:?}"
        );
        assert_eq!(collector.services(), ["capstan"]);

        let token = &host.cloud.access().token;
        assert!(!collector.has_seen(token.as_bytes()));
        for secret in host.kube().list(SECRET, OWN).await {
            for (key, value) in secret["data"].as_object().unwrap() {
                let value = value.as_str().unwrap();
                let is_short = value.len() < 16;
                assert!(is_short || !collector.has_seen(value.as_bytes()), "{key}");
            }
        }
    });
}

#[test]
fn what_is_said_of_a_collector_and_cannot_be_ends_the_host_with_the_reason() {
    let program = |variables: &[(&str, &str)]| {
        let output = std::process::Command::new(wasm::program())
            .args(["run", "--kubeconfig", "/nonexistent"])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let protocol = program(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert!(
        protocol.contains("http/protobuf") && protocol.contains("4318"),
        "{protocol}"
    );
    let authority = program(&[endpoint, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent")]);
    assert!(
        authority.contains("OTEL_EXPORTER_OTLP_CERTIFICATE /nonexistent"),
        "{authority}"
    );
    // Switched off, neither is looked at.
    let off = program(&[
        endpoint,
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_SDK_DISABLED", "true"),
    ]);
    assert!(!off.contains("http/protobuf"), "{off}");
}
