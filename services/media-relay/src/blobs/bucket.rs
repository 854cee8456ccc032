//! A bucket of an object store that speaks S3.

use std::io::Read as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use causeway_runtime::config::{Check, ConfigError, ensure};
use causeway_runtime::secret_file;
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::Blobs;
use crate::error::MediaError;

/// Bytes of a part of an upload, the least that S3 takes. So much of each upload waits in memory.
pub(crate) const PART_BYTES: usize = 5 * 1024 * 1024;
/// A request is repeated for so long.
const RETRY: Duration = Duration::from_secs(20);
const RETRIES: usize = 5;
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence while an answer is awaited or read.
const SILENCE: Duration = Duration::from_secs(15);
/// Most bytes of a file with authorities.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// Where the blobs are if `media.store` is `s3`: section `[media.s3]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BucketConfig {
    /// URL of the object store, without the bucket: `https`, or `http` if it is on this machine or `allow_plaintext` says so.
    /// Empty for Amazon's own of the region. Default empty.
    pub endpoint: String,
    /// Region, which requests are signed for. Default `us-east-1`.
    pub region: String,
    /// Name of the bucket, which must be there. Must be set if `media.store` is `s3`. Default empty.
    pub bucket: String,
    /// File with the id of the access key. Must be set if `media.store` is `s3`. Default empty.
    pub access_key_id_file: PathBuf,
    /// File with the access key's secret half. Must be set if `media.store` is `s3`. Default empty.
    pub secret_access_key_file: PathBuf,
    /// The bucket is a part of the host's name rather than of the path. Default false.
    pub virtual_hosted: bool,
    /// File with the certificates (PEM) that are trusted besides those of the machine; empty for none. Default empty.
    pub ca_file: PathBuf,
    /// Lets requests without TLS leave the machine, for networks that encrypt by themselves. Default false.
    pub allow_plaintext: bool,
}

impl Default for BucketConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            bucket: String::new(),
            access_key_id_file: PathBuf::new(),
            secret_access_key_file: PathBuf::new(),
            virtual_hosted: false,
            ca_file: PathBuf::new(),
            allow_plaintext: false,
        }
    }
}

impl Check for BucketConfig {
    /// Names fields from `s3` on.
    fn check(&self) -> Result<(), ConfigError> {
        let named = |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        ensure("s3.bucket", named(&self.bucket, 255), &self.bucket, "give the name of the bucket, up to 255 bytes")?;
        ensure("s3.region", named(&self.region, 64), &self.region, "give a name of up to 64 bytes")?;
        let fix = "give a URL with host and, if needed, port and path: https, or http on this machine or with allow_plaintext";
        ensure("s3.endpoint", self.endpoint.is_empty() || self.is_endpoint(), &self.endpoint, fix)?;
        for (field, file) in [
            ("s3.access_key_id_file", &self.access_key_id_file),
            ("s3.secret_access_key_file", &self.secret_access_key_file),
        ] {
            ensure(field, !file.as_os_str().is_empty(), "empty", "give the path of the file")?;
        }
        Ok(())
    }
}

impl BucketConfig {
    fn is_endpoint(&self) -> bool {
        let Ok(url) = Url::parse(&self.endpoint) else { return false };
        let local = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => return false,
        };
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let scheme = url.scheme() == "https" || (url.scheme() == "http" && (local || self.allow_plaintext));
        plain && scheme && url.fragment().is_none() && self.endpoint.len() <= 512
    }

    fn client(&self) -> Result<AmazonS3, MediaError> {
        let mut options = ClientOptions::new()
            .with_allow_http(self.endpoint.starts_with("http://"))
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENCE)
            // Parts and downloads take as long as they move; the transfer has bounds of its own.
            .with_timeout_disabled();
        if !self.ca_file.as_os_str().is_empty() {
            let failed = |source| MediaError::File { path: self.ca_file.clone(), source };
            let mut pem = Vec::new();
            let file = std::fs::File::open(&self.ca_file).map_err(failed)?;
            file.take(MAX_CA_BYTES).read_to_end(&mut pem).map_err(failed)?;
            for certificate in Certificate::from_pem_bundle(&pem)? {
                options = options.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY, ..RetryConfig::default() };
        let (id, secret) = (word(&self.access_key_id_file)?, word(&self.secret_access_key_file)?);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(id.as_str())
            .with_secret_access_key(secret.as_str())
            .with_virtual_hosted_style_request(self.virtual_hosted)
            .with_client_options(options)
            .with_retry(retry);
        if !self.endpoint.is_empty() {
            builder = builder.with_endpoint(&self.endpoint);
        }
        Ok(builder.build()?)
    }
}

impl Blobs {
    /// The blobs in this bucket. What a killed process has left of an upload is for the bucket's own rule to remove
    /// (`AbortIncompleteMultipartUpload`).
    ///
    /// # Errors
    /// [`MediaError::Secret`], [`MediaError::File`], and [`MediaError::Store`] if the bucket is not there or does not let us in.
    pub async fn in_bucket(config: &BucketConfig) -> Result<Self, MediaError> {
        let of_client = config.clone();
        let built = tokio::task::spawn_blocking(move || of_client.client()).await;
        let failed = |error| MediaError::File {
            path: config.secret_access_key_file.clone(),
            source: std::io::Error::other(error),
        };
        let store: Arc<dyn ObjectStore> = Arc::new(built.map_err(failed)??);
        // Nothing has such a name; but a bucket that is not there, or a wrong key, shows now.
        let _nothing = store.list(Some(&Path::from("probe"))).try_next().await?;
        Ok(Self { store, folder: None, parts: PART_BYTES })
    }
}

/// The one word in a secret file.
fn word(file: &FilePath) -> Result<Zeroizing<String>, MediaError> {
    let secret = secret_file::read(file)?;
    let text = std::str::from_utf8(&secret).map(str::trim).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidData, "it must hold one word of visible characters");
        return Err(MediaError::File { path: file.to_owned(), source });
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_does_not_leave_the_machine_unless_a_flag_says_so() {
        let good = BucketConfig {
            bucket: "causeway-media".to_owned(),
            access_key_id_file: "id".into(),
            secret_access_key_file: "secret".into(),
            ..BucketConfig::default()
        };
        good.check().unwrap();
        for (endpoint, taken) in [
            ("https://s3.example", true),
            ("https://s3.example:9000/path", true),
            ("http://127.0.0.1:9000", true),
            ("http://s3.example", false),
            ("ftp://s3.example", false),
            ("https://user@s3.example", false),
            ("https://s3.example/?x", false),
            ("s3.example", false),
        ] {
            let config = BucketConfig { endpoint: endpoint.to_owned(), ..good.clone() };
            assert_eq!(config.check().is_ok(), taken, "{endpoint}");
        }
        let inside = BucketConfig { endpoint: "http://s3:8333".to_owned(), allow_plaintext: true, ..good.clone() };
        inside.check().unwrap();
        for (field, spoil) in [
            ("s3.bucket", (|c| c.bucket.clear()) as fn(&mut BucketConfig)),
            ("s3.region", |c| c.region.clear()),
            ("s3.access_key_id_file", |c| c.access_key_id_file = PathBuf::new()),
            ("s3.secret_access_key_file", |c| c.secret_access_key_file = PathBuf::new()),
        ] {
            let mut config = good.clone();
            spoil(&mut config);
            assert!(config.check().unwrap_err().to_string().contains(field), "{field}");
        }
    }

    #[test]
    fn a_key_is_one_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        secret_file::create(&file, b" AKIA123 \n").unwrap();
        assert_eq!(word(&file).unwrap().as_str(), "AKIA123");
        let two = folder.path().join("two");
        secret_file::create(&two, b"a b").unwrap();
        assert!(matches!(word(&two), Err(MediaError::File { .. })));
    }
}
