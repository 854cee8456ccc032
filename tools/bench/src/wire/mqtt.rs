//! MQTT 3.1.1, as much as a client needs to talk: a session that outlives its connection, a topic of its own, messages at least
//! once (QoS 1). The protocol tells a sender only that the server has its message; that the recipient has it is an answer
//! of the recipient's, at most once (QoS 0), which is the cheapest.

mod packet;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::ensure;
use bytes::Buf as _;

use self::packet::{Packet, packet, text, write};
use super::mark::Mark;
use super::tls::{Codec, Login, PASSWORD, Part, Text};
use crate::engine::{Ended, Fate, Seen};

/// A client of an MQTT server.
pub(crate) struct Mqtt {
    part: Part,
    user: Arc<str>,
    open: bool,
    /// The number of the last message.
    last: u16,
    /// With [`Part::Leaves`], what was sent and is not acknowledged, by its number.
    sent: VecDeque<(u16, Mark)>,
}

/// A message: its topic, and its body, which stands behind its id.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    topic: Vec<u8>,
    body: Vec<u8>,
}

/// Bytes of an id.
const ID: usize = 16;
/// Messages without an acknowledgement that a client has at most.
const OPEN: usize = 1_000;
/// Packets' first bytes.
const CONNECT: u8 = 0x10;
const AT_MOST_ONCE: u8 = 0x30;
const AT_LEAST_ONCE: u8 = 0x32;
const ACKNOWLEDGE: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const DISCONNECT: u8 = 0xe0;
/// With a name and a password; a session that is kept; no signs of life.
const LOGIN: [u8; 10] = [0, 4, b'M', b'Q', b'T', b'T', 4, 0xc0, 0, 0];

impl Codec for Mqtt {
    type Message = Message;

    fn message(to: &str, body: usize) -> anyhow::Result<Message> {
        ensure!((1..=60_000).contains(&body), "--body is empty or too large");
        Ok(Message { topic: text(to.as_bytes()), body: vec![b'x'; body] })
    }

    fn begin(login: &Login, goes: &mut Vec<u8>) -> Self {
        let user = text(login.user.as_bytes());
        write(CONNECT, &[&LOGIN, &user, &user, &text(PASSWORD.as_bytes())], goes);
        Self { part: login.part, user: Arc::clone(&login.user), open: false, last: 0, sent: VecDeque::new() }
    }

    fn next(&mut self, text: &mut Text) -> Result<Option<Seen<Infallible>>, Ended> {
        loop {
            let Some((packet, length)) = packet(&text.came)? else { return Ok(None) };
            let seen = self.packet(&packet, &mut text.goes)?;
            text.came.advance(length);
            if seen.is_some() {
                return Ok(seen);
            }
        }
    }

    fn submit(&mut self, goes: &mut Vec<u8>, message: &mut Message, mark: Mark) -> bool {
        if !self.open || self.sent.len() >= OPEN {
            return false;
        }
        // 0 is no number.
        self.last = self.last.checked_add(1).unwrap_or(1);
        if self.part == Part::Leaves {
            self.sent.push_back((self.last, mark));
        }
        write(AT_LEAST_ONCE, &[&message.topic, &self.last.to_be_bytes(), &mark.to_bytes(), &message.body], goes);
        true
    }

    fn leave(&mut self, goes: &mut Vec<u8>) {
        write(DISCONNECT, &[], goes);
    }
}

impl Mqtt {
    fn packet(&mut self, packet: &Packet<'_>, goes: &mut Vec<u8>) -> Result<Option<Seen<Infallible>>, Ended> {
        match *packet {
            Packet::Connected { kept: true, code: 0 } => {
                self.open = true;
                Ok(Some(Seen::Opened { waiting: None }))
            }
            Packet::Connected { kept: false, code: 0 } => {
                write(SUBSCRIBE, &[&[0, 1], &text(self.user.as_bytes()), &[1]], goes);
                Ok(None)
            }
            Packet::Connected { code, .. } => Err(Ended::Refused(format!("CONNACK with code {code}"))),
            Packet::Subscribed(1) => {
                self.open = true;
                Ok(Some(Seen::Opened { waiting: Some(0) }))
            }
            Packet::Subscribed(given) => Err(Ended::Refused(format!("SUBACK with code {given}"))),
            Packet::Acknowledged(number) => {
                // They come in the order in which messages were sent.
                let place = self.sent.iter().position(|(sent, _)| *sent == number);
                let sent = place.and_then(|place| self.sent.remove(place));
                Ok(sent.map(|(_, mark)| Seen::Outcome(mark, Fate::Stored)))
            }
            Packet::Published { number, payload } => {
                if let Some(number) = number {
                    write(ACKNOWLEDGE, &[&number.to_be_bytes()], goes);
                }
                let Some((id, body)) = payload.split_first_chunk::<ID>() else { return Ok(None) };
                let mark = Mark::from_bytes(*id);
                if body.is_empty() {
                    return Ok(Some(Seen::Outcome(mark, Fate::Delivered)));
                }
                if self.part == Part::Talks {
                    let sender = crate::subject::user(mark.sender as usize);
                    write(AT_MOST_ONCE, &[&text(sender.as_bytes()), id], goes);
                }
                Ok(Some(Seen::Delivery(mark)))
            }
            Packet::Other => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    const MARK: Mark = Mark { sender: 3, number: 9, due: 77 };

    fn began(part: Part) -> (Mqtt, Text) {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut text = Text::default();
        let login = Login { server, user: "u7".into(), part };
        (Mqtt::begin(&login, &mut text.goes), text)
    }

    fn give(client: &mut Mqtt, text: &mut Text, first: u8, parts: &[&[u8]]) -> Vec<Seen<Infallible>> {
        let mut came = Vec::new();
        write(first, parts, &mut came);
        text.came.extend_from_slice(&came);
        text.goes.clear();
        std::iter::from_fn(|| client.next(text).unwrap()).collect()
    }

    fn opened(part: Part) -> (Mqtt, Text) {
        let (mut client, mut text) = began(part);
        assert_eq!(give(&mut client, &mut text, 0x20, &[&[1, 0]]), [Seen::Opened { waiting: None }]);
        (client, text)
    }

    #[test]
    fn a_new_session_subscribes_to_its_own_topic() {
        let (mut client, mut text) = began(Part::Talks);
        let expected =
            [&[0x10, 39][..], &LOGIN, &[0, 2], b"u7", &[0, 2], b"u7", &[0, 19], PASSWORD.as_bytes()].concat();
        assert_eq!(text.goes, expected);
        assert_eq!(give(&mut client, &mut text, 0x20, &[&[0, 0]]), []);
        assert_eq!(text.goes, [&[0x82, 7, 0, 1, 0, 2][..], b"u7", &[1]].concat());
        assert_eq!(give(&mut client, &mut text, 0x90, &[&[0, 1, 1]]), [Seen::Opened { waiting: Some(0) }]);
    }

    #[test]
    fn the_recipients_answer_is_the_outcome() {
        let (mut sender, mut text) = opened(Part::Talks);
        let mut message = Mqtt::message("u8", 344).unwrap();
        text.goes.clear();
        assert!(sender.submit(&mut text.goes, &mut message, MARK));
        let (mut recipient, mut other) = opened(Part::Talks);
        other.goes.clear();
        other.came.extend_from_slice(&text.goes);
        assert_eq!(recipient.next(&mut other), Ok(Some(Seen::Delivery(MARK))));
        let answer = [&[0x30, 20, 0, 2][..], b"u3", &MARK.to_bytes()].concat();
        assert_eq!(other.goes, [&[0x40, 2, 0, 1][..], &answer].concat());
        text.came.extend_from_slice(&[0x40, 2, 0, 1]);
        text.came.extend_from_slice(&answer);
        assert_eq!(sender.next(&mut text), Ok(Some(Seen::Outcome(MARK, Fate::Delivered))));
    }

    #[test]
    fn the_servers_acknowledgement_is_the_outcome_of_who_leaves_a_message() {
        let (mut client, mut text) = opened(Part::Leaves);
        let mut message = Mqtt::message("u8", 5).unwrap();
        client.last = u16::MAX - 1;
        let marks = [0, 1].map(|number| Mark { number, ..MARK });
        for mark in marks {
            assert!(client.submit(&mut text.goes, &mut message, mark));
        }
        assert_eq!(give(&mut client, &mut text, 0x40, &[&[0, 1]]), [Seen::Outcome(marks[1], Fate::Stored)]);
        assert_eq!(give(&mut client, &mut text, 0x40, &[&[255, 255]]), [Seen::Outcome(marks[0], Fate::Stored)]);
        assert_eq!(give(&mut client, &mut text, 0x40, &[&[255, 255]]), []);
    }

    #[test]
    fn who_is_not_let_in_is_told() {
        for (first, body) in [(0x20, &[0, 5][..]), (0x90, &[0, 1, 0x80])] {
            let (mut client, mut text) = began(Part::Takes);
            text.goes.clear();
            write(first, &[body], &mut text.goes);
            text.came.extend_from_slice(&text.goes);
            assert!(matches!(client.next(&mut text), Err(Ended::Refused(_))));
        }
    }
}
