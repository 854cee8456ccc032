//! Metrics in Prometheus's text format, of which only those are kept that something here shows.

use std::collections::BTreeMap;

/// Samples that are kept of one process; a real one has some hundreds.
const MAX_SAMPLES: usize = 8_192;
const MAX_LABELS: usize = 16;
/// Longest line that is looked at, in bytes.
const MAX_LINE: usize = 4_096;

/// Beginnings of the names that are kept.
const KEPT: &[&str] = &[
    "causeway_edge_",
    "causeway_routing_",
    "causeway_key_directory_",
    "causeway_media_",
    "causeway_process_",
    "causeway_tls_certificate_",
    "http_client_request_duration_",
    "process_",
];
/// Histograms of which only counts and sums are shown.
const BUCKETS: &[&str] = &["causeway_edge_message_duration_", "http_client_request_duration_"];

/// What a process has counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exposition(BTreeMap<String, Vec<Sample>>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

/// Conditions on labels, as `name` and value.
pub(crate) type Where<'w> = &'w [(&'w str, &'w str)];

impl Exposition {
    /// Reads what can be read; lines that are no samples are passed over.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut all = Self::default();
        let mut kept = 0;
        for line in body.split(|byte| *byte == b'\n').filter(|line| line.len() <= MAX_LINE) {
            let Some((name, sample)) = std::str::from_utf8(line).ok().and_then(sample) else { continue };
            if kept == MAX_SAMPLES {
                break;
            }
            kept += 1;
            all.0.entry(name.to_owned()).or_default().push(sample);
        }
        all
    }

    /// Whether nothing was told.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum over all samples of this name with these labels; `None` without any.
    pub(crate) fn sum(&self, name: &str, labels: Where<'_>) -> Option<f64> {
        self.samples(name, labels).map(|sample| sample.value).reduce(|one, other| one + other)
    }

    fn samples<'e>(&'e self, name: &str, labels: Where<'e>) -> impl Iterator<Item = &'e Sample> + use<'e> {
        self.0.get(name).into_iter().flatten().filter(move |sample| {
            labels.iter().all(|(label, value)| sample.label(label).is_some_and(|found| found == *value))
        })
    }

    /// The values that a label of this metric has.
    pub(crate) fn labels(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<_> =
            self.samples(name, &[]).filter_map(|sample| sample.label(label).map(ToOwned::to_owned)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Upper bounds and counts of a histogram, the counts of those below included.
    pub(crate) fn buckets(&self, name: &str, labels: Where<'_>) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.samples(&format!("{name}_bucket"), labels) {
            let Some(bound) = sample.label("le").and_then(number) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// One line: `name{label="value",...} number`, perhaps with a time after it.
fn sample(line: &str) -> Option<(&str, Sample)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at(end);
    let kept = KEPT.iter().any(|prefix| name.starts_with(prefix));
    let bucket = name.ends_with("_bucket") && !BUCKETS.iter().any(|prefix| name.starts_with(prefix));
    if !kept || bucket {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = number(rest.split_ascii_whitespace().next()?)?;
    Some((name, Sample { labels, value }))
}

/// Labels up to the brace that closes them, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        if labels.len() == MAX_LABELS {
            return None;
        }
        labels.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// Text up to the quote that ends it, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            (_, plain) => value.push(plain),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok().filter(|number: &f64| !number.is_nan()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP causeway_edge_sessions Now
# TYPE causeway_edge_sessions gauge
causeway_edge_sessions 3
causeway_edge_messages_total{class=\"chat\",outcome=\"delivered\"} 7 1700000000000
causeway_edge_messages_total{class=\"chat\",outcome=\"stored\",} 2e1
http_client_request_duration_seconds_bucket{server_address=\"a.example\",le=\"0.1\"} 1
http_client_request_duration_seconds_bucket{server_address=\"a.example\",le=\"+Inf\"} 4
http_client_request_duration_seconds_bucket{server_address=\"q\\\"\\\\\\n}\",le=\"0.1\"} 2
causeway_routing_fan_out_bucket{le=\"1\"} 4
something_else 1
";

    #[test]
    fn samples_are_summed_by_label() {
        let all = Exposition::read(TEXT.as_bytes());
        assert_eq!(all.sum("causeway_edge_sessions", &[]), Some(3.0));
        assert_eq!(all.sum("causeway_edge_messages_total", &[]), Some(27.0));
        assert_eq!(all.sum("causeway_edge_messages_total", &[("outcome", "stored")]), Some(20.0));
        assert_eq!(all.sum("causeway_edge_messages_total", &[("outcome", "dropped")]), None);
        assert_eq!(all.sum("something_else", &[]), None);
        assert_eq!(all.sum("causeway_routing_fan_out_bucket", &[]), None);
        let buckets = all.buckets("http_client_request_duration_seconds", &[]);
        assert_eq!(buckets, [(0.1, 3.0), (f64::INFINITY, 4.0)]);
        let hosts = all.labels("http_client_request_duration_seconds_bucket", "server_address");
        assert_eq!(hosts, ["a.example", "q\"\\\n}"]);
    }

    #[test]
    fn nonsense_is_passed_over_and_floods_are_bounded() {
        let wrong = "causeway_edge_a{x=\"1 2\ncauseway_edge_b{x} 1\ncauseway_edge_c\ncauseway_edge_d NaN\n\u{1b}\n{} 1\n\
                     causeway_edge_e{x=\"\\";
        let all = Exposition::read(wrong.as_bytes());
        assert!(all.is_empty(), "{all:?}");
        assert!(Exposition::read(&[0xff; 10_000]).is_empty());
        let flood = "causeway_edge_x 1\n".repeat(100_000);
        assert_eq!(Exposition::read(flood.as_bytes()).sum("causeway_edge_x", &[]), Some(MAX_SAMPLES as f64));
        let long = format!("causeway_edge_x{{a=\"{}\"}} 1\n", "y".repeat(1_000_000));
        assert!(Exposition::read(long.as_bytes()).is_empty());
        let labels = format!("causeway_edge_x{{{}}} 1\n", "a=\"1\",".repeat(100));
        assert!(Exposition::read(labels.as_bytes()).is_empty());
    }
}
