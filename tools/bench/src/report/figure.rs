//! A figure, its repetitions, and what it should be.

use serde::{Deserialize, Serialize};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// So many a second.
    PerS,
    /// KiB.
    Kib,
    /// Of two processors, 200.
    Percent,
    /// Just a number.
    Count,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// A figure, with a value of each repetition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: String,
    /// What it counts.
    pub(crate) unit: Unit,
    /// Of each repetition.
    pub(crate) values: Vec<f64>,
    /// What it should be.
    pub(crate) goal: Option<Goal>,
}

impl Figure {
    /// One without a goal.
    pub(crate) fn new(name: &str, unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        Self { name: name.to_owned(), unit, values: values.into_iter().collect(), goal: None }
    }

    /// With a goal.
    #[must_use]
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// The middle one, or the mean of the two in the middle; `None` without any.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
    }

    /// Least and most.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let least = self.values.iter().copied().min_by(f64::total_cmp)?;
        let most = self.values.iter().copied().max_by(f64::total_cmp)?;
        Some((least, most))
    }

    /// Whether the median is as it should be; `None` without a goal or values.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let median = self.median()?;
        Some(match self.goal? {
            Goal::AtMost(most) => median <= most,
            Goal::AtLeast(least) => median >= least,
        })
    }

    /// A value as a reader wants it.
    pub(crate) fn show(&self, value: f64) -> String {
        let number = match value.abs() {
            _ if self.unit == Unit::Count => format!("{value:.0}"),
            size if size >= 10_000.0 => thousands(value),
            size if size >= 100.0 => format!("{value:.0}"),
            size if size >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        let unit = match self.unit {
            Unit::Us => " us",
            Unit::Ms => " ms",
            Unit::PerS => " /s",
            Unit::Kib => " KiB",
            Unit::Percent => " %",
            Unit::Count => "",
        };
        format!("{number}{unit}")
    }

    /// The goal as a reader wants it.
    pub(crate) fn show_goal(&self) -> String {
        match self.goal {
            Some(Goal::AtMost(most)) => format!("<= {}", self.show(most)),
            Some(Goal::AtLeast(least)) => format!(">= {}", self.show(least)),
            None => String::new(),
        }
    }
}

/// 81,234.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    format!("{sign}{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_judged() {
        let figure = Figure::new("x", Unit::Us, [30.0, 10.0, 14.0]).goal(Goal::AtMost(12.0));
        assert_eq!(figure.median(), Some(14.0));
        assert_eq!(figure.spread(), Some((10.0, 30.0)));
        assert_eq!(figure.is_met(), Some(false));
        assert_eq!(Figure::new("x", Unit::Us, [30.0, 10.0]).goal(Goal::AtLeast(20.0)).is_met(), Some(true));
        assert_eq!(Figure::new("x", Unit::Us, []).goal(Goal::AtLeast(20.0)).is_met(), None);
        assert_eq!(Figure::new("x", Unit::Us, [1.0]).is_met(), None);
    }

    #[test]
    fn numbers_are_readable() {
        let show = |unit, value| Figure::new("x", unit, []).show(value);
        assert_eq!(show(Unit::PerS, 1_234_567.8), "1,234,568 /s");
        assert_eq!(show(Unit::Us, 123.4), "123 us");
        assert_eq!(show(Unit::Ms, 0.456), "0.46 ms");
        assert_eq!(show(Unit::Kib, 54.321), "54.3 KiB");
        assert_eq!(show(Unit::Count, 0.0), "0");
    }
}
