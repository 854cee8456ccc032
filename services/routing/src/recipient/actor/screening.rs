//! Messages that come while another one waits for the directory, or for the account to be this replica's.
//!
//! Only who is let in may notice that wait: from the time that an answer takes, nobody else is to learn that there is an
//! account to wait for. So what the records do not permit is refused at once, whoever owns the account; the others wait
//! in their order.

use std::sync::Arc;

use futures::FutureExt as _;

use super::{Actor, Finished, Step};
use crate::recipient::Job;
use crate::rules;

/// What is known of a message that waits.
enum Screened {
    Answered,
    Permitted(Box<Job>),
    /// Records are missing.
    Unknown(Box<Job>),
}

impl Actor {
    /// A message has come.
    pub(super) fn take(&mut self, job: Box<Job>) {
        if self.waiting.is_empty() && !self.is_settling() {
            self.waiting.push_back(Step::Message(job));
            return;
        }
        match self.screen(job) {
            Screened::Answered => {}
            Screened::Permitted(job) => self.waiting.push_back(Step::Message(job)),
            Screened::Unknown(job) => {
                let (records, address) = (self.shared.records.clone(), self.address.clone());
                let (sender, since, epoch) = (job.submission.from.address.clone(), job.reply.since, self.epoch);
                self.waiting.push_back(Step::Message(job));
                let looked_up = async move { drop(records.fetch(&address, &sender, since).await) };
                self.read(looked_up.map(move |()| (epoch, Finished::LookedUp)));
            }
        }
    }

    /// More may be known of those that wait.
    pub(super) fn screen_waiting(&mut self) {
        let begun = usize::from(self.need.is_some()).min(self.waiting.len());
        for step in self.waiting.split_off(begun) {
            let kept = match step {
                Step::Message(job) => match self.screen(job) {
                    Screened::Answered => continue,
                    Screened::Permitted(job) | Screened::Unknown(job) => Step::Message(job),
                },
                step => step,
            };
            self.waiting.push_back(kept);
        }
    }

    fn screen(&mut self, job: Box<Job>) -> Screened {
        let Some(job) = self.answer_early(job) else { return Screened::Answered };
        let shared = Arc::clone(&self.shared);
        let vouched = shared.records.vouched();
        let Some((recipient, sender)) = vouched.as_ref().and_then(|vouched| self.find_both(vouched, &job)) else {
            return Screened::Unknown(job);
        };
        let permitted = match (&recipient, &sender) {
            (Some(recipient), Some(sender)) => rules::permits(recipient, sender, &job.submission.from),
            _ => false,
        };
        if permitted {
            return Screened::Permitted(job);
        }
        self.decide(job, &recipient, &sender);
        Screened::Answered
    }
}
