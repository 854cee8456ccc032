//! The reference of all settings, `docs/configuration.md`. It is made from the structures that hold the settings: names, types
//! and meanings from their sources, defaults from their values, and ranges from what the checks refuse. A test fails while the
//! file is another; with `CAUSEWAY_WRITE_REFERENCE=1` in its environment it writes the file instead.

mod probe;
mod render;
mod source;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::probe::Probe;
use self::source::{Field, Sources, Structure};
use crate::config::Config;

/// A setting.
struct Leaf {
    /// `edge.max_connections`.
    path: String,
    field: Field,
    default: Value,
    /// Least and most, of numbers.
    range: Option<(String, String)>,
}

struct Section {
    /// `edge.redis`.
    path: String,
    /// What the structure says about itself.
    about: String,
    /// It is absent unless it is written.
    optional: bool,
    leaves: Vec<Leaf>,
}

/// All sections, each before those in it.
fn sections(sources: &Sources, probe: &Probe) -> Vec<Section> {
    let mut all = Vec::new();
    let top = sources.structure("Config", Path::new("services/causeway/src/config.rs"));
    for section in &top.fields {
        add(&mut all, sources, probe, &section.name, section);
    }
    all
}

fn add(all: &mut Vec<Section>, sources: &Sources, probe: &Probe, path: &str, held: &Field) {
    let structure = sources.structure(&held.kind, &held.file);
    let mut section =
        Section { path: path.to_owned(), about: about(structure, held), optional: held.optional, leaves: Vec::new() };
    let mut inner = Vec::new();
    for field in flat(sources, structure) {
        let path = format!("{path}.{}", field.name);
        if sources.has_structure(&field.kind) {
            inner.push((path, field));
            continue;
        }
        let (default, range) = (probe.default(&path), probe.range(&path, &field.kind));
        section.leaves.push(Leaf { path, field, default, range });
    }
    all.push(section);
    for (path, field) in inner {
        add(all, sources, probe, &path, &field);
    }
}

/// What the field says that holds a section, or the section's structure.
fn about(structure: &Structure, held: &Field) -> String {
    let text = if held.doc.is_empty() { &structure.doc } else { &held.doc };
    text.replace(" Default none.", "")
}

/// The fields, those of flattened structures in their places.
fn flat(sources: &Sources, structure: &Structure) -> Vec<Field> {
    let mut fields = Vec::new();
    for field in &structure.fields {
        if field.flattened {
            fields.extend(flat(sources, sources.structure(&field.kind, &field.file)));
        } else {
            fields.push(field.clone());
        }
    }
    fields
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Stands for the data folder.
const DATA: &str = "<data>";

#[test]
fn the_reference_is_what_the_structures_say() {
    let (sources, probe) = (Sources::of(&root()), Probe::new());
    let sections = sections(&sources, &probe);
    let made = render::page(&sources, &sections);
    let file = root().join("docs/configuration.md");
    if std::env::var_os("CAUSEWAY_WRITE_REFERENCE").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "run this test with CAUSEWAY_WRITE_REFERENCE=1 and commit docs/configuration.md: {differs:?}"
    );
}

#[test]
fn every_setting_is_in_the_reference() {
    let (sources, probe) = (Sources::of(&root()), Probe::new());
    let mut listed: Vec<String> = sections(&sources, &probe)
        .iter()
        .flat_map(|section| section.leaves.iter().map(|leaf| leaf.path.clone()))
        .collect();
    let mut real = probe.paths();
    listed.sort();
    real.sort();
    assert_eq!(listed, real);
}

#[test]
fn every_number_has_a_range_and_its_error_names_its_whole_path() {
    let (sources, probe) = (Sources::of(&root()), Probe::new());
    let numbers = |leaf: &Leaf| probe::greatest(&leaf.field.kind).is_some();
    let all = sections(&sources, &probe);
    let leaves = all.iter().flat_map(|section| &section.leaves);
    let without: Vec<&str> =
        leaves.filter(|leaf| leaf.range.is_none() && numbers(leaf)).map(|leaf| &*leaf.path).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn what_is_written_about_a_setting_is_true() {
    let (sources, probe) = (Sources::of(&root()), Probe::new());
    let mut wrong = Vec::new();
    for section in sections(&sources, &probe) {
        for leaf in section.leaves {
            // What agrees with the default and the range was taken out.
            let meaning = render::meaning(&leaf);
            let stated = ["efault ", "efault: "]
                .iter()
                .any(|lead| meaning.split(lead).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
            let ranged = meaning.split('(').skip(1).any(|rest| {
                let inner = rest.split(')').next().unwrap_or_default();
                let least = inner.split(" to ").next().unwrap_or_default();
                inner.contains(" to ") && !least.is_empty() && least.chars().all(|c| c.is_ascii_digit() || c == ' ')
            });
            if meaning.is_empty() || stated || ranged {
                wrong.push(format!("{}: {meaning}", leaf.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "nothing, another default than `Default N.`, or another range than `(A to B)`: {wrong:#?}"
    );
}

#[test]
fn a_wrong_type_is_named_with_its_whole_path() {
    let mut wrong = Vec::new();
    for path in Probe::new().paths() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, format!("{path} = {{ nonsense = [1] }}").as_bytes()).unwrap();
        let error = Config::load(Path::new(DATA), Some(file.path()), None).unwrap_err().to_string();
        if !error.contains(&path) {
            wrong.push(format!("{path}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
