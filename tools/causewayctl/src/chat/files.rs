//! Files: sent by way of the user's own media host, fetched through the operator's relay.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use causeway_client::media::{MediaDetails, MediaHost, MediaTransfers, ProviderHost};
use causeway_client::{Client, Media, TokenSource};
use url::Url;

use super::line;
use super::profile::Profile;

/// A file of this name is tried under so many names before it is given up.
const MAX_NAMES: u32 = 1_000;
const MAX_NAME_CHARS: usize = 100;

/// Sends and saves files.
pub(crate) struct Files {
    transfers: MediaTransfers,
    upload_url: Option<Url>,
    tokens: Arc<dyn TokenSource>,
    downloads: Option<PathBuf>,
}

impl Files {
    pub(crate) fn new(profile: &Profile, tokens: impl TokenSource, downloads: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(folder) = &downloads {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("--downloads {} cannot be made: give a writable folder", folder.display()))?;
        }
        let upload_url = profile.upload_url.clone();
        Ok(Self {
            transfers: MediaTransfers::new(Default::default())?,
            upload_url,
            tokens: Arc::new(tokens),
            downloads,
        })
    }

    /// Encrypts and uploads a file.
    pub(crate) async fn upload(&self, client: &Client, path: &Path, caption: &str) -> anyhow::Result<Media> {
        let shown = path.display();
        let file = tokio::fs::File::open(path).await.with_context(|| format!("{shown} cannot be read"))?;
        if !file.metadata().await.with_context(|| format!("{shown} cannot be read"))?.is_file() {
            bail!("{shown} is no file");
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (kind, mime_type) = line::kind_of(&name);
        let details = MediaDetails {
            kind,
            mime_type: mime_type.to_owned(),
            name,
            caption: caption.to_owned(),
            ..MediaDetails::default()
        };
        let provider_host;
        let host: &dyn MediaHost = match &self.upload_url {
            None => client,
            Some(url) => {
                provider_host = ProviderHost::new(url.as_str(), Arc::clone(&self.tokens), client.noise_public())?;
                &provider_host
            }
        };
        self.transfers.upload(host, file, details).await.with_context(|| format!("{shown} was not sent"))
    }

    /// Saves a file that arrived, where downloads are wanted.
    pub(crate) async fn download(&self, client: &Client, media: &Media) -> anyhow::Result<Option<PathBuf>> {
        let Some(folder) = &self.downloads else { return Ok(None) };
        let name = safe_name(&media.name);
        // Written aside, so that half a file never stands under its name.
        let part = tempfile::NamedTempFile::new_in(folder).context("--downloads is not writable")?;
        let mut file = tokio::fs::File::from_std(part.reopen().context("--downloads is not writable")?);
        self.transfers.download(client, media, &mut file).await.context("a file could not be fetched")?;
        file.sync_all().await.context("save")?;
        let mut part = part;
        for number in 0..MAX_NAMES {
            let path = folder.join(if number == 0 { name.clone() } else { format!("{number}-{name}") });
            match part.persist_noclobber(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(refused) if refused.error.kind() == std::io::ErrorKind::AlreadyExists => part = refused.file,
                Err(refused) => return Err(refused.error).context("save"),
            }
        }
        bail!("there are too many files of this name in --downloads")
    }
}

/// A name that stays in its folder, whatever the sender called the file.
fn safe_name(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let name: String = name.chars().take(MAX_NAME_CHARS).map(safe).collect();
    match name.trim_start_matches('.') {
        "" => "file".to_owned(),
        rest => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder() {
        assert_eq!(safe_name("picture.png"), "picture.png");
        assert_eq!(safe_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(safe_name(".bashrc"), "bashrc");
        assert_eq!(safe_name("a\0b\n"), "a_b_");
        assert_eq!(safe_name(""), "file");
        assert_eq!(safe_name(&"x".repeat(500)).len(), MAX_NAME_CHARS);
    }
}
