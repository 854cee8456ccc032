//! XMPP, as much as a client needs to log in and to talk (RFC 6120, RFC 6121): SASL PLAIN, a resource, presence, chat messages
//! whose recipient sends a receipt (XEP-0184), and, for a sender whose recipient is away, stream management, whose count
//! says what the server answers for (XEP-0198).

mod xml;

use std::collections::VecDeque;
use std::convert::Infallible;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf as _;

use self::xml::{Element, Piece, piece};
use super::mark::Mark;
use super::tls::{Codec, Login, PASSWORD, Part, SERVER, Text};
use crate::engine::{Ended, Fate, Seen};

/// A client of an XMPP server.
pub(crate) struct Xmpp {
    part: Part,
    user: String,
    stage: Stage,
    /// With [`Part::Leaves`], what was sent and is not acknowledged; `None` is another stanza.
    sent: VecDeque<Option<Mark>>,
    /// Of these, how many the server has acknowledged meanwhile.
    acknowledged: u32,
    /// All that it ever has.
    counted: u32,
    /// Stanzas that came since they are counted.
    came: u32,
    /// Messages that came before the session was open: those that had waited.
    waiting: u64,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Mechanisms,
    Success,
    Features,
    Bound,
    Managed,
    Present,
    Open,
}

/// A message, but for its id.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    text: Vec<u8>,
    /// Where the id is.
    id: usize,
}

/// Digits of an id.
const ID: usize = 32;
/// Stanzas without an acknowledgement that a client has at most.
const OPEN: usize = 1_000;
const ASK: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";
const MANAGE: &[u8] = b"<enable xmlns='urn:xmpp:sm:3'/>";

impl Codec for Xmpp {
    type Message = Message;

    fn message(to: &str, body: usize) -> anyhow::Result<Message> {
        ensure!((1..=60_000).contains(&body), "--body is empty or too large");
        let before = format!("<message to='{to}@{SERVER}' type='chat' id='");
        // A ciphertext in Base64 would look like it: of 64 signs, none of which XML has to hide.
        let body: String = (0..body).map(|at| char::from(b'A' + (at * 7 % 26) as u8)).collect();
        let request = "<request xmlns='urn:xmpp:receipts'/>";
        let text = format!("{before}{}'><body>{body}</body>{request}</message>", "0".repeat(ID));
        Ok(Message { id: before.len(), text: text.into_bytes() })
    }

    fn begin(login: &Login, goes: &mut Vec<u8>) -> Self {
        header(goes);
        Self {
            part: login.part,
            user: login.user.to_string(),
            stage: Stage::Mechanisms,
            sent: VecDeque::new(),
            acknowledged: 0,
            counted: 0,
            came: 0,
            waiting: 0,
        }
    }

    fn next(&mut self, text: &mut Text) -> Result<Option<Seen<Infallible>>, Ended> {
        loop {
            while self.acknowledged > 0 {
                self.acknowledged -= 1;
                if let Some(mark) = self.sent.pop_front().flatten() {
                    return Ok(Some(Seen::Outcome(mark, Fate::Stored)));
                }
            }
            let Some((piece, length)) = piece(&text.came)? else { return Ok(None) };
            let seen = match piece {
                Piece::Frame => None,
                Piece::End => return Err(Ended::Closed),
                Piece::Element(element) => self.element(element, &mut text.goes)?,
            };
            text.came.advance(length);
            if seen.is_some() {
                return Ok(seen);
            }
        }
    }

    fn submit(&mut self, goes: &mut Vec<u8>, message: &mut Message, mark: Mark) -> bool {
        if self.stage != Stage::Open || self.sent.len() >= OPEN {
            return false;
        }
        let place = &mut message.text[message.id..message.id + ID];
        if hex::encode_to_slice(mark.to_bytes(), place).is_err() {
            return false;
        }
        goes.extend_from_slice(&message.text);
        if self.part == Part::Leaves {
            self.sent.push_back(Some(mark));
            goes.extend_from_slice(ASK);
        }
        true
    }

    fn leave(&mut self, goes: &mut Vec<u8>) {
        goes.extend_from_slice(b"</stream:stream>");
    }
}

impl Xmpp {
    fn element(&mut self, element: Element<'_>, goes: &mut Vec<u8>) -> Result<Option<Seen<Infallible>>, Ended> {
        let head = element.head();
        if matches!(head.name(), b"message" | b"presence" | b"iq") && self.stage > Stage::Managed {
            self.came = self.came.wrapping_add(1);
        }
        match (head.name(), self.stage) {
            (b"r", _) => {
                goes.extend_from_slice(format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.came).as_bytes());
            }
            (b"message", _) => return self.message_came(element, goes),
            (b"a", Stage::Open) => {
                let count = head.attribute(b"h").and_then(number).ok_or_else(|| odd(element))?;
                // It counts from the session's begin, and so never more than what is still open beyond the last time.
                let new = count.checked_sub(self.counted).filter(|new| *new as usize <= self.sent.len());
                self.acknowledged = new.ok_or_else(|| odd(element))?;
                self.counted = count;
            }
            (b"stream:features", Stage::Mechanisms) => {
                if !element.contains(b">PLAIN<") {
                    return Err(Ended::Refused("the server offers no SASL PLAIN".to_owned()));
                }
                let secret = STANDARD.encode(format!("\0{}\0{PASSWORD}", self.user));
                let mechanism = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>";
                goes.extend_from_slice(format!("{mechanism}{secret}</auth>").as_bytes());
                self.stage = Stage::Success;
            }
            (b"success", Stage::Success) => {
                header(goes);
                self.stage = Stage::Features;
            }
            (b"stream:features", Stage::Features) => {
                let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind>";
                goes.extend_from_slice(format!("<iq type='set' id='bind'>{bind}</iq>").as_bytes());
                self.stage = Stage::Bound;
            }
            (b"iq", Stage::Bound) if head.attribute(b"type") == Some(b"result") => {
                self.stage = if self.part == Part::Leaves { Stage::Managed } else { Stage::Present };
                if self.stage == Stage::Managed {
                    goes.extend_from_slice(MANAGE);
                } else {
                    goes.extend_from_slice(b"<presence/>");
                }
            }
            (b"enabled", Stage::Managed) => {
                goes.extend_from_slice(b"<presence/>");
                self.sent.push_back(None);
                self.stage = Stage::Present;
            }
            // Its own presence comes back behind all that had waited.
            (b"presence", Stage::Present) => {
                self.stage = Stage::Open;
                return Ok(Some(Seen::Opened { waiting: Some(self.waiting) }));
            }
            (b"failure" | b"failed" | b"stream:error", _) | (b"iq", Stage::Bound) => return Err(odd(element)),
            // Presence of others, what servers ask and clients need not know.
            _ => {}
        }
        Ok(None)
    }

    fn message_came(&mut self, element: Element<'_>, goes: &mut Vec<u8>) -> Result<Option<Seen<Infallible>>, Ended> {
        let head = element.head();
        if let Some(receipt) = element.find(b"received") {
            let mark = receipt.attribute(b"id").and_then(mark).ok_or_else(|| odd(element))?;
            return Ok(Some(Seen::Outcome(mark, Fate::Delivered)));
        }
        // What is no message of ours, such as a greeting, is nobody's.
        let Some(mark) = head.attribute(b"id").and_then(mark) else { return Ok(None) };
        if head.attribute(b"type") == Some(b"error") {
            // The server has handled it, and so counts it too: it has one outcome, and that is this.
            let counted = self.sent.iter_mut().find(|sent| **sent == Some(mark)).map(Option::take);
            let told = self.part != Part::Leaves || counted.is_some();
            return Ok(told.then_some(Seen::Outcome(mark, Fate::Refused)));
        }
        if self.stage != Stage::Open {
            self.waiting += 1;
        }
        if self.part == Part::Talks {
            let from = head.attribute(b"from").filter(|from| !from.contains(&b'\'')).ok_or_else(|| odd(element))?;
            let id = head.attribute(b"id").unwrap_or_default();
            for part in [b"<message to='", from, b"'><received xmlns='urn:xmpp:receipts' id='", id, b"'/></message>"] {
                goes.extend_from_slice(part);
            }
        }
        Ok(Some(Seen::Delivery(mark)))
    }
}

/// The opening tag of a stream.
fn header(goes: &mut Vec<u8>) {
    let spaces = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'";
    goes.extend_from_slice(format!("<stream:stream {spaces} to='{SERVER}' version='1.0'>").as_bytes());
}

fn mark(digits: &[u8]) -> Option<Mark> {
    let mut id = [0; ID / 2];
    hex::decode_to_slice(digits, &mut id).ok()?;
    Some(Mark::from_bytes(id))
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The server says something that it should not.
fn odd(element: Element<'_>) -> Ended {
    Ended::Refused(element.shown())
}

#[cfg(test)]
mod tests;
