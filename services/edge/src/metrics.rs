//! All instruments of the edge (docs/metrics.md). Labels come from closed lists only.

use std::sync::Arc;
use std::time::Duration;

use causeway_runtime::telemetry::instruments::WAITS;
use causeway_runtime::telemetry::tally::Tally;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};

use crate::limits::Budget;
use crate::trip::{Class, Fate};

/// Handle of the instruments; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    connections: UpDownCounter<i64>,
    sessions: UpDownCounter<i64>,
    dropped: Counter<u64>,
    accept_errors: Counter<u64>,
    handshakes: Counter<u64>,
    alerts: Counter<u64>,
    logins: Counter<u64>,
    login_failures: Counter<u64>,
    login_duration: Histogram<f64>,
    ended: Counter<u64>,
    requests: Counter<u64>,
    request_duration: Histogram<f64>,
    message_duration: Histogram<f64>,
    link_losses: Counter<u64>,
    full_queues: Counter<u64>,
    moves: Counter<u64>,
    again: Counter<u64>,
}

/// Why a connection ended before its handshake was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// No place for it.
    NoPlace,
    /// It did not get through the handshake in time.
    Deadline,
    /// It left, or the WebSocket upgrade failed.
    Gone,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("causeway.edge");
        let counter = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(about).build()
        };
        let level = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.i64_up_down_counter(name).with_unit(unit).with_description(about).build()
        };
        let waits = |name: &'static str, about: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(about);
            histogram.with_boundaries(WAITS.to_vec()).build()
        };
        let metrics = Instruments {
            connections: level("causeway.edge.connections", "{connection}", "Connections that are open"),
            sessions: level("causeway.edge.sessions", "{session}", "Sessions that are logged in"),
            dropped: counter(
                "causeway.edge.connections.dropped",
                "{connection}",
                "Connections that ended before their handshake was over, without a word",
            ),
            accept_errors: counter("causeway.edge.accept.errors", "{error}", "Connections that could not be accepted"),
            handshakes: counter("causeway.edge.handshakes", "{handshake}", "Handshakes that are over"),
            alerts: counter("causeway.edge.alerts", "{alert}", "Handshakes that were refused"),
            logins: counter("causeway.edge.logins", "{login}", "Logins that succeeded"),
            login_failures: counter("causeway.edge.login.failures", "{login}", "Logins that failed"),
            login_duration: waits("causeway.edge.login.duration", "From the connection to the login"),
            ended: counter("causeway.edge.sessions.ended", "{session}", "Sessions that are over"),
            requests: counter("causeway.edge.requests", "{request}", "Requests that were answered"),
            request_duration: waits("causeway.edge.request.duration", "From a request to its answer"),
            message_duration: waits("causeway.edge.message.duration", "From a message to its outcome"),
            link_losses: counter("causeway.edge.link.losses", "{loss}", "Links to routing that broke"),
            full_queues: counter(
                "causeway.edge.queues.full",
                "{session}",
                "Sessions that were ended because they did not read",
            ),
            moves: counter("causeway.edge.sessions.moved", "{session}", "Sessions told to attach elsewhere"),
            again: counter("causeway.edge.messages.again", "{message}", "Messages submitted again after a loss"),
        };
        MESSAGES.tell(&meter);
        // So that they are there from the beginning.
        for level in [&metrics.connections, &metrics.sessions] {
            level.add(0, &[]);
        }
        for counter in [
            &metrics.accept_errors,
            &metrics.logins,
            &metrics.link_losses,
            &metrics.full_queues,
            &metrics.moves,
            &metrics.again,
        ] {
            counter.add(0, &[]);
        }
        for (counter, label, words) in [
            (&metrics.dropped, "why", &["no-place", "deadline", "gone"][..]),
            (&metrics.handshakes, "result", &["completed", "refused", "deadline", "gone"]),
        ] {
            words.iter().for_each(|word| counter.add(0, &[KeyValue::new(label, *word)]));
        }
        Self(Arc::new(metrics))
    }

    /// Tells how full the edge is, from now on: with messages that wait for outcomes, and for sockets.
    pub(crate) fn observe_budgets(&self, pending: &Arc<Budget>, queued: &Arc<Budget>) {
        let meter = global::meter("causeway.edge");
        let about = "Messages of clients that wait for outcomes";
        observe_budget(&meter, pending, "causeway.edge.pending", "causeway.edge.pending.limit", about);
        let about = "Messages that wait for clients' sockets";
        observe_budget(&meter, queued, "causeway.edge.queued", "causeway.edge.queued.limit", about);
    }

    /// Tells how many links there are, from now on: that are up, and of replicas that drain.
    pub(crate) fn observe_links(&self, count: impl Fn() -> (usize, usize) + Send + Sync + 'static) {
        let meter = global::meter("causeway.edge");
        meter
            .u64_observable_gauge("causeway.edge.links")
            .with_unit("{link}")
            .with_description("Links to replicas of routing")
            .with_callback(move |to| {
                let (up, draining) = count();
                to.observe(up as u64, &[KeyValue::new("state", "up")]);
                to.observe(draining as u64, &[KeyValue::new("state", "draining")]);
            })
            .build();
    }

    pub(crate) fn connected(&self) {
        self.0.connections.add(1, &[]);
    }

    pub(crate) fn disconnected(&self) {
        self.0.connections.add(-1, &[]);
    }

    /// A connection ended without an alert, a failure or an end.
    pub(crate) fn dropped(&self, why: Dropped) {
        let why = match why {
            Dropped::NoPlace => "no-place",
            Dropped::Deadline => "deadline",
            Dropped::Gone => "gone",
        };
        self.0.dropped.add(1, &[KeyValue::new("why", why)]);
        if why != "no-place" {
            self.shook_hands(why);
        }
    }

    pub(crate) fn accept_failed(&self) {
        self.0.accept_errors.add(1, &[]);
    }

    /// `code` is the alert's number.
    pub(crate) fn alert_sent(&self, code: u8) {
        self.0.alerts.add(1, &[KeyValue::new("code", i64::from(code))]);
        self.shook_hands("refused");
    }

    /// So long after its connection came.
    pub(crate) fn logged_in(&self, after: Duration) {
        self.0.logins.add(1, &[]);
        self.0.sessions.add(1, &[]);
        self.0.login_duration.record(after.as_secs_f64(), &[]);
        self.shook_hands("completed");
    }

    /// `reason` is the wire name of the failure reason.
    pub(crate) fn login_failed(&self, reason: &'static str) {
        self.0.login_failures.add(1, &[KeyValue::new("reason", reason)]);
        self.shook_hands("completed");
    }

    fn shook_hands(&self, result: &'static str) {
        self.0.handshakes.add(1, &[KeyValue::new("result", result)]);
    }

    /// `reason` is the wire name of the end reason, or `gone` for a client that left without a word.
    pub(crate) fn session_ended(&self, reason: &'static str) {
        self.0.sessions.add(-1, &[]);
        self.0.ended.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// `request` and `outcome` are wire names; the outcome of a request that was carried out is `done`.
    pub(crate) fn request_answered(&self, request: &'static str, outcome: &'static str, after: Duration) {
        let of = [KeyValue::new("request", request), KeyValue::new("outcome", outcome)];
        self.0.requests.add(1, &of);
        self.0.request_duration.record(after.as_secs_f64(), &of[..1]);
    }

    /// A client's message has its outcome.
    pub(crate) fn message_answered(&self, class: Class, fate: Fate, after: Duration) {
        MESSAGES.by_fate.count(class as usize * Fate::ALL.len() + fate as usize);
        let of = [KeyValue::new("class", class.name()), KeyValue::new("outcome", fate.name())];
        self.0.message_duration.record(after.as_secs_f64(), &of);
    }

    /// A message is on its way to a device.
    pub(crate) fn delivered(&self) {
        MESSAGES.deliveries.count(0);
    }

    pub(crate) fn link_lost(&self) {
        self.0.link_losses.add(1, &[]);
    }

    /// Routing has told a session to attach again.
    pub(crate) fn session_moved(&self) {
        self.0.moves.add(1, &[]);
    }

    /// A replica of routing was lost that had not answered these messages.
    pub(crate) fn submitted_again(&self, messages: usize) {
        if messages > 0 {
            self.0.again.add(messages as u64, &[]);
        }
    }

    pub(crate) fn session_queue_full(&self) {
        self.0.full_queues.add(1, &[]);
    }
}

/// A session ended before its message had an outcome.
pub(crate) fn message_unanswered(class: Class) {
    MESSAGES.by_fate.count(class as usize * Fate::ALL.len() + Fate::Unanswered as usize);
}

/// What is counted of each message, by all edges of this process together.
static MESSAGES: Messages = Messages { by_fate: Tally::new(), deliveries: Tally::new() };

struct Messages {
    /// By class, then by fate.
    by_fate: Tally<{ Class::ALL.len() * Fate::ALL.len() }>,
    deliveries: Tally<1>,
}

impl Messages {
    fn tell(&'static self, meter: &Meter) {
        let about = "Messages of clients by what their senders were told";
        self.by_fate.tell(meter, "causeway.edge.messages", about, |number| {
            let (class, fate) = (Class::ALL[number / Fate::ALL.len()], Fate::ALL[number % Fate::ALL.len()]);
            vec![KeyValue::new("class", class.name()), KeyValue::new("outcome", fate.name())]
        });
        self.deliveries.tell(meter, "causeway.edge.deliveries", "Messages handed to devices", |_| Vec::new());
    }
}

fn observe_budget(
    meter: &Meter,
    budget: &Arc<Budget>,
    name: &'static str,
    limit_name: &'static str,
    about: &'static str,
) {
    let (held, limit) = (Arc::downgrade(budget), budget.limit() as u64);
    meter
        .u64_observable_gauge(name)
        .with_unit("By")
        .with_description(about)
        .with_callback(move |to| to.observe(held.upgrade().map_or(0, |budget| budget.held() as u64), &[]))
        .build();
    let gauge = meter.u64_observable_gauge(limit_name).with_unit("By").with_description("Bound of these");
    gauge.with_callback(move |to| to.observe(limit, &[])).build();
}
