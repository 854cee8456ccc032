//! Configuration: one typed value a service, read from a TOML file and from the environment, checked before use.
//!
//! A service's structure derives `Deserialize` and `Serialize` with `deny_unknown_fields` and `default`, and implements
//! [`Check`] with [`within`] and its siblings. A structure that several services have a section of names its fields from that
//! section on, and who holds it says which one it is, by [`in_section`]. The binary composes the sections, [`read`]s them, and
//! checks those that the process uses.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Source};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a configuration cannot be used; names the field and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("configuration file {0} is not there, or is no file: give the path of a readable TOML file")]
    Missing(PathBuf),
    /// Syntax, an unknown field or a wrong type.
    #[error("configuration: {0}")]
    Shape(String),
    /// A value outside its documented range.
    #[error("configuration field {field} is {value}: {fix}")]
    Value {
        /// Dotted path of the field.
        field: String,
        /// What it holds, for fields that are no secrets.
        value: String,
        /// What to write instead.
        fix: String,
    },
}

/// A configuration that knows its own bounds.
pub trait Check {
    /// Checks each field.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first field out of its range.
    fn check(&self) -> Result<(), ConfigError>;
}

/// Starts from `defaults` (dotted field names), overlays `file`, if one is given, then environment variables
/// `CAUSEWAY_<SECTION>__<FIELD>` (for example `CAUSEWAY_EDGE__LOGIN_TIMEOUT_MS`). Nothing is checked but that each field is
/// known and of its type.
///
/// # Errors
/// [`ConfigError::Missing`] and [`ConfigError::Shape`].
pub fn read<T: DeserializeOwned>(defaults: &[(&str, String)], file: Option<&Path>) -> Result<T, ConfigError> {
    let mut figment = Figment::new();
    for (field, value) in defaults {
        figment = figment.merge(Serialized::default(field, value));
    }
    if let Some(path) = file {
        if !path.is_file() {
            return Err(ConfigError::Missing(path.to_owned()));
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    // Only names with a section: CAUSEWAY_CONFIG and the like are the command line's.
    let sections = Env::prefixed("CAUSEWAY_").filter(|name| name.as_str().contains("__")).split("__");
    let figment = figment.merge(sections);
    figment.extract().map_err(|error| ConfigError::Shape(sentence(&error, blamed::<T>(&figment, &error))))
}

/// The same as [`read`], and checks the result.
///
/// # Errors
/// [`ConfigError`], which names the field.
pub fn load<T: DeserializeOwned + Check>(defaults: &[(&str, String)], file: Option<&Path>) -> Result<T, ConfigError> {
    let value: T = read(defaults, file)?;
    value.check()?;
    Ok(value)
}

/// Those of `variables` that are no settings only because two underscores of them are one, each with the name that was meant; `known`
/// has every setting.
pub fn misspelt(known: &impl Serialize, variables: impl IntoIterator<Item = String>) -> Vec<(String, String)> {
    let mut names = Vec::new();
    if let Ok(Value::Dict(_, sections)) = Value::serialize(known) {
        for (section, value) in &sections {
            variables_of(value, format!("CAUSEWAY_{}", section.to_uppercase()), &mut names);
        }
    }
    let single = variables.into_iter().filter(|variable| !variable.contains("__"));
    let meant = |variable: &String| names.iter().find(|name| name.replace("__", "_") == *variable).cloned();
    single
        .filter_map(|variable| Some((meant(&variable)?, variable)))
        .map(|(meant, variable)| (variable, meant))
        .collect()
}

fn variables_of(value: &Value, name: String, names: &mut Vec<String>) {
    match value {
        Value::Dict(_, fields) => {
            for (field, value) in fields {
                variables_of(value, format!("{name}__{}", field.to_uppercase()), names);
            }
        }
        _ => names.push(name),
    }
}

/// Where an error is, without figment's profile.
fn place_of(error: &figment::Error) -> Vec<String> {
    error.path.iter().map(|part| part.to_ascii_lowercase()).filter(|part| part != "default").collect()
}

/// The field that is wrong in a section that an error names only as a whole: those of flattened structures have lost their
/// names when they are read. It is the one without which the error would be another.
fn blamed<T: DeserializeOwned>(figment: &Figment, error: &figment::Error) -> Option<String> {
    let path = place_of(error);
    let all: Dict = figment.extract().ok()?;
    let fields: Vec<String> = section_of(&mut all.clone(), &path)?.keys().cloned().collect();
    fields.into_iter().find(|field| {
        let mut rest = all.clone();
        let _removed = section_of(&mut rest, &path).and_then(|section| section.remove(field));
        match Figment::from(Serialized::defaults(rest)).extract::<T>() {
            Ok(_) => true,
            Err(other) => place_of(&other) != path || other.kind != error.kind,
        }
    })
}

/// The section at this path, which is not empty.
fn section_of<'a>(all: &'a mut Dict, path: &[String]) -> Option<&'a mut Dict> {
    let (last, before) = path.split_last()?;
    let holder = if before.is_empty() { all } else { section_of(all, before)? };
    match holder.get_mut(last)? {
        Value::Dict(_, section) => Some(section),
        _ => None,
    }
}

/// One line that names the field and where it was set.
fn sentence(error: &figment::Error, blamed: Option<String>) -> String {
    const UNKNOWN: &str = "there is no such field: correct its name or remove it";
    let mut path = place_of(error);
    path.extend(blamed);
    let problem = match &error.kind {
        Kind::UnknownField(name, _) => {
            if path.last().is_none_or(|last| last != name) {
                path.push(name.clone());
            }
            UNKNOWN.to_owned()
        }
        Kind::Message(text) if text.starts_with("unknown field") => UNKNOWN.to_owned(),
        Kind::Message(text) if text.contains("socket address") => {
            "must be an IP address with a port, such as 127.0.0.1:7460".to_owned()
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("found {}, and it must be {}", plain_value(found), plain_type(wanted))
        }
        Kind::UnknownVariant(found, known) => format!("found `{found}`, and it must be one of {}", known.join(", ")),
        // A syntax error comes with a drawing of the place; the lines of text in it say the same.
        kind => {
            let text = kind.to_string();
            let lines = text.lines().map(str::trim).filter(|line| {
                !line.is_empty() && !line.starts_with('|') && !line.starts_with(|c: char| c.is_ascii_digit())
            });
            lines.collect::<Vec<_>>().join(", ")
        }
    };
    let place = error.metadata.as_ref().and_then(|metadata| match &metadata.source {
        Some(Source::File(file)) => Some(format!(" (in {})", file.display())),
        Some(source) => Some(format!(" (in {source})")),
        None if metadata.name.contains("environment") => Some(" (in the environment)".to_owned()),
        None => None,
    });
    let field = if path.is_empty() { String::new() } else { format!("field {}: ", path.join(".")) };
    format!("{field}{problem}{}", place.unwrap_or_default())
}

/// What was found, in words of the file and not of the program.
fn plain_value(found: &Actual) -> String {
    match found {
        Actual::Unsigned(number) => format!("the number {number}"),
        Actual::Signed(number) => format!("the number {number}"),
        Actual::Float(number) => format!("the number {number}"),
        Actual::Str(text) => format!("the text {text:?}"),
        Actual::Bool(value) => value.to_string(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}

/// What was wanted, in the same words.
fn plain_type(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "a section",
        other if other.starts_with("struct ") => "a section",
        other => other,
    }
}

/// Checks that `value` lies in `range`.
///
/// # Errors
/// [`ConfigError::Value`] that names `field` and the range.
pub fn within<T: PartialOrd + Display + Copy>(
    field: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let fix = format!("must be between {} and {}", range.start(), range.end());
    Err(ConfigError::Value { field: field.to_owned(), value: value.to_string(), fix })
}

/// Checks any other condition.
///
/// # Errors
/// [`ConfigError::Value`] that names `field` and says `fix`.
pub fn ensure(field: &str, holds: bool, value: impl Display, fix: &str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value { field: field.to_owned(), value: value.to_string(), fix: fix.to_owned() })
}

/// Gives the fields that `checked` names the path of the section that holds them.
///
/// # Errors
/// What `checked` is, with `section` and a dot before the name of the field.
pub fn in_section(section: &str, checked: Result<(), ConfigError>) -> Result<(), ConfigError> {
    checked.map_err(|error| match error {
        ConfigError::Value { field, value, fix } => {
            ConfigError::Value { field: format!("{section}.{field}"), value, fix }
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct All {
        edge: Edge,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Edge {
        login_timeout_ms: u64,
    }

    impl Default for Edge {
        fn default() -> Self {
            Self { login_timeout_ms: 10_000 }
        }
    }

    impl Check for All {
        fn check(&self) -> Result<(), ConfigError> {
            within("edge.login_timeout_ms", self.edge.login_timeout_ms, 100..=60_000)
        }
    }

    fn load_text(text: &str) -> Result<All, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(&[], Some(file.path()))
    }

    #[test]
    fn defaults_hold_and_wrong_values_are_named() {
        assert_eq!(load::<All>(&[], None).unwrap().edge.login_timeout_ms, 10_000);
        assert_eq!(load_text("[edge]\nlogin_timeout_ms = 500").unwrap().edge.login_timeout_ms, 500);
        let range = load_text("[edge]\nlogin_timeout_ms = 1").unwrap_err().to_string();
        assert!(range.contains("edge.login_timeout_ms") && range.contains("between 100 and 60000"), "{range}");
        let unknown = load_text("[edge]\nlogin_timeout = 1").unwrap_err().to_string();
        assert!(unknown.contains("field edge.login_timeout: there is no such field"), "{unknown}");
        let kind = load_text("[edge]\nlogin_timeout_ms = \"soon\"").unwrap_err().to_string();
        let file = kind.rsplit_once(" (in ").and_then(|(_, file)| file.strip_suffix(')'));
        assert!(file.is_some_and(|file| Path::new(file).is_absolute()), "{kind}");
        let said =
            "field edge.login_timeout_ms: found the text \"soon\", and it must be a whole number that is not negative";
        assert!(kind.contains(said), "{kind}");
        let syntax = load_text("[edge\nlogin_timeout_ms = 1").unwrap_err().to_string();
        assert!(syntax.contains("line 1") && !syntax.contains('\n'), "{syntax}");
        let missing = load::<All>(&[], Some(Path::new("/nonexistent/causeway.toml"))).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/causeway.toml"), "{missing}");
    }

    #[test]
    fn variables_that_lack_an_underscore_are_found() {
        #[derive(Serialize)]
        struct Known {
            edge: Fields,
        }
        #[derive(Serialize)]
        struct Fields {
            max_connections: u32,
            listen: Option<String>,
        }
        let known = Known { edge: Fields { max_connections: 1, listen: None } };
        let variables = [
            "CAUSEWAY_EDGE_LISTEN",
            "CAUSEWAY_EDGE_MAX_CONNECTIONS",
            "CAUSEWAY_EDGE__LISTEN",
            "CAUSEWAY_EDGE_SERVICE_HOST",
            "CAUSEWAY_DATA",
            "EDGE_LISTEN",
        ];
        let found = misspelt(&known, variables.map(ToOwned::to_owned));
        let pair = |wrong: &str, meant: &str| (wrong.to_owned(), meant.to_owned());
        assert_eq!(
            found,
            [
                pair("CAUSEWAY_EDGE_LISTEN", "CAUSEWAY_EDGE__LISTEN"),
                pair("CAUSEWAY_EDGE_MAX_CONNECTIONS", "CAUSEWAY_EDGE__MAX_CONNECTIONS"),
            ]
        );
    }

    #[test]
    fn a_shared_section_is_named_with_its_whole_path() {
        let checked = in_section("routing", within("redis.database", 9, 0..=1));
        assert!(checked.unwrap_err().to_string().contains("field routing.redis.database is 9"));
        in_section("routing", within("redis.database", 1, 0..=1)).unwrap();
    }

    #[test]
    fn a_field_of_a_flattened_structure_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Outer {
            part: Inner,
        }
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[expect(dead_code, reason = "only read")]
        struct Inner {
            #[serde(flatten)]
            edge: Edge,
            more: u64,
        }
        for (text, expected) in [
            ("login_timeout_ms = 'soon'\nmore = 1", "field part.login_timeout_ms: "),
            ("colour = 1\nmore = 1", "field part.colour: there is no such field"),
            ("more = 'some'\nlogin_timeout_ms = 1", "field part.more: "),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(format!("[part]\n{text}").as_bytes()).unwrap();
            let error = read::<Outer>(&[], Some(file.path())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_only_read_may_be_out_of_range() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[edge]\nlogin_timeout_ms = 1").unwrap();
        assert_eq!(read::<All>(&[], Some(file.path())).unwrap().edge.login_timeout_ms, 1);
    }
}
