use std::net::{Ipv4Addr, SocketAddr};

use super::*;

const MARK: Mark = Mark { sender: 3, number: 9, due: 77 };

fn began(part: Part) -> (Xmpp, Text) {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let mut text = Text::default();
    let login = Login { server, user: "u7".into(), part };
    (Xmpp::begin(&login, &mut text.goes), text)
}

/// What is seen of these bytes, and what is answered.
fn give(client: &mut Xmpp, text: &mut Text, came: &str) -> (Vec<Seen<Infallible>>, String) {
    text.goes.clear();
    text.came.extend_from_slice(came.as_bytes());
    let mut all = Vec::new();
    while let Some(seen) = client.next(text).unwrap() {
        all.push(seen);
    }
    (all, String::from_utf8(text.goes.clone()).unwrap())
}

fn log_in(client: &mut Xmpp, text: &mut Text) {
    let (_, said) = give(
        client,
        text,
        "<?xml version='1.0'?><stream:stream id='1' xmlns:stream='s'><stream:features><mechanisms xmlns='m'>\
         <mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism></mechanisms></stream:features>",
    );
    assert!(said.contains(&STANDARD.encode(format!("\0u7\0{PASSWORD}"))), "{said}");
    let (_, said) = give(client, text, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert!(said.starts_with("<stream:stream "), "{said}");
    let features = "<stream:stream id='2'><stream:features><bind xmlns='b'/></stream:features>";
    let (_, said) = give(client, text, features);
    assert!(said.starts_with("<iq type='set' id='bind'><bind "), "{said}");
    let (_, said) = give(client, text, "<iq type='result' id='bind'><bind><jid>u7@localhost/bench</jid></bind></iq>");
    if client.part == Part::Leaves {
        assert_eq!(said.as_bytes(), MANAGE);
        let (_, said) = give(client, text, "<enabled xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(said, "<presence/>");
    } else {
        assert_eq!(said, "<presence/>");
    }
}

const HERE: &str = "<presence to='u7@localhost/bench' from='u7@localhost/bench'/>";

fn opened(part: Part) -> (Xmpp, Text) {
    let (mut client, mut text) = began(part);
    log_in(&mut client, &mut text);
    assert_eq!(give(&mut client, &mut text, HERE).0, [Seen::Opened { waiting: Some(0) }]);
    (client, text)
}

/// A message as a server hands it on.
fn delivered() -> String {
    let id = hex::encode(MARK.to_bytes());
    format!("<message from='u3@localhost/x' to='u7@localhost' type='chat' id='{id}'><body>AHOV</body></message>")
}

#[test]
fn a_message_is_sent_and_its_receipt_is_its_outcome() {
    let (mut client, mut text) = opened(Part::Talks);
    let mut message = Xmpp::message("u8", 344).unwrap();
    text.goes.clear();
    assert!(client.submit(&mut text.goes, &mut message, MARK));
    let said = String::from_utf8(text.goes.clone()).unwrap();
    let id = hex::encode(MARK.to_bytes());
    assert!(said.starts_with(&format!("<message to='u8@localhost' type='chat' id='{id}'><body>A")), "{said}");
    let body = said.split("body>").nth(1).unwrap();
    assert_eq!(body.len(), 344 + "</".len());
    let receipt = format!("<message from='u8@localhost/y'><received xmlns='urn:xmpp:receipts' id='{id}'/></message>");
    let seen = give(&mut client, &mut text, &receipt).0;
    assert_eq!(seen, [Seen::Outcome(MARK, Fate::Delivered)]);
    let error = delivered().replace("'chat'", "'error'");
    assert_eq!(give(&mut client, &mut text, &error).0, [Seen::Outcome(MARK, Fate::Refused)]);
    assert!(Xmpp::message("u8", 0).is_err());
}

#[test]
fn a_recipient_answers_its_sender() {
    let (mut client, mut text) = opened(Part::Talks);
    let (seen, said) = give(&mut client, &mut text, &delivered());
    assert_eq!(seen, [Seen::Delivery(MARK)]);
    assert!(said.starts_with("<message to='u3@localhost/x'><received "), "{said}");
    assert!(said.contains(&hex::encode(MARK.to_bytes())));
}

#[test]
fn what_the_server_counts_is_what_it_answers_for() {
    let (mut client, mut text) = opened(Part::Leaves);
    let mut message = Xmpp::message("u8", 10).unwrap();
    let marks = [0, 1, 2].map(|number| Mark { number, ..MARK });
    for mark in marks {
        assert!(client.submit(&mut text.goes, &mut message, mark));
    }
    // The presence counts too.
    let (seen, said) = give(&mut client, &mut text, "<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(said, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(seen, [marks[0], marks[1]].map(|mark| Seen::Outcome(mark, Fate::Stored)));
    assert_eq!(give(&mut client, &mut text, "<a h='4'/>").0, [Seen::Outcome(marks[2], Fate::Stored)]);
    let refused = Mark { number: 3, ..MARK };
    assert!(client.submit(&mut text.goes, &mut message, refused));
    let error = format!("<message type='error' id='{}'/><a h='5'/>", hex::encode(refused.to_bytes()));
    assert_eq!(give(&mut client, &mut text, &error).0, [Seen::Outcome(refused, Fate::Refused)]);
    text.came.extend_from_slice(b"<a h='9'/>");
    assert!(client.next(&mut text).is_err(), "it cannot answer for what was not sent");
}

#[test]
fn what_has_waited_comes_before_the_session_is_open() {
    let (mut client, mut text) = began(Part::Takes);
    log_in(&mut client, &mut text);
    let (seen, said) = give(&mut client, &mut text, &(delivered() + HERE));
    assert_eq!(seen, [Seen::Delivery(MARK), Seen::Opened { waiting: Some(1) }]);
    assert_eq!(said, "");
}

#[test]
fn refusals_are_told_and_nothing_makes_it_panic() {
    for came in ["<failure><not-authorized/></failure>", "<stream:error><conflict/></stream:error>", "</stream:stream>"]
    {
        let (mut client, mut text) = began(Part::Talks);
        text.came.extend_from_slice(came.as_bytes());
        assert!(client.next(&mut text).is_err(), "{came}");
    }
    let no_plain = "<stream:features><mechanisms><mechanism>X</mechanism></mechanisms></stream:features>";
    let (mut client, mut text) = began(Part::Talks);
    text.came.extend_from_slice(no_plain.as_bytes());
    assert!(client.next(&mut text).is_err());
    for came in ["<message/>", "<message id='zz'/>", "<a/>", "<a h='x'/>", "<message><received/></message>", "<iq/>"] {
        let (mut client, mut text) = opened(Part::Leaves);
        text.came.extend_from_slice(came.as_bytes());
        let _any = client.next(&mut text);
    }
}
