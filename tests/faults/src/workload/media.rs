//! Media: users upload files, to the operator's host or to their own provider's, and others fetch them through the relays,
//! while everything is disturbed and once more when all is healed. What is put on the way is made of its number, so what
//! comes can be compared byte for byte.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use causeway_client::Media;
use causeway_client::media::{
    MediaBounds, MediaDetails, MediaError, MediaHost, MediaRelay, MediaTransfers, ProviderHost, Ticket, UploadTicket,
};
use causeway_stanza::{ErrorCode, MediaDownload, MediaTicket, MediaUpload, RequestBody, ResponseBody, Sha256, Url};
use futures::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::time::Instant;

use crate::client::light::rng;
use crate::driver::controls::ask;
use crate::driver::world::{Account, Enlisted, World};
use crate::ledger::{Fetched, Record};

/// Uploads that are under way at a time, each with the downloads after it.
pub(super) const AT_ONCE: usize = 12;
/// Downloads at a time when all is healed.
const AT_ONCE_HEALED: usize = 8;
/// How often a device asks for a ticket.
const TICKET_ATTEMPTS: u32 = 3;
/// Between two attempts when all is healed, and to get a ticket.
const PAUSE: Duration = Duration::from_millis(500);

/// A medium of which the host has said that it has all of it.
pub struct Stored {
    number: u32,
    account: u32,
    media: Media,
}

fn transfers() -> anyhow::Result<MediaTransfers> {
    Ok(MediaTransfers::new(MediaBounds {
        idle_timeout: Duration::from_secs(8),
        total_timeout: Duration::from_secs(25),
        attempts: 4,
        ..MediaBounds::default()
    })?)
}

/// A user of `account` uploads one; then two others fetch it, or what was uploaded before.
pub(super) async fn exchange(world: Arc<World>, number: u32) -> anyhow::Result<()> {
    let mut rng = rng(world.seed, "media", number);
    let account = world.accounts.choose(&mut rng).context("an account")?;
    let size = match rng.random_range(0..10) {
        0 => rng.random_range(0..2),
        1..6 => rng.random_range(100..20_000),
        6..9 => rng.random_range(65_000..200_000),
        _ => rng.random_range(200_000..1_000_000),
    };
    upload(&world, account, number, size, &mut rng).await?;
    for _ in 0..2 {
        let Some(stored) = world.media().choose(&mut rng).cloned() else { return Ok(()) };
        download(&world, &stored, false, &mut rng).await?;
    }
    Ok(())
}

async fn upload(world: &World, account: &Account, x: u32, size: usize, rng: &mut StdRng) -> anyhow::Result<()> {
    let a = account.number;
    let Some(device) = account.devices().choose(rng).cloned() else { return Ok(()) };
    let provider = world.provider(account)?;
    let host: Box<dyn MediaHost> = match provider.upload_url() {
        None => Box::new(Asking(device)),
        Some(url) => {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            // As X25519 writes them.
            key[31] &= 0x7f;
            Box::new(ProviderHost::new(&url, provider.tokens(&account.user), key)?)
        }
    };
    world.ledger.write(|t| Record::Upload { t, x, a, size: size as u64 });
    let source = Cursor::new(content(world.seed, x, size));
    let uploaded = transfers()?.upload(host.as_ref(), source, MediaDetails::default()).await;
    let (ok, refused, why) = match &uploaded {
        Ok(_) => (true, false, String::new()),
        Err(error) => (false, matches!(error, MediaError::Refused(_)), error.to_string()),
    };
    world.ledger.write(|t| Record::Uploaded { t, x, ok, refused, why });
    if let Ok(media) = uploaded {
        world.counts.uploads.fetch_add(1, Ordering::Relaxed);
        world.stored(Arc::new(Stored { number: x, account: a, media }));
    }
    Ok(())
}

/// Somebody else fetches it; gives whether it was right.
async fn download(world: &World, stored: &Stored, last: bool, rng: &mut StdRng) -> anyhow::Result<bool> {
    let others: Vec<&Account> = world.accounts.iter().filter(|account| account.number != stored.account).collect();
    let account = others.choose(rng).context("another account")?;
    let Some(device) = account.devices().choose(rng).cloned() else { return Ok(false) };
    let (x, a, began) = (stored.number, account.number, world.ledger.now());
    let mut copy = Cursor::new(Vec::new());
    let fetched = transfers()?.download(&Asking(device), &stored.media, &mut copy).await;
    let size = usize::try_from(stored.media.size)?;
    let (r, why) = match fetched {
        Ok(_) if *copy.get_ref() == content(world.seed, x, size) => (Fetched::Right, String::new()),
        Ok(_) => (Fetched::Wrong, "other bytes".to_owned()),
        Err(error @ (MediaError::Tampered | MediaError::Sizes)) => (Fetched::Wrong, error.to_string()),
        Err(error @ MediaError::Refused(_)) => (Fetched::Refused, error.to_string()),
        Err(error) => (Fetched::Failed, error.to_string()),
    };
    world.ledger.write(|t| Record::Download { began, t, x, a, r, last, why });
    if r == Fetched::Right {
        world.counts.downloads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(r == Fetched::Right)
}

/// All faults are healed: whatever is stored is fetched once more, as often as it takes until `deadline`.
pub async fn fetch_all(world: &Arc<World>, deadline: Instant) {
    let all = world.media();
    stream::iter(all)
        .for_each_concurrent(AT_ONCE_HEALED, async |stored| {
            let mut rng = rng(world.seed, "media again", stored.number);
            while Instant::now() < deadline {
                match download(world, &stored, true, &mut rng).await {
                    Ok(true) => break,
                    Ok(false) => tokio::time::sleep(PAUSE).await,
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "a medium cannot be fetched");
                        break;
                    }
                }
            }
        })
        .await;
}

/// The bytes of a medium.
fn content(seed: u64, number: u32, size: usize) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (seed, number, "medium").hash(&mut hasher);
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(hasher.finish()).fill_bytes(&mut bytes);
    bytes
}

/// Tickets of the operator, over the session of a device.
struct Asking(Arc<Enlisted>);

impl Asking {
    /// A ticket; a server that cannot give one now is asked again.
    async fn ticket(&self, body: RequestBody) -> Result<MediaTicket, MediaError> {
        for _ in 1..TICKET_ATTEMPTS {
            match self.once(body.clone()).await {
                Err(MediaError::Provider(_)) => tokio::time::sleep(PAUSE).await,
                over => return over,
            }
        }
        self.once(body).await
    }

    async fn once(&self, body: RequestBody) -> Result<MediaTicket, MediaError> {
        match ask(&self.0, body).await {
            Some(ResponseBody::MediaTicket(ticket)) => Ok(ticket),
            Some(ResponseBody::Error(error)) => Err(match error.code {
                ErrorCode::Unavailable => MediaError::Provider("unavailable"),
                ErrorCode::RateLimited => MediaError::Provider("rate-limited"),
                // There is no status; what counts is that this is no answer to a right question.
                _ => MediaError::Refused(0),
            }),
            Some(_) => Err(MediaError::Refused(1)),
            None => Err(MediaError::Provider("no answer to the request for one")),
        }
    }
}

#[async_trait]
impl MediaHost for Asking {
    async fn upload_ticket(&self, size: u64, sha256: [u8; 32]) -> Result<UploadTicket, MediaError> {
        let ticket = self.ticket(RequestBody::MediaUpload(MediaUpload { size, sha256: Sha256(sha256) })).await?;
        let public_url = ticket.public_url.ok_or(MediaError::Refused(2))?.as_str().to_owned();
        Ok(UploadTicket { url: ticket.url.as_str().to_owned(), ticket: ticket.ticket.as_str().to_owned(), public_url })
    }
}

#[async_trait]
impl MediaRelay for Asking {
    async fn download_ticket(&self, url: &str, size: u64, sha256: [u8; 32]) -> Result<Ticket, MediaError> {
        let url = Url::try_from(url).map_err(|_| MediaError::Url)?;
        let body = RequestBody::MediaDownload(MediaDownload { url, size, sha256: Sha256(sha256) });
        let ticket = self.ticket(body).await?;
        Ok(Ticket { url: ticket.url.as_str().to_owned(), ticket: ticket.ticket.as_str().to_owned() })
    }
}
