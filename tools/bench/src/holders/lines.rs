//! What the two processes say to each other: lines, each of which is a JSON object.
//!
//! To the one that holds: first [`Orders`], then one [`Client`] for each that they count, then nothing until the end. From it:
//! [`Said`], several times a second.

use std::io::{BufRead, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use causeway_identity::RootPublicKey;
use causeway_noise::StaticKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::wire::causeway::{Login, Net};

/// Bytes of a line at most.
const LINE: u64 = 64 * 1024;
/// Clients of one process at most.
const CLIENTS: usize = 500_000;

/// What all clients know, and how many there are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Orders {
    deployment: String,
    root: String,
    clients: usize,
}

/// What one client logs in with.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    edge: SocketAddr,
    /// The private key, in hex.
    key: String,
    /// The `ClientHello`, in hex.
    hello: String,
}

/// How far a process is that holds sessions.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    /// Sessions that have opened.
    pub(super) opened: u64,
    /// These are all.
    pub(super) all: bool,
    /// Why it gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

/// The lines for a process that is to hold these clients.
pub(crate) fn orders(net: &Net, logins: &[Login]) -> anyhow::Result<Vec<String>> {
    let (name, root) = net.pinned();
    let first = Orders { deployment: name.to_owned(), root: root.to_string(), clients: logins.len() };
    let clients = logins.iter().map(|login| {
        let key = hex::encode(*login.key.to_bytes());
        Ok(serde_json::to_string(&Client { edge: login.edge, key, hello: hex::encode(&login.hello) })?)
    });
    std::iter::once(Ok(serde_json::to_string(&first)?)).chain(clients).collect()
}

/// Reads such lines.
pub(super) fn read(input: &mut impl BufRead) -> anyhow::Result<(Net, Vec<Login>)> {
    let orders: Orders = line(input)?.context("no orders")?;
    ensure!((1..=CLIENTS).contains(&orders.clients), "{} clients", orders.clients);
    let root: RootPublicKey = orders.root.parse().context("the root")?;
    let mut logins = Vec::with_capacity(orders.clients);
    for _ in 0..orders.clients {
        let client: Client = line(input)?.context("there are fewer clients than were told")?;
        let mut key = [0; 32];
        hex::decode_to_slice(&client.key, &mut key).ok().context("a key")?;
        let hello = hex::decode(&client.hello).ok().context("a hello")?;
        logins.push(Login { edge: client.edge, key: Arc::new(StaticKey::from_bytes(key)), hello: hello.into() });
    }
    Ok((Net::new(&orders.deployment, root), logins))
}

/// Reads the next line; `None` at the end.
pub(super) fn line<T: DeserializeOwned>(input: &mut impl BufRead) -> anyhow::Result<Option<T>> {
    let mut text = Vec::new();
    input.by_ref().take(LINE).read_until(b'\n', &mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    ensure!(text.ends_with(b"\n"), "a line that does not end");
    // What it says may be a secret; what is wrong with it is none.
    serde_json::from_slice(&text).map(Some).map_err(|error| anyhow::anyhow!("a line: {:?}", error.classify()))
}

#[cfg(test)]
mod tests {
    use causeway_identity::RootKey;

    use super::*;

    fn text(lines: &[String]) -> Vec<u8> {
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
    }

    fn two() -> Vec<String> {
        let root = RootKey::from_seed([9; 32]).public();
        let logins = [(1, [7; 32]), (2, [8; 32])].map(|(port, key)| Login {
            edge: SocketAddr::from(([127, 0, 0, 1], port)),
            key: Arc::new(StaticKey::from_bytes(key)),
            hello: Arc::from(&key[..3]),
        });
        orders(&Net::new("bench", root), &logins).unwrap()
    }

    #[test]
    fn clients_come_as_they_were_given() {
        let lines = two();
        assert_eq!(lines[1], format!(r#"{{"edge":"127.0.0.1:1","key":"{}","hello":"070707"}}"#, "07".repeat(32)));
        let text = text(&lines);
        let mut input = &text[..];
        let (net, logins) = read(&mut input).unwrap();
        assert!(input.is_empty());
        assert_eq!(orders(&net, &logins).unwrap(), lines);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let lines = two();
        let refused = |lines: &[String]| read(&mut &text(lines)[..]).is_err();
        assert!(!refused(&lines) && refused(&lines[..2]) && refused(&lines[1..]) && refused(&[]));
        let whole = text(&lines);
        assert!(read(&mut &whole[..whole.len() - 1]).is_err());
        for (from, to) in [("0707", "07"), ("0707", "zz"), ("\"clients\":2", "\"clients\":0"), ("edge", "edges")] {
            let other: Vec<_> = lines.iter().map(|line| line.replacen(from, to, 1)).collect();
            assert!(refused(&other), "{from}");
        }
        let long = [lines[0].clone(), lines[1].replace("070707", &"07".repeat(40_000)), lines[2].clone()];
        assert!(refused(&long));
    }

    #[test]
    fn how_far_it_is() {
        let said = |text: &str| line::<Said>(&mut text.as_bytes()).ok().flatten();
        let some = Said { opened: 12, all: true, failed: None };
        assert_eq!(serde_json::to_string(&some).unwrap(), r#"{"opened":12,"all":true}"#);
        assert_eq!(said("{\"opened\":12,\"all\":true}\n"), Some(some));
        let failed = Some("why".to_owned());
        let given_up = Said { failed, ..Said::default() };
        assert_eq!(said(&(serde_json::to_string(&given_up).unwrap() + "\n")), Some(given_up));
        assert_eq!(["", "{}\n", "12\n", "{\"opened\":12,\"all\":true}"].map(said), [const { None }; 4]);
    }
}
