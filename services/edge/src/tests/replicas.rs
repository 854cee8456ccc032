//! Several replicas of routing, of which some leave, stop, or hand over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use causeway_identity::SessionId;
use causeway_proto::routing::v1 as routing;
use causeway_proto::routing::v1::edge_event::Event as FromEdge;
use causeway_proto::routing::v1::routing_event::Event as ToEdge;
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{EndReason, Fate, FromClient, FromServer};

use super::client::Client;
use super::rig::{Rig, Routing, soon};
use super::sessions::{delivery, message_to, outcome};

const ADA: &str = "ada@birdy.example";

fn others<'a>(rig: &'a Rig, not: &Arc<Routing>) -> Vec<&'a Arc<Routing>> {
    rig.replicas.iter().filter(|replica| replica.name != not.name).collect()
}

/// An address that `owner` is responsible for.
fn address_at(rig: &Rig, owner: &Arc<Routing>) -> String {
    let addresses = (0..100).map(|n| format!("user{n}@home.example"));
    addresses.into_iter().find(|address| Rig::owner(&rig.replicas, address).name == owner.name).unwrap()
}

async fn ping(client: &mut Client) {
    client.send(FromClient::Ping(1)).await;
    assert_eq!(client.next().await, Some(FromServer::Pong(1)));
}

async fn delivered(client: &mut Client) -> u64 {
    match client.next().await {
        Some(FromServer::Message(delivery)) => delivery.tag,
        other => panic!("{other:?}"),
    }
}

async fn acked(client: &mut Client) -> (u8, Fate) {
    match client.next().await {
        Some(FromServer::Ack(outcome)) => (outcome.id.as_bytes()[0], outcome.fate),
        other => panic!("{other:?}"),
    }
}

/// The attach that must be next, and whether it is one that only submits.
async fn introduced(replica: &Routing) -> SessionId {
    let (id, attach) = replica.attached().await;
    assert!(attach.submits_only);
    id
}

#[tokio::test]
async fn a_session_is_where_its_address_is_and_writes_to_where_others_are() {
    let rig = Rig::with_replicas(3, |_| {}).await;
    let mut ada = Client::ada(&rig).await;
    let home = Rig::owner(&rig.replicas, ADA);
    let (session, attach) = home.attached().await;
    assert!(!attach.submits_only && attach.number == 0);
    for replica in &rig.replicas {
        let to = address_at(&rig, replica);
        ada.send(message_to(1, &to)).await;
        ada.send(message_to(2, &to)).await;
        let at = if replica.name == home.name { session } else { introduced(replica).await };
        assert_eq!((replica.submitted().await, replica.submitted().await), ((at, 1), (at, 2)));
        replica.say(at, outcome(1, &to, pb::Status::Stored)).await;
        replica.say(at, outcome(2, &to, pb::Status::Delivered)).await;
        assert_eq!(acked(&mut ada).await, (1, Fate::Stored));
        assert_eq!(acked(&mut ada).await, (2, Fate::Delivered));
    }
    drop(ada);
    for replica in &rig.replicas {
        replica.detached().await;
        assert!(replica.is_quiet());
    }
    rig.stop().await;
}

#[tokio::test]
async fn of_a_lost_replica_the_client_sees_a_pause() {
    let rig = Rig::with_replicas(3, |_| {}).await;
    let mut ada = Client::ada(&rig).await;
    let home = Rig::owner(&rig.replicas, ADA);
    let (session, _) = home.attached().await;
    let to = address_at(&rig, home);
    home.say(session, delivery(1, 10)).await;
    home.say(session, delivery(2, 10)).await;
    assert_eq!((delivered(&mut ada).await, delivered(&mut ada).await), (1, 2));
    ada.send(FromClient::Ack(1)).await;
    assert_eq!(home.next().await, (session, FromEdge::Processed(1)));
    for id in 1..=3 {
        ada.send(message_to(id, &to)).await;
        assert_eq!(home.submitted().await, (session, id));
    }
    home.say(session, outcome(1, &to, pb::Status::Stored)).await;
    assert_eq!(acked(&mut ada).await.0, 1);
    home.die();

    let left = others(&rig, home);
    let (next, owner) = (Rig::owner(left.iter().copied(), ADA), Rig::owner(left.iter().copied(), &to));
    let (attached, attach) = next.attached().await;
    assert_eq!((attach.submits_only, attach.number), (false, 1));
    let writing = if owner.name == next.name { attached } else { introduced(owner).await };
    assert_eq!((owner.submitted().await, owner.submitted().await), ((writing, 2), (writing, 3)));
    ada.send(message_to(4, &to)).await;
    assert_eq!(owner.submitted().await, (writing, 4));
    // The next owner delivers again what the one before had not written; the client acknowledges both.
    next.say(attached, delivery(1, 10)).await;
    assert_eq!(delivered(&mut ada).await, 3);
    ada.send(FromClient::Ack(2)).await;
    ada.send(FromClient::Ack(3)).await;
    assert_eq!(next.next().await, (attached, FromEdge::Processed(1)));
    for id in 2..=4 {
        owner.say(writing, outcome(id, &to, pb::Status::Stored)).await;
        assert_eq!(acked(&mut ada).await, (id, Fate::Stored));
    }
    // Nor does it see that the replica is back.
    home.down.store(false, Ordering::SeqCst);
    soon(rig.links.wait_for_links(3)).await;
    ping(&mut ada).await;
    ada.send(message_to(5, &to)).await;
    let back = introduced(home).await;
    assert_eq!(home.submitted().await, (back, 5));
    rig.stop().await;
}

#[tokio::test]
async fn a_session_follows_its_mailbox() {
    let rig = Rig::with_replicas(2, |_| {}).await;
    let mut ada = Client::ada(&rig).await;
    let home = Rig::owner(&rig.replicas, ADA);
    let (session, _) = home.attached().await;
    home.say(session, delivery(1, 10)).await;
    home.say(session, ToEdge::Moved(routing::Moved {})).await;
    assert_eq!(delivered(&mut ada).await, 1);
    let (again, attach) = home.attached().await;
    assert!(again != session && attach.number == 1, "here as well another attachment");
    home.say(session, delivery(2, 10)).await;
    home.say(again, delivery(1, 10)).await;
    assert_eq!(delivered(&mut ada).await, 2, "what the first still says counts for nothing");
    let replaced = pb::End { reason: pb::EndReason::Replaced.into(), retry_after_ms: 0 };
    home.say(again, ToEdge::End(replaced)).await;
    assert_eq!(ada.ended().await.reason, EndReason::Replaced);
    rig.stop().await;
}

#[tokio::test]
async fn a_replica_that_drains_is_left_in_peace() {
    let rig = Rig::with_replicas(2, |_| {}).await;
    let mut ada = Client::ada(&rig).await;
    let home = Rig::owner(&rig.replicas, ADA);
    let next = others(&rig, home)[0];
    let (session, _) = home.attached().await;
    let to = address_at(&rig, home);
    ada.send(message_to(1, &to)).await;
    assert_eq!(home.submitted().await, (session, 1));
    home.say_draining().await;
    // Until the edge has heard of it, a message may still go there.
    home.say(session, delivery(1, 10)).await;
    assert_eq!(delivered(&mut ada).await, 1);
    ada.send(message_to(2, &to)).await;
    ping(&mut ada).await;
    assert!(home.is_quiet() && next.is_quiet(), "the second waits for the first");
    home.say(session, outcome(1, &to, pb::Status::Stored)).await;
    assert_eq!(acked(&mut ada).await.0, 1);
    let writing = introduced(next).await;
    assert_eq!(next.submitted().await, (writing, 2));
    let _second = Client::ada(&rig).await;
    assert!(!next.attached().await.1.submits_only, "who logs in now goes elsewhere");
    home.die();
    assert_eq!(next.attached().await.1.number, 1);
    ping(&mut ada).await;
    rig.stop().await;
}

#[tokio::test]
async fn without_routing_sessions_end_after_a_grace_and_may_come_back() {
    let rig = Rig::with(|config| config.routing_grace_ms = 300).await;
    let mut ada = Client::ada(&rig).await;
    rig.routing.attached().await;
    rig.routing.break_link();
    rig.routing.attached().await;
    ping(&mut ada).await;
    rig.routing.die();
    let end = ada.ended().await;
    assert_eq!(end.reason, EndReason::Overloaded);
    assert!((100..=200).contains(&end.retry_after_ms));
    rig.routing.down.store(false, Ordering::SeqCst);
    let mut ada = Client::ada(&rig).await;
    rig.routing.attached().await;
    ping(&mut ada).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_login_goes_on_elsewhere_when_its_replica_is_lost() {
    let rig = Rig::with_replicas(2, |_| {}).await;
    let home = Rig::owner(&rig.replicas, ADA);
    home.attaches.store(false, Ordering::SeqCst);
    let logging_in = Client::ada(&rig);
    let losing = async {
        home.attached().await;
        home.die();
    };
    let (mut ada, ()) = tokio::join!(logging_in, losing);
    let (_, attach) = others(&rig, home)[0].attached().await;
    assert_eq!((attach.submits_only, attach.number), (false, 0));
    ping(&mut ada).await;
    rig.stop().await;
}

#[tokio::test]
async fn who_has_much_without_an_outcome_is_not_read() {
    let rig = Rig::with(|config| config.pending_messages = 5).await;
    let mut ada = Client::ada(&rig).await;
    let (session, _) = rig.routing.attached().await;
    // More than fits into one read of the edge's, so that it sees the bound in between.
    let sent = 200_u8;
    let mut wire = Vec::new();
    for id in 0..sent {
        wire.extend_from_slice(&ada.seal(message_to(id, "bo@home.example")));
    }
    tokio::io::AsyncWriteExt::write_all(&mut ada.io, &wire).await.unwrap();
    let at_once = 16 * 1024 / (wire.len() / usize::from(sent)) + 1 + 5;
    let (mut came, mut answered) = (0_u8, 0_u8);
    while answered < sent {
        // What has come and is not answered is within the bound, however fast the client is.
        while came == answered || !rig.routing.is_quiet() {
            assert_eq!(rig.routing.submitted().await, (session, came));
            came += 1;
        }
        assert!(usize::from(came - answered) <= at_once, "{came} {answered} {at_once}");
        rig.routing.say(session, outcome(answered, "bo@home.example", pb::Status::Stored)).await;
        assert_eq!(acked(&mut ada).await.0, answered);
        answered += 1;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_over_for_routing_at_once_when_it_is_replaced() {
    let rig = Rig::with_replicas(2, |_| {}).await;
    let mut idle = Client::ada(&rig).await;
    let home = Rig::owner(&rig.replicas, ADA);
    let other = others(&rig, home)[0];
    let (session, _) = home.attached().await;
    let to = address_at(&rig, other);
    idle.send(message_to(1, &to)).await;
    let writing = introduced(other).await;
    other.submitted().await;
    // More than sockets and outbox take.
    for tag in 1..=60 {
        home.say(session, delivery(tag, 60_000)).await;
    }
    let replaced = pb::End { reason: pb::EndReason::Replaced.into(), retry_after_ms: 0 };
    home.say(session, ToEdge::End(replaced)).await;
    assert_eq!(home.detached().await, session);
    assert_eq!(other.detached().await, writing, "nor does it write any more");
    // And it is closed, although there is more for it than it ever reads.
    let started = tokio::time::Instant::now();
    while idle.next().await.is_some() {}
    assert!(started.elapsed() < std::time::Duration::from_secs(8), "{:?}", started.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn each_attachment_tells_which_login_it_is_of_and_which_attachment_of_it() {
    let rig = Rig::with_replicas(3, |_| {}).await;
    let _ada = Client::ada(&rig).await;
    let home = Rig::owner(&rig.replicas, ADA);
    let (session, first) = home.attached().await;
    let first = first.login.expect("the edge knows the order");
    home.say(session, ToEdge::Moved(routing::Moved {})).await;
    let second = home.attached().await.1.login.expect("the edge knows the order");
    assert_eq!((second.source, second.number), (first.source, first.number));
    assert!(second.attachment > first.attachment);
    let _again = Client::ada(&rig).await;
    let later = home.attached().await.1.login.expect("the edge knows the order");
    assert!(later.source == first.source && later.number > first.number);
    rig.stop().await;
}
