//! Tickets: the right to one upload or one download, sealed so that the HTTP side needs no state to check them.
//!
//! A ticket is base64url (no padding) of a serialised `causeway.media.v1.TicketBody` followed by 32 bytes of
//! HMAC-SHA256 over `"causeway media ticket v1\0"` and that body. Whoever holds it may use it, until it expires, for
//! exactly the blob or URL, size and digest that it names.

mod rate;
mod shared_uses;
mod uses;

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use causeway_identity::AccountId;
use causeway_proto::media::v1::{TicketBody, ticket_body};
use causeway_redis::Redis;
use causeway_runtime::clock::SharedClock;
use causeway_runtime::secret_file;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use prost::Message as _;
use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};
use url::Url;
use zeroize::Zeroizing;

use self::rate::Rate;
use self::shared_uses::SharedUses;
use self::uses::Uses;
use crate::blobs::BlobId;
use crate::error::{MediaError, RequestError};

/// Longest ticket in characters.
pub const MAX_TICKET_CHARS: usize = 2_048;
/// Longest URL in bytes that a download ticket can name.
pub const MAX_URL_BYTES: usize = 1_024;

const SCHEME: &str = "Causeway ";
const CONTEXT: &[u8] = b"causeway media ticket v1\0";
const TAG_BYTES: usize = 32;
const DEFAULT_MAX_USES: u32 = 64;
const DEFAULT_BURST: u32 = 60;
const DEFAULT_PER_MINUTE: u32 = 60;

/// What a ticket allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who asked for it.
    pub account: AccountId,
    /// Bytes of ciphertext.
    pub size: u64,
    /// SHA-256 of the ciphertext.
    pub sha256: [u8; 32],
    /// To do what.
    pub right: Right,
}

/// One thing that may be done.
#[derive(Clone, PartialEq, Eq)]
pub enum Right {
    /// Write this blob here.
    Upload(BlobId),
    /// Fetch this URL through here.
    Download(Url),
}

/// Hides blob names and URLs, which are as good as the right to read.
impl std::fmt::Debug for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Upload(_) => "Upload",
            Self::Download(_) => "Download",
        })
    }
}

/// A ticket as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// At most [`MAX_TICKET_CHARS`].
    pub ticket: String,
    /// Unix milliseconds.
    pub expires_ms: u64,
}

/// A ticket that was presented and is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// What it allows.
    pub grant: Grant,
    tag: [u8; TAG_BYTES],
    expires_ms: u64,
}

/// Why a ticket was refused. Clients are told which of these it was in the last case only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefused {
    /// No `Authorization: Causeway ...` header, or more than one.
    #[error("no ticket")]
    Missing,
    /// Not base64url, too long or no ticket body.
    #[error("malformed")]
    Malformed,
    /// Not sealed by this key.
    #[error("forged")]
    Forged,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Presented too often.
    #[error("used up")]
    UsedUp,
    /// Good, but for something else.
    #[error("for something else")]
    OtherRight,
    /// It cannot be learnt now how often other replicas have seen it. Clients are told to come back.
    #[error("uses cannot be counted")]
    Uncounted,
}

impl TicketRefused {
    /// Metric label and log field.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::UsedUp => "used-up",
            Self::OtherRight => "other-right",
            Self::Uncounted => "uncounted",
        }
    }
}

/// Issues tickets and checks those that come back.
pub struct Tickets {
    key: hmac::Key,
    clock: SharedClock,
    max_uses: u32,
    uses: Uses,
    /// Of uploads, over all replicas.
    shared: Option<SharedUses>,
    rate: Rate,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// Reads the key file, or makes it (32 random bytes, mode 0600) if it is absent.
    ///
    /// # Errors
    /// [`MediaError::Secret`] when it cannot be read or written or others may read it, [`MediaError::Key`] when it is not
    /// 32 bytes long.
    pub fn open(key_file: &Path, clock: SharedClock) -> Result<Self, MediaError> {
        let secret = secret_file::read_or_create(key_file, || {
            let mut key = Zeroizing::new(vec![0; 32]);
            OsRng.unwrap_err().fill_bytes(&mut key);
            key
        })?;
        let key = secret.as_slice().try_into().map_err(|_| MediaError::Key { path: key_file.to_owned() })?;
        Ok(Self::with_key(key, clock))
    }

    /// With this key.
    pub fn with_key(key: &[u8; 32], clock: SharedClock) -> Self {
        let (uses, rate) = (Uses::new(DEFAULT_MAX_USES), Rate::new(DEFAULT_BURST, DEFAULT_PER_MINUTE));
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { key, clock, max_uses: DEFAULT_MAX_USES, uses, shared: None, rate }
    }

    /// Lets each ticket be presented this often (64 without this call).
    #[must_use]
    pub fn with_max_uses(mut self, max_uses: u32) -> Self {
        self.max_uses = max_uses;
        self.uses = Uses::new(max_uses);
        self
    }

    /// Counts the uses of upload tickets together with all other replicas that have the same Redis and key. Without an
    /// answer from it there are no uploads. Downloads are counted by each replica alone: they change nothing.
    /// To be called after [`Tickets::with_max_uses`].
    #[must_use]
    pub fn with_redis(mut self, redis: Redis) -> Self {
        self.shared = Some(SharedUses::new(redis, self.max_uses));
        self
    }

    /// Gives each account this many tickets at once and so many a minute afterwards (60 and 60 without this call).
    #[must_use]
    pub fn with_rate(mut self, burst: u32, per_minute: u32) -> Self {
        self.rate = Rate::new(burst, per_minute);
        self
    }

    /// Seals `grant` for `valid` from now.
    ///
    /// # Errors
    /// [`RequestError::Field`] for a URL longer than [`MAX_URL_BYTES`], [`RequestError::Quota`] when the account has got
    /// too many tickets lately.
    pub fn issue(&self, grant: &Grant, valid: Duration) -> Result<Sealed, RequestError> {
        let right = match &grant.right {
            Right::Upload(blob) => ticket_body::Right::UploadBlob(blob.to_string()),
            Right::Download(url) if url.as_str().len() > MAX_URL_BYTES => {
                return Err(RequestError::Field { field: "url", problem: "longer than 1024 bytes" });
            }
            Right::Download(url) => ticket_body::Right::DownloadUrl(url.to_string()),
        };
        let now_ms = self.clock.now_ms();
        self.rate.take(grant.account, now_ms).map_err(|retry_after| RequestError::Quota { retry_after })?;
        let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms.saturating_add(valid_ms);
        let body = TicketBody {
            account_id: Bytes::copy_from_slice(grant.account.as_bytes()),
            expires_ms,
            size: grant.size,
            sha256: Bytes::copy_from_slice(&grant.sha256),
            right: Some(right),
        };
        let mut bytes = body.encode_to_vec();
        let tag = self.tag(&bytes);
        bytes.extend_from_slice(tag.as_ref());
        Ok(Sealed { ticket: URL_SAFE_NO_PAD.encode(bytes), expires_ms })
    }

    /// Checks the ticket in `headers`. Whether it may be used once more is found by [`Tickets::count`], which is called
    /// when it is good for what was asked.
    ///
    /// # Errors
    /// [`TicketRefused`].
    pub fn verify(&self, headers: &HeaderMap) -> Result<Presented, TicketRefused> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(TicketRefused::Missing);
        };
        let text = value.to_str().map_err(|_| TicketRefused::Malformed)?;
        self.verify_text(text.strip_prefix(SCHEME).ok_or(TicketRefused::Missing)?)
    }

    fn verify_text(&self, ticket: &str) -> Result<Presented, TicketRefused> {
        if ticket.len() > MAX_TICKET_CHARS {
            return Err(TicketRefused::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(ticket).map_err(|_| TicketRefused::Malformed)?;
        let (body, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(TicketRefused::Malformed)?;
        self.check_tag(body, tag)?;
        let (grant, expires_ms) = read_body(body).ok_or(TicketRefused::Malformed)?;
        if self.clock.now_ms() >= expires_ms {
            return Err(TicketRefused::Expired);
        }
        Ok(Presented { grant, tag: *tag, expires_ms })
    }

    /// Counts a use of a ticket. Dropped half-way, it may have counted.
    ///
    /// # Errors
    /// [`TicketRefused::UsedUp`] when it was one too many, or too many tickets of the account are in use;
    /// [`TicketRefused::Uncounted`].
    pub async fn count(&self, ticket: &Presented) -> Result<(), TicketRefused> {
        let now_ms = self.clock.now_ms();
        if !self.uses.count(ticket.grant.account, &ticket.tag, ticket.expires_ms, now_ms) {
            return Err(TicketRefused::UsedUp);
        }
        let (Some(shared), Right::Upload(_)) = (&self.shared, &ticket.grant.right) else { return Ok(()) };
        match shared.count(&ticket.tag, ticket.expires_ms, now_ms).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(TicketRefused::UsedUp),
            Err(_) => Err(TicketRefused::Uncounted),
        }
    }

    fn tag(&self, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(CONTEXT);
        context.update(body);
        context.sign()
    }

    fn check_tag(&self, body: &[u8], tag: &[u8; TAG_BYTES]) -> Result<(), TicketRefused> {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.tag(body).as_ref(), tag)
            .map_err(|_| TicketRefused::Forged)
    }
}

/// What was sealed; `None` only when the key sealed something else than this version's tickets.
fn read_body(bytes: &[u8]) -> Option<(Grant, u64)> {
    let body = TicketBody::decode(bytes).ok()?;
    let right = match body.right? {
        ticket_body::Right::UploadBlob(name) => Right::Upload(name.parse().ok()?),
        ticket_body::Right::DownloadUrl(url) => Right::Download(Url::parse(&url).ok()?),
    };
    let account = AccountId::try_from(&*body.account_id).ok()?;
    let sha256 = body.sha256.as_ref().try_into().ok()?;
    Some((Grant { account, size: body.size, sha256, right }, body.expires_ms))
}

#[cfg(test)]
mod tests {
    use causeway_runtime::clock::ManualClock;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn upload() -> Grant {
        let blob = BlobId::from_bytes([7; 16]);
        Grant { account: AccountId::from_bytes([1; 16]), size: 9, sha256: [2; 32], right: Right::Upload(blob) }
    }

    fn headers(ticket: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("{SCHEME}{ticket}")).unwrap());
        headers
    }

    fn tickets() -> Tickets {
        Tickets::with_key(&[3; 32], ManualClock::at_ms(1_000))
    }

    #[test]
    fn the_key_file_is_made_once_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/ticket.key");
        let clock = ManualClock::at_ms(1_000);
        let first = Tickets::open(&path, clock.clone()).unwrap();
        let sealed = first.issue(&upload(), Duration::from_secs(1)).unwrap();
        let second = Tickets::open(&path, clock.clone()).unwrap();
        assert!(second.verify(&headers(&sealed.ticket)).is_ok(), "a restart keeps the key");
        std::fs::write(&path, b"short").unwrap();
        assert!(Tickets::open(&path, clock.clone()).unwrap_err().to_string().contains("32 bytes"));
        assert!(matches!(Tickets::open(folder.path(), clock), Err(MediaError::Secret(_))));
    }

    #[test]
    fn what_is_issued_verifies_until_it_expires() {
        let clock = ManualClock::at_ms(1_000);
        let tickets = Tickets::with_key(&[3; 32], clock.clone());
        let url = Url::parse("https://media.birdy.example/v1/blobs/00").unwrap();
        for grant in [upload(), Grant { right: Right::Download(url), ..upload() }] {
            let sealed = tickets.issue(&grant, Duration::from_millis(50)).unwrap();
            assert!(sealed.ticket.len() <= MAX_TICKET_CHARS);
            assert_eq!(tickets.verify(&headers(&sealed.ticket)).unwrap().grant, grant);
        }
        let sealed = tickets.issue(&upload(), Duration::from_millis(50)).unwrap();
        assert_eq!(sealed.expires_ms, 1_050);
        clock.advance(Duration::from_millis(49));
        assert!(tickets.verify(&headers(&sealed.ticket)).is_ok());
        clock.advance(Duration::from_millis(1));
        assert_eq!(tickets.verify(&headers(&sealed.ticket)), Err(TicketRefused::Expired));
    }

    #[test]
    fn the_longest_url_still_fits_and_a_longer_one_is_refused() {
        let url = |n: usize| Url::parse(&format!("https://x.example/{}", "a".repeat(n - 18))).unwrap();
        let grant = |n| Grant { right: Right::Download(url(n)), size: u64::MAX, ..upload() };
        let sealed = tickets().issue(&grant(MAX_URL_BYTES), Duration::MAX).unwrap();
        assert!(sealed.ticket.len() <= MAX_TICKET_CHARS, "{}", sealed.ticket.len());
        assert!(tickets().verify(&headers(&sealed.ticket)).is_ok());
        assert!(tickets().issue(&grant(MAX_URL_BYTES + 1), Duration::MAX).is_err());
    }

    #[test]
    fn missing_doubled_and_foreign_tickets_are_refused() {
        let tickets = tickets();
        let sealed = tickets.issue(&upload(), Duration::from_secs(1)).unwrap();
        assert_eq!(tickets.verify(&HeaderMap::new()), Err(TicketRefused::Missing));
        let mut twice = headers(&sealed.ticket);
        twice.append(AUTHORIZATION, HeaderValue::from_static("Causeway x"));
        assert_eq!(tickets.verify(&twice), Err(TicketRefused::Missing));
        let mut bearer = HeaderMap::new();
        bearer.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", sealed.ticket)).unwrap());
        assert_eq!(tickets.verify(&bearer), Err(TicketRefused::Missing));
        let other = Tickets::with_key(&[4; 32], ManualClock::at_ms(1_000));
        assert_eq!(other.verify(&headers(&sealed.ticket)), Err(TicketRefused::Forged));
        assert_eq!(tickets.verify(&headers(&"A".repeat(3_000))), Err(TicketRefused::Malformed));
        assert_eq!(tickets.verify(&headers("")), Err(TicketRefused::Malformed));
    }

    #[tokio::test]
    async fn a_ticket_is_good_for_a_bounded_number_of_uses() {
        let tickets = tickets().with_max_uses(3);
        let sealed = tickets.issue(&upload(), Duration::from_secs(1)).unwrap();
        let presented = tickets.verify(&headers(&sealed.ticket)).unwrap();
        for _ in 0..3 {
            assert_eq!(tickets.count(&presented).await, Ok(()));
        }
        assert_eq!(tickets.count(&presented).await, Err(TicketRefused::UsedUp));
    }

    #[test]
    fn an_account_gets_tickets_at_a_bounded_rate() {
        let clock = ManualClock::at_ms(1_000);
        let tickets = Tickets::with_key(&[3; 32], clock.clone()).with_rate(2, 60);
        let issue = |account: u8| {
            let grant = Grant { account: AccountId::from_bytes([account; 16]), ..upload() };
            tickets.issue(&grant, Duration::from_secs(1)).map(drop)
        };
        assert_eq!((issue(1), issue(1)), (Ok(()), Ok(())));
        assert_eq!(issue(1), Err(RequestError::Quota { retry_after: Duration::from_secs(1) }));
        assert_eq!(issue(2), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(issue(1), Ok(()));
    }

    proptest! {
        #[test]
        fn no_changed_ticket_verifies(at in 0_usize..400, bit in 0_u8..8) {
            let tickets = tickets();
            let sealed = tickets.issue(&upload(), Duration::from_secs(1)).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(sealed.ticket).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(tickets.verify(&headers(&changed)), Err(TicketRefused::Forged));
        }

        #[test]
        fn garbage_never_verifies(text in "[ -~]{0,200}") {
            prop_assert!(tickets().verify(&headers(&text)).is_err());
        }
    }
}
