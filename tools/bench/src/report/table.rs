//! Tables, for a terminal and for a document.

use super::{Figure, Report, Run};

const HEAD: [&str; 5] = ["", "median", "min .. max", "goal", ""];

/// A run as lines for a terminal.
pub(crate) fn text(run: &Run) -> String {
    let mut lines = vec![format!("{} ({})", run.scenario, run.deployment)];
    if !run.parameters.is_empty() {
        lines.push(format!("  {}", parameters(run)));
    }
    let mut rows = vec![HEAD.map(ToOwned::to_owned).to_vec()];
    rows.extend(run.figures.iter().map(|figure| row(figure).to_vec()));
    lines.push(grid(&rows, 1));
    lines.extend(run.notes.iter().map(|note| format!("  {note}")));
    lines.join("\n")
}

/// Rows in columns: names to the left, numbers to the right; so many columns at the end are names too.
pub(super) fn grid(rows: &[Vec<String>], names_at_the_end: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row: &Vec<String>| Some(row.get(column)?.chars().count())).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let to_the_left = index == 0 || index + names_at_the_end >= columns;
            line += &if to_the_left { format!("{cell}{pad}  ") } else { format!("{pad}{cell}  ") };
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// All runs in Markdown.
pub(crate) fn markdown(report: &Report) -> String {
    let mut parts = vec![format!("{}\n\n{}", report.machine, report.settings)];
    parts.extend(goals(&report.runs));
    for run in &report.runs {
        let mut part = format!("### {}: {}\n\n", run.scenario, run.deployment);
        if !run.parameters.is_empty() {
            part += &format!("{}.\n\n", capital(&parameters(run)));
        }
        part += "| | median | min .. max | goal | |\n|---|---:|---:|---:|---|\n";
        for figure in &run.figures {
            part += &line(&marked(figure));
        }
        for note in &run.notes {
            part += &format!("\n{note}\n");
        }
        parts.push(part.trim_end().to_owned());
    }
    parts.join("\n\n") + "\n"
}

/// All figures that have a goal, of all runs; nothing if there is none.
fn goals(runs: &[Run]) -> Option<String> {
    let all = runs.iter().flat_map(|run| run.figures.iter().map(move |figure| (run, figure)));
    let lines = all.filter(|(_, figure)| figure.is_met().is_some()).map(|(run, figure)| {
        let [name, median, spread, goal, judged] = marked(figure);
        line(&[format!("{}: {name} ({})", run.scenario, run.deployment), median, spread, goal, judged])
    });
    let lines: String = lines.collect();
    let head = "### Goals\n\n| | median | min .. max | goal | |\n|---|---:|---:|---:|---|\n";
    (!lines.is_empty()).then(|| format!("{head}{}", lines.trim_end()))
}

/// A row for a document, in which a goal that is missed stands out.
fn marked(figure: &Figure) -> [String; 5] {
    let mut cells = row(figure);
    if figure.is_met() == Some(false) {
        cells[4] = "**missed**".to_owned();
    }
    cells
}

fn line(cells: &[String; 5]) -> String {
    format!("| {} |\n", cells.each_ref().map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn row(figure: &Figure) -> [String; 5] {
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| figure.show(value));
    let spread = match figure.spread() {
        Some((least, most)) if figure.values.len() > 1 => format!("{} .. {}", figure.show(least), figure.show(most)),
        _ => String::new(),
    };
    let judged = match figure.is_met() {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    };
    [figure.name.clone(), show(figure.median()), spread, figure.show_goal(), judged.to_owned()]
}

fn parameters(run: &Run) -> String {
    run.parameters.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::machine::Machine;
    use crate::report::{Goal, Unit};

    fn run() -> Run {
        Run {
            scenario: "pairs".to_owned(),
            deployment: "all, sqlite".to_owned(),
            parameters: [("pairs".to_owned(), "200".to_owned())].into(),
            figures: vec![
                Figure::new("messages", Unit::PerS, [80_000.0, 90_000.0, 85_000.0]).goal(Goal::AtLeast(80_000.0)),
                Figure::new("server CPU a message", Unit::Us, [13.0]).goal(Goal::AtMost(12.0)),
                Figure::new("nothing", Unit::Count, []),
            ],
            notes: vec!["A note.".to_owned()],
        }
    }

    #[test]
    fn a_terminal_gets_columns() {
        let expected = "\
pairs (all, sqlite)
  pairs 200
                          median               min .. max          goal
messages              85,000 /s  80,000 /s .. 90,000 /s  >= 80,000 /s  met
server CPU a message    13.0 us                             <= 12.0 us  missed
nothing                       -
  A note.";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = text(&run());
        assert_eq!(squeeze(&shown), squeeze(expected));
        // Columns are below each other.
        let ends: Vec<_> =
            shown.lines().skip(3).take(2).map(|line| line.find(" us").or(line.find(" /s")).unwrap()).collect();
        assert_eq!(ends[0], ends[1]);
    }

    #[test]
    fn a_document_says_what_was_missed() {
        let report = Report { machine: Machine::default(), settings: "Settings.".to_owned(), runs: vec![run()] };
        let shown = markdown(&report);
        assert!(shown.contains("| messages | 85,000 /s | 80,000 /s .. 90,000 /s | >= 80,000 /s | met |\n"), "{shown}");
        assert!(shown.contains("| server CPU a message | 13.0 us |  | <= 12.0 us | **missed** |\n"));
        assert!(
            shown.contains(
                "| pairs: messages (all, sqlite) | 85,000 /s | 80,000 /s .. 90,000 /s | >= 80,000 /s | met |\n"
            )
        );
        assert!(!shown.contains("pairs: nothing"), "{shown}");
        assert!(shown.contains("### pairs: all, sqlite\n\nPairs 200.\n"));
    }
}
