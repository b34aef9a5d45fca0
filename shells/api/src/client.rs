//! Talks to the node that runs on a data folder.

use crate::http::ApiFile;
use crate::{ApiError, ErrorCode};
use distsoc_net::runtime::{self, TcpStream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use smol_hyper::rt::FuturesIo;
use std::path::Path;
use std::time::Duration;

/// How long a node may take to say that it is there.
const PROBE_MS_MAX: u64 = 5_000;

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
        };
        // A node that was killed leaves its file behind, and its port to whoever comes next: only the node that the file is
        // about knows the token and has nothing at this path.
        let probe = client.send(Method::GET, "/", String::new());
        let answer = runtime::timeout(Duration::from_millis(PROBE_MS_MAX), probe).await;
        let is_it = matches!(answer, Some(Ok(response)) if response.status() == StatusCode::NOT_FOUND
            && response.headers().get("x-frame-options").is_some());
        if is_it { Ok(client) } else { Err(absent()) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, ApiError> {
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
        let body = Full::new(body.into());
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
        let response = self.send(Method::POST, "/v1/call", body).await?;
        result_of(response).await
    }

    /// Stores a blob for a post to come: `{blob, length, media_type, width, height, removed_bytes}`.
    ///
    /// # Errors
    /// What the node says, or that it does not answer.
    pub async fn upload(&self, bytes: Vec<u8>) -> Result<Value, ApiError> {
        result_of(self.send(Method::POST, "/v1/blobs", bytes).await?).await
    }

    /// Watches what happens.
    ///
    /// # Errors
    /// Where the node does not answer.
    pub async fn events(&self) -> Result<Events, ApiError> {
        let response = self.send(Method::GET, "/v1/events", String::new()).await?;
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
