//! Lines for a terminal or a pipe: styled pieces, tables that fit a width, and numbers for people.

mod numbers;
mod table;

use std::fmt::Write as _;

pub(crate) use self::numbers::{bytes, count, duration, percent, rate, seconds};
pub(crate) use self::table::{Column, Table};

/// How a piece of a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Dim,
    Bold,
    Good,
    Warning,
    Bad,
}

/// A piece of a line; all its characters are one cell wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) style: Style,
}

impl Piece {
    pub(crate) fn new(text: impl Into<String>, style: Style) -> Self {
        // What others wrote may hold wide characters, which would break columns.
        let narrow = |c| if matches!(c, ' '..='~' | '…' | '─' | '·') { c } else { '?' };
        Self { text: text.into().chars().map(narrow).collect(), style }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Style::Plain)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// One line.
pub(crate) type Line = Vec<Piece>;

/// The text of a line, cut to a width if there is one, with the terminal's codes for styles if wanted.
pub(crate) fn paint(line: &Line, width: Option<usize>, colours: bool) -> String {
    let mut left = width.unwrap_or(usize::MAX);
    let whole: String = line.iter().map(|piece| piece.text.as_str()).collect();
    // Blanks at the end are no loss.
    let cut = whole.trim_end().chars().count() > left;
    if cut {
        left = left.saturating_sub(1);
    }
    let mut painted = String::new();
    for piece in line {
        let text: String = piece.text.chars().take(left).collect();
        left -= text.chars().count();
        let code = match piece.style {
            Style::Plain => "",
            Style::Dim => "2",
            Style::Bold => "1",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "1;31",
        };
        if text.is_empty() || !colours || code.is_empty() {
            painted.push_str(&text);
        } else {
            let _infallible = write!(painted, "\u{1b}[{code}m{text}\u{1b}[0m");
        }
    }
    if cut && width != Some(0) {
        painted.push('…');
    }
    if !colours {
        painted.truncate(painted.trim_end().len());
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_painted() {
        let line = vec![Piece::plain("abc "), Piece::new("d\u{1b}[2Jé漢", Style::Bad)];
        assert_eq!(paint(&line, None, false), "abc d?[2J??");
        assert_eq!(paint(&line, Some(6), false), "abc d…");
        assert_eq!(paint(&line, Some(6), true), "abc \u{1b}[1;31md\u{1b}[0m…");
        assert_eq!(paint(&line, Some(0), false), "");
    }
}
