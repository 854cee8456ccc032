//! The page.

use std::fmt::Write as _;

use serde_json::Value;

use super::source::Sources;
use super::{DATA, Leaf, Section};

const HEAD: &str = "# Configuration

<!-- Made by the test `reference` of services/causeway from the structures that hold the settings; do not edit. To make it again:
     CAUSEWAY_WRITE_REFERENCE=1 cargo nextest run -p causeway reference -->

Every setting of `causeway`, its default and its range. `causeway config-reference` prints this page as it is for that version.

- **A file** in TOML, by `--config FILE` or `CAUSEWAY_CONFIG`; [causeway.toml](causeway.toml) is one to begin with.
- **The environment** goes before the file: `CAUSEWAY_<SECTION>__<FIELD>`, two underscores for each dot, as named below each
  field. A list is written as in TOML: `CAUSEWAY_SERVER__ROUTING_URLS='[\"http://10.0.0.1:7451\", \"http://10.0.0.2:7451\"]'`.
- **Secrets are never settings**, only the paths of files that hold them, which others must not be able to read.
- All services can share one file. A process checks the sections that it uses, and refuses fields that nobody knows wherever
  they are. `causeway check-config` checks everything, and that the sections fit each other; `causeway check-config --service
  edge` (or `routing`, `key-directory`, `media-relay`, `all`) checks what a process of that service would, with its environment.
- `<data>` is the folder of `--data` or `CAUSEWAY_DATA`, `.causeway/data` if none is given. It and `--config` are no settings.
- Where a default is empty or none, nothing is set. A range includes both ends.

";

pub(super) fn page(sources: &Sources, sections: &[Section]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| section | used by |\n|---|---|\n");
    for section in sections {
        let anchor: String = section.path.chars().filter(|c| *c != '.').collect();
        let _infallible = writeln!(page, "| [`[{}]`](#{anchor}) | {} |", section.path, users(&section.path));
    }
    for section in sections {
        let _infallible = write!(page, "\n## [{}]\n\n{}\n", section.path, cell(&section.about));
        if section.optional {
            page.push_str("\nThe section is absent by default; it begins to count when any of it is set.\n");
        }
        if section.leaves.is_empty() {
            continue;
        }
        page.push_str("\n| field and variable | type | default | range | meaning |\n|---|---|---|---|---|\n");
        for leaf in &section.leaves {
            let variable = format!("CAUSEWAY_{}", leaf.path.to_ascii_uppercase().replace('.', "__"));
            let name = &leaf.field.name;
            let (kind, default, range) = (kind(sources, leaf), cell(&default(leaf)), range(leaf));
            let meaning = cell(&meaning(leaf));
            let _infallible = writeln!(page, "| `{name}`<br>`{variable}` | {kind} | {default} | {range} | {meaning} |");
        }
    }
    page
}

/// Which processes use a section.
fn users(path: &str) -> &'static str {
    match path.split('.').next().unwrap_or_default() {
        "edge" => "`edge`, `all`",
        "routing" => "`routing`, `all`",
        "directory" => "`key-directory`, `all`",
        "media" => "`media-relay`, `all`",
        _ => "every process",
    }
}

fn kind(sources: &Sources, leaf: &Leaf) -> String {
    if let Some(values) = sources.choices(&leaf.field) {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return values.join(" or ");
    }
    let unit = unit(leaf).map_or_else(String::new, |unit| format!(", {unit}"));
    match leaf.field.kind.as_str() {
        "u16" | "u32" | "u64" | "usize" => format!("integer{unit}"),
        "f64" => "number".to_owned(),
        "bool" => "true or false".to_owned(),
        "String" => "text".to_owned(),
        "PathBuf" => "path".to_owned(),
        "SocketAddr" => "address and port".to_owned(),
        "Vec<String>" => "list of texts".to_owned(),
        other => panic!("{}: say here what {other} is called", leaf.path),
    }
}

/// The unit, which is in each name.
fn unit(leaf: &Leaf) -> Option<&'static str> {
    let name = leaf.field.name.as_str();
    let units = [
        ("bytes_per_s", "bytes/s"),
        ("per_s", "1/s"),
        ("per_s_per_network", "1/s"),
        ("per_minute", "1/min"),
        ("per_hour", "1/h"),
        ("_ms", "ms"),
        ("_s", "s"),
        ("_bytes", "bytes"),
        ("bytes_burst", "bytes"),
        ("_days", "days"),
    ];
    units.into_iter().find(|(end, _)| name.ends_with(end)).map(|(_, unit)| unit)
}

fn default(leaf: &Leaf) -> String {
    match &leaf.default {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => format!("`{text}`"),
        value @ Value::Number(number) => {
            let human = number.as_u64().and_then(|number| human(number, unit(leaf)));
            format!("`{value}`{}", human.map_or_else(String::new, |human| format!(" ({human})")))
        }
        other => format!("`{other}`"),
    }
}

/// A round number of a larger unit, where that is easier to read.
fn human(number: u64, unit: Option<&str>) -> Option<String> {
    let larger: &[(u64, &str)] = match unit? {
        "ms" => &[(86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")],
        "s" => &[(86_400, "days"), (3_600, "h"), (60, "min")],
        "bytes" | "bytes/s" => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        _ => return None,
    };
    let (size, name) = larger.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size))?;
    Some(format!("{} {name}", number / size))
}

fn range(leaf: &Leaf) -> String {
    let Some((least, most)) = &leaf.range else { return String::new() };
    format!("{} to {}", grouped(least), grouped(most))
}

/// `20 000` for 20000, and `2^40`, which nobody reads in digits.
fn grouped(number: &str) -> String {
    if number.parse() == Ok(1_u64 << 40) {
        return "2^40".to_owned();
    }
    if !number.chars().all(|c| c.is_ascii_digit()) {
        return number.to_owned();
    }
    let digits = number.len();
    let mut text = String::new();
    for (at, digit) in number.char_indices() {
        if at > 0 && (digits - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// What the source says about a setting, without what the other columns say.
pub(super) fn meaning(leaf: &Leaf) -> String {
    let mut text = leaf.field.doc.clone();
    if let Some((least, most)) = &leaf.range {
        for unit in ["", " ms"] {
            text = text.replace(&format!(" ({} to {}{unit})", grouped(least), grouped(most)), "");
        }
    }
    let default = match &leaf.default {
        Value::Null => vec!["none".to_owned()],
        Value::String(text) if text.is_empty() => vec!["empty".to_owned()],
        Value::Number(number) => vec![grouped(&number.to_string())],
        Value::String(text) => vec![format!("`{text}`")],
        other => vec![other.to_string(), format!("`{other}`")],
    };
    for default in default {
        for lead in ["Default ", "Default: "] {
            text = text.replace(&format!("{lead}{default}."), "");
            // What goes on behind a semicolon is a sentence of its own here.
            if let Some((before, after)) = text.split_once(&format!("{lead}{default}; ")) {
                let (first, rest) = after.split_at_checked(1).unwrap_or_default();
                text = format!("{before}{}{rest}", first.to_uppercase());
            }
        }
    }
    // The library's default is another than that of the binary, which has a place for files.
    if leaf.default.as_str().is_some_and(|text| text.contains(DATA) || text.starts_with("127.0.0.1:")) {
        text = text.replace("Must be set.", "");
        if let Some((before, after)) = text.clone().split_once("Default") {
            let rest = after.split_once(". ").map_or("", |(_, rest)| rest);
            text = format!("{before}{rest}");
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" .", ".")
}

/// Text that is one cell of a table.
fn cell(text: &str) -> String {
    // In code nothing is escaped but the end of the cell, and links lead to structures, which this page has none of.
    let parts = text.split('`').enumerate();
    let escaped =
        parts.map(|(at, part)| if at.is_multiple_of(2) { part.replace('<', "&lt;") } else { part.to_owned() });
    escaped.collect::<Vec<_>>().join("`").replace('|', "\\|").replace("[`", "`").replace("`]", "`")
}
