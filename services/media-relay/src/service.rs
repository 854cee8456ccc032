//! The service: both roles on one HTTP listener, tickets over gRPC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use causeway_redis::{Health, Holds, Redis};
use causeway_runtime::clock::SharedClock;
use causeway_runtime::lifecycle::Lifecycle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::config::{MediaConfig, StoreKind};
use crate::error::MediaError;
use crate::host::{self, Host, HostConfig};
use crate::http::answer::Refusal;
use crate::http::transfers::Transfers;
use crate::http::{self, Limits};
use crate::relay::{self, Relay};
use crate::rpc;
use crate::tickets::Tickets;

/// A media-relay that is bound and ready to serve.
#[derive(Debug)]
pub struct MediaRelay {
    listener: TcpListener,
    local: SocketAddr,
    limits: Limits,
    sweep_interval: Duration,
    redis_health: Option<watch::Receiver<Health>>,
    roles: Roles,
}

#[derive(Debug, Clone)]
struct Roles {
    host: Host,
    relay: Relay,
}

impl MediaRelay {
    /// Opens the blobs and the ticket key and binds the listener; serves nothing yet.
    ///
    /// # Errors
    /// [`MediaError`], which names what to mend.
    pub async fn build(config: MediaConfig, clock: SharedClock) -> Result<Self, MediaError> {
        // So that they are there from the beginning.
        crate::metrics::metrics();
        let bind = |source| MediaError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;
        let public_base = config.base_at(local).ok_or(MediaError::PublicBase)?;
        let tickets = Tickets::open(&config.key_file(), clock.clone())?
            .with_max_uses(config.max_ticket_uses)
            .with_rate(config.ticket_burst, config.tickets_per_minute);
        let redis =
            config.redis.as_ref().map(|redis| Redis::open(redis, "media-relay", Holds::Spendings)).transpose()?;
        let redis_health = redis.as_ref().map(Redis::health);
        let tickets = Arc::new(match redis {
            Some(redis) => tickets.with_redis(redis),
            None => tickets,
        });
        let ticket_ttl = Duration::from_secs(config.ticket_ttl_s);
        let host = HostConfig {
            public_base: public_base.clone(),
            data_dir: config.data_dir.clone(),
            bucket: (config.store == StoreKind::S3).then(|| config.s3.clone()),
            ticket_ttl,
            max_blob_bytes: config.max_blob_bytes,
            max_transfers: config.max_transfers,
            max_transfers_per_account: config.max_transfers_per_account,
            min_bytes_per_s: config.min_bytes_per_s,
            idle_timeout: config.idle(),
            transfer_timeout: config.total(),
            daily_upload_bytes: config.daily_upload_bytes,
            retention: Duration::from_secs(u64::from(config.retention_days) * 86_400),
        };
        let transfers = Transfers::new(host.transfers());
        let host = Host::sharing(host, Arc::clone(&tickets), clock, transfers.clone()).await?;
        let limits = Limits {
            max_connections: config.max_connections,
            max_connections_per_network: config.max_connections_per_network,
            write_idle: config.idle(),
            min_bytes_per_s: config.min_bytes_per_s,
            lifetime: config.total(),
            ..Limits::default()
        };
        let sweep_interval = Duration::from_secs(config.sweep_interval_s);
        let relay = Relay::build(&config, &public_base, ticket_ttl, tickets, transfers, host.clone())?;
        Ok(Self { listener, local, limits, sweep_interval, redis_health, roles: Roles { host, relay } })
    }

    /// Where the HTTP listener is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// How the Redis with the uses of upload tickets is, if there is one: while it is degraded, there are no uploads.
    pub fn redis_health(&self) -> Option<watch::Receiver<Health>> {
        self.redis_health.clone()
    }

    /// What all public URLs of the operator's own blobs begin with: the home provider's media prefix.
    pub fn media_prefix(&self) -> &str {
        self.roles.host.media_prefix()
    }

    #[cfg(test)]
    pub(crate) fn roles(&self) -> (Host, Relay) {
        (self.roles.host.clone(), self.roles.relay.clone())
    }

    /// The gRPC service `causeway.media.v1.Tickets`.
    pub fn router(&self) -> causeway_runtime::grpc::Router {
        rpc::router(self.roles.host.clone(), self.roles.relay.clone())
    }

    /// Serves until the lifecycle drains and the open transfers have ended.
    ///
    /// # Errors
    /// None at present; the signature is that of all services.
    pub async fn serve(self, life: Lifecycle) -> Result<(), MediaError> {
        life.spawn(sweep_now_and_then(self.roles.host.clone(), self.sweep_interval, life.clone()));
        let app = Router::new().fallback(answer).with_state(self.roles);
        http::serve(self.listener, app, self.limits, life).await;
        Ok(())
    }
}

async fn answer(State(roles): State<Roles>, request: Request) -> Response {
    match request.uri().path() {
        relay::PATH => roles.relay.answer(&request.into_parts().0).await,
        path if host::owns(path) => roles.host.answer(request).await,
        _ => Refusal::NotFound.answer(),
    }
}

async fn sweep_now_and_then(host: Host, interval: Duration, life: Lifecycle) {
    let drain = life.drain_token();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = host.sweep().await {
            tracing::warn!(%error, "the sweep of old blobs failed; the next one tries again");
        }
    }
}
