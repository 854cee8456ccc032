//! Tables whose columns are as wide as their cells, and fewer where there is no room.

use super::{Line, Piece, Style};

const GAP: usize = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    /// Those with the highest number go first when there is no room.
    rank: u8,
}

impl Column {
    /// Text, from the left.
    pub(crate) const fn text(title: &'static str, rank: u8) -> Self {
        Self { title, right: false, rank }
    }

    /// A number, from the right.
    pub(crate) const fn number(title: &'static str, rank: u8) -> Self {
        Self { title, right: true, rank }
    }
}

/// Cells, a row for each thing.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Piece>>,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A row, with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Piece>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The heading, and a line for each row.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<Line> {
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(at, column)| self.wide(at, column)).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        if let Some(width) = width {
            let whole = |shown: &[usize]| {
                shown.iter().map(|at| widths[*at]).sum::<usize>() + GAP * shown.len().saturating_sub(1)
            };
            while whole(&shown) > width {
                let last = shown.iter().copied().max_by_key(|at| self.columns[*at].rank);
                match last.filter(|at| self.columns[*at].rank > 0) {
                    Some(last) => shown.retain(|at| *at != last),
                    None => break,
                }
            }
        }
        let heading = self.columns.iter().map(|column| Piece::new(column.title, Style::Dim)).collect();
        let rows = std::iter::once(&heading).chain(&self.rows);
        rows.map(|row: &Vec<Piece>| self.line(row, &shown, &widths)).collect()
    }

    fn wide(&self, at: usize, column: &Column) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(at)).map(Piece::width);
        cells.chain([column.title.len()]).max().unwrap_or_default()
    }

    fn line(&self, row: &[Piece], shown: &[usize], widths: &[usize]) -> Line {
        let mut line = Line::new();
        for (place, at) in shown.iter().enumerate() {
            let Some(cell) = row.get(*at) else { continue };
            if place > 0 {
                line.push(Piece::plain(" ".repeat(GAP)));
            }
            let padding = Piece::plain(" ".repeat(widths[*at].saturating_sub(cell.width())));
            if self.columns[*at].right {
                line.extend([padding, cell.clone()]);
            } else {
                line.extend([cell.clone(), padding]);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint;
    use super::*;

    #[test]
    fn columns_go_when_there_is_no_room() {
        let mut table = Table::new(&[Column::text("NAME", 0), Column::number("RATE", 1), Column::text("MORE", 2)]);
        table.row(["edge", "7", "of it"].map(Piece::plain).to_vec());
        table.row(["routing", "12.5", ""].map(Piece::plain).to_vec());
        let shown =
            |width| -> Vec<String> { table.lines(width).iter().map(|line| paint(line, width, false)).collect() };
        assert_eq!(shown(None), ["NAME     RATE  MORE", "edge        7  of it", "routing  12.5"]);
        assert_eq!(shown(Some(19)), ["NAME     RATE", "edge        7", "routing  12.5"]);
        assert_eq!(shown(Some(6)), ["NAME", "edge", "routi…"]);
    }
}
