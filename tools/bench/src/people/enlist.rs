//! New devices join the network, and their users open it to everybody.

use std::num::NonZeroU64;

use anyhow::{bail, ensure};
use causeway_identity::DeviceId;
use causeway_stanza::{
    ConsentSettings, Encoding, FromClient, FromServer, InboxSetting, List, Reach, Request, RequestBody, ResponseBody,
    encode_client,
};

use super::{Device, Keys};
use crate::engine::{Desk, Ended, Engine, Next, Pattern, Player, Seen};
use crate::measure::clock;
use crate::wire::causeway::{Causeway, Net};

/// Enlistments at a time.
const AT_A_TIME: usize = 48;
/// How often one is tried.
const ATTEMPTS: u32 = 5;
/// All of it is given up if nothing moves for so long.
const PATIENCE: u64 = 30 * clock::SECOND;
/// How often it is looked whether something moves.
const LOOK: u64 = 500 * clock::MS;

/// Enlists all of them. The server's key is known afterwards.
pub(crate) fn enlist(net: &mut Net, devices: &mut [Device], keys: &Keys) -> anyhow::Result<()> {
    let logins = devices.iter().map(Device::login).collect::<anyhow::Result<Vec<_>>>()?;
    let request = |body| encode_client(Encoding::Binary, FromClient::Iq(Request { id: NonZeroU64::MIN, body }));
    let consent = ConsentSettings {
        interop: true,
        providers: List::new(),
        inbox: InboxSetting::Combined,
        reach: Reach::Everyone,
    };
    let player = Enlisting {
        enlists: [false, true].map(|supplied| request(RequestBody::Enlist(keys.enlist(supplied)))),
        consent: request(RequestBody::ConsentSet(consent)),
        new: devices
            .iter()
            .map(|device| New { first: device.first, supplied: device.supplied, ..New::default() })
            .collect(),
        next: 0,
        open: 0,
        done: 0,
        moved: clock::now(),
        failed: None,
        net: None,
    };
    let done = Engine::<Causeway, _>::new(net.clone(), logins, player)?.run()?;
    *net = done.net.unwrap_or_else(|| net.clone());
    for (device, id) in devices.iter_mut().zip(done.ids?) {
        device.id = Some(id);
    }
    Ok(())
}

struct Enlisting {
    /// The request without one-time keys, and with a full supply.
    enlists: [Vec<u8>; 2],
    consent: Vec<u8>,
    new: Vec<New>,
    /// The first that has not begun.
    next: usize,
    open: usize,
    done: usize,
    moved: u64,
    failed: Option<String>,
    /// What is known of the server in the end.
    net: Option<Net>,
}

#[derive(Default)]
struct New {
    first: bool,
    supplied: bool,
    id: Option<DeviceId>,
    attempts: u32,
    finished: bool,
}

struct Enlisted {
    ids: anyhow::Result<Vec<DeviceId>>,
    net: Option<Net>,
}

impl Player<Causeway> for Enlisting {
    type Done = Enlisted;

    fn opened(&mut self, desk: &mut Desk<Causeway>, who: usize, _waiting: Option<u64>) {
        let new = &self.new[who];
        if !desk.send(who, &self.enlists[usize::from(new.supplied)]) {
            self.failed = Some("an enlistment does not fit into the queue".to_owned());
        }
    }

    fn seen(&mut self, desk: &mut Desk<Causeway>, who: usize, seen: Seen<Box<FromServer>>) {
        let Seen::Other(stanza) = seen else { return };
        let FromServer::Iq(response) = *stanza else { return };
        self.moved = desk.now;
        let new = &mut self.new[who];
        match response.body {
            ResponseBody::Enlisted(enlisted) => {
                new.id = Some(enlisted.device);
                if new.first {
                    let _queued = desk.send(who, &self.consent);
                    return;
                }
            }
            ResponseBody::Consent(_) => {}
            other => {
                self.failed = Some(format!("enlistment: {other:?}"));
                return;
            }
        }
        new.finished = true;
        desk.leave(who);
    }

    fn closed(&mut self, desk: &mut Desk<Causeway>, who: usize, why: Ended) {
        self.moved = desk.now;
        let new = &mut self.new[who];
        if new.finished {
            self.open -= 1;
            self.done += 1;
            return;
        }
        new.attempts += 1;
        if new.attempts < ATTEMPTS {
            desk.open(who, Pattern::Xx);
        } else {
            self.failed = Some(format!("enlistment: {why:?}"));
        }
    }

    fn round(&mut self, desk: &mut Desk<Causeway>) -> Next {
        if desk.now > self.moved + PATIENCE {
            self.failed = Some("enlistment: nothing moves".to_owned());
        }
        if self.failed.is_some() || self.done == self.new.len() {
            self.net = Some(desk.net().clone());
            return Next::Done;
        }
        while self.open < AT_A_TIME && self.next < self.new.len() {
            // An account is there before its further devices come.
            if !self.new[self.next].first && self.next > 0 && !self.account_is_there() {
                break;
            }
            self.open += 1;
            self.next += 1;
            desk.open(self.next - 1, Pattern::Xx);
        }
        Next::At(desk.now + LOOK)
    }

    fn finish(mut self) -> Enlisted {
        let net = self.net.take();
        Enlisted { ids: self.ids(), net }
    }
}

impl Enlisting {
    /// Whether the first device of the next one's account is enlisted.
    fn account_is_there(&self) -> bool {
        self.new[..self.next].iter().rev().find(|new| new.first).is_some_and(|new| new.finished)
    }

    fn ids(self) -> anyhow::Result<Vec<DeviceId>> {
        if let Some(failed) = self.failed {
            bail!(failed);
        }
        let ids: Vec<_> = self.new.iter().filter_map(|new| new.id).collect();
        ensure!(ids.len() == self.new.len(), "some devices are not enlisted");
        Ok(ids)
    }
}
