//! Puts tables into a document, between two marks.

use std::path::Path;

use anyhow::Context as _;

/// A place in a document: its name in the marks `<!-- name: begin ... -->` and `<!-- name: end -->`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) &'static str);

/// Where the tables of all works belong.
pub(crate) const BENCH: Place = Place("bench");
/// Where the comparison with other servers belongs.
pub(crate) const PEERS: Place = Place("peers");

/// Fails if a file has no such place, or cannot be read.
pub(crate) fn check(file: &Path, place: Place) -> anyhow::Result<()> {
    with(file, place, "").map(drop)
}

/// Replaces what is between the marks of a place in a file.
pub(crate) fn write(file: &Path, place: Place, tables: &str) -> anyhow::Result<()> {
    let text = with(file, place, tables)?;
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

fn with(file: &Path, place: Place, tables: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    replaced(&text, place, tables).with_context(|| {
        let Place(name) = place;
        format!("{} has no place for tables: <!-- {name}: begin --> and <!-- {name}: end -->", file.display())
    })
}

fn replaced(text: &str, Place(name): Place, tables: &str) -> Option<String> {
    let begin = text.find(&format!("<!-- {name}: begin"))?;
    let begin = begin + text[begin..].find("-->")? + "-->".len();
    let end = begin + text[begin..].find(&format!("<!-- {name}: end -->"))?;
    Some(format!("{}\n\n{}\n\n{}", &text[..begin], tables.trim(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_of_a_place_changes() {
        let peers = "<!-- peers: begin -->\nkept\n<!-- peers: end -->";
        let text = format!("# Title\n\n{peers}\n<!-- bench: begin; any -->\nold\n<!-- bench: end -->\n\nrest\n");
        let once = replaced(&text, BENCH, "new\n").unwrap();
        let expected = text.replace("any -->\nold\n", "any -->\n\nnew\n\n");
        assert_eq!(once, expected);
        assert_eq!(replaced(&once, BENCH, "new").unwrap(), once);
        assert!(replaced(&once, PEERS, "other").unwrap().contains("<!-- peers: begin -->\n\nother\n\n<!-- peers: end"));
        assert_eq!(replaced("no place", BENCH, "new"), None);
        assert_eq!(replaced("<!-- bench: end --><!-- bench: begin -->", BENCH, "new"), None);
    }
}
