//! Everything in one process. The services talk through the same gRPC interfaces as apart, by calls within the process.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use causeway_edge::{Edge, EdgeDeps};
use causeway_key_directory::KeyDirectory;
use causeway_media_relay::MediaRelay;
use causeway_routing::Routing;
use causeway_runtime::clock::{SharedClock, SystemClock};
use causeway_runtime::grpc::{self, Endpoints, Transport};
use causeway_runtime::lifecycle::{Ended, Lifecycle, stop_signal};
use causeway_runtime::tls::Role;
use tokio::net::TcpListener;

use crate::config::{Config, Role as ServiceRole};
use crate::{first_start, health, transport};

/// Runs until a stop signal or a failure. Stops from the outside in, so that what is open can finish: edge, routing,
/// then the rest.
pub(crate) async fn run(config: Config, data: &Path) -> anyhow::Result<Ended> {
    // From here on a stop signal is heard, also one that comes with the line that says that all is ready.
    let stopped = stop_signal();
    let clock: SharedClock = Arc::new(SystemClock);
    let grace = config.server.shutdown_grace();
    std::fs::create_dir_all(data)
        .with_context(|| format!("data folder {} cannot be made: give a writable one with --data", data.display()))?;
    let _lock = lock(data)?;
    let root = first_start::prepare(&config, data, clock.as_ref())?;
    let deployment = config.edge.deployment.clone();

    let front = Lifecycle::new();
    let middle = front.later_stage();
    let back = front.later_stage();
    health::serve(&config.server, ServiceRole::All.service(), &front).await?;

    // The services speak inside the process; the operator API is what a key-directory has outside.
    let transport = transport::open(&config, Role::KeyDirectory, &back)?;
    let scheme = if matches!(transport, Transport::Plain) { "http" } else { "https" };
    let directory = KeyDirectory::build(config.directory, Arc::clone(&clock)).await?;
    let directory_channel = grpc::in_process(directory.internal_router(), &back);
    let operator = TcpListener::bind(config.server.operator_listen)
        .await
        .with_context(|| taken("server.operator_listen", &config.server.operator_listen))?;
    let operator_address = operator.local_addr().context("operator listener")?;

    let media = MediaRelay::build(config.media, Arc::clone(&clock)).await?;
    let media_channel = grpc::in_process(media.router(), &back);
    let media_address = media.local_addr();

    let routing = Routing::build(config.routing, directory_channel.clone(), Arc::clone(&clock)).await?;
    let routing_channel = grpc::in_process(routing.router(), &middle);

    let routing_replicas = Endpoints::fixed([("in-process".to_owned(), routing_channel)]);
    let operator_router = directory.operator_router(routing_replicas.clone());
    let deps = EdgeDeps { directory: directory_channel, routing: routing_replicas, media: media_channel };
    let edge = Edge::build(config.edge, deps, clock).await?;
    let (edge_address, websocket_address) = (edge.local_addr(), edge.websocket_addr());

    back.spawn_vital("key-directory", directory.serve(back.clone()));
    back.spawn_vital("media-relay", media.serve(back.clone()));
    let back_of_operator = back.clone();
    back.spawn_vital(
        "operator API",
        async move { transport.serve(operator_router, operator, &back_of_operator).await },
    );
    middle.spawn_vital("routing", routing.serve(middle.clone()));
    health::tell_when_ready(&front, edge.ready());
    front.spawn_vital("edge", edge.serve(front.clone()));

    let root = root.map_or_else(|| "offline".to_owned(), |root| root.to_string());
    let websocket = websocket_address.map_or_else(|| "none".to_owned(), |address| address.to_string());
    writeln!(
        std::io::stdout(),
        "causeway: ready edge={edge_address} websocket={websocket} media=http://{media_address} \
         operator={scheme}://{operator_address} deployment={deployment} root={root}"
    )
    .context("write to standard output")?;

    let failed = (middle.draining(), back.draining());
    let stop = async {
        tokio::select! {
            _ = stopped => {}
            () = failed.0 => {}
            () = failed.1 => {}
        }
    };
    let ends = [front.run(stop, grace).await, middle.finish(grace).await, back.finish(grace).await];
    let worst = [Ended::Failed, Ended::Overdue].into_iter().find(|end| ends.contains(end));
    Ok(worst.unwrap_or(Ended::Clean))
}

/// One process a data folder: two would hand out the same one-time keys. The lock goes with the process.
fn lock(data: &Path) -> anyhow::Result<std::fs::File> {
    let path = data.join("lock");
    let file = std::fs::File::create(&path)
        .with_context(|| format!("data folder {} is not writable: give another with --data", data.display()))?;
    file.try_lock()
        .map_err(|_| anyhow::anyhow!("data folder {} is in use by another process: stop it first", data.display()))?;
    Ok(file)
}

fn taken(field: &str, address: &std::net::SocketAddr) -> String {
    format!("{field} {address} cannot be bound: stop what uses the port, or set another one (0 takes a free one)")
}
