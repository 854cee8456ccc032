//! `causeway-demo against`: the story on a deployment that runs already, such as that of docker-compose.yml.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;

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
    /// The sandbox that is home.example.
    #[arg(long, value_name = "URL")]
    pub(crate) home_url: String,
    /// The sandbox that is birdy.example.
    #[arg(long, value_name = "URL")]
    pub(crate) third_url: String,
}

impl Against {
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
