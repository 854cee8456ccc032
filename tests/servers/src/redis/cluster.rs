//! Redis Cluster: three primaries that have a third of the slots each, with a replica each if wanted.

use std::time::Duration;

use crate::process::wait_for;
use crate::redis::Kind;
use crate::{Port, Redis, RedisOptions, ServerError};

/// A running Redis Cluster.
#[derive(Debug)]
pub struct RedisCluster {
    /// The primaries at the start, then their replicas in the same order.
    nodes: Vec<Redis>,
    _bus: Vec<Port>,
}

impl RedisCluster {
    /// Starts three primaries without replicas.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(false)
    }

    /// Starts three primaries, with a replica each if `replicas`.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start_with(replicas: bool) -> Result<Self, ServerError> {
        Self::start_behind(replicas, &mut Ok)
    }

    /// As [`start_with`](Self::start_with), where each node tells clients the port that `announce` gives for its own: of a
    /// proxy, for instance.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with), or what `announce` gives.
    pub fn start_behind(
        replicas: bool,
        announce: &mut dyn FnMut(u16) -> Result<u16, ServerError>,
    ) -> Result<Self, ServerError> {
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for _ in 0..if replicas { 2 * PRIMARIES } else { PRIMARIES } {
            let (port, bus) = (Port::claim()?, Port::claim()?);
            let announced = announce(port.number())?;
            let settings = [
                ("cluster-enabled", "yes"),
                ("cluster-port", &bus.number().to_string()),
                ("cluster-node-timeout", "1000"),
                ("cluster-announce-ip", "127.0.0.1"),
                ("cluster-announce-port", &announced.to_string()),
            ];
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut node = Redis::prepare_on(Kind::Server, RedisOptions { settings }, port)?;
            node.start_again()?;
            nodes.push(node);
            buses.push(bus);
        }
        let cluster = Self { nodes, _bus: buses };
        cluster.join(replicas)?;
        Ok(cluster)
    }

    /// `redis://127.0.0.1:PORT` of each node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The nodes: those that were primaries at the start, then their replicas in the same order.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// Makes the replica of the `index`-th pair the primary, or back; returns when it is.
    ///
    /// # Errors
    /// There is no replica, or it does not happen.
    pub fn failover(&mut self, index: usize) -> Result<(), ServerError> {
        let pair: Vec<&Redis> = [index, index + PRIMARIES].iter().filter_map(|index| self.nodes.get(*index)).collect();
        let late = || ServerError::Answer(format!("pair {index} has no replica that could take over"));
        // One that was a primary a moment ago may not know yet that it is none.
        let mut replica = None;
        wait_for(PATIENCE, || {
            replica = pair.iter().find(|node| !is_primary(node));
            replica.is_some() || pair.len() < 2
        });
        let replica = replica.ok_or_else(late)?;
        let mut refused = None;
        let moved = wait_for(PATIENCE, || {
            if is_primary(replica) {
                return true;
            }
            // Without the primary it is a takeover.
            for how in [&["CLUSTER", "FAILOVER"][..], &["CLUSTER", "FAILOVER", "FORCE"]] {
                refused = replica.call(how).err();
                if refused.is_none() {
                    break;
                }
            }
            wait_for(Duration::from_secs(1), || is_primary(replica))
        });
        if moved { Ok(()) } else { Err(refused.unwrap_or_else(late)) }
    }

    fn join(&self, replicas: bool) -> Result<(), ServerError> {
        for (index, node) in self.nodes.iter().enumerate() {
            node.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        }
        for (index, node) in self.nodes.iter().take(PRIMARIES).enumerate() {
            let (first, last) = (index * SLOTS / PRIMARIES, (index + 1) * SLOTS / PRIMARIES - 1);
            node.call(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        }
        let meets = self.nodes.iter().skip(1).zip(&self._bus[1..]);
        for (node, bus) in meets {
            let (port, bus) = (node.port().to_string(), bus.number().to_string());
            self.nodes[0].call(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        let all = format!("cluster_known_nodes:{}", self.nodes.len());
        self.wait_until("all nodes know each other", |info| info.contains(&all))?;
        if replicas {
            let ids = self.nodes.iter().take(PRIMARIES).map(|node| node.call(&["CLUSTER", "MYID"]));
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            for (node, id) in self.nodes.iter().skip(PRIMARIES).zip(&ids) {
                node.call(&["CLUSTER", "REPLICATE", id.text()])?;
            }
            let synced = wait_for(PATIENCE, || {
                self.nodes.iter().skip(PRIMARIES).all(|node| {
                    node.call(&["INFO", "replication"]).is_ok_and(|info| info.text().contains("master_link_status:up"))
                })
            });
            if !synced {
                return Err(ServerError::Answer("a replica does not follow".to_owned()));
            }
        }
        self.wait_until("the cluster is ok", |info| {
            info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
        })
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<(), ServerError> {
        let so = wait_for(PATIENCE, || {
            self.nodes.iter().all(|node| node.call(&["CLUSTER", "INFO"]).is_ok_and(|info| is_so(info.text())))
        });
        if so { Ok(()) } else { Err(ServerError::Answer(format!("waited in vain until {what}"))) }
    }
}

fn is_primary(node: &Redis) -> bool {
    node.call(&["INFO", "replication"]).is_ok_and(|info| info.text().contains("role:master"))
}

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_served() {
        let mut cluster = RedisCluster::start().unwrap();
        assert_eq!(cluster.urls().len(), 3);
        // "foo" is in slot 12182, which the third has; the others say so.
        assert_eq!(cluster.nodes()[2].call(&["SET", "foo", "1"]).unwrap().text(), "OK");
        let moved = cluster.nodes()[0].call(&["GET", "foo"]).unwrap_err().to_string();
        assert!(moved.contains("MOVED 12182 127.0.0.1:"), "{moved}");
    }

    #[test]
    fn a_replica_takes_over_when_it_is_told() {
        let mut cluster = RedisCluster::start_with(true).unwrap();
        cluster.nodes()[2].call(&["SET", "foo", "1"]).unwrap();
        cluster.failover(2).unwrap();
        assert!(wait_for(PATIENCE, || {
            cluster.nodes()[5].call(&["GET", "foo"]).is_ok_and(|value| value.text() == "1")
        }));
        cluster.failover(2).unwrap();
        assert!(is_primary(&cluster.nodes()[2]));
    }
}
