//! `causewayctl top`: how the processes of a deployment are, again and again: in a terminal in place, else as one picture
//! after the other.

mod terminal;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use causeway_runtime::clock::{Clock as _, SystemClock};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use self::terminal::{Key, Terminal};
use crate::fleet::{Fleet, FleetArguments, Seen};
use crate::operator::{Operator, OptionalOperator};
use crate::screen::{Line, Piece, Style};
use crate::status::{keys, painted};
use crate::view::{Keys, Scroll, View, frame};

/// Providers are measured over one to two of these.
const PROVIDERS_OVER: Duration = Duration::from_secs(60);
/// The operator API is asked no more often.
const KEYS_EVERY: Duration = Duration::from_secs(10);
/// With a closed output there is nobody to show anything to.
const GONE: std::io::ErrorKind = std::io::ErrorKind::BrokenPipe;

/// Whom to ask, and how often.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    fleet: FleetArguments,
    #[command(flatten)]
    operator: OptionalOperator,
    /// Milliseconds from one look to the next.
    #[arg(long, default_value_t = 2_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    interval_ms: u64,
    /// Leave after so many pictures.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
}

/// Shows until the user leaves, the pictures are over, or nobody reads them.
pub(crate) async fn run(arguments: TopArguments) -> anyhow::Result<()> {
    let TopArguments { fleet, operator, interval_ms, frames } = arguments;
    let fleet = Fleet::open(fleet)?.with_targets()?;
    let operator = operator.connect().await?;
    let watch = Watch::new(fleet, operator, Duration::from_millis(interval_ms), frames);
    match std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        true => Box::pin(watch.in_place()).await,
        false => Box::pin(watch.one_by_one()).await,
    }
}

struct Watch {
    fleet: Fleet,
    operator: Option<Operator>,
    interval: Duration,
    frames: Option<u64>,
    now: Vec<Seen>,
    before: Option<Vec<Seen>>,
    /// Where the measuring of providers begins, now and next time.
    baselines: [Option<(Instant, Vec<Seen>)>; 2],
    keys: Vec<Keys>,
    asked: Option<Instant>,
    /// Why the operator API says nothing.
    silent: Option<String>,
}

impl Watch {
    fn new(fleet: Fleet, operator: Option<Operator>, interval: Duration, frames: Option<u64>) -> Self {
        let (baselines, keys) = ([None, None], Vec::new());
        Self {
            fleet,
            operator,
            interval,
            frames,
            now: Vec::new(),
            before: None,
            baselines,
            keys,
            asked: None,
            silent: None,
        }
    }

    async fn look(&mut self) {
        if self.asked.is_none_or(|asked| asked.elapsed() >= KEYS_EVERY) {
            self.asked = Some(Instant::now());
            match keys(&mut self.operator).await {
                Ok(keys) => (self.keys, self.silent) = (keys, None),
                Err(error) => self.silent = Some(error.to_string()),
            }
        }
        let now = self.fleet.look().await;
        let first = self.now.is_empty();
        let before = std::mem::replace(&mut self.now, now);
        if !first {
            self.before = Some(before);
        }
        let [_, next] = &self.baselines;
        if next.as_ref().is_none_or(|(since, _)| since.elapsed() >= PROVIDERS_OVER) {
            let [_, next] = std::mem::take(&mut self.baselines);
            self.baselines = [next, Some((Instant::now(), self.now.clone()))];
        }
    }

    fn picture(&self, size: Option<(usize, usize)>, above: usize, note: &str) -> Vec<Line> {
        // Until there is an older look, everything since the processes have started.
        let baseline = self.baselines[0].as_ref().map(|(_, seen)| seen.as_slice());
        let view = View::of(&self.now, self.before.as_deref(), baseline, &self.keys);
        let (width, height) = size.unzip();
        let mut lines = vec![self.title(note)];
        lines.extend(self.silent.iter().map(|problem| vec![Piece::new(problem, Style::Bad)]));
        let height = height.map(|height| height.saturating_sub(lines.len()));
        lines.extend(frame(&view, Scroll { width, height, above }));
        lines
    }

    fn title(&self, note: &str) -> Line {
        let seconds = SystemClock.now_ms() / 1_000 % 86_400;
        let time = format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let every = format!("every {} s", self.interval.as_secs_f64());
        vec![
            Piece::new("causeway top", Style::Bold),
            Piece::plain(format!("  {time}  ")),
            Piece::new(format!("{every}  {note}"), Style::Dim),
        ]
    }

    async fn one_by_one(mut self) -> anyhow::Result<()> {
        let mut looks = tokio::time::interval(self.interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut shown = 0;
        while self.frames.is_none_or(|frames| shown < frames) {
            looks.tick().await;
            self.look().await;
            let text = painted(&self.picture(None, 0, ""), None, false);
            match writeln!(std::io::stdout(), "{text}\n") {
                Err(error) if error.kind() == GONE => return Ok(()),
                written => written.context("write to standard output")?,
            }
            shown += 1;
        }
        Ok(())
    }

    async fn in_place(mut self) -> anyhow::Result<()> {
        let mut stop = signal(SignalKind::terminate()).context("signals")?;
        let mut terminal = Terminal::open().context("the terminal cannot be used")?;
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut looks = tokio::time::interval(self.interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut shown, mut above, mut paused) = (0, 0_usize, false);
        loop {
            tokio::select! {
                _ = stop.recv() => return Ok(()),
                _ = looks.tick(), if !paused => {
                    tokio::select! {
                        () = self.look() => {}
                        // However long the look takes.
                        () = terminal.quits() => return Ok(()),
                    }
                    shown += 1;
                }
                key = terminal.key() => match key {
                    Key::Quit => return Ok(()),
                    Key::Pause => paused = !paused,
                    Key::Up => above = above.saturating_sub(1),
                    Key::Down => above = (above + 1).min(self.now.len().saturating_sub(1)),
                    Key::Other => {}
                },
            }
            let note = if paused { "paused: space goes on" } else { "q leaves, space pauses" };
            let size = terminal.size();
            let lines = self.picture(Some(size), above, note);
            terminal.draw(&lines, size, colours).context("write to the terminal")?;
            if self.frames.is_some_and(|frames| shown >= frames) {
                return Ok(());
            }
        }
    }
}
