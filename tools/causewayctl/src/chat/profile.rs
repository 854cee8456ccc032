//! A user's profile: what a client must know to log in, in a small TOML file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use causeway_client::{ClientConfig, ServerAddress};
use causeway_identity::{Address, RootPublicKey};
use serde::Deserialize;
use url::Url;

const MAX_BYTES: u64 = 64 * 1024;
const MAX_ROOTS: usize = 8;

/// As the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    address: String,
    server: String,
    deployment: String,
    roots: Vec<String>,
    token_url: String,
    upload_url: Option<String>,
    state: PathBuf,
    encoding: Option<Encoding>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Binary,
    Xml,
}

/// Checked.
pub(crate) struct Profile {
    pub(crate) config: ClientConfig,
    /// Where the provider hands out tokens.
    pub(crate) token_url: Url,
    /// Where the provider hands out upload tickets; absent: the operator's own media host.
    pub(crate) upload_url: Option<Url>,
    /// The device's state: a SQLite file.
    pub(crate) state: PathBuf,
}

impl Profile {
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let size = std::fs::metadata(path)
            .with_context(|| {
                format!("the profile {shown} cannot be read: give the TOML file of one user (`make run` writes two)")
            })?
            .len();
        if size > MAX_BYTES {
            bail!("the profile {shown} is larger than 64 KiB: give the TOML file of one user");
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("the profile {shown} cannot be read"))?;
        let raw: Raw = toml::from_str(&text).with_context(|| format!("the profile {shown} is not complete"))?;
        let of = |field: &str| format!("the profile {shown}: {field}");

        let address: Address = raw.address.parse().with_context(|| of("address"))?;
        let server: ServerAddress = raw.server.parse().with_context(|| of("server"))?;
        if raw.roots.is_empty() || raw.roots.len() > MAX_ROOTS {
            bail!("the profile {shown}: roots: give 1 to {MAX_ROOTS} root keys of the deployment");
        }
        let roots = raw.roots.iter().map(|root| root.parse::<RootPublicKey>()).collect::<Result<Vec<_>, _>>();
        let roots = roots.with_context(|| of("roots"))?;
        let mut config = ClientConfig::new(address, server, &raw.deployment, roots);
        config.agent = concat!("causewayctl/", env!("CARGO_PKG_VERSION")).to_owned();
        if matches!(raw.encoding, Some(Encoding::Xml)) {
            config.encoding = causeway_client::Encoding::Xml;
        }
        let url = |field: &str, text: &str| text.parse::<Url>().with_context(|| of(field));
        Ok(Self {
            config,
            token_url: url("token_url", &raw.token_url)?,
            upload_url: raw.upload_url.as_deref().map(|text| url("upload_url", text)).transpose()?,
            // Beside the profile, wherever the command is run from.
            state: path.parent().unwrap_or_else(|| Path::new(".")).join(raw.state),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Profile> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ada.toml");
        std::fs::write(&file, text).unwrap();
        Profile::load(&file)
    }

    const GOOD: &str = r#"
        address = "ada@birdy.example"
        server = "127.0.0.1:7443"
        deployment = "causeway.local"
        roots = ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
        token_url = "http://127.0.0.1:9001/token"
        state = "ada.db"
    "#;

    #[test]
    fn a_profile_is_read_and_its_state_lies_beside_it() {
        let profile = load(GOOD).unwrap();
        assert_eq!(profile.config.address.as_str(), "ada@birdy.example");
        assert!(profile.state.is_absolute() && profile.state.ends_with("ada.db"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("ada@birdy.example", "ada", "address"),
            ("127.0.0.1:7443", "127.0.0.1", "server"),
            ("11qYAYKx", "x", "roots"),
            ("http://127.0.0.1:9001/token", "token", "token_url"),
            ("state", "place", "place"),
        ] {
            let error = format!("{:#}", load(&GOOD.replace(from, to)).err().unwrap());
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
