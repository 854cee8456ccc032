//! The loop.

use std::time::Duration;

use causeway_stanza::{FromServer, Notification};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Command, Engine, FIRST_WINDOW, Session};
use crate::clock;
use crate::event::{Connected, Disconnected, Ended, EventKind};
use crate::link::{Link, LinkEvent, Up};
use crate::signal::SignalError;
use crate::store::{Change, Prune};

/// Commands and stanzas taken in one turn: they share a commit.
const BATCH: usize = 64;
/// Old things are thrown away, and keys looked after, this often.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// Short-lived messages are looked at this often.
const SHORT_TICK: Duration = Duration::from_secs(1);

/// Why the loop is left.
enum Stop {
    Ended(Ended),
    Failed(SignalError),
}

impl From<SignalError> for Stop {
    fn from(error: SignalError) -> Self {
        Self::Failed(error)
    }
}

impl Engine {
    /// Runs until the application leaves, or nothing more can be done.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut link: Link) {
        let ended = match self.turns(&mut commands, &mut link).await {
            Ok(never) => match never {},
            Err(Stop::Ended(ended)) => ended,
            Err(Stop::Failed(error)) => {
                tracing::error!(%error, "the local store failed");
                Ended::Store
            }
        };
        self.status.send_modify(|status| {
            status.connected = false;
            status.ended = Some(ended);
        });
        self.queue.pass(EventKind::Ended(ended));
        let Link { outgoing, events, task } = link;
        drop((outgoing, events));
        if ended == Ended::Shutdown {
            // The goodbye has a deadline of its own.
            let _ = task.await;
        }
        drop(self);
        // Last: whoever shuts the client down waits for this.
        drop(commands);
    }

    async fn turns(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        link: &mut Link,
    ) -> Result<std::convert::Infallible, Stop> {
        let mut asked = Vec::with_capacity(BATCH);
        let mut happened = Vec::with_capacity(BATCH);
        self.finish_turn().await?; // Shows what waits in the inbox.
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                count = commands.recv_many(&mut asked, BATCH) => if count == 0 {
                    return Err(Stop::Ended(Ended::Shutdown));
                },
                count = link.events.recv_many(&mut happened, BATCH) => if count == 0 {
                    return Err(Stop::Ended(Ended::Shutdown));
                },
                permit = link.outgoing.reserve(), if !self.to_link.is_empty() => {
                    if let Ok(permit) = permit {
                        self.fill(permit, link);
                    }
                    continue;
                }
                () = self.queue.drained() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.take_more(commands, &mut asked, link, &mut happened);
            let mut stop = None;
            for event in happened.drain(..) {
                if let Some(ended) = self.happened(event).await? {
                    stop = Some(ended);
                }
            }
            for command in asked.drain(..) {
                if matches!(command, Command::Shutdown) {
                    stop = Some(Ended::Shutdown);
                } else {
                    self.asked(command).await?;
                }
            }
            self.deadlines().await?;
            self.receive_deferred().await?;
            self.pump().await?;
            self.finish_turn().await?;
            if let Some(ended) = stop {
                return Err(Stop::Ended(ended));
            }
            // Reads what was just committed.
            self.publish_keys().await?;
            self.finish_turn().await?;
            while !self.to_link.is_empty()
                && let Ok(permit) = link.outgoing.try_reserve()
            {
                self.fill(permit, link);
            }
        }
    }

    /// What else is there already takes part in this turn.
    fn take_more(
        &self,
        commands: &mut mpsc::Receiver<Command>,
        asked: &mut Vec<Command>,
        link: &mut Link,
        happened: &mut Vec<LinkEvent>,
    ) {
        while asked.len() < BATCH
            && let Ok(command) = commands.try_recv()
        {
            asked.push(command);
        }
        while happened.len() < BATCH
            && let Ok(event) = link.events.try_recv()
        {
            happened.push(event);
        }
    }

    fn fill(&mut self, permit: mpsc::Permit<'_, (u64, causeway_stanza::FromClient)>, _: &Link) {
        if let Some(session) = &self.session
            && let Some(stanza) = self.to_link.pop_front()
        {
            permit.send((session.generation, stanza));
        }
    }

    async fn happened(&mut self, event: LinkEvent) -> Result<Option<Ended>, SignalError> {
        match event {
            LinkEvent::Up(up) => self.up(*up).await?,
            LinkEvent::Stanza(stanza) => return self.stanza(*stanza).await,
            LinkEvent::FreshToken(token) => self.refresh_token(token),
            LinkEvent::Down(down) => self.down(down),
            LinkEvent::Ended(ended) => {
                self.session = None;
                if ended == Ended::Withdrawn {
                    self.withdrawn();
                }
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    async fn up(&mut self, up: Up) -> Result<(), SignalError> {
        self.outbox.ground();
        self.drop_own_requests();
        self.deferred.clear();
        self.to_link.clear();
        let (generation, max_record) = (up.generation, up.max_record);
        self.session = Some(Session { generation, max_record, window: FIRST_WINDOW, stalled: false });
        if self.device.server_key != Some(*up.server_key.as_bytes()) {
            self.device.server_key = Some(*up.server_key.as_bytes());
            self.turn.changes.push(Change::PutDevice(Box::new(self.device.clone())));
        }
        self.turn.passes.push(EventKind::Connected(Connected {
            enlisted: up.success.enlisted.is_some(),
            waiting: up.success.waiting,
            clock_ahead_ms: up.clock_ahead_ms,
            resumed: up.resumed,
        }));
        let status = self.status.clone();
        self.turn.reply(move || status.send_modify(|status| status.connected = true));
        self.ask_again();
        self.check_keys(&up.success).await
    }

    fn down(&mut self, down: Disconnected) {
        self.session = None;
        self.to_link.clear();
        self.turn.sends.clear();
        self.turn.processed = None;
        self.deferred.clear();
        self.outbox.ground();
        self.drop_own_requests();
        self.status.send_modify(|status| status.connected = false);
        self.turn.passes.push(EventKind::Disconnected(down));
    }

    async fn stanza(&mut self, stanza: FromServer) -> Result<Option<Ended>, SignalError> {
        match stanza {
            FromServer::Message(delivery) => self.delivery(delivery).await?,
            FromServer::Ack(outcome) => self.outcome(outcome).await?,
            FromServer::Iq(response) => return self.response(response).await,
            FromServer::Notification(notification) => self.notified(notification),
            // The link keeps these to itself.
            FromServer::Success(_)
            | FromServer::Failure(_)
            | FromServer::Ping(_)
            | FromServer::Pong(_)
            | FromServer::End(_) => {}
        }
        Ok(None)
    }

    fn notified(&mut self, notification: Notification) {
        match notification {
            Notification::PrekeysLow(_) => self.count_keys(),
            Notification::DevicesChanged(address) => {
                if address == self.config.address {
                    self.refresh_own_devices();
                }
                self.turn.passes.push(EventKind::DevicesChanged { address });
            }
            Notification::ConsentChanged => self.turn.passes.push(EventKind::ConsentChanged),
            Notification::ContactRequest(from) => self.turn.passes.push(EventKind::ContactRequest { from }),
        }
    }

    async fn asked(&mut self, command: Command) -> Result<(), SignalError> {
        match command {
            Command::Enlist { reply } => self.enlist(reply).await?,
            Command::Withdraw { reply } => self.withdraw(reply),
            Command::Send { to, content, reply } => self.send(to, &content, reply),
            Command::WaitOutcome { id, reply } => self.await_outcome(id, reply).await?,
            Command::Outcome { id, reply } => self.tell_outcome(id, reply).await?,
            Command::Request { body, reply } => self.request(*body, reply),
            Command::Done { seq, reply } => {
                if self.shown_open.remove(&seq) {
                    self.inbox_len = self.inbox_len.saturating_sub(1);
                    self.turn.changes.push(Change::DoneInbox(seq));
                }
                self.turn.reply(|| drop(reply.send(Ok(()))));
            }
            // Taken out before.
            Command::Shutdown => {}
        }
        Ok(())
    }

    fn next_deadline(&self) -> Instant {
        let short = self.outbox.has_short_lived().then(|| Instant::now() + SHORT_TICK);
        let soonest = [self.outbox.next_deadline(), self.requests.next_deadline(), short];
        soonest.into_iter().flatten().fold(self.housekeeping, Instant::min)
    }

    async fn deadlines(&mut self) -> Result<(), SignalError> {
        let now = Instant::now();
        self.fail_overdue(now).await?;
        self.outbox.relaunch_overdue(now);
        let housekeeping = self.housekeeping <= now;
        if housekeeping || self.outbox.has_short_lived() {
            self.expire(housekeeping).await?;
        }
        if housekeeping {
            self.housekeeping = now + HOUSEKEEPING;
            let (timing, bounds) = (&self.config.timing, &self.config.bounds);
            self.turn.changes.push(Change::Prune(Prune {
                now_ms: clock::ms(self.clock.now()),
                prekeys: timing.prekey_retention,
                one_time_count: bounds.one_time_prekeys,
                sent: timing.sent_retention,
                sent_count: bounds.sent,
                seen: timing.dedup_retention,
                seen_count: bounds.dedup,
            }));
            self.rotate_keys().await?;
        }
        Ok(())
    }

    /// Now, Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        clock::ms(self.clock.now())
    }
}
