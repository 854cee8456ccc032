//! An alarm that is due to the microsecond: the time-out of epoll counts milliseconds.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::measure::clock::SECOND;

/// An alarm.
pub(super) struct Timer {
    descriptor: OwnedFd,
    /// When it rings, if it was set.
    set: Option<u64>,
}

impl Timer {
    /// One that tells this registry.
    pub(super) fn new(registry: &Registry, token: usize) -> anyhow::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags).context("timerfd")?;
        // Told at each ring, so nothing has to be read from it.
        registry.register(&mut SourceFd(&descriptor.as_raw_fd()), Token(token), Interest::READABLE)?;
        Ok(Self { descriptor, set: None })
    }

    /// Sets it. Gives how long to wait besides: not at all if that time has passed.
    pub(super) fn arm(&mut self, at: u64, now: u64) -> anyhow::Result<Option<Duration>> {
        if at <= now {
            return Ok(Some(Duration::ZERO));
        }
        if self.set != Some(at) {
            let wait = at - now;
            let value = Timespec {
                tv_sec: i64::try_from(wait / SECOND).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(wait % SECOND).unwrap_or(0),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once).context("timerfd")?;
            self.set = Some(at);
        }
        Ok(None)
    }

    /// It rang.
    pub(super) fn rang(&mut self) {
        self.set = None;
    }
}
