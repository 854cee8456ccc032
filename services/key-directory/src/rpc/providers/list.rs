//! List: registered providers, page by page.

use causeway_proto::directory::v1 as pb;
use prost::Message as _;

use super::to_proto;
use crate::directory::Directory;
use crate::error::CallError;
use crate::providers::BadSetting;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// A page ends early here, far below the largest gRPC message.
const PAGE_BYTES: usize = 1024 * 1024;

pub(in crate::rpc) async fn run(
    directory: &Directory,
    request: pb::ListProviders,
) -> Result<pb::ProviderList, CallError> {
    let limit = match request.limit {
        0 => DEFAULT_LIMIT,
        limit @ 1..=MAX_LIMIT => limit,
        _ => return Err(BadSetting::new("limit", format!("must be at most {MAX_LIMIT}")).into()),
    };
    let after = if request.after.is_empty() {
        None
    } else {
        let domain = request.after.parse();
        Some(domain.map_err(|_| BadSetting::new("after", "must be the domain that ended the page before, or empty"))?)
    };
    let mut providers = Vec::new();
    let mut bytes = 0;
    for provider in directory.store.providers(after.as_ref(), limit).await? {
        let keys = directory.token_keys.of(provider.id);
        let entry = to_proto(provider, keys.as_ref());
        bytes += entry.encoded_len();
        providers.push(entry);
        if bytes > PAGE_BYTES {
            break;
        }
    }
    Ok(pb::ProviderList { providers })
}
