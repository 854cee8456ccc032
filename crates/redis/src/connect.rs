//! Making a connection, by kind of deployment.

use std::sync::Once;

use causeway_runtime::secret_file;
use futures::{StreamExt as _, TryStreamExt as _};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisResult, TlsCertificates, TlsMode, Value,
};
use zeroize::Zeroizing;

use crate::config::{RedisConfig, RedisMode, split};
use crate::error::OpenError;

/// All that it takes to connect.
pub(crate) struct Connector {
    config: RedisConfig,
    addresses: Vec<(String, u16)>,
    password: Option<Zeroizing<String>>,
    sentinel_password: Option<Zeroizing<String>>,
    ca: Option<Vec<u8>>,
}

/// An open connection, which many commands use at once.
#[derive(Clone)]
pub(crate) enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To a Cluster; follows its redirections.
    Cluster(ClusterConnection),
}

impl Connector {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, OpenError> {
        if config.tls {
            use_one_cryptography();
        }
        let password = |path: &std::path::Path| -> Result<Option<Zeroizing<String>>, OpenError> {
            if path.as_os_str().is_empty() {
                return Ok(None);
            }
            let bytes = secret_file::read(path)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| OpenError::PasswordText)?;
            Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
        };
        let has_ca = !config.ca_file.as_os_str().is_empty();
        let ca = has_ca.then(|| std::fs::read(&config.ca_file)).transpose().map_err(OpenError::CaFile)?;
        let connector = Self {
            addresses: config.addresses.iter().filter_map(|address| split(address)).collect(),
            password: password(&config.password_file)?,
            sentinel_password: password(&config.sentinel_password_file)?,
            ca,
            config: config.clone(),
        };
        connector.try_settings().map_err(|error| OpenError::Settings(error.to_string()))?;
        Ok(connector)
    }

    /// What is wrong with the settings shows here, not at the first attempt to connect.
    fn try_settings(&self) -> RedisResult<()> {
        match self.config.mode {
            RedisMode::Single => self.client(0).map(drop),
            RedisMode::Sentinel => self.sentinels(0).map(drop),
            RedisMode::Cluster => self.cluster(0).map(drop),
        }
    }

    /// Connects once. `attempt` chooses which address is asked first, so that one that is silent does not hold up all
    /// attempts.
    pub(crate) async fn connect(&self, attempt: usize) -> RedisResult<Connection> {
        Ok(match self.config.mode {
            RedisMode::Single => Connection::One(self.open(&self.client(attempt)?).await?),
            RedisMode::Sentinel => {
                Connection::One(self.open(&self.sentinels(attempt)?.async_get_client().await?).await?)
            }
            RedisMode::Cluster => Connection::Cluster(self.cluster(attempt)?.get_async_connection().await?),
        })
    }

    /// A client for subscriptions: in a Cluster every node passes on what is published at any.
    pub(crate) async fn subscriber(&self, attempt: usize) -> RedisResult<Client> {
        match self.config.mode {
            RedisMode::Single | RedisMode::Cluster => self.client(attempt),
            RedisMode::Sentinel => self.sentinels(attempt)?.async_get_client().await,
        }
    }

    async fn open(&self, client: &Client) -> RedisResult<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout()))
            .set_response_timeout(Some(self.config.command_timeout()));
        client.get_multiplexed_async_connection_with_config(&settings).await
    }

    fn client(&self, attempt: usize) -> RedisResult<Client> {
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(self.config.database));
        if !self.config.username.is_empty() {
            settings = settings.set_username(&self.config.username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.as_str());
        }
        let first = self.rotated(attempt).next().unwrap_or_else(|| self.address("localhost", 6379));
        let info: ConnectionInfo = first.into_connection_info()?.set_redis_settings(settings);
        match self.config.tls {
            true => Client::build_with_tls(info, self.certificates()),
            false => Client::open(info),
        }
    }

    fn sentinels(&self, attempt: usize) -> RedisResult<SentinelClient> {
        let (name, kind) = (&self.config.sentinel_master, SentinelServerType::Master);
        let mut builder = SentinelClientBuilder::new(self.rotated(attempt), name, kind)?
            .set_client_to_redis_db(i64::from(self.config.database));
        if !self.config.username.is_empty() {
            builder = builder.set_client_to_redis_username(&self.config.username);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password.as_str());
        }
        if let Some(password) = &self.sentinel_password {
            builder = builder.set_client_to_sentinel_password(password.as_str());
        }
        if self.config.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(self.certificates())
                .set_client_to_sentinel_certificates(self.certificates());
        }
        builder.build()
    }

    fn cluster(&self, attempt: usize) -> RedisResult<redis::cluster::ClusterClient> {
        let mut builder = ClusterClientBuilder::new(self.rotated(attempt))
            // A node that is silent must leave time for the others.
            .connection_timeout(self.config.connect_timeout() / 4)
            .response_timeout(self.config.command_timeout())
            .retries(4)
            .min_retry_wait(5)
            .max_retry_wait(100);
        if !self.config.username.is_empty() {
            builder = builder.username(&self.config.username);
        }
        if let Some(password) = &self.password {
            builder = builder.password(password.as_str());
        }
        if self.config.tls {
            builder = builder.tls(TlsMode::Secure).certs(self.certificates());
        }
        builder.build()
    }

    fn rotated(&self, attempt: usize) -> impl Iterator<Item = ConnectionAddr> {
        let count = self.addresses.len();
        let addresses = self.addresses.iter().cycle().skip(attempt % count.max(1)).take(count);
        addresses.map(|(host, port)| self.address(host, *port))
    }

    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        match self.config.tls {
            true => ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host.to_owned(), port),
        }
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.ca.clone() }
    }
}

impl Connection {
    pub(crate) async fn run(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self.clone() {
            Self::One(mut connection) => connection.req_packed_command(command).await,
            Self::Cluster(mut connection) => connection.req_packed_command(command).await,
        };
        // A refusal comes as a value.
        answer?.extract_error()
    }

    /// The answers to all commands, in their order; an error of one of them is its answer.
    pub(crate) async fn run_all(&self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        match self.clone() {
            Self::One(mut connection) => {
                let (mut pipeline, count) = (redis::pipe(), commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                connection.req_packed_commands(&pipeline, 0, count).await
            }
            // Each goes to the node of its key; the connection writes those of one node together.
            Self::Cluster(connection) => {
                let answers = futures::stream::iter(commands.into_iter().map(|command| {
                    let mut connection = connection.clone();
                    async move {
                        match connection.req_packed_command(&command).await {
                            Err(error) => server_error(error),
                            answer => answer,
                        }
                    }
                }));
                answers.buffered(AT_ONCE).try_collect().await
            }
        }
    }

    /// Whether it answers and takes writes: in a Cluster all primaries must answer, and one takes a write.
    pub(crate) async fn probe(&self, key: &str) -> RedisResult<()> {
        if let Self::Cluster(mut connection) = self.clone() {
            let everywhere = (MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::AllSucceeded));
            connection.route_command(redis::cmd("PING"), RoutingInfo::MultiNode(everywhere)).await?.extract_error()?;
        }
        let mut write = redis::cmd("SET");
        write.arg(key).arg(1).arg("PX").arg(PROBE_LASTS_MS);
        self.run(&write).await.map(drop)
    }

    /// What one server says about itself.
    pub(crate) async fn info(&self, section: &str) -> RedisResult<Value> {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        match self.clone() {
            Self::One(mut connection) => connection.req_packed_command(&info).await,
            Self::Cluster(mut connection) => {
                connection.route_command(info, RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random)).await
            }
        }
    }
}

/// Commands of one batch that are under way at a time in a Cluster.
const AT_ONCE: usize = 128;
const PROBE_LASTS_MS: u64 = 10_000;

/// As a value, as it is in the answers of a pipeline.
fn server_error(error: redis::RedisError) -> RedisResult<Value> {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => Ok(Value::ServerError(first.clone())),
        _ => Err(error),
    }
}

/// The process's TLS is that of aws-lc-rs, unless it has chosen already.
fn use_one_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _chosen_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}
