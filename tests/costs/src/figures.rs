//! What a path costs, what is on record, and whether the one fits the other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What one operation of a path costs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cost {
    /// Instructions of the program and its libraries, not of the kernel.
    pub(crate) instructions: f64,
    /// Blocks of memory that are asked for.
    pub(crate) allocations: f64,
    /// Their bytes.
    pub(crate) bytes: f64,
}

/// With what the figures were made: what they depend on besides the code.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Maker {
    /// Of the processor.
    pub(crate) architecture: String,
    /// Version of valgrind, which decides which instructions the processor seems to have.
    pub(crate) valgrind: String,
    /// Version of the C compiler, which builds SQLite and the cryptography.
    pub(crate) cc: String,
    /// The C library, with its allocator and its ways to copy.
    pub(crate) libc: String,
}

/// By how much a figure may differ, as a share of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tolerance {
    /// More instructions.
    pub(crate) more: f64,
    /// More allocations, or bytes.
    pub(crate) more_memory: f64,
    /// Less of anything; `None`: as much as it likes.
    pub(crate) less: Option<f64>,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    pub(crate) made_with: Maker,
    paths: BTreeMap<String, Cost>,
}

/// How a cost compares with what is on record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// As recorded.
    Fits,
    /// What costs more than it may.
    Dearer(Vec<Difference>),
    /// What costs less, which is to be kept.
    Cheaper(Vec<Difference>),
    /// Nothing is on record.
    Unknown,
}

/// One of a cost's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    what: &'static str,
    on_record: f64,
    now: f64,
    /// The bound that it is beyond.
    bound: f64,
}

/// Within one maker. The counts of one build differ by less than one in a hundred; the rest is for what the compiler makes
/// of an unrelated change.
const MORE: f64 = 0.05;
/// What is allocated depends on the code alone.
const MORE_MEMORY: f64 = 0.02;
const LESS: f64 = 0.10;
/// With other tools.
const MORE_ELSEWHERE: f64 = 0.25;
const MORE_MEMORY_ELSEWHERE: f64 = 0.05;
/// Less than so much never counts: a buffer that grew once in many messages.
const ALLOCATIONS_SLACK: f64 = 0.3;
const BYTES_SLACK: f64 = 128.0;
const INSTRUCTIONS_SLACK: f64 = 50.0;

const HEAD: &str = "\
# What the core paths cost, for each operation (docs/costs.md). Written by `make costs RECORD=1`; `make test` compares.

";

impl Cost {
    /// The lesser of each figure.
    pub(crate) fn least(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.min(other.instructions),
            allocations: self.allocations.min(other.allocations),
            bytes: self.bytes.min(other.bytes),
        }
    }

    fn rounded(self) -> Self {
        Self {
            instructions: self.instructions.round(),
            allocations: (self.allocations * 100.0).round() / 100.0,
            bytes: self.bytes.round(),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instructions, allocations, bytes } = self;
        write!(f, "{instructions:>9.0} instructions {allocations:>7.2} allocations {bytes:>7.0} bytes")
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, valgrind, cc, libc } = self;
        write!(f, "{architecture}, valgrind {valgrind}, cc {cc}, {libc}")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, on_record, now, bound } = self;
        let (share, way) = ((now / on_record - 1.0) * 100.0, if now > on_record { "more" } else { "less" });
        let digits = if *what == "allocations" { 2 } else { 0 };
        let share = if share.is_finite() { format!(", {:.1} % {way}", share.abs()) } else { String::new() };
        write!(f, "{now:.digits$} {what}, on record are {on_record:.digits$}{share} (bound: {bound:.digits$})")
    }
}

impl Verdict {
    /// What is wrong with a path, if anything is.
    pub(crate) fn complaint(&self, name: &str) -> Option<String> {
        let listed = |differences: &[Difference]| {
            let texts: Vec<String> = differences.iter().map(Difference::to_string).collect();
            texts.join("; ")
        };
        match self {
            Self::Fits => None,
            Self::Dearer(what) => {
                let profile = format!("make costs PROFILE={name}");
                Some(format!("{name} COSTS MORE: {}. Where: {profile}", listed(what)))
            }
            Self::Cheaper(what) => Some(format!("{name} costs less: {}. Record it, so that it stays so", listed(what))),
            Self::Unknown => Some(format!("{name} is not on record")),
        }
    }
}

impl Figures {
    pub(crate) const fn new(made_with: Maker) -> Self {
        Self { made_with, paths: BTreeMap::new() }
    }

    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }

    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self).context("the figures as TOML")?;
        std::fs::write(file, format!("{HEAD}{text}")).with_context(|| file.display().to_string())
    }

    pub(crate) fn set(&mut self, name: &str, cost: Cost) {
        self.paths.insert(name.to_owned(), cost.rounded());
    }

    /// What holds for figures that are made with these tools.
    pub(crate) fn tolerance(&self, here: &Maker) -> Tolerance {
        if self.made_with == *here {
            Tolerance { more: MORE, more_memory: MORE_MEMORY, less: Some(LESS) }
        } else if self.made_with.architecture == here.architecture {
            Tolerance { more: MORE_ELSEWHERE, more_memory: MORE_MEMORY_ELSEWHERE, less: None }
        } else {
            // Other instructions altogether.
            Tolerance { more: f64::INFINITY, more_memory: MORE_MEMORY_ELSEWHERE, less: None }
        }
    }

    pub(crate) fn judge(&self, name: &str, now: Cost, tolerance: Tolerance) -> Verdict {
        let Some(on_record) = self.paths.get(name) else { return Verdict::Unknown };
        let figures = [
            ("instructions", on_record.instructions, now.instructions, tolerance.more, INSTRUCTIONS_SLACK),
            ("allocations", on_record.allocations, now.allocations, tolerance.more_memory, ALLOCATIONS_SLACK),
            ("bytes", on_record.bytes, now.bytes, tolerance.more_memory, BYTES_SLACK),
        ];
        let (mut dearer, mut cheaper) = (Vec::new(), Vec::new());
        for (what, on_record, now, more, slack) in figures {
            let most = on_record + (on_record * more).max(slack);
            let least = tolerance.less.map(|less| on_record - (on_record * less).max(slack));
            if now > most {
                dearer.push(Difference { what, on_record, now, bound: most });
            } else if let Some(least) = least.filter(|least| now < *least) {
                cheaper.push(Difference { what, on_record, now, bound: least });
            }
        }
        match (dearer.is_empty(), cheaper.is_empty()) {
            (false, _) => Verdict::Dearer(dearer),
            (true, false) => Verdict::Cheaper(cheaper),
            (true, true) => Verdict::Fits,
        }
    }

    /// What is on record and not among these.
    pub(crate) fn strangers<'a>(&self, known: impl Iterator<Item = &'a str>) -> Vec<String> {
        let known: Vec<&str> = known.collect();
        self.paths.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        let text = str::to_owned;
        Maker { architecture: text("x86_64"), valgrind: text("3.19.0"), cc: text("12.2.0"), libc: text("glibc 2.36") }
    }

    const COST: Cost = Cost { instructions: 10_000.0, allocations: 10.0, bytes: 5_000.0 };

    fn figures() -> Figures {
        let mut figures = Figures::new(maker());
        figures.set("a-path", COST);
        figures
    }

    fn judged(now: Cost) -> Verdict {
        figures().judge("a-path", now, figures().tolerance(&maker()))
    }

    fn named(differences: &[Difference]) -> Vec<&str> {
        differences.iter().map(|difference| difference.what).collect()
    }

    #[test]
    fn what_costs_as_much_as_before_fits() {
        assert_eq!(judged(COST), Verdict::Fits);
        assert_eq!(judged(Cost { instructions: 10_499.0, allocations: 10.3, ..COST }), Verdict::Fits);
        assert_eq!(judged(Cost { instructions: 9_001.0, ..COST }), Verdict::Fits);
    }

    #[test]
    fn what_costs_more_is_named_with_both_figures_and_how_to_accept_it() {
        let now = Cost { instructions: 10_600.0, ..COST };
        let verdict = judged(now);
        let complaint = verdict.complaint("a-path").unwrap();
        assert!(matches!(&verdict, Verdict::Dearer(what) if named(what) == ["instructions"]), "{verdict:?}");
        for part in ["a-path COSTS MORE", "10600 instructions", "on record are 10000", "6.0 % more", "PROFILE=a-path"] {
            assert!(complaint.contains(part), "{complaint}");
        }
    }

    #[test]
    fn one_allocation_more_is_seen() {
        let verdict = judged(Cost { allocations: 11.0, bytes: 5_400.0, ..COST });
        assert!(matches!(&verdict, Verdict::Dearer(what) if named(what) == ["allocations", "bytes"]), "{verdict:?}");
    }

    #[test]
    fn what_became_cheaper_is_to_be_recorded_unless_something_else_became_dearer() {
        let cheaper = Cost { instructions: 8_000.0, ..COST };
        let verdict = judged(cheaper);
        assert!(matches!(&verdict, Verdict::Cheaper(what) if named(what) == ["instructions"]), "{verdict:?}");
        assert!(verdict.complaint("a-path").unwrap().contains("20.0 % less"));
        let both = judged(Cost { allocations: 20.0, ..cheaper });
        assert!(matches!(&both, Verdict::Dearer(what) if named(what) == ["allocations"]), "{both:?}");
    }

    #[test]
    fn small_figures_have_room_for_a_rare_growth_and_no_more() {
        let mut figures = Figures::new(maker());
        let small = Cost { instructions: 100.0, allocations: 0.0, bytes: 0.0 };
        figures.set("small", small);
        let judge = |now| figures.judge("small", now, figures.tolerance(&maker()));
        assert_eq!(judge(Cost { instructions: 140.0, allocations: 0.1, bytes: 30.0 }), Verdict::Fits);
        assert_eq!(judge(Cost { instructions: 60.0, ..small }), Verdict::Fits);
        let verdict = judge(Cost { allocations: 1.0, ..small });
        assert!(matches!(&verdict, Verdict::Dearer(what) if named(what) == ["allocations"]), "{verdict:?}");
    }

    #[test]
    fn with_other_tools_more_is_let_through_and_a_gain_is_not_asked_about() {
        let elsewhere = Maker { cc: "14.2.0".to_owned(), ..maker() };
        let tolerance = figures().tolerance(&elsewhere);
        let judge = |instructions| figures().judge("a-path", Cost { instructions, ..COST }, tolerance);
        assert_eq!(judge(12_400.0), Verdict::Fits);
        assert_eq!(judge(5_000.0), Verdict::Fits);
        assert!(matches!(judge(12_600.0), Verdict::Dearer(_)));
        // What instructions there are is the processor's; what is allocated is not.
        let other_processor = Maker { architecture: "aarch64".to_owned(), ..maker() };
        let tolerance = figures().tolerance(&other_processor);
        let judge = |now| figures().judge("a-path", now, tolerance);
        assert_eq!(judge(Cost { instructions: 50_000.0, ..COST }), Verdict::Fits);
        assert!(matches!(judge(Cost { allocations: 11.0, ..COST }), Verdict::Dearer(_)));
    }

    #[test]
    fn paths_and_the_record_are_the_same() {
        assert_eq!(figures().judge("another", COST, figures().tolerance(&maker())), Verdict::Unknown);
        assert!(Verdict::Unknown.complaint("another").is_some());
        assert_eq!(figures().strangers(["another"].into_iter()), ["a-path"]);
        let on_record = Figures::read(Path::new(crate::RECORD)).unwrap();
        let names = || crate::paths::ALL.iter().map(|path| path.name);
        assert!(on_record.strangers(names()).is_empty());
        for name in names() {
            assert!(on_record.paths.contains_key(name), "{name} is not on record");
        }
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("figures.toml");
        figures().write(&file).unwrap();
        assert_eq!(Figures::read(&file).unwrap(), figures());
    }
}
