//! Talks to the node that runs on a data folder.

use crate::blobs::UPLOAD_MS_MAX;
use crate::http::ApiFile;
use crate::{ApiError, CALL_MS_MAX, ErrorCode, within};
use distsoc_net::runtime::{self, TcpStream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, HOST, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use smol_hyper::rt::FuturesIo;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a node may take to say that it is there.
const PROBE_MS_MAX: u64 = 5_000;

/// How long an answer may take: longer than the node's own limit, whose error says more.
const ANSWER_MS_MAX: u64 = CALL_MS_MAX + 10_000;
/// Bytes of an upload that are handed over at once.
const PIECE_BYTES: usize = 64 * 1024;

/// How often an upload is tried where the node has too many under way: with five seconds between them, for three times as long as one
/// may take, so that those which hang have ended.
const ATTEMPTS_MAX: u32 = (3 * UPLOAD_MS_MAX / 5_000) as u32;
/// And how long is waited between two at most, whatever the node says.
const WAIT_S_MAX: u64 = 30;

/// A node is busy, and is asked again after a while. [`std::fmt::Display`] is the sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "waiting for one of the uploads that the node has under way, which it ends after {} s at most: trying again in {after_s} s, time {attempt} of {ATTEMPTS_MAX}",
    UPLOAD_MS_MAX / 1_000
)]
pub struct Wait {
    /// Seconds.
    pub after_s: u64,
    /// Which attempt was that, from 1 on.
    pub attempt: u32,
}

/// What became of an upload.
enum Attempt {
    Done(Value),
    Busy { error: ApiError, after_s: u64 },
}

/// Bytes of an upload that are on their way, for whoever shows it.
pub type Uploaded = Arc<AtomicU64>;

/// Why there is no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// No node runs on the folder.
    NotRunning,
    /// One does, and does not answer: it is stopped, or has more to do than it can.
    Silent,
}

/// A client of one running node.
#[derive(Clone, Debug)]
pub struct Client {
    file: ApiFile,
    answer_ms_max: u64,
}

impl Client {
    /// The client for a data folder.
    ///
    /// # Errors
    /// [`Absent`] where no node answers.
    pub async fn open(dir: &Path) -> Result<Self, Absent> {
        let absent = || match distsoc_persistence::is_in_use(dir) {
            true => Absent::Silent,
            false => Absent::NotRunning,
        };
        let client = Self {
            file: ApiFile::read(dir).ok_or_else(absent)?,
            answer_ms_max: ANSWER_MS_MAX,
        };
        // A node that was killed leaves its file behind, and its port to whoever comes next: only the node that the file is
        // about knows the token and has nothing at this path.
        let probe = client.send(Method::GET, "/", whole(String::new()));
        let answer = runtime::timeout(Duration::from_millis(PROBE_MS_MAX), probe).await;
        let is_it = matches!(answer, Some(Ok(response)) if response.status() == StatusCode::NOT_FOUND
            && response.headers().get("x-frame-options").is_some());
        if is_it { Ok(client) } else { Err(absent()) }
    }

    async fn send<B>(
        &self,
        method: Method,
        path: &str,
        body: B,
    ) -> Result<Response<Incoming>, ApiError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::new(
                ErrorCode::Failed,
                format!("the node does not answer: {error}"),
            )
        };
        let stream = TcpStream::connect(self.file.addr)
            .await
            .map_err(|error| failed(&error))?;
        let handshake = hyper::client::conn::http1::handshake(FuturesIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
        runtime::spawn(async move {
            // Its end is told to whoever reads the response.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.file.addr.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.file.token))
            .body(body)
            .map_err(|error| failed(&error))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))
    }

    /// Calls a method.
    ///
    /// # Errors
    /// What the node says, or that it does not answer.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ApiError> {
        let body = json!({"method": method, "params": params}).to_string();
        let answer = async {
            let response = self.send(Method::POST, "/v1/call", whole(body)).await?;
            result_of(response).await
        };
        within(self.answer_ms_max, answer).await
    }

    /// Stores a blob for a post to come: `{blob, length, media_type, width, height, removed_bytes}`. What has been handed over is
    /// counted.
    ///
    /// # Errors
    /// What the node says, or that it does not answer.
    pub async fn upload(&self, bytes: Vec<u8>, uploaded: Uploaded) -> Result<Value, ApiError> {
        match self.try_upload(bytes.into(), uploaded).await? {
            Attempt::Done(result) => Ok(result),
            Attempt::Busy { error, .. } => Err(error),
        }
    }

    /// The same; where the node has too many uploads under way, it is asked again when it said, a bounded number of times. Each
    /// wait is told before, while nothing is said to be on its way.
    ///
    /// # Errors
    /// What the node says, in the end too that it is busy, or that it does not answer.
    pub async fn upload_when_free(
        &self,
        bytes: Vec<u8>,
        uploaded: Uploaded,
        mut waits: impl FnMut(Wait),
    ) -> Result<Value, ApiError> {
        let bytes = Bytes::from(bytes);
        let mut attempt = 1;
        loop {
            let tried = self.try_upload(bytes.clone(), uploaded.clone()).await?;
            let (error, after_s) = match tried {
                Attempt::Done(result) => return Ok(result),
                Attempt::Busy { error, after_s } => (error, after_s.min(WAIT_S_MAX)),
            };
            if attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            uploaded.store(0, Relaxed);
            waits(Wait { after_s, attempt });
            runtime::sleep(Duration::from_secs(after_s)).await;
            attempt += 1;
        }
    }

    async fn try_upload(&self, bytes: Bytes, uploaded: Uploaded) -> Result<Attempt, ApiError> {
        uploaded.store(0, Relaxed);
        let answer = async {
            let rest = bytes;
            let body = Counted { rest, uploaded };
            let response = self.send(Method::POST, "/v1/blobs", body).await?;
            let is_busy = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            let after = response.headers().get(RETRY_AFTER);
            let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
            match (result_of(response).await, after) {
                (Err(error), Some(after_s)) if is_busy => Ok(Attempt::Busy { error, after_s }),
                (result, _) => Ok(Attempt::Done(result?)),
            }
        };
        within(UPLOAD_MS_MAX + self.answer_ms_max, answer).await
    }

    /// Watches what happens.
    ///
    /// # Errors
    /// Where the node does not answer.
    pub async fn events(&self) -> Result<Events, ApiError> {
        let response = self.send(Method::GET, "/v1/events", whole(String::new()));
        let response = within(self.answer_ms_max, response).await?;
        if response.status() != StatusCode::OK {
            let why = "the node does not let itself be watched: too many do already";
            return Err(ApiError::new(ErrorCode::Refused, why));
        }
        Ok(Events {
            body: response.into_body(),
            held: Vec::new(),
        })
    }
}

fn whole(body: String) -> Full<Bytes> {
    Full::new(body.into())
}

/// A body in pieces, counted as they are taken.
#[derive(Debug)]
struct Counted {
    rest: Bytes,
    uploaded: Uploaded,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        self.uploaded.fetch_add(length as u64, Relaxed);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

async fn result_of(response: Response<Incoming>) -> Result<Value, ApiError> {
    let body = response.into_body().collect().await;
    let bytes = body
        .map_err(|error| ApiError::new(ErrorCode::Failed, error.to_string()))?
        .to_bytes();
    let mut answer: Value = serde_json::from_slice(&bytes)
        .map_err(|_| ApiError::new(ErrorCode::Failed, "what answers there is no distsoc node"))?;
    match ApiError::from_json(&answer) {
        Some(error) => Err(error),
        None => Ok(answer["result"].take()),
    }
}

/// Events, one JSON object each.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    held: Vec<u8>,
}

impl Events {
    /// The next event; `None` where the node has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(event) => return Some(event),
                    // An empty line says that the node is there.
                    Err(_) => continue,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.held.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_takes_everything_and_says_nothing_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client {
            file: ApiFile {
                addr: listener.local_addr().unwrap(),
                token: "0".into(),
            },
            answer_ms_max: 50,
        };
        // The system takes connections for a listener that never looks at them.
        let error = runtime::block_on(client.call("status", Value::Null)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Failed);
        assert!(error.message.contains("did not answer within"), "{error}");
        let events = runtime::block_on(client.events());
        assert!(events.is_err_and(|error| error.code == ErrorCode::Failed));
    }

    /// A client of somebody who reads each upload whole and answers with these, one after the other; and what was read.
    fn answered_with(
        answers: Vec<&'static str>,
    ) -> (Client, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        use std::io::{BufRead, BufReader, Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client {
            file: ApiFile {
                addr: listener.local_addr().unwrap(),
                token: "0".into(),
            },
            answer_ms_max: ANSWER_MS_MAX,
        };
        let served = std::thread::spawn(move || {
            let serve = |answer: &str| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(&stream);
                let lines = (&mut reader).lines().map(Result::unwrap);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let length = head
                    .iter()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.unwrap().parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                (&stream).write_all(answer.as_bytes()).unwrap();
                body
            };
            answers.into_iter().map(serve).collect()
        });
        (client, served)
    }

    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nConnection: close\r\n\r\n{\"error\":{\"code\":\"failed\",\"message\":\"busy\"}}";
    const DONE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"result\":7}";

    #[test]
    fn a_busy_node_is_asked_again_and_each_wait_is_told() {
        let bytes = vec![5; 3 * PIECE_BYTES];
        let (client, served) = answered_with(vec![BUSY, BUSY, DONE]);
        let uploaded = Uploaded::default();
        let mut waits = Vec::new();
        let upload = client.upload_when_free(bytes.clone(), uploaded.clone(), |wait| {
            assert_eq!(uploaded.load(Relaxed), 0);
            waits.push(wait.to_string());
        });
        assert_eq!(runtime::block_on(upload), Ok(json!(7)));
        assert_eq!(
            waits,
            [1, 2].map(|time| format!(
                "waiting for one of the uploads that the node has under way, which it ends after 120 s at most: trying again in 0 s, time {time} of 72"
            ))
        );
        assert!(served.join().unwrap() == vec![bytes.clone(); 3]);
        assert_eq!(uploaded.load(Relaxed), bytes.len() as u64);
    }

    #[test]
    fn a_node_that_stays_busy_is_not_asked_for_ever_and_other_errors_are_told_at_once() {
        let (client, served) = answered_with(vec![BUSY; ATTEMPTS_MAX as usize]);
        let mut waits = 0;
        let upload = client.upload_when_free(vec![5; 9], Uploaded::default(), |_| waits += 1);
        let error = runtime::block_on(upload).unwrap_err();
        assert_eq!((error.message.as_str(), waits), ("busy", ATTEMPTS_MAX - 1));
        assert_eq!(served.join().unwrap().len(), ATTEMPTS_MAX as usize);

        const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n{\"error\":{\"code\":\"failed\",\"message\":\"full\"}}";
        let (client, served) = answered_with(vec![FULL]);
        let upload = client.upload_when_free(vec![5; 9], Uploaded::default(), |wait| {
            panic!("it did not say when to come again: {wait}")
        });
        assert_eq!(runtime::block_on(upload).unwrap_err().message, "full");
        served.join().unwrap();
    }

    #[test]
    fn a_body_in_pieces_is_the_whole_and_is_counted() {
        let bytes: Vec<u8> = (0..2 * PIECE_BYTES + 7).map(|place| place as u8).collect();
        let uploaded = Uploaded::default();
        let body = Counted {
            rest: bytes.clone().into(),
            uploaded: uploaded.clone(),
        };
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        assert_eq!(uploaded.load(Relaxed), 0, "nothing is on its way yet");
        let whole = runtime::block_on(body.collect()).unwrap().to_bytes();
        assert!(whole == bytes);
        assert_eq!(uploaded.load(Relaxed), bytes.len() as u64);
    }
}
