//! The connection to the operator API.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use causeway_proto::directory::v1::traces_client::TracesClient;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::grpc::{Channel, Transport};
use causeway_runtime::tls::{Role, Tls, TlsConfig};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::chat::clean;

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_TOKEN_BYTES: usize = 4096;

/// Where the operator API is and what opens it.
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArguments {
    /// Address of the operator API.
    #[arg(long, env = "CAUSEWAY_OPERATOR", default_value = "http://127.0.0.1:7444", value_name = "URL")]
    operator: String,
    /// File with the operator token (`causeway all` writes it to keys/operator.token in its data folder).
    #[arg(long, env = "CAUSEWAY_OPERATOR_TOKEN_FILE", value_name = "FILE")]
    operator_token_file: PathBuf,
    #[command(flatten)]
    tls: TlsArguments,
}

/// The same, where the operator API may be left out.
#[derive(Debug, clap::Args)]
pub(crate) struct OptionalOperator {
    /// Address of the operator API, which tells how providers' keys are; asked only with --operator-token-file.
    #[arg(long, env = "CAUSEWAY_OPERATOR", default_value = "http://127.0.0.1:7444", value_name = "URL")]
    operator: String,
    /// File with the operator token.
    #[arg(long, env = "CAUSEWAY_OPERATOR_TOKEN_FILE", value_name = "FILE")]
    operator_token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArguments,
}

impl OptionalOperator {
    /// Connects if there is a token.
    pub(crate) async fn connect(self) -> anyhow::Result<Option<Operator>> {
        let Self { operator, operator_token_file, tls } = self;
        let Some(operator_token_file) = operator_token_file else { return Ok(None) };
        Operator::connect(OperatorArguments { operator, operator_token_file, tls }).await.map(Some)
    }
}

/// What an operator API with https needs beside the token: a certificate with the role operator-tool.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsArguments {
    /// With https: PEM file with this tool's certificate, of the role operator-tool.
    #[arg(long, env = "CAUSEWAY_OPERATOR_TLS_CERTIFICATE_FILE", value_name = "FILE")]
    tls_certificate_file: Option<PathBuf>,
    /// With https: PEM file with the certificate's key.
    #[arg(long, env = "CAUSEWAY_OPERATOR_TLS_KEY_FILE", value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// With https: PEM file with the authorities of the services' certificates.
    #[arg(long, env = "CAUSEWAY_OPERATOR_TLS_CA_FILE", value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
    /// With https: the services' trust domain.
    #[arg(long, env = "CAUSEWAY_OPERATOR_TLS_TRUST_DOMAIN", default_value = "causeway.local", value_name = "NAME")]
    tls_trust_domain: String,
    /// Sends the token in plain text also to another machine: only where the network encrypts.
    #[arg(long, env = "CAUSEWAY_OPERATOR_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
}

impl TlsArguments {
    fn load(self) -> anyhow::Result<Tls> {
        let missing = |argument| anyhow!("--operator is https, and --{argument} is missing: give the file");
        let config = TlsConfig {
            certificate_file: self.tls_certificate_file.ok_or_else(|| missing("tls-certificate-file"))?,
            key_file: self.tls_key_file.ok_or_else(|| missing("tls-key-file"))?,
            ca_file: self.tls_ca_file.ok_or_else(|| missing("tls-ca-file"))?,
            ..TlsConfig::default()
        };
        Ok(Tls::load(config, &self.tls_trust_domain, Role::OperatorTool, Arc::new(SystemClock))?)
    }
}

/// An open connection.
pub(crate) struct Operator {
    client: ProvidersClient<Channel>,
    channel: Channel,
    bearer: MetadataValue<Ascii>,
    address: String,
}

impl Operator {
    pub(crate) async fn connect(arguments: OperatorArguments) -> anyhow::Result<Self> {
        let OperatorArguments { operator: address, operator_token_file: file, tls } = arguments;
        let token = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "the operator token file {} cannot be read: give keys/operator.token of the server's data folder",
                file.display()
            )
        })?;
        let token = token.trim();
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            bail!("the operator token file {} holds no token: give the file that the server made", file.display());
        }
        let bearer = format!("Bearer {token}")
            .parse()
            .map_err(|_| anyhow!("the operator token file {} holds no printable token", file.display()))?;
        let channel = if address.starts_with("https://") {
            let transport = Transport::Mutual(tls.load()?);
            transport
                .probe(Role::KeyDirectory, &address)
                .await
                .with_context(|| format!("no operator API answers at {address}"))?;
            transport.connect(Role::KeyDirectory, &address)?
        } else {
            in_plain_text(&address, tls.allow_plaintext).await?
        };
        Ok(Self { client: ProvidersClient::new(channel.clone()), channel, bearer, address })
    }

    pub(crate) fn client(&mut self) -> &mut ProvidersClient<Channel> {
        &mut self.client
    }

    pub(crate) fn traces(&self) -> TracesClient<Channel> {
        TracesClient::new(self.channel.clone())
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(TIMEOUT);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// A sentence for a refused or failed call.
    pub(crate) fn explain(&self, status: &Status) -> anyhow::Error {
        match status.code() {
            // Not of the token: what a certificate's role may do is said in these words.
            Code::PermissionDenied if status.message().starts_with("the role ") => {
                anyhow!("{}: give a certificate of the role operator-tool", clean(status.message()))
            }
            Code::Internal | Code::Unknown if status.message().starts_with("h2 protocol error") => {
                anyhow!("what answers at {} speaks no gRPC in plain text: is it https?", self.address)
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                anyhow!("the server refused the operator token: give the token file of this very deployment")
            }
            // The client's own failures: what listens there is no operator API, or it has gone.
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Unimplemented => {
                anyhow!("no operator API answers at {}: is the server running, and is the port right?", self.address)
            }
            _ => anyhow!("{}", clean(status.message())),
        }
    }
}

async fn in_plain_text(address: &str, allowed: bool) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|_| anyhow!("--operator {address} is no URL: write it as http://host:port or https://host:port"))?;
    if !allowed && !endpoint.uri().host().is_some_and(is_this_machine) {
        bail!(
            "--operator {address} would send the operator token in plain text to another machine: write it as https://, or give \
             --allow-plaintext if the network encrypts"
        );
    }
    endpoint
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .connect()
        .await
        .map(Channel::from)
        .map_err(|_| anyhow!("no operator API answers at {address}: is the server running, and is the port right?"))
}

/// Whether a URL's host is this machine, whatever the names of others say.
fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_leaves_the_machine_in_plain_text_only_if_that_is_wanted() {
        for here in ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"] {
            assert!(is_this_machine(here), "{here}");
        }
        for there in
            ["http://10.0.0.1:7444", "http://[fe80::1]:7444", "http://localhost.example:7444", "http://operator:7444"]
        {
            let refused = in_plain_text(there, false).await.unwrap_err().to_string();
            assert!(refused.contains("--allow-plaintext"), "{refused}");
        }
    }
}
