//! The connection to the operator API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use causeway_proto::directory::v1::providers_client::ProvidersClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

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
}

/// An open connection.
pub(crate) struct Operator {
    client: ProvidersClient<Channel>,
    bearer: MetadataValue<Ascii>,
    address: String,
}

impl Operator {
    pub(crate) async fn connect(arguments: OperatorArguments) -> anyhow::Result<Self> {
        let OperatorArguments { operator: address, operator_token_file: file } = arguments;
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
        let channel = Endpoint::from_shared(address.clone())
            .map_err(|_| anyhow!("--operator {address} is no URL: write it as http://host:port"))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .connect()
            .await
            .map_err(|_| {
                anyhow!("no operator API answers at {address}: is the server running, and is the port right?")
            })?;
        Ok(Self { client: ProvidersClient::new(channel), bearer, address })
    }

    pub(crate) fn client(&mut self) -> &mut ProvidersClient<Channel> {
        &mut self.client
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// A sentence for a refused or failed call.
    pub(crate) fn explain(&self, status: &Status) -> anyhow::Error {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                anyhow!("the server refused the operator token: give the token file of this very deployment")
            }
            // The client's own failures: what listens there is no operator API, or it has gone.
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Unimplemented => {
                anyhow!("no operator API answers at {}: is the server running, and is the port right?", self.address)
            }
            _ => anyhow!("{}", status.message()),
        }
    }
}
