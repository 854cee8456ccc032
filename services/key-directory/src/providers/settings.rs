//! The settings of a provider, checked field by field. Each refusal is one sentence that names the field and the fix.

use std::fmt;

use causeway_fetch::{FetchError, Fetcher, HostError, HostSet, MAX_HOSTS, Url};
use causeway_identity::Domain;

use super::ProviderKind;

const MAX_NAME_BYTES: usize = 100;
const MAX_URL_BYTES: usize = 512;
const MAX_MEDIA_PREFIXES: usize = 8;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What an operator sets for a provider; every field has passed its check.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Registered domain: the right side of its users' addresses.
    pub domain: Domain,
    /// For people.
    pub display_name: String,
    /// Home or third party.
    pub kind: ProviderKind,
    /// OIDC issuer, exactly as tokens name it.
    pub issuer: String,
    /// `host` or `host:port`, canonical: what else the provider names must lie on one of these.
    pub hosts: Vec<String>,
    /// URL prefixes of its media; each ends in `/`.
    pub media_prefixes: Vec<String>,
    /// Where push webhooks go.
    pub webhook: Option<WebhookTarget>,
}

/// Where and with which secret webhooks are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// On one of the provider's hosts.
    pub url: String,
    /// Standard Webhooks secret, `whsec_` and base64.
    pub secret: String,
}

/// The secret has no printing form.
impl fmt::Debug for WebhookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookTarget(..)")
    }
}

/// Short: which provider, not all that it set.
impl fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSettings")
            .field("domain", &self.domain)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A field that is not acceptable: one sentence with what is wrong and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct BadSetting {
    field: String,
    problem: String,
}

impl BadSetting {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// Settings as they came in, text by text; the fields are those of [`ProviderSettings`].
#[derive(Debug, Clone, Default)]
pub(crate) struct RawSettings {
    pub(crate) domain: String,
    pub(crate) display_name: String,
    pub(crate) kind: Option<ProviderKind>,
    pub(crate) issuer: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) media_prefixes: Vec<String>,
    pub(crate) webhook_url: String,
    pub(crate) webhook_secret: String,
}

impl ProviderSettings {
    /// Checks each field; `fetcher` says which URLs may be fetched at all.
    ///
    /// # Errors
    /// [`BadSetting`] for the first field at fault.
    pub(crate) fn check(raw: RawSettings, fetcher: &Fetcher) -> Result<Self, BadSetting> {
        let domain: Domain = raw.domain.parse().map_err(|_| {
            BadSetting::new("domain", "must be a lower-case domain name in A-labels, such as birdy.example")
        })?;
        let display_name = display_name(raw.display_name)?;
        let kind = raw.kind.ok_or_else(|| BadSetting::new("kind", "must be home or third-party"))?;
        let (hosts, host_set) = hosts(raw.hosts, fetcher)?;
        let issuer = provider_url("issuer", &raw.issuer, &host_set, fetcher)?;
        if issuer.query().is_some() {
            return Err(BadSetting::new("issuer", "must have no query: write it as the provider's tokens name it"));
        }
        let media_prefixes = media_prefixes(raw.media_prefixes, &host_set, fetcher)?;
        let webhook = webhook(raw.webhook_url, raw.webhook_secret, &host_set, fetcher)?;
        Ok(Self { domain, display_name, kind, issuer: raw.issuer, hosts, media_prefixes, webhook })
    }

    /// The hosts in the form in which they are compared.
    ///
    /// # Errors
    /// [`HostError`], which hosts that have been checked do not give.
    pub(crate) fn host_set(&self) -> Result<HostSet, HostError> {
        HostSet::parse(&self.hosts)
    }
}

fn provider_url(field: &str, text: &str, hosts: &HostSet, fetcher: &Fetcher) -> Result<Url, BadSetting> {
    let short = text.len() <= MAX_URL_BYTES && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if !short {
        return Err(BadSetting::new(
            field,
            format!("must be a URL of at most {MAX_URL_BYTES} bytes without white space"),
        ));
    }
    fetcher.check_url(text, hosts).map_err(|error| {
        let problem = match error {
            FetchError::Scheme => "must begin with https://",
            FetchError::Host => "is on a host that is not among hosts: register that host, or use another URL",
            FetchError::Address => "names an address that must not be contacted: use a public host name",
            _ => "must be an absolute URL without user, password or fragment, such as https://id.birdy.example",
        };
        BadSetting::new(field, problem)
    })
}

fn display_name(name: String) -> Result<String, BadSetting> {
    let printable = !name.chars().any(char::is_control) && name.trim() == name;
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !printable {
        return Err(BadSetting::new(
            "display_name",
            format!("must be 1 to {MAX_NAME_BYTES} bytes of printable text without white space at its ends"),
        ));
    }
    Ok(name)
}

fn hosts(raw: Vec<String>, fetcher: &Fetcher) -> Result<(Vec<String>, HostSet), BadSetting> {
    if raw.is_empty() || raw.len() > MAX_HOSTS {
        return Err(BadSetting::new("hosts", format!("must list 1 to {MAX_HOSTS} hosts")));
    }
    for (n, text) in raw.iter().enumerate() {
        let field = format!("hosts[{n}]");
        let one = HostSet::parse([text]).map_err(|_| {
            BadSetting::new(&field, "must be host or host:port, lower-case, in A-labels, without scheme or path")
        })?;
        if fetcher.check_hosts(&one).is_err() {
            let fix = "is this machine, which only a local deployment (fetch.allow_loopback_http) may use";
            return Err(BadSetting::new(field, fix));
        }
        if raw[..n].contains(text) {
            return Err(BadSetting::new(field, "is listed twice: leave one out"));
        }
    }
    let set = HostSet::parse(&raw).map_err(|error| BadSetting::new("hosts", error.to_string()))?;
    Ok((raw, set))
}

fn media_prefixes(raw: Vec<String>, hosts: &HostSet, fetcher: &Fetcher) -> Result<Vec<String>, BadSetting> {
    if raw.len() > MAX_MEDIA_PREFIXES {
        return Err(BadSetting::new("media_prefixes", format!("must list at most {MAX_MEDIA_PREFIXES} prefixes")));
    }
    let mut prefixes: Vec<String> = Vec::with_capacity(raw.len());
    for (n, text) in raw.into_iter().enumerate() {
        let field = format!("media_prefixes[{n}]");
        let url = provider_url(&field, &text, hosts, fetcher)?;
        // A prefix that ends inside a name would also match its longer siblings; one spelled otherwise than the
        // parser spells it would match nothing.
        if url.query().is_some() || !text.ends_with('/') || url.as_str() != text {
            return Err(BadSetting::new(field, format!("must end in / and be written as {}", with_slash(&url))));
        }
        if prefixes.contains(&text) {
            return Err(BadSetting::new(field, "is listed twice: leave one out"));
        }
        prefixes.push(text);
    }
    Ok(prefixes)
}

fn with_slash(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    let text = plain.to_string();
    if text.ends_with('/') { text } else { format!("{text}/") }
}

fn webhook(
    url: String,
    secret: String,
    hosts: &HostSet,
    fetcher: &Fetcher,
) -> Result<Option<WebhookTarget>, BadSetting> {
    if url.is_empty() {
        if secret.is_empty() {
            return Ok(None);
        }
        return Err(BadSetting::new("webhook_secret", "is set without webhook_url: set both or none"));
    }
    provider_url("webhook_url", &url, hosts, fetcher)?;
    let decoded = secret.strip_prefix("whsec_").and_then(|text| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text).ok()
    });
    if !decoded.is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len())) {
        return Err(BadSetting::new("webhook_secret", "must be whsec_ followed by 24 to 64 bytes in base64"));
    }
    Ok(Some(WebhookTarget { url, secret }))
}

#[cfg(test)]
mod tests {
    use causeway_fetch::FetchConfig;

    use super::*;

    fn good() -> RawSettings {
        RawSettings {
            domain: "birdy.example".to_owned(),
            display_name: "Birdy".to_owned(),
            kind: Some(ProviderKind::ThirdParty),
            issuer: "https://id.birdy.example".to_owned(),
            hosts: vec!["id.birdy.example".to_owned(), "media.birdy.example:8443".to_owned()],
            media_prefixes: vec!["https://media.birdy.example:8443/v1/blobs/".to_owned()],
            webhook_url: "https://id.birdy.example/push".to_owned(),
            webhook_secret: "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz".to_owned(),
        }
    }

    fn fetcher(allow_loopback_http: bool) -> Fetcher {
        Fetcher::new(FetchConfig { allow_loopback_http, ..FetchConfig::default() }).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut RawSettings)) -> String {
        let mut raw = good();
        change(&mut raw);
        ProviderSettings::check(raw, &fetcher(false)).expect_err("must be refused").to_string()
    }

    #[test]
    fn good_settings_pass() {
        let settings = ProviderSettings::check(good(), &fetcher(false)).unwrap();
        assert_eq!(settings.domain.as_str(), "birdy.example");
        assert!(!format!("{settings:?}").contains("whsec"));
    }

    #[test]
    fn each_field_is_checked_and_named() {
        type Change<'a> = &'a dyn Fn(&mut RawSettings);
        let cases: [(&str, Change<'_>); 24] = [
            ("domain ", &|s| s.domain = "Birdy.example".to_owned()),
            ("display_name ", &|s| s.display_name = String::new()),
            ("display_name ", &|s| s.display_name = "a\nb".to_owned()),
            ("display_name ", &|s| s.display_name = "x".repeat(101)),
            ("kind ", &|s| s.kind = None),
            ("issuer ", &|s| s.issuer = "http://id.birdy.example".to_owned()),
            ("issuer ", &|s| s.issuer = "https://id.birdy.example?x".to_owned()),
            ("issuer ", &|s| s.issuer = "https://id.birdy.example#x".to_owned()),
            ("issuer ", &|s| s.issuer = "https://user@id.birdy.example".to_owned()),
            ("issuer ", &|s| s.issuer = "https://evil.example".to_owned()),
            ("issuer ", &|s| s.issuer = format!("https://id.birdy.example/{}", "a".repeat(512))),
            ("hosts ", &|s| s.hosts.clear()),
            ("hosts ", &|s| s.hosts = (0..17).map(|n| format!("h{n}.birdy.example")).collect()),
            ("hosts[0] ", &|s| s.hosts[0] = "ID.birdy.example".to_owned()),
            ("hosts[0] ", &|s| s.hosts[0] = "10.0.0.1".to_owned()),
            ("hosts[0] ", &|s| s.hosts[0] = "id.birdy.example.".to_owned()),
            ("hosts[0] ", &|s| s.hosts[0] = "id.birdy.example/x".to_owned()),
            ("hosts[0] ", &|s| s.hosts[0] = "a@id.birdy.example".to_owned()),
            ("hosts[1] ", &|s| s.hosts[1] = s.hosts[0].clone()),
            ("media_prefixes[0] ", &|s| s.media_prefixes[0].push('x')),
            ("media_prefixes[0] ", &|s| s.media_prefixes[0] = "https://media.birdy.example/v1/".to_owned()),
            ("webhook_url ", &|s| s.webhook_url = "https://hooks.example/push".to_owned()),
            ("webhook_secret ", &|s| s.webhook_secret = "whsec_c2hvcnQ=".to_owned()),
            ("webhook_secret ", &|s| s.webhook_url.clear()),
        ];
        for (field, change) in cases {
            let message = refusal(change);
            assert!(message.starts_with(field), "expected {field}, got: {message}");
            assert!(!message.contains("whsec_c2"), "{message}");
        }
    }

    #[test]
    fn loopback_http_needs_its_flag() {
        let mut raw = good();
        raw.hosts = vec!["127.0.0.1:9001".to_owned(), "localhost:9001".to_owned(), "id.birdy.example:9001".to_owned()];
        raw.issuer = "http://127.0.0.1:9001".to_owned();
        raw.media_prefixes.clear();
        raw.webhook_url = "http://localhost:9001/push".to_owned();
        assert!(ProviderSettings::check(raw.clone(), &fetcher(false)).is_err());
        assert!(ProviderSettings::check(raw.clone(), &fetcher(true)).is_ok());
        raw.issuer = "http://id.birdy.example:9001".to_owned();
        let message = ProviderSettings::check(raw, &fetcher(true)).unwrap_err().to_string();
        assert!(message.contains("https://"), "{message}");
    }
}
