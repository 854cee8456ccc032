//! What is refused before, or instead of, a connection.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::Resolve as _;

use super::*;
use crate::resolve::{ForbiddenAddress, Found, Guarded, Lookup};

/// MEDIA-01: literals of the special ranges, whatever is registered and allowed.
#[tokio::test]
async fn literals_are_refused_without_a_packet() {
    let trap = Trap::set();
    let port = trap.port();
    let strict = Fetcher::new(FetchConfig::default()).unwrap();
    let literals = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "8.8.8.8",
        "[::]",
        "[::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2606:4700::1111]",
    ];
    let hosts = HostSet::parse(["media.birdy.example".to_owned(), format!("127.0.0.1:{port}")]).unwrap();
    for literal in literals {
        let url = format!("https://{literal}:{port}/jwks.json");
        for fetcher in [&strict, &local()] {
            assert_eq!(fetcher.check_url(&url, &hosts), Err(FetchError::Address), "{url}");
            assert_eq!(fetcher.get_json_bytes(&url, &hosts, 1000).await, Err(FetchError::Address), "{url}");
        }
        let plain = format!("http://{literal}:{port}/");
        assert_eq!(strict.get_json_bytes(&plain, &hosts, 1000).await, Err(FetchError::Address), "{plain}");
    }
    assert_eq!(strict.check_hosts(&hosts), Err(FetchError::Address));
    assert_eq!(local().check_hosts(&hosts), Ok(()));
    trap.assert_untouched();
}

/// MEDIA-02: other spellings of this machine.
#[tokio::test]
async fn encodings_of_loopback_are_refused_without_a_packet() {
    let trap = Trap::set();
    let port = trap.port();
    let strict = Fetcher::new(FetchConfig::default()).unwrap();
    let hosts = HostSet::parse([format!("127.0.0.1:{port}"), format!("localhost:{port}")]).unwrap();
    for host in [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "0",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "%31%32%37%2e%30%2e%30%2e%31",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "localhost",
        "LOCALHOST",
        "\u{24c1}ocalhost",
        "localhost.",
        "a.localhost",
        "ip6-localhost",
        "ip6-loopback",
        "localhost.localdomain",
    ] {
        for scheme in ["https", "http"] {
            let url = format!("{scheme}://{host}:{port}/");
            let error = strict.get_json_bytes(&url, &hosts, 1000).await.unwrap_err();
            let pure = matches!(error, FetchError::Address | FetchError::Host | FetchError::Scheme | FetchError::Url);
            assert!(pure, "{url} {error:?}");
        }
        let url = format!("https://{host}:{port}/");
        assert!(local().get_json_bytes(&url, &hosts, 1000).await.is_err(), "{url}");
    }
    trap.assert_untouched();
}

/// MEDIA-07.
#[tokio::test]
async fn other_schemes_and_shapes_are_refused() {
    let strict = Fetcher::new(FetchConfig::default()).unwrap();
    let hosts = only("media.birdy.example");
    for (url, error) in [
        ("http://media.birdy.example/", FetchError::Scheme),
        ("HTTP://media.birdy.example/", FetchError::Scheme),
        ("http://media.birdy.example:443/", FetchError::Scheme),
        ("file:///etc/passwd", FetchError::Scheme),
        ("file://media.birdy.example/x", FetchError::Scheme),
        ("ftp://media.birdy.example/x", FetchError::Scheme),
        ("gopher://media.birdy.example/x", FetchError::Scheme),
        ("dict://media.birdy.example/x", FetchError::Scheme),
        ("data:text/plain,x", FetchError::Scheme),
        ("ws://media.birdy.example/", FetchError::Scheme),
        ("wss://media.birdy.example/", FetchError::Scheme),
        ("jar:https://media.birdy.example!/x", FetchError::Scheme),
        ("blob:https://media.birdy.example/x", FetchError::Scheme),
        ("unix:/run/x.sock", FetchError::Scheme),
        ("javascript:alert(1)", FetchError::Scheme),
        ("", FetchError::Url),
        ("//media.birdy.example/", FetchError::Url),
        ("/x", FetchError::Url),
        ("media.birdy.example", FetchError::Url),
        ("https://", FetchError::Url),
        ("https:///", FetchError::Url),
        ("https://ada@media.birdy.example/", FetchError::Url),
        ("https://:x@media.birdy.example/", FetchError::Url),
        ("https://media.birdy.example/#x", FetchError::Url),
        ("https://media.birdy.example/a b", FetchError::Url),
        (" https://media.birdy.example/", FetchError::Url),
        ("https://media.birdy.example/\r\nx: y", FetchError::Url),
        ("ht\ttps://media.birdy.example/", FetchError::Url),
        ("https://media.birdy.example:65536/", FetchError::Url),
    ] {
        assert_eq!(strict.check_url(url, &hosts), Err(error), "{url:?}");
    }
    // To the URL standard a backslash is a slash, so this names the registered host and a path.
    let slashed = strict.check_url("https://media.birdy.example\\@attacker.example/", &hosts).unwrap();
    assert_eq!(slashed.host_str(), Some("media.birdy.example"));
    let long = format!("https://media.birdy.example/{}", "a".repeat(2048));
    assert_eq!(strict.check_url(&long, &hosts), Err(FetchError::Url));
}

/// MEDIA-09.
#[tokio::test]
async fn only_registered_hosts_in_canonical_form_are_contacted() {
    let strict = Fetcher::new(FetchConfig::default()).unwrap();
    let hosts = HostSet::parse(["media.birdy.example", "id.birdy.example:8443"]).unwrap();
    for url in [
        "https://media.birdy.example/x",
        "https://media.birdy.example:443/x",
        "https://MEDIA.Birdy.example/x",
        "https://id.birdy.example:8443/jwks.json",
    ] {
        assert!(strict.check_url(url, &hosts).is_ok(), "{url}");
    }
    for url in [
        "https://media.other.example/",
        "https://birdy.example/",
        "https://x.media.birdy.example/",
        "https://media.birdy.example.evil.example/",
        "https://xmedia.birdy.example/",
        "https://media.birdy.example./",
        "https://media.birdy.example:8443/",
        "https://id.birdy.example/",
        "https://id.birdy.example:443/",
        "https://media.b\u{131}rdy.example/",
        "https://media-birdy.example/",
        "https://localhost.evil.example/",
    ] {
        assert_eq!(strict.check_url(url, &hosts), Err(FetchError::Host), "{url}");
        assert_eq!(strict.check_url(url, &HostSet::default()), Err(FetchError::Host), "{url}");
    }
}

/// Answers in turn; the last one stays.
struct Script(Mutex<VecDeque<Vec<IpAddr>>>);

impl Script {
    fn new<const N: usize>(answers: [&[&str]; N]) -> Arc<Self> {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(answers.into_iter().map(parse).collect())))
    }
}

impl Lookup for Script {
    fn lookup(&self, _: String) -> Found {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { Ok(next.unwrap_or_default()) })
    }
}

/// MEDIA-05: the connector gets its addresses from here and from nowhere else, at every connection anew.
#[tokio::test]
async fn every_answer_of_the_resolver_is_checked() {
    let lookup = Script::new([
        &["8.8.8.8"],
        &["127.0.0.1"],
        &["8.8.8.8", "10.0.0.1"],
        &["::1"],
        &["8.8.8.8", "2606:4700::1"],
        &[],
    ]);
    let guarded = Guarded { lookup, allow_loopback: true, private: Vec::new(), private_hosts: BTreeSet::new() };
    let resolve = async || guarded.resolve("media.birdy.example".parse().unwrap()).await;
    let forbidden = |result: Result<_, Box<dyn std::error::Error + Send + Sync>>| {
        result.err().is_some_and(|error| error.is::<ForbiddenAddress>())
    };
    let first: Vec<_> = resolve().await.unwrap().collect();
    assert_eq!(first, ["8.8.8.8:0".parse().unwrap()]);
    assert!(forbidden(resolve().await.map(drop)));
    assert!(forbidden(resolve().await.map(drop)));
    assert!(forbidden(resolve().await.map(drop)));
    assert_eq!(resolve().await.unwrap().count(), 2);
    assert!(resolve().await.is_err());

    let lookup = Script::new([&["127.0.0.1"], &["8.8.8.8"]]);
    let guarded = Guarded { lookup, allow_loopback: true, private: Vec::new(), private_hosts: BTreeSet::new() };
    let resolve = async || guarded.resolve("localhost".parse().unwrap()).await;
    assert!(resolve().await.is_ok());
    assert!(forbidden(resolve().await.map(drop)));

    // The operator's own network, for a host that a setting names, and no other.
    let lookup = Script::new([&["172.28.0.9"], &["172.28.1.9"], &["127.0.0.1"], &["172.28.0.9", "10.0.0.1"]]);
    let config = private(&["172.28.0.0/24"], &["home.example"]);
    config.check().unwrap();
    let guarded = Guarded {
        lookup,
        allow_loopback: false,
        private: config.private_networks(),
        private_hosts: config.private_hosts(),
    };
    let resolve = async || guarded.resolve("home.example".parse().unwrap()).await;
    assert!(resolve().await.is_ok());
    for _ in 0..3 {
        assert!(forbidden(resolve().await.map(drop)));
    }
    let guarded = Guarded { lookup: Script::new([&["172.28.0.9"]]), ..guarded };
    assert!(guarded.resolve("home.example".parse().unwrap()).await.is_ok());
    for third_party in ["media.birdy.example", "x.home.example", "home.example.birdy.example"] {
        assert!(forbidden(guarded.resolve(third_party.parse().unwrap()).await.map(drop)), "{third_party}");
    }
    assert_eq!(private(&["127.0.0.0/8"], &["home.example"]).check(), Err(FetchError::Networks));
    for (networks, hosts) in [
        (&["172.28.0.0/24"][..], &[][..]),
        (&[], &["home.example"]),
        (&["172.28.0.0/24"], &["home.example:8443"]),
        (&["172.28.0.0/24"], &["Home.example"]),
        (&["172.28.0.0/24"], &["localhost"]),
        (&["172.28.0.0/24"], &["*.example"]),
    ] {
        assert_eq!(private(networks, hosts).check(), Err(FetchError::PrivateHosts), "{hosts:?}");
    }
}

fn private(networks: &[&str], hosts: &[&str]) -> FetchConfig {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    FetchConfig { private_networks: texts(networks), private_hosts: texts(hosts), ..FetchConfig::default() }
}

#[tokio::test]
async fn a_registered_name_that_points_inwards_is_refused_without_a_packet() {
    let trap = Trap::set();
    let host = format!("media.birdy.example:{}", trap.port());
    let url = format!("https://{host}/x");
    for address in [&["127.0.0.1"][..], &["169.254.169.254"], &["::ffff:127.0.0.1"], &["8.8.8.8", "127.0.0.1"]] {
        for allow_loopback_http in [false, true] {
            let config = FetchConfig { allow_loopback_http, ..FetchConfig::default() };
            let fetcher = Fetcher::with_lookup(config, Script::new([address])).unwrap();
            let error = fetcher.get_stream(&url, &only(&host), None).await.unwrap_err();
            assert_eq!(error, FetchError::Address, "{address:?}");
        }
    }
    trap.assert_untouched();
}

/// `localhost` works too where loopback is allowed; and nowhere else.
#[tokio::test]
async fn loopback_is_for_those_who_asked_for_it() {
    let host = serve(|_| answer(200, &[], "{}")).await;
    let port = host.rsplit(':').next().unwrap();
    let name = format!("localhost:{port}");
    let lookup = Script::new([&["127.0.0.1"]]);
    let config = FetchConfig { allow_loopback_http: true, ..FetchConfig::default() };
    let fetcher = Fetcher::with_lookup(config, lookup).unwrap();
    assert!(fetcher.get_json_bytes(&format!("http://{name}/"), &only(&name), 10).await.is_ok());
    assert_eq!(fetcher.get_json_bytes(&format!("http://{name}/"), &only(&host), 10).await, Err(FetchError::Host));
    assert_eq!(fetcher.get_json_bytes(&format!("http://{host}/"), &only(&name), 10).await, Err(FetchError::Host));
    let other = IpAddr::from([127, 0, 0, 2]);
    let url = format!("http://{other}:{port}/");
    assert_eq!(fetcher.get_json_bytes(&url, &only(&host), 10).await, Err(FetchError::Host));
}
