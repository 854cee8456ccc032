//! What became of a message, as `causewayctl trace` shows it to the operator and to each provider.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::Context as _;
use causeway_client::SendResult;
use causeway_runtime::tls::Role;
use causeway_tests::{Deployment, Process, Shape, World, program, within};
use tokio::process::Command;

/// A message for a device that is away, then comes: the operator sees every hop, each provider its own side, and nobody else
/// anything.
#[tokio::test]
async fn a_message_is_traced_hop_by_hop_and_each_provider_sees_its_own_side() -> anyhow::Result<()> {
    let world = World::start_as(Shape::ReplicasSecured, &[]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    bo.client().push(Some(b"wake me".to_vec())).await?;
    bo.stop().await?;
    let message = ada.queue(bo.address(), "nobody who traces reads this").await?;
    assert_eq!(ada.outcome(message).await?, SendResult::Stored);
    within("a webhook", async { Ok(world.home.sandbox().wait_for_pushes(1).await) }).await?;

    let bo_address = bo.address().to_string();
    let to_bo = ["--address", bo_address.as_str()];
    let operator = world.net.data().join("keys/operator.token");
    let woken = until(&world.net, &operator, &to_bo, "push-answered").await?;
    assert_eq!(names(&woken), ["accepted", "queued", "told", "push-sent", "push-answered"], "{woken}");
    bo.start().await?;
    assert_eq!(bo.next_text().await?, "nobody who traces reads this");
    let all = until(&world.net, &operator, &to_bo, "acknowledged").await?;
    let of_recipient = ["queued", "push-sent", "push-answered", "handed", "acknowledged"];
    assert_eq!(
        names(&all),
        ["accepted", "queued", "told", "push-sent", "push-answered", "handed", "acknowledged"],
        "{all}"
    );
    eprintln!("{all}");
    let id = all.split_whitespace().nth(1).context("the trace id")?.to_owned();
    let by_message: String = message.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();

    let home = file(&world.net, "home.token", &world.home.sandbox().trace_token().await?)?;
    let birdy = file(&world.net, "birdy.token", &world.birdy.sandbox().trace_token().await?)?;
    for wanted in [&[id.as_str()][..], &["--message", &by_message]] {
        assert_eq!(names(&known(&world.net, &operator, wanted).await?).len(), 7);
        let (of_home, of_birdy) = (known(&world.net, &home, wanted).await?, known(&world.net, &birdy, wanted).await?);
        assert_eq!(names(&of_home), of_recipient, "{of_home}");
        assert_eq!(names(&of_birdy), ["accepted", "told"], "{of_birdy}");
        // Neither learns which account the other side is.
        assert!(of_home.contains("to account") && !of_home.contains("from account"), "{of_home}");
        assert!(of_birdy.contains("from account") && !of_birdy.contains("to account"), "{of_birdy}");
    }
    assert_eq!(names(&known(&world.net, &birdy, &["--address", ada.address().as_str()]).await?), ["accepted", "told"]);
    assert_eq!(names(&known(&world.net, &home, &to_bo).await?), of_recipient);

    // What is not one's own is as what does not exist; and a user's token is no trace token.
    let nobody = refused(&world.net, &birdy, &["--address", "nobody@birdy.example"]).await?;
    assert_eq!(refused(&world.net, &birdy, &to_bo).await?, nobody);
    assert_eq!(refused(&world.net, &home, &["--address", ada.address().as_str()]).await?, nobody);
    assert!(nobody.contains("nothing is known"), "{nobody}");
    let of_user = world.birdy.sandbox().issue_token("ada", &[9; 32], Duration::from_secs(60)).await?;
    let of_user = file(&world.net, "user.token", &of_user)?;
    let told = refused(&world.net, &of_user, &[id.as_str()]).await?;
    assert!(told.contains("refused the token"), "{told}");

    balanced(&world.net).await
}

/// Every message that was accepted is accounted for.
async fn balanced(net: &Deployment) -> anyhow::Result<()> {
    let (mut accepted, mut settled, mut open) = (0.0, 0.0, 0.0);
    for routing in net.replicas().into_iter().filter(|replica| replica.process == Process::Routing) {
        let text = net.metrics(routing).await?;
        accepted += sum(&text, "causeway_routing_messages_accepted_total")?;
        settled += sum(&text, "causeway_routing_messages_settled_total")?;
        open += sum(&text, "causeway_routing_messages_unaccounted")?;
        open += sum(&text, "causeway_routing_messages_under_way")?;
    }
    assert!(accepted > 0.0, "nothing was accepted");
    assert_eq!((settled, open), (accepted, 0.0));
    Ok(())
}

fn sum(metrics: &str, name: &str) -> anyhow::Result<f64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values =
        metrics.lines().filter(of_name).map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?));
    let values = values.collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(!values.is_empty(), "there is no {name}");
    Ok(values.iter().sum())
}

/// The names of the checkpoints.
fn names(shown: &str) -> Vec<&str> {
    let lines = shown.lines().filter(|line| line.starts_with("  "));
    // Time, milliseconds, their unit, name.
    lines.filter_map(|line| line.split_whitespace().nth(3)).collect()
}

/// What is shown once this checkpoint is there.
async fn until(net: &Deployment, token: &Path, wanted: &[&str], checkpoint: &str) -> anyhow::Result<String> {
    within(checkpoint, async {
        loop {
            let shown = known(net, token, wanted).await?;
            if names(&shown).contains(&checkpoint) {
                return Ok(shown);
            }
        }
    })
    .await
}

async fn known(net: &Deployment, token: &Path, wanted: &[&str]) -> anyhow::Result<String> {
    let told = trace(net, token, wanted).await?;
    anyhow::ensure!(told.status.success(), "{told:?}");
    Ok(String::from_utf8(told.stdout)?)
}

async fn refused(net: &Deployment, token: &Path, wanted: &[&str]) -> anyhow::Result<String> {
    let told = trace(net, token, wanted).await?;
    anyhow::ensure!(!told.status.success() && told.stdout.is_empty(), "{told:?}");
    Ok(String::from_utf8(told.stderr)?)
}

async fn trace(net: &Deployment, token: &Path, wanted: &[&str]) -> anyhow::Result<Output> {
    let files = net.tls_config(Role::OperatorTool);
    let told = Command::new(program("causewayctl")?)
        .args(["trace", "--operator", &net.ready().operator])
        .args(["--tls-trust-domain".as_ref(), net.ready().deployment.as_ref() as &OsStr])
        .args(["--operator-token-file".as_ref(), token.as_os_str()])
        .args(["--tls-certificate-file".as_ref(), files.certificate_file.as_os_str()])
        .args(["--tls-key-file".as_ref(), files.key_file.as_os_str()])
        .args(["--tls-ca-file".as_ref(), files.ca_file.as_os_str()])
        .args(wanted)
        .output();
    within("causewayctl trace", async { Ok(told.await?) }).await
}

fn file(net: &Deployment, name: &str, token: &str) -> anyhow::Result<PathBuf> {
    let path = net.data().join(name);
    std::fs::write(&path, token)?;
    Ok(path)
}
