//! How fast it is; run by hand: `cargo nextest run --run-ignored only -p causeway-routing throughput --no-capture`.

use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::{AccountId, MessageId};
use causeway_test_servers::{Options, Postgres as Server};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{config, open_with};
use crate::mailbox::suite::{LONG, ONE, enc, header};
use crate::mailbox::{Bounds, Chain, Mailbox, Put, Replica};

const PUTS: u64 = 200_000;
const ACCOUNTS: u64 = 8_000;
const UNDER_WAY: usize = 8_192;

fn account(n: u64) -> AccountId {
    AccountId::from_bytes((u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let server = Server::start_with(Options { durable: true, ..Options::default() }).unwrap();
    for writers in [1, 2, 4, 8] {
        let mut config = config(server.create_database().unwrap());
        config.writers = writers;
        config.write_timeout_ms = 60_000;
        let mailbox = open_with(&config, Bounds { messages: 10_000, bytes: 1 << 30 }).await;
        mailbox.renew(&Replica { id: ONE, url: String::new() }, LONG).await.unwrap();
        let started = Instant::now();
        let claims: Vec<_> = (0..ACCOUNTS).map(|n| mailbox.claim(ONE, account(n))).collect();
        for claim in claims {
            claim.await.unwrap();
        }
        let claiming = started.elapsed();
        let content = Bytes::from(vec![7; 400]);
        let put = |n: u64| {
            let mut header = header(n + 1, 9, 1);
            header.key.id = MessageId::from_bytes(u128::from(n).to_be_bytes());
            let mut part = enc(1, 101, b"");
            part.ciphertext = content.clone();
            Put { account: account(n % ACCOUNTS), chain: Chain::default(), header: Arc::new(header), parts: vec![part] }
        };
        let (started, before) = (Instant::now(), mailbox.commits());
        let mut under_way = FuturesUnordered::new();
        for n in 0..PUTS {
            if under_way.len() >= UNDER_WAY {
                let stored: Result<_, _> = under_way.next().await.unwrap();
                stored.unwrap();
            }
            under_way.push(mailbox.put(ONE, put(n)));
        }
        while let Some(stored) = under_way.next().await {
            stored.unwrap();
        }
        let (took, commits) = (started.elapsed(), mailbox.commits() - before);
        println!(
            "{writers} writers: {ACCOUNTS} claims in {claiming:?}; {PUTS} puts in {took:?}, {:.0} a second, {commits} commits",
            PUTS as f64 / took.as_secs_f64()
        );
        mailbox.close().await;
    }
}
