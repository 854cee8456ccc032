//! All instruments of a routing (docs/metrics.md). Labels come from closed lists only.

use std::sync::Arc;
use std::time::Duration;

use causeway_runtime::telemetry::instruments::WAITS;
use causeway_runtime::telemetry::tally::Tally;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};

use crate::mailbox::StoreError;
use crate::message::{Class, Ending, Outcome, Rejection};
use crate::trails::Settled;

/// Instruments of a routing; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    unanswered: Counter<u64>,
    ended: Counter<u64>,
    fan_out: Histogram<u64>,
    delivery_duration: Histogram<f64>,
    sessions: UpDownCounter<i64>,
    recipients: UpDownCounter<i64>,
    links: UpDownCounter<i64>,
    endings: Counter<u64>,
    moves: Counter<u64>,
    owned: UpDownCounter<i64>,
    claims: Counter<u64>,
    resets: Counter<u64>,
    commits: Histogram<f64>,
    commit_operations: Histogram<u64>,
    store_errors: Counter<u64>,
    expired: Counter<u64>,
    records_fetched: Counter<u64>,
    prekeys_low: Counter<u64>,
    webhooks: Counter<u64>,
    webhook_duration: Histogram<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("causeway.routing");
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
        let sizes = |name: &'static str, unit: &'static str, about: &'static str, bounds: &[f64]| {
            let histogram = meter.u64_histogram(name).with_unit(unit).with_description(about);
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        let metrics = Instruments {
            unanswered: counter(
                "causeway.routing.unanswered",
                "{message}",
                "Messages of which nothing true could be said; their senders repeat them",
            ),
            ended: counter(
                "causeway.routing.mailbox.ended",
                "{message}",
                "Copies that were in the mailbox and have reached their end",
            ),
            fan_out: sizes(
                "causeway.routing.fan_out",
                "{device}",
                "Devices that a submitted message is for",
                &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0],
            ),
            delivery_duration: waits(
                "causeway.routing.delivery.duration",
                "From giving a message to a session to its device's acknowledgement",
            ),
            sessions: level("causeway.routing.sessions", "{session}", "Sessions that are attached"),
            recipients: level("causeway.routing.recipients", "{recipient}", "Addresses that have an actor in memory"),
            links: level("causeway.routing.links", "{link}", "Links from edges"),
            endings: counter("causeway.routing.endings", "{session}", "Sessions that were told to end"),
            moves: counter("causeway.routing.moves", "{session}", "Sessions that were told to attach elsewhere"),
            owned: level("causeway.routing.accounts.owned", "{account}", "Accounts that this replica owns"),
            claims: counter("causeway.routing.claims", "{account}", "Attempts to own an account"),
            resets: counter(
                "causeway.routing.resets",
                "{account}",
                "Accounts of which all that was known was given up",
            ),
            commits: waits("causeway.routing.mailbox.commit.duration", "Commits of what was to be written together"),
            commit_operations: sizes(
                "causeway.routing.mailbox.commit.operations",
                "{operation}",
                "What was written together",
                &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 4_096.0],
            ),
            store_errors: counter(
                "causeway.routing.mailbox.errors",
                "{operation}",
                "Operations that the store did not do",
            ),
            expired: counter(
                "causeway.routing.mailbox.expired",
                "{message}",
                "Copies that were erased because nobody fetched them in time",
            ),
            records_fetched: counter(
                "causeway.routing.records.fetched",
                "{record}",
                "Records of accounts that were asked for",
            ),
            prekeys_low: counter(
                "causeway.routing.prekeys.low",
                "{device}",
                "Devices that were told that they run low on one-time prekeys",
            ),
            webhooks: counter("causeway.routing.webhooks", "{request}", "Push webhooks"),
            webhook_duration: waits(
                "causeway.routing.webhook.duration",
                "Push webhooks, until the provider has answered",
            ),
        };
        // So that they are there from the beginning.
        for level in [&metrics.sessions, &metrics.recipients, &metrics.links, &metrics.owned] {
            level.add(0, &[]);
        }
        for counter in [&metrics.unanswered, &metrics.moves, &metrics.expired, &metrics.prekeys_low] {
            counter.add(0, &[]);
        }
        for (counter, label, words) in [
            (&metrics.ended, "end", &["acknowledged", "device-removed", "expired"][..]),
            (&metrics.endings, "reason", &["replaced", "device-removed", "withdrawn", "overloaded"]),
            (&metrics.claims, "result", &["free", "kept", "taken", "held", "failed"]),
            (&metrics.resets, "reason", &["taken", "released", "unknown", "fenced"]),
            (&metrics.store_errors, "reason", &["busy", "closed", "failed", "unknown", "fenced"]),
            (&metrics.webhooks, "result", &["taken", "refused", "gone", "failed", "no-room"]),
        ] {
            words.iter().for_each(|word| counter.add(0, &[KeyValue::new(label, *word)]));
        }
        MESSAGES.tell(&meter);
        Self(Arc::new(metrics))
    }

    /// Tells from now on what `read` gives, as long as it gives something.
    pub(crate) fn observe(
        &self,
        name: &'static str,
        unit: &'static str,
        about: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        global::meter("causeway.routing")
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(about)
            .with_callback(move |to| {
                if let Some(value) = read() {
                    to.observe(value, &[]);
                }
            })
            .build();
    }

    /// A message for so many devices has come in.
    pub(crate) fn submitted(&self, class: Class, devices: usize) {
        MESSAGES.submissions.count(class as usize);
        self.0.fan_out.record(devices as u64, &[]);
    }

    pub(crate) fn decided(&self, outcome: &Outcome) {
        MESSAGES.outcomes.count(outcome.number());
    }

    /// Nothing true could be said about a message; its sender's session ends.
    pub(crate) fn left_unanswered(&self) {
        self.0.unanswered.add(1, &[]);
    }

    pub(crate) fn accepted(&self, class: Class) {
        MESSAGES.accepted.count(class as usize);
    }

    /// An accepted message is not under way any more.
    pub(crate) fn settled(&self, class: Class, how: Settled) {
        MESSAGES.settled.count(class as usize * Settled::ALL.len() + how as usize);
    }

    /// So many copies have left the mailbox: `acknowledged`, `device-removed`, `expired`.
    pub(crate) fn left_mailbox(&self, end: &'static str, copies: u64) {
        self.0.ended.add(copies, &[KeyValue::new("end", end)]);
    }

    pub(crate) fn delivering(&self, from_mailbox: bool) {
        MESSAGES.deliveries.count(usize::from(from_mailbox));
    }

    /// A device has acknowledged what it was given so long ago.
    pub(crate) fn acknowledged(&self, from_mailbox: bool, after: Duration) {
        self.0.delivery_duration.record(after.as_secs_f64(), &[KeyValue::new("path", path(from_mailbox))]);
    }

    pub(crate) fn session_attached(&self) {
        self.0.sessions.add(1, &[]);
    }

    pub(crate) fn session_detached(&self) {
        self.0.sessions.add(-1, &[]);
    }

    pub(crate) fn session_ended(&self, reason: Ending) {
        let name = match reason {
            Ending::Replaced => "replaced",
            Ending::DeviceRemoved => "device-removed",
            Ending::Withdrawn => "withdrawn",
            Ending::BadStanza => "bad-stanza",
            Ending::BadAck => "bad-ack",
            Ending::Overloaded => "overloaded",
        };
        self.0.endings.add(1, &[KeyValue::new("reason", name)]);
    }

    /// A session is to attach again.
    pub(crate) fn session_moved(&self) {
        self.0.moves.add(1, &[]);
    }

    /// This replica owns one account more, or one less.
    pub(crate) fn owns(&self, one_more: bool) {
        self.0.owned.add(if one_more { 1 } else { -1 }, &[]);
    }

    /// An account was claimed, or not: `free`, `kept`, `taken` from another, `held` by another, `failed`.
    pub(crate) fn claimed(&self, result: &'static str) {
        self.0.claims.add(1, &[KeyValue::new("result", result)]);
    }

    /// All that was known of an account was given up, because `reason`.
    pub(crate) fn reset(&self, reason: &'static str) {
        self.0.resets.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn recipient_loaded(&self) {
        self.0.recipients.add(1, &[]);
    }

    pub(crate) fn recipient_left(&self) {
        self.0.recipients.add(-1, &[]);
    }

    pub(crate) fn link_opened(&self) {
        self.0.links.add(1, &[]);
    }

    pub(crate) fn link_closed(&self) {
        self.0.links.add(-1, &[]);
    }

    pub(crate) fn committed(&self, operations: usize, took: Duration) {
        self.0.commits.record(took.as_secs_f64(), &[]);
        self.0.commit_operations.record(operations as u64, &[]);
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        self.0.store_errors.add(1, &[KeyValue::new("reason", error.reason())]);
    }

    pub(crate) fn expired(&self, copies: u64) {
        self.0.expired.add(copies, &[]);
        self.left_mailbox("expired", copies);
    }

    pub(crate) fn record_fetched(&self, found: &'static str) {
        self.0.records_fetched.add(1, &[KeyValue::new("result", found)]);
    }

    pub(crate) fn told_prekeys_low(&self) {
        self.0.prekeys_low.add(1, &[]);
    }

    /// A webhook was answered after this time, or there was no room for it.
    pub(crate) fn webhook_sent(&self, result: &'static str, took: Option<Duration>) {
        let result = KeyValue::new("result", result);
        self.0.webhooks.add(1, std::slice::from_ref(&result));
        if let Some(took) = took {
            self.0.webhook_duration.record(took.as_secs_f64(), &[result]);
        }
    }
}

/// What is counted of each message, by all instances of this process together.
static MESSAGES: Messages = Messages {
    submissions: Tally::new(),
    accepted: Tally::new(),
    deliveries: Tally::new(),
    settled: Tally::new(),
    outcomes: Tally::new(),
};

struct Messages {
    submissions: Tally<{ Class::ALL.len() }>,
    accepted: Tally<{ Class::ALL.len() }>,
    /// Those that came at once, and those from the mailbox.
    deliveries: Tally<2>,
    /// By class, then by how.
    settled: Tally<{ Class::ALL.len() * Settled::ALL.len() }>,
    outcomes: Tally<{ Outcome::NAMES.len() }>,
}

impl Messages {
    fn tell(&'static self, meter: &Meter) {
        let class = |class: Class| KeyValue::new("class", class.name());
        let by_class = |number: usize| vec![class(Class::ALL[number])];
        let about = "Messages that edges have submitted";
        self.submissions.tell(meter, "causeway.routing.submissions", about, by_class);
        let about = "Messages that were accepted: from then on each is under way until it is settled";
        self.accepted.tell(meter, "causeway.routing.messages.accepted", about, by_class);
        let about = "Messages on their way to devices";
        let by_path = |number| vec![KeyValue::new("path", path(number == 1))];
        self.deliveries.tell(meter, "causeway.routing.deliveries", about, by_path);
        let about = "Accepted messages that have reached their end, or wait in the mailbox";
        self.settled.tell(meter, "causeway.routing.messages.settled", about, |number| {
            let state = Settled::ALL[number % Settled::ALL.len()];
            vec![class(Class::ALL[number / Settled::ALL.len()]), KeyValue::new("state", state.name())]
        });
        let by_outcome = |number: usize| vec![KeyValue::new("outcome", Outcome::NAMES[number])];
        self.outcomes.tell(meter, "causeway.routing.outcomes", "Messages that were answered", by_outcome);
    }
}

const fn path(from_mailbox: bool) -> &'static str {
    if from_mailbox { "mailbox" } else { "live" }
}

impl Class {
    /// In the order of their numbers.
    const ALL: [Self; 3] = [Self::Chat, Self::Ephemeral, Self::Call];

    /// As the protocol writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Ephemeral => "ephemeral",
            Self::Call => "call",
        }
    }
}

impl Outcome {
    const NAMES: [&'static str; 7] = [
        "delivered",
        "stored",
        "dropped",
        "rejected-devices",
        "rejected-not-available",
        "rejected-rate-limited",
        "rejected-too-large",
    ];

    /// For metrics and traces.
    pub(crate) const fn name(&self) -> &'static str {
        Self::NAMES[self.number()]
    }

    const fn number(&self) -> usize {
        match self {
            Self::Delivered => 0,
            Self::Stored => 1,
            Self::Dropped => 2,
            Self::Rejected(Rejection::Devices(_)) => 3,
            Self::Rejected(Rejection::NotAvailable) => 4,
            Self::Rejected(Rejection::RateLimited { .. } | Rejection::Full { .. }) => 5,
            Self::Rejected(Rejection::TooLarge) => 6,
        }
    }
}
