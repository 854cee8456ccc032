//! Refusals leave at a fixed pace: how long an answer takes must not tell a stranger whether an address is unknown or
//! only closed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_identity::MessageId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::message::{Outcome, Rejection};
use crate::recipient::ReplyTo;

/// Refusals that wait at a time, some 500 bytes each. More are answered at once, with `rate-limited`.
const MAX_WAITING: usize = 16_384;

/// Answers that wait for their time.
#[derive(Debug)]
pub(crate) struct Pace {
    delay: Duration,
    retry_ms: u64,
    limit: usize,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By time, then by order of decision.
    answers: BTreeMap<(Instant, u64), Refusal>,
    last: u64,
}

#[derive(Debug)]
struct Refusal {
    reply: ReplyTo,
    id: MessageId,
    rejection: Rejection,
}

impl Refusal {
    fn tell(self) {
        self.reply.session.answer(Outcome::Rejected(self.rejection), self.id, self.reply.to);
    }
}

impl Pace {
    /// Answers leave `delay` after their messages came in; those for which there is no room are told to come again
    /// after `retry_ms`.
    pub(crate) fn new(delay: Duration, retry_ms: u64) -> Self {
        Self { delay, retry_ms, limit: MAX_WAITING, waiting: Mutex::default(), changed: Notify::new() }
    }

    /// Refuses a message when its time has come, without holding up anything.
    pub(crate) fn refuse(&self, reply: ReplyTo, id: MessageId, rejection: Rejection) {
        let refusal = Refusal { reply, id, rejection };
        let Some(due) = self.due(refusal.reply.since, Instant::now()) else {
            refusal.tell();
            return;
        };
        let mut waiting = self.waiting();
        if waiting.answers.len() >= self.limit {
            drop(waiting);
            Refusal { rejection: Rejection::RateLimited { retry_after_ms: self.retry_ms }, ..refusal }.tell();
            return;
        }
        waiting.last += 1;
        let place = (due, waiting.last);
        waiting.answers.insert(place, refusal);
        let is_first = waiting.answers.first_key_value().is_some_and(|(first, _)| *first == place);
        drop(waiting);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// When an answer leaves. One that is late, since the directory was slow, waits for the next beat: even then it does
    /// not tell how slow.
    fn due(&self, since: Instant, now: Instant) -> Option<Instant> {
        let beat = self.delay.as_nanos();
        let beats = now.saturating_duration_since(since).as_nanos().checked_div(beat)? + 1;
        Some(since + self.delay.saturating_mul(u32::try_from(beats).unwrap_or(u32::MAX)))
    }

    /// Tells what is due, until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        loop {
            let next = self.release(Instant::now());
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.changed.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tells everything now: sessions are about to end.
    pub(crate) fn flush(&self) {
        let all = std::mem::take(&mut self.waiting().answers);
        all.into_values().for_each(Refusal::tell);
    }

    /// Tells what is due by `now`; when the next is.
    fn release(&self, now: Instant) -> Option<Instant> {
        let mut waiting = self.waiting();
        let later = waiting.answers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut waiting.answers, later);
        let next = waiting.answers.first_key_value().map(|((next, _), _)| *next);
        drop(waiting);
        due.into_values().for_each(Refusal::tell);
        next
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use causeway_identity::{AccountId, DeviceId, SessionId};
    use causeway_proto::routing::v1::routing_event::Event;
    use causeway_proto::wire::v1 as wire;
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::message::{AsWritten, Sender};
    use crate::metrics::Metrics;
    use crate::outbox::{Outbox, OutboxStream};
    use crate::session::{Session, SessionKey, Voice};

    fn session() -> (Arc<Session>, OutboxStream) {
        let outbox = Outbox::new(1 << 20, String::new(), None);
        let device = Sender {
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::new(1).unwrap(),
            address: "ada@birdy.example".parse().unwrap(),
            provider: "birdy.example".parse().unwrap(),
        };
        let stream = outbox.stream();
        let voice = Voice::new(SessionId::from_bytes([1; 16]), device, outbox, Metrics::new());
        (Session::new(SessionKey(1), voice, 101, 0, None), stream)
    }

    fn refuse(pace: &Pace, session: &Arc<Session>, since: Instant, n: u8) {
        let reply = ReplyTo {
            session: Arc::clone(session),
            to: AsWritten("bo@home.example".to_owned()),
            since,
            generation: 0,
            step: None,
        };
        pace.refuse(reply, MessageId::from_bytes([n; 16]), Rejection::NotAvailable);
    }

    /// Message and reason of what has been told.
    fn told(stream: &mut OutboxStream) -> Vec<(u8, wire::Rejection)> {
        let Some(Some(Ok(batch))) = stream.next().now_or_never() else { return Vec::new() };
        let told = batch.events.into_iter().filter_map(|event| match event.event {
            Some(Event::Outcome(outcome)) => Some((outcome.id[0], outcome.reason())),
            _ => None,
        });
        told.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_leave_in_the_order_and_at_the_distance_in_which_they_came() {
        let pace = Arc::new(Pace::new(Duration::from_millis(20), 100));
        let stop = CancellationToken::new();
        let (for_task, stopped) = (Arc::clone(&pace), stop.clone());
        let running = tokio::spawn(async move { for_task.run(&stopped).await });
        let (session, mut stream) = session();
        let start = Instant::now();
        // The second was decided last, the fourth so late that it takes another beat.
        for (n, after) in [(1, 0), (3, 7), (2, 5)] {
            refuse(&pace, &session, start + Duration::from_millis(after), n);
        }
        tokio::time::sleep_until(start + Duration::from_millis(19)).await;
        assert_eq!(told(&mut stream), []);
        refuse(&pace, &session, start - Duration::from_millis(3), 4);
        tokio::time::sleep_until(start + Duration::from_millis(24)).await;
        assert_eq!(told(&mut stream), [(1, wire::Rejection::NotAvailable)]);
        tokio::time::sleep_until(start + Duration::from_millis(36)).await;
        let others: Vec<u8> = told(&mut stream).into_iter().map(|(n, _)| n).collect();
        assert_eq!(others, [2, 3]);
        tokio::time::sleep_until(start + Duration::from_millis(38)).await;
        assert_eq!(told(&mut stream), [(4, wire::Rejection::NotAvailable)]);
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn when_too_many_wait_the_others_are_told_to_come_again() {
        let pace = Pace { limit: 2, ..Pace::new(Duration::from_millis(20), 100) };
        let (session, mut stream) = session();
        for n in 1..=3 {
            refuse(&pace, &session, Instant::now(), n);
        }
        assert_eq!(told(&mut stream), [(3, wire::Rejection::RateLimited)]);
        pace.flush();
        assert_eq!(told(&mut stream), [(1, wire::Rejection::NotAvailable), (2, wire::Rejection::NotAvailable)]);
        let at_once = Pace::new(Duration::ZERO, 100);
        refuse(&at_once, &session, Instant::now(), 4);
        assert_eq!(told(&mut stream), [(4, wire::Rejection::NotAvailable)]);
    }
}
