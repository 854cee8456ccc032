//! Traces of sampled messages: a span for each hop, in whichever process it happens.
//!
//! The sender's edge decides once whether a message is traced ([`Step::begin`]); from then on its [`TraceContext`] goes with
//! it, and each hop opens a span below the one before ([`Step::under`]). For all other messages there is nothing but an empty
//! `Option`. What clients send has no say in it.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::SdkTracer;
use tracing::field::Empty;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::registry::LookupSpan;

/// Of the spans, and of nothing else.
pub(super) const TARGET: &str = "causeway::trace";
/// The header, metadata key and field that a context travels in, by W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// A place in a trace; there is one only for what is traced. Its text form is that of W3C `traceparent`, version 00.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
}

/// No trace is named by it, or one that nobody records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent of a sampled trace")]
pub struct NoTrace;

impl TraceContext {
    /// The context that a peer within the deployment sent, if any: empty text and whatever is no sampled context are none.
    pub fn read(text: &str) -> Option<Self> {
        if text.is_empty() { None } else { text.parse().ok() }
    }

    /// That of the span that is current in this task.
    pub fn current() -> Option<Self> {
        if !is_on() {
            return None;
        }
        let in_registry = |(id, dispatch): (&tracing::Id, &tracing::Dispatch)| {
            let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
            let mut scope = span.scope();
            scope.find_map(|span| span.extensions().get::<Self>().copied())
        };
        Span::current().with_subscriber(in_registry).flatten()
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        self.trace
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        self.span
    }

    fn as_parent(self) -> Context {
        let remote = SpanContext::new(self.trace, self.span, TraceFlags::SAMPLED, true, TraceState::NONE);
        Context::new().with_remote_span_context(remote)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = NoTrace;

    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts.next().filter(|part| part.len() == digits && part.bytes().all(lower)).ok_or(NoTrace)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        let trace = TraceId::from_hex(trace).map_err(|_| NoTrace)?;
        let span = SpanId::from_hex(span).map_err(|_| NoTrace)?;
        let whole = trace != TraceId::INVALID && span != SpanId::INVALID && parts.next().is_none();
        if version == "00" && sampled && whole { Ok(Self { trace, span }) } else { Err(NoTrace) }
    }
}

/// What happens in a span.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    name: &'a str,
    kind: &'static str,
}

impl<'a> Hop<'a> {
    /// The sender's edge has it: from reading it to the outcome.
    pub const ACCEPT: Self = Self::new("edge accept", "server");
    /// Routing decides what becomes of it: from its arrival there to the outcome.
    pub const DECIDE: Self = Self::new("routing decide", "server");
    /// Copies of it are written to the mailbox.
    pub const STORE: Self = Self::new("routing store", "internal");
    /// A copy is on its way to a device: from routing's queue to the device's acknowledgement.
    pub const DELIVER: Self = Self::new("routing deliver", "client");
    /// A copy is at the recipient's edge: from its arrival there until it has left for the device.
    pub const HAND_OVER: Self = Self::new("edge hand over", "server");
    /// The device has the copy, and has not acknowledged it.
    pub const ACKNOWLEDGE: Self = Self::new("device acknowledge", "client");
    /// The recipient's provider is told that something waits.
    pub const WEBHOOK: Self = Self::new("routing webhook", "client");

    /// A unary call that is answered, by its name.
    pub const fn serving(method: &'a str) -> Self {
        Self::new(method, "server")
    }

    /// A client's request, by its name.
    pub const fn request(name: &'a str) -> Self {
        Self::new(name, "server")
    }

    const fn new(name: &'a str, kind: &'static str) -> Self {
        Self { name, kind }
    }
}

/// One hop of something that is traced: a span, which ends when the last clone goes.
#[derive(Debug, Clone)]
pub struct Step {
    /// Disabled where this process records no spans: it passes on what it got.
    span: Span,
    context: TraceContext,
}

impl Step {
    /// Decides whether something that has just come in is traced, and begins its trace if so.
    pub fn begin(hop: Hop<'_>) -> Option<Self> {
        if sampled() { Self::open(hop, None) } else { None }
    }

    /// The next hop of what is traced.
    pub fn under(hop: Hop<'_>, parent: Option<TraceContext>) -> Option<Self> {
        let parent = parent?;
        Some(Self::open(hop, Some(parent)).unwrap_or(Self { span: Span::none(), context: parent }))
    }

    fn open(hop: Hop<'_>, parent: Option<TraceContext>) -> Option<Self> {
        if !is_on() {
            return None;
        }
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "hop",
            otel.name = hop.name,
            otel.kind = hop.kind,
            causeway.outcome = Empty,
        );
        if let Some(parent) = parent {
            // The span has just been made, so it has none yet.
            let _set = span.set_parent(parent.as_parent());
        }
        let made = span.context();
        let made = made.span().span_context().clone();
        if !made.is_valid() {
            return None;
        }
        let context = TraceContext { trace: made.trace_id(), span: made.span_id() };
        // For log lines.
        span.with_subscriber(|(id, dispatch)| {
            if let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
                span.extensions_mut().insert(context);
            }
        });
        Some(Self { span, context })
    }

    /// What goes with it to the next hop.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// For what is to be done within it.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// How it ended, by a word of a closed list.
    pub fn outcome(&self, outcome: &'static str) {
        self.span.record("causeway.outcome", outcome);
    }
}

/// The text form of what goes with a message; empty for one that is not traced.
pub fn to_text(context: Option<TraceContext>) -> String {
    context.map(|context| context.to_string()).unwrap_or_default()
}

/// Of 2^64, so many are sampled; all of them, if it is the greatest number.
static THRESHOLD: AtomicU64 = AtomicU64::new(0);
static DRAWN: AtomicU64 = AtomicU64::new(0);
/// Whether spans are recorded in this process.
static ON: AtomicU64 = AtomicU64::new(0);

fn is_on() -> bool {
    ON.load(Ordering::Relaxed) != 0
}

/// Spans are recorded from now on, and so many of what begins here is traced.
pub(super) fn record(ratio: f64) {
    DRAWN.store(RandomState::new().hash_one(0), Ordering::Relaxed);
    THRESHOLD.store(threshold(ratio), Ordering::Relaxed);
    ON.store(1, Ordering::Relaxed);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "saturates")]
fn threshold(ratio: f64) -> u64 {
    (ratio * u64::MAX as f64) as u64
}

fn sampled() -> bool {
    let threshold = THRESHOLD.load(Ordering::Relaxed);
    threshold != 0 && (threshold == u64::MAX || draw() < threshold)
}

/// SplitMix64: evenly spread, and cheaper than a lock. Nobody gains from foreseeing which message is traced.
fn draw() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut drawn = DRAWN.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    drawn ^ (drawn >> 31)
}

/// Makes spans of the tracing crate spans of OpenTelemetry.
pub(super) fn layer<S>(tracer: SdkTracer) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_tracer(tracer)
}

/// Lets the spans through a filter for logs, so that lines within them can be told apart.
pub(super) fn directive() -> Option<Directive> {
    format!("{TARGET}=info").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_sampled_contexts_are_read() {
        assert_eq!(TraceContext::read(GOOD).unwrap().to_string(), GOOD);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_process_without_spans_passes_contexts_on() {
        let context = TraceContext::read(GOOD);
        let step = Step::under(Hop::DECIDE, context).unwrap();
        assert_eq!(Some(step.context()), context);
        assert!(Step::under(Hop::DECIDE, None).is_none());
    }

    #[test]
    fn as_many_are_drawn_as_asked_for() {
        assert_eq!((threshold(0.0), threshold(1.0)), (0, u64::MAX));
        let limit = threshold(0.01);
        let drawn = (0..100_000).filter(|_| draw() < limit).count();
        assert!((700..1_300).contains(&drawn), "{drawn}");
    }
}
