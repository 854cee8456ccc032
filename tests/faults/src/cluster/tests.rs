use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::events;

fn options(folder: &Path, variant: Variant) -> ClusterOptions {
    ClusterOptions { variant, seed: 1, folder: folder.to_owned(), settings: Vec::new(), binary: None }
}

/// Whether an edge takes a connection and keeps it for a moment.
async fn serves(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut byte = [0];
    tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await.is_err()
}

async fn comes_and_goes(variant: Variant) {
    let folder = tempfile::tempdir().unwrap();
    let log = FaultLog::create(folder.path(), Instant::now()).unwrap();
    let cluster = Cluster::start(options(folder.path(), variant), log).await.unwrap();
    for edge in cluster.edges() {
        assert!(serves(*edge).await);
    }
    assert!(!cluster.operator().1.is_empty());
    assert_eq!(cluster.usage().len(), cluster.services().len());
    for service in cluster.services() {
        service.kill().await.unwrap();
    }
    assert!(!serves(cluster.edges()[0]).await);
    cluster.heal().await.unwrap();
    for service in cluster.services() {
        service.pause().await.unwrap();
        service.resume().await.unwrap();
    }
    assert!(serves(cluster.edges()[0]).await);
    cluster.stop().await.unwrap();
    assert_eq!(events::read(folder.path()).unwrap().bad, []);
}

#[tokio::test]
async fn one_process_comes_and_goes() {
    comes_and_goes(Variant::One).await;
}

#[tokio::test]
async fn many_processes_come_and_go() {
    comes_and_goes(Variant::Scaled(PostgresShape::Single, RedisShape::Single)).await;
}

#[tokio::test]
async fn many_processes_on_a_redis_cluster_come_and_go() {
    comes_and_goes(Variant::Scaled(PostgresShape::Single, RedisShape::Cluster)).await;
}

#[tokio::test]
async fn what_ends_by_itself_is_written_down_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = FaultLog::create(folder.path(), Instant::now()).unwrap();
    let cluster = Cluster::start(options(folder.path(), Variant::One), log).await.unwrap();
    // Its own decision, as far as the supervisor can tell.
    let id = cluster.services()[0].id().await.unwrap();
    std::process::Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while events::read(folder.path()).unwrap().bad.is_empty() || !serves(cluster.edges()[0]).await {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(cluster.services()[0].id().await, Some(id));
    assert!(events::read(folder.path()).unwrap().bad[0].1.starts_with("all ended by itself"));
}

#[test]
fn variants_are_read_back() {
    for variant in Variant::ALL {
        assert_eq!(variant.name().parse::<Variant>().unwrap(), variant);
    }
}
