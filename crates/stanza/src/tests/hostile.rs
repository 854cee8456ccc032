//! Hostile records: each is refused with its own kind of error, at its own place, in both encodings.

use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_proto::wire::v1 as pb;
use prost::Message;

use super::samples;
use crate::wire::write;
use crate::{
    Delivery, Encoding, FromClient, FromServer, MAX_RECORD_BYTES, MAX_SERVER_RECORD_BYTES, Problem, RequestBody,
    decode_client, decode_client_shared, decode_server, encode_client, encode_server, hello, xml,
};

const ID: &str = "0b6f5a0102030405060708090a0b0c0d";

/// A message in XML with this start tag's attributes and this inside.
fn message(attributes: &str, inside: &str) -> String {
    format!("<message xmlns='urn:causeway:1' {attributes}>{inside}</message>")
}

/// A good message but for what is inside.
fn with(inside: &str) -> String {
    message(&format!("id='{ID}' to='bo@home.example' class='chat'"), inside)
}

/// A good ciphertext but for its attributes.
fn enc(attributes: &str) -> String {
    with(&format!("<enc {attributes}>YWJj</enc>"))
}

fn iq(id: &str, inside: &str) -> String {
    format!("<iq xmlns='urn:causeway:1' id='{id}' type='set'>{inside}</iq>")
}

#[track_caller]
fn refused(encoding: Encoding, record: &[u8], problem: Problem, path: &str) {
    let error = match decode_client(encoding, record) {
        Ok(stanza) => panic!("accepted: {} as {stanza:?}", String::from_utf8_lossy(&record[..record.len().min(200)])),
        Err(error) => error,
    };
    let shown = String::from_utf8_lossy(&record[..record.len().min(200)]);
    assert_eq!((error.problem(), error.path()), (problem, path), "{shown}");
}

#[track_caller]
fn xml_refused(record: impl AsRef<[u8]>, problem: Problem, path: &str) {
    refused(Encoding::Xml, record.as_ref(), problem, path);
}

#[track_caller]
fn binary_refused(record: &[u8], problem: Problem, path: &str) {
    refused(Encoding::Binary, record, problem, path);
}

#[test]
fn the_plain_forms_are_accepted() {
    assert!(decode_client(Encoding::Xml, enc("device='1' reg='7' type='prekey'").as_bytes()).is_ok());
    assert!(decode_client(Encoding::Xml, iq("1", "<withdraw/>").as_bytes()).is_ok());
    assert!(decode_client(Encoding::Binary, &binary(&good())).is_ok());
}

/// PARSE-01 and PARSE-02.
#[test]
#[expect(clippy::disallowed_methods, reason = "measures what a hostile record costs")]
fn declarations_instructions_and_entities() {
    let ping = "<ping xmlns='urn:causeway:1' n='1'/>";
    for doctype in [
        "<!DOCTYPE ping>",
        "<!DOCTYPE ping [<!ENTITY a 'b'>]>",
        "<!DOCTYPE ping [<!ENTITY % a SYSTEM 'http://127.0.0.1:1/x'> %a;]>",
        "<!DOCTYPE ping SYSTEM 'file:///etc/passwd'>",
        "<!DOCTYPE ping PUBLIC '-//x' 'ftp://127.0.0.1/x'>",
        "<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;'>]>",
    ] {
        xml_refused(format!("{doctype}{ping}"), Problem::Doctype, "");
        let inside = with(doctype);
        xml_refused(inside, Problem::Doctype, "");
    }
    xml_refused(format!("<?xml version='1.0'?>{ping}"), Problem::Instruction, "");
    xml_refused(format!("<?xml version='1.0' encoding='UTF-16'?>{ping}"), Problem::Instruction, "");
    xml_refused(format!("{ping}<?php x?>"), Problem::Instruction, "");
    xml_refused(with("<?pi?>"), Problem::Instruction, "");
    xml_refused(with("<!--x-->"), Problem::Comment, "");
    xml_refused(with("<![CDATA[x]]>"), Problem::Cdata, "");
    xml_refused(with("&nbsp;"), Problem::Entity, "");
    xml_refused(enc("device='&one;' reg='7' type='prekey'"), Problem::Entity, "");
    xml_refused(with("&lol9;"), Problem::Entity, "");
    let utf16: Vec<u8> = ping.encode_utf16().flat_map(u16::to_be_bytes).collect();
    xml_refused(utf16, Problem::Character, "");

    // Nothing is expanded, so 2,000 uses of one large entity cost no more than finding the first.
    let blow_up = format!("<!DOCTYPE a [<!ENTITY a '{}'>]>{}", "x".repeat(100_000), with(&"&a;".repeat(2000)));
    let start = Instant::now();
    xml_refused(blow_up, Problem::Doctype, "");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// PARSE-03, as far as a whole record goes; `DepthWatch` has the rest.
#[test]
fn depth() {
    let nested = |levels: usize| with(&format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels)));
    xml_refused(nested(15), Problem::UnknownElement, "message");
    xml_refused(nested(16), Problem::Depth, "");
    let flood = format!("<message xmlns='urn:causeway:1'>{}", "<a>".repeat(30_000));
    xml_refused(&flood, Problem::Depth, "");
    let mut watch = xml::DepthWatch::default();
    let taken = flood.bytes().take_while(|byte| watch.feed(&[*byte]).is_ok()).count();
    assert_eq!(&flood[..taken], &flood[..flood.find('>').unwrap() + 1 + 15 * 3 + 1], "stops at the 17th start tag");
}

/// PARSE-05.
#[test]
fn characters() {
    let broken: [&[u8]; 6] = [b"\xc0\xaf", b"\xed\xa0\x80", b"\xff", b"\xe2\x82", b"\xf4\x90\x80\x80", b"\x80"];
    for bytes in broken {
        let mut record = b"<ping xmlns='urn:causeway:1' n='1' x='".to_vec();
        record.extend_from_slice(bytes);
        record.extend_from_slice(b"'/>");
        xml_refused(&record, Problem::Utf8, "");
    }
    xml_refused(b"<ping xmlns='urn:causeway:1' n='1'/>\xe2\x82", Problem::Utf8, "");
    for text in ["\0", "\u{1}", "\u{FFFE}", "\u{FFFF}", "&#0;", "&#x1F;", "&#xD800;", "&#xFFFF;", "&#x110000;"] {
        xml_refused(format!("<ping xmlns='urn:causeway:1' n='1' x='{text}'/>"), Problem::Character, "");
    }
    xml_refused("\u{FEFF}<ping xmlns='urn:causeway:1' n='1'/>", Problem::Character, "");
    // What XML allows and a text of ours does not.
    let control = iq("1", "<token-refresh token='a&#9;b'/>");
    xml_refused(control, Problem::Character, "iq.token_refresh.token");
}

/// PARSE-08: what only the server may say.
#[test]
fn a_sender_cannot_say_who_it_is() {
    let plain = enc("device='1' reg='7' type='prekey'");
    let spoofed =
        plain.replace("id='", "from='eve@home.example/1' ts='1' tag='9' origin='home' from-account='00' id='");
    let (plain, spoofed) =
        (decode_client(Encoding::Xml, plain.as_bytes()), decode_client(Encoding::Xml, spoofed.as_bytes()));
    assert_eq!(plain, spoofed, "unknown attributes are ignored");

    xml_refused(with("<origin provider='home.example' kind='home'/>"), Problem::UnknownElement, "message");
    xml_refused(with(&with("")), Problem::UnknownElement, "message");
    xml_refused("<success xmlns='urn:causeway:1'/>", Problem::UnknownElement, "");
    xml_refused("<notification xmlns='urn:causeway:1'><consent-changed/></notification>", Problem::UnknownElement, "");

    // The numbers of the server's fields are unknown ones in a client's message: skipped.
    let mut submit = good().encode_to_vec();
    write::bytes(&mut submit, 7, b"\x0a\x0chome.example\x10\x01");
    write::varint(&mut submit, 5, 1);
    write::varint(&mut submit, 6, 99);
    write::bytes(&mut submit, 31, b"eve@home.example/1");
    let decoded = decode_client(Encoding::Binary, &wrap(1, &submit));
    assert_eq!(decoded, decode_client(Encoding::Binary, &binary(&good())));
    // Success is number 1 of a server's stanza: read as a client's message, it lacks all that a message has.
    let success = pb::Success { session_id: vec![1; 16].into(), ..pb::Success::default() };
    binary_refused(&wrap(1, &success.encode_to_vec()), Problem::Address, "message.to");
}

/// PARSE-11, as far as a record's content goes; its length prefix is read where records are framed.
#[test]
fn size() {
    for encoding in [Encoding::Xml, Encoding::Binary] {
        refused(encoding, b"", Problem::Empty, "");
        refused(encoding, &vec![b' '; MAX_RECORD_BYTES + 1], Problem::TooLarge, "");
    }
    let fill = |encoding, bytes: usize| {
        let mut submit = good();
        submit.enc[0].ciphertext = vec![7; bytes].into();
        let stanza = FromClient::try_from(pb::ClientStanza { kind: Some(pb::client_stanza::Kind::Message(submit)) });
        encode_client(encoding, stanza.expect("a good message"))
    };
    // Finds by steps the ciphertext that fills the record to the last byte.
    let largest = MAX_RECORD_BYTES - (fill(Encoding::Binary, 200_000).len() - 200_000);
    let full = fill(Encoding::Binary, largest);
    assert_eq!(full.len(), MAX_RECORD_BYTES);
    assert!(decode_client(Encoding::Binary, &full).is_ok());
    let over = fill(Encoding::Binary, largest + 1);
    binary_refused(&over, Problem::TooLarge, "");

    // The largest ciphertext that a sender can submit fits into what its recipient reads, in both encodings.
    let delivery = samples::server().into_iter().find_map(|(_, sample)| match sample {
        FromServer::Message(delivery) => Some(delivery),
        _ => None,
    });
    let ciphertext = vec![7; largest].try_into().expect("within bounds");
    let stanza = FromServer::Message(Delivery { ciphertext, ..delivery.expect("there is a sample") });
    for encoding in [Encoding::Xml, Encoding::Binary] {
        assert_eq!(decode_server(encoding, &encode_server(encoding, stanza.clone())), Ok(stanza.clone()));
        let too_large = vec![b' '; MAX_SERVER_RECORD_BYTES + 1];
        assert_eq!(decode_server(encoding, &too_large).expect_err("too large").problem(), Problem::TooLarge);
    }

    let mut padded = fill(Encoding::Xml, 150_000);
    padded.resize(MAX_RECORD_BYTES, b'\n');
    assert!(decode_client(Encoding::Xml, &padded).is_ok());
}

/// PARSE-13.
#[test]
#[expect(clippy::disallowed_methods, reason = "measures what hostile records cost")]
fn protobuf() {
    let started = Instant::now();
    let mut empty = Vec::new();
    for _ in 0..MAX_RECORD_BYTES / 2 - 8 {
        empty.extend_from_slice(&[0x22, 0]);
    }
    binary_refused(&wrap(1, &empty), Problem::TooMany, "message.enc");
    let mut packed = good_claim();
    write::bytes(&mut packed, 2, &vec![1; 200_000]);
    binary_refused(&wrap(3, &request(5, &packed)), Problem::TooMany, "iq.keys_claim.devices");

    // Levels: unknown fields are not descended into, known ones cannot nest.
    let nested = (0..101).fold(Vec::new(), |inner, _| {
        let mut outer = Vec::new();
        write::bytes(&mut outer, 1, &inner);
        outer
    });
    binary_refused(&nested, Problem::Id, "message.id");
    let mut deep_unknown = good().encode_to_vec();
    write::bytes(&mut deep_unknown, 15, &nested);
    assert!(decode_client(Encoding::Binary, &wrap(1, &deep_unknown)).is_ok());

    let mut repeated = good().encode_to_vec();
    for _ in 0..10_000 {
        write::varint(&mut repeated, 3, 1);
    }
    binary_refused(&wrap(1, &repeated), Problem::Repeated, "message.class");
    let mut both = wrap(4, &[]);
    both.extend(wrap(5, &[]));
    binary_refused(&both, Problem::Repeated, "pong");
    let mut twice = wrap(4, &[]);
    twice.extend(wrap(4, &[]));
    binary_refused(&twice, Problem::Repeated, "ping");
    let mut two_requests = request(4, &[]);
    write::bytes(&mut two_requests, 6, &[]);
    binary_refused(&wrap(3, &two_requests), Problem::Repeated, "iq.devices_list");

    binary_refused(&[0x0d, 0, 0, 0, 0], Problem::WireType, "message");
    binary_refused(&[0x08, 1], Problem::WireType, "message");
    let mut text_as_number = Vec::new();
    write::varint(&mut text_as_number, 2, 1);
    binary_refused(&wrap(1, &text_as_number), Problem::WireType, "message.to");
    for group in [&[0x0b_u8, 0x0c][..], &[0x7b, 0x7c], &[0x0c], &[0x7b]] {
        binary_refused(group, Problem::Group, "");
    }
    binary_refused(&[0x7e], Problem::Protobuf, "");
    binary_refused(&[0x00, 0x00], Problem::Protobuf, "");
    binary_refused(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Problem::Protobuf, "");
    binary_refused(&[0x0a, 5, 0], Problem::Protobuf, "");
    binary_refused(&[0x80; 11], Problem::Protobuf, "");
    binary_refused(&wrap(9, b"a stanza of a later version"), Problem::Missing, "kind");
    binary_refused(&wrap(3, &[0x08, 1]), Problem::Missing, "iq.request");

    let mut unknown = good().encode_to_vec();
    write::bytes(&mut unknown, 99, &vec![0; 200 * 1024]);
    assert!(decode_client(Encoding::Binary, &wrap(1, &unknown)).is_ok());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// PARSE-14.
#[test]
fn base64() {
    let content = |text: &str| with(&format!("<enc device='1' reg='7' type='prekey'>{text}</enc>"));
    assert!(decode_client(Encoding::Xml, content("+/8=").as_bytes()).is_ok());
    for text in ["+/8", "+/8==", "-_8=", "+/9=", "+/8=\n", " +/8=", "+/ 8=", "+", "====", "+/8=+/8=", "é", "+/8=&#0;"]
    {
        let problem = if text.contains("&#0;") { Problem::Character } else { Problem::Base64 };
        let path = if problem == Problem::Character { "" } else { "message.enc[0].ciphertext" };
        xml_refused(content(text), problem, path);
    }
    xml_refused(content(""), Problem::Length, "message.enc[0].ciphertext");
    xml_refused(content("YWJj<x/>"), Problem::UnknownElement, "message.enc[0]");
    let upload = |hash: &str| iq("1", &format!("<media-upload size='1' sha256='{hash}'/>")).replace("set", "get");
    xml_refused(upload("YWJj"), Problem::Length, "iq.media_upload.sha256");
    xml_refused(upload("YWJ"), Problem::Base64, "iq.media_upload.sha256");
}

/// PARSE-15.
#[test]
fn numbers_ids_and_names() {
    for device in ["0", "2147483648"] {
        xml_refused(enc(&format!("device='{device}' reg='7' type='prekey'")), Problem::Range, "message.enc[0].device");
    }
    for device in
        ["-1", "+1", " 1", "1 ", "01", "00", "1e0", "1.0", "", "0x1", "\u{661}", "4294967296", "99999999999999999999"]
    {
        xml_refused(enc(&format!("device='{device}' reg='7' type='prekey'")), Problem::Range, "message.enc[0].device");
    }
    for reg in ["0", "16381"] {
        xml_refused(enc(&format!("device='1' reg='{reg}' type='prekey'")), Problem::Range, "message.enc[0].reg");
    }
    for id in ["", &ID[1..], &format!("{ID}0"), &ID.to_uppercase(), &ID.replace('f', "g"), &format!(" {ID}")] {
        xml_refused(message(&format!("id='{id}' to='bo@home.example' class='chat'"), ""), Problem::Id, "message.id");
    }
    for class in ["99", "CHAT", "chat ", "", "unspecified", "MESSAGE_CLASS_CHAT"] {
        let record = message(&format!("id='{ID}' to='bo@home.example' class='{class}'"), "");
        xml_refused(record, Problem::UnknownValue, "message.class");
    }
    for to in ["bo", "bo@HOME.example", "bo@home.example/1", "@home.example", ""] {
        let record =
            message(&format!("id='{ID}' to='{to}' class='chat'"), "<enc device='1' reg='7' type='prekey'>YWJj</enc>");
        xml_refused(record, Problem::Address, "message.to");
    }
    xml_refused(
        message(&format!("to='bo@home.example' class='chat' identity='{ID}'"), ""),
        Problem::Missing,
        "message.id",
    );
    xml_refused("<ack xmlns='urn:causeway:1' tag='0'/>", Problem::Range, "ack.tag");
    xml_refused("<ack xmlns='urn:causeway:1'/>", Problem::Missing, "ack.tag");
    xml_refused("<ping xmlns='urn:causeway:1' n='18446744073709551616'/>", Problem::Range, "ping.n");
    xml_refused("<end xmlns='urn:causeway:1' reason='bye' retry-after='0'/>", Problem::Default, "end.retry_after_ms");
    let consent = |interop: &str| {
        iq("1", &format!("<consent-set><settings interop='{interop}' inbox='separate' reach='nobody'/></consent-set>"))
    };
    assert!(decode_client(Encoding::Xml, consent("false").as_bytes()).is_ok());
    xml_refused(consent("1"), Problem::UnknownValue, "iq.consent_set.settings.interop");

    let change = |edit: &dyn Fn(&mut pb::Submit)| {
        let mut submit = good();
        edit(&mut submit);
        binary(&submit)
    };
    binary_refused(&change(&|s| s.enc[0].device = 0), Problem::Range, "message.enc[0].device");
    binary_refused(&change(&|s| s.enc[0].device = 1 << 31), Problem::Range, "message.enc[0].device");
    binary_refused(&change(&|s| s.id = vec![0; 15].into()), Problem::Id, "message.id");
    binary_refused(&change(&|s| s.id = vec![0; 17].into()), Problem::Id, "message.id");
    binary_refused(&change(&|s| s.class = 99), Problem::UnknownValue, "message.class");
    binary_refused(&change(&|s| s.class = -1), Problem::UnknownValue, "message.class");
    binary_refused(&change(&|s| s.class = 0), Problem::Missing, "message.class");
    // 2^32 + 1 would be cut to 1.
    let mut cut = Vec::new();
    write::varint(&mut cut, 1, (1 << 32) + 1);
    write::varint(&mut cut, 2, 7);
    write::varint(&mut cut, 3, 1);
    write::bytes(&mut cut, 4, b"x");
    let mut submit = pb::Submit { enc: Vec::new(), ..good() }.encode_to_vec();
    write::bytes(&mut submit, 4, &cut);
    binary_refused(&wrap(1, &submit), Problem::Range, "message.enc[0].device");
    // So would an enum's 2^32 + 1.
    let mut class = pb::Submit { class: 0, ..good() }.encode_to_vec();
    write::varint(&mut class, 3, (1 << 32) + 1);
    binary_refused(&wrap(1, &class), Problem::UnknownValue, "message.class");
}

/// PARSE-16, as far as a record goes; how many may be open, the session counts.
#[test]
fn iqs() {
    for kind in ["result", "error"] {
        for inside in ["", "<done/>", "<error code='bad-request'/>", "<whatever/>"] {
            let record = format!("<iq xmlns='urn:causeway:1' id='1' type='{kind}'>{inside}</iq>");
            assert_eq!(decode_client(Encoding::Xml, record.as_bytes()), Ok(FromClient::UnsolicitedIq));
        }
    }
    for id in ["0", "", "01", &"1".repeat(65_536)] {
        xml_refused(iq(id, "<withdraw/>"), Problem::Range, "iq.id");
    }
    xml_refused(iq("1", ""), Problem::Missing, "iq");
    xml_refused(iq("1", "<withdraw/><withdraw/>"), Problem::Repeated, "iq.withdraw");
    xml_refused(iq("1", "<withdraw/><push/>"), Problem::Repeated, "iq");
    xml_refused(iq("1", "<done/>"), Problem::UnknownElement, "iq");
    xml_refused(iq("1", "<consent-get/>"), Problem::Contradiction, "iq.type");
    xml_refused("<iq xmlns='urn:causeway:1' id='1'><withdraw/></iq>", Problem::Missing, "iq.type");
    xml_refused("<iq xmlns='urn:causeway:1' id='1' type='do'><withdraw/></iq>", Problem::UnknownValue, "iq.type");
    binary_refused(
        &wrap(3, &{
            let mut request = Vec::new();
            write::bytes(&mut request, 17, &[]);
            request
        }),
        Problem::Range,
        "iq.id",
    );
}

/// ROUTE-14 and the other bounds.
#[test]
fn lists_and_lengths() {
    let one = |device: u32| format!("<enc device='{device}' reg='7' type='prekey'>YWJj</enc>");
    let many = |count: u32| with(&(1..=count).map(one).collect::<String>());
    assert!(decode_client(Encoding::Xml, many(16).as_bytes()).is_ok());
    xml_refused(many(0), Problem::Missing, "message.enc");
    xml_refused(many(17), Problem::TooMany, "message.enc");
    xml_refused(with(&one(3).repeat(2)), Problem::Duplicate, "message.enc");
    let mut submit = good();
    submit.enc = vec![submit.enc[0].clone(); 17];
    binary_refused(&binary(&submit), Problem::TooMany, "message.enc");
    submit.enc.truncate(2);
    binary_refused(&binary(&submit), Problem::Duplicate, "message.enc");
    submit.enc.clear();
    binary_refused(&binary(&submit), Problem::Missing, "message.enc");

    let rules = |count: usize| {
        let rules: String = (0..count).map(|n| format!("<provider domain='p{n}.example' allow='false'/>")).collect();
        iq(
            "1",
            &format!(
                "<consent-set><settings interop='true' inbox='separate' reach='everyone'>{rules}</settings></consent-set>"
            ),
        )
    };
    assert!(decode_client(Encoding::Xml, rules(256).as_bytes()).is_ok());
    xml_refused(rules(257), Problem::TooMany, "iq.consent_set.settings.providers");

    // The directory judges up to 256 (101 are bad keys); more is no stanza.
    let prekeys = |count: usize| {
        let keys: String = (0..count).map(|n| format!("<ec-prekey id='{n}'>BQ==</ec-prekey>")).collect();
        iq("1", &format!("<keys-publish><identity-key>BQ==</identity-key>{keys}</keys-publish>"))
    };
    let Ok(FromClient::Iq(read)) = decode_client(Encoding::Xml, prekeys(101).as_bytes()) else { panic!("refused") };
    assert!(matches!(read.body, RequestBody::KeysPublish(keys) if keys.ec_prekeys.len() == 101));
    xml_refused(prekeys(257), Problem::TooMany, "iq.keys_publish.ec_prekeys");

    let push = |bytes: usize| {
        let mut body = Vec::new();
        write::bytes(&mut body, 1, &vec![1; bytes]);
        wrap(3, &request(15, &body))
    };
    assert!(decode_client(Encoding::Binary, &push(512)).is_ok());
    binary_refused(&push(513), Problem::Length, "iq.push.token");
    let token = |bytes: usize| iq("1", &format!("<token-refresh token='{}'/>", "a".repeat(bytes)));
    assert!(decode_client(Encoding::Xml, token(4096).as_bytes()).is_ok());
    xml_refused(token(4097), Problem::Length, "iq.token_refresh.token");
    let download = |bytes: usize| {
        let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let body = format!("<media-download url='{}' size='1' sha256='{hash}'/>", "u".repeat(bytes));
        iq("1", &body).replace("'set'", "'get'")
    };
    assert!(decode_client(Encoding::Xml, download(2048).as_bytes()).is_ok());
    xml_refused(download(2049), Problem::Length, "iq.media_download.url");
    xml_refused(download(0), Problem::Length, "iq.media_download.url");
}

#[test]
fn structure() {
    let missing = message(&format!("id='{ID}' to='bo@home.example' class='chat' id='{ID}'"), "");
    xml_refused(missing, Problem::DuplicateAttribute, "");
    for wrong in [
        "<ping n='1'/>",
        "<ping xmlns='' n='1'/>",
        "<ping xmlns='urn:causeway:2' n='1'/>",
        "<p:ping xmlns:p='urn:causeway:1' n='1'/>",
        "<ping xmlns='urn:causeway:1' xmlns:p='urn:p' n='1'/>",
        "<ping xmlns='urn:causeway:1' xml:lang='en' n='1'/>",
    ] {
        xml_refused(wrong, Problem::Namespace, "");
    }
    xml_refused(with("<enc xmlns='urn:other'/>"), Problem::Namespace, "");
    xml_refused(with("text"), Problem::Text, "message");
    xml_refused("<ping xmlns='urn:causeway:1' n='1'>x</ping>", Problem::Text, "ping");
    xml_refused("<ping xmlns='urn:causeway:1' n='1'><x/></ping>", Problem::UnknownElement, "ping");
    xml_refused("<stream xmlns='urn:causeway:1'/>", Problem::UnknownElement, "");
    let attributes: String = (0..64).map(|n| format!(" a{n}='1'")).collect();
    xml_refused(format!("<ping xmlns='urn:causeway:1' n='1'{attributes}/>"), Problem::Attributes, "");
    xml_refused("<ping xmlns='urn:causeway:1' n='1'>", Problem::Syntax, "");
    xml_refused("<ping xmlns='urn:causeway:1' n='1'></pong>", Problem::Syntax, "");
    xml_refused("not XML at all", Problem::Syntax, "");
    // An enlistment in pieces: everything that must be there, must.
    xml_refused(iq("1", "<enlist registration='1'/>"), Problem::Missing, "iq.enlist.identity_key");
    xml_refused(
        iq("1", "<enlist registration='1'><identity-key>BQ==</identity-key></enlist>"),
        Problem::Missing,
        "iq.enlist.signed_prekey",
    );
}

#[test]
fn an_error_quotes_nothing() {
    let secret = "sesame";
    for record in [enc("device='sesame' reg='7' type='prekey'"), with("<sesame/>"), iq("1", "<push>sesame</push>")] {
        let error = decode_client(Encoding::Xml, record.as_bytes()).expect_err("bad");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
    let stanza = decode_client(Encoding::Xml, iq("1", "<token-refresh token='sesame'/>").as_bytes()).expect("good");
    assert!(!format!("{stanza:?}").contains(secret));
}

#[test]
fn handshake_payloads() {
    let good = pb::ClientHello {
        token: "a.b.c".to_owned(),
        device_id: 3,
        encoding: pb::Encoding::Xml.into(),
        agent: "test/1".to_owned(),
        forwarded: None,
    };
    let read = |hello: &pb::ClientHello| hello::ClientHello::decode(&hello.encode_to_vec());
    let decoded = read(&good).expect("good");
    assert_eq!(decoded.encode(), good.encode_to_vec());
    for (hello, problem, path, reason) in [
        (pb::ClientHello { token: String::new(), ..good.clone() }, Problem::Length, "token", "token-malformed"),
        (pb::ClientHello { token: "a".repeat(4097), ..good.clone() }, Problem::Length, "token", "token-malformed"),
        (pb::ClientHello { token: "a\0".to_owned(), ..good.clone() }, Problem::Character, "token", "token-malformed"),
        (pb::ClientHello { device_id: 1 << 31, ..good.clone() }, Problem::Range, "device_id", "version"),
        (pb::ClientHello { encoding: 99, ..good.clone() }, Problem::UnknownValue, "encoding", "version"),
        (pb::ClientHello { encoding: 0, ..good.clone() }, Problem::Missing, "encoding", "version"),
        (pb::ClientHello { agent: "a".repeat(65), ..good }, Problem::Length, "agent", "version"),
    ] {
        let error = read(&hello).expect_err("bad");
        assert_eq!((error.problem(), error.path()), (problem, path));
        assert_eq!(hello::failure_reason(&error).as_str(), reason);
    }
    assert_eq!(hello::ClientHello::decode(b"").expect_err("bad").path(), "token");
    assert!(hello::ClientHello::decode(&[0xff; 100]).is_err());

    let server = pb::ServerHello {
        certificate: Some(pb::ServerCertificate {
            body: vec![1; 80].into(),
            root_id: vec![2; 8].into(),
            signature: vec![3; 64].into(),
        }),
        server_time_ms: 1,
        limits: Some(pb::Limits { max_stanza_bytes: 262_144, ping_interval_ms: 30_000 }),
    };
    let decoded = hello::ServerHello::decode(&server.encode_to_vec()).expect("good");
    assert_eq!(decoded.encode(), server.encode_to_vec());
    let none = pb::ServerHello { certificate: None, ..server };
    let error = hello::ServerHello::decode(&none.encode_to_vec()).expect_err("bad");
    assert_eq!((error.problem(), error.path()), (Problem::Missing, "certificate"));
}

/// A good message in BINARY.
fn good() -> pb::Submit {
    pb::Submit {
        id: vec![7; 16].into(),
        to: "bo@home.example".to_owned(),
        class: pb::MessageClass::Chat.into(),
        enc: vec![pb::Enc {
            device: 1,
            reg: 7,
            r#type: pb::EncType::Whisper.into(),
            ciphertext: b"abc".to_vec().into(),
        }],
    }
}

fn binary(submit: &pb::Submit) -> Vec<u8> {
    wrap(1, &submit.encode_to_vec())
}

/// A message of one field.
fn wrap(number: u32, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::bytes(&mut out, number, message);
    out
}

fn request(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::varint(&mut out, 1, 1);
    write::bytes(&mut out, number, body);
    out
}

fn good_claim() -> Vec<u8> {
    wrap(1, b"bo@home.example")
}

#[test]
fn a_short_ciphertext_does_not_keep_a_long_record() {
    let kept = |fill: usize, ciphertext: usize| {
        let mut submit = good();
        submit.enc[0].ciphertext = vec![1; ciphertext].into();
        let mut message = submit.encode_to_vec();
        write::bytes(&mut message, 99, &vec![0; fill]);
        let record = Bytes::from(wrap(1, &message));
        let stanza = decode_client_shared(Encoding::Binary, record.clone()).unwrap();
        assert_eq!(Ok(&stanza), decode_client(Encoding::Binary, &record).as_ref());
        !record.is_unique()
    };
    assert!(!kept(200 * 1024, 10), "10 bytes hold 200 KiB");
    assert!(kept(10, 200 * 1024), "what is all ciphertext is not copied");
    assert!(kept(10, 300));
}
