//! The picture: totals, processes, providers, and what is wrong.

use super::{Process, ProviderRow, Totals, View};
use crate::screen::{Column, Line, Piece, Style, Table, bytes, count, duration, percent, rate, seconds};

/// Lines of providers and of troubles that are shown even when there are many processes.
const FEW: usize = 4;

/// How much there is room for, and where in the list of processes the reader is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scroll {
    pub(crate) width: Option<usize>,
    pub(crate) height: Option<usize>,
    /// Processes above the first that is shown.
    pub(crate) above: usize,
}

/// The whole picture; with a height, no more lines than that.
pub(crate) fn frame(view: &View, scroll: Scroll) -> Vec<Line> {
    let mut head = totals(&view.totals);
    head.push(Line::new());
    let mut processes = processes(&view.processes).lines(scroll.width);
    let mut providers = match view.providers.is_empty() {
        true => Vec::new(),
        false => provider_table(&view.providers).lines(scroll.width),
    };
    let mut troubles = troubles(view);
    if let Some(height) = scroll.height {
        let fixed = head.len() + 1;
        let need = |lines: &[Line]| if lines.is_empty() { 0 } else { lines.len() + 1 };
        let room = height.saturating_sub(fixed);
        // All of them if there is room, else some of each.
        let all = processes.len() + need(&providers) + need(&troubles);
        if all > room {
            let spare = room.saturating_sub(processes.len());
            let least = room.saturating_sub(3) / 2;
            shorten(&mut troubles, spare.saturating_sub(need(&providers) + 1).max(FEW).min(least));
            let spare = room.saturating_sub(processes.len() + need(&troubles) + 1);
            shorten(&mut providers, spare.max(FEW + 1).min(least));
        }
        let left = room.saturating_sub(need(&providers) + need(&troubles));
        if processes.len() > left {
            let shown = left.saturating_sub(2).max(1);
            let above = scroll.above.min(processes.len().saturating_sub(1 + shown));
            let hidden = processes.len() - 1 - shown;
            processes.drain(1..=above);
            processes.truncate(1 + shown);
            processes.push(vec![Piece::new(format!("… {hidden} more processes (arrow keys)"), Style::Dim)]);
        }
    }
    let mut lines = head;
    lines.append(&mut processes);
    for part in [&mut providers, &mut troubles].into_iter().filter(|part| !part.is_empty()) {
        lines.push(Line::new());
        lines.append(part);
    }
    if let Some(height) = scroll.height {
        lines.truncate(height);
    }
    lines
}

fn shorten(lines: &mut Vec<Line>, to: usize) {
    if lines.len() > to.max(1) {
        let hidden = lines.len() - to.max(1) + 1;
        lines.truncate(to.max(1) - 1);
        lines.push(vec![Piece::new(format!("… {hidden} more"), Style::Dim)]);
    }
}

fn totals(totals: &Totals) -> Vec<Line> {
    let mut serving = label("serving");
    for (place, (service, (serves, all))) in totals.serving.iter().enumerate() {
        let style = if serves == all { Style::Good } else { Style::Bad };
        serving.push(Piece::plain(if place > 0 { " · " } else { "" }));
        serving.push(Piece::plain(format!("{service} ")));
        serving.push(Piece::new(format!("{serves}/{all}"), style));
    }
    let mut clients = label("clients");
    let failing = |failures: f64| if failures > 0.0 { Style::Warning } else { Style::Plain };
    facts(
        &mut clients,
        [
            totals.sessions.map(|n| Piece::plain(format!("{} sessions", count(n)))),
            totals.connections.map(|n| Piece::plain(format!("{} connections", count(n)))),
            totals.logins.map(|n| Piece::plain(format!("{} logins/s", rate(n)))),
            totals.login_failures.map(|n| Piece::new(format!("{} refused/s", rate(n)), failing(n))),
        ],
    );
    let mut messages = label("messages");
    let acks = totals.ack_p50_s.zip(totals.ack_p99_s);
    facts(
        &mut messages,
        [
            totals.messages.map(|n| Piece::new(format!("{}/s", rate(n)), Style::Bold)),
            totals.delivered.map(|n| Piece::plain(format!("{} delivered", rate(n)))),
            totals.stored.map(|n| Piece::plain(format!("{} stored", rate(n)))),
            totals.others.filter(|n| *n >= 0.005).map(|n| Piece::new(format!("{} neither", rate(n)), Style::Warning)),
            acks.map(|(half, most)| Piece::plain(format!("acked in {}, p99 {}", seconds(half), seconds(most)))),
        ],
    );
    let mut waiting = label("waiting");
    facts(
        &mut waiting,
        [
            totals.mailbox_messages.map(|n| {
                let size = totals.mailbox_bytes.unwrap_or(0.0);
                Piece::plain(format!("{} in mailboxes ({})", count(n), bytes(size)))
            }),
            totals
                .mailbox_oldest_s
                .filter(|age| *age > 0.0)
                .map(|age| Piece::plain(format!("oldest {}", duration(age)))),
            totals.to_write.map(|n| Piece::plain(format!("{} to write", count(n)))),
            totals.to_push.map(|n| Piece::plain(format!("{} to push", count(n)))),
            totals.media_bytes.map(|n| Piece::plain(format!("media {}/s", bytes(n)))),
        ],
    );
    vec![serving, clients, messages, waiting]
}

fn label(text: &str) -> Line {
    vec![Piece::new(format!("{text:<10}"), Style::Dim)]
}

fn facts<const N: usize>(line: &mut Line, facts: [Option<Piece>; N]) {
    let before = line.len();
    for fact in facts.into_iter().flatten() {
        if line.len() > before {
            line.push(Piece::new(" · ", Style::Dim));
        }
        line.push(fact);
    }
    if line.len() == before {
        line.push(Piece::new("not known", Style::Dim));
    }
}

const PROCESSES: &[Column] = &[
    Column::text("SERVICE", 0),
    Column::text("TARGET", 0),
    Column::text("STATE", 0),
    Column::number("UP", 6),
    Column::number("CPU", 5),
    Column::number("MEM", 7),
    Column::number("SESS", 2),
    Column::number("RATE", 1),
    Column::text("QUEUE", 3),
    Column::text("VERSION", 8),
];

fn processes(all: &[Process]) -> Table {
    let mut table = Table::new(PROCESSES);
    let order = ["all", "edge", "routing", "key-directory", "media-relay"];
    let mut sorted: Vec<_> = all.iter().collect();
    sorted.sort_by_key(|process| order.iter().position(|service| *service == process.service));
    for process in sorted {
        let style = match process.state.as_str() {
            "ready" => Style::Good,
            "degraded" | "starting" | "draining" => Style::Warning,
            _ => Style::Bad,
        };
        let figure = |number: Option<f64>, form: fn(f64) -> String| match number {
            Some(number) => Piece::plain(form(number)),
            None => Piece::new("-", Style::Dim),
        };
        let rated = process.rate.map(|number| match process.rate_of {
            "byte" => format!("{}/s", bytes(number)),
            what => format!("{} {what}/s", rate(number)),
        });
        table.row(vec![
            Piece::new(if process.service.is_empty() { "?" } else { &process.service }, Style::Bold),
            Piece::plain(&process.target),
            Piece::new(&process.state, style),
            figure(process.uptime_s, duration),
            figure(process.cpu, percent),
            figure(process.memory_bytes, bytes),
            figure(process.sessions, count),
            rated.map_or_else(|| Piece::new("-", Style::Dim), Piece::plain),
            queue(process),
            Piece::new(&process.program, Style::Dim),
        ]);
    }
    table
}

/// What waits: how full its memory is, and what is to be done.
fn queue(process: &Process) -> Piece {
    let queues = &process.queues;
    let some = |number: Option<f64>, what: &str| {
        number.filter(|number| *number > 0.0).map(|number| format!("{} {what}", count(number)))
    };
    let parts = [
        queues.fullest.map(percent),
        some(queues.to_write, "write"),
        some(queues.to_push, "push"),
        some(queues.transfers, "media"),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let style = match queues.fullest {
        Some(full) if full >= 0.9 => Style::Bad,
        Some(full) if full >= 0.5 => Style::Warning,
        _ => Style::Plain,
    };
    if text.is_empty() { Piece::new("-", Style::Dim) } else { Piece::new(text, style) }
}

const PROVIDERS: &[Column] = &[
    Column::text("PROVIDER", 1),
    Column::text("HOST", 0),
    Column::number("REQUESTS", 2),
    Column::number("MEAN", 3),
    Column::number("P95", 0),
    Column::number("FAILED", 0),
    Column::text("KEYS", 0),
];

fn provider_table(all: &[ProviderRow]) -> Table {
    let mut table = Table::new(PROVIDERS);
    for row in all {
        let wait = |wait: Option<f64>| {
            let style = match wait {
                Some(wait) if wait >= 5.0 => Style::Bad,
                Some(wait) if wait >= 1.0 => Style::Warning,
                Some(_) => Style::Plain,
                None => Style::Dim,
            };
            Piece::new(wait.map_or_else(|| "-".to_owned(), seconds), style)
        };
        let keys = match row.keys {
            "failing" | "none" => Style::Bad,
            "suspended" => Style::Warning,
            _ => Style::Plain,
        };
        let failed = row.failed / row.requests.max(1.0);
        table.row(vec![
            Piece::plain(if row.provider.is_empty() { "-" } else { &row.provider }),
            Piece::plain(&row.host),
            Piece::plain(count(row.requests)),
            wait(row.mean_s),
            wait(row.p95_s),
            Piece::new(percent(failed), if failed > 0.0 { Style::Bad } else { Style::Plain }),
            Piece::new(if row.keys.is_empty() { "-" } else { row.keys }, keys),
        ]);
    }
    table
}

/// What does not work, and what that means.
fn troubles(view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    for process in &view.processes {
        let name = if process.service.is_empty() {
            process.target.clone()
        } else {
            format!("{} {}", process.service, process.target)
        };
        if let Some(problem) = &process.problem {
            lines.push(vec![Piece::new(&name, Style::Bad), Piece::plain(format!(" {problem}"))]);
        }
        for (part, meaning) in &process.degraded {
            lines.push(vec![
                Piece::new(&name, Style::Warning),
                Piece::new(format!(" {part}: "), Style::Bold),
                Piece::plain(meaning),
            ]);
        }
    }
    lines
}
