//! Ports that stay ours while nothing listens on them, so that a server can be started again on its own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::ServerError;

/// A port of 127.0.0.1 that no other test process on this machine takes while this value lives, also when nothing
/// listens on it. It is below the ports that the system gives to outgoing connections.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: File,
}

impl Port {
    /// Claims a free one.
    ///
    /// # Errors
    /// All are taken, or the folder of the claims cannot be written.
    pub fn claim() -> Result<Self, ServerError> {
        let folder = claims()?;
        // Processes begin at different places, so they seldom try the same.
        let begin = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let number = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
            let file = folder.join(number.to_string());
            let claim = OpenOptions::new().create(true).append(true).open(&file);
            let claim = claim.map_err(ServerError::io(file.display().to_string()))?;
            if claim.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _claim: claim });
            }
        }
        Err(ServerError::Answer(format!("no free port in {FIRST}..{}", FIRST + COUNT)))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// 127.0.0.1 and it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

fn claims() -> Result<PathBuf, ServerError> {
    let folder = std::env::temp_dir().join("causeway-ports");
    // For all users of the machine, like the folder that it is in.
    DirBuilder::new()
        .recursive(true)
        .mode(0o777)
        .create(&folder)
        .map_err(ServerError::io(folder.display().to_string()))?;
    Ok(folder)
}

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn claims_are_exclusive_and_end_with_their_value() {
        let ports: Vec<_> = (0..50).map(|_| Port::claim().unwrap()).collect();
        let numbers: BTreeSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 50);
        let file = claims().unwrap().join(ports[0].number().to_string());
        let other = OpenOptions::new().append(true).open(file).unwrap();
        assert!(other.try_lock().is_err());
        drop(ports);
        other.try_lock().unwrap();
    }
}
