//! The edge's certificate: read from its file, looked at again while the edge runs, and renewed without a restart.
//!
//! A file that is broken, expired or for another key or deployment is refused, and what was served stays. The root's
//! signature is for clients to check: the edge does not hold the root. A new static key needs a restart.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use causeway_identity::NoiseKey;
use causeway_identity::certificate::{CertificateError, ServerCertificate};
use causeway_proto::wire::v1 as pb;
use causeway_runtime::clock::SharedClock;
use causeway_runtime::health::{Certificate, Health, Part};
use opentelemetry::global;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::config::EdgeConfig;
use crate::error::EdgeError;
use crate::session::Rules;

/// Far more than a certificate needs.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const DAY: Duration = Duration::from_secs(86_400);
/// In health.
const PART: &str = "edge.certificate";
/// With less time left than this, the operator hears of it once a day.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A certificate that fitted when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) certificate: pb::ServerCertificate,
    not_before_s: u64,
    /// The first second after.
    not_after_s: u64,
    /// The file's content.
    bytes: Vec<u8>,
}

/// Where the certificate is, and what it must be for.
#[derive(Debug)]
pub(crate) struct CertificateFile {
    path: PathBuf,
    deployment: String,
    key: NoiseKey,
}

impl CertificateFile {
    pub(crate) fn new(config: &EdgeConfig, key: NoiseKey) -> Self {
        Self { path: config.certificate_file.clone(), deployment: config.deployment.clone(), key }
    }

    /// Reads the file and checks that it fits.
    pub(crate) fn load(&self, now: SystemTime) -> Result<Served, EdgeError> {
        self.fitting(self.read()?, now)
    }

    fn read(&self) -> Result<Vec<u8>, EdgeError> {
        read(&self.path).map_err(|source| EdgeError::Unreadable { path: self.path.clone(), source })
    }

    fn fitting(&self, bytes: Vec<u8>, now: SystemTime) -> Result<Served, EdgeError> {
        fitting(bytes, &self.deployment, self.key, now)
            .map_err(|source| EdgeError::Certificate { path: self.path.clone(), source })
    }
}

/// Looks after the certificate until `stop`.
pub(crate) async fn look_after(rules: Arc<Rules>, clock: SharedClock, health: Health, stop: CancellationToken) {
    measure(&rules, &clock);
    rules.keys.served().tell(&health, clock.now());
    let period = Duration::from_millis(rules.config.certificate_reload_interval_ms);
    // It was read when the edge was built.
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut keeper = Keeper::default();
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let reading = Arc::clone(&rules);
        // A file system may be slow, and sessions share this thread.
        let read = tokio::task::spawn_blocking(move || reading.keys.certificate_file.read());
        let Some(Ok(read)) = stop.run_until_cancelled(read).await else { continue };
        let served = rules.keys.served();
        let (renewed, news) = keeper.look(&rules.keys.certificate_file, &served, read, clock.now());
        if let Some(renewed) = renewed {
            rules.keys.serve(renewed);
        }
        for word in news {
            word.log();
        }
        rules.keys.served().tell(&health, clock.now());
    }
}

/// Has the seconds until the certificate ends as a metric.
fn measure(rules: &Arc<Rules>, clock: &SharedClock) {
    let (rules, clock) = (Arc::downgrade(rules), Arc::clone(clock));
    let _lives_with_the_meter = global::meter("causeway.edge")
        .i64_observable_gauge("causeway.edge.certificate.remaining")
        .with_unit("s")
        .with_description("Until the certificate that clients are shown ends; negative when it has")
        .with_callback(move |observer| {
            if let Some(rules) = rules.upgrade() {
                let seconds = |s| i64::try_from(s).unwrap_or(i64::MAX);
                let now_s = clock.now_ms() / 1000;
                observer.observe(seconds(rules.keys.served().not_after_s) - seconds(now_s), &[]);
            }
        })
        .build();
}

impl Served {
    /// Tells the process's health which certificate it is; of its end only when that is near.
    fn tell(&self, health: &Health, now: SystemTime) {
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(now);
        let (not_before, not_after) = (at(self.not_before_s), at(self.not_after_s));
        let root = Some(self.certificate.root_id.iter().map(|byte| format!("{byte:02x}")).collect());
        health.certificate(PART, Certificate { not_before, not_after, root });
        let left = not_after.duration_since(now).unwrap_or_default();
        let whole = not_after.duration_since(not_before).unwrap_or_default();
        if left.is_zero() {
            health.report(PART, Part::Degraded("the certificate has expired: clients refuse it".to_owned()));
        } else if left < SOON && left < whole / 4 {
            let days = left.as_secs() / DAY.as_secs();
            let meaning = format!("the certificate ends in {days} days: put a new one into edge.certificate_file");
            health.report(PART, Part::Degraded(meaning));
        } else {
            health.report(PART, Part::Up);
        }
    }
}

/// What has been said already.
#[derive(Debug, Default)]
struct Keeper {
    /// The file's content, if it could be read, and what is wrong with it.
    refused: Option<(Option<Vec<u8>>, String)>,
    warned: Option<(SystemTime, Ending)>,
}

/// What the operator should hear.
#[derive(Debug)]
enum News {
    Renewed,
    Refused(String),
    Ending(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Whole days that are left.
    Soon(u64),
    Over,
}

impl Keeper {
    /// What to serve instead, if anything, and what is new.
    fn look(
        &mut self,
        file: &CertificateFile,
        served: &Served,
        read: Result<Vec<u8>, EdgeError>,
        now: SystemTime,
    ) -> (Option<Served>, Vec<News>) {
        let (mut renewed, mut news) = (None, Vec::new());
        let bytes = read.as_ref().ok().cloned();
        if bytes.as_ref() == Some(&served.bytes) {
            self.refused = None;
        } else {
            // One that is not valid yet may be in a minute, so what was refused is tried again, quietly.
            match read.and_then(|bytes| file.fitting(bytes, now)) {
                Ok(fitting) => {
                    (self.refused, self.warned) = (None, None);
                    renewed = Some(fitting);
                    news.push(News::Renewed);
                }
                Err(error) => {
                    let refused = Some((bytes, error.to_string()));
                    if self.refused != refused {
                        news.push(News::Refused(error.to_string()));
                        self.refused = refused;
                    }
                }
            }
        }
        news.extend(self.ending(renewed.as_ref().unwrap_or(served), now).map(News::Ending));
        (renewed, news)
    }

    /// Once a day, and when it comes to its end.
    fn ending(&mut self, served: &Served, now: SystemTime) -> Option<Ending> {
        let now_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ending = match served.not_after_s.checked_sub(now_s) {
            None | Some(0) => Ending::Over,
            Some(left) if left < SOON.as_secs() => Ending::Soon(left / DAY.as_secs()),
            Some(_) => return None,
        };
        if let Some((when, said)) = self.warned {
            // A clock that was set back counts as a day.
            let lately = now.duration_since(when).is_ok_and(|since| since < DAY);
            if lately && (said == Ending::Over) == (ending == Ending::Over) {
                return None;
            }
        }
        self.warned = Some((now, ending));
        Some(ending)
    }
}

impl News {
    fn log(&self) {
        match self {
            Self::Renewed => tracing::info!("renewed the certificate"),
            Self::Refused(error) => {
                tracing::warn!(%error, "refused a changed certificate; the one before stays");
            }
            Self::Ending(Ending::Soon(days)) => {
                tracing::warn!(days, "the certificate ends soon; put a new one into edge.certificate_file");
            }
            Self::Ending(Ending::Over) => tracing::error!(
                "the certificate has expired and clients refuse it; put a new one into edge.certificate_file"
            ),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn fitting(bytes: Vec<u8>, deployment: &str, key: NoiseKey, now: SystemTime) -> Result<Served, CertificateError> {
    let certificate = ServerCertificate::from_bytes(&bytes)?.to_proto();
    let body = pb::CertificateBody::decode(&certificate.body[..]).map_err(|_| CertificateError::Malformed)?;
    if body.deployment != deployment {
        return Err(CertificateError::Deployment);
    }
    if body.static_key != key.as_bytes()[..] {
        return Err(CertificateError::StaticKey);
    }
    let now_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if now_s < body.not_before_s {
        return Err(CertificateError::NotYetValid);
    }
    if now_s >= body.not_after_s {
        return Err(CertificateError::Expired);
    }
    Ok(Served { certificate, not_before_s: body.not_before_s, not_after_s: body.not_after_s, bytes })
}

#[cfg(test)]
mod tests {
    use causeway_identity::{RootKey, Validity};
    use causeway_noise::StaticKey;
    use causeway_runtime::clock::{Clock as _, ManualClock};
    use causeway_runtime::secret_file;

    use super::*;
    use crate::keys::Keys;
    use crate::tests::Log;

    const DEPLOYMENT: &str = "net.example";
    const LOOK: Duration = Duration::from_secs(60);

    /// An edge's files, and its certificate being looked after.
    struct Bench {
        clock: Arc<ManualClock>,
        rules: Arc<Rules>,
        health: Health,
        stop: CancellationToken,
        task: Option<tokio::task::JoinHandle<()>>,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new(days: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = EdgeConfig {
                noise_key_file: folder.path().join("noise.key"),
                certificate_file: folder.path().join("certificate"),
                deployment: DEPLOYMENT.to_owned(),
                ..EdgeConfig::default()
            };
            let clock = ManualClock::at_ms(1_800_000_000_000);
            secret_file::create(&config.noise_key_file, "01".repeat(32).as_bytes()).unwrap();
            std::fs::write(&config.certificate_file, certificate(1, DEPLOYMENT, clock.now(), days)).unwrap();
            let keys = Keys::load(&config, clock.now()).unwrap();
            let rules = Arc::new(Rules { config, keys });
            let (health, stop) = (Health::default(), CancellationToken::new());
            Self { clock, rules, health, stop, task: None, _folder: folder }
        }

        fn start(&mut self) {
            let looking =
                look_after(Arc::clone(&self.rules), self.clock.clone(), self.health.clone(), self.stop.clone());
            self.task = Some(tokio::spawn(looking));
        }

        /// Puts this into the file, and waits for the next look to be over.
        async fn put(&self, bytes: &[u8]) {
            std::fs::write(&self.rules.config.certificate_file, bytes).unwrap();
            self.looks(1).await;
        }

        async fn looks(&self, looks: u32) {
            // Time is paused: it passes only while no read is under way.
            tokio::time::sleep(LOOK * looks + Duration::from_millis(1)).await;
        }

        /// The certificate that clients get.
        fn given(&self) -> pb::ServerCertificate {
            pb::ServerHello::decode(&self.rules.keys.server_hello(0)[..]).unwrap().certificate.unwrap()
        }

        async fn stop(self) {
            self.stop.cancel();
            self.task.unwrap().await.unwrap();
        }
    }

    /// Of the key with this seed, from now on.
    fn certificate(seed: u8, deployment: &str, now: SystemTime, days: u64) -> Vec<u8> {
        let public = NoiseKey::new(*StaticKey::from_bytes([seed; 32]).public()).unwrap();
        let validity = Validity { not_before: now, not_after: now + DAY * u32::try_from(days).unwrap() };
        ServerCertificate::issue(&RootKey::from_seed([3; 32]), deployment, &public, validity).unwrap().to_bytes()
    }

    fn proto(bytes: &[u8]) -> pb::ServerCertificate {
        ServerCertificate::from_bytes(bytes).unwrap().to_proto()
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_served_without_a_restart_and_a_bad_one_is_not() {
        let (log, _listening) = Log::listen();
        let mut bench = Bench::new(90);
        bench.start();
        let first = bench.given();
        bench.looks(3).await;
        assert!(log.lines().is_empty(), "{:?}", log.lines());

        let now = bench.clock.now();
        let second = certificate(1, DEPLOYMENT, now, 91);
        bench.put(&second).await;
        assert_eq!(bench.given(), proto(&second));
        assert_ne!(bench.given(), first);
        assert_eq!(log.count(&["INFO", "renewed"]), 1);

        let path = bench.rules.config.certificate_file.display().to_string();
        let cases = [
            (b"rubbish".to_vec(), "malformed"),
            (Vec::new(), "malformed"),
            (second[..second.len() - 1].to_vec(), "malformed"),
            (vec![0x0a; 100_000], "malformed"),
            (certificate(2, DEPLOYMENT, now, 90), "static key"),
            (certificate(1, "other.example", now, 90), "another deployment"),
            (certificate(1, DEPLOYMENT, now - DAY * 3, 2), "expired"),
        ];
        for (bytes, problem) in cases {
            let before = log.count(&["WARN", &path, problem]);
            bench.put(&bytes).await;
            bench.looks(3).await;
            assert_eq!(log.count(&["WARN", &path, problem]), before + 1, "{:#?}", log.lines());
            assert_eq!(bench.given(), proto(&second));
        }
        std::fs::remove_file(&bench.rules.config.certificate_file).unwrap();
        bench.looks(3).await;
        assert_eq!(log.count(&["WARN", &path, "cannot read"]), 1);
        assert_eq!(bench.given(), proto(&second));

        // One that is for later is taken when its time has come.
        let third = certificate(1, DEPLOYMENT, now + DAY, 90);
        bench.put(&third).await;
        assert_eq!(log.count(&["WARN", &path, "not yet valid"]), 1);
        bench.clock.advance(DAY);
        bench.looks(1).await;
        assert_eq!(bench.given(), proto(&third));
        bench.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_announced_once_a_day_and_when_it_has_come() {
        let (log, _listening) = Log::listen();
        let mut bench = Bench::new(15);
        bench.start();
        bench.looks(3).await;
        assert_eq!(log.count(&["certificate"]), 0);
        bench.clock.advance(DAY + LOOK);
        bench.looks(3).await;
        assert_eq!(log.count(&["WARN", "ends soon", "days=13"]), 1);
        bench.clock.advance(DAY);
        bench.looks(3).await;
        assert_eq!(log.count(&["WARN", "ends soon", "days=12"]), 1);
        assert_eq!(log.lines().len(), 2);

        bench.clock.advance(DAY * 12 + DAY / 2);
        bench.looks(3).await;
        assert_eq!(log.count(&["WARN", "ends soon", "days=0"]), 1);
        bench.clock.advance(DAY / 2);
        bench.looks(3).await;
        assert_eq!(log.count(&["ERROR", "expired"]), 1, "at once");
        bench.clock.advance(DAY);
        bench.looks(3).await;
        assert_eq!(log.count(&["ERROR", "expired"]), 2);
        let expired = &bench.health.parts()[PART];
        assert!(matches!(expired, Part::Degraded(meaning) if meaning.contains("has expired")), "{expired:?}");

        bench.put(&certificate(1, DEPLOYMENT, bench.clock.now(), 90)).await;
        let lines = log.lines().len();
        bench.clock.advance(DAY);
        bench.looks(3).await;
        assert_eq!(log.lines().len(), lines, "renewed");
        assert_eq!(bench.health.parts()[PART], Part::Up);
        bench.stop().await;
    }
}
