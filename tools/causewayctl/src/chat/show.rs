//! What arrives, as lines for a terminal or a pipe. Everything that others wrote is cleaned first: a message must not
//! move the cursor, forge another line or turn the reading direction.

use causeway_client::{Body, Content, DisconnectReason, Message, ProviderKind, RejectReason, Rejection, SendResult};

/// Longest piece of foreign text on a line, in characters.
const MAX_TEXT: usize = 4_000;

/// `12:03:04 bo@home.example/1 [home, main inbox] hello`
pub(crate) fn message(message: &Message) -> String {
    let kind = match message.origin.kind {
        ProviderKind::Home => "home",
        ProviderKind::ThirdParty => "third party",
    };
    format!(
        "{} {} [{kind}: {}, {} inbox] {}",
        time(message.accepted_at_ms),
        clean(&message.from.to_string()),
        clean(&message.origin.provider),
        message.origin.inbox.as_str(),
        content(&message.content)
    )
}

/// One line for any content.
pub(crate) fn content(content: &Content) -> String {
    match &content.body {
        Body::Text(text) => clean(text),
        Body::Media(media) => {
            let caption =
                if media.caption.is_empty() { String::new() } else { format!(" \"{}\"", clean(&media.caption)) };
            format!("({:?} {}, {} bytes{caption})", media.kind, clean(&media.name), media.size)
        }
        Body::Reaction { emoji, remove: false, .. } => format!("(reaction {})", clean(emoji)),
        Body::Reaction { .. } => "(takes a reaction back)".to_owned(),
        Body::Edit { body, .. } => format!("(changes a message to) {}", clean(body)),
        Body::Delete { .. } => "(deletes a message)".to_owned(),
        Body::Receipt { kind, ids } => format!("({kind:?}: {} messages)", ids.len()),
        Body::Typing { started: true } => "(is writing)".to_owned(),
        Body::Typing { started: false } => "(stopped writing)".to_owned(),
        Body::Timer { seconds } => format!("(messages disappear after {seconds} s)"),
        Body::Call(_) => "(a call, which this client cannot take)".to_owned(),
        _ => "(content of a kind that this version does not know; it is kept)".to_owned(),
    }
}

/// What became of a sent message.
pub(crate) fn outcome(result: SendResult) -> String {
    match result {
        SendResult::Delivered => "delivered".to_owned(),
        SendResult::Stored => "stored until a device fetches it".to_owned(),
        SendResult::Dropped => "dropped: nobody was there".to_owned(),
        SendResult::Rejected(reason) => format!("NOT SENT: {}", rejected(reason)),
    }
}

/// Why there is no connection.
pub(crate) fn lost(reason: &DisconnectReason) -> String {
    match reason {
        DisconnectReason::Network(_) => "the server is not there".to_owned(),
        DisconnectReason::Timeout => "the server does not answer".to_owned(),
        DisconnectReason::Login(reason) => format!("the server refuses the login: {}", reason.as_str()),
        DisconnectReason::Server(reason) => format!("the server ended it: {}", reason.as_str()),
        DisconnectReason::Overloaded => "the server is overloaded".to_owned(),
        DisconnectReason::Token(_) => "the provider gives no token".to_owned(),
        DisconnectReason::Certificate(error) => error.to_string(),
        DisconnectReason::Handshake(_) | DisconnectReason::Protocol(_) => {
            "the server speaks another protocol".to_owned()
        }
    }
}

fn rejected(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::Server(Rejection::NotAvailable) => {
            "not-available (unknown, not opted in, blocked, or you have not opted in yourself)"
        }
        RejectReason::Server(reason) => reason.as_str(),
        RejectReason::Expired => "it could not be handed over in time",
        RejectReason::BadKeys => "the recipient's keys, as the server gave them, are not acceptable",
        RejectReason::IdentityChanged => "the recipient's keys changed before it could be sent again",
    }
}

/// UTC, hours to seconds.
fn time(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Foreign text without controls and without characters that change the reading direction.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |c: char| {
        if c == '\n' || c == '\t' {
            ' '
        } else if c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        {
            '\u{FFFD}'
        } else {
            c
        }
    };
    let mut cleaned: String = text.chars().take(MAX_TEXT).map(harmless).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        cleaned.push('…');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_leave_its_line() {
        let forged = "hi\n12:00:00 bo\u{1b}[2J\u{202e}\r";
        assert_eq!(clean(forged), "hi 12:00:00 bo\u{fffd}[2J\u{fffd}\u{fffd}");
        assert_eq!(clean(&"a".repeat(5_000)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(1_700_000_000_000), "22:13:20");
    }
}
