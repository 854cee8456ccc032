//! The XML of a stream, cut into the pieces that stand directly in it. Only what servers may send there: no comments, no
//! processing instructions but the declaration, no document types (RFC 6120, section 11).

use crate::engine::Ended;

/// Bytes that a piece has at most.
pub(super) const MOST: usize = 256 * 1024;
/// How deep elements may stand in each other.
const DEEPEST: usize = 32;

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'b> {
    /// Nothing to act on: the declaration, or the stream's opening tag.
    Frame,
    /// The stream ends.
    End,
    /// An element, all of it.
    Element(Element<'b>),
}

/// An element.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) struct Element<'b>(&'b [u8]);

/// A tag without its angle brackets.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) struct Tag<'b>(&'b [u8]);

/// The first piece of what came, and its length; `None` until more comes.
pub(super) fn piece(bytes: &[u8]) -> Result<Option<(Piece<'_>, usize)>, Ended> {
    let (mut at, mut depth) = (0, 0_usize);
    let begin = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let found = |piece, end| Ok(Some((piece, end)));
    at += begin;
    loop {
        let Some((tag, end)) = tag(bytes, at)? else {
            return if bytes.len() > MOST { Err(wrong("a stanza is too long")) } else { Ok(None) };
        };
        at = end;
        match tag.0 {
            [b'?', ..] if depth == 0 => return found(Piece::Frame, at),
            [b'?' | b'!', ..] => return Err(wrong("it has what no stream may have")),
            [b'/', b's', b't', b'r', b'e', b'a', b'm', b':', ..] if depth == 0 => return found(Piece::End, at),
            [b'/', ..] if depth == 0 => return Err(wrong("an element ends that has not begun")),
            [b'/', ..] => depth -= 1,
            [.., b'/'] => {}
            _ if depth == 0 && tag.name() == b"stream:stream" => return found(Piece::Frame, at),
            _ if depth == DEEPEST => return Err(wrong("elements stand too deep in each other")),
            _ => depth += 1,
        }
        if depth == 0 {
            return found(Piece::Element(Element(&bytes[begin..at])), at);
        }
    }
}

/// The first tag at this place or behind it, and where it ends.
fn tag(bytes: &[u8], from: usize) -> Result<Option<(Tag<'_>, usize)>, Ended> {
    let Some(rest) = bytes.get(from..) else { return Ok(None) };
    let Some(open) = rest.iter().position(|byte| *byte == b'<') else { return Ok(None) };
    let mut quote = None;
    for (index, byte) in rest.iter().enumerate().skip(open + 1) {
        match (quote, *byte) {
            (None, b'>') => return Ok(Some((Tag(&rest[open + 1..index]), from + index + 1))),
            (None, b'<') => return Err(wrong("a tag in a tag")),
            (None, b'\'' | b'"') => quote = Some(*byte),
            (Some(quoted), byte) if byte == quoted => quote = None,
            _ => {}
        }
    }
    Ok(None)
}

fn wrong(what: &str) -> Ended {
    Ended::Broken(format!("the server's XML: {what}"))
}

impl<'b> Element<'b> {
    /// Its own tag.
    pub(super) fn head(&self) -> Tag<'b> {
        self.tags().next().unwrap_or(Tag(b""))
    }

    /// The first tag of this name in it.
    pub(super) fn find(&self, name: &[u8]) -> Option<Tag<'b>> {
        self.tags().skip(1).find(|tag| tag.name() == name)
    }

    /// Whether this text is somewhere in it.
    pub(super) fn contains(&self, text: &[u8]) -> bool {
        self.0.windows(text.len().max(1)).any(|bytes| bytes == text)
    }

    /// Its beginning, for people.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0[..self.0.len().min(300)]).into_owned()
    }

    fn tags(&self) -> impl Iterator<Item = Tag<'b>> + use<'b> {
        let (bytes, mut at) = (self.0, 0);
        std::iter::from_fn(move || {
            let (tag, end) = tag(bytes, at).ok()??;
            at = end;
            Some(tag)
        })
    }
}

impl<'b> Tag<'b> {
    /// Its name, with its prefix.
    pub(super) fn name(&self) -> &'b [u8] {
        let end = self.0.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'/');
        &self.0[..end.unwrap_or(self.0.len())]
    }

    /// The value of an attribute as it stands there.
    pub(super) fn attribute(&self, name: &[u8]) -> Option<&'b [u8]> {
        let mut rest = self.0.get(self.name().len()..)?;
        loop {
            rest = rest.trim_ascii_start();
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let (named, value) = (rest[..equals].trim_ascii_end(), rest[equals + 1..].trim_ascii_start());
            let (quote, value) = value.split_first()?;
            let end = value.iter().position(|byte| byte == quote)?;
            if named == name {
                return Some(&value[..end]);
            }
            rest = &value[end + 1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?><stream:stream id='1' xmlns:stream='x'> <stream:features><mechanisms \
        xmlns='s'><mechanism>PLAIN</mechanism></mechanisms></stream:features><success/>\n<message from='a@b/c' \
        id=\"x>'y\" to = 'd'><received xmlns='urn:xmpp:receipts' id='00'/><body>1 &lt; 2</body></message></stream:stream>";

    fn pieces(mut bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((piece, length)) = piece(bytes).unwrap() {
            all.push(match piece {
                Piece::Frame => "frame".to_owned(),
                Piece::End => "end".to_owned(),
                Piece::Element(element) => String::from_utf8(element.head().name().to_vec()).unwrap(),
            });
            bytes = &bytes[length..];
        }
        all
    }

    #[test]
    fn a_stream_falls_into_its_pieces_wherever_it_is_cut() {
        let all = ["frame", "frame", "stream:features", "success", "message", "end"];
        assert_eq!(pieces(STREAM.as_bytes()), all);
        for cut in 0..STREAM.len() {
            // A piece that is not whole yet is none.
            let before = pieces(&STREAM.as_bytes()[..cut]);
            assert_eq!(before, all[..before.len()], "{cut}");
        }
    }

    #[test]
    fn attributes_and_children_are_found() {
        let at = STREAM.find("<message").unwrap();
        let (Piece::Element(message), _) = piece(&STREAM.as_bytes()[at..]).unwrap().unwrap() else { panic!("none") };
        assert_eq!(message.head().attribute(b"from"), Some(&b"a@b/c"[..]));
        assert_eq!(message.head().attribute(b"id"), Some(&b"x>'y"[..]));
        assert_eq!(message.head().attribute(b"to"), Some(&b"d"[..]));
        assert_eq!(message.head().attribute(b"type"), None);
        assert_eq!(message.find(b"received").unwrap().attribute(b"id"), Some(&b"00"[..]));
        assert!(message.find(b"message").is_none() && message.contains(b"1 &lt; 2") && !message.contains(b"nothing"));
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        let deep = "<a>".repeat(DEEPEST + 1);
        let long = format!("<a>{}", "x".repeat(MOST));
        for text in ["</a>", "<!-- -->", "<a><?b?></a>", "<a <b>", &deep, &long] {
            assert!(piece(text.as_bytes()).is_err(), "{}", &text[..text.len().min(20)]);
        }
        for byte in 0..=255 {
            for text in [vec![byte; 40], [&b"<a "[..], &[byte; 9], b"='", &[byte; 3], b"'/>"].concat()] {
                if let Ok(Some((Piece::Element(element), _))) = piece(&text) {
                    let _any = (element.head().attribute(b"b"), element.find(b"c"));
                }
            }
        }
    }
}
