//! What deployments of many users need, from the measured costs, and simulations that check it: the tables of
//! docs/scale.md.

mod figures;
mod mailbox;
mod model;
mod ownership;
mod storm;
mod table;

use std::path::PathBuf;

use clap::Parser;

use self::model::Inputs;
use self::storm::Policy;
use self::table::{number, table};

/// Prints the tables of docs/scale.md, or puts them there.
#[derive(Debug, Parser)]
struct Arguments {
    /// The document whose tables are replaced.
    #[arg(long)]
    document: Option<PathBuf>,
    /// The simulations are the same for the same number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulations are so many times smaller; for a look while something is changed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    smaller: u32,
}

#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let text = report(arguments.seed, arguments.smaller);
    match &arguments.document {
        Some(file) => table::write(file, &text)?,
        None => println!("{text}"),
    }
    Ok(())
}

fn report(seed: u64, smaller: u32) -> String {
    let mut inputs = Inputs::default();
    let (mailboxes, waiting) = mailboxes(&inputs, seed, smaller);
    // Those of a user: lost devices count with the one in use.
    inputs.waiting = waiting * inputs.users.devices;
    let owners = owners(&inputs, seed, smaller);
    let storms = storms(seed, smaller);
    let inputs_of = |what: &str, rows: Vec<Vec<String>>| {
        format!("### {what}\n\n{}\n", table(&["", "figure", "source"], false, &rows))
    };
    [
        "## What is put in\n".to_owned(),
        inputs_of("Costs", inputs.costs.rows()),
        inputs_of("Users", inputs.users.rows()),
        inputs_of("Plan", inputs.plan.rows()),
        inputs_of("Prices: AWS, us-east-1, on demand, US dollars", inputs.prices.rows()),
        "## What comes out\n".to_owned(),
        inputs.report(),
        "\n## Simulations\n".to_owned(),
        owners,
        storms,
        mailboxes,
    ]
    .join("\n")
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

fn owners(inputs: &Inputs, seed: u64, smaller: u32) -> String {
    let size = ownership::Size { replicas: 1_000, accounts: (10_000 / u64::from(smaller)).max(2_000), batch: 10 };
    let found = ownership::simulate(size, seed);
    let restart = found.restart;
    let (costs, plan) = (&inputs.costs, &inputs.plan);
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let rows = [
        row("how uneven accounts are spread, by what chance makes of it", format!("{:.2}", found.unevenness)),
        row("the fullest has, by the mean, with so few accounts", format!("{:.2}", found.fullest)),
        row(
            "so with 500,000 accounts each, the fullest of 1,000 has over the mean, some",
            percent(3.2 / 500_000_f64.sqrt()),
        ),
        row("one of 1,000 leaves: accounts that move from it", percent(found.leaves.with_it)),
        row("and between others", percent(found.leaves.others)),
        row("one more comes: accounts that move to it", percent(found.joins.with_it)),
        row("and between others", percent(found.joins.others)),
        row("all are restarted, 10 at a time: moves of an account", format!("{:.2}", restart.moves)),
        row(
            "replicas weighed for a look-up meanwhile, of 1,000, with an account looked up after each change",
            format!("{:.1}", restart.weighed),
        ),
        row(
            "so an edge's look-up costs meanwhile, us (without what it remembers: 250)",
            format!("{:.2}", restart.weighed * costs.rendezvous_ns / 1e3),
        ),
        row("look-ups that were wrong in the end", restart.wrong.to_string()),
        row(
            "claims a second of a restart of all in an hour, with 500,000 accounts each",
            number(restart.moves * 500_000.0 * size.replicas as f64 / 3_600.0),
        ),
        row("claims a second that one PostgreSQL is planned to take", number(costs.owner_claims_per_s * plan.load)),
        row(
            "one dies with 500,000 accounts: seconds until one PostgreSQL has given all away",
            number(500_000.0 / costs.owner_claims_per_s),
        ),
    ];
    format!(
        "### Ownership with 1,000 routings, {} accounts\n\n{}",
        number(size.accounts as f64),
        table(&["", ""], true, &rows)
    )
}

fn storms(seed: u64, smaller: u32) -> String {
    let cases = [
        ("10 M sessions, 100 edges, as it is built", 10_000_000, 100, 20_000, Policy::Built),
        ("a tenth of both: the same", 1_000_000, 10, 20_000, Policy::Built),
        ("a zone is gone: 7 edges", 1_000_000, 7, 20_000, Policy::Built),
        ("4 edges", 1_000_000, 4, 20_000, Policy::Built),
        ("edges that accept 5,000 connections a second", 1_000_000, 10, 5_000, Policy::Built),
        ("edges tell everybody a time, not 192 at once", 1_000_000, 10, 20_000, Policy::TellsAll),
        ("clients draw their first pause from 10 s", 1_000_000, 10, 20_000, Policy::Calm),
        ("edges tell all the same second", 1_000_000, 10, 20_000, Policy::SameTime),
        ("clients do not draw their pauses", 1_000_000, 10, 20_000, Policy::NoJitter),
        ("clients come back after a second, always", 1_000_000, 10, 20_000, Policy::Eager),
    ];
    let seconds = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), |at| format!("{at} s"));
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|&(name, sessions, edges, accepts_per_s, policy)| {
            let sessions = sessions / smaller;
            let edges = (edges / smaller).max(1);
            let size = storm::Size { sessions, edges, accepts_per_s, policy };
            let found = storm::simulate(size, seed);
            vec![
                name.to_owned(),
                seconds(found.half_s),
                seconds(found.most_s),
                seconds(found.all_s),
                format!("{:.1}", found.attempts),
                number(found.worst_attempts_s.round()),
                number(found.worst_logins_s.round()),
                format!("{:.0} %", found.used * 100.0),
            ]
        })
        .collect();
    let head = [
        "",
        "half are back",
        "99 of 100",
        "all",
        "attempts a session",
        "attempts a second at an edge, worst",
        "logins a second, worst",
        "of the edges' rate used",
    ];
    format!("\n### 10 M sessions break off at once\n\n{}", table(&head, true, &rows))
}

/// The table, and what waits for a device at the end.
fn mailboxes(inputs: &Inputs, seed: u64, smaller: u32) -> (String, f64) {
    let users = &inputs.users;
    let messages = users.written * (users.fan_out * (1.0 + users.receipts) + users.copies);
    let run = |removed_after| {
        mailbox::simulate(mailbox::Size { devices: (20_000 / smaller).max(200), messages, removed_after }, seed)
    };
    let cases = [("as it is built", None), ("90 days", Some(90.0)), ("30 days", Some(30.0))];
    let mut waiting = 0.0;
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|&(name, removed_after)| {
            let found = run(removed_after);
            let after = |days: usize| found.waiting.get(days - 1).copied().unwrap_or(0.0);
            if removed_after.is_none() {
                waiting = after(365);
            }
            vec![
                name.to_owned(),
                number(after(30)),
                number(after(90)),
                number(after(365)),
                percent(found.for_gone),
                number(after(365) * inputs.costs.row_bytes / 1e3),
                number(found.fetched),
                number(found.expired),
                number(found.refused),
                percent(found.blocked),
            ]
        })
        .collect();
    let head = [
        "devices that are gone are removed after",
        "waiting after 30 days",
        "90 days",
        "a year",
        "of this for devices that are gone",
        "KB",
        "fetched a year",
        "expired",
        "refused",
        "users blocked by a full mailbox",
    ];
    let text = format!(
        "\n### Mailboxes over a year, for a device in use, {} messages a day\n\n{}",
        number(messages),
        table(&head, true, &rows)
    );
    (text, waiting)
}

#[cfg(test)]
mod tests {
    /// The document is made of it; a change of a figure or of the code must not make nonsense of a table.
    #[test]
    fn the_report_has_all_its_tables_and_no_nonsense() {
        let text = super::report(1, 100);
        for part in ["### Costs", "### Machines", "### Money", "### Ownership", "### 10 M sessions", "### Mailboxes"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
