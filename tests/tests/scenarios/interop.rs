//! Signal's own build of its library (Node), as the client of another provider: its keys are enlisted with our directory,
//! its messages travel through our servers, and our SDK is the other side.
//!
//! There is no Node build of 0.85, the release of our crate: 0.83 and 0.86 are the last before and the first after it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_client::Address;
use causeway_proto::content::v1 as content;
use causeway_proto::wire::v1 as pb;
use causeway_proto::wire::v1::iq_request::Request;
use causeway_proto::wire::v1::iq_response::Response;
use causeway_tests::raw::{Session, new_key};
use causeway_tests::{World, within};
use prost::Message as _;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

#[tokio::test]
async fn signals_release_before_ours_talks_to_our_sdk_in_both_directions() -> anyhow::Result<()> {
    talk("libsignal-before").await
}

#[tokio::test]
async fn signals_release_after_ours_talks_to_our_sdk_in_both_directions() -> anyhow::Result<()> {
    talk("libsignal-after").await
}

#[tokio::test]
async fn signals_newest_release_talks_to_our_sdk_in_both_directions() -> anyhow::Result<()> {
    talk("libsignal-newest").await
}

async fn talk(release: &str) -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut ada = world.at_birdy("ada").await?;

    // Signal's library begins, with a bundle that our directory serves of keys that our SDK made.
    let mut nia = Peer::enlist(&world, release, "nia").await?;
    nia.claim(ada.address()).await?;
    ensure!(nia.send(ada.address(), "from Signal's library").await? == pb::EncType::Prekey, "PQXDH opens a session");
    assert_eq!(ada.next_text().await?, "from Signal's library");
    // Several turns, so that both ratchets step.
    for turn in 0..4 {
        let text = format!("from our SDK, {turn}");
        ada.queue(&nia.address, &text).await?;
        assert_eq!(nia.next_text().await?.1, text);
        let text = format!("back, {turn}");
        nia.send(ada.address(), &text).await?;
        assert_eq!(ada.next_text().await?, text);
    }

    // Our SDK begins, with a bundle of keys that Signal's library made and our directory checked.
    let mut ole = Peer::enlist(&world, release, "ole").await?;
    ada.queue(&ole.address, "hello ole").await?;
    let (kind, text) = ole.next_text().await?;
    assert_eq!((kind, text.as_str()), (pb::EncType::Prekey, "hello ole"));
    ensure!(ole.used_kyber, "the Kyber prekey took part");
    for turn in 0..4 {
        let text = format!("answer {turn}");
        let kind = ole.send(ada.address(), &text).await?;
        assert_eq!(kind, pb::EncType::Whisper);
        assert_eq!(ada.next_text().await?, text);
        let text = format!("and again {turn}");
        ada.queue(&ole.address, &text).await?;
        assert_eq!(ole.next_text().await?.1, text);
    }
    Ok(())
}

/// A user of the home provider whose device runs Signal's library; the wire is spoken here.
struct Peer {
    address: Address,
    account: String,
    device: u32,
    node: Node,
    session: Session,
    requests: u64,
    /// The other side: account id, device, registration id; and its bundle until it is used.
    partner: Option<(String, u32, u32)>,
    bundle: Value,
    used_kyber: bool,
}

impl Peer {
    async fn enlist(world: &World, release: &str, user: &str) -> anyhow::Result<Self> {
        let mut node = Node::start(release)?;
        let keys = node.ask(&json!({ "do": "keys" })).await?;
        let key = new_key();
        let token = world.home.sandbox().issue_token(user, key.public(), Duration::from_secs(3_600)).await?;
        let hello = pb::ClientHello {
            token,
            device_id: 0,
            encoding: pb::Encoding::Binary.into(),
            agent: release.to_owned(),
            forwarded: None,
        };
        let mut session = Session::open(&world.net, &key, &hello).await?;
        match session.next_stanza().await? {
            Some(pb::server_stanza::Kind::Success(_)) => {}
            other => bail!("no login: {other:?}"),
        }
        let mut peer = Self {
            address: world.home.address(user)?,
            account: String::new(),
            device: 0,
            node,
            session,
            requests: 0,
            partner: None,
            bundle: Value::Null,
            used_kyber: false,
        };
        let enlist = pb::Enlist {
            registration_id: number(&keys["registration_id"])?,
            identity_key: bytes(&keys["identity_key"])?,
            signed_prekey: Some(signed(&keys["signed_prekey"])?),
            last_resort_kyber: Some(signed(&keys["last_resort_kyber"])?),
            ec_prekeys: list(&keys["ec_prekeys"], one_time)?,
            kyber_prekeys: list(&keys["kyber_prekeys"], signed)?,
        };
        let Response::Enlisted(enlisted) = peer.ask(Request::Enlist(enlist)).await? else { bail!("not enlisted") };
        peer.account = hex(&enlisted.account_id);
        peer.device = enlisted.device_id;
        let settings = pb::ConsentSettings {
            interop: true,
            inbox: pb::InboxSetting::Separate.into(),
            reach: pb::Reach::Everyone.into(),
            ..pb::ConsentSettings::default()
        };
        peer.ask(Request::ConsentSet(pb::ConsentSet { settings: Some(settings) })).await?;
        Ok(peer)
    }

    /// Fetches the bundle of the one device at an address.
    async fn claim(&mut self, of: &Address) -> anyhow::Result<()> {
        let claim = pb::KeysClaim { address: of.to_string(), devices: Vec::new() };
        let Response::KeyBundles(claimed) = self.ask(Request::KeysClaim(claim)).await? else { bail!("no bundles") };
        ensure!(claimed.bundles.len() == 1, "one device is expected");
        let bundle = claimed.bundles.first().context("a bundle")?;
        let key = |id: u32, public_key: &[u8]| json!({ "id": id, "public_key": STANDARD.encode(public_key) });
        let signed = |prekey: &Option<pb::SignedPrekey>| {
            let prekey = prekey.as_ref().context("a signed prekey")?;
            let mut json = key(prekey.id, &prekey.public_key);
            json["signature"] = STANDARD.encode(&prekey.signature).into();
            anyhow::Ok(json)
        };
        self.bundle = json!({
            "registration_id": bundle.registration_id,
            "identity_key": STANDARD.encode(&bundle.identity_key),
            "signed_prekey": signed(&bundle.signed_prekey)?,
            "kyber_prekey": signed(&bundle.kyber_prekey)?,
            "ec_prekey": bundle.ec_prekey.as_ref().map(|prekey| key(prekey.id, &prekey.public_key)),
        });
        self.partner = Some((hex(&claimed.account_id), bundle.device, bundle.registration_id));
        Ok(())
    }

    /// Encrypts and sends a text; tells with which type of message.
    async fn send(&mut self, to: &Address, text: &str) -> anyhow::Result<pb::EncType> {
        if self.partner.is_none() {
            // The session is there already; the bundle only tells the registration id, and is thrown away.
            self.claim(to).await?;
            self.bundle = Value::Null;
        }
        let (account, device, reg) = self.partner.clone().context("claimed")?;
        let mut id = [0; 16];
        OsRng.try_fill_bytes(&mut id)?;
        let encrypted = self
            .node
            .ask(&json!({
                "do": "encrypt",
                "local": { "name": self.account, "device": self.device },
                "to": { "name": account, "device": device },
                "bundle": self.bundle.take(),
                "text": STANDARD.encode(padded(&id, text)),
            }))
            .await?;
        let kind = if encrypted["type"] == "prekey" { pb::EncType::Prekey } else { pb::EncType::Whisper };
        let enc = pb::Enc { device, reg, r#type: kind.into(), ciphertext: bytes(&encrypted["ciphertext"])? };
        let submit = pb::Submit {
            id: id.to_vec().into(),
            to: to.to_string(),
            class: pb::MessageClass::Chat.into(),
            enc: vec![enc],
        };
        self.session.send_stanza(pb::client_stanza::Kind::Message(submit)).await?;
        loop {
            match self.session.next_stanza().await?.context("the session ended")? {
                pb::server_stanza::Kind::Ack(ack) if ack.id == id.as_slice() => {
                    let accepted = [pb::Status::Delivered, pb::Status::Stored].contains(&ack.status());
                    ensure!(accepted, "not accepted: {ack:?}");
                    return Ok(kind);
                }
                pb::server_stanza::Kind::Message(other) => bail!("an unexpected message from device {}", other.tag),
                _ => {}
            }
        }
    }

    /// The next text that arrives, and in which type of message.
    async fn next_text(&mut self) -> anyhow::Result<(pb::EncType, String)> {
        loop {
            let pb::server_stanza::Kind::Message(delivery) =
                self.session.next_stanza().await?.context("the session ended")?
            else {
                continue;
            };
            let (_, device) = delivery.from.rsplit_once('/').context("a device address")?;
            let kind = delivery.r#type();
            let decrypted = self
                .node
                .ask(&json!({
                    "do": "decrypt",
                    "local": { "name": self.account, "device": self.device },
                    "from": { "name": hex(&delivery.from_account), "device": device.parse::<u32>()? },
                    "type": if kind == pb::EncType::Prekey { "prekey" } else { "whisper" },
                    "ciphertext": STANDARD.encode(&delivery.ciphertext),
                }))
                .await?;
            self.used_kyber |= decrypted["kyber"].as_array().is_some_and(|used| !used.is_empty());
            let processed = pb::Processed { tag: delivery.tag };
            self.session.send_stanza(pb::client_stanza::Kind::Ack(processed)).await?;
            let plaintext: Vec<u8> = bytes(&decrypted["plaintext"])?;
            let end = plaintext.iter().rposition(|&byte| byte != 0).context("padding")?;
            let content = content::Content::decode(&plaintext[..end])?;
            ensure!(content.id == delivery.id, "the id inside equals the stanza's");
            if let Some(content::content::Body::Text(text)) = content.body {
                return Ok((kind, text.body));
            }
        }
    }

    async fn ask(&mut self, request: Request) -> anyhow::Result<Response> {
        self.requests += 1;
        let iq = pb::IqRequest { id: self.requests, request: Some(request) };
        self.session.send_stanza(pb::client_stanza::Kind::Iq(iq)).await?;
        loop {
            if let pb::server_stanza::Kind::Iq(answer) = self.session.next_stanza().await?.context("ended")? {
                return match answer.response.context("an answer")? {
                    Response::Error(error) => bail!("refused: {error:?}"),
                    response => Ok(response),
                };
            }
        }
    }
}

/// The Node process.
struct Node {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    fn start(release: &str) -> anyhow::Result<Self> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/interop");
        let mut child = Command::new("node")
            .args(["peer.mjs", release])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start node: run `tools/setup.sh test` and `tests/interop/setup.sh`")?;
        let input = child.stdin.take().context("standard input is piped")?;
        let output = BufReader::new(child.stdout.take().context("standard output is piped")?).lines();
        Ok(Self { _child: child, input, output })
    }

    async fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        self.input.write_all(format!("{request}\n").as_bytes()).await?;
        let line = within("an answer of node", async { Ok(self.output.next_line().await?) }).await?;
        let answer: Value = serde_json::from_str(&line.context("node ended: run `tests/interop/setup.sh`")?)?;
        match answer.get("error") {
            Some(error) => bail!("Signal's library: {error}"),
            None => Ok(answer),
        }
    }
}

/// A text as the protocol wants it inside the encryption: `Content`, 0x80, zeros up to a multiple of 160 bytes.
fn padded(id: &[u8], text: &str) -> Vec<u8> {
    let content = content::Content {
        id: id.to_vec().into(),
        sent_at_ms: 1,
        body: Some(content::content::Body::Text(content::Text { body: text.to_owned() })),
        ..content::Content::default()
    };
    let mut plaintext = content.encode_to_vec();
    plaintext.push(0x80);
    plaintext.resize(plaintext.len().next_multiple_of(160), 0);
    plaintext
}

fn bytes<B: From<Vec<u8>>>(value: &Value) -> anyhow::Result<B> {
    Ok(STANDARD.decode(value.as_str().context("base64")?)?.into())
}

fn number(value: &Value) -> anyhow::Result<u32> {
    Ok(u32::try_from(value.as_u64().context("a number")?)?)
}

fn list<T>(values: &Value, read: fn(&Value) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    values.as_array().context("a list")?.iter().map(read).collect()
}

fn signed(value: &Value) -> anyhow::Result<pb::SignedPrekey> {
    Ok(pb::SignedPrekey {
        id: number(&value["id"])?,
        public_key: bytes(&value["public_key"])?,
        signature: bytes(&value["signature"])?,
    })
}

fn one_time(value: &Value) -> anyhow::Result<pb::EcPrekey> {
    Ok(pb::EcPrekey { id: number(&value["id"])?, public_key: bytes(&value["public_key"])? })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
