//! Pictures and other blobs over HTTP: `POST /v1/blobs`, `GET /v1/blobs/{post_id}/{index}`, `GET /v1/thumbnails/{post_id}/{index}`.
//!
//! What others made is sent from the API's origin, so a browser must take none of it for a page: the type is told by the content,
//! is one of a few pictures or bytes of no kind, and is never sniffed. A blob is read in parts while it is sent.

use crate::error::{ApiError, ErrorCode};
use crate::http::{Reply, harden, reply, status_of};
use crate::methods::expected;
use crate::params::parse;
use crate::range::{Part, part_of};
use crate::{Api, CALL_MS_MAX, http, within};
use distsoc_engine::domain::{BlobRef, Cut, PostId};
use distsoc_engine::io::{self, Call};
use distsoc_engine::limits::BLOB_BYTES_MAX;
use distsoc_host::media::{MediaFault, MediaType, ThumbnailSide};
use distsoc_host::{Host, PART_BYTES_MAX};
use distsoc_net::runtime;
use futures_lite::StreamExt;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::fmt::Display;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Uploads at once, each with its bytes in memory.
const UPLOADS_MAX: usize = 2;
/// How long the body of an upload may take.
pub(crate) const UPLOAD_MS_MAX: u64 = 120_000;
/// And how long nothing of it may come: who stopped gives its place to others.
const UPLOAD_QUIET_MS_MAX: u64 = 20_000;
/// When to ask again for what is not here yet, seconds.
const RETRY_AFTER_S: &str = "5";

/// Uploads under way.
#[derive(Debug, Default)]
pub(crate) struct Uploads(AtomicUsize);

/// The place of one of them, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Uploads {
    fn enter(&self) -> Option<Place<'_>> {
        let place = Place(&self.0);
        (self.0.fetch_add(1, Relaxed) < UPLOADS_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Api {
    /// Stores a blob for a post to come: `{blob, length, media_type, width, height, removed_bytes}`, once it is durable. What a
    /// picture tells of its maker is taken out before, so `length` may be less than what was sent, by `removed_bytes`.
    ///
    /// # Errors
    /// [`ApiError`] where it is empty, too long, a picture that nobody could show, or where the disk does not take it.
    pub async fn upload(&self, bytes: Vec<u8>) -> Result<Value, ApiError> {
        let sent = bytes.len();
        let published = self.host().publishable(bytes).await;
        let (head, bytes) = published.map_err(|fault| unfit(&fault))?;
        let removed_bytes = sent - bytes.len();
        let cut = runtime::spawn_blocking(move || {
            let cut = Cut::new(&bytes).map_err(|_| wrong_length(bytes.len() as u64))?;
            let slices: Vec<_> = cut.slices().collect();
            Ok::<_, ApiError>((cut.blob(), slices))
        });
        let (blob, slices) = cut.await?;
        let staged = async { Ok(self.host().call(Call::Stage(slices)).await?) };
        expected!(within(CALL_MS_MAX, staged).await, io::Reply::Done => ());
        Ok(json!({
            "blob": blob.hash.to_string(),
            "length": blob.length,
            "media_type": head.media_type.name(),
            "width": head.pixels.map(|(width, _)| width),
            "height": head.pixels.map(|(_, height)| height),
            "removed_bytes": removed_bytes,
        }))
    }
}

/// Why a picture cannot be published, and what to do about it.
fn unfit(fault: &MediaFault) -> ApiError {
    ApiError::usage(match fault.next_step() {
        Some(next) => format!("{fault}: {next}"),
        None => fault.to_string(),
    })
}

fn wrong_length(length: u64) -> ApiError {
    ApiError::usage(match length {
        0 => "an upload must not be empty".to_owned(),
        _ => format!("a picture or file has at most {BLOB_BYTES_MAX} bytes"),
    })
}

/// `POST /v1/blobs`: the body is the blob.
pub(crate) async fn upload(api: &Api, uploads: &Uploads, body: &mut Incoming) -> Reply {
    let Some(_place) = uploads.enter() else {
        let sentence = "too many uploads at once: try again in a moment";
        return unavailable(sentence);
    };
    let body = body_of(body, Duration::from_millis(UPLOAD_QUIET_MS_MAX));
    let bytes = match runtime::timeout(Duration::from_millis(UPLOAD_MS_MAX), body).await {
        Some(Ok(bytes)) => bytes,
        Some(Err((status, error))) => return reply(status, &error.to_json()),
        None => {
            let error = ApiError::new(ErrorCode::Failed, "the upload did not arrive in time");
            return reply(StatusCode::REQUEST_TIMEOUT, &error.to_json());
        }
    };
    match api.upload(bytes).await {
        Ok(result) => reply(StatusCode::OK, &json!({"result": result})),
        Err(error) => reply(status_of(error.code), &error.to_json()),
    }
}

/// All bytes of a body, once in memory; one that says or shows that it is too long is not read on, nor one that is quiet for so long.
async fn body_of<B>(body: &mut B, quiet: Duration) -> Result<Vec<u8>, (StatusCode, ApiError)>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let too_large = |length| (StatusCode::PAYLOAD_TOO_LARGE, wrong_length(length));
    let said = body.size_hint().exact();
    if let Some(length) = said.filter(|length| *length > BLOB_BYTES_MAX) {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(said.unwrap_or_default() as usize);
    loop {
        let next = runtime::timeout(quiet, body.frame()).await;
        let Some(frame) = next.ok_or_else(|| {
            let sentence = format!("nothing more of the upload came for {} s", quiet.as_secs());
            let error = ApiError::new(ErrorCode::Failed, sentence);
            (StatusCode::REQUEST_TIMEOUT, error)
        })?
        else {
            break;
        };
        let frame = frame.map_err(|error| {
            let error = ApiError::usage(format!("the upload broke off: {error}"));
            (StatusCode::BAD_REQUEST, error)
        })?;
        let data = frame.into_data().unwrap_or_default();
        let length = (bytes.len() + data.len()) as u64;
        if length > BLOB_BYTES_MAX {
            return Err(too_large(length));
        }
        bytes.extend_from_slice(&data);
    }
    match bytes.is_empty() {
        true => Err((StatusCode::BAD_REQUEST, wrong_length(0))),
        false => Ok(bytes),
    }
}

fn unavailable(sentence: &str) -> Reply {
    let error = ApiError::new(ErrorCode::Failed, sentence);
    let mut response = reply(StatusCode::SERVICE_UNAVAILABLE, &error.to_json());
    let after = HeaderValue::from_static(RETRY_AFTER_S);
    response.headers_mut().insert(RETRY_AFTER, after);
    response
}

fn refuse(error: &ApiError) -> Reply {
    reply(status_of(error.code), &error.to_json())
}

/// The blob that `{post_id}/{index}` names.
async fn blob_at(host: &Host, place: &str) -> Result<BlobRef, ApiError> {
    let wrong = || ApiError::usage("a picture's place is POST_ID/INDEX, its index from 0 on");
    let (post, index) = place.split_once('/').ok_or_else(wrong)?;
    let post: PostId = parse(post)?;
    // Rust takes "+0" and "00" for numbers; a picture has one place.
    let number: usize = index.parse().map_err(|_| wrong())?;
    let index = (number.to_string() == index)
        .then_some(number)
        .ok_or_else(wrong)?;
    let entry = host.view(move |view| view.post(post)).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found("that post is not stored here"))?;
    let blob = entry.body.blobs.get(index).copied();
    blob.ok_or_else(|| {
        let count = entry.body.blobs.len();
        ApiError::not_found(format!(
            "that post has {count} pictures: there is no picture {index}"
        ))
    })
}

const NOT_HERE: &str = "that part of the picture has not arrived yet: it is being fetched";

/// `GET /v1/blobs/{post_id}/{index}`, whole or one range of it.
pub(crate) async fn download(host: &Host, place: &str, headers: &HeaderMap) -> Reply {
    let blob = match blob_at(host, place).await {
        Ok(blob) => blob,
        Err(error) => return refuse(&error),
    };
    let tag = format!("\"{}\"", blob.hash);
    if is_known(headers, &tag) {
        return not_modified(&tag);
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Part of something else would be worse than all of this.
    let is_same = text(IF_RANGE).is_none_or(|known| known == tag);
    let part = part_of(text(RANGE).filter(|_| is_same), blob.length);
    let (status, range) = match part {
        Part::All => (StatusCode::OK, 0..blob.length),
        Part::One(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::None => {
            let error = ApiError::usage(format!("the picture has {} bytes", blob.length));
            let mut response = reply(StatusCode::RANGE_NOT_SATISFIABLE, &error.to_json());
            let whole = format!("bytes */{}", blob.length);
            put(response.headers_mut(), CONTENT_RANGE, &whole);
            return response;
        }
    };
    let here = match host.has_blob_part(blob, range.clone()).await {
        Ok(true) => host.media_type(blob).await,
        Ok(false) => return unavailable(NOT_HERE),
        Err(fault) => Err(fault),
    };
    let media_type = match here {
        Ok(_) if is_any_known(headers) => return not_modified(&tag),
        Ok(known) => known.unwrap_or(MediaType::Other),
        Err(fault) => return refuse(&fault.into()),
    };
    let mut response = Response::new(Either::Right(parts(host.clone(), blob, range.clone())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, media_type, &blob, &tag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    put(
        headers,
        CONTENT_LENGTH,
        &(range.end - range.start).to_string(),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end - 1;
        let said = format!("bytes {}-{last}/{}", range.start, blob.length);
        put(headers, CONTENT_RANGE, &said);
    }
    response
}

/// `GET /v1/thumbnails/{post_id}/{index}?size=PIXELS`: a small picture, its longer side at least so many where the picture has them.
pub(crate) async fn thumbnail(
    host: &Host,
    place: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Reply {
    let side = match side_of(query) {
        Ok(side) => side,
        Err(error) => return refuse(&error),
    };
    let blob = match blob_at(host, place).await {
        Ok(blob) => blob,
        Err(error) => return refuse(&error),
    };
    let tag = format!("\"{}-{}\"", blob.hash, side.pixels());
    if is_known(headers, &tag) {
        return not_modified(&tag);
    }
    let made = match host.thumbnail(blob, side).await {
        Ok(made) => made,
        Err(MediaFault::NotHere) => return unavailable(NOT_HERE),
        Err(MediaFault::Disk(fault)) => return refuse(&fault.into()),
        Err(fault) => {
            let error = ApiError::new(ErrorCode::Refused, fault.to_string());
            return reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error.to_json());
        }
    };
    if is_any_known(headers) {
        return not_modified(&tag);
    }
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(made.bytes.clone()))));
    describe(response.headers_mut(), made.media_type, &blob, &tag);
    response
}

fn side_of(query: Option<&str>) -> Result<ThumbnailSide, ApiError> {
    let Some(query) = query else {
        return Ok(ThumbnailSide::default());
    };
    let wish = query.strip_prefix("size=");
    let is_number = |size: &&str| size.bytes().all(|byte| byte.is_ascii_digit());
    let wish = wish.filter(is_number).and_then(|size| size.parse().ok());
    wish.and_then(ThumbnailSide::for_wish).ok_or_else(|| {
        let (least, most) = ThumbnailSide::RANGE.into_inner();
        ApiError::usage(format!("a thumbnail takes size={least} to size={most}"))
    })
}

/// Whether the asker has it already: a tag may be said to be weak, which makes no difference where nothing is compared but tags.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let mut known = tags(headers);
    known.any(|one| one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Whether the asker has enough in that there is something, whatever it is.
fn is_any_known(headers: &HeaderMap) -> bool {
    tags(headers).any(|one| one == "*")
}

fn tags(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(IF_NONE_MATCH).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',').map(str::trim))
}

fn not_modified(tag: &str) -> Reply {
    let mut response = Response::new(Either::Left(Full::new(Bytes::new())));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    harden(response.headers_mut(), MediaType::Other.name());
    put(response.headers_mut(), ETAG, tag);
    response
}

fn put(headers: &mut HeaderMap, name: hyper::header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("digits and letters make a header");
    headers.insert(name, value);
}

fn describe(headers: &mut HeaderMap, media_type: MediaType, blob: &BlobRef, tag: &str) {
    harden(headers, media_type.name());
    let way = match media_type.is_picture() {
        true => "inline",
        false => "attachment",
    };
    let (name, ending) = (blob.hash.short(), media_type.ending());
    let said = format!("{way}; filename=\"{name}.{ending}\"");
    put(headers, CONTENT_DISPOSITION, &said);
    put(headers, ETAG, tag);
}

/// A blob's bytes, one part in memory at a time; where one is gone meanwhile, the connection breaks off, which the reader sees.
fn parts(host: Host, blob: BlobRef, range: Range<u64>) -> http::StreamedBody {
    let parts = futures_lite::stream::unfold(Some(range), move |left| {
        let host = host.clone();
        async move {
            let left = left.filter(|left| !left.is_empty())?;
            let end = left.end.min(left.start + PART_BYTES_MAX);
            match host.blob_part(blob, left.start..end).await {
                Ok(Some(bytes)) => Some((Ok(Frame::data(Bytes::from(bytes))), Some(end..left.end))),
                Ok(None) => Some((Err(std::io::Error::other(NOT_HERE)), None)),
                Err(fault) => Some((Err(std::io::Error::other(fault.to_string())), None)),
            }
        }
    });
    StreamBody::new(parts.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_uploads_at_once_and_places_come_back() {
        let uploads = Uploads::default();
        let taken: Vec<_> = (0..UPLOADS_MAX).map(|_| uploads.enter().unwrap()).collect();
        assert!(uploads.enter().is_none());
        assert!(uploads.enter().is_none(), "a refusal takes no place");
        drop(taken);
        assert!(uploads.enter().is_some());
    }

    #[test]
    fn an_upload_that_stops_is_given_up() {
        let begun = || {
            futures_lite::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(
                b"some",
            )))])
        };
        let mut whole = StreamBody::new(begun());
        let read = runtime::block_on(body_of(&mut whole, Duration::from_secs(30)));
        assert_eq!(read, Ok(b"some".to_vec()));
        let mut hangs = StreamBody::new(begun().chain(futures_lite::stream::pending()));
        let read = runtime::block_on(body_of(&mut hangs, Duration::ZERO));
        let (status, error) = read.unwrap_err();
        assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
        assert!(
            error.message.contains("nothing more of the upload"),
            "{error}"
        );
    }

    #[test]
    fn a_wish_for_a_size_is_one_number_in_range() {
        assert_eq!(side_of(None), Ok(ThumbnailSide::default()));
        assert_eq!(side_of(Some("size=100")).unwrap().pixels(), 128);
        for wrong in [
            "",
            "size",
            "size=",
            "size=0",
            "size=15",
            "size=1025",
            "size=-1",
            "size=+100",
            "size=1e3",
            "size=99999999999",
            "width=100",
            "size=100&size=200",
        ] {
            assert!(side_of(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
