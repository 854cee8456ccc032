//! Enlists a user, opts in, says hello to somebody and shows what is said back.
//!
//! `make run` prints the values for a deployment on this machine:
//!
//! ```text
//! cargo run -p causeway-client --example first_message -- \
//!     <server> <deployment> <root key> <token url> <own address> <peer's address> <store file> [text]
//! ```
//!
//! The store file holds the device: run it twice with the same file, and the second run is the same device. The token URL
//! is the sandbox provider's; a real provider issues tokens to its own logged-in users in its own way.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use causeway_client::{Address, Client, ClientConfig, Content, EventKind, ProviderTokens, SqliteStore};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example talks to its reader")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [server, deployment, root, token_url, own, peer, file, text @ ..] = arguments.as_slice() else {
        return Err(anyhow!("usage: <server> <deployment> <root key> <token url> <own> <peer> <store file> [text]"));
    };
    let own: Address = own.parse().context("own address")?;
    let peer: Address = peer.parse().context("peer's address")?;

    // Who the server must be, and where this device's keys and messages live.
    let root = root.parse().context("root key")?;
    let config = ClientConfig::new(own.clone(), server.parse()?, deployment, vec![root]);
    let store = Arc::new(SqliteStore::open(file).await?);

    // How this user's provider vouches for the device. A real provider has a `TokenSource` of its own, which also knows that it
    // is the user who asks.
    let tokens = ProviderTokens::new(token_url, own.local())?;

    let (client, mut events) = Client::open(config, store, Arc::new(tokens)).await?;
    let device = client.enlist().await.context("enlist")?;
    client.opt_in().await.context("opt in")?;
    println!("this is {device}");

    if let [text, ..] = text {
        let outcome = client.send_and_wait(&peer, Content::text(text)).await?;
        println!("{:?} after {:?}", outcome.result, outcome.latency);
    }
    while let Some(event) = events.next().await {
        match &event.kind {
            EventKind::Message(message) => match message.content.as_text() {
                Some(text) => println!("{}: {text}", message.from),
                None => println!("{} sent {:?}", message.from, message.content.body),
            },
            EventKind::Disconnected(down) => println!("disconnected: {:?}", down.reason),
            EventKind::Ended(ended) => println!("ended: {ended:?}"),
            _ => {}
        }
        event.done().await?;
    }
    Ok(())
}
