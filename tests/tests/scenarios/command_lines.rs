//! What people who type commands get: a result, or an exit code and one sentence that names what is wrong and the fix.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::Context as _;
use causeway_client::{Content, EventKind, RootPublicKey};
use causeway_tests::{Provider, World, program, within};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs a program to its end with this standard input.
async fn run(name: &str, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> anyhow::Result<Output> {
    let mut child = Command::new(program(name)?)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    // A program that refuses its arguments closes its input unread.
    let _closed = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    within("the end of a command", async { Ok(child.wait_with_output().await?) }).await
}

/// It must fail with this code and say, in one line, all of these words.
async fn refused(name: &str, arguments: &[&str], code: i32, words: &[&str]) -> anyhow::Result<()> {
    refused_with(name, arguments, &[], code, words).await
}

async fn refused_with(
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    code: i32,
    words: &[&str],
) -> anyhow::Result<()> {
    let output = run(name, arguments, environment, "").await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {said}");
    let sentence = said.lines().last().unwrap_or_default();
    assert!(sentence.starts_with(&format!("{name}: ")), "{name} {arguments:?}: {said}");
    for word in words {
        assert!(sentence.contains(word), "{name} {arguments:?} should say {word:?}: {said}");
    }
    Ok(())
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A profile as `make run` writes it, with parts of it changed.
fn profile(
    world: &World,
    provider: &Provider,
    user: &str,
    folder: &Path,
    change: (&str, &str),
) -> anyhow::Result<String> {
    let ready = world.net.ready();
    let upload = format!("upload_url = \"{}\"\n", provider.sandbox().upload_url());
    let text = format!(
        "address = \"{}\"\nserver = \"{}\"\ndeployment = \"{}\"\nroots = [\"{}\"]\ntoken_url = \"{}\"\n{upload}\
         state = \"{user}-{}.db\"\n",
        provider.address(user)?,
        ready.edge,
        ready.deployment,
        ready.root,
        provider.sandbox().token_url(),
        change.1.len(),
    );
    let file = folder.join(format!("{user}-{}.toml", change.1.len()));
    std::fs::write(&file, text.replace(change.0, change.1))?;
    Ok(path(&file))
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = path(&folder.path().join("data"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let free = [
        ("CAUSEWAY_SERVER__OPERATOR_LISTEN", "127.0.0.1:0"),
        ("CAUSEWAY_EDGE__WEBSOCKET_LISTEN", "127.0.0.1:0"),
        ("CAUSEWAY_MEDIA__LISTEN", "127.0.0.1:0"),
        ("CAUSEWAY_EDGE__LISTEN", "127.0.0.1:0"),
    ];
    for (variable, field) in [
        ("CAUSEWAY_SERVER__OPERATOR_LISTEN", "server.operator_listen"),
        ("CAUSEWAY_EDGE__LISTEN", "edge.listen"),
        ("CAUSEWAY_MEDIA__LISTEN", "media.listen"),
    ] {
        let mut environment = free.to_vec();
        environment.push((variable, &taken));
        refused_with("causeway", &["all", "--data", &data], &environment, 1, &[field, "in use"]).await?;
    }
    refused("causeway", &["all", "--data", "/proc/causeway"], 1, &["/proc/causeway", "--data"]).await?;

    let wrong = [("CAUSEWAY_EDGE__MAX_CONNECTIONS", "0")];
    refused_with("causeway", &["check-config"], &wrong, 2, &["edge.max_connections", "between 1 and"]).await?;
    let unknown = [("CAUSEWAY_EDGE__MAXIMUM", "1")];
    refused_with("causeway", &["check-config"], &unknown, 2, &["edge.maximum", "no such field"]).await?;
    refused("causeway", &["check-config", "--config", "/nonexistent.toml"], 2, &["/nonexistent.toml"]).await?;
    refused("sandbox", &["--data", "/proc/x", "--domain", "birdy.example"], 1, &["/proc/x"]).await?;
    let arguments = ["--data", &data, "--domain", "birdy.example", "--listen", &taken];
    refused("sandbox", &arguments, 1, &["in use"]).await
}

#[tokio::test]
async fn an_operator_is_told_what_is_wrong_and_what_is_registered() -> anyhow::Result<()> {
    let world = World::start().await?;
    let folder = tempfile::tempdir()?;
    let token = path(&folder.path().join("token"));
    std::fs::write(&token, world.net.operator_token()?)?;
    let wrong_token = path(&folder.path().join("wrong"));
    std::fs::write(&wrong_token, "0000")?;
    let operator = world.net.ready().operator.clone();
    let edge = format!("http://{}", world.net.ready().edge);
    let at = |operator: &str, token: &str, rest: &[&str]| {
        let mut arguments = vec!["provider", "--operator", operator, "--operator-token-file", token];
        arguments.extend_from_slice(rest);
        arguments.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    for (arguments, words) in [
        (at(&operator, "/nonexistent", &["list"]), vec!["/nonexistent", "cannot be read"]),
        (at(&operator, &wrong_token, &["list"]), vec!["refused the operator token"]),
        (at("http://127.0.0.1:1", &token, &["list"]), vec!["127.0.0.1:1", "is the server running"]),
        (at(&edge, &token, &["list"]), vec![edge.as_str(), "is the port right"]),
        (at(&operator, &token, &["suspend", "crow.example"]), vec!["crow.example"]),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused("causewayctl", &arguments, 1, &words).await?;
    }
    let arguments = at(&operator, &token, &["list"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let listed = run("causewayctl", &arguments, &[], "").await?;
    let listed = String::from_utf8(listed.stdout)?;
    assert!(listed.contains("birdy.example\tthird-party\tlive"), "{listed}");
    assert!(listed.contains("home.example\thome\tlive"), "{listed}");
    Ok(())
}

#[tokio::test]
async fn a_chat_can_be_piped_and_says_what_is_wrong() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut bo = world.at_home("bo").await?;
    let folder = tempfile::tempdir()?;
    let downloads = path(&folder.path().join("downloads"));
    let good = profile(&world, &world.birdy, "ada", folder.path(), ("", ""))?;
    let picture = folder.path().join("picture.png");
    std::fs::write(&picture, vec![7; 200_000])?;

    let input = format!("hello bo\n/file {} look\n", picture.display());
    let to = bo.address().to_string();
    let arguments = ["chat", "--profile", &good, "--opt-in", "--to", &to];
    let sent = run("causewayctl", &arguments, &[], &input).await?;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(bo.next_text().await?, "hello bo");
    let ada = world.birdy.address("ada")?;
    let media = bo
        .wait_for("a picture", |kind| match kind {
            EventKind::Message(message) => message.content.as_media().cloned(),
            _ => None,
        })
        .await?;
    assert_eq!((media.size, media.caption.as_str()), (200_000, "look"));

    // The other way: something malicious in a text stays on its line, and a file is saved.
    bo.client().send(&ada, Content::text("one\u{1b}[2J\ntwo")).await?;
    bo.client().send(&ada, Content::media(media)).await?;
    let arguments = ["chat", "--profile", &good, "--receive", "2", "--downloads", &downloads];
    let received = run("causewayctl", &arguments, &[], "").await?;
    assert!(received.status.success(), "{}", String::from_utf8_lossy(&received.stderr));
    let shown = String::from_utf8(received.stdout)?;
    assert!(shown.contains("bo@home.example/1 [home: home.example, main inbox] one\u{fffd}[2J two\n"), "{shown}");
    assert_eq!(std::fs::read(Path::new(&downloads).join("picture.png"))?, vec![7; 200_000]);

    let stranger = RootPublicKey::from_bytes(*world.net.ready().root.as_bytes())?.to_string();
    let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let edge = world.net.ready().edge.to_string();
    for (change, words) in [
        ((stranger.as_str(), other), vec!["unknown root"]),
        (("deployment = \"", "deployment = \"other."), vec!["another deployment"]),
        ((edge.as_str(), "127.0.0.1:1"), vec!["127.0.0.1:1", "is the server there"]),
        (("/token\"", "/nothing-here\""), vec!["token_url"]),
    ] {
        let file = profile(&world, &world.birdy, "eve", folder.path(), change)?;
        refused("causewayctl", &["chat", "--profile", &file, "--wait", "2"], 1, &words).await?;
    }
    refused("causewayctl", &["chat", "--profile", "/nonexistent.toml"], 1, &["/nonexistent.toml"]).await?;

    let nobody = ["chat", "--profile", &good, "--to", "nobody@home.example"];
    let output = run("causewayctl", &nobody, &[], "hello?\n").await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NOT SENT: not-available"));
    Ok(())
}
