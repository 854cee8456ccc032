//! Whether something takes connections at every address that a configuration file names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::finding::{Check, Findings};
use crate::chat::clean;
use crate::fleet::{Fleet, Listed, Scope, Seen};

/// Addresses that are tried at a time.
const AT_ONCE: usize = 32;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 64;

pub(super) async fn check(fleet: &Fleet, seen: &[Seen], findings: &mut Findings) {
    let mut right = true;
    let mut wanted = BTreeMap::<(String, u16), Vec<(String, Listed)>>::new();
    for config in fleet.configs() {
        let file = clean(&config.name());
        let place = config.health_target().map(|target| target.to_string());
        let process =
            seen.iter().find(|seen| place.as_ref().is_some_and(|place| *place == format!("http://{}", seen.place)));
        let service = process.map_or("", Seen::service);
        let scope = match service {
            "edge" | "routing" | "key-directory" | "media-relay" | "all" => Scope::Of(service),
            _ => {
                let why = match place {
                    Some(_) => "its process did not say what it is",
                    None => "without server.health_listen nobody can say whose it is",
                };
                findings.note(Check::Addresses, format!("{file}: {why}, so where it listens is not checked"));
                Scope::Unknown
            }
        };
        let (found, wrong) = config.addresses(scope);
        for field in wrong {
            right = false;
            let says = format!("{file}: {field} holds what is no address");
            findings.problem(Check::Addresses, says, "correct it: http://host:port, dns+http://name:port or host:port");
        }
        for listed in found {
            wanted.entry((listed.host.clone(), listed.port)).or_default().push((file.clone(), listed));
        }
    }
    let (patience, all) = (fleet.patience(), wanted.len());
    let mut waiting = wanted.into_iter();
    let mut trying = JoinSet::new();
    let mut failed = BTreeMap::new();
    loop {
        while trying.len() < AT_ONCE {
            let Some(((host, port), users)) = waiting.next() else { break };
            trying.spawn(async move { (reach(&host, port, patience).await, users) });
        }
        match trying.join_next().await {
            None => break,
            Some(Ok((Err(problem), users))) => {
                failed.extend(users.into_iter().map(|(file, listed)| {
                    ((file, listed.field.clone(), listed.text.clone()), (listed, problem.clone()))
                }));
            }
            Some(Ok((Ok(()), _)) | Err(_)) => {}
        }
    }
    right &= failed.is_empty() && all > 0;
    for ((file, field, text), (listed, problem)) in failed {
        let act = match listed.own {
            true => "see in the log whether the process could listen there, and which settings it really has",
            false => "start what should listen there, let the network through, or correct the address",
        };
        findings.problem(Check::Addresses, format!("{file}: {field} {}: {problem}", clean(&text)), act);
    }
    if right {
        findings.fine(Check::Addresses, format!("all {all} addresses of the files take connections"));
    }
}

/// Each address of the host must take a connection.
async fn reach(host: &str, port: u16, patience: Duration) -> Result<(), String> {
    let looked_up = tokio::time::timeout(patience, lookup_host(format!("{host}:{port}"))).await;
    let found: Vec<SocketAddr> = match looked_up {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
        Ok(Err(_)) => return Err("the name has no address".to_owned()),
        Err(_elapsed) => return Err("the name is not looked up in time".to_owned()),
    };
    // One machine may have both kinds of address and listen on one of them.
    let mut problem = Err("the name has no address".to_owned());
    let local = found.iter().all(|address| address.ip().is_loopback());
    for address in found {
        problem = match tokio::time::timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(_)) if local => return Ok(()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{address} takes no connection: {}", error.kind())),
            Err(_elapsed) => Err(format!("{address} does not answer")),
        };
        if problem.is_err() && !local {
            return problem;
        }
    }
    problem
}
