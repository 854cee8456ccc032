//! Puts tables into a document, between two marks.

use std::path::Path;

use anyhow::Context as _;

/// Marks of the place.
const BEGIN: &str = "<!-- bench: begin; made by `make bench`, do not edit -->";
const END: &str = "<!-- bench: end -->";

/// Replaces what is between the marks in a file.
pub(crate) fn write(file: &Path, tables: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let text =
        replaced(&text, tables).with_context(|| format!("{} has no place for tables: {BEGIN}", file.display()))?;
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

fn replaced(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n");
        let once = replaced(&text, "new\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nrest\n"));
        assert_eq!(replaced(&once, "new").unwrap(), once);
        assert_eq!(replaced("no place", "new"), None);
        assert_eq!(replaced(&format!("{END}{BEGIN}"), "new"), None);
    }
}
