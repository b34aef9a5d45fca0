//! Talks to the node that runs on a data folder.

use crate::blobs::UPLOAD_MS_MAX;
use crate::http::ApiFile;
use crate::{ApiError, CALL_MS_MAX, ErrorCode, within};
use distsoc_net::runtime::{self, TcpStream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, HOST};
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
        let answer = async {
            let rest = bytes.into();
            let body = Counted { rest, uploaded };
            result_of(self.send(Method::POST, "/v1/blobs", body).await?).await
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
