//! Writes the seed corpora: a few small good inputs for each target, so that a short run starts from what a peer
//! really sends. Deterministic, so a corpus changes only with the formats.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use causeway_fuzz::{AUDIENCE, Opening, Provider, now};
use causeway_identity::{RootKey, ServerCertificate, Validity};
use causeway_noise::{Alert, write_frame};
use causeway_stanza::strategies::{from_client, from_server};
use causeway_stanza::{ClientHello, Encoding, FromClient, ServerHello, decode_client, encode_client, encode_server};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

// The library that runs targets is linked into every binary here and wants one.
libfuzzer_sys::fuzz_target!(|_data: &[u8]| {});

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let dir = |target: &str| {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir).expect("the corpus folder can be made");
        dir
    };
    frames(&dir("frames"));
    handshakes(&dir("server_handshake"), &dir("client_handshake"));
    records(&dir("records"));
    stanzas(&dir);
    hellos(&dir("hellos"));
    tokens(&dir("token"), &dir("claims"), &dir("key_set"));
    for target in ["client_xml", "server_xml", "claims", "key_set"] {
        dictionary(&corpus, target);
    }
    put(&dir("certificate"), "signed", &certificate());
    for (name, text) in [
        ("domain", "birdy.example"),
        ("address", "ada@birdy.example"),
        ("device", "ada@birdy.example/7"),
        ("composed", "jos\u{e9}@xn--bcher-kva.example"),
        ("decomposed", "jose\u{301}@birdy.example"),
    ] {
        put(&dir("names"), name, text.as_bytes());
    }
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).expect("the corpus folder can be written");
}

/// The words of a target's seeds, because libFuzzer cannot see comparisons of strings and would never guess one.
fn dictionary(corpus: &Path, target: &str) {
    let mut words = BTreeSet::new();
    for seed in fs::read_dir(corpus.join(target)).expect("the corpus was just written") {
        let bytes = fs::read(seed.expect("a seed").path()).expect("a seed can be read");
        for word in bytes.split(|byte| !matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':')) {
            let word = String::from_utf8_lossy(word);
            // Names are lower-case in XML; the rest is base64.
            let name = word.bytes().all(|byte| match byte {
                b'0'..=b'9' => false,
                b'A'..=b'Z' => !target.ends_with("xml"),
                _ => true,
            });
            if (3..=24).contains(&word.len()) && name {
                words.insert(format!("\"{word}\"\n"));
            }
        }
    }
    let dir = corpus.with_file_name("dictionaries");
    fs::create_dir_all(&dir).expect("the dictionary folder can be made");
    put(&dir, target, words.into_iter().collect::<String>().as_bytes());
}

fn frames(dir: &Path) {
    let mut stream = BytesMut::from(&[3][..]);
    write_frame(&mut stream, b"one message").expect("it fits");
    write_frame(&mut stream, b"another").expect("it fits");
    put(dir, "messages", &stream);
    stream.extend_from_slice(&Alert::Overloaded { retry_after_s: 30 }.encode());
    put(dir, "alert", &stream);
}

fn handshakes(server: &Path, client: &Path) {
    for choice in 0..4_u8 {
        let mut opening = BytesMut::new();
        let _waiting = Opening::new(choice, &mut opening);
        put(server, &format!("raw-{choice}"), &[&[choice, 200], &opening[..]].concat());
        put(server, &format!("behind-opening-{choice}"), &[&[choice | 4, 7], &opening[8..]].concat());
        put(server, &format!("honest-{choice}"), &[choice | 8, 50]);
        put(server, &format!("edited-{choice}"), &[choice | 8, 50, 0, 12, 1]);
        put(client, &format!("honest-{choice}"), &[choice | 4, 50]);
        put(client, &format!("edited-{choice}"), &[choice | 4, 50, 0, 40, 0x80]);
        put(client, &format!("alert-{choice}"), &[&[choice, 1], &Alert::UseXx.encode()[..]].concat());
    }
}

fn records(dir: &Path) {
    put(dir, "one", &[&[255, 255, 5], &b"hello"[..]].concat());
    put(dir, "several", &[&[3, 7, 5], &b"hello"[..], &[0, 0, 2], b"ab", &[0x80, 0x01], &[7; 128]].concat());
    put(dir, "not-minimal", &[9, 9, 0x81, 0]);
    put(dir, "too-large", &[9, 9, 0x81, 0x80, 0x10]);
}

/// One of each kind, and small.
fn stanzas(dir: &impl Fn(&str) -> PathBuf) {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::new();
    for _ in 0..4_000 {
        let stanza = from_client().new_tree(&mut runner).expect("it makes one").current();
        let name = client_name(&stanza);
        let (xml, binary) = (encode_client(Encoding::Xml, stanza.clone()), encode_client(Encoding::Binary, stanza));
        if xml.len() <= SMALL && decode_client(Encoding::Xml, &xml).is_ok() && first(&mut seen, &name, 1) {
            put(&dir("client_xml"), &name, &xml);
            put(&dir("client_binary"), &name, &binary);
        }
    }
    let mut seen = BTreeMap::new();
    for _ in 0..4_000 {
        let stanza = from_server().new_tree(&mut runner).expect("it makes one").current();
        let kind = stanza.name();
        let name = format!("{kind}-{}", seen.get(kind).copied().unwrap_or_default());
        let (xml, binary) = (encode_server(Encoding::Xml, stanza.clone()), encode_server(Encoding::Binary, stanza));
        // Responses are one kind here, and many.
        if xml.len() <= SMALL && first(&mut seen, kind, if kind == "iq" { 30 } else { 4 }) {
            put(&dir("server_xml"), &name, &xml);
            put(&dir("server_binary"), &name, &binary);
        }
    }
}

/// Whether fewer than `most` of this kind were seen.
fn first(seen: &mut BTreeMap<String, usize>, kind: &str, most: usize) -> bool {
    let count = seen.entry(kind.to_owned()).or_default();
    let first = *count < most;
    *count += usize::from(first);
    first
}

fn client_name(stanza: &FromClient) -> String {
    match stanza {
        FromClient::Iq(request) => format!("iq-{}", request.body.name()),
        other => other.name().to_owned(),
    }
}

fn hellos(dir: &Path) {
    let provider = Provider::default();
    let token = provider.mint(provider.header().as_bytes(), provider.claims().to_string().as_bytes());
    let client = ClientHello {
        token: token.try_into().expect("a token is short"),
        device: None,
        encoding: Encoding::Xml,
        agent: "seed/1".to_owned().try_into().expect("an agent is short"),
        forwarded: None,
    };
    put(dir, "client", &client.encode());
    let server = ServerHello {
        certificate: ServerCertificate::from_bytes(&certificate()).expect("it was just made").to_proto(),
        server_time_ms: 1_800_000_000_000,
        limits: causeway_stanza::hello::Limits { max_stanza_bytes: 262_144, ping_interval_ms: 30_000 },
    };
    put(dir, "server", &server.encode());
}

fn certificate() -> Vec<u8> {
    let day = Duration::from_secs(24 * 60 * 60);
    let validity = Validity { not_before: now() - day, not_after: now() + day };
    let root = RootKey::from_seed([5; 32]);
    let issued = ServerCertificate::issue(&root, AUDIENCE, &Provider::default().noise_key, validity);
    issued.expect("a good certificate").to_bytes()
}

fn tokens(token: &Path, claims: &Path, key_set: &Path) {
    let provider = Provider::default();
    let good = provider.claims().to_string();
    put(token, "good", provider.mint(provider.header().as_bytes(), good.as_bytes()).as_bytes());
    put(token, "bad-signature", b"eyJhbGciOiJub25lIn0.e30.AAAA");
    put(claims, "good", &[&[0, 0], good.as_bytes()].concat());
    let header = provider.header();
    let length = u16::try_from(header.len()).expect("a header is short").to_be_bytes();
    put(claims, "with-header", &[&length, header.as_bytes(), good.as_bytes()].concat());
    let mut audiences = provider.claims();
    audiences["aud"] = serde_json::json!(["elsewhere.example", AUDIENCE]);
    audiences["nbf"] = audiences["iat"].clone();
    put(claims, "audiences", &[&[0, 0], audiences.to_string().as_bytes()].concat());
    put(key_set, "ed25519", provider.keys.to_jwks().as_bytes());
    put(key_set, "p256", P256_JWKS.as_bytes());
    put(key_set, "rsa", RSA_JWKS.as_bytes());
}

/// Largest seed stanza in bytes.
const SMALL: usize = 2_000;

/// The example key of RFC 7517, appendix A.1.
const P256_JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"sig","kid":"1"}]}"#;

/// A public test key of Wycheproof's.
const RSA_JWKS: &str = r#"{"keys":[{"kty":"RSA","kid":"r1","n":"orRRoH0KpfluRVZxUTVQUUqKW0YuvvcXCU-h_ugiJOY3-XRtP3yv0xh42AMltu9aFwD2WQO0aUKeidbqyIRQl7WrOTGJ25JRLtincRoSU_rNIPecFegkfz0-QuRuSMmOJUov6XZTE6A-_48X4aApOXofomqNzib0kO2BKZYV2YFMItphBCjgnH2WWFlCZvXAIdD87KCNlFoSvoLeTR7Oa0wDFFtdNJXU7VQR64eNrwX9evw-Ca2g8RJkIvWQl1oZaYFvSGmLy7obTZyuedRg2Pn4Xnl1AF2bwixOWsD3waRdElaaYoB9O5oC5aUw53MGb0U9H1tMLpz3ggKD90K51Q","e":"AQAB"}]}"#;
