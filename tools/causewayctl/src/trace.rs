//! `causewayctl trace`: what became of messages, by the operator API. With the operator token everything; a provider gives its
//! trace token instead, and sees the side of its own users.

use std::io::Write as _;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use causeway_proto::directory::v1::find_traces::Wanted;
use causeway_proto::directory::v1::{FindTraces, TraceList};
use causeway_proto::routing::v1::{Trace, TraceCheckpoint};
use clap::Args;
use tonic::Code;

use crate::chat::clean;
use crate::operator::{Operator, OperatorArguments};

/// Whose traces, and where.
#[derive(Debug, Args)]
pub(crate) struct TraceArguments {
    #[command(flatten)]
    operator: OperatorArguments,
    #[command(flatten)]
    wanted: WantedArguments,
    /// Only messages of the last so many minutes.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    minutes: u32,
    /// At most so many messages, the newest first.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WantedArguments {
    /// Trace id, 32 hex digits.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Messages from or to this account.
    #[arg(long, value_name = "USER@DOMAIN")]
    address: Option<String>,
    /// The message with this id, as its sender's client has it: 32 hex digits.
    #[arg(long, value_name = "ID")]
    message: Option<String>,
}

impl WantedArguments {
    fn read(self) -> anyhow::Result<Wanted> {
        let id = |name: &str, text: String| {
            let bytes = hex::decode(&text).ok().filter(|bytes| bytes.len() == 16);
            bytes.map(Bytes::from).with_context(|| format!("{name} {text} is no id: give 32 hex digits"))
        };
        match (self.id, self.address, self.message) {
            (Some(trace), _, _) => Ok(Wanted::TraceId(id("the trace", trace)?)),
            (_, Some(address), _) => Ok(Wanted::Address(address)),
            (_, _, Some(message)) => Ok(Wanted::MessageId(id("--message", message)?)),
            _ => bail!("give a trace id, --address or --message"),
        }
    }
}

/// Asks, and prints what is known, hop by hop.
pub(crate) async fn run(arguments: TraceArguments) -> anyhow::Result<()> {
    let wanted = arguments.wanted.read()?;
    let operator = Operator::connect(arguments.operator).await?;
    let question = FindTraces { wanted: Some(wanted), minutes: arguments.minutes, limit: arguments.limit };
    let found = match operator.traces().find(operator.request(question)).await {
        Ok(found) => found.into_inner(),
        Err(status) if status.code() == Code::Unauthenticated => bail!(
            "the server refused the token: give this deployment's operator token, or a trace token of yours that is good now"
        ),
        Err(status) => return Err(operator.explain(&status)),
    };
    let mut text = String::new();
    for trace in &found.traces {
        text.push_str(&show(trace));
    }
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    warn(&found)
}

/// What is to be known about what was not found.
fn warn(found: &TraceList) -> anyhow::Result<()> {
    let mut error = std::io::stderr();
    if found.more {
        writeln!(error, "causewayctl: there are more: ask for fewer --minutes, or a greater --limit")?;
    }
    if found.replicas == 0 {
        bail!("key-directory knows no routing: set server.routing_urls there");
    }
    if found.answered < found.replicas {
        let TraceList { answered, replicas, .. } = found;
        writeln!(error, "causewayctl: {answered} of {replicas} routings have answered: something may be missing")?;
    }
    if found.traces.is_empty() {
        return Err(anyhow!("nothing is known: it is too long ago, or it has never been accepted, or it is not yours"));
    }
    Ok(())
}

fn show(trace: &Trace) -> String {
    let class = clean(if trace.class.is_empty() { "message" } else { &trace.class });
    let mut text = format!("trace {}  {class}", hex::encode(&trace.trace_id));
    if !trace.sender_account_id.is_empty() {
        let device = trace.sender_device_id;
        text.push_str(&format!("  from account {} device {device}", hex::encode(&trace.sender_account_id)));
    }
    if !trace.recipient_account_id.is_empty() {
        text.push_str(&format!("  to account {}", hex::encode(&trace.recipient_account_id)));
    }
    text.push('\n');
    for checkpoint in &trace.checkpoints {
        let after = checkpoint.time_ms.saturating_sub(trace.began_ms);
        let time = time(checkpoint.time_ms);
        text.push_str(&format!("  {time}  {after:>8} ms  {}\n", sentence(checkpoint)));
    }
    if trace.left_out > 0 {
        text.push_str(&format!("  and {} more for which there was no room\n", trace.left_out));
    }
    text
}

/// A checkpoint in words.
fn sentence(checkpoint: &TraceCheckpoint) -> String {
    let TraceCheckpoint { device_id, .. } = checkpoint;
    let (name, detail) = (clean(&checkpoint.name), clean(&checkpoint.detail));
    let more = match (name.as_str(), detail.as_str()) {
        ("accepted", devices) => format!("{devices} device(s)"),
        ("retry-asked", _) => "it asks for an earlier message again".to_owned(),
        ("refused", why) => format!("its sender was told: {}", why.trim_start_matches("rejected-")),
        ("told", "nothing") => "its sender was told nothing, and sends it again".to_owned(),
        ("told", outcome) => format!("its sender was told: {outcome}"),
        ("queued", _) => "in the mailbox".to_owned(),
        ("push-sent", _) => "its provider is asked to wake it".to_owned(),
        ("push-answered", result) => format!("by its provider: {result}"),
        ("handed", "live") => "to its edge, as it came".to_owned(),
        ("handed", _) => "to its edge, from the mailbox".to_owned(),
        ("expired", _) => "nobody fetched it in time".to_owned(),
        ("dropped", _) => "ephemeral, and the device was not there".to_owned(),
        ("elsewhere", _) => "another routing goes on with the account".to_owned(),
        (_, detail) => detail.to_owned(),
    };
    let device = if *device_id == 0 { String::new() } else { format!("device {device_id}") };
    format!("{name:<15} {device:<11} {more}").trim_end().to_owned()
}

/// Time of day, UTC.
fn time(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000 % 86_400, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(time_ms: u64, name: &str, device_id: u32, detail: &str) -> TraceCheckpoint {
        TraceCheckpoint { time_ms, name: name.to_owned(), device_id, detail: detail.to_owned() }
    }

    #[test]
    fn what_a_server_says_does_not_reach_the_terminal_as_it_is() {
        let said = "\u{1b}[2J\nforged";
        for (name, detail) in [("refused", said), ("told", said), ("accepted", said), (said, said)] {
            let trace =
                Trace { class: said.to_owned(), checkpoints: vec![checkpoint(1, name, 0, detail)], ..Trace::default() };
            let shown = show(&trace);
            assert!(!shown.contains('\u{1b}') && shown.lines().count() == 2, "{shown:?}");
        }
    }

    #[test]
    fn a_trace_is_a_line_for_each_hop() {
        let trace = Trace {
            trace_id: Bytes::from_static(&[0xab; 16]),
            class: "chat".to_owned(),
            began_ms: 1_700_000_000_000,
            recipient_account_id: Bytes::from_static(&[1; 16]),
            checkpoints: vec![
                checkpoint(1_700_000_000_000, "accepted", 0, "for 2"),
                checkpoint(1_700_000_000_002, "handed", 1, "live"),
                checkpoint(1_700_000_061_020, "push-answered", 12, "taken"),
            ],
            left_out: 3,
            ..Trace::default()
        };
        let account = "01".repeat(16);
        let expected = [
            &format!("trace {}  chat  to account {account}", "ab".repeat(16)),
            "  22:13:20.000Z         0 ms  accepted                    for 2 device(s)",
            "  22:13:20.002Z         2 ms  handed          device 1    to its edge, as it came",
            "  22:14:21.020Z     61020 ms  push-answered   device 12   by its provider: taken",
            "  and 3 more for which there was no room",
        ];
        assert_eq!(show(&trace).lines().collect::<Vec<_>>(), expected);
    }
}
