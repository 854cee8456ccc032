//! Logs: to standard error, text for people or JSON for machines; never addresses, tokens, keys or ciphertext. What is
//! logged within the span of a traced message carries `trace_id` and `span_id`.

use std::fmt;
use std::io::IsTerminal as _;

use opentelemetry_sdk::trace::SdkTracer;
use serde::{Deserialize, Serialize};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::trace::{self, TraceContext};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line each.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether [`init`] understands this filter.
pub fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}

/// Sets up logging alone for the process. `filter` is a tracing filter such as `info` or `causeway_edge=debug`; one that
/// does not parse falls back to `info`. A second call does nothing.
pub fn init(filter: &str, format: LogFormat) {
    subscribe(filter, format, None);
}

/// The same, with the spans of traced messages.
pub(super) fn subscribe(filter: &str, format: LogFormat, tracer: Option<SdkTracer>) {
    let parsed = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Lines of a traced message name its trace however little is logged.
    let traced = Targets::new().with_target(trace::TARGET, LevelFilter::INFO);
    // What the exporters say of themselves at each start is of no use.
    let quiet = if filter.contains("opentelemetry") { None } else { "opentelemetry=warn".parse().ok() };
    let parsed = quiet.into_iter().fold(parsed, EnvFilter::add_directive);
    let parsed = match trace::directive().filter(|_| tracer.is_some()) {
        Some(spans) => parsed.add_directive(spans),
        None => parsed,
    };
    let colours = std::io::stderr().is_terminal();
    let layer = lines(format, colours, std::io::stderr);
    let spans = tracer.map(|tracer| trace::layer(tracer).with_filter(traced));
    let _second_call = Registry::default().with(layer.with_filter(parsed)).with(spans).try_init();
}

fn lines<S, W>(format: LogFormat, colours: bool, to: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(to);
    match format {
        LogFormat::Text => layer.event_format(Traced::Text(Format::default().with_ansi(colours))).boxed(),
        LogFormat::Json => layer
            .fmt_fields(JsonFields::new())
            .event_format(Traced::Json(Format::default().json().with_current_span(false).with_span_list(false)))
            .boxed(),
    }
}

/// The usual lines, with the ids of the trace they belong to.
enum Traced {
    Text(Format<Full>),
    Json(Format<Json>),
}

impl<S, N> FormatEvent<S, N> for Traced
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let traced = context
            .event_scope()
            .and_then(|mut scope| scope.find_map(|span| span.extensions().get::<TraceContext>().copied()));
        let Some(traced) = traced else { return self.line(context, to, event) };
        let mut line = String::new();
        let whole = Writer::new(&mut line);
        self.line(context, whole, event)?;
        let (trace, span) = (traced.trace_id(), traced.span_id());
        match (self, line.strip_prefix('{')) {
            (Self::Json(_), Some(rest)) => write!(to, r#"{{"trace_id":"{trace}","span_id":"{span}",{rest}"#),
            _ => writeln!(to, "{} trace_id={trace} span_id={span}", line.trim_end()),
        }
    }
}

impl Traced {
    fn line<S, N>(&self, context: &FmtContext<'_, S, N>, to: Writer<'_>, event: &Event<'_>) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        match self {
            Self::Text(format) => format.format_event(context, to, event),
            Self::Json(format) => format.format_event(context, to, event),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::super::trace::{Hop, Step};
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> (String, TraceContext) {
        let (written, provider) = (Written::default(), SdkTracerProvider::builder().build());
        let to = written.clone();
        let subscriber = Registry::default().with(lines(format, false, move || to.clone())).with(
            trace::layer(provider.tracer("test"))
                .with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::INFO)),
        );
        trace::record(1.0);
        let context = tracing::subscriber::with_default(subscriber, || {
            tracing::info!("outside");
            let step = Step::begin(Hop::ACCEPT).unwrap();
            step.span().in_scope(|| tracing::info!(answer = 42, "inside"));
            assert_eq!(step.span().in_scope(TraceContext::current), Some(step.context()));
            step.context()
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        (text, context)
    }

    #[test]
    fn lines_within_a_traced_message_name_its_trace_and_others_do_not() {
        let (text, context) = logged(LogFormat::Text);
        let (outside, inside) = text.split_once('\n').unwrap();
        assert!(outside.ends_with("outside") && !outside.contains("trace_id"), "{text}");
        let ids = format!(" trace_id={} span_id={}\n", context.trace_id(), context.span_id());
        assert!(inside.contains("inside answer=42") && inside.ends_with(&ids), "{text}");

        let (text, context) = logged(LogFormat::Json);
        let (outside, inside) = text.split_once('\n').unwrap();
        assert!(outside.starts_with("{\"timestamp\""), "{text}");
        let ids = format!(r#"{{"trace_id":"{}","span_id":"{}","timestamp""#, context.trace_id(), context.span_id());
        assert!(inside.starts_with(&ids) && inside.contains(r#""answer":42"#), "{text}");
    }
}
