//! `causewayctl chat`: a plain client on the SDK. One line typed is one message sent; what arrives is one line printed, with
//! where it comes from. Works with pipes: what is typed may come from a file, and the output is lines.

mod files;
mod line;
mod profile;
mod show;

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use causeway_client::{
    Client, ClientError, Content, DisconnectReason, Ended, Event, EventKind, Events, ProviderTokens, SqliteStore,
};
use causeway_identity::{Address, MessageId};
use clap::Args;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use self::files::Files;
use self::line::Line;
use self::profile::Profile;
pub(crate) use self::show::clean;

/// Lines read ahead of what is sent.
const READ_AHEAD: usize = 64;

/// Who chats, and how.
#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    /// The user's profile (TOML): address, server, deployment, roots, token_url, state.
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// Whom to write to; /to changes it.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
    /// Reach and be reached by users of other messengers, from the start.
    #[arg(long)]
    opt_in: bool,
    /// Where files that arrive are saved; without it they are only announced.
    #[arg(long, value_name = "DIR")]
    downloads: Option<PathBuf>,
    /// Leave after this many messages have arrived (and everything typed has been sent).
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    receive: Option<u32>,
    /// At the end of the input, or with --receive, wait at most this long, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
}

/// Chats until the input ends or the user leaves.
pub(crate) async fn run(arguments: ChatArguments) -> anyhow::Result<()> {
    let profile = Profile::load(&arguments.profile)?;
    let tokens = ProviderTokens::new(profile.token_url.as_str(), profile.config.address.local())?;
    let files = Files::new(&profile, tokens.clone(), arguments.downloads.clone())?;
    let store = SqliteStore::open(&profile.state).await.with_context(|| {
        format!(
            "the state file {} cannot be used: make its folder writable, or correct state in the profile",
            profile.state.display()
        )
    })?;
    let address = profile.config.address.clone();
    let server = profile.config.server.clone();
    let (client, mut events) = Client::open(profile.config, Arc::new(store), Arc::new(tokens)).await?;

    // What is wrong with the connection shows within --wait, and then ends the command instead of hanging.
    let wait = Duration::from_secs(arguments.wait);
    let device = timeout(wait, log_in(&client, &mut events)).await.map_err(|_| {
        anyhow!("no session with {server} within {} s: is the server there, and is the address right?", arguments.wait)
    })??;
    if arguments.opt_in {
        client.opt_in().await.context("opt in")?;
    }
    let mut chat = Chat {
        client,
        files,
        to: arguments.to,
        sent: HashSet::new(),
        received: 0,
        rejected: 0,
        receive: arguments.receive,
        interactive: std::io::stdin().is_terminal(),
    };
    chat.note(&format!("{address} is here as device {device}; /help lists the commands"))?;
    chat.talk(&mut events, wait).await?;
    chat.client.shutdown().await;
    if chat.rejected > 0 {
        bail!("{} of the messages were not sent", chat.rejected);
    }
    Ok(())
}

/// Waits for a session; enlists a fresh device.
async fn log_in(client: &Client, events: &mut Events) -> anyhow::Result<u32> {
    while let Some(event) = events.next().await {
        match &event.kind {
            EventKind::Connected(_) => {
                let device = client.enlist().await.context("enlist")?;
                return Ok(device.device.get());
            }
            EventKind::Disconnected(lost) => explain(&lost.reason)?,
            EventKind::Ended(ended) => bail!("{}", ended_sentence(ended)),
            _ => {}
        }
    }
    bail!("the client has stopped")
}

/// Reasons that no retry mends become an error with the fix; for the rest the client tries again.
fn explain(reason: &DisconnectReason) -> anyhow::Result<()> {
    use causeway_client::FailureReason as Login;
    match reason {
        DisconnectReason::Certificate(error) => {
            bail!("the server is not who the profile says ({error}): check roots, deployment, server, and this clock")
        }
        DisconnectReason::Login(reason @ (Login::TokenExpired | Login::TokenNotYetValid)) => {
            bail!(
                "the server refused the token ({}): are this machine's and the provider's clocks right?",
                reason.as_str()
            )
        }
        DisconnectReason::Login(reason) => bail!("the server refused the login: {}", reason.as_str()),
        DisconnectReason::Token(error) => bail!("the provider gave no token ({error}): check token_url in the profile"),
        _ => Ok(()),
    }
}

fn ended_sentence(ended: &Ended) -> String {
    match ended {
        Ended::Replaced => "another program uses this device's state: stop one of them".to_owned(),
        Ended::DeviceRemoved => "this device was removed from the account: use a fresh state file".to_owned(),
        Ended::Withdrawn => "the account has left the network: use a fresh state file".to_owned(),
        Ended::Login(reason) => format!("the server refuses this device: {}", reason.as_str()),
        Ended::OtherAddress => {
            "the token is another user's: let address and token_url in the profile be those of one user".to_owned()
        }
        Ended::Store => "the state file failed: is the disk full?".to_owned(),
        Ended::Shutdown => "the client was stopped".to_owned(),
    }
}

struct Chat {
    client: Client,
    files: Files,
    to: Option<Address>,
    /// Sent here and without an outcome yet.
    sent: HashSet<MessageId>,
    received: u32,
    rejected: u32,
    receive: Option<u32>,
    interactive: bool,
}

impl Chat {
    async fn talk(&mut self, events: &mut Events, wait: Duration) -> anyhow::Result<()> {
        let mut lines = typed();
        let mut input_over = false;
        let mut deadline = Instant::now() + wait;
        loop {
            let enough = self.receive.is_none_or(|count| self.received >= count);
            let leaving = input_over || self.receive.is_some_and(|count| self.received >= count);
            if leaving && enough && self.sent.is_empty() {
                return Ok(());
            }
            tokio::select! {
                typed = lines.recv(), if !input_over => match typed {
                    Some(text) => {
                        if !self.obey(&text?).await? {
                            input_over = true;
                        }
                        deadline = Instant::now() + wait;
                    }
                    None => {
                        input_over = true;
                        deadline = Instant::now() + wait;
                    }
                },
                event = events.next() => match event {
                    Some(event) => {
                        self.show(&event).await?;
                        event.done().await?;
                    }
                    None => bail!("the client has stopped"),
                },
                () = tokio::time::sleep_until(deadline), if input_over => {
                    bail!("{} messages without an answer, {} arrived, when --wait was over", self.sent.len(), self.received);
                }
            }
        }
    }

    /// Does what a line says; false: leave.
    async fn obey(&mut self, text: &str) -> anyhow::Result<bool> {
        match line::read(text) {
            Err(problem) => self.complain(&problem)?,
            Ok(Line::Nothing) => {}
            Ok(Line::Help) => self.note(line::HELP)?,
            Ok(Line::Quit) => return Ok(false),
            Ok(Line::To(address)) => {
                self.note(&format!("writing to {address}"))?;
                self.to = Some(address);
            }
            Ok(Line::Consent(on)) => {
                let mut settings = self.client.consent().await.context("consent")?;
                settings.interop = on;
                self.client.set_consent(settings).await.context("consent")?;
                self.note(if on { "opted in" } else { "opted out: nobody on another messenger reaches you" })?;
            }
            Ok(Line::Devices) => {
                for device in self.client.devices().await.context("devices")? {
                    self.note(&format!("device {}", device.id))?;
                }
            }
            Ok(Line::Say(text)) => self.send(Content::text(text)).await?,
            Ok(Line::File { path, caption }) => match self.files.upload(&self.client, &path, &caption).await {
                Ok(media) => self.send(Content::media(media)).await?,
                Err(error) => self.complain(&format!("{error:#}"))?,
            },
        }
        Ok(true)
    }

    async fn send(&mut self, content: Content) -> anyhow::Result<()> {
        let Some(to) = self.to.clone() else {
            self.rejected += 1;
            return self.complain("not sent: say first whom to write to, with --to or /to ADDRESS");
        };
        match self.client.send(&to, content).await {
            Ok(id) => {
                self.sent.insert(id);
                Ok(())
            }
            Err(error @ (ClientError::Content(_) | ClientError::QueueFull)) => {
                self.rejected += 1;
                self.complain(&error.to_string())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.kind {
            EventKind::Message(message) => {
                self.received += 1;
                self.print(&show::message(message))?;
                if let Some(media) = message.content.as_media() {
                    match self.files.download(&self.client, media).await {
                        Ok(Some(path)) => self.print(&format!("saved as {}", path.display()))?,
                        Ok(None) => self.note("not saved: start with --downloads DIR to save files")?,
                        Err(error) => self.complain(&format!("{error:#}"))?,
                    }
                }
                Ok(())
            }
            EventKind::SentElsewhere(sent) => self.print(&format!(
                "you, from device {}, to {}: {}",
                sent.device,
                sent.to,
                show::content(&sent.content)
            )),
            EventKind::Undecryptable(waiting) => {
                let from = clean(&waiting.from.to_string());
                self.print(&format!("a message of {from} waits for its keys; it was asked for again"))
            }
            EventKind::IdentityChanged(change) => {
                let whose = clean(change.address.as_str());
                self.print(&format!(
                    "NOTE: the keys of {whose} have changed; make sure that it is still the same person"
                ))
            }
            EventKind::Outcome(outcome) if self.sent.remove(&outcome.id) => {
                if !outcome.result.is_accepted() {
                    self.rejected += 1;
                    return self.complain(&show::outcome(outcome.result));
                }
                self.note(&format!("{} after {} ms", show::outcome(outcome.result), outcome.latency.as_millis()))
            }
            EventKind::Disconnected(lost) => {
                let why = show::lost(&lost.reason);
                self.note(&format!(
                    "no connection ({why}); trying again in {} ms; what you type waits",
                    lost.retry_in.as_millis()
                ))
            }
            EventKind::Ended(ended) => bail!("{}", ended_sentence(ended)),
            _ => Ok(()),
        }
    }

    fn print(&self, line: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("write to standard output")
    }

    /// For a person's eyes; not in pipes' way.
    fn note(&self, line: &str) -> anyhow::Result<()> {
        if self.interactive { self.print(&format!("-- {line}")) } else { Ok(()) }
    }

    fn complain(&self, problem: &str) -> anyhow::Result<()> {
        writeln!(std::io::stderr(), "causewayctl: {problem}").context("write to standard error")
    }
}

/// Lines of standard input, read on a thread of their own: terminals have no other way.
fn typed() -> mpsc::Receiver<std::io::Result<String>> {
    let (lines, typed) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        for line in bounded_lines(std::io::stdin().lock()) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    typed
}

/// Lines of at most one byte more than a message can have; the rest of a longer one is skipped, and refused when it is read.
fn bounded_lines(mut input: impl std::io::BufRead) -> impl Iterator<Item = std::io::Result<String>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let mut over = false;
        loop {
            let chunk = match input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) => return Some(Err(error)),
            };
            if chunk.is_empty() {
                over = true;
                break;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let room = (line::MAX_LINE_BYTES + 1).saturating_sub(line.len());
            line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len()).min(room)]);
            input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if over && line.is_empty() {
            return None;
        }
        Some(Ok(String::from_utf8_lossy(&line).into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_bounded_memory() {
        let long = "x".repeat(200_000);
        let input = format!("one\n{long}\n\nlast");
        let lines: Vec<String> = bounded_lines(std::io::Cursor::new(input)).map(Result::unwrap).collect();
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [3, line::MAX_LINE_BYTES + 1, 0, 4]);
    }
}
