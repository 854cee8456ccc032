//! docs/protocol.md is true: its examples are stanzas, its bytes are what the code makes of them, its lists are complete,
//! and its appendices are the tables and the .proto. `CAUSEWAY_GOLDEN=write` writes the appendices anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use causeway_identity::{NoiseKey, RootKey, ServerCertificate, Validity};

use super::samples;
use crate::shape::{Field, Form, Shape, Times, Value};
use crate::{
    ClientHello, EncType, Encoding, EndReason, ErrorCode, FailureReason, FromClient, Inbox, InboxSetting, MessageClass,
    ProviderKind, Reach, Rejection, ServerHello, Status, decode_client, decode_server, encode_client, shapes,
};

fn path(relative: &str) -> String {
    format!("{}/../../{relative}", env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(path("docs/protocol.md")).expect("docs/protocol.md is there")
}

/// The insides of the blocks that begin with ```` ```info ````.
fn blocks(info: &str) -> Vec<String> {
    let fence = format!("```{info}\n");
    document().split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The one block of hex with this name.
fn bytes(name: &str) -> Vec<u8> {
    let found = blocks(&format!("hex {name}"));
    assert_eq!(found.len(), 1, "{name}");
    hex::decode(found[0].split_whitespace().collect::<String>()).expect("hex")
}

#[test]
fn every_example_is_a_stanza_and_every_stanza_has_an_example() {
    let mut from_clients = Vec::new();
    let mut from_servers = Vec::new();
    for example in blocks("xml") {
        let client = decode_client(Encoding::Xml, example.as_bytes());
        let server = decode_server(Encoding::Xml, example.as_bytes());
        assert!(client.is_ok() || server.is_ok(), "{example}\n{client:?}\n{server:?}");
        from_clients.extend(client.ok());
        from_servers.extend(server.ok());
    }
    for (name, sample) in samples::client() {
        assert!(from_clients.contains(&sample), "docs/protocol.md lacks the client's {name}");
    }
    for (name, sample) in samples::server() {
        assert!(from_servers.contains(&sample), "docs/protocol.md lacks the server's {name}");
    }
}

#[test]
fn the_bytes_of_the_worked_example_are_those_of_the_code() {
    let root = RootKey::from_seed([1; 32]);
    let text = document();
    assert!(text.contains(&hex::encode(root.public().as_bytes())), "the root's public key");
    assert!(text.contains(&hex::encode(root.public().id())), "the root's id");
    let static_key = hex::decode("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59").unwrap();
    let static_key = NoiseKey::try_from(&static_key[..]).unwrap();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let validity = Validity { not_before: at(1_790_000_000), not_after: at(1_800_000_000) };
    let issued = ServerCertificate::issue(&root, "home.example", &static_key, validity).unwrap().to_proto();
    assert_eq!(issued.body, bytes("certificate-body"));
    assert_eq!(issued.signature, bytes("certificate-signature"));

    let hello = ServerHello::decode(&bytes("server-hello")).unwrap();
    assert_eq!(hello.certificate, issued);
    assert_eq!((hello.server_time_ms, hello.limits.max_stanza_bytes), (1_795_310_000_000, 262_144));
    assert_eq!(hello.limits.ping_interval_ms, 30_000);
    assert_eq!(hello.encode(), bytes("server-hello"));

    let hello = ClientHello::decode(&bytes("client-hello")).unwrap();
    assert_eq!((hello.token.as_str(), hello.device.map(|device| device.get())), ("header.payload.signature", Some(7)));
    assert_eq!((hello.encoding, hello.agent.as_str()), (Encoding::Xml, "example/1"));
    assert_eq!(hello.encode(), bytes("client-hello"));

    let ping = encode_client(Encoding::Xml, FromClient::Ping(3));
    assert_eq!([&[u8::try_from(ping.len()).unwrap()], &ping[..]].concat(), bytes("ping-record"));
    let ping = encode_client(Encoding::Binary, FromClient::Ping(3));
    assert_eq!(ping, [0x22, 2, 8, 3]);
    let key_id = "Xf7dO2vUf2-ijuFdlp1bsOpTd01Ii9r53xxuASSz7yI";
    assert!(text.contains(key_id), "the token of section 4 is bound to the client of section 12");
}

#[test]
fn the_webhook_of_the_example_is_signed_as_the_text_says() {
    let examples = blocks("http");
    assert_eq!(examples.len(), 1);
    let (head, body) = examples[0].split_once("\n\n").unwrap();
    let header = |name| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
    let text = document();
    let (_, secret) = text.split_once("`whsec_M").expect("the secret of the example");
    let secret = format!("M{}", secret.split('`').next().unwrap());
    let signed = standardwebhooks::Webhook::new(&secret)
        .and_then(|key| {
            key.sign(header("webhook-id"), header("webhook-timestamp").parse().unwrap(), body.trim().as_bytes())
        })
        .unwrap();
    assert_eq!(signed, header("webhook-signature"));
}

#[test]
fn every_value_of_every_list_is_in_the_text() {
    let text = document();
    let prose = text.split("<!-- begin xml -->").next().unwrap_or_default();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    names.extend(FailureReason::ALL.iter().map(|value| value.as_str()));
    names.extend(EndReason::ALL.iter().map(|value| value.as_str()));
    names.extend(ErrorCode::ALL.iter().map(|value| value.as_str()));
    names.extend(Rejection::ALL.iter().map(|value| value.as_str()));
    names.extend(Status::ALL.iter().map(|value| value.as_str()));
    names.extend(MessageClass::ALL.iter().map(|value| value.as_str()));
    names.extend(EncType::ALL.iter().map(|value| value.as_str()));
    names.extend(ProviderKind::ALL.iter().map(|value| value.as_str()));
    names.extend(Inbox::ALL.iter().map(|value| value.as_str()));
    names.extend(InboxSetting::ALL.iter().map(|value| value.as_str()));
    names.extend(Reach::ALL.iter().map(|value| value.as_str()));
    for name in names {
        assert!(prose.contains(&format!("`{name}`")), "docs/protocol.md does not explain `{name}`");
    }
}

#[test]
fn the_appendices_are_the_tables_and_the_proto() {
    check("xml", &xml_reference());
    let mut protos = String::new();
    for name in ["wire/v1/handshake", "wire/v1/stanza", "content/v1/content"] {
        let proto = fs::read_to_string(path(&format!("proto/causeway/{name}.proto"))).expect("the .proto is there");
        let _ = write!(protos, "\n`causeway/{name}.proto`:\n\n```protobuf\n{proto}```\n");
    }
    check("proto", &protos);
}

/// Compares what is between two marks, or writes it.
fn check(name: &str, expected: &str) {
    let text = document();
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let (before, rest) = text.split_once(&begin).expect("the begin mark");
    let (found, after) = rest.split_once(&end).expect("the end mark");
    if std::env::var_os("CAUSEWAY_GOLDEN").is_some_and(|value| value == "write") {
        let written = format!("{before}{begin}{expected}\n{end}{after}");
        fs::write(path("docs/protocol.md"), written).expect("write docs/protocol.md");
        return;
    }
    assert!(
        found.trim() == expected.trim(),
        "appendix {name} of docs/protocol.md is out of date; CAUSEWAY_GOLDEN=write cargo test -p causeway-stanza appendices mends it"
    );
}

fn xml_reference() -> String {
    let mut out = String::new();
    let mut done = BTreeSet::new();
    let mut todo = Vec::new();
    for (title, root) in [("From clients", &shapes::CLIENT), ("From servers", &shapes::SERVER)] {
        let _ =
            write!(out, "\n**{title}**\n\n| element | protobuf message | attributes | content |\n|---|---|---|---|\n");
        todo.extend(root.fields.iter().rev());
        while let Some(field) = todo.pop() {
            if let Form::Element(shape) = field.form
                && done.insert((field.xml, shape.message))
            {
                row(&mut out, field.xml, shape);
                todo.extend(shape.fields.iter().rev());
            }
        }
    }
    out
}

fn row(out: &mut String, xml: &str, shape: &Shape) {
    let _ = writeln!(
        out,
        "| `{xml}` | `{}` | {} | {} |",
        shape.message,
        attributes(shape.fields, shape.fields.iter().any(|field| field.verb.is_some())),
        content(shape)
    );
}

fn attributes(fields: &[Field], verb: bool) -> String {
    let mut all: Vec<String> = Vec::new();
    for field in fields {
        if let Form::Attribute(value) = field.form {
            let maybe = if field.times == Times::Maybe { "?" } else { "" };
            all.push(format!("`{}`{maybe} {}", field.xml, kind(value)));
        }
    }
    if verb {
        all.push("`type` as in the next column".to_owned());
    }
    all.join("<br>")
}

fn kind(value: Value) -> String {
    match value {
        Value::U32 | Value::U64 => "number".to_owned(),
        Value::Bool => "truth value".to_owned(),
        Value::Text => "text".to_owned(),
        Value::Id => "id".to_owned(),
        Value::Bytes => "base64".to_owned(),
        Value::Name(names) => names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" · "),
    }
}

fn content(shape: &Shape) -> String {
    let mut all: Vec<String> = Vec::new();
    for field in shape.fields {
        let times = match field.times {
            Times::Once => String::new(),
            Times::Maybe => "?".to_owned(),
            Times::UpTo(most) => format!(" {most}×"),
        };
        match field.form {
            Form::Attribute(_) => {}
            Form::Content => all.push(format!("{} in base64", field.name.replace('_', " "))),
            Form::Bytes => all.push(format!("`{}`{times} with base64", field.xml)),
            Form::Element(_) if field.verb.is_some() => {
                all.push(format!("`{}` ({})", field.xml, field.verb.unwrap_or_default()));
            }
            Form::Element(_) if shape.choice => all.push(format!("`{}`", field.xml)),
            Form::Element(_) => all.push(format!("`{}`{times}", field.xml)),
            Form::Items(attribute, value) => {
                all.push(format!("`{}`{times} with `{attribute}` {}", field.xml, kind(value)));
            }
            Form::Fold(inner) => {
                all.push(format!(
                    "`{}` with {}, and as its content ciphertext in base64",
                    field.xml,
                    attributes(inner, false)
                ));
            }
        }
    }
    let text = all.join("<br>");
    if shape.choice { format!("one of<br>{text}") } else { text }
}
