//! The actor of one recipient address: everything about who gets what is decided here, in order of arrival.
//!
//! [`machine`] holds the rules without I/O; [`actor`] feeds it and carries out what it says, as long as this replica owns
//! the account; [`window`] is what a session has been given and has not acknowledged; [`outcomes`] is what repeats are
//! told.

pub(crate) mod actor;
mod device;
mod few;
mod inbox;
mod machine;
mod outcomes;
mod planted;
#[cfg(test)]
mod simulation;
mod window;

use std::convert::Infallible;
use std::sync::Arc;

use causeway_identity::AccountId;
use causeway_runtime::telemetry::trace::Step;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::mailbox::StoreError;
use crate::message::{AsWritten, Submission};
use crate::records::Change;
use crate::session::{Session, SessionKey};

pub(crate) use inbox::Inbox;
pub(crate) use machine::Now;

/// A submitted message on its way to the actor of its recipient.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) submission: Submission,
    pub(crate) reply: ReplyTo,
}

/// Whom to tell what became of a message.
#[derive(Debug, Clone)]
pub(crate) struct ReplyTo {
    pub(crate) session: Arc<Session>,
    /// The recipient's address as the sender wrote it.
    pub(crate) to: AsWritten,
    /// When the message came in: what is asked of the directory for it is asked later than that, and answered soon
    /// after; a refusal leaves at a fixed time after it.
    pub(crate) since: Instant,
    /// Of the session's messages to this recipient; rises when the edge has heard of a refusal.
    pub(crate) generation: u32,
    /// Ends when the message has been answered.
    pub(crate) step: Option<Box<Step>>,
}

/// What an actor is told beside messages. There is at most one of each kind under way per session, change or peer, so
/// the queue needs no bound.
#[derive(Debug)]
pub(crate) enum Control {
    /// A device of this address is here.
    Attach(Arc<Session>),
    /// A session has acknowledged something, or has left.
    Signal(SessionKey),
    /// The directory's record changed.
    Changed(Change),
    /// Another replica wants this account: what is under way is to settle, then it is released.
    Release(AccountId, oneshot::Sender<Result<(), StoreError>>),
    /// This replica has another id: its lease had ended.
    Renamed,
    /// Take nothing more, write what is not acknowledged, and drop this once every outcome has been told.
    Finish(mpsc::Sender<Infallible>),
    /// Tell all sessions to attach elsewhere, and end.
    Leave,
}
