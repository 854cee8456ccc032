//! All services apart, over mutual TLS: everything works, and only for those who may.

use std::ffi::OsStr;
use std::process::Output;
use std::time::Duration;

use bytes::Bytes;
use causeway_proto::directory::v1::ClaimRequest;
use causeway_proto::directory::v1::prekeys_client::PrekeysClient;
use causeway_proto::routing::v1::ReleaseRequest;
use causeway_proto::routing::v1::peers_client::PeersClient;
use causeway_runtime::grpc;
use causeway_runtime::tls::Role;
use causeway_tests::{Deployment, Device, Process, Shape, World, program, within};
use tokio::process::Command;
use tonic::Code;

/// A message each way.
async fn talk(ada: &mut Device, bo: &mut Device, round: &str) -> anyhow::Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        let pair = [&mut *ada, &mut *bo];
        let text = format!("{round} {from}");
        let sent = pair[from].send(pair[to].address(), &text).await?;
        assert!(sent.is_accepted(), "{text}: {sent:?}");
        assert_eq!(pair[to].next_text().await?, text);
    }
    Ok(())
}

#[tokio::test]
async fn messages_flow_between_services_that_prove_who_they_are() -> anyhow::Result<()> {
    let mut world = World::start_as(Shape::ReplicasSecured, &[]).await?;
    let (mut bo, mut ada) = (world.at_home("bo").await?, world.at_birdy("ada").await?);
    talk(&mut ada, &mut bo, "at first").await?;

    // Each in turn leaves and comes back: at least one then takes an account back from another, which it asks for it.
    let mut released = false;
    for routing in world.net.replicas().into_iter().filter(|replica| replica.process == Process::Routing) {
        world.net.terminate_one(routing).await?;
        talk(&mut ada, &mut bo, &format!("without {routing}")).await?;
        let linked = format!("linked to routing replica=\"{routing}\"");
        let before = logged(&world.net, &linked);
        world.net.start_one(routing).await?;
        comes(&world.net, &linked, before + world.net.edges()?.len()).await?;
        talk(&mut ada, &mut bo, &format!("with {routing} again")).await?;
        released |= has_released(&world.net).await?;
    }
    assert!(released, "no routing has asked another one for an account");

    only_those_who_may(&world.net).await?;

    // Certificates are replaced while everybody is connected; what starts afterwards meets those that have new ones.
    let renewed = "new certificate files are used";
    let before = logged(&world.net, renewed);
    world.net.renew_certificates().await?;
    let processes = world.net.replicas();
    comes(&world.net, renewed, before + processes.len()).await?;
    talk(&mut ada, &mut bo, "with new certificates").await?;
    world.net.kill_one(Process::Edge.replica(1)).await?;
    world.net.kill_one(Process::KeyDirectory.replica(1)).await?;
    world.net.restart().await?;
    for replica in processes {
        let health = world.net.health_is(replica, |health| health["status"] == "ready").await?;
        assert_eq!(health["parts"]["server.tls"]["state"], "up", "{replica}: {health}");
    }
    talk(&mut ada, &mut bo, "after a restart").await?;
    // Those that were tried on purpose; the services themselves make none.
    let refused = logged(&world.net, "a call that its role may not make");
    assert_eq!(refused, 3, "{}", world.net.log());
    Ok(())
}

/// How often all processes have said this.
fn logged(net: &Deployment, what: &str) -> usize {
    net.log().matches(what).count()
}

/// Waits until it has been said so often.
async fn comes(net: &Deployment, what: &str, times: usize) -> anyhow::Result<()> {
    within(what, async {
        while logged(net, what) < times {
            // A log tells nobody by itself.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await
}

/// Whether a routing has given an account to another one that asked for it.
async fn has_released(net: &Deployment) -> anyhow::Result<bool> {
    let mut released = false;
    for routing in net.replicas().into_iter().filter(|replica| replica.process == Process::Routing) {
        released |= net.metrics(routing).await?.lines().any(|line| {
            let counted = line.starts_with("rpc_server_call_duration_seconds_count{");
            counted && line.contains("causeway.routing.v1.Peers/Release") && line.contains("\"OK\"")
        });
    }
    Ok(released)
}

/// Certificates of the deployment in the wrong hands, and none.
async fn only_those_who_may(net: &Deployment) -> anyhow::Result<()> {
    let release =
        || grpc::call(ReleaseRequest { account_id: Bytes::from(vec![7; 16]), address: "a@b.example".to_owned() });
    let routing = net.url_of(Process::Routing)?;
    let as_edge = net.transport_of(Role::Edge)?.connect(Role::Routing, &routing)?;
    let refused = PeersClient::new(as_edge).release(release()).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "the role edge may not call causeway.routing.v1.Peers/Release");

    let directory = net.url_of(Process::KeyDirectory)?;
    let as_media = net.transport_of(Role::MediaRelay)?.connect(Role::KeyDirectory, &directory)?;
    let refused =
        PrekeysClient::new(as_media).claim(grpc::call(ClaimRequest::default())).await.expect_err("it is refused");
    assert_eq!(refused.message(), "the role media-relay may not call causeway.directory.v1.Prekeys/Claim");

    // A routing where a key-directory should be, and plain text.
    let misled = net.transport_of(Role::Edge)?.connect(Role::KeyDirectory, &routing)?;
    let failed =
        PrekeysClient::new(misled).claim(grpc::call(ClaimRequest::default())).await.expect_err("it is refused");
    assert!(!matches!(failed.code(), Code::Unimplemented | Code::PermissionDenied), "{failed:?}");
    let plain = grpc::connect(&routing.replace("https://", "http://"))?;
    let failed = PeersClient::new(plain).release(release()).await.expect_err("it is refused");
    assert!(!matches!(failed.code(), Code::Unimplemented | Code::InvalidArgument), "{failed:?}");

    let operator = net.ready().operator.clone();
    let as_routing = net.transport_of(Role::Routing)?.connect(Role::KeyDirectory, &operator)?;
    let list = grpc::call(causeway_proto::directory::v1::ListProviders::default());
    let mut api = causeway_proto::directory::v1::providers_client::ProvidersClient::new(as_routing);
    assert_eq!(api.list(list).await.expect_err("it is refused").code(), Code::PermissionDenied);

    let told = providers(net, Role::OperatorTool).await?;
    assert!(told.status.success() && String::from_utf8_lossy(&told.stdout).contains("birdy.example"), "{told:?}");
    let told = providers(net, Role::Edge).await?;
    let sentence = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && sentence.contains("role edge, and operator-tool is needed"), "{sentence}");
    Ok(())
}

/// What `causewayctl` lists with a certificate of this role.
async fn providers(net: &Deployment, role: Role) -> anyhow::Result<Output> {
    let files = net.tls_config(role);
    let listed = Command::new(program("causewayctl")?)
        .args(["provider", "--operator", &net.ready().operator])
        .args(["--tls-trust-domain".as_ref(), net.ready().deployment.as_ref() as &OsStr])
        .args(["--operator-token-file".as_ref(), net.data().join("keys/operator.token").as_os_str()])
        .args(["--tls-certificate-file".as_ref(), files.certificate_file.as_os_str()])
        .args(["--tls-key-file".as_ref(), files.key_file.as_os_str()])
        .args(["--tls-ca-file".as_ref(), files.ca_file.as_os_str()])
        .arg("list")
        .output();
    within("causewayctl provider list", async { Ok(listed.await?) }).await
}
