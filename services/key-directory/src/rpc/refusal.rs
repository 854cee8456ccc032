//! Outcomes that a client is told of.

use std::time::Duration;

use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use causeway_proto::wire::v1::ErrorCode;

use crate::limits::TooFast;

/// A refusal; its code is from the closed list of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) detail: String,
}

impl Refused {
    /// With a text for a developer's eyes that says nothing about another account.
    pub(crate) fn because(code: ErrorCode, detail: &(impl ToString + ?Sized)) -> Self {
        let mut detail = detail.to_string();
        let end = (0..=MAX_DETAIL_BYTES.min(detail.len())).rev().find(|end| detail.is_char_boundary(*end));
        detail.truncate(end.unwrap_or(0));
        Self { code, retry_after: None, detail }
    }

    /// The one answer for unknown, not enlisted, not opted in, blocked and closed.
    pub(crate) const fn not_available() -> Self {
        Self { code: ErrorCode::NotAvailable, retry_after: None, detail: String::new() }
    }

    /// The account or device of the session is not there (any more).
    pub(crate) const fn not_enlisted() -> Self {
        Self { code: ErrorCode::NotEnlisted, retry_after: None, detail: String::new() }
    }

    fn into_proto(self) -> pb::Refusal {
        let retry_after_ms = self.retry_after.map_or(0, |wait| {
            // Rounded up: whoever waits exactly this long gets through.
            u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
        });
        pb::Refusal { code: self.code.into(), retry_after_ms, detail: self.detail }
    }
}

const MAX_DETAIL_BYTES: usize = 200;

impl From<TooFast> for Refused {
    fn from(too_fast: TooFast) -> Self {
        Self { code: ErrorCode::RateLimited, retry_after: Some(too_fast.retry_after), detail: String::new() }
    }
}

/// An answer that says either `A` or why not.
pub(crate) trait Outcome<A> {
    fn of(outcome: Result<A, Refused>) -> Self;
}

macro_rules! responses {
    ($($response:ident { $module:ident :: $variant:ident ( $answer:ty ) })*) => {$(
        impl Outcome<$answer> for pb::$response {
            fn of(outcome: Result<$answer, Refused>) -> Self {
                let outcome = match outcome {
                    Ok(answer) => pb::$module::Outcome::$variant(answer),
                    Err(refused) => pb::$module::Outcome::Refused(refused.into_proto()),
                };
                Self { outcome: Some(outcome) }
            }
        }
    )*};
}
responses! {
    DoneResponse { done_response::Done(pb::Done) }
    EnlistResponse { enlist_response::Enlisted(wire::Enlisted) }
    DevicesResponse { devices_response::Devices(wire::Devices) }
    KeyCountsResponse { key_counts_response::Counts(wire::KeyCounts) }
    ClaimResponse { claim_response::Bundles(wire::KeyBundles) }
    ConsentResponse { consent_response::Settings(wire::ConsentSettings) }
}
