//! Uploads and downloads over sockets, against a small HTTP server that breaks off, lies and refuses on demand.

mod server;

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;

use self::server::{Fault, Server};
use super::encrypt::encrypt;
use super::*;
use crate::content::Media;

/// A server as the tickets' source: the tests are about what happens to the bytes.
#[async_trait]
impl MediaHost for Server {
    async fn upload_ticket(&self, size: u64, _sha256: [u8; 32]) -> Result<UploadTicket, MediaError> {
        let ticket = self.ticket();
        Ok(UploadTicket { url: self.url(size), ticket, public_url: self.url(size) })
    }
}

#[async_trait]
impl MediaRelay for Server {
    async fn download_ticket(&self, url: &str, _size: u64, _sha256: [u8; 32]) -> Result<Ticket, MediaError> {
        Ok(Ticket { url: url.to_owned(), ticket: self.ticket() })
    }
}

fn transfers() -> MediaTransfers {
    let bounds = MediaBounds {
        max_bytes: 1_000_000,
        idle_timeout: Duration::from_millis(500),
        total_timeout: Duration::from_secs(20),
        attempts: 4,
        pause: Duration::from_millis(1),
    };
    MediaTransfers::new(bounds).unwrap()
}

fn plaintext(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
}

async fn uploaded(server: &Server, size: usize) -> Media {
    transfers().upload(server, &plaintext(size)[..], MediaDetails::default()).await.unwrap()
}

async fn downloaded(server: &Server, media: &Media) -> (Vec<u8>, Result<u64, MediaError>) {
    let mut copy = Vec::new();
    let result = transfers().download(server, media, &mut copy).await;
    (copy, result)
}

/// `media` with another ciphertext on the server, of which everything but the key's seal was adapted.
async fn substituted(server: &Server, media: &Media, ciphertext: Vec<u8>) -> Result<u64, MediaError> {
    let changed = Media { ciphertext_sha256: sha256(&ciphertext), ..media.clone() };
    server.replace(ciphertext);
    downloaded(server, &changed).await.1
}

#[tokio::test]
async fn the_ciphertext_is_the_documented_one() {
    // Made with another implementation of AES-GCM, by the description in segments.rs.
    let key: [u8; 32] = std::array::from_fn(|i| i as u8);
    for (size, sealed, hash) in [
        (0, 16, "34d1109210ab966e613094e6cad1184ea9d0465040a883f8fede10b814b473b0"),
        (5, 21, "47ddf1ff37cd7f49bbb10109df45abe5c600bbf7cd4b7b13f51f19f64634e889"),
        (65_536, 65_552, "438095998135de07eb76696982171f5739bfb1e65f6c3008830f9fd452904d81"),
        (65_541, 65_573, "cad8a64b70b79a25adf547806e3700db2e41dee59a2646b78b32c7a833feefc9"),
        (131_072, 131_104, "ce41723e1f6f6dd9d46e28e61c6d937a63dd2b38e6292a5b34e31e5480899be3"),
    ] {
        let made = encrypt(&plaintext(size)[..], &key, 1_000_000).await.unwrap();
        assert_eq!((made.size, made.sealed_size, hex::encode(made.sha256)), (size as u64, sealed, hash.to_owned()));
    }
}

#[tokio::test]
async fn what_was_uploaded_comes_back() {
    for size in [0, 1, 65_535, 65_536, 65_537, 131_072, 400_000] {
        let server = Server::start().await;
        let media = uploaded(&server, size).await;
        assert_eq!((media.size, media.ciphertext_size), (size as u64, server.stored().len() as u64));
        assert_eq!(media.ciphertext_sha256, sha256(&server.stored()));
        let (copy, result) = downloaded(&server, &media).await;
        assert_eq!(result.unwrap(), size as u64);
        assert!(copy == plaintext(size), "{size}");
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_behind_the_last_good_segment() {
    let server = Server::start().await;
    let media = uploaded(&server, 400_000).await;
    server.will([
        Fault::CutAfter(10),
        Fault::CutAfter(70_000),
        Fault::CutAfter(0),
        Fault::Close,
        Fault::CutAfter(140_000),
    ]);
    let (copy, result) = downloaded(&server, &media).await;
    result.unwrap();
    assert!(copy == plaintext(400_000));
    let ranges = server.ranges();
    let size = media.ciphertext_size - 1;
    let expected = [None, None, Some(65_552), Some(65_552), Some(65_552), Some(196_656)];
    assert_eq!(ranges, expected.map(|from: Option<u64>| from.map(|from| format!("bytes={from}-{size}"))));
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_made_again() {
    let server = Server::start().await;
    server.will([Fault::Close, Fault::Status(503), Fault::Status(403)]);
    let media = uploaded(&server, 200_000).await;
    assert_eq!(server.tickets(), 2, "only a refused ticket is asked for again");
    assert_eq!(media.ciphertext_sha256, sha256(&server.stored()));
}

#[tokio::test]
async fn attempts_that_bring_nothing_end() {
    let server = Server::start().await;
    let media = uploaded(&server, 10).await;
    for fault in [Fault::Close, Fault::Status(502), Fault::Status(403), Fault::CutAfter(3), Fault::Silent] {
        server.will([fault; 10]);
        assert!(matches!(downloaded(&server, &media).await.1, Err(MediaError::GivenUp(_))), "{fault:?}");
    }
    for status in [404, 416, 301] {
        server.will([Fault::Status(status); 10]);
        assert!(matches!(downloaded(&server, &media).await.1, Err(MediaError::Refused(s)) if s == status));
    }
    server.will([Fault::Status(413)]);
    let refused = transfers().upload(&server, &b"x"[..], MediaDetails::default()).await;
    assert!(matches!(refused, Err(MediaError::Refused(413))));
}

#[tokio::test]
async fn changed_ciphertexts_are_refused() {
    let server = Server::start().await;
    let media = uploaded(&server, 200_000).await;
    let whole = server.stored();
    let segment = 65_552;
    let refused = |result| matches!(result, Err(MediaError::Tampered));
    for at in [0, segment - 1, segment, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(refused(substituted(&server, &media, changed).await), "byte {at}");
    }
    let mut swapped = whole.clone();
    swapped[..2 * segment].rotate_left(segment);
    assert!(refused(substituted(&server, &media, swapped).await));
    let doubled = [&whole[..segment], &whole[..segment], &whole[2 * segment..]].concat();
    assert!(refused(substituted(&server, &media, doubled).await));
    let extended = [&whole[..], b"x"].concat();
    assert!(refused(substituted(&server, &media, extended).await));

    // Cut at a segment's end, with sizes that say so: the last segment is not marked as the last.
    let cut = Media { size: 2 * 65_536, ciphertext_size: 2 * segment as u64, ..media.clone() };
    assert!(refused(substituted(&server, &cut, whole[..2 * segment].to_vec()).await));
    // The right segments under a digest of something else: the message named another ciphertext.
    server.replace(whole.clone());
    let other = Media { ciphertext_sha256: [0; 32], ..media.clone() };
    assert!(refused(downloaded(&server, &other).await.1));
    let other = Media { key: [0; 32], ..media.clone() };
    assert!(refused(downloaded(&server, &other).await.1));
    // Cut without saying so: looks like a broken connection, and ends like one.
    server.replace(whole[..segment + 5].to_vec());
    let (copy, result) = downloaded(&server, &media).await;
    assert!(matches!(result, Err(MediaError::GivenUp(_))));
    assert!(copy == plaintext(65_536), "what came before is genuine");
    server.replace(whole);
    assert!(downloaded(&server, &media).await.1.is_ok());
}

#[tokio::test]
async fn other_ranges_than_the_wanted_one_are_not_taken() {
    let server = Server::start().await;
    let media = uploaded(&server, 100_000).await;
    server.will([Fault::CutAfter(70_000), Fault::WrongRange, Fault::WholeInstead, Fault::CutAfter(100_000)]);
    let (copy, result) = downloaded(&server, &media).await;
    // A whole answer to a request for a part is an answer to another question.
    assert!(matches!(result, Err(MediaError::Refused(200))), "{result:?}");
    assert!(copy == plaintext(65_536));
}

#[tokio::test]
async fn bounds_hold_before_anything_is_fetched() {
    let server = Server::start().await;
    let media = uploaded(&server, 10).await;
    let transfers = transfers();
    let large = transfers.upload(&server, &vec![0; 1_000_001][..], MediaDetails::default()).await;
    assert!(matches!(large, Err(MediaError::TooLarge { max: 1_000_000 })));
    for (size, ciphertext_size) in [(10, 25), (10, 27), (11, 26), (10, u64::MAX)] {
        let wrong = Media { size, ciphertext_size, ..media.clone() };
        assert!(matches!(downloaded(&server, &wrong).await.1, Err(MediaError::Sizes)));
    }
    for size in [1_000_001, u64::MAX] {
        let wrong = Media { size, ..media.clone() };
        assert!(matches!(downloaded(&server, &wrong).await.1, Err(MediaError::TooLarge { .. })));
    }
    assert_eq!(server.ranges().len(), 0);
    let elsewhere = Media { url: "http://192.0.2.1/x".to_owned(), ..media };
    assert!(matches!(downloaded(&server, &elsewhere).await.1, Err(MediaError::Url)));
}
