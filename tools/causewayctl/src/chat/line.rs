//! What a user can type.

use std::path::PathBuf;

use causeway_client::MediaKind;
use causeway_identity::Address;

/// One line, understood.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    Say(String),
    To(Address),
    File { path: PathBuf, caption: String },
    Consent(bool),
    Devices,
    Help,
    Quit,
    Nothing,
}

pub(crate) const HELP: &str = "type a line to send it, or\n  \
    /to ADDRESS           whom to write to\n  \
    /file PATH [CAPTION]  send a file\n  \
    /consent on|off       reach and be reached by users of other messengers\n  \
    /devices              list this account's devices\n  \
    /quit                 leave";

/// Longest line that is taken, in bytes: the longest text of a message.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;

/// Reads a line; the error is a sentence for the user.
pub(crate) fn read(line: &str) -> Result<Line, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.len() > MAX_LINE_BYTES {
        return Err("this line is longer than a message can be (64 KiB): send it as a file".to_owned());
    }
    let Some(command) = line.strip_prefix('/') else {
        return Ok(if line.trim().is_empty() { Line::Nothing } else { Line::Say(line.to_owned()) });
    };
    let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
    let rest = rest.trim();
    match (name, rest) {
        ("to", address) => address.parse().map(Line::To).map_err(|error| format!("/to: {error}")),
        ("file", "") => Err("/file: name the file to send".to_owned()),
        ("file", rest) => {
            let (path, caption) = rest.split_once(' ').unwrap_or((rest, ""));
            Ok(Line::File { path: path.into(), caption: caption.trim().to_owned() })
        }
        ("consent", "on") => Ok(Line::Consent(true)),
        ("consent", "off") => Ok(Line::Consent(false)),
        ("consent", _) => Err("/consent: on or off".to_owned()),
        ("devices", "") => Ok(Line::Devices),
        ("help", "") => Ok(Line::Help),
        ("quit", "") => Ok(Line::Quit),
        _ => Err("there is no such command: /help lists them".to_owned()),
    }
}

/// How a file of this name is shown, and its media type.
pub(crate) fn kind_of(name: &str) -> (MediaKind, &'static str) {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "png" => (MediaKind::Image, "image/png"),
        "jpg" | "jpeg" => (MediaKind::Image, "image/jpeg"),
        "gif" => (MediaKind::Image, "image/gif"),
        "webp" => (MediaKind::Image, "image/webp"),
        "mp4" => (MediaKind::Video, "video/mp4"),
        "webm" => (MediaKind::Video, "video/webm"),
        "ogg" | "opus" => (MediaKind::Voice, "audio/ogg"),
        "m4a" => (MediaKind::Voice, "audio/mp4"),
        "mp3" => (MediaKind::Voice, "audio/mpeg"),
        "wav" => (MediaKind::Voice, "audio/wav"),
        _ => (MediaKind::File, "application/octet-stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words_or_commands() {
        assert_eq!(read("hello there\n"), Ok(Line::Say("hello there".to_owned())));
        assert_eq!(read("  "), Ok(Line::Nothing));
        assert_eq!(read("/to bo@home.example"), Ok(Line::To("bo@home.example".parse().unwrap())));
        let file = Line::File { path: "a.png".into(), caption: "look here".to_owned() };
        assert_eq!(read("/file a.png look here"), Ok(file));
        assert_eq!(read("/consent off\r\n"), Ok(Line::Consent(false)));
        for wrong in ["/to bo", "/file", "/consent", "/shout"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&"a".repeat(MAX_LINE_BYTES + 1)).is_err());
    }
}
