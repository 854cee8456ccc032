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

/// What section 11 says of a default, and the line of the service's settings that makes it so.
const DEFAULTS: &[(&str, &str, &[&str])] = &[
    ("edge", "to the end of the handshake | 10 s", &["handshake_timeout_ms: 10_000"]),
    ("edge", "to the first record | 5 s", &["proof_timeout_ms: 5_000"]),
    ("edge", "to `success` | 10 s", &["login_timeout_ms: 10_000"]),
    ("edge", "to `enlisted`, without a device | 120 s", &["enlist_timeout_ms: 120_000"]),
    ("edge", "ping interval | 30 s", &["ping_interval_ms: 30_000"]),
    ("edge", "last byte of a record | 30 s", &["record_timeout_ms: 30_000"]),
    ("edge", "what is written to it | 20 s", &["write_timeout_ms: 20_000"]),
    ("edge", "outlives its token | 290 s", &["token_grace_ms: 290_000"]),
    ("edge", "200 a second, 1000 at once", &["stanzas_per_s: 200,", "stanza_burst: 1_000"]),
    ("edge", "2 MiB a second, 8 MiB at once", &["bytes_per_s: 2 * 1024 * 1024", "bytes_burst: 8 * 1024 * 1024"]),
    (
        "edge",
        "64; 1 MiB of them; 16 are carried out at a time",
        &["open_requests: 64", "open_request_bytes: 1024 * 1024", "concurrent_requests: 16"],
    ),
    (
        "edge",
        "| connections; of these, from one IPv4 /24 or IPv6 /64 | 20000; 2000 |",
        &["max_connections: 20_000", "max_connections_per_network: 2_000"],
    ),
    ("edge", "IPv6 /64 | 4096; 256 |", &["max_half_open: 4_096", "max_half_open_per_network: 256"]),
    (
        "edge",
        "one provider's, one user's | 4096; 2048, 4 |",
        &["max_newcomers: 4_096", "max_newcomers_per_provider: 2_048", "max_newcomers_per_user: 4"],
    ),
    ("edge", "| 500000; 250000 |", &["replay_tokens: 500_000", "replay_tokens_per_provider: 250_000"]),
    ("edge", "2048 events; 4 MiB", &["queue_messages: 2_048", "queue_bytes: 4 * 1024 * 1024"]),
    ("edge", "1 to 2 s; 0 to 5 s, at random; 1 s", &["overload_retry_ms: 1_000", "drain_window_ms: 5_000"]),
    ("routing", "before a message is written | 25 ms", &["ack_window_ms: 25"]),
    ("routing", "under way to a device | 256; 1 MiB", &["session_messages: 256", "session_bytes: 1024 * 1024"]),
    ("routing", "in sum | 262144 bytes", &["max_message_bytes: 256 * 1024"]),
    ("routing", "50 a second, 200 at once", &["account_per_s: 50", "account_burst: 200"]),
    ("routing", "2000 a second, 4000 at once", &["provider_per_s: 2_000", "provider_burst: 4_000"]),
    ("routing", "about one recipient | 512", &["recipient_queue: 512", "retry_ms: 1_000"]),
    ("routing", "256 MiB; 200000", &["memory_bytes: 256 * 1024 * 1024", "max_recipients: 200_000"]),
    ("routing", "its answer `not-available` | 20 ms", &["refusal_delay_ms: 20,"]),
    ("routing", "200 at once, then 200 an hour", &["account_refusal_burst: 200,", "account_refusals_per_hour: 200,"]),
    (
        "routing",
        "5000 at once, then 5000 an hour",
        &["provider_refusal_burst: 5_000,", "provider_refusals_per_hour: 5_000,"],
    ),
    ("routing", "10000 messages; 64 MiB", &["mailbox_messages: 10_000", "mailbox_bytes: 64 * 1024 * 1024"]),
    ("routing", "`rate-limited`, 60 s", &["mailbox_full_retry_ms: 60_000"]),
    ("routing", "30 days; 60 s", &["chat_expiry_ms: 30 * DAY_MS", "call_expiry_ms: 60_000"]),
    ("routing", "one in 30 s", &["push_interval_ms: 30_000"]),
    ("routing", "for 3 days", &["push_give_up_ms: 3 * DAY_MS"]),
    ("key-directory", "fewer than 10 |", &["prekeys_low: 10,"]),
    ("key-directory", "| 16, then one in 5 min |", &["claim_burst: 16", "claim_interval_ms: 5 * 60 * 1_000"]),
    (
        "key-directory",
        "| 60, then one in 3 min |",
        &["claim_provider_burst: 60", "claim_provider_interval_ms: 3 * 60 * 1_000"],
    ),
    (
        "key-directory",
        "| 200, then one in 30 s |",
        &["claim_target_burst: 200", "claim_target_interval_ms: 30 * 1_000"],
    ),
    ("key-directory", "| 20, then one in 10 s |", &["publish_burst: 20", "publish_interval_ms: 10 * 1_000"]),
    ("key-directory", "| 20, then one a second |", &["settings_burst: 20,", "settings_interval_ms: 1_000,"]),
    (
        "key-directory",
        "| 1000, then 50 a second |",
        &["settings_provider_burst: 1_000,", "settings_provider_interval_ms: 20,"],
    ),
    ("key-directory", "| 6, then one in 20 s |", &["enlist_burst: 6", "enlist_interval_ms: 20 * 1_000"]),
    (
        "key-directory",
        "| 600, then 10 a second |",
        &["enlist_provider_burst: 600", "enlist_provider_interval_ms: 100,"],
    ),
    ("media-relay", "media ciphertext | 100 MiB", &["max_blob_bytes: 100 * 1024 * 1024"]),
    ("media-relay", "in a day | 2 GiB", &["daily_upload_bytes: 2 * 1024 * 1024 * 1024"]),
    ("media-relay", "10 min; 64 uses", &["ticket_ttl_s: 600", "max_ticket_uses: 64"]),
    ("media-relay", "| 60, then one a second |", &["ticket_burst: 60", "tickets_per_minute: 60"]),
    (
        "media-relay",
        "transfers at a time; of one account | 256; 8",
        &["max_transfers: 256", "max_transfers_per_account: 8"],
    ),
    ("media-relay", "| 1 KiB a second over 30 s |", &["min_bytes_per_s: 1_024"]),
    ("media-relay", "| 15 s; 15 min |", &["idle_timeout_ms: 15_000", "transfer_timeout_ms: 900_000"]),
    ("media-relay", "are kept | 35 days", &["retention_days: 35"]),
];

#[test]
fn the_defaults_of_the_text_are_those_of_the_services() {
    let text = document();
    let (_, text) = text.split_once("\n## 11. ").expect("section 11");
    let text = text.split("\n## ").next().unwrap();
    for (service, said, set) in DEFAULTS {
        assert!(text.contains(said), "docs/protocol.md, section 11, does not say: {said}");
        let settings = fs::read_to_string(path(&format!("services/{service}/src/config.rs"))).expect("the settings");
        for line in *set {
            assert!(settings.contains(&format!(" {line}")), "the default of {service} is not {line}: {said}");
        }
    }
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
