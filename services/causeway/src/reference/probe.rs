//! What the settings really are: their defaults, and what the checks refuse.

use std::io::Write as _;
use std::path::Path;

use causeway_runtime::config::ConfigError;
use serde_json::{Value, json};

use super::DATA;
use crate::config::Config;

/// Has each optional section, and what a section needs that has no default.
const WHOLE: &str = "
[server.tls]
[edge.redis]
[routing.redis]
[directory.redis]
[media.redis]
";

pub(super) struct Probe {
    /// All defaults, of the optional sections too.
    defaults: Value,
    /// The same, and good.
    good: Value,
}

impl Probe {
    pub(super) fn new() -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(WHOLE.as_bytes()).unwrap();
        let defaults = serde_json::to_value(Config::read(Path::new(DATA), Some(file.path())).unwrap()).unwrap();
        let mut good = defaults.clone();
        for section in ["routing", "directory"] {
            good[section]["store"] = json!("postgres");
            good[section]["postgres"]["url"] = json!("postgres://causeway@127.0.0.1/causeway");
        }
        good["routing"]["advertise_url"] = json!("https://routing-1.example:7451");
        for field in ["directory_urls", "routing_urls", "media_urls"] {
            good["server"][field] = json!(["https://service.example:7450"]);
        }
        for field in ["certificate_file", "key_file", "ca_file"] {
            good["server"]["tls"][field] = json!("file.pem");
        }
        check(&good).unwrap();
        Self { defaults, good }
    }

    /// Every setting there is.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect(&self.defaults, "", &mut paths);
        paths
    }

    pub(super) fn default(&self, path: &str) -> Value {
        self.defaults.pointer(&pointer(path)).unwrap_or_else(|| panic!("{path} is not in the configuration")).clone()
    }

    /// What the check says about the greatest value of the type, if it names this field.
    pub(super) fn range(&self, path: &str, kind: &str) -> Option<(String, String)> {
        let mut spoilt = self.good.clone();
        *spoilt.pointer_mut(&pointer(path))? = greatest(kind)?;
        match check(&spoilt) {
            Err(ConfigError::Value { field, fix, .. }) if field == path => {
                let (least, most) = fix.strip_prefix("must be between ")?.split_once(" and ")?;
                Some((least.to_owned(), most.to_owned()))
            }
            _ => None,
        }
    }
}

/// A number that no range goes up to.
pub(super) fn greatest(kind: &str) -> Option<Value> {
    match kind {
        "u16" => Some(json!(u16::MAX)),
        "u32" => Some(json!(u32::MAX)),
        "u64" | "usize" => Some(json!(i64::MAX)),
        "f64" => Some(json!(f64::MAX)),
        _ => None,
    }
}

fn check(value: &Value) -> Result<(), ConfigError> {
    let config: Config = serde_json::from_value(value.clone()).unwrap();
    config.check_for(None)
}

fn collect(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(inner, &path, paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}
