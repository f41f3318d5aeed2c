//! Logs to standard error, as text for people or as JSON for machines, and traces to a collector.

mod traces;

use std::io;

use capstan_engine::escaped;
use clap::ValueEnum;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::{FormatFields, format};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub(crate) use traces::Traces;

/// Variable with a filter such as `debug` or `info,capstan_controllers=debug`.
const FILTER: &str = "CAPSTAN_LOG";

/// Libraries that say what nobody asked for. The client's errors are said by whoever made the request.
const QUIET: &str =
    "hyper=warn,hyper_util=warn,kube_client=off,rustls=warn,tower=warn,wasmtime=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Fields as the text format has them usually, with everything written out that would not stay on its line: words of plugins and servers
/// are among them. JSON does so by itself.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let value = escaped(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{}={value}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}

/// Starts logging at this level unless the environment says otherwise. A second start changes nothing.
///
/// # Errors
/// When the environment's filter cannot be understood.
pub(crate) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    start_with(format, level, None)
}

/// The same with traces, where somebody takes them.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_with(
    format: LogFormat,
    level: &str,
    traces: Option<&Traces>,
) -> anyhow::Result<()> {
    let asked = std::env::var(FILTER)
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = match &asked {
        Some(filter) => {
            EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("{FILTER}: {error}"))?
        }
        None => EnvFilter::try_new(format!("{level},{QUIET}"))?,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).fmt_fields(fields()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // An error means that there is a subscriber already.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.map(Traces::layer))
        .try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_a_message_or_a_field_holds_an_event_is_one_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(fields())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let forged = "x\n2026-01-01T00:00:00Z ERROR capstan: forged\u{1b}[2K";
            let span = tracing::info_span!("reconcile", object = %forged);
            let _entered = span.enter();
            tracing::warn!(reason = %forged, text = "a b", count = 3, "{forged}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        for part in [
            "text=\"a b\"",
            " count=3",
            "reason=x\\n2026",
            "reconcile{object=x\\n2026",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
