//! What processes tell of themselves: a message's way from hop to hop, and all metrics that the documentation lists.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::Context as _;
use causeway_client::media::MediaDetails;
use causeway_client::{Content, SendResult};
use causeway_proto::wire::v1 as pb;
use causeway_tests::raw::{self, Session, new_key};
use causeway_tests::{Collector, Shape, Span, World, within};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Traced from edge to edge, and to the provider; and everything in docs/metrics.md is there.
#[tokio::test]
async fn messages_are_traced_hop_by_hop_and_every_metric_of_the_list_is_told() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let endpoint = format!("\"{}\"", collector.url());
    let world = World::start_as(
        Shape::ReplicasSecured,
        &[
            ("telemetry.otlp_endpoint", &endpoint),
            ("telemetry.sample_ratio", "1.0"),
            ("telemetry.traces_interval_ms", "50"),
            ("telemetry.metrics_interval_ms", "1000"),
            ("log.format", "\"json\""),
        ],
    )
    .await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);

    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "hello");
    let live = collector.spans("a message that is acknowledged", |spans| way(spans, "device acknowledge")).await?;
    let names: Vec<_> = live.iter().map(|span| (span.service.as_str(), span.name.as_str())).collect();
    assert_eq!(
        names,
        [
            ("causeway-edge", "edge accept"),
            ("causeway-routing", "routing decide"),
            ("causeway-routing", "routing deliver"),
            ("causeway-edge", "edge hand over"),
            ("causeway-edge", "device acknowledge"),
        ]
    );
    assert!(live[0].outcome() == "delivered" || live[0].outcome() == "stored", "{:?}", live[0]);
    assert_eq!(live[4].outcome(), "acknowledged");

    bo.client().push(Some(b"wake me".to_vec())).await?;
    bo.stop().await?;
    assert_eq!(ada.send(bo.address(), "are you there?").await?, SendResult::Stored);
    let stored = collector.spans("a message that is stored", |spans| way(spans, "routing store")).await?;
    assert_eq!((stored[0].name.as_str(), stored[0].outcome()), ("edge accept", "stored"));
    let told = collector.spans("the provider is told", |spans| way(spans, "routing webhook")).await?;
    let told = told.last().context("the webhook's span")?;
    assert_eq!(told.outcome(), "taken");
    let pushes = within("a webhook", async { Ok(world.home.sandbox().wait_for_pushes(1).await) }).await?;
    assert_eq!(pushes[0].traceparent, Some(told.traceparent()));

    // Calls for a client's request are part of its trace.
    ada.client().devices().await?;
    let called = collector.spans("a request", |spans| way(spans, "causeway.directory.v1.Accounts/Devices")).await?;
    assert_eq!((called[0].service.as_str(), called[1].service.as_str()), ("causeway-edge", "causeway-key-directory"));

    collector.metric("causeway-edge", "causeway.edge.messages").await?;
    provoke(&world).await?;
    compare(&world).await
}

/// The spans from the first one to one of this name, if all are there.
fn way(spans: &[Span], to: &str) -> Option<Vec<Span>> {
    spans.iter().filter(|span| span.name == to).find_map(|last| {
        let mut way = vec![last.clone()];
        while let Some(parent) = way.last().map(|span| span.parent.clone()).filter(|parent| !parent.is_empty()) {
            way.push(spans.iter().find(|span| span.id == parent && span.trace == last.trace)?.clone());
        }
        way.reverse();
        Some(way)
    })
}

/// Has happen what a quiet deployment does not show by itself.
async fn provoke(world: &World) -> anyhow::Result<()> {
    let edge = world.net.ready().edge;
    raw::say(edge, b"GET / HTTP/1.1\r\n\r\n", usize::MAX).await?;
    let encoding = pb::Encoding::Binary.into();
    let hello = pb::ClientHello { token: "x.y.z".to_owned(), encoding, ..pb::ClientHello::default() };
    let mut session = Session::open(&world.net, &new_key(), &hello).await?;
    session.failure().await?;
    let (cy, di) = (world.at_birdy("cy").await?, world.at_home("di").await?);
    let details = MediaDetails { mime_type: "image/png".to_owned(), ..MediaDetails::default() };
    // Through the operator's host, and through its relay.
    for (from, to) in [(&di, &cy), (&cy, &di)] {
        let media = from.transfers()?.upload(from.media_host()?.as_ref(), &b"a picture"[..], details.clone()).await?;
        from.client().send_and_wait(to.address(), Content::media(media.clone())).await?;
        to.transfers()?.download(to.client(), &media, &mut Vec::new()).await?;
    }
    let url = format!("{}/v1/relay", world.net.ready().media);
    let refused = reqwest::Client::new().get(url).header("authorization", "Causeway nonsense").send().await?;
    anyhow::ensure!(refused.status().is_client_error(), "{}", refused.status());
    Ok(())
}

/// What one line of docs/metrics.md says.
struct Listed {
    kind: String,
    /// It need not be there.
    on_demand: bool,
}

fn inventory() -> anyhow::Result<BTreeMap<String, Listed>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"))?;
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(_), Some(name), Some(kind)) = (cells.next(), cells.next(), cells.next()) else {
            anyhow::bail!("a line of docs/metrics.md without its cells: {line}");
        };
        let listed = Listed { kind: kind.to_owned(), on_demand: line.contains("*On demand") };
        Ok((name.trim_matches('`').to_owned(), listed))
    })
    .collect()
}

/// What all processes tell by `/metrics` is what the documentation lists, in names and kinds.
async fn compare(world: &World) -> anyhow::Result<()> {
    let listed = inventory()?;
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for replica in world.net.replicas() {
        let text = world.net.metrics(replica).await?;
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').context("name and kind")?;
            told.insert(name.to_owned(), kind.to_owned());
        }
        anyhow::ensure!(!text.contains("example"), "{replica} names an address or a provider:\n{text}");
        lint(text).await.with_context(|| format!("metrics of {replica}"))?;
    }
    told.remove("target_info");
    for (name, kind) in &told {
        let listed = listed.get(name).with_context(|| format!("{name} is not in docs/metrics.md"))?;
        assert_eq!(&listed.kind, kind, "{name}");
    }
    let missing: Vec<_> = listed.keys().filter(|name| !told.contains_key(*name)).collect();
    let unprovoked: Vec<_> = missing.iter().filter(|name| !listed[**name].on_demand).collect();
    assert!(unprovoked.is_empty(), "listed, and told by nobody: {unprovoked:?}");
    assert!(missing.is_empty(), "on demand, and not provoked by this test: {missing:?}");
    Ok(())
}

/// What Prometheus's own tool says of a text.
async fn lint(text: String) -> anyhow::Result<()> {
    let mut tool = Command::new("promtool");
    tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checking =
        tool.spawn().context("promtool is missing: install Debian's prometheus (tools/setup.sh test)")?;
    checking.stdin.take().context("its input")?.write_all(text.as_bytes()).await?;
    let checked = checking.wait_with_output().await?;
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    // OpenTelemetry's names for what it has names for.
    let theirs = |line: &&str| !line.contains("_count non-histogram");
    let complaints: Vec<_> = said.lines().filter(theirs).collect();
    anyhow::ensure!(complaints.is_empty(), "promtool: {complaints:#?}");
    Ok(())
}

/// Without a collector nothing is sampled, and nothing is counted if that is switched off.
#[tokio::test]
async fn what_is_switched_off_tells_nothing() -> anyhow::Result<()> {
    let world = World::start_as(Shape::Many, &[("telemetry.metrics", "false")]).await?;
    for replica in world.net.replicas() {
        assert_eq!(world.net.metrics(replica).await?, "");
    }
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "hello");
    Ok(())
}

/// What telemetry costs: processor time of `causeway all` for each message, from sender to recipient and back, with the default
/// settings and a collector, and with everything off.
#[tokio::test]
#[ignore = "a measurement: run it alone, on a quiet machine, with --run-ignored only --no-capture"]
async fn cost() -> anyhow::Result<()> {
    const ROUNDS: usize = 8;
    const MESSAGES: usize = 2_000;
    let collector = Collector::start().await?;
    let endpoint = format!("\"{}\"", collector.url());
    let quick = [("routing.account_per_s", "100000"), ("routing.account_burst", "100000")];
    let on = [&quick[..], &[("telemetry.otlp_endpoint", endpoint.as_str())]].concat();
    let off = [&quick[..], &[("telemetry.metrics", "false")]].concat();
    let mut totals = [0, 0];
    // In turns, so that what else the machine does falls on both.
    for round in 0..ROUNDS {
        for (total, settings) in totals.iter_mut().zip([&on, &off]) {
            let ticks = load(settings, MESSAGES).await?;
            // The first of each only warms up.
            *total += if round == 0 { 0 } else { ticks };
        }
    }
    let each = |ticks: u64| ticks as f64 * 10_000.0 / ((ROUNDS - 1) * MESSAGES) as f64;
    let [with, without] = totals.map(each);
    let more = (with / without - 1.0) * 100.0;
    let mut out = std::io::stdout();
    writeln!(out, "{with:.1} us a message with telemetry, {without:.1} us without: {more:+.1} %")?;
    Ok(())
}

async fn load(settings: &[(&str, &str)], messages: usize) -> anyhow::Result<u64> {
    let world = World::start_with(settings).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "first").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "first");
    let process = world.net.replicas()[0];
    let before = world.net.processor_ticks(process)?;
    for n in 0..messages {
        ada.queue(bo.address(), &n.to_string()).await?;
    }
    for n in 0..messages {
        assert_eq!(bo.next_text().await?, n.to_string());
    }
    Ok(world.net.processor_ticks(process)? - before)
}
