//! Keys of a deployment that runs as one process: made at the first start, the certificate renewed when half of its time
//! is over. A larger deployment keeps its root offline and uses `causewayctl keys` instead.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use causeway_identity::{NoiseKey, RootKey, RootPublicKey, ServerCertificate, Validity};
use causeway_noise::StaticKey;
use causeway_runtime::clock::Clock;
use causeway_runtime::secret_file;
use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};
use zeroize::Zeroizing;

use crate::config::Config;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const VALID: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Makes what is missing under `data` and gives the root that clients pin; `None` when that root is kept elsewhere: there
/// is a certificate and no root key, so nothing is made or signed here.
pub(crate) fn prepare(config: &Config, data: &Path, clock: &dyn Clock) -> anyhow::Result<Option<RootPublicKey>> {
    let root_file = data.join("keys/root.key");
    if config.edge.certificate_file.exists() && !root_file.exists() {
        return Ok(None);
    }
    let root = secret_file::read_or_create(&root_file, || {
        let mut seed = Zeroizing::new([0; 32]);
        OsRng.unwrap_err().fill_bytes(seed.as_mut());
        Zeroizing::new(RootKey::from_seed(*seed).to_text().as_bytes().to_vec())
    })?;
    let root = std::str::from_utf8(&root)
        .ok()
        .and_then(|text| RootKey::from_text(text).ok())
        .ok_or_else(|| anyhow!("{} is no root key: restore it, or move it away for a new one", root_file.display()))?;

    let noise_file = &config.edge.noise_key_file;
    let noise = secret_file::read_or_create(noise_file, || {
        let key = StaticKey::generate(&mut OsRng.unwrap_err());
        Zeroizing::new(format!("{}\n", hex::encode(*key.to_bytes())).into_bytes())
    })?;
    let noise = static_key(&noise)
        .ok_or_else(|| anyhow!("{} is no Noise key: it must be 64 hex digits", noise_file.display()))?;
    certify(config, &root, &NoiseKey::new(*noise.public())?, clock)?;
    Ok(Some(root.public()))
}

fn static_key(text: &[u8]) -> Option<StaticKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut()).ok()?;
    Some(StaticKey::from_bytes(*bytes))
}

/// Keeps a certificate that will hold for at least half of its time, else signs a new one.
fn certify(config: &Config, root: &RootKey, key: &NoiseKey, clock: &dyn Clock) -> anyhow::Result<()> {
    let file = &config.edge.certificate_file;
    let deployment = &config.edge.deployment;
    let soon = clock.now() + VALID / 2;
    let holds = std::fs::read(file)
        .ok()
        .and_then(|bytes| ServerCertificate::from_bytes(&bytes).ok())
        .is_some_and(|kept| kept.verify(&[root.public()], deployment, key, soon).is_ok());
    if holds {
        return Ok(());
    }
    let validity = Validity { not_before: clock.now() - DAY, not_after: clock.now() + VALID };
    let certificate = ServerCertificate::issue(root, deployment, key, validity).context("edge.deployment")?;
    let failed = || format!("{} cannot be written", file.display());
    let draft = file.with_extension("new");
    std::fs::write(&draft, certificate.to_bytes()).with_context(failed)?;
    std::fs::rename(&draft, file).with_context(failed)
}

#[cfg(test)]
mod tests {
    use causeway_runtime::clock::ManualClock;

    use super::*;

    #[test]
    fn a_certificate_of_a_root_that_is_elsewhere_stays() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(folder.path(), None, None).unwrap();
        let clock = ManualClock::at_ms(1_800_000_000_000);
        prepare(&config, folder.path(), clock.as_ref()).unwrap();
        let signed = std::fs::read(&config.edge.certificate_file).unwrap();
        std::fs::remove_file(folder.path().join("keys/root.key")).unwrap();

        clock.advance(VALID);
        assert_eq!(prepare(&config, folder.path(), clock.as_ref()).unwrap(), None);
        assert_eq!(std::fs::read(&config.edge.certificate_file).unwrap(), signed);
        assert!(!folder.path().join("keys/root.key").exists());
    }

    #[test]
    fn keys_are_made_once_and_the_certificate_is_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(folder.path(), None, None).unwrap();
        let clock = ManualClock::at_ms(1_800_000_000_000);
        let root = prepare(&config, folder.path(), clock.as_ref()).unwrap();
        let first = std::fs::read(&config.edge.certificate_file).unwrap();

        clock.advance(VALID / 3);
        assert_eq!(prepare(&config, folder.path(), clock.as_ref()).unwrap(), root);
        assert_eq!(std::fs::read(&config.edge.certificate_file).unwrap(), first);

        clock.advance(VALID / 3);
        prepare(&config, folder.path(), clock.as_ref()).unwrap();
        assert_ne!(std::fs::read(&config.edge.certificate_file).unwrap(), first);
    }
}
