//! The API over loopback HTTP: `POST /v1/call`, `GET /v1/events`, and blobs, which have a file of their own.
//!
//! Loopback is no access control: any program and any web page on this machine can reach it. So each start draws a token, told
//! only to who can read `api.json` (0600); the Host must be this address exactly (DNS rebinding), an Origin, where sent, too; nothing
//! answers to another origin.

use crate::blobs::{self, Uploads};
use crate::connections::{Connections, Place};
use crate::{Api, ApiError, ErrorCode};
use async_channel::Sender;
use distsoc_engine::limits::BLOB_BYTES_MAX;
use distsoc_net::runtime::{self, TcpListener, TcpStream};
use futures_lite::StreamExt;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a request's body at most.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long a client may take to send its headers.
const HEADERS_MS_MAX: u64 = 5_000;
/// How long a client may take to send its body.
const BODY_MS_MAX: u64 = 10_000;
/// What is read off of a body that was answered before its end, so that its sender sees the answer and not a broken connection.
const READ_OFF_BYTES_MAX: u64 = 4 * BLOB_BYTES_MAX;
/// How long that may take in all.
const READ_OFF_MS_MAX: u64 = 30_000;
/// And how long nothing may come.
const READ_OFF_QUIET_MS_MAX: u64 = 2_000;
/// A line of the event stream when nothing happens, so that a dead client is noticed.
const HEARTBEAT_MS: u64 = 15_000;

pub(crate) type Reply = Response<Either<Full<Bytes>, StreamedBody>>;
/// What is sent as it comes; an error breaks the connection off.
pub(crate) type StreamedBody =
    StreamBody<futures_lite::stream::Boxed<Result<Frame<Bytes>, std::io::Error>>>;

/// What `api.json` says: where the API listens and the token it wants.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ApiFile {
    /// `IP:PORT`.
    pub addr: SocketAddr,
    /// Sent as `Authorization: Bearer TOKEN`.
    pub token: String,
}

impl ApiFile {
    /// Its place in a data folder.
    #[must_use]
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("api.json")
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        match self.write_anew(dir) {
            // A node that was killed left one, and has to run for something to be evicted.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                let _ = std::fs::remove_file(dir.join("api.json.new"));
                self.write_over(dir).map_err(|_| error)
            }
            other => other,
        }
    }

    /// Writes it in the place of an old one, on whose pages it has room.
    fn write_over(&self, dir: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(Self::path(dir))?;
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)
    }

    fn write_anew(&self, dir: &Path) -> std::io::Result<()> {
        let temporary = dir.join("api.json.new");
        // A file that a crash left might be readable by others.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, Self::path(dir))
    }

    /// Reads the file of a running node, if there is one.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(dir)).ok()?).ok()
    }
}

/// The HTTP face of one node, until it is closed.
#[derive(Debug)]
pub struct Server {
    file: ApiFile,
    dir: PathBuf,
    stop: Sender<()>,
}

struct Face {
    api: Api,
    token: String,
    hosts: [String; 2],
    connections: Arc<Connections>,
    uploads: Uploads,
}

impl Server {
    /// Listens and writes `api.json`.
    ///
    /// # Errors
    /// A sentence where the address is not loopback or cannot be had.
    pub async fn start(api: Api, listen: SocketAddr) -> Result<Self, ApiError> {
        let failed = |message: String| ApiError::new(ErrorCode::Failed, message);
        if !listen.ip().is_loopback() {
            return Err(ApiError::usage(format!(
                "{listen} is not a loopback address: the API is for this machine only"
            )));
        }
        let listener = TcpListener::bind(listen).await;
        let listener =
            listener.map_err(|error| failed(format!("cannot listen on {listen}: {error}")))?;
        let addr = listener
            .local_addr()
            .map_err(|error| failed(error.to_string()))?;
        let secret = distsoc_host::random::<32>().map_err(|fault| failed(fault.to_string()))?;
        let token: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = api.host().dir().to_owned();
        let file = ApiFile { addr, token };
        file.write(&dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => failed(
                "cannot write api.json, as the disk is full: free some space on it and start again"
                    .to_owned(),
            ),
            _ => failed(format!("cannot write api.json: {error}")),
        })?;
        let face = Arc::new(Face {
            api,
            token: file.token.clone(),
            hosts: [addr.to_string(), format!("localhost:{}", addr.port())],
            connections: Arc::default(),
            uploads: Uploads::default(),
        });
        let (stop, stopped) = async_channel::bounded::<()>(1);
        runtime::spawn(async move {
            let accept = async {
                let mut incoming = listener.incoming();
                while let Some(stream) = incoming.next().await {
                    match stream {
                        Ok(stream) => face.clone().begin(stream),
                        // Out of descriptors, most likely: give others time to end.
                        Err(_) => runtime::sleep(Duration::from_millis(50)).await,
                    }
                }
            };
            let end = async {
                let _ = stopped.recv().await;
            };
            futures_lite::future::or(accept, end).await;
        });
        Ok(Self { file, dir, stop })
    }

    /// Where it listens and what token it wants.
    #[must_use]
    pub fn file(&self) -> &ApiFile {
        &self.file
    }

    /// Stops listening and removes `api.json`.
    pub fn close(self) {
        self.stop.close();
        if ApiFile::read(&self.dir).as_ref() == Some(&self.file) {
            let _ = std::fs::remove_file(ApiFile::path(&self.dir));
        }
    }
}

impl Face {
    fn begin(self: Arc<Self>, stream: TcpStream) {
        let Some((place, gone)) = self.connections.enter() else {
            return;
        };
        runtime::spawn(async move {
            let place = Arc::new(place);
            let service = hyper::service::service_fn(move |request| {
                let (face, place) = (self.clone(), place.clone());
                async move { Ok::<_, Infallible>(face.answer(&place, request).await) }
            });
            let served = async {
                // A client that misbehaves ends its own connection only.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(SmolTimer::new())
                    .header_read_timeout(Duration::from_millis(HEADERS_MS_MAX))
                    .max_buf_size(64 * 1024)
                    .serve_connection(FuturesIo::new(stream), service)
                    .await;
            };
            let makes_room = async {
                let _ = gone.recv().await;
            };
            futures_lite::future::or(served, makes_room).await;
        });
    }

    async fn answer(&self, place: &Place, request: Request<Incoming>) -> Reply {
        let (request, mut body) = request.into_parts();
        if let Err(status) = self.admit(&request.headers) {
            let error = ApiError::new(
                ErrorCode::Refused,
                "not for you: wrong host, origin or token",
            );
            return reply(status, &error.to_json());
        }
        place.admit();
        let answer = self.answer_admitted(&request, &mut body).await;
        // Who waits to be told to go on sends nothing yet.
        if !body.is_end_stream() && !request.headers.contains_key(EXPECT) {
            runtime::spawn(read_off(body));
        }
        answer
    }

    async fn answer_admitted(&self, request: &Parts, body: &mut Incoming) -> Reply {
        let path = request.uri.path();
        let picture = path.strip_prefix("/v1/blobs/");
        let thumbnail = path.strip_prefix("/v1/thumbnails/");
        let host = self.api.host();
        match (&request.method, path) {
            (&Method::POST, "/v1/call") => self.call(body).await,
            (&Method::GET, "/v1/events") => self.events(),
            (&Method::POST, "/v1/blobs") => blobs::upload(&self.api, &self.uploads, body).await,
            (_, "/v1/call" | "/v1/blobs") => not_allowed("POST"),
            (_, "/v1/events") => not_allowed("GET"),
            (method, _)
                if picture.or(thumbnail).is_some()
                    && method != Method::GET
                    && method != Method::HEAD =>
            {
                not_allowed("GET, HEAD")
            }
            _ => match (picture, thumbnail) {
                (Some(place), _) => blobs::download(host, place, &request.headers).await,
                (_, Some(place)) => {
                    let query = request.uri.query();
                    blobs::thumbnail(host, place, query, &request.headers).await
                }
                _ => reply(
                    StatusCode::NOT_FOUND,
                    &ApiError::not_found("there is nothing here").to_json(),
                ),
            },
        }
    }

    /// Host, origin and token, in this order.
    fn admit(&self, headers: &HeaderMap) -> Result<(), StatusCode> {
        let text = |name: HeaderName| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap_or_default())
        };
        if !text(HOST).is_some_and(|host| self.hosts.iter().any(|own| own == host)) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        let own_origin = |origin: &str| {
            origin
                .strip_prefix("http://")
                .is_some_and(|host| self.hosts.iter().any(|own| own == host))
        };
        let foreign = text(ORIGIN).is_some_and(|origin| !own_origin(origin));
        let site = text(HeaderName::from_static("sec-fetch-site"));
        let cross_site = site.is_some_and(|site| site != "same-origin" && site != "none");
        if cross_site || foreign {
            return Err(StatusCode::FORBIDDEN);
        }
        let token = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        match token.is_some_and(|token| same(token.as_bytes(), self.token.as_bytes())) {
            true => Ok(()),
            false => Err(StatusCode::UNAUTHORIZED),
        }
    }

    async fn call(&self, body: &mut Incoming) -> Reply {
        let body = Limited::new(body, BODY_BYTES_MAX).collect();
        let bytes = match runtime::timeout(Duration::from_millis(BODY_MS_MAX), body).await {
            Some(Ok(body)) => body.to_bytes(),
            Some(Err(error)) if !error.is::<LengthLimitError>() => {
                let error = ApiError::usage(format!("the request's body did not arrive: {error}"));
                return reply(StatusCode::BAD_REQUEST, &error.to_json());
            }
            Some(Err(_)) => {
                let error =
                    ApiError::usage(format!("a request has at most {BODY_BYTES_MAX} bytes"));
                return reply(StatusCode::PAYLOAD_TOO_LARGE, &error.to_json());
            }
            None => {
                let error = ApiError::new(ErrorCode::Failed, "the request did not arrive in time");
                return reply(StatusCode::REQUEST_TIMEOUT, &error.to_json());
            }
        };
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            method: String,
            #[serde(default)]
            params: Value,
        }
        let wanted: Wanted = match serde_json::from_slice(&bytes) {
            Ok(wanted) => wanted,
            Err(error) => {
                let error = ApiError::usage(format!(
                    "the body must be {{\"method\", \"params\"}}: {error}"
                ));
                return reply(StatusCode::BAD_REQUEST, &error.to_json());
            }
        };
        match self.api.call(&wanted.method, wanted.params).await {
            Ok(result) => reply(StatusCode::OK, &json!({"result": result})),
            Err(error) => reply(status_of(error.code), &error.to_json()),
        }
    }

    /// One JSON object a line; an empty line now and then.
    fn events(&self) -> Reply {
        let Some(events) = self.api.subscribe() else {
            let error = ApiError::new(ErrorCode::Refused, "too many watch this node already");
            return reply(StatusCode::SERVICE_UNAVAILABLE, &error.to_json());
        };
        let lines = futures_lite::stream::unfold(Box::pin(events), |mut events| async move {
            let next = runtime::timeout(Duration::from_millis(HEARTBEAT_MS), events.next()).await;
            let line = match next {
                None => "\n".to_owned(),
                Some(Some(event)) => format!("{event}\n"),
                Some(None) => return None,
            };
            Some((Ok(Frame::data(Bytes::from(line))), events))
        });
        let mut response = Response::new(Either::Right(StreamBody::new(lines.boxed())));
        harden(response.headers_mut(), "application/x-ndjson");
        response
    }
}

/// Reads the rest of a body and forgets it.
async fn read_off(mut body: Incoming) {
    let all = async {
        let mut left = READ_OFF_BYTES_MAX;
        let quiet = Duration::from_millis(READ_OFF_QUIET_MS_MAX);
        while let Some(Some(Ok(frame))) = runtime::timeout(quiet, body.frame()).await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    runtime::timeout(Duration::from_millis(READ_OFF_MS_MAX), all).await;
}

/// Another method is asked for at a place that takes these.
fn not_allowed(methods: &'static str) -> Reply {
    let error = ApiError::usage(format!("what is here takes {methods} and nothing else"));
    let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, &error.to_json());
    let allow = HeaderValue::from_static(methods);
    response.headers_mut().insert(ALLOW, allow);
    response
}

pub(crate) fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Usage => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Refused => StatusCode::CONFLICT,
        ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Compares without telling by its time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

pub(crate) fn harden(headers: &mut HeaderMap, content_type: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

pub(crate) fn reply(status: StatusCode, body: &Value) -> Reply {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    harden(response.headers_mut(), "application/json");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_over_another_is_as_good_as_a_new_one() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let of = |port: u16, token: &str| ApiFile {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            token: token.into(),
        };
        assert!(of(1, "none").write_over(dir.path()).is_err());
        of(40_000, "a long token")
            .write(dir.path())
            .expect("it has room");
        for next in [of(50_000, "another of them"), of(80, "short")] {
            next.write_over(dir.path()).expect("it has room");
            assert_eq!(ApiFile::read(dir.path()), Some(next));
        }
    }
}
