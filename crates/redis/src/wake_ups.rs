//! Hints that something has changed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use redis::RedisResult;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::connect::Connector;
use crate::keeper::pause;

/// Listens to one channel. However many hints came since the last call, [`WakeUps::next`] tells of them once: nothing
/// piles up.
#[derive(Debug)]
pub struct WakeUps {
    came: Arc<Notify>,
    listener: AbortHandle,
}

impl WakeUps {
    pub(crate) fn start(connector: Arc<Connector>, channel: String, connect_timeout: Duration) -> Self {
        let came = Arc::new(Notify::new());
        let listener = Listener { connector, channel, connect_timeout, came: Arc::clone(&came) };
        Self { came, listener: tokio::spawn(listener.run()).abort_handle() }
    }

    /// Resolves when there may be something new: a hint came since the last call, or the channel is listened to from
    /// now on (again), so that hints may have been missed. May be dropped and called again without a loss.
    pub async fn next(&mut self) {
        self.came.notified().await;
    }
}

impl Drop for WakeUps {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

struct Listener {
    connector: Arc<Connector>,
    channel: String,
    connect_timeout: Duration,
    came: Arc<Notify>,
}

impl Listener {
    async fn run(self) {
        let (mut attempt, mut failures) = (0_usize, 0_u32);
        loop {
            match timeout(self.connect_timeout, self.subscribe(attempt)).await {
                Ok(Ok((sink, stream))) => {
                    failures = 0;
                    self.came.notify_one();
                    self.listen(sink, stream).await;
                }
                Ok(Err(_)) | Err(_) => failures = failures.saturating_add(1),
            }
            attempt = attempt.wrapping_add(1);
            sleep(pause(failures.max(1))).await;
        }
    }

    async fn subscribe(&self, attempt: usize) -> RedisResult<(PubSubSink, PubSubStream)> {
        let mut subscription = self.connector.subscriber(attempt).await?.get_async_pubsub().await?;
        subscription.subscribe(&self.channel).await?;
        Ok(subscription.split())
    }

    /// Returns when the connection is of no more use.
    async fn listen(&self, mut sink: PubSubSink, mut stream: PubSubStream) {
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(_) => self.came.notify_one(),
                    None => return,
                },
                () = sleep(PING_EACH) => {
                    // A server that stands still, or a path that swallows packets, shows by its silence only.
                    match timeout(self.connect_timeout, sink.ping::<redis::Value>()).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(_)) | Err(_) => return,
                    }
                }
            }
        }
    }
}

const PING_EACH: Duration = Duration::from_secs(1);
