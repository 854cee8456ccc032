//! The token in use, and when the next one is due.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{self, Clock};
use crate::token::{self, TokenSource};

/// The provider must answer within this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// A token that expires within this is not used to log in.
const MARGIN: Duration = Duration::from_secs(60);
/// Pause after a failure to get the next token in a running session.
const RETRY: Duration = Duration::from_secs(30);
/// A session asks at least this seldom.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// A token to log in with.
pub(super) struct Login {
    pub(super) token: String,
    /// Not used for a login before.
    pub(super) fresh: bool,
}

/// Keeps the token between connections: reconnecting needs no new one.
pub(super) struct Tokens {
    source: Arc<dyn TokenSource>,
    noise_public: [u8; 32],
    clock: Arc<dyn Clock>,
    current: Option<String>,
}

impl Tokens {
    pub(super) fn new(source: Arc<dyn TokenSource>, noise_public: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        Self { source, noise_public, clock, current: None }
    }

    /// The token for the next login.
    pub(super) async fn login(&mut self) -> Result<Login, String> {
        if let Some(token) = &self.current
            && self.left(token) > MARGIN
        {
            return Ok(Login { token: token.clone(), fresh: false });
        }
        let token = self.fetch().await?;
        self.current = Some(token.clone());
        Ok(Login { token, fresh: true })
    }

    /// The token was refused, or is of no use any more.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }

    /// Waits until the next token is due and gets it. Cancel-safe: what was not returned is fetched again.
    pub(super) async fn renewed(&mut self) -> String {
        let mut due = match &self.current {
            Some(token) => {
                let left = self.left(token);
                left.saturating_sub(MARGIN.max(left / 5)).max(LEAST_PAUSE)
            }
            None => LEAST_PAUSE,
        };
        loop {
            tokio::time::sleep(due).await;
            match self.fetch().await {
                Ok(token) => {
                    self.current = Some(token.clone());
                    return token;
                }
                Err(_) => due = RETRY,
            }
        }
    }

    async fn fetch(&self) -> Result<String, String> {
        match tokio::time::timeout(FETCH_TIMEOUT, self.source.token(self.noise_public)).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the provider did not answer in time".to_owned()),
        }
    }

    /// How long the token is still good; unreadable ones are for the server to judge.
    fn left(&self, token: &str) -> Duration {
        let now = clock::ms(self.clock.now()) / 1000;
        token::expires_s(token).map_or(Duration::from_secs(3600), |at| Duration::from_secs(at.saturating_sub(now)))
    }
}
