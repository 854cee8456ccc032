//! The examples of docs/protocol.md are true.

use super::samples;
use crate::{Encoding, decode_client, decode_server};

/// The blocks between ```` ```xml ```` and ```` ``` ````.
fn blocks() -> Vec<String> {
    let path = format!("{}/../../docs/protocol.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect(&path);
    text.split("```xml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_example_is_a_stanza_and_every_stanza_has_an_example() {
    let mut from_clients = Vec::new();
    let mut from_servers = Vec::new();
    for block in blocks() {
        // A block may hold several stanzas, an empty line between them.
        for example in block.split("\n\n").filter(|text| !text.trim().is_empty()) {
            let client = decode_client(Encoding::Xml, example.as_bytes());
            let server = decode_server(Encoding::Xml, example.as_bytes());
            assert!(client.is_ok() || server.is_ok(), "{example}\n{client:?}\n{server:?}");
            from_clients.extend(client.ok());
            from_servers.extend(server.ok());
        }
    }
    for (name, sample) in samples::client() {
        assert!(from_clients.contains(&sample), "docs/protocol.md lacks the client's {name}");
    }
    for (name, sample) in samples::server() {
        assert!(from_servers.contains(&sample), "docs/protocol.md lacks the server's {name}");
    }
}
