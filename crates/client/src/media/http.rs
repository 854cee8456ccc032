//! What uploads and downloads share of HTTP.

use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::Instant;
use url::{Host, Url};

use super::MediaBounds;
use super::error::MediaError;

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another attempt may succeed.
    Again(&'static str),
    /// Another attempt needs another ticket.
    Ticket,
    /// No other attempt will do better.
    Finally(MediaError),
}

impl From<MediaError> for Failed {
    fn from(error: MediaError) -> Self {
        Self::Finally(error)
    }
}

impl Failed {
    /// What a status that is no success means.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            403 => Self::Ticket,
            408 | 425 | 429 | 500 | 502..=504 => Self::Again("the media server cannot serve now"),
            _ => Self::Finally(MediaError::Refused(status)),
        }
    }
}

/// Counts attempts that brought nothing new, and pauses between them.
#[derive(Debug)]
pub(super) struct Attempts {
    bounds: MediaBounds,
    deadline: Instant,
    in_a_row: u32,
}

impl Attempts {
    pub(super) fn new(bounds: MediaBounds) -> Self {
        Self { bounds, deadline: Instant::now() + bounds.total_timeout, in_a_row: 0 }
    }

    /// When the whole must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Something new came.
    pub(super) fn progressed(&mut self) {
        self.in_a_row = 0;
    }

    /// Pauses before the next attempt.
    ///
    /// # Errors
    /// [`MediaError::GivenUp`] when there is none.
    pub(super) async fn pause(&mut self, reason: &'static str) -> Result<(), MediaError> {
        self.in_a_row += 1;
        if self.in_a_row >= self.bounds.attempts {
            return Err(MediaError::GivenUp(reason));
        }
        let pause = self.bounds.pause.saturating_mul(1 << (self.in_a_row - 1).min(6));
        if Instant::now() + pause >= self.deadline {
            return Err(MediaError::Timeout);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A client that follows no redirects: a ticket goes to the server that it is for and nowhere else.
pub(super) fn client(bounds: &MediaBounds) -> Result<Client, MediaError> {
    let builder = || {
        Client::builder()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(Duration::from_secs(10).min(bounds.idle_timeout))
            .read_timeout(bounds.idle_timeout)
    };
    // A machine without CA certificates can still use http on loopback; https fails there when it is used.
    builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(|_| MediaError::Setup)
}

/// The URL, if what goes there is protected on its way: `https`, or `http` that does not leave this machine.
pub(super) fn protected(text: &str) -> Result<Url, MediaError> {
    let url = Url::parse(text).map_err(|_| MediaError::Url)?;
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        _ => Err(MediaError::Url),
    }
}

/// `Causeway <ticket>`.
pub(super) fn authorization(ticket: &str) -> Result<HeaderValue, MediaError> {
    let mut value =
        HeaderValue::try_from(format!("Causeway {ticket}")).map_err(|_| MediaError::Provider("not a ticket"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A body of at most `max` bytes; `None` for a longer or broken one.
pub(super) async fn small_body(mut answer: Response, max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if bytes.len() + chunk.len() > max {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_go_over_protected_ways_only() {
        for good in ["https://x.example/a", "http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/"] {
            assert!(protected(good).is_ok(), "{good}");
        }
        for bad in ["http://x.example/", "http://10.0.0.1/", "ftp://127.0.0.1/", "file:///x", "", "x"] {
            assert!(protected(bad).is_err(), "{bad}");
        }
    }
}
