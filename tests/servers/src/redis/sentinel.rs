//! A primary, a replica, and sentinels that make the one the other when it fails.

use std::time::Duration;

use crate::process::wait_for;
use crate::redis::Kind;
use crate::{Port, Redis, RedisOptions, ServerError};

/// Redis watched by sentinels. What calls the primary is told so by the sentinels; it changes.
#[derive(Debug)]
pub struct Sentinel {
    sentinels: Vec<Redis>,
    /// First the one that was the primary at the start.
    servers: [Redis; 2],
    /// Their ports, as the sentinels know them.
    announced: [u16; 2],
}

impl Sentinel {
    /// What the primary is called.
    pub const NAME: &'static str = "causeway";

    /// Starts two servers and one sentinel, and waits until a failover could happen.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(1)
    }

    /// As [`start`](Self::start) with this many sentinels, of which more than half decide.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start_with(sentinels: usize) -> Result<Self, ServerError> {
        Self::start_behind(sentinels, &mut Ok)
    }

    /// As [`start_with`](Self::start_with), where each server is known to the sentinels, and so to clients, by the port that
    /// `announce` gives for its own: of a proxy, for instance.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with), or what `announce` gives.
    pub fn start_behind(
        sentinels: usize,
        announce: &mut dyn FnMut(u16) -> Result<u16, ServerError>,
    ) -> Result<Self, ServerError> {
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let primary_port = Port::claim()?;
        let primary_announced = announce(primary_port.number())?;
        let announced = |port: u16| vec![setting("replica-announce-port", port.to_string())];
        let primary_options = RedisOptions { settings: announced(primary_announced) };
        let mut primary = Redis::prepare_on(Kind::Server, primary_options, primary_port)?;
        primary.start_again()?;
        let replica_port = Port::claim()?;
        let replica_announced = announce(replica_port.number())?;
        let mut settings = announced(replica_announced);
        settings.push(setting("replicaof", format!("127.0.0.1 {primary_announced}")));
        let mut replica = Redis::prepare_on(Kind::Server, RedisOptions { settings }, replica_port)?;
        replica.start_again()?;
        // A sentinel asks for replicas when it starts, and then only each 10 s.
        wait_for(PATIENCE, || follows(&replica));
        let (name, quorum) = (Self::NAME, sentinels / 2 + 1);
        let announced = [primary_announced, replica_announced];
        let mut watching = Vec::new();
        for _ in 0..sentinels {
            let settings = vec![
                setting("sentinel", format!("monitor {name} 127.0.0.1 {primary_announced} {quorum}")),
                setting("sentinel", format!("down-after-milliseconds {name} 1000")),
                setting("sentinel", format!("failover-timeout {name} 1000")),
            ];
            let mut sentinel = Redis::prepare(Kind::Sentinel, RedisOptions { settings })?;
            sentinel.start_again()?;
            watching.push(sentinel);
        }
        let started = Self { sentinels: watching, servers: [primary, replica], announced };
        let ready = wait_for(PATIENCE, || started.is_ready());
        if ready { Ok(started) } else { Err(ServerError::Answer("the sentinels do not see the replica".to_owned())) }
    }

    /// `redis://127.0.0.1:PORT` of each sentinel.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// The sentinels.
    pub fn sentinels(&mut self) -> &mut [Redis] {
        &mut self.sentinels
    }

    /// The two servers; the first was the primary at the start.
    pub fn servers(&mut self) -> &mut [Redis; 2] {
        &mut self.servers
    }

    /// Servers and sentinels.
    pub fn all(&mut self) -> Vec<&mut Redis> {
        self.servers.iter_mut().chain(&mut self.sentinels).collect()
    }

    /// The port of the server that a sentinel calls the primary: its own one, or the one that it was announced with.
    ///
    /// # Errors
    /// No sentinel answers.
    pub fn primary_port(&self) -> Result<u16, ServerError> {
        let mut last = ServerError::Answer("no sentinel".to_owned());
        for sentinel in &self.sentinels {
            match sentinel.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]) {
                Ok(crate::Reply::List(address)) => {
                    let port = address.get(1).and_then(|port| port.text().parse().ok());
                    return port.ok_or_else(|| ServerError::Answer(format!("{address:?}")));
                }
                Ok(reply) => last = ServerError::Answer(format!("{reply:?}")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The server that is the primary now.
    ///
    /// # Errors
    /// No sentinel answers.
    pub fn primary(&mut self) -> Result<&mut Redis, ServerError> {
        let port = self.primary_port()?;
        let index = self.announced.iter().position(|announced| *announced == port);
        let server = index.and_then(|index| self.servers.get_mut(index));
        server.ok_or_else(|| ServerError::Answer(format!("no server has port {port}")))
    }

    /// Makes the replica the primary; returns when the sentinels say so. The one that it replaces is a replica some 10 s
    /// later, and only then another failover can happen.
    ///
    /// # Errors
    /// The sentinels refuse, or it does not happen.
    pub fn failover(&mut self) -> Result<(), ServerError> {
        let before = self.primary_port()?;
        // A sentinel that has just seen a failover answers that there is no good replica yet.
        let mut refused = None;
        let asked = wait_for(FAILOVER, || {
            let answer = self.sentinels[0].call(&["SENTINEL", "FAILOVER", Self::NAME]);
            refused = answer.err();
            refused.is_none()
        });
        if let Some(error) = refused.filter(|_| !asked) {
            return Err(error);
        }
        let moved = wait_for(FAILOVER, || self.primary_port().is_ok_and(|port| port != before));
        if moved { Ok(()) } else { Err(ServerError::Answer("the failover does not end".to_owned())) }
    }

    fn is_ready(&self) -> bool {
        let others = format!("num-other-sentinels,{}", self.sentinels.len() - 1);
        self.sentinels.iter().all(|sentinel| {
            let state = sentinel.call(&["SENTINEL", "MASTER", Self::NAME]).map(|reply| flat(&reply));
            state.is_ok_and(|state| state.contains("num-slaves,1,") && state.contains(&others))
        })
    }
}

fn follows(replica: &Redis) -> bool {
    replica.call(&["INFO", "replication"]).is_ok_and(|info| info.text().contains("master_link_status:up"))
}

fn flat(reply: &crate::Reply) -> String {
    match reply {
        crate::Reply::List(list) => list.iter().map(|reply| format!("{},", flat(reply))).collect(),
        other => other.text().to_owned(),
    }
}

/// Sentinels give a failover up and begin anew after some seconds.
const FAILOVER: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_takes_over_when_it_is_told() {
        let mut redis = Sentinel::start().unwrap();
        redis.primary().unwrap().call(&["SET", "a", "1"]).unwrap();
        redis.primary().unwrap().call(&["WAIT", "1", "30000"]).unwrap();
        let first = redis.primary_port().unwrap();
        redis.failover().unwrap();
        assert_ne!(redis.primary_port().unwrap(), first);
        // It may still be loading what it has.
        let has_it = || redis.primary().unwrap().call(&["GET", "a"]).is_ok_and(|reply| reply.text() == "1");
        assert!(wait_for(PATIENCE, has_it));
    }

    #[test]
    fn the_replica_takes_over_when_the_primary_is_killed() {
        let mut redis = Sentinel::start_with(3).unwrap();
        let first = redis.primary_port().unwrap();
        redis.primary().unwrap().kill().unwrap();
        assert!(wait_for(PATIENCE, || redis.primary_port().is_ok_and(|port| port != first)));
    }
}
