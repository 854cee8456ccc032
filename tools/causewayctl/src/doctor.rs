//! `causewayctl doctor`: checks a deployment and says what to do about what is wrong.

mod addresses;
mod certificates;
mod clocks;
mod finding;
mod processes;
mod programs;
mod providers;
mod room;

use std::time::Duration;

use anyhow::{Context as _, bail};
use causeway_identity::RootPublicKey;
use causeway_runtime::clock::{Clock as _, SystemClock};
use clap::Args;

use self::finding::{Check, Finding, Findings};
use crate::fleet::{Fleet, FleetArguments, Seen};
use crate::operator::OptionalOperator;
use crate::screen::{Line, Piece, Style};
use crate::status::{keys, painted, say, terminal};

/// Whom to look at, and what is still good.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    fleet: FleetArguments,
    #[command(flatten)]
    operator: OptionalOperator,
    /// A root that clients pin, as its .pub file holds it: edges must have a certificate of one of them; repeat for more.
    #[arg(long = "root", value_name = "KEY")]
    roots: Vec<RootPublicKey>,
    /// Clocks may differ from this machine's by so many milliseconds.
    #[arg(long, default_value_t = 2_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    clock_tolerance_ms: u64,
    /// A certificate must be good for so many days, or for a quarter of its time if that is less.
    #[arg(long, default_value_t = 14, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=365))]
    expiry_days: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the checks are given.
struct Patient<'a> {
    seen: &'a [Seen],
    now_ms: u64,
    roots: &'a [RootPublicKey],
    clock_tolerance_ms: u64,
    expiry: Duration,
}

/// Checks everything and prints what was found; fails if there are problems.
pub(crate) async fn run(arguments: DoctorArguments) -> anyhow::Result<()> {
    let DoctorArguments { fleet, operator, roots, clock_tolerance_ms, expiry_days, json } = arguments;
    let fleet = Fleet::open(fleet)?;
    let seen = fleet.look().await;
    let patient = Patient {
        seen: &seen,
        now_ms: SystemClock.now_ms(),
        roots: &roots,
        clock_tolerance_ms,
        expiry: Duration::from_secs(u64::from(expiry_days) * 86_400),
    };
    let mut findings = Findings::default();
    processes::check(&patient, &mut findings);
    programs::check(&patient, &mut findings);
    certificates::check(&patient, &mut findings);
    clocks::check(&patient, &mut findings);
    room::check(&patient, &mut findings);
    addresses::check(&fleet, &seen, &mut findings).await;
    let asked = match operator.connect().await {
        Ok(None) => Ok(None),
        Ok(operator) => keys(&mut { operator }).await.map(Some),
        Err(error) => Err(error),
    };
    providers::check(asked, patient.now_ms, &mut findings);

    let problems = findings.problems();
    if json {
        say(&serde_json::to_string_pretty(&findings).context("JSON")?)?;
    } else {
        let (width, colours) = terminal();
        say(&painted(&lines(&findings), width.map(|_| usize::MAX), colours))?;
    }
    match problems {
        0 => Ok(()),
        1 => bail!("1 problem was found: do what is said above"),
        many => bail!("{many} problems were found: do what is said above"),
    }
}

/// A line for each check that is fine, and for each finding one or two.
fn lines(findings: &Findings) -> Vec<Line> {
    let mut lines = Vec::new();
    for check in Check::ALL {
        for finding in findings.of(check) {
            let (word, style) = match finding {
                Finding::Fine { .. } => ("ok", Style::Good),
                Finding::Note { .. } => ("note", Style::Warning),
                Finding::Problem { .. } => ("PROBLEM", Style::Bad),
            };
            let mut line =
                vec![Piece::new(format!("{word:<9}"), style), Piece::new(format!("{:<14}", check.name()), Style::Bold)];
            line.push(Piece::plain(finding.says()));
            lines.push(line);
            if let Some(act) = finding.act() {
                lines.push(vec![Piece::plain(" ".repeat(23)), Piece::new(format!("do: {act}"), Style::Plain)]);
            }
        }
    }
    lines
}
