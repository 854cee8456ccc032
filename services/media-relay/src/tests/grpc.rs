use bytes::Bytes;
use causeway_proto::media::v1::tickets_client::TicketsClient;
use causeway_proto::media::v1::{DownloadRequest, UploadRequest};
use causeway_runtime::grpc;
use tonic::Code;

use super::*;

async fn client(change: impl FnOnce(&mut MediaConfig)) -> (TicketsClient<grpc::Channel>, Running) {
    let running = Running::start_with(change).await;
    let router = crate::rpc::router(running.host.clone(), running.relay.clone());
    (TicketsClient::new(grpc::in_process(router, &running.life)), running)
}

fn upload(size: u64) -> UploadRequest {
    UploadRequest {
        account_id: Bytes::copy_from_slice(ADA.as_bytes()),
        size,
        sha256: Bytes::copy_from_slice(&sha256(&ciphertext(usize::try_from(size).unwrap()))),
    }
}

fn download(url: &str, size: u64) -> DownloadRequest {
    let UploadRequest { account_id, size, sha256 } = upload(size);
    DownloadRequest { account_id, url: url.to_owned(), size, sha256 }
}

#[tokio::test]
async fn tickets_from_grpc_work_over_http() {
    let (mut tickets, media) = client(|_| {}).await;
    let bytes = ciphertext(1_000);
    let up = tickets.upload(grpc::call(upload(1_000))).await.unwrap().into_inner();
    assert_eq!(up.expires_ms, media.clock.now_ms() + 600_000);
    let authorization = format!("Causeway {}", up.ticket);
    let put = media.http.put(&up.url).header(AUTHORIZATION, authorization).body(bytes.clone());
    assert_eq!(put.send().await.unwrap().status(), 201);
    let down = tickets.download(grpc::call(download(&up.public_url, 1_000))).await.unwrap().into_inner();
    assert_eq!(down.url, media.relay.url());
    assert_eq!(media.get(&down.ticket).send().await.unwrap().bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn requests_out_of_bounds_are_refused_by_kind() {
    let (mut tickets, _media) = client(|config| {
        config.max_blob_bytes = 10_000;
        config.daily_upload_bytes = 15_000;
    })
    .await;
    let short = |mut request: UploadRequest| {
        request.sha256.truncate(31);
        request
    };
    let nobody = |mut request: UploadRequest| {
        request.account_id.clear();
        request
    };
    for (request, code) in [
        (upload(0), Code::InvalidArgument),
        (short(upload(10)), Code::InvalidArgument),
        (nobody(upload(10)), Code::InvalidArgument),
        (upload(10_001), Code::OutOfRange),
    ] {
        assert_eq!(tickets.upload(grpc::call(request)).await.unwrap_err().code(), code);
    }
    tickets.upload(grpc::call(upload(10_000))).await.unwrap();
    let quota = tickets.upload(grpc::call(upload(10_000))).await.unwrap_err();
    assert_eq!(quota.code(), Code::ResourceExhausted);
    assert!(quota.metadata().get("retry-after-ms").unwrap().to_str().unwrap().parse::<u64>().unwrap() <= 86_400_000);

    let long = format!("https://media.birdy.example/{}", "a".repeat(1_024));
    for url in [
        "",
        "x",
        "/v1",
        "//birdy.example/x",
        "ftp://birdy.example/x",
        "file:///etc/passwd",
        "data:,x",
        "http://birdy.example/x",
        "https://u:p@birdy.example/x",
        "https://birdy.example/x#f",
        "https://10.0.0.1/x",
        "https://[::1]/x",
        "https://birdy/x",
        "http://169.254.169.254/latest",
        "https://2130706433/",
        &long,
    ] {
        let refused = tickets.download(grpc::call(download(url, 10))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{url}");
        assert!(refused.message().starts_with("url: "), "{}", refused.message());
    }
    let large = tickets.download(grpc::call(download("https://media.birdy.example/x", 10_001))).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange);
    tickets.download(grpc::call(download("https://media.birdy.example/x", 10_000))).await.unwrap();
}

#[tokio::test]
async fn an_account_that_asks_without_end_is_told_when_to_come_back() {
    let (mut tickets, media) = client(|config| config.ticket_burst = 4).await;
    for _ in 0..2 {
        tickets.upload(grpc::call(upload(10))).await.unwrap();
        tickets.download(grpc::call(download("https://media.birdy.example/x", 10))).await.unwrap();
    }
    let refused = tickets.download(grpc::call(download("https://media.birdy.example/x", 10))).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.metadata().get("retry-after-ms").unwrap().to_str().unwrap()),
        (Code::ResourceExhausted, "1000")
    );
    let mut other = upload(10);
    other.account_id = Bytes::from_static(&[0xb0; 16]);
    tickets.upload(grpc::call(other)).await.unwrap();
    media.clock.advance(Duration::from_secs(1));
    tickets.upload(grpc::call(upload(10))).await.unwrap();
}
