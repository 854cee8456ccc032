//! The story, told to whoever runs the demo: numbered steps, hops and how long they took.

use std::io::Write as _;
use std::time::Duration;

use tokio::time::Instant;

/// Writes to standard output; a closed one ends nothing.
pub(crate) struct Story {
    start: Instant,
    step: u32,
}

impl Story {
    pub(crate) fn begin(title: &str) -> Self {
        say(&format!("{title}\n{}", "=".repeat(title.len())));
        Self { start: Instant::now(), step: 0 }
    }

    /// Opens the next step.
    pub(crate) fn step(&mut self, what: &str) {
        self.step += 1;
        say(&format!("\n{}. {what}", self.step));
    }

    /// A line of the step that is open.
    #[expect(clippy::unused_self, reason = "lines belong to a story that has begun")]
    pub(crate) fn tell(&self, line: &str) {
        say(&format!("   {line}"));
    }

    pub(crate) fn end(&self) {
        say(&format!("\nAll of it happened, in {}.", seconds(self.start.elapsed())));
    }
}

/// For the eye: milliseconds below one second.
pub(crate) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}
