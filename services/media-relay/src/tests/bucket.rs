//! Blobs in a bucket: small ones in one request, large ones in parts, nothing left of what broke off.

use causeway_runtime::secret_file;
use causeway_test_servers::Bucket;

use super::*;
use crate::StoreKind;
use crate::blobs::{BucketConfig, PART_BYTES};

/// More than two parts, and some.
const LARGE: usize = 11 * 1024 * 1024 + 7;

fn on_bucket(server: &Bucket, folder: &TempDir) -> impl Fn(&mut MediaConfig) + use<> {
    let (endpoint, key) = (server.endpoint(), folder.path().join("s3.key"));
    secret_file::create(&key, b"causeway\n").unwrap();
    move |config| {
        config.store = StoreKind::S3;
        config.s3 = BucketConfig {
            endpoint: endpoint.clone(),
            bucket: Bucket::NAME.to_owned(),
            access_key_id_file: key.clone(),
            secret_access_key_file: key.clone(),
            ..BucketConfig::default()
        };
    }
}

/// Uploads that were begun and not ended.
fn unfinished(server: &Bucket) -> usize {
    server.get("?uploads").unwrap().matches("<UploadId>").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_as_good_as_a_folder() {
    let server = tokio::task::spawn_blocking(|| Bucket::start().unwrap()).await.unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let set = on_bucket(&server, &folder);
    let one = Running::start_in(Arc::clone(&folder), &set).await;
    // A second replica: what one stored the other serves.
    let other = Running::start_in(Arc::clone(&folder), &set).await;
    for length in [1, 300_000, PART_BYTES, LARGE] {
        let bytes = ciphertext(length);
        let ticket = one.upload(bytes.clone()).await;
        let id = ticket.url.rsplit('/').next().unwrap();
        let url = format!("http://{}/v1/blobs/{id}", other.address);
        let got = other.http.get(&url).send().await.unwrap();
        assert_eq!(got.headers()["content-length"], length.to_string());
        assert!(got.bytes().await.unwrap() == bytes, "{length} bytes");
        let last = other.http.get(&url).header("range", format!("bytes={}-", length - 1)).send().await.unwrap();
        assert_eq!((last.status().as_u16(), last.bytes().await.unwrap()), (206, bytes[length - 1..].to_vec().into()));
    }
    assert_eq!(one.files(), Vec::<String>::new(), "nothing is in the folder");

    // Wrong bytes: the uploader is told, nothing is visible, and the parts that were written are let go.
    let ticket = one.upload_ticket(&ciphertext(LARGE));
    let wrong = one.put(&ticket).body(vec![0; LARGE]).send().await.unwrap();
    assert_eq!(wrong.status(), 422);
    assert_eq!(one.http.get(&ticket.public_url).send().await.unwrap().status(), 404);
    let let_go = async {
        while tokio::task::block_in_place(|| unfinished(&server)) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), let_go).await.expect("the upload is aborted");

    // Past the retention a sweep removes them.
    let days = Duration::from_secs(36 * 86_400);
    one.clock.advance(days);
    assert_eq!(one.host.sweep().await.unwrap().expired, 4);
    assert_eq!(one.host.sweep().await.unwrap().expired, 0);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_seen_at_the_start() {
    let server = tokio::task::spawn_blocking(|| Bucket::start().unwrap()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = MediaConfig { listen: "127.0.0.1:0".parse().unwrap(), ..MediaConfig::default() };
    config.ticket_key_file = Some(folder.path().join("ticket.key"));
    on_bucket(&server, &folder)(&mut config);
    config.s3.bucket = "another".to_owned();
    let refused = MediaRelay::build(config, ManualClock::at_ms(1)).await.unwrap_err().to_string();
    assert!(refused.contains("NoSuchBucket") || refused.contains("another"), "{refused}");
}
