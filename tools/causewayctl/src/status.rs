//! `causewayctl status`: how the processes of a deployment are, once.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::fleet::{Fleet, FleetArguments};
use crate::operator::{Operator, OptionalOperator};
use crate::provider;
use crate::screen::{Line, paint};
use crate::view::{Keys, Scroll, View, frame};

/// Whom to ask, and how to tell.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    fleet: FleetArguments,
    #[command(flatten)]
    operator: OptionalOperator,
    /// Rates are measured over so many milliseconds; 0: no rates.
    #[arg(long, default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    window_ms: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Looks twice and prints what was seen. Fails only if that is not possible: `doctor` judges.
pub(crate) async fn run(arguments: StatusArguments) -> anyhow::Result<()> {
    let StatusArguments { fleet, operator, window_ms, json } = arguments;
    let fleet = Fleet::open(fleet)?.with_targets()?;
    let mut operator = operator.connect().await?;
    let keys = keys(&mut operator).await?;
    let mut now = fleet.look().await;
    let mut before = None;
    if window_ms > 0 {
        tokio::time::sleep(Duration::from_millis(window_ms)).await;
        before = Some(std::mem::replace(&mut now, fleet.look().await));
    }
    let view = View::of(&now, before.as_deref(), None, &keys);
    if json {
        let text = serde_json::to_string_pretty(&view).context("JSON")?;
        return say(&text);
    }
    let (width, colours) = terminal();
    let lines = frame(&view, Scroll { width, ..Scroll::default() });
    say(&painted(&lines, width, colours))
}

/// What the operator API says of providers, if it may be asked.
pub(crate) async fn keys(operator: &mut Option<Operator>) -> anyhow::Result<Vec<Keys>> {
    let Some(operator) = operator else { return Ok(Vec::new()) };
    Ok(provider::all(operator).await?.iter().filter_map(Keys::of).collect())
}

/// How wide standard output is, if it is a terminal, and whether it shows colours.
pub(crate) fn terminal() -> (Option<usize>, bool) {
    if !std::io::stdout().is_terminal() {
        return (None, false);
    }
    let width = crossterm::terminal::size().ok().map(|(width, _)| usize::from(width)).filter(|width| *width > 0);
    (width, std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
}

pub(crate) fn painted(lines: &[Line], width: Option<usize>, colours: bool) -> String {
    let lines = lines.iter().map(|line| paint(line, width, colours));
    lines.collect::<Vec<_>>().join("\n")
}

/// Prints a text; nobody has to read all of it.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}
