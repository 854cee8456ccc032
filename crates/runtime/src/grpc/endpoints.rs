//! Where the replicas of another service are: a list, or the addresses of a DNS name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::transport::{Connection, Dialer, Target};
use super::{Channel, GrpcError, connect_with, endpoint};
use crate::lifecycle::Lifecycle;

/// How often DNS names are looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);
/// A look-up that takes longer counts as failed; what was known before stays.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// One replica of several that does not take a connection within this is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Replicas of one service that are used; what DNS has beyond it is left out.
const MAX_REPLICAS: usize = 256;
const DNS_SCHEME: &str = "dns+";

/// How the addresses of a name are found.
#[derive(Clone)]
struct Resolver(Arc<dyn Fn(String, u16) -> Found + Send + Sync>);
type Found = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

impl Resolver {
    /// As the system does it.
    fn of_system() -> Self {
        Self(Arc::new(|host, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) })
        }))
    }
}

/// One configured address: a replica, or a name that stands for several.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// `http://host:port`, or with https.
    One(Target),
    /// `dns+http://name:port`, or with https: each of the name's addresses is a replica.
    Name { scheme: String, host: String, port: u16 },
}

impl Address {
    fn parse(address: &str) -> Result<Self, GrpcError> {
        let Some(url) = address.strip_prefix(DNS_SCHEME) else {
            return Target::of(address).map(Self::One);
        };
        let uri = endpoint(url).map_err(|_| GrpcError::Address(address.to_owned()))?.uri().clone();
        match (uri.scheme_str(), uri.host(), uri.port_u16()) {
            (Some(scheme), Some(host), Some(port)) => {
                Ok(Self::Name { scheme: scheme.to_owned(), host: host.to_owned(), port })
            }
            _ => Err(GrpcError::Address(address.to_owned())),
        }
    }

    /// The replicas now; `None` when the name cannot be looked up.
    async fn resolve(&self, resolver: &Resolver) -> Option<BTreeSet<Target>> {
        match self {
            Self::One(target) => Some(BTreeSet::from([target.clone()])),
            Self::Name { scheme, host, port } => {
                let looked_up = tokio::time::timeout(LOOK_UP_TIMEOUT, (resolver.0)(host.clone(), *port));
                match looked_up.await {
                    Ok(Ok(found)) => {
                        let target = |address| Target { url: format!("{scheme}://{address}"), name: host.clone() };
                        Some(found.into_iter().map(target).collect())
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a service's name could not be looked up");
                        None
                    }
                    Err(_elapsed) => None,
                }
            }
        }
    }
}

fn parse_all(addresses: &[String]) -> Result<Vec<Address>, GrpcError> {
    addresses.iter().map(|address| Address::parse(address)).collect()
}

/// Checks the form of the configured addresses of a service: at least one, each `http://host:port` or
/// `dns+http://name:port`, or the same with `https`.
///
/// # Errors
/// [`GrpcError::Address`], [`GrpcError::NoAddress`].
pub fn check_addresses(addresses: &[String]) -> Result<(), GrpcError> {
    if addresses.is_empty() {
        return Err(GrpcError::NoAddress);
    }
    parse_all(addresses).map(drop)
}

/// The replicas of a service that can be spoken to one by one, by URL. Cheap to clone; each clone sees changes for itself.
#[derive(Clone)]
pub struct Endpoints {
    current: watch::Receiver<Arc<BTreeMap<String, Channel>>>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.current.borrow().keys()).finish()
    }
}

impl Endpoints {
    /// Replicas that never change.
    pub fn fixed(replicas: impl IntoIterator<Item = (String, Channel)>) -> Self {
        // The last value stays readable when the sender is gone.
        Self { current: watch::channel(Arc::new(replicas.into_iter().collect())).1 }
    }

    /// Replicas at these addresses; names are looked up again every two seconds until `life` ends. A name that cannot be looked
    /// up keeps the replicas that it had.
    ///
    /// # Errors
    /// [`GrpcError::Address`], [`GrpcError::NoAddress`].
    pub fn discover(addresses: &[String], life: &Lifecycle) -> Result<Self, GrpcError> {
        discover_by(&Dialer::Plain, addresses, life)
    }

    /// The replicas now.
    pub fn current(&self) -> Arc<BTreeMap<String, Channel>> {
        Arc::clone(&self.current.borrow())
    }

    /// Resolves when there are other replicas than when this clone looked last; never, when they cannot change any more.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn checked(dialer: &Dialer, addresses: &[String]) -> Result<Vec<Address>, GrpcError> {
    check_addresses(addresses)?;
    addresses.iter().try_for_each(|address| dialer.check(address))?;
    parse_all(addresses)
}

pub(super) fn discover_by(dialer: &Dialer, addresses: &[String], life: &Lifecycle) -> Result<Endpoints, GrpcError> {
    discover_with(dialer, Resolver::of_system(), addresses, life)
}

fn discover_with(
    dialer: &Dialer,
    resolver: Resolver,
    addresses: &[String],
    life: &Lifecycle,
) -> Result<Endpoints, GrpcError> {
    let addresses = checked(dialer, addresses)?;
    let fixed: BTreeMap<String, Target> = addresses
        .iter()
        .filter_map(|address| match address {
            Address::One(target) => Some((target.url.clone(), target.clone())),
            Address::Name { .. } => None,
        })
        .collect();
    let first = with_channels(dialer, &fixed, &BTreeMap::new());
    let (sender, current) = watch::channel(Arc::new(first));
    if addresses.iter().any(|address| matches!(address, Address::Name { .. })) {
        life.spawn_until_drained(look_up(dialer.clone(), resolver, addresses, sender));
    }
    Ok(Endpoints { current })
}

async fn look_up(
    dialer: Dialer,
    resolver: Resolver,
    addresses: Vec<Address>,
    sender: watch::Sender<Arc<BTreeMap<String, Channel>>>,
) {
    let mut known: Vec<BTreeSet<Target>> = vec![BTreeSet::new(); addresses.len()];
    loop {
        for (address, known) in addresses.iter().zip(&mut known) {
            if let Some(found) = address.resolve(&resolver).await {
                *known = found;
            }
        }
        let targets = known.iter().flatten().take(MAX_REPLICAS);
        let targets: BTreeMap<String, Target> = targets.map(|target| (target.url.clone(), target.clone())).collect();
        sender.send_if_modified(|current| {
            let same = current.keys().eq(targets.keys());
            if !same {
                *current = Arc::new(with_channels(&dialer, &targets, current));
            }
            !same
        });
        tokio::time::sleep(LOOK_UP_EVERY).await;
    }
}

/// A channel for each URL, the one there was where there was one.
fn with_channels(
    dialer: &Dialer,
    targets: &BTreeMap<String, Target>,
    before: &BTreeMap<String, Channel>,
) -> BTreeMap<String, Channel> {
    let channel = |target: &Target| match before.get(&target.url) {
        Some(channel) => Some(channel.clone()),
        // Each has the form of an address: it was checked, or made from one that was.
        None => dialer.channel(target).ok(),
    };
    targets.iter().filter_map(|(url, target)| Some((url.clone(), channel(target)?))).collect()
}

/// A channel to whichever replica is there: it stays with one while that answers, and goes on to the next when the
/// connection breaks or the replica stops. For calls that any replica can answer.
///
/// # Errors
/// [`GrpcError::Address`], [`GrpcError::NoAddress`].
pub fn connect_any(addresses: &[String]) -> Result<Channel, GrpcError> {
    connect_any_by(Dialer::Plain, addresses)
}

pub(super) fn connect_any_by(dialer: Dialer, addresses: &[String]) -> Result<Channel, GrpcError> {
    connect_any_with(dialer, Resolver::of_system(), addresses)
}

fn connect_any_with(dialer: Dialer, resolver: Resolver, addresses: &[String]) -> Result<Channel, GrpcError> {
    let addresses = checked(&dialer, addresses)?;
    let replicas = Arc::new(AnyOf { dialer, resolver, addresses, next: AtomicUsize::new(first_choice()) });
    Ok(connect_with(move || {
        let replicas = Arc::clone(&replicas);
        async move { replicas.connect().await }
    }))
}

struct AnyOf {
    dialer: Dialer,
    resolver: Resolver,
    addresses: Vec<Address>,
    /// Where to begin: behind the replica that was used last, which has just failed or stopped.
    next: AtomicUsize,
}

impl AnyOf {
    async fn connect(&self) -> std::io::Result<Connection> {
        let mut targets = BTreeSet::new();
        for address in &self.addresses {
            targets.extend(address.resolve(&self.resolver).await.unwrap_or_default());
        }
        let targets: Vec<Target> = targets.into_iter().take(MAX_REPLICAS).collect();
        let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "no replica is known");
        for _ in 0..targets.len() {
            let chosen = &targets[self.next.fetch_add(1, Ordering::Relaxed) % targets.len()];
            match self.dialer.dial(chosen, CONNECT_TIMEOUT).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// Spreads the processes of a deployment over the replicas.
fn first_choice() -> usize {
    use std::hash::{BuildHasher as _, RandomState};
    // Any number that differs from process to process will do.
    usize::try_from(RandomState::new().hash_one(0) >> 33).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::net::TcpListener;
    use tonic::Code;
    use tonic::service::Routes;

    use super::*;
    use crate::grpc;

    const LOCAL: &str = "127.0.0.1:0";

    fn list(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    #[test]
    fn addresses_have_one_of_two_forms() {
        for good in [
            "http://10.0.0.1:7450",
            "http://[::1]:7450",
            "dns+http://routing.causeway.svc:7451",
            "https://routing-1.causeway.svc:7451",
            "dns+https://routing.causeway.svc:7451",
        ] {
            check_addresses(&list(&[good])).unwrap();
        }
        for bad in [
            "",
            "routing:7451",
            "ftp://routing:7451",
            "dns+ftp://routing:7451",
            "dns+routing:7451",
            "dns+http://routing",
            "dns+",
            "x y",
        ] {
            let error = check_addresses(&list(&["http://127.0.0.1:1", bad])).unwrap_err().to_string();
            assert!(error.contains("http://host:port"), "{bad}: {error}");
        }
        assert!(matches!(check_addresses(&[]), Err(GrpcError::NoAddress)));
    }

    #[tokio::test]
    async fn a_name_stands_for_all_of_its_addresses() {
        let life = Lifecycle::new();
        let mut endpoints = Endpoints::discover(&list(&["dns+http://localhost:7451"]), &life).unwrap();
        endpoints.changed().await;
        assert!(endpoints.current().keys().any(|url| url == "http://127.0.0.1:7451"), "{endpoints:?}");
    }

    /// A name server of one name, whose addresses change while it is asked; none: it does not answer.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<Vec<SocketAddr>>>);

    impl Names {
        fn set(&self, addresses: &[&str]) {
            *self.0.lock().unwrap() = addresses.iter().map(|address| format!("{address}:0").parse().unwrap()).collect();
        }

        fn resolver(&self) -> Resolver {
            let names = self.clone();
            Resolver(Arc::new(move |host, port| {
                assert_eq!(host, "routing.example");
                let mut found = names.0.lock().unwrap().clone();
                found.iter_mut().for_each(|address| address.set_port(port));
                let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
                Box::pin(std::future::ready(if found.is_empty() { Err(missing) } else { Ok(found) }))
            }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_appear_in_a_name_are_used_and_those_that_vanish_are_dropped() {
        let (names, life) = (Names::default(), Lifecycle::new());
        let addresses = list(&["dns+http://routing.example:7451", "http://10.0.0.9:7451"]);
        let mut endpoints = discover_with(&Dialer::Plain, names.resolver(), &addresses, &life).unwrap();
        let urls = |endpoints: &Endpoints| endpoints.current().keys().cloned().collect::<Vec<_>>();
        let of = |last: &[u8]| last.iter().map(|last| format!("http://10.0.0.{last}:7451")).collect::<Vec<_>>();
        assert_eq!(urls(&endpoints), of(&[9]), "nobody knows the name yet");
        for (now, expected) in [
            (&["10.0.0.1"][..], &[1, 9][..]),
            (&["10.0.0.2", "10.0.0.1"], &[1, 2, 9]),
            (&["10.0.0.2", "10.0.0.3"], &[2, 3, 9]),
        ] {
            names.set(now);
            endpoints.changed().await;
            assert_eq!(urls(&endpoints), of(expected));
        }
        // A name server that is away changes nothing, and the same addresses in another order neither.
        names.set(&[]);
        tokio::time::sleep(LOOK_UP_EVERY * 10).await;
        names.set(&["10.0.0.3", "10.0.0.2"]);
        tokio::time::sleep(LOOK_UP_EVERY * 10).await;
        assert!(!endpoints.current.has_changed().unwrap());
        assert_eq!(urls(&endpoints), of(&[2, 3, 9]));
        life.drain();
    }

    #[tokio::test]
    async fn a_channel_to_a_name_follows_its_addresses() {
        let (first, second) = (Lifecycle::new(), Lifecycle::new());
        let port = serve(&first, "127.0.0.1:0").await.port();
        serve(&second, &format!("127.0.0.2:{port}")).await;
        let names = Names::default();
        names.set(&["127.0.0.1"]);
        let name = list(&[&format!("dns+http://routing.example:{port}")]);
        let channel = connect_any_with(Dialer::Plain, names.resolver(), &name).unwrap();
        assert_eq!(answers(&channel).await, Code::Unimplemented);
        names.set(&["127.0.0.2"]);
        first.drain();
        let follows = async { while answers(&channel).await != Code::Unimplemented {} };
        follows.await;
        // Whatever it was that answered, the first has gone when this one has too.
        second.drain();
        let nobody = async { while answers(&channel).await == Code::Unimplemented {} };
        nobody.await;
    }

    /// A server without services, which answers each call with `Unimplemented`.
    async fn serve(life: &Lifecycle, at: &str) -> SocketAddr {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, of_server) = (grpc::Router::from(Routes::default()), life.clone());
        tokio::spawn(async move { grpc::serve(router, listener, &of_server).await.unwrap() });
        address
    }

    async fn answers(channel: &Channel) -> Code {
        let mut client = tonic::client::Grpc::new(channel.clone());
        if client.ready().await.is_err() {
            return Code::Unavailable;
        }
        let path = http::uri::PathAndQuery::from_static("/causeway.Nothing/Nothing");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        client.unary(grpc::call(()), path, codec).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    #[tokio::test]
    async fn a_channel_to_any_goes_on_to_the_next_replica() {
        let (first, second) = (Lifecycle::new(), Lifecycle::new());
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let addresses = [nobody, serve(&first, LOCAL).await, serve(&second, LOCAL).await]
            .map(|address| format!("http://{address}"));
        let channel = connect_any(&addresses).unwrap();
        assert_eq!(answers(&channel).await, Code::Unimplemented);
        first.drain();
        // Either it was at the second already, or it finds it after at most one call on the connection that ended.
        let after = [answers(&channel).await, answers(&channel).await];
        assert_eq!(after[1], Code::Unimplemented, "{after:?}");
        second.drain();
        let last = async { while answers(&channel).await == Code::Unimplemented {} };
        tokio::time::timeout(Duration::from_secs(10), last).await.expect("nobody is there any more");
    }
}
