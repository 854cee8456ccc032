//! Who may ask about delivery traces, and how often.

use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use causeway_identity::token::traces;
use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::traces_client::TracesClient;
use causeway_proto::wire::v1 as wire;
use causeway_runtime::grpc;
use futures::future::join_all;
use serde_json::{Value, json};
use tonic::Code;

use crate::testing::{Deployment, TestProvider};

/// The `n`th token of this issuer, good or forged.
fn token(pair: &Ed25519KeyPair, issuer: &str, n: u64) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = 1_750_000_000;
    let claims = json!({ "iss": issuer, "aud": "causeway.local", "iat": now, "exp": now + 300 + n });
    let text = format!("{}.{}", encode(&json!({ "typ": traces::TYPE, "alg": "EdDSA", "kid": "k1" })), encode(&claims));
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes())))
}

async fn ask(net: &Deployment, token: &str) -> Code {
    let wanted = Some(pb::find_traces::Wanted::TraceId(Bytes::from_static(&[7; 16])));
    let mut request = grpc::call(pb::FindTraces { wanted, minutes: 0, limit: 0 });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    match TracesClient::new(net.operator_channel()).find(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// Forged tokens neither use up the questions of the provider that they name, nor keep it from asking with a token that it has
/// used before.
#[tokio::test]
async fn a_provider_has_a_rate_and_forgers_have_another() {
    let net = Deployment::start_with(|config| config.deployment = "causeway.local".to_owned()).await;
    let (pair, other) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let birdy = TestProvider::start("birdy.example").await;
    birdy.publish_pair("k1", &pair);
    net.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap();
    let issuer = birdy.issuer();

    let good = token(&pair, &issuer, 0);
    assert_eq!(ask(&net, &good).await, Code::Ok);
    // Until there are more than are looked at.
    let mut forged = Vec::new();
    for round in 0.. {
        let tokens: Vec<_> = (0..500).map(|n| token(&other, &issuer, round * 500 + n)).collect();
        forged = join_all(tokens.iter().map(|token| ask(&net, token))).await;
        if forged.contains(&Code::ResourceExhausted) {
            break;
        }
    }
    assert!(forged.iter().all(|code| matches!(code, Code::Unauthenticated | Code::ResourceExhausted)));
    // A new one looks as they do, and is let in later.
    let new = token(&pair, &issuer, 1);
    loop {
        match ask(&net, &new).await {
            Code::Ok => break,
            code => assert_eq!(code, Code::ResourceExhausted),
        }
    }
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(ask(&net, &good).await);
    }
    assert_eq!(answers[0], Code::Ok, "with a token that was good before");
    assert!(answers.contains(&Code::ResourceExhausted) && answers.iter().all(|code| *code != Code::Unauthenticated));

    net.set_status("birdy.example", pb::ProviderStatus::Suspended).await.unwrap();
    assert_eq!(ask(&net, &good).await, Code::Unauthenticated);
    assert_eq!(ask(&net, "x.y.z").await, Code::Unauthenticated);
}

/// A token that was good once is nobody's secret for ever: when it is over, whoever repeats it asks no questions in its
/// provider's name.
#[tokio::test]
async fn a_token_that_is_over_uses_up_no_questions() {
    let net = Deployment::start_with(|config| config.deployment = "causeway.local".to_owned()).await;
    let pair = Ed25519KeyPair::generate().unwrap();
    let birdy = TestProvider::start("birdy.example").await;
    birdy.publish_pair("k1", &pair);
    net.register(&birdy, wire::ProviderKind::ThirdParty).await.unwrap();
    let issuer = birdy.issuer();

    let old = token(&pair, &issuer, 0);
    assert_eq!(ask(&net, &old).await, Code::Ok);
    net.clock.advance(Duration::from_secs(600));
    for _ in 0..50 {
        assert_eq!(ask(&net, &old).await, Code::Unauthenticated);
    }
    assert_eq!(ask(&net, &token(&pair, &issuer, 3_000)).await, Code::Ok);
}
