//! What hosts answer, and what they see.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::mpsc;

use super::*;

#[tokio::test]
async fn documents_come_whole_or_not_at_all() {
    let host = serve(|request| match request.uri().path() {
        "/json" => answer(200, &[("content-type", "application/json")], "{\"keys\":[]}"),
        "/identity" => answer(200, &[("content-encoding", "identity")], "{}"),
        "/gzip" => answer(200, &[("content-encoding", "gzip")], "x"),
        "/stream" => answer(
            200,
            &[],
            Body::from_stream(futures::stream::iter((0..10).map(|_| Ok::<_, std::io::Error>("0123456789")))),
        ),
        "/created" => answer(201, &[], "{}"),
        "/partial" => answer(206, &[("content-range", "bytes 0-1/10")], "{}"),
        "/error" => answer(500, &[], "a secret of the host"),
        _ => answer(404, &[], ""),
    })
    .await;
    let (fetcher, hosts) = (local(), only(&host));
    let get = async |path: &str, most| fetcher.get_json_bytes(&format!("http://{host}{path}"), &hosts, most).await;
    assert_eq!(get("/json", 11).await, Ok(Bytes::from_static(b"{\"keys\":[]}")));
    assert_eq!(get("/json", 10).await, Err(FetchError::TooLarge));
    assert_eq!(get("/identity", 10).await, Ok(Bytes::from_static(b"{}")));
    assert_eq!(get("/stream", 100).await.map(|body| body.len()), Ok(100));
    assert_eq!(get("/stream", 99).await, Err(FetchError::TooLarge));
    assert_eq!(get("/gzip", 10).await, Err(FetchError::Encoding));
    assert_eq!(get("/created", 10).await, Err(FetchError::Status(201)));
    assert_eq!(get("/partial", 10).await, Err(FetchError::Status(206)));
    assert_eq!(get("/error", 100).await, Err(FetchError::Status(500)));
    assert_eq!(get("/none", 10).await, Err(FetchError::Status(404)));
    let error = get("/error", 100).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}

/// MEDIA-06.
#[tokio::test]
async fn redirects_are_not_followed() {
    let trap = Trap::set();
    let (seen, mut requests) = mpsc::channel(100);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let target = format!("http://127.0.0.1:{}/", trap.port());
    let app = Router::new().fallback(async move |request: Request| {
        let _within_bounds = seen.try_send(());
        let status = request.uri().path()[1..].parse().unwrap_or(500);
        let location = request.uri().query().map_or(target.clone(), |_| "/301".to_owned());
        answer(status, &[("location", location.as_str())], "body")
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let fetcher = local();
    let hosts = HostSet::parse([host.clone(), format!("127.0.0.1:{}", trap.port())]).unwrap();
    let mut sent = 0;
    for status in [300, 301, 302, 303, 304, 305, 307, 308] {
        for query in ["", "?self"] {
            let url = format!("http://{host}/{status}{query}");
            assert_eq!(fetcher.get_json_bytes(&url, &hosts, 100).await, Err(FetchError::Redirect), "{url}");
            assert_eq!(fetcher.get_stream(&url, &hosts, None).await.unwrap_err(), FetchError::Redirect, "{url}");
            let posted = fetcher.post(&url, &hosts, HeaderMap::new(), Bytes::new()).await;
            assert_eq!(posted, Err(FetchError::Redirect), "{url}");
            sent += 3;
        }
    }
    for _ in 0..sent {
        assert!(requests.recv().await.is_some());
    }
    assert!(requests.try_recv().is_err());
    trap.assert_untouched();
}

#[tokio::test]
async fn streams_are_whole_parts_or_errors() {
    let host = serve(|request| {
        let range = request.headers().get("range").map(|value| value.to_str().unwrap().to_owned());
        match (request.uri().path(), range.as_deref()) {
            ("/file", None) => answer(200, &[], "0123456789"),
            ("/file", Some("bytes=2-4")) => answer(206, &[("content-range", "bytes 2-4/10")], "234"),
            ("/file", Some("bytes=7-")) => answer(206, &[("content-range", "bytes 7-9/10")], "789"),
            ("/file", Some("bytes=7-99")) => answer(206, &[("content-range", "bytes 7-9/10")], "789"),
            ("/file", Some(_)) => answer(416, &[("content-range", "bytes */10")], ""),
            ("/no-ranges", _) => answer(200, &[], "0123456789"),
            ("/wrong", _) => answer(206, &[("content-range", "bytes 0-2/10")], "012"),
            ("/nameless", _) => answer(206, &[], "234"),
            ("/longer", _) => answer(206, &[("content-range", "bytes 2-4/10")], "23456"),
            ("/cut", _) => {
                let pieces = futures::stream::iter([Ok::<_, std::io::Error>("23")]);
                answer(206, &[("content-range", "bytes 2-4/10")], Body::from_stream(pieces))
            }
            ("/over", _) => {
                let pieces = futures::stream::iter([Ok::<_, std::io::Error>("234"), Ok("5")]);
                answer(206, &[("content-range", "bytes 2-4/10")], Body::from_stream(pieces))
            }
            ("/large", _) => answer(200, &[], vec![0; 100_001]),
            ("/endless", _) => {
                let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 4096]));
                answer(200, &[], Body::from_stream(pieces))
            }
            _ => answer(404, &[], "x"),
        }
    })
    .await;
    let (fetcher, hosts) = (impatient(), only(&host));
    let get = async |path: &str, range| fetcher.get_stream(&format!("http://{host}{path}"), &hosts, range).await;
    let read = async |body: FetchedBody| {
        body.stream
            .try_fold(Vec::new(), async |mut all, piece| {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
    };
    let part = |first, last| Some(ByteRange { first, last });

    let whole = get("/file", None).await.unwrap();
    assert_eq!((whole.status, whole.content_length, whole.content_range), (200, Some(10), None));
    assert_eq!(read(whole).await.unwrap(), b"0123456789");
    for (range, first, last, bytes) in
        [(part(2, Some(4)), 2, 4, &b"234"[..]), (part(7, None), 7, 9, b"789"), (part(7, Some(99)), 7, 9, b"789")]
    {
        let body = get("/file", range).await.unwrap();
        let expected = ContentRange { first, last, total: Some(10) };
        assert_eq!((body.status, body.content_length, body.content_range), (206, Some(3), Some(expected)));
        assert_eq!(read(body).await.unwrap(), bytes);
    }
    assert_eq!(get("/file", part(50, None)).await.unwrap_err(), FetchError::Status(416));
    assert_eq!(get("/no-ranges", part(2, Some(4))).await.unwrap().status, 200);
    for path in ["/wrong", "/nameless", "/longer"] {
        assert_eq!(get(path, part(2, Some(4))).await.unwrap_err(), FetchError::Range, "{path}");
    }
    assert_eq!(get("/wrong", None).await.unwrap_err(), FetchError::Range);
    for path in ["/cut", "/over"] {
        let body = get(path, part(2, Some(4))).await.unwrap();
        assert_eq!(read(body).await.unwrap_err(), FetchError::Broken, "{path}");
    }
    assert_eq!(get("/large", None).await.unwrap_err(), FetchError::TooLarge);
    let mut endless = get("/endless", None).await.unwrap().stream;
    let mut passed = 0;
    let error = loop {
        match endless.next().await.unwrap() {
            Ok(piece) => passed += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(error == FetchError::TooLarge && passed <= 100_000);
    assert!(endless.next().await.is_none());
    assert_eq!(get("/none", None).await.unwrap_err(), FetchError::Status(404));
}

/// MEDIA-12, MEDIA-14: what is no HTTP, and what never ends.
#[tokio::test]
async fn broken_and_slow_hosts_are_errors() {
    let fetcher = impatient();
    let get = async |host: &str| fetcher.get_json_bytes(&format!("http://{host}/"), &only(host), 50_000).await;
    let broken: [&'static [u8]; 9] = [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ];
    for answer in broken {
        let host = serve_raw(answer, false).await;
        assert_eq!(get(&host).await, Err(FetchError::Broken), "{}", String::from_utf8_lossy(answer));
    }
    let silent: [&'static [u8]; 3] =
        [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal"];
    for answer in silent {
        let host = serve_raw(answer, true).await;
        assert_eq!(get(&host).await, Err(FetchError::Timeout), "{}", String::from_utf8_lossy(answer));
    }
    let nobody = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(get(&nobody).await, Err(FetchError::Connect));
    let headers: &'static [u8] = Vec::leak(
        [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(10_000), b"content-length: 2\r\n\r\n{}".to_vec()].concat(),
    );
    assert_eq!(get(&serve_raw(headers, false).await).await, Err(FetchError::Broken));
}

#[tokio::test]
async fn a_trickle_ends_at_the_total_deadline() {
    let host = serve(|_| {
        let pieces = futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        });
        answer(200, &[], Body::from_stream(pieces))
    })
    .await;
    let (fetcher, hosts, url) = (impatient(), only(&host), format!("http://{host}/"));
    assert_eq!(fetcher.get_json_bytes(&url, &hosts, 1000).await, Err(FetchError::Timeout));
    let stream = fetcher.get_stream(&url, &hosts, None).await.unwrap().stream;
    let last = stream.fold(None, async |_, piece| Some(piece)).await;
    assert_eq!(last, Some(Err(FetchError::Timeout)));
}

/// MEDIA-18: all that a host sees of us.
#[tokio::test]
async fn a_host_sees_fixed_headers_only() {
    let (seen, mut requests) = mpsc::channel::<(String, HeaderMap)>(10);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = Router::new().fallback(async move |request: Request| {
        let _within_bounds = seen.try_send((request.method().to_string(), request.headers().clone()));
        answer(200, &[("set-cookie", "id=1; Path=/")], "{}")
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let (fetcher, hosts) = (local(), only(&host));
    let url = format!("http://{host}/x");
    let names = |headers: &HeaderMap| {
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    for _twice in 0..2 {
        fetcher.get_json_bytes(&url, &hosts, 100).await.unwrap();
        let (method, headers) = requests.recv().await.unwrap();
        assert_eq!(method, "GET");
        assert_eq!(names(&headers), ["accept", "accept-encoding", "host", "user-agent"]);
        assert_eq!(
            (&headers["user-agent"], &headers["accept-encoding"]),
            (&HeaderValue::from_static("causeway/1"), &HeaderValue::from_static("identity"))
        );
    }
    let range = Some(ByteRange { first: 0, last: Some(1) });
    fetcher.get_stream(&url, &hosts, range).await.unwrap();
    assert_eq!(names(&requests.recv().await.unwrap().1), ["accept", "accept-encoding", "host", "range", "user-agent"]);
    let mut own = HeaderMap::new();
    own.insert("webhook-id", HeaderValue::from_static("m1"));
    fetcher.post(&url, &hosts, own, Bytes::from_static(b"{}")).await.unwrap();
    let (method, headers) = requests.recv().await.unwrap();
    assert_eq!(method, "POST");
    assert_eq!(names(&headers), ["accept", "accept-encoding", "content-length", "host", "user-agent", "webhook-id"]);
}

#[tokio::test]
async fn a_post_tells_status_and_when_to_retry() {
    let host = serve(|request| match request.uri().path() {
        "/busy" => answer(503, &[("retry-after", "7")], "x"),
        "/forever" => answer(429, &[("retry-after", "99999999")], "x"),
        "/date" => answer(503, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], "x"),
        "/gone" => answer(410, &[], "x"),
        _ => answer(204, &[], ""),
    })
    .await;
    let (fetcher, hosts) = (local(), only(&host));
    for (path, status, retry_after) in [
        ("/", 204, None),
        ("/busy", 503, Some(7)),
        ("/forever", 429, Some(86_400)),
        ("/date", 503, None),
        ("/gone", 410, None),
    ] {
        let posted = fetcher.post(&format!("http://{host}{path}"), &hosts, HeaderMap::new(), Bytes::new()).await;
        let expected = Posted { status, retry_after: retry_after.map(Duration::from_secs) };
        assert_eq!(posted, Ok(expected), "{path}");
        assert_eq!(expected.is_success(), StatusCode::from_u16(status).unwrap().is_success());
    }
}

#[test]
fn settings_out_of_range_are_named() {
    for config in [
        FetchConfig { connect_timeout_ms: 0, ..FetchConfig::default() },
        FetchConfig { total_timeout_ms: 1_000_000, ..FetchConfig::default() },
        FetchConfig { max_stream_bytes: 0, ..FetchConfig::default() },
    ] {
        let error = Fetcher::new(config).unwrap_err();
        assert!(error.to_string().contains("fetch.") && error.to_string().contains("must be between"), "{error}");
    }
}
