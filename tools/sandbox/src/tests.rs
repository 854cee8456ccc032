//! The stand-in provider over real HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_identity::token::{self, Algorithm, KeySet, TokenError};
use causeway_identity::{Domain, Expected, NoiseKey, Verified};
use causeway_runtime::clock::{Clock as _, ManualClock};
use causeway_runtime::lifecycle::{Ended, Lifecycle};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::*;

const NOW_S: u64 = 1_800_000_000;
const NOISE: [u8; 32] = [9; 32];

struct Running {
    provider: Provider,
    client: Client,
    clock: Arc<ManualClock>,
    life: Lifecycle,
    _folder: tempfile::TempDir,
}

fn config(folder: &Path, alg: Algorithm) -> SandboxConfig {
    let domain: Domain = "birdy.example".parse().unwrap();
    SandboxConfig { alg, ..SandboxConfig::new(folder.to_owned(), domain) }
}

async fn start(alg: Algorithm) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_ms(NOW_S * 1000);
    let sandbox = Sandbox::build(config(folder.path(), alg), clock.clone()).await.unwrap();
    let provider = sandbox.provider();
    let life = Lifecycle::new();
    let served = life.clone();
    life.spawn(async move { sandbox.serve(served).await });
    Running { provider, client: Client::new(), clock, life, _folder: folder }
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.provider.issuer())
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    async fn post(&self, path: &str, body: &Value, bearer: Option<&str>) -> (StatusCode, Value) {
        let mut request = self.client.post(self.url(path)).header("content-type", "application/json");
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Finds the keys as a directory does: by discovery from the issuer.
    async fn keys(&self) -> KeySet {
        let discovery = self.get("/.well-known/openid-configuration").await;
        assert_eq!(discovery["issuer"], self.provider.issuer());
        let uri = discovery["jwks_uri"].as_str().unwrap();
        let answer = self.client.get(uri).send().await.unwrap();
        KeySet::from_jwks(&answer.text().await.unwrap()).unwrap()
    }

    fn verify(&self, token: &str, keys: &KeySet) -> Result<Verified, TokenError> {
        let expected = Expected {
            issuer: self.provider.issuer(),
            provider: self.provider.domain(),
            audience: "causeway.local",
            noise_key: NoiseKey::new(NOISE).unwrap(),
            now: self.clock.now(),
        };
        token::verify(token, keys, &expected)
    }

    async fn token(&self, user: &str) -> String {
        self.provider.issue_token(user, &NOISE, Duration::from_secs(600)).await.unwrap()
    }
}

#[tokio::test]
async fn tokens_of_each_algorithm_verify_with_the_published_keys() {
    for alg in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
        let running = start(alg).await;
        let keys = running.keys().await;
        assert_eq!(keys.len(), 1);
        let asked = json!({ "user": "jose\u{301}", "noise_key": URL_SAFE_NO_PAD.encode(NOISE) });
        let (status, answer) = running.post("/token", &asked, None).await;
        assert_eq!((status, &answer["expires_s"]), (StatusCode::OK, &json!(NOW_S + 3_600)));
        let verified = running.verify(answer["token"].as_str().unwrap(), &keys).unwrap();
        assert_eq!(verified.address().as_str(), "jos\u{e9}@birdy.example");
        assert_eq!(verified.expires_at(), UNIX_EPOCH + Duration::from_secs(NOW_S + 3_600));
        let again = running.verify(&running.token("ada").await, &keys).unwrap();
        assert_ne!(again.jti(), verified.jti());
    }
}

#[tokio::test]
async fn a_form_does_as_well_and_bad_requests_get_a_sentence() {
    let running = start(Algorithm::EdDsa).await;
    let key = URL_SAFE_NO_PAD.encode(NOISE);
    let form = |body: String| {
        let request = running.client.post(running.url("/token"));
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send()
    };
    assert_eq!(form(format!("user=ada+b&noise_key={key}&ttl_s=60")).await.unwrap().status(), 200);
    for body in [
        "user=ada".to_owned(),
        format!("user=ada&user=bo&noise_key={key}"),
        format!("user=ada&noise_key={key}&ttl_s=x"),
        format!("user=ada&noise_key={key}&admin=1"),
    ] {
        assert_eq!(form(body).await.unwrap().status(), 400);
    }
    for (asked, named) in [
        (json!({ "user": "a@b", "noise_key": key }), "user"),
        (json!({ "user": "", "noise_key": key }), "user"),
        (json!({ "user": "ada", "noise_key": format!("{key}=") }), "noise_key"),
        (json!({ "user": "ada", "noise_key": URL_SAFE_NO_PAD.encode([0; 32]) }), "noise_key"),
        (json!({ "user": "ada", "noise_key": URL_SAFE_NO_PAD.encode([9; 31]) }), "noise_key"),
        (json!({ "user": "ada", "noise_key": key, "ttl_s": 0 }), "ttl_s"),
        (json!({ "user": "ada", "noise_key": key, "ttl_s": 86_401 }), "ttl_s"),
        (json!({ "user": "ada", "noise_key": key, "iss": "x" }), "send"),
        (json!([]), "send"),
    ] {
        let (status, answer) = running.post("/token", &asked, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains(named), "{answer}");
    }
    let large = json!({ "user": "a".repeat(100_000), "noise_key": key });
    assert_eq!(running.post("/token", &large, None).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_rotation_keeps_old_tokens_good_or_ends_them() {
    let running = start(Algorithm::EdDsa).await;
    let first = running.token("ada").await;
    running.provider.rotate_keys(true).await.unwrap();
    let second = running.token("ada").await;
    let keys = running.keys().await;
    assert_eq!(keys.len(), 2);
    assert!(running.verify(&first, &keys).is_ok() && running.verify(&second, &keys).is_ok());

    let (status, _) = running.post("/keys/rotate", &json!({ "keep_old": false }), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let keys = running.keys().await;
    assert_eq!(keys.len(), 1);
    assert_eq!(running.verify(&second, &keys), Err(TokenError::Signature));
    assert!(running.verify(&running.token("ada").await, &keys).is_ok());
    assert_eq!(running.provider.jwks_fetches(), 2);
    assert_eq!(running.post("/keys/rotate", &json!({}), None).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_restart_keeps_keys_and_secrets_and_leaves_them_to_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_ms(NOW_S * 1000);
    let build = async |alg| Sandbox::build(config(folder.path(), alg), clock.clone()).await.unwrap().provider();
    let first = build(Algorithm::Rs256).await;
    let second = build(Algorithm::Es256).await;
    assert_eq!(first.jwks().await, second.jwks().await);
    assert_eq!(first.webhook_secret(), second.webhook_secret());
    let keys: Vec<_> =
        std::fs::read_dir(folder.path().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(keys.len(), 1);
    for path in [&keys[0], &folder.path().join("webhook.secret"), &folder.path().join("ticket.key")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }

    std::fs::write(&keys[0], b"broken").unwrap();
    let error = Sandbox::build(config(folder.path(), Algorithm::EdDsa), clock.clone()).await.unwrap_err().to_string();
    assert!(error.contains("RS256.pk8") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn what_prevents_a_start_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_ms(NOW_S * 1000);
    let failed = async |config: SandboxConfig| Sandbox::build(config, clock.clone()).await.unwrap_err().to_string();

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let error = failed(SandboxConfig { listen, ..config(folder.path(), Algorithm::EdDsa) }).await;
    assert!(error.contains(&listen.to_string()) && error.contains("another port"), "{error}");

    let listen = "0.0.0.0:0".parse().unwrap();
    let error = failed(SandboxConfig { listen, ..config(folder.path(), Algorithm::EdDsa) }).await;
    assert!(error.contains("no loopback address"), "{error}");
    for base in ["http://birdy.example:8443", "https://birdy.example:8443/path"] {
        let public_base = Some(base.parse().unwrap());
        let error = failed(SandboxConfig { listen, public_base, ..config(folder.path(), Algorithm::EdDsa) }).await;
        assert!(error.contains("no loopback address"), "{base}: {error}");
    }
    let public_base = Some("https://birdy.example:8443".parse().unwrap());
    let behind = SandboxConfig { listen, public_base, ..config(folder.path(), Algorithm::EdDsa) };
    let provider = Sandbox::build(behind, clock.clone()).await.unwrap().provider();
    assert_eq!(provider.issuer(), "https://birdy.example:8443");
    assert_eq!(provider.hosts(), ["birdy.example:8443"]);
    assert_eq!(provider.media_prefix(), "https://birdy.example:8443/v1/blobs/");

    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = failed(config(&file.join("data"), Algorithm::EdDsa)).await;
    assert!(error.contains("writable") && error.contains("data"), "{error}");

    std::fs::write(folder.path().join("webhook.secret"), b"secret").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("webhook.secret"), mode).unwrap();
    let error = failed(config(folder.path(), Algorithm::EdDsa)).await;
    assert!(error.contains("webhook.secret"), "{error}");
}

#[tokio::test]
async fn only_signed_and_timely_webhooks_are_taken_once() {
    let running = start(Algorithm::EdDsa).await;
    let key = Webhook::new(running.provider.webhook_secret()).unwrap();
    let stranger = Webhook::new("whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=").unwrap();
    let url = running.provider.webhook_url();
    let send = |id: &str, at: String, signature: String, body: &'static str| {
        let request = running.client.post(&url).header("webhook-id", id).header("webhook-timestamp", at);
        request.header("webhook-signature", signature).body(body).send()
    };
    let now = i64::try_from(NOW_S).unwrap();
    let body = "{\"token\":\"abc\"}";
    let good = key.sign("m1", now, body.as_bytes()).unwrap();

    assert_eq!(send("m1", now.to_string(), good.clone(), body).await.unwrap().status(), 204);
    assert_eq!(send("m1", now.to_string(), format!("v1,AAAA {good}"), body).await.unwrap().status(), 204);
    assert_eq!(send("m2", now.to_string(), good.clone(), body).await.unwrap().status(), 401);
    assert_eq!(send("m1", now.to_string(), good.clone(), "{}").await.unwrap().status(), 401);
    assert_eq!(send("m1", now.to_string(), good.replace("v1,", "v2,"), body).await.unwrap().status(), 401);
    let forged = stranger.sign("m3", now, body.as_bytes()).unwrap();
    assert_eq!(send("m3", now.to_string(), forged, body).await.unwrap().status(), 401);
    for (at, status) in
        [(now - 300, 204), (now - 301, 401), (now + 301, 401), (-1, 401), (i64::MIN, 401), (i64::MAX, 401)]
    {
        let id = format!("at{at}");
        let signature = key.sign(&id, at, body.as_bytes()).unwrap();
        assert_eq!(send(&id, at.to_string(), signature, body).await.unwrap().status(), status, "{at}");
    }
    assert_eq!(send("m1", "soon".to_owned(), good, body).await.unwrap().status(), 401);
    let bare = running.client.post(&url).body(body).send().await.unwrap();
    assert_eq!(bare.status(), 401);

    let received = running.provider.wait_for_pushes(2).await;
    let first = ReceivedPush { id: "m1".to_owned(), timestamp_s: NOW_S, body: body.to_owned(), traceparent: None };
    assert_eq!((received.len(), &received[0]), (2, &first));
    assert_eq!(running.get("/webhooks/received").await[0]["body"], body);

    running.provider.refuse_pushes(1);
    for status in [503, 204] {
        let signature = key.sign("m4", now, body.as_bytes()).unwrap();
        assert_eq!(send("m4", now.to_string(), signature, body).await.unwrap().status(), status);
    }
    assert_eq!(running.provider.received().len(), 3);
}

#[tokio::test]
async fn a_user_uploads_by_ticket_and_anybody_with_the_url_reads() {
    let running = start(Algorithm::EdDsa).await;
    let bytes = vec![7_u8; 100_000];
    let digest = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes));
    let asked = json!({ "size": bytes.len(), "sha256": digest });
    let token = running.token("ada").await;

    let (status, ticket) = running.post("/media/tickets", &asked, Some(&token)).await;
    assert_eq!(status, StatusCode::OK);
    let text = |name: &str| ticket[name].as_str().unwrap().to_owned();
    assert!(text("public_url").starts_with(running.provider.media_prefix()));
    assert!(ticket["expires_ms"].as_u64().unwrap() > NOW_S * 1000);
    let put = running.client.put(text("url")).header("authorization", format!("Causeway {}", text("ticket")));
    assert!(put.body(bytes.clone()).send().await.unwrap().status().is_success());
    let got = running.client.get(text("public_url")).send().await.unwrap();
    assert_eq!(got.bytes().await.unwrap(), bytes);

    assert_eq!(running.post("/media/tickets", &asked, None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(running.post("/media/tickets", &asked, Some("x.y.z")).await.0, StatusCode::UNAUTHORIZED);
    let other = start(Algorithm::EdDsa).await;
    let foreign = other.token("ada").await;
    assert_eq!(running.post("/media/tickets", &asked, Some(&foreign)).await.0, StatusCode::UNAUTHORIZED);
    for asked in [json!({ "size": 1, "sha256": "00" }), json!({ "size": 0, "sha256": digest }), json!({})] {
        assert_eq!(running.post("/media/tickets", &asked, Some(&token)).await.0, StatusCode::BAD_REQUEST);
    }
    let huge = json!({ "size": u64::MAX, "sha256": digest });
    assert_eq!(running.post("/media/tickets", &huge, Some(&token)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    running.clock.advance(Duration::from_secs(661));
    assert_eq!(running.post("/media/tickets", &asked, Some(&token)).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn requests_for_other_hosts_are_refused() {
    let running = start(Algorithm::EdDsa).await;
    let port = running.provider.hosts()[0].rsplit(':').next().unwrap().to_owned();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        ("attacker.example".to_owned(), 421),
        (format!("attacker.example:{port}"), 421),
        ("127.0.0.1".to_owned(), 421),
    ] {
        let answer = running.client.get(running.url("/jwks.json")).header("host", &host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
}

#[tokio::test]
async fn it_stops_when_told() {
    let running = start(Algorithm::EdDsa).await;
    let _keys = running.keys().await;
    assert_eq!(running.life.finish(Duration::from_secs(10)).await, Ended::Clean);
    assert!(running.client.get(running.url("/jwks.json")).send().await.is_err());
}
