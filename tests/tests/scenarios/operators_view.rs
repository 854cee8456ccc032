//! What `causewayctl status`, `top` and `doctor` tell of deployments, well and ill.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use causeway_identity::{NoiseKey, RootKey, ServerCertificate, Validity};
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_test_servers::Port;
use causeway_tests::{Deployment, Process, Replica, Shape, World, program, within};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

const DAY: Duration = Duration::from_secs(86_400);

async fn causewayctl(arguments: &[&str]) -> anyhow::Result<Output> {
    let program = tokio::task::spawn_blocking(|| program("causewayctl")).await??;
    let told = Command::new(program).args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true).output();
    within("causewayctl", async { Ok(told.await?) }).await
}

/// What `doctor` finds, by verdict and check: `problem clocks: ...`.
async fn doctor(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = causewayctl(&[&["doctor", "--json", "--timeout-ms", "20000"], arguments].concat()).await?;
    let told = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&told).with_context(|| format!("{output:?}"))?;
    let problems = told["problems"].as_u64().context("a number of problems")?;
    assert_eq!(output.status.code(), Some(i32::from(problems > 0)), "{told:#}");
    let findings = told["findings"].as_array().context("findings")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |one: &Value| format!("{} {}: {}", text(&one["verdict"]), text(&one["check"]), text(&one["says"]));
    // Whoever is told of a problem is told what to do.
    assert!(findings.iter().all(|one| one["verdict"] != "problem" || !text(&one["act"]).is_empty()), "{told:#}");
    Ok(findings.iter().map(line).collect())
}

#[track_caller]
fn found(findings: &[String], verdict: &str, words: &[&str]) {
    let matching = findings.iter().any(|one| one.starts_with(verdict) && words.iter().all(|word| one.contains(word)));
    assert!(matching, "no {verdict} with {words:?} in {findings:#?}");
}

#[track_caller]
fn problems(findings: &[String], count: usize) {
    let problems: Vec<_> = findings.iter().filter(|one| one.starts_with("problem")).collect();
    assert_eq!(problems.len(), count, "{problems:#?}");
}

/// Where each process of a deployment answers probes, as arguments.
fn targets(net: &Deployment) -> anyhow::Result<Vec<String>> {
    let listens = net.replicas().into_iter().map(|replica| net.health_url(replica));
    Ok(listens.collect::<anyhow::Result<Vec<_>>>()?.into_iter().map(|url| format!("--target={url}")).collect())
}

/// With the operator API, which knows the providers.
fn with_operator(net: &Deployment, mut arguments: Vec<String>) -> Vec<String> {
    arguments.push(format!("--operator={}", net.ready().operator));
    arguments.push(format!("--operator-token-file={}", net.data().join("keys/operator.token").display()));
    arguments
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn one_process_is_shown_and_checked() -> anyhow::Result<()> {
    let port = Port::claim()?;
    let listen = format!("\"{}\"", port.address());
    let world = World::start_with(&[
        ("server.health_listen", &listen),
        ("edge.certificate_reload_interval_ms", "1000"),
        ("directory.keys_refresh_ms", "100"),
    ])
    .await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "hello").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "hello");
    let target = format!("--target=http://{}", port.address());
    let arguments = with_operator(&world.net, vec![target.clone()]);

    let status = causewayctl(&[&["status", "--json", "--window-ms", "10"], &borrowed(&arguments)[..]].concat()).await?;
    let status: Value = serde_json::from_slice(&status.stdout).with_context(|| format!("{status:?}"))?;
    assert_eq!(status["totals"]["sessions"], 2.0, "{status:#}");
    assert_eq!(status["processes"][0]["service"], "all");
    assert_eq!(status["processes"][0]["state"], "ready");
    let providers = status["providers"].as_array().context("providers")?;
    assert!(providers.iter().any(|one| one["provider"] == "birdy.example" && one["keys"] == "fresh"), "{status:#}");

    // A pipe gets picture after picture, without codes for terminals.
    let top = causewayctl(&["top", "--frames", "2", "--interval-ms", "100", &target]).await?;
    let shown = String::from_utf8(top.stdout)?;
    assert!(top.status.success() && !shown.contains('\u{1b}'), "{shown}");
    assert_eq!(shown.matches("causeway top").count(), 2, "{shown}");
    assert!(shown.contains("2 sessions") && shown.contains("all 1/1"), "{shown}");

    let config = format!("--config={}", world.net.config_file(Replica::from(Process::All)).display());
    let root = format!("--root={}", world.net.ready().root);
    let mut whole = arguments.clone();
    whole.extend([config.clone(), root]);
    let findings = doctor(&borrowed(&whole)).await?;
    problems(&findings, 0);
    for check in ["processes", "parts", "versions", "tables", "certificates", "roots", "clocks", "room"] {
        found(&findings, "fine", &[&format!("{check}: ")]);
    }
    found(&findings, "fine", &["providers", "2 live"]);
    let other = "--root=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    found(&doctor(&[&target, other]).await?, "problem roots", &["was not given with --root"]);

    // A provider whose keys do not come any more, an address where nobody listens, a certificate that ends soon.
    let World { net, birdy, home: _home } = world;
    drop((ada, birdy));
    let nowhere = Port::claim()?;
    let file = net.data().join("doctor.toml");
    let redis = format!("edge.redis.addresses = ['{}']", nowhere.address());
    std::fs::write(&file, format!("server.health_listen = {listen}\nedge.listen = '{}'\n{redis}\n", net.ready().edge))?;
    expire_soon(&net)?;
    let replica = Replica::from(Process::All);
    net.health_is(replica, |health| health["parts"]["edge.certificate"]["state"] == "degraded").await?;
    within("keys that cannot be fetched", async {
        while net.providers().await?.iter().all(|provider| provider.keys_error.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await?;
    let mut arguments = arguments;
    arguments.push(format!("--config={}", file.display()));
    let findings = doctor(&borrowed(&arguments)).await?;
    found(&findings, "problem certificates", &["edge.certificate", "expires in 23h"]);
    found(&findings, "problem parts", &["edge.certificate"]);
    found(&findings, "problem addresses", &["edge.redis.addresses", &nowhere.address().to_string(), "refused"]);
    found(&findings, "problem providers", &["birdy.example", "cannot be fetched"]);
    Ok(())
}

/// Puts a certificate in the place of the edge's that ends in a day.
fn expire_soon(net: &Deployment) -> anyhow::Result<()> {
    let keys = net.data().join("keys");
    let root = RootKey::from_text(&std::fs::read_to_string(keys.join("root.key"))?)?;
    let private = hex(std::fs::read_to_string(keys.join("noise.key"))?.trim())?;
    let key = causeway_noise::StaticKey::from_bytes(private);
    let now = SystemClock.now();
    let validity = Validity { not_before: now - DAY * 10, not_after: now + DAY };
    let deployment = &net.ready().deployment;
    let certificate = ServerCertificate::issue(&root, deployment, &NoiseKey::try_from(&key.public()[..])?, validity)?;
    std::fs::write(keys.join("certificate"), certificate.to_bytes()).context("write the certificate")
}

fn hex(text: &str) -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2).context("64 digits")?, 16)?;
    }
    Ok(bytes)
}

/// Answers every path with this, as a process does its health.
async fn imposter(answer: impl Into<String>) -> anyhow::Result<String> {
    let answer: String = answer.into();
    let router = Router::new().route("/health", get(move || async move { answer }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address: SocketAddr = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("--target=http://{address}"))
}

/// Accepts connections and says nothing.
async fn silent() -> anyhow::Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("--target=http://{}", listener.local_addr()?);
    Ok((listener, target))
}

#[tokio::test]
async fn several_processes_are_shown_and_what_is_wrong_with_each_is_found() -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::Many, &[]).await?;
    let mut arguments = with_operator(&world.net, targets(&world.net)?);
    for replica in world.net.replicas() {
        arguments.push(format!("--config={}", world.net.config_file(replica).display()));
    }
    let findings = doctor(&borrowed(&arguments)).await?;
    problems(&findings, 0);
    found(&findings, "fine processes", &["1 edge", "1 key-directory", "1 media-relay", "1 routing"]);
    found(&findings, "fine tables", &["directory.store sqlite", "routing.mailbox sqlite"]);
    found(&findings, "fine links", &["1 edges are linked to all 1 routings"]);
    found(&findings, "fine addresses", &["take connections"]);

    world.net.terminate_one(Process::MediaRelay).await?;
    world.net.kill_one(Process::Routing).await?;
    let edge = Replica::from(Process::Edge);
    world.net.health_is(edge, |health| health["parts"]["edge.routing"]["state"] == "degraded").await?;
    let now = SystemClock.now_ms();
    let hour = 3_600_000;
    let other = json!({ "status": "ready", "service": "causeway-media-relay", "version": "9.9.9", "time": now });
    let slow = json!({ "status": "ready", "service": "causeway-media-relay", "version": "9.9.9", "time": now - hour });
    let expired = json!({ "status": "ready", "service": "causeway-edge", "version": "9.9.9", "time": now,
        "certificates": { "server.tls": { "not_before": now - 3 * hour, "not_after": now - hour } },
        "tables": { "routing.mailbox": { "store": "sqlite", "version": 1_000 } } });
    let sly = json!({ "status": "ready", "service": "causeway-\u{1b}[2Jedge", "version": "\u{7}", "time": u64::MAX,
        "parts": { "\u{202e}": { "state": "\u{1b}", "meaning": "\u{1b}]0;title\u{7}" } } });
    let (_held, mute) = silent().await?;
    arguments.truncate(with_operator(&world.net, targets(&world.net)?).len());
    for answer in [other.to_string(), slow.to_string(), expired.to_string(), sly.to_string(), "<html>".to_owned()] {
        arguments.push(imposter(answer).await?);
    }
    arguments.extend([mute, "--timeout-ms=1000".to_owned()]);
    let output = causewayctl(&[&["doctor"], &borrowed(&arguments)[..]].concat()).await?;
    let shown = String::from_utf8(output.stdout)?;
    assert!(output.status.code() == Some(1) && !shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
    let findings: Vec<_> = shown.lines().map(ToOwned::to_owned).collect();
    let gone = world.net.health_url(Process::MediaRelay.into())?;
    found(&findings, "PROBLEM  processes", &[gone.trim_start_matches("http://"), "refuses connections"]);
    found(&findings, "PROBLEM  processes", &["not with its health"]);
    found(&findings, "PROBLEM  processes", &["does not answer within 1000 ms"]);
    found(&findings, "PROBLEM  parts", &["edge.routing"]);
    found(&findings, "PROBLEM  versions", &["9.9.9", env!("CARGO_PKG_VERSION"), "key-directory"]);
    found(&findings, "PROBLEM  clocks", &["media-relay", "behind"]);
    found(&findings, "PROBLEM  certificates", &["server.tls", "has expired 1h00m ago"]);
    assert!(findings.iter().any(|line| line.trim_start().starts_with("do: ")), "{shown}");

    let status = causewayctl(&[&["status", "--window-ms", "0"], &borrowed(&arguments)[..]].concat()).await?;
    let shown = String::from_utf8(status.stdout)?;
    assert!(status.status.success() && !shown.contains('\u{1b}'), "{shown}");
    assert!(shown.contains("unreachable") && shown.contains("key-directory 1/1"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn who_names_nothing_is_told_what_to_name() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("causeway.toml");
    std::fs::write(&file, "[server]\n")?;
    let file = file.to_string_lossy();
    for (arguments, code, words) in [
        (&["status"][..], 1, "--target http://host:port"),
        (&["top"], 1, "--target http://host:port"),
        (&["doctor"], 1, "--target http://host:port"),
        (&["status", "--config", &file], 1, "server.health_listen"),
        (&["doctor", "--config", "/nonexistent.toml"], 1, "/nonexistent.toml"),
        (&["doctor", "--target", "127.0.0.1:1"], 2, "http://host:port"),
    ] {
        let output = causewayctl(arguments).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {said}");
    }
    Ok(())
}
