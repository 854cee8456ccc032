//! Prekey claims: three keys of somebody's device, two of which nobody else gets, on disk before the answer.

use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::claim_response::Outcome;
use causeway_proto::directory::v1::prekeys_client::PrekeysClient;
use causeway_runtime::grpc;

use crate::deployment::{Deployment, People, block_on};

/// Claims `count` times.
pub(super) fn claim(count: u32) -> anyhow::Result<()> {
    block_on(async {
        let deployment = Deployment::start(190).await?;
        let mut prekeys = PrekeysClient::new(deployment.directory.clone());
        for _ in 0..count {
            let request = pb::ClaimRequest {
                from_account_id: People::ADA.account().as_bytes().to_vec().into(),
                from_device_id: 1,
                address: People::BO.address()?.as_str().to_owned(),
                devices: Vec::new(),
            };
            let answer = prekeys.claim(grpc::call(request)).await?.into_inner();
            let Some(Outcome::Bundles(bundles)) = answer.outcome else { anyhow::bail!("refused: {answer:?}") };
            let whole =
                bundles.bundles.iter().all(|bundle| bundle.ec_prekey.is_some() && bundle.kyber_prekey.is_some());
            anyhow::ensure!(bundles.bundles.len() == 1 && whole, "not what was claimed");
        }
        Ok(())
    })
}
