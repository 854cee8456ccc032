//! One table of what several servers have shown at the same works.

use super::table::grid;
use super::{Figure, Report, Run, Unit};

/// A figure that is compared: of which work, its name there, and its name here.
const ROWS: &[(&str, &str, &str)] = &[
    ("pairs", "server CPU a message", "saturated: server CPU a message"),
    ("pairs", "CPU of the load generator a message", "saturated: CPU of the clients"),
    ("pairs", "messages", "saturated: messages, clients on the same machine"),
    ("pairs", "to the recipient, p50", "saturated: to the recipient, p50"),
    ("pairs", "to the recipient, p99", "saturated: to the recipient, p99"),
    ("rate", "server CPU a message", "at 2,000/s: server CPU a message"),
    ("rate", "to the recipient, p50", "at 2,000/s: to the recipient, p50"),
    ("rate", "to the recipient, p99", "at 2,000/s: to the recipient, p99"),
    ("login-xx", "server CPU a login", "login: server CPU"),
    ("login-xx", "a login, p50", "login: p50"),
    ("idle", "resident memory a session", "idle session: resident memory"),
    ("store", "server CPU a message", "stored: server CPU a message"),
    ("store", "messages stored", "stored: messages"),
    ("store", "acknowledged before SIGKILL", "stored: acknowledged, then SIGKILL"),
    ("store", "of these lost", "stored: of these lost"),
];

/// What is not the same, and what was taken in whose favour.
const NOTES: &str = "200 pairs, bodies of 344 bytes; saturated: 8 messages in flight a sender. A message goes to one recipient, and its \
    sender's outcome is that recipient's answer; where the recipient is away (stored), it is the server's own acknowledgement, and all \
    processes are killed as soon as all messages have one. The ratio in parentheses is to Causeway on SQLite, or on PostgreSQL for a \
    server that uses it. Each server checks and keeps what it does by default, and these are not the same. Causeway: Noise XX, EdDSA token, \
    consent, device lists, limits, telemetry. ejabberd: TLS 1.3 on a direct TLS port, SASL PLAIN against passwords that are kept as \
    they are (its default, and the cheapest), the modules of the Debian package, receipts (XEP-0184), and for who sends to somebody away \
    stream management (XEP-0198), asked after each message. mosquitto: TLS 1.3, a password file, kept sessions (clean session off), QoS 1 to \
    the recipient, QoS 0 for its answer, persistence as in the Debian package (written every half hour and at the end); it does not look \
    at who writes to whom. TLS sessions are not resumed.";

/// The table for a terminal, and what has to be known of it.
pub(crate) fn text(report: &Report) -> String {
    format!("{}\n\n{NOTES}", grid(&rows(&report.runs), 0))
}

/// The same in Markdown.
pub(crate) fn markdown(report: &Report) -> String {
    let mut lines = vec![report.machine.to_string(), String::new(), NOTES.to_owned(), String::new()];
    for (index, row) in rows(&report.runs).iter().enumerate() {
        lines.push(format!("| {} |", row.join(" | ")));
        if index == 0 {
            lines.push(format!("|---|{}", "---:|".repeat(row.len() - 1)));
        }
    }
    for run in &report.runs {
        lines.extend(run.notes.iter().map(|note| format!("\n{}, {}: {note}", run.scenario, run.deployment)));
    }
    lines.join("\n") + "\n"
}

/// A head, and a row for each figure that somebody has.
fn rows(runs: &[Run]) -> Vec<Vec<String>> {
    let mut servers: Vec<&str> = Vec::new();
    for run in runs {
        if !servers.contains(&run.deployment.as_str()) {
            servers.push(&run.deployment);
        }
    }
    let head = std::iter::once(String::new()).chain(servers.iter().map(|server| (*server).to_owned()));
    let mut rows = vec![head.collect::<Vec<_>>()];
    for (work, name, shown) in ROWS {
        let of = |server: &str| {
            let run = runs.iter().find(|run| run.scenario == *work && run.deployment == server)?;
            run.figures.iter().find(|figure| figure.name == *name)
        };
        if servers.iter().all(|server| of(server).is_none()) {
            continue;
        }
        let cells = servers.iter().map(|server| cell(of(server), base(server, &servers).and_then(of)));
        rows.push(std::iter::once((*shown).to_owned()).chain(cells).collect());
    }
    rows
}

/// What a server is compared with: Causeway on the same store.
fn base<'s>(server: &str, servers: &[&'s str]) -> Option<&'s str> {
    let on_postgres = |name: &str| name.ends_with("PostgreSQL");
    let base = servers.iter().find(|one| one.starts_with("causeway") && on_postgres(one) == on_postgres(server))?;
    (*base != server).then_some(*base)
}

fn cell(figure: Option<&Figure>, base: Option<&Figure>) -> String {
    let Some((figure, value)) = figure.and_then(|figure| Some((figure, figure.median()?))) else {
        return "-".to_owned();
    };
    let shown = figure.show(value);
    match base.and_then(Figure::median) {
        Some(base) if base > 0.0 && figure.unit != Unit::Count => format!("{shown} ({})", times(value / base)),
        _ => shown,
    }
}

/// `16.5x`, `0.12x`.
fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 10.0 => format!("{ratio:.0}x"),
        ratio if ratio >= 1.0 => format!("{ratio:.1}x"),
        ratio => format!("{ratio:.2}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::machine::Machine;

    fn run(deployment: &str, scenario: &str, figures: &[(&str, Unit, f64)]) -> Run {
        Run {
            scenario: scenario.to_owned(),
            deployment: deployment.to_owned(),
            parameters: [].into(),
            figures: figures.iter().map(|(name, unit, value)| Figure::new(name, *unit, [*value])).collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_to_causeway_on_the_same_store() {
        let runs = vec![
            run("causeway all, SQLite", "pairs", &[("server CPU a message", Unit::Us, 12.0)]),
            run("ejabberd 1, Mnesia", "pairs", &[("server CPU a message", Unit::Us, 198.0)]),
            run("causeway all, SQLite", "store", &[("messages stored", Unit::PerS, 30_000.0)]),
            run(
                "mosquitto 2",
                "store",
                &[("messages stored", Unit::PerS, 60_000.0), ("of these lost", Unit::Count, 9.0)],
            ),
            run("causeway all, PostgreSQL", "store", &[("messages stored", Unit::PerS, 20_000.0)]),
            run("ejabberd 1, PostgreSQL", "store", &[("messages stored", Unit::PerS, 2_000.0)]),
        ];
        let rows = rows(&runs);
        let head = ["", "causeway all, SQLite", "ejabberd 1, Mnesia", "mosquitto 2", "causeway all, PostgreSQL"];
        assert_eq!(rows[0][..5], head);
        assert_eq!(rows[1][1..4], ["12.0 us", "198 us (16x)", "-"]);
        assert_eq!(rows[2][1..], ["30,000 /s", "-", "60,000 /s (2.0x)", "20,000 /s", "2000 /s (0.10x)"]);
        assert_eq!(rows[3][1..4], ["-", "-", "9"]);
        assert_eq!(rows.len(), 4);
        let report = Report { machine: Machine::default(), settings: String::new(), runs };
        assert!(markdown(&report).contains("| saturated: server CPU a message | 12.0 us | 198 us (16x) | - |"));
        assert!(text(&report).contains("198 us (16x)"));
    }

    #[test]
    fn nobody_to_compare_with_is_no_ratio() {
        let rows = rows(&[run("mosquitto 2", "pairs", &[("messages", Unit::PerS, 5.0)])]);
        assert_eq!(rows[1], ["saturated: messages, clients on the same machine", "5.00 /s"]);
    }
}
