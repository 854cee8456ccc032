//! Which processes a deployment consists of.

use std::fmt;

/// How many processes a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `causeway all`.
    One,
    /// One for each service, which speak over TCP.
    Many,
    /// Several for each service, on PostgreSQL and Redis: 2 edges, 3 routings, 2 key-directories, 2 media-relays.
    Replicas,
    /// The same, but edges know the second key-directory only, and routings the first.
    ReplicasApart,
    /// The same as [`Shape::Replicas`], which speak with each other over mutual TLS.
    ReplicasSecured,
}

/// What a process of a deployment serves, by its subcommand; in the order of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// Everything.
    All,
    /// Who is who.
    KeyDirectory,
    /// Who gets what.
    Routing,
    /// Media.
    MediaRelay,
    /// Client connections.
    Edge,
}

/// A process of a deployment: `edge-1`, `routing-3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// What it serves.
    pub process: Process,
    /// From 1.
    pub number: u8,
}

impl Shape {
    /// In the order of starting.
    pub(super) fn replicas(self) -> Vec<Replica> {
        let counts: &[(Process, u8)] = match self {
            Self::One => &[(Process::All, 1)],
            Self::Many => {
                &[(Process::KeyDirectory, 1), (Process::Routing, 1), (Process::MediaRelay, 1), (Process::Edge, 1)]
            }
            Self::Replicas | Self::ReplicasApart | Self::ReplicasSecured => {
                &[(Process::KeyDirectory, 2), (Process::Routing, 3), (Process::MediaRelay, 2), (Process::Edge, 2)]
            }
        };
        counts.iter().flat_map(|(process, count)| (1..=*count).map(|number| process.replica(number))).collect()
    }

    /// Whether it needs PostgreSQL and Redis.
    pub(super) fn has_stores(self) -> bool {
        matches!(self, Self::Replicas | Self::ReplicasApart | Self::ReplicasSecured)
    }

    /// Whether its services speak over mutual TLS.
    pub(super) fn has_tls(self) -> bool {
        self == Self::ReplicasSecured
    }
}

impl Process {
    /// One of several, from 1.
    pub fn replica(self, number: u8) -> Replica {
        Replica { process: self, number }
    }

    pub(super) fn subcommand(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::KeyDirectory => "key-directory",
            Self::Routing => "routing",
            Self::MediaRelay => "media-relay",
            Self::Edge => "edge",
        }
    }
}

/// The first, or only, one.
impl From<Process> for Replica {
    fn from(process: Process) -> Self {
        process.replica(1)
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.process.subcommand(), self.number)
    }
}
