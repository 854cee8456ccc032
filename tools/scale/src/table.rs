//! Numbers and tables in Markdown, and where they go.

use std::path::Path;

use anyhow::Context as _;

const BEGIN: &str = "<!-- scale: begin; made by `causeway-scale`, do not edit -->";
const END: &str = "<!-- scale: end -->";

/// With some three digits, and a word for what is large.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        _ if size >= 1e12 => (value / 1e12, " T"),
        _ if size >= 1e9 => (value / 1e9, " G"),
        _ if size >= 1e6 => (value / 1e6, " M"),
        _ => (value, ""),
    };
    let places = match scaled.abs() {
        size if size == 0.0 || size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 4,
        _ => 8,
    };
    let text = format!("{scaled:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{}{unit}", grouped(text))
}

/// Thousands apart.
fn grouped(text: &str) -> String {
    let (whole, rest) = text.find('.').map_or((text, ""), |at| text.split_at(at));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// A table; all columns but the first are to the right if `numbers`.
pub(crate) fn table(head: &[&str], numbers: bool, rows: &[Vec<String>]) -> String {
    let rule = if numbers { "---:|" } else { "---|" };
    let mut out = format!("| {} |\n|---|{}\n", head.join(" | "), rule.repeat(head.len().saturating_sub(1)));
    for row in rows {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    out
}

/// Replaces what is between the marks in a file.
pub(crate) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let after = replaced(&before, text).with_context(|| format!("{} has no place: {BEGIN}", file.display()))?;
    std::fs::write(file, after).with_context(|| format!("{} cannot be written", file.display()))
}

fn replaced(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        for (value, text) in [
            (0.0, "0"),
            (1.3, "1.3"),
            (41.3, "41.3"),
            (24_590.0, "24,590"),
            (999_999.0, "999,999"),
            (4e12, "4 T"),
            (1_234_567.0, "1.23 M"),
            (0.0816, "0.0816"),
            (4e-7, "0.0000004"),
            (100.0, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = replaced(&document, "new").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
        assert_eq!(replaced("none", "new"), None);
    }
}
