//! One bounded HTTP request: no redirects, no proxies, so many bytes and so much time.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use causeway_runtime::clock::{Clock as _, SystemClock};
use reqwest::header::DATE;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

/// A `Date` header tells whole seconds.
const SECOND_MS: i64 = 1_000;

/// Asks processes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Getter {
    client: Client,
    patience: Duration,
}

/// What came, and when.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    /// In milliseconds since the Unix epoch, from the `Date` header.
    date: Option<u64>,
    asked: u64,
    answered: u64,
}

/// How far another clock is ahead of this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    /// Milliseconds; negative: it is behind.
    pub(crate) ms: i64,
    /// It may be this much more or less.
    pub(crate) give_or_take_ms: i64,
}

impl Getter {
    pub(super) fn new(patience: Duration) -> anyhow::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("causewayctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("HTTP cannot be set up")?;
        Ok(Self { client, patience })
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Fetches a body of at most `most` bytes; the error says what is wrong, after the name of a process.
    pub(super) async fn get(&self, url: &str, most: usize) -> Result<Answer, String> {
        let within = tokio::time::timeout(self.patience, self.get_patiently(url, most)).await;
        within.unwrap_or_else(|_elapsed| Err(format!("does not answer within {} ms", self.patience.as_millis())))
    }

    async fn get_patiently(&self, url: &str, most: usize) -> Result<Answer, String> {
        let asked = SystemClock.now_ms();
        let mut response = self.client.get(url).send().await.map_err(|error| explain(&error))?;
        let answered = SystemClock.now_ms();
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!(
                "answers with HTTP status {}: is it server.health_listen?",
                response.status().as_u16()
            ));
        }
        let date = date(&response);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? {
            if body.len() + chunk.len() > most {
                return Err(format!("answers with more than {most} bytes: is it server.health_listen?"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { body, date, asked, answered })
    }
}

fn date(response: &Response) -> Option<u64> {
    let date = httpdate::parse_http_date(response.headers().get(DATE)?.to_str().ok()?).ok()?;
    ms(date)
}

fn ms(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

impl Answer {
    /// How far its clock is ahead, by the time that it told, or by the `Date` header.
    pub(super) fn offset(&self, told: Option<u64>) -> Option<Offset> {
        let signed = |ms: u64| i64::try_from(ms).ok();
        let (asked, answered) = (signed(self.asked)?, signed(self.answered)?);
        let (there, coarse) = match told {
            Some(told) => (signed(told)?, 0),
            // It was cut to the second before.
            None => (signed(self.date?)?.checked_add(SECOND_MS / 2)?, SECOND_MS / 2),
        };
        let here = asked.checked_add(answered.checked_sub(asked)? / 2)?;
        let give_or_take_ms = (answered - asked).abs() / 2 + coarse + 1;
        Some(Offset { ms: there.checked_sub(here)?, give_or_take_ms })
    }
}

impl Offset {
    /// Whether it is surely more than this.
    pub(crate) fn exceeds(self, tolerance_ms: u64) -> bool {
        self.ms.unsigned_abs().saturating_sub(self.give_or_take_ms.unsigned_abs()) > tolerance_ms
    }
}

/// What a person calls it.
fn explain(error: &reqwest::Error) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return "refuses connections: is the process running?".to_owned(),
                io::ErrorKind::ConnectionReset => return "closed the connection".to_owned(),
                _ => {}
            }
        }
        cause = inner.source();
    }
    match error.is_connect() {
        true => "cannot be connected to: is the address right?".to_owned(),
        false => "does not answer in HTTP: is it server.health_listen?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A listener that answers every connection with this, and leaves it open if told so.
    async fn says(bytes: Vec<u8>, open: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _asked = stream.read(&mut [0; 1_024]).await;
                let _gone = stream.write_all(&bytes).await;
                if open {
                    kept.push(stream);
                }
            }
        });
        format!("http://{address}/health")
    }

    #[tokio::test]
    async fn hostile_listeners_cost_bounded_time_and_memory() {
        let getter = Getter::new(Duration::from_millis(300)).unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
        let endless = [&head[..], &vec![b'x'; 1_000_000]].concat();
        for (bytes, open, problem) in [
            (Vec::new(), true, "does not answer within 300 ms"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec(), true, "does not answer within 300 ms"),
            (endless, true, "more than 1000 bytes"),
            (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), false, "does not answer in HTTP"),
            (vec![0xff; 100_000], false, "does not answer in HTTP"),
            (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(), true, "302"),
            (Vec::new(), false, "does not answer in HTTP"),
        ] {
            let error = getter.get(&says(bytes, open).await, 1_000).await.unwrap_err();
            assert!(error.contains(problem), "{problem}: {error}");
        }
        let error = getter.get("http://127.0.0.1:1/health", 1_000).await.unwrap_err();
        assert!(error.contains("refuses connections"), "{error}");
    }

    #[test]
    fn a_clock_is_off_only_if_that_is_sure() {
        let answer = Answer { body: Vec::new(), date: Some(8_000), asked: 10_000, answered: 10_400 };
        let offset = answer.offset(Some(15_200)).unwrap();
        assert_eq!(offset, Offset { ms: 5_000, give_or_take_ms: 201 });
        assert!(offset.exceeds(4_000) && !offset.exceeds(4_900));
        assert_eq!(answer.offset(None), Some(Offset { ms: -1_700, give_or_take_ms: 701 }));
        assert_eq!(answer.offset(Some(u64::MAX)), None);
        let far = answer.offset(Some(i64::MAX.unsigned_abs())).unwrap();
        assert!(far.exceeds(1));
    }
}
