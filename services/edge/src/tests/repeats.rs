//! An edge in a world that repeats itself: no sockets, time that only passes while nothing happens, random numbers from a
//! seed.

use std::time::Duration;

use causeway_stanza::FromServer;

use super::client::{Client, First, Opening, key};
use super::rig::{Rig, token};
use super::sessions::message_to;

/// What an edge does of its own choice.
async fn story(seed: u64) -> Vec<String> {
    let (rig, pipes) = Rig::over_pipes(3, seed).await;
    let key = key(5);
    rig.directory.script().devices.insert(1, *key.public());
    let opening = Opening::new(token(&key), 1);
    let started = tokio::time::Instant::now();
    let (mut told, mut clients) = (Vec::new(), Vec::new());
    for n in 0..5 {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        pipes.send((theirs, "192.0.2.1:1".parse().unwrap())).unwrap();
        let mut client = Client::try_shake(Box::new(ours), &rig.server_key, &key, &opening).await.unwrap();
        let First::Success(success) = client.first().await else { panic!() };
        client.send(message_to(n, &format!("user{n}@home.example"))).await;
        told.push(format!("{:?}", success.session));
        clients.push(client);
    }
    // Pings, lost links and their retries.
    for replica in &rig.replicas {
        replica.break_link();
    }
    for client in &mut clients {
        assert!(matches!(client.next().await, Some(FromServer::Ping(_))));
        told.push(format!("pinged after {:?}", started.elapsed()));
    }
    told.push(format!("{} links", rig.replicas.len()));
    rig.links.wait_for_links(rig.replicas.len()).await;
    rig.life.drain();
    for client in &mut clients {
        told.push(format!("{:?} after {:?}", client.ended().await, started.elapsed()));
    }
    drop(clients);
    rig.stop().await;
    told
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_tells_the_same_story() {
    let first = story(1).await;
    assert_eq!(first, story(1).await);
    assert_ne!(first, story(2).await);
    tokio::time::sleep(Duration::from_millis(1)).await;
}
