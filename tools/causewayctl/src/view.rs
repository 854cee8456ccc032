//! What `status` and `top` show, computed from one look at the processes, or from two for rates.

mod frame;
mod providers;
mod window;

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use self::frame::{Scroll, frame};
pub(crate) use self::providers::{Keys, ProviderRow};
use self::window::{Window, quantile};
use crate::fleet::Seen;

/// Everything that is shown. Rates are per second; they and shares are absent until there were two looks.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    pub(crate) processes: Vec<Process>,
    pub(crate) totals: Totals,
    /// Slowest first.
    pub(crate) providers: Vec<ProviderRow>,
}

/// One process.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Process {
    pub(crate) target: String,
    /// `edge`, `all`, ...
    pub(crate) service: String,
    /// As it says, or `unreachable`.
    pub(crate) state: String,
    /// Why nothing is known of it.
    pub(crate) problem: Option<String>,
    pub(crate) program: String,
    pub(crate) uptime_s: Option<f64>,
    /// Of one core.
    pub(crate) cpu: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
    pub(crate) sessions: Option<f64>,
    /// What the service is there for.
    pub(crate) rate: Option<f64>,
    /// Of what.
    pub(crate) rate_of: &'static str,
    pub(crate) queues: Queues,
    /// Parts that do not work, and what that means.
    pub(crate) degraded: BTreeMap<String, String>,
}

/// What waits in a process.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Queues {
    /// The fullest of its bounded memories, of its bound.
    pub(crate) fullest: Option<f64>,
    /// Operations for the mailbox.
    pub(crate) to_write: Option<f64>,
    /// Devices to be woken.
    pub(crate) to_push: Option<f64>,
    /// Media transfers under way.
    pub(crate) transfers: Option<f64>,
}

/// The whole deployment.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Totals {
    /// By service: those that serve, and all that are known.
    pub(crate) serving: BTreeMap<String, (usize, usize)>,
    pub(crate) sessions: Option<f64>,
    pub(crate) connections: Option<f64>,
    pub(crate) logins: Option<f64>,
    pub(crate) login_failures: Option<f64>,
    pub(crate) messages: Option<f64>,
    pub(crate) delivered: Option<f64>,
    pub(crate) stored: Option<f64>,
    /// Neither of both.
    pub(crate) others: Option<f64>,
    /// How long senders wait for the outcome, in seconds: half of them, and 99 of 100.
    pub(crate) ack_p50_s: Option<f64>,
    pub(crate) ack_p99_s: Option<f64>,
    pub(crate) mailbox_messages: Option<f64>,
    pub(crate) mailbox_bytes: Option<f64>,
    pub(crate) mailbox_oldest_s: Option<f64>,
    pub(crate) to_write: Option<f64>,
    pub(crate) to_push: Option<f64>,
    pub(crate) media_bytes: Option<f64>,
}

impl View {
    /// `before` is an earlier look; providers are measured since `baseline`, or since the processes have started.
    pub(crate) fn of(now: &[Seen], before: Option<&[Seen]>, baseline: Option<&[Seen]>, keys: &[Keys]) -> Self {
        let processes: Vec<_> = now.iter().map(|seen| process(seen, before)).collect();
        let totals = totals(now, before, &processes);
        Self { processes, totals, providers: providers::rows(&Window::new(now, baseline), keys) }
    }
}

fn process(seen: &Seen, before: Option<&[Seen]>) -> Process {
    let health = match &seen.health {
        Ok(health) => health,
        Err(problem) => {
            let (target, problem) = (seen.place.clone(), Some(problem.clone()));
            // What it was when it last answered.
            let earlier = before.into_iter().flatten().find(|earlier| earlier.place == seen.place);
            let service = earlier.map_or("", Seen::service).to_owned();
            return Process { target, service, problem, state: "unreachable".to_owned(), ..Process::default() };
        }
    };
    let alone = Window::of(seen, before);
    let level = |name| seen.metrics.sum(name, &[]);
    let share = |used, limit| Some(level(used)? / level(limit)?.max(1.0));
    let fullest = [
        share("causeway_edge_pending_bytes", "causeway_edge_pending_limit_bytes"),
        share("causeway_edge_queued_bytes", "causeway_edge_queued_limit_bytes"),
        share("causeway_routing_memory_bytes", "causeway_routing_memory_limit_bytes"),
    ];
    let (rate_of, counter) = match seen.service() {
        "routing" => ("msg", "causeway_routing_submissions_total"),
        "key-directory" => ("call", "causeway_key_directory_calls_total"),
        "media-relay" => ("byte", "causeway_media_transferred_bytes_total"),
        _ => ("msg", "causeway_edge_messages_total"),
    };
    Process {
        target: seen.place.clone(),
        service: seen.service().to_owned(),
        state: health.status.clone(),
        problem: None,
        program: health.program(),
        uptime_s: level("process_uptime_seconds").or_else(|| {
            let (started, time) = (health.started_at?, health.time?);
            Some(time.saturating_sub(started) as f64 / 1e3)
        }),
        cpu: alone.rate("process_cpu_time_seconds_total", &[]),
        memory_bytes: level("process_memory_usage_bytes"),
        sessions: level("causeway_edge_sessions").or_else(|| level("causeway_routing_sessions")),
        // A counter may begin to be there when it first counts.
        rate: alone.rate(counter, &[]).or_else(|| alone.is_of_two_looks().then_some(0.0)),
        rate_of,
        queues: Queues {
            fullest: fullest.into_iter().flatten().reduce(f64::max),
            to_write: level("causeway_routing_mailbox_queue"),
            to_push: level("causeway_routing_push_queue"),
            transfers: level("causeway_media_transfers_active"),
        },
        degraded: health.degraded().map(|(part, meaning)| (part.to_owned(), meaning.to_owned())).collect(),
    }
}

fn totals(now: &[Seen], before: Option<&[Seen]>, processes: &[Process]) -> Totals {
    let mut serving = BTreeMap::<String, (usize, usize)>::new();
    for process in processes {
        let service = if process.service.is_empty() { "?" } else { &process.service };
        let (serves, all) = serving.entry(service.to_owned()).or_default();
        *serves += usize::from(matches!(process.state.as_str(), "ready" | "degraded"));
        *all += 1;
    }
    let window = Window::new(now, before);
    let level = |name| window.levels(name).reduce(|one, other| one + other);
    // Each replica tells of the whole store.
    let of_store = |name| window.levels(name).reduce(f64::max);
    let logins = window.rate("causeway_edge_logins_total", &[]);
    let messages = window.rate("causeway_edge_messages_total", &[]).or(logins.map(|_| 0.0));
    let delivered = window.rate("causeway_edge_messages_total", &[("outcome", "delivered")]);
    let stored = window.rate("causeway_edge_messages_total", &[("outcome", "stored")]);
    let acks = window.buckets("causeway_edge_message_duration_seconds", &[]);
    Totals {
        serving,
        sessions: level("causeway_edge_sessions"),
        connections: level("causeway_edge_connections"),
        logins,
        login_failures: window.rate("causeway_edge_login_failures_total", &[]),
        others: messages.map(|all| (all - delivered.unwrap_or(0.0) - stored.unwrap_or(0.0)).max(0.0)),
        messages,
        delivered,
        stored,
        ack_p50_s: quantile(&acks, 0.5),
        ack_p99_s: quantile(&acks, 0.99),
        mailbox_messages: of_store("causeway_routing_mailbox_messages"),
        mailbox_bytes: of_store("causeway_routing_mailbox_size_bytes"),
        mailbox_oldest_s: of_store("causeway_routing_mailbox_oldest_age_seconds"),
        to_write: level("causeway_routing_mailbox_queue"),
        to_push: level("causeway_routing_push_queue"),
        media_bytes: window.rate("causeway_media_transferred_bytes_total", &[]),
    }
}
