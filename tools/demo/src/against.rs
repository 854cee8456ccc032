//! `causeway-demo against`: the story on a deployment that runs already, such as that of docker-compose.yml.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::world::Provider;

/// Where everything is.
#[derive(Debug, Args)]
pub(crate) struct Against {
    /// An edge; the third party's users connect to the first one, the home provider's to the last one.
    #[arg(long = "edge", value_name = "HOST:PORT", required = true)]
    pub(crate) edges: Vec<String>,
    /// The deployment's name.
    #[arg(long, value_name = "NAME")]
    pub(crate) deployment: String,
    /// The public half of the deployment's root.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_file: PathBuf,
    /// A key-directory's operator API.
    #[arg(long, value_name = "URL")]
    pub(crate) operator: String,
    /// The operator's token.
    #[arg(long, value_name = "FILE")]
    pub(crate) operator_token_file: PathBuf,
    /// The media-relay, as clients reach it.
    #[arg(long, value_name = "URL")]
    pub(crate) media_url: String,
    /// The sandbox that is home.example.
    #[arg(long, value_name = "URL")]
    pub(crate) home_url: String,
    /// The sandbox that is birdy.example.
    #[arg(long, value_name = "URL")]
    pub(crate) third_url: String,
}

/// So long a deployment may take to be there.
const START: Duration = Duration::from_secs(120);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);

impl Against {
    /// Waits until somebody listens at each address: who starts a deployment does not wait for all of it.
    pub(crate) async fn is_there(&self) -> anyhow::Result<()> {
        let urls = [&self.operator, &self.media_url, &self.home_url, &self.third_url];
        for address in self.edges.iter().chain(urls) {
            let place = address.split_once("://").map_or(address.as_str(), |(_, place)| place);
            let there = async {
                while TcpStream::connect(place).await.is_err() {
                    sleep(PAUSE).await;
                }
            };
            timeout(START, there).await.map_err(|_| anyhow!("nobody listens at {place}"))?;
        }
        Ok(())
    }

    /// What the sandbox at `url` would say of itself.
    pub(crate) fn provider(&self, domain: &'static str, url: &str) -> Provider {
        let host = url.split_once("://").map_or(url, |(_, host)| host);
        let words = [
            ("issuer", url.to_owned()),
            ("host", host.to_owned()),
            ("token_url", format!("{url}/token")),
            ("upload_url", format!("{url}/media/tickets")),
            ("media_prefix", format!("{url}/v1/blobs/")),
        ];
        Provider::new(domain, HashMap::from(words.map(|(key, word)| (key.to_owned(), word))))
    }
}
