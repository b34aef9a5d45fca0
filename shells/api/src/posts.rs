//! Posts: written, read, liked, kept, taken back.

use crate::error::{ApiError, ErrorCode};
use crate::methods::{PAGE_MAX, expected, text_error};
use crate::params::Params;
use crate::shapes;
use distsoc_engine::domain::{BlobHash, BlobRef, MediaDescription, PostId, PostText};
use distsoc_engine::io::{Call, Reply};
use distsoc_engine::limits::{BLOB_BYTES_MAX, POST_BLOBS_MAX};
use distsoc_host::Host;
use distsoc_host::media::MediaType;
use distsoc_persistence::{Fault, FeedCursor, FeedEntry, View};
use serde_json::{Value, json};

pub(crate) async fn post(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let text = params.text("text")?.unwrap_or_default();
    let parent = params.parsed::<PostId>("reply")?;
    let media = pictures(params)?;
    if text.trim().is_empty() && media.is_empty() {
        return Err(ApiError::usage("a post must say something"));
    }
    let text = PostText::new(&text).map_err(text_error)?;
    let post = Call::Post {
        text,
        parent,
        media,
    };
    let id = expected!(host.call(post).await, Reply::Posted(id) => id);
    Ok(json!({"post_id": id.to_string()}))
}

/// Blobs that were uploaded before, as the upload's answer names them.
fn pictures(params: &mut Params) -> Result<Vec<(BlobRef, MediaDescription)>, ApiError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Picture {
        blob: String,
        length: u64,
        #[serde(default)]
        alt: String,
    }
    let list = params.list("pictures")?.unwrap_or_default();
    if list.len() > POST_BLOBS_MAX {
        let sentence = format!("a post has at most {POST_BLOBS_MAX} pictures");
        return Err(ApiError::usage(sentence));
    }
    let one = |value: Value| {
        let wrong = |why: String| ApiError::usage(format!("'pictures': {why}"));
        let picture: Picture =
            serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        let hash: BlobHash = crate::params::parse(&picture.blob)?;
        if !(1..=BLOB_BYTES_MAX).contains(&picture.length) {
            return Err(wrong(format!("a length is from 1 to {BLOB_BYTES_MAX}")));
        }
        let blob = BlobRef {
            hash,
            length: picture.length,
        };
        let description = MediaDescription::new(&picture.alt).map_err(text_error)?;
        Ok((blob, description))
    };
    list.into_iter().map(one).collect()
}

/// A post with what lies beside it on the disk.
pub(crate) struct Shown {
    pub(crate) entry: FeedEntry,
    pub(crate) hearts: u64,
    /// Of each blob, where its start is here.
    pub(crate) media_types: Vec<Option<MediaType>>,
}

fn shown(view: &View, entry: FeedEntry) -> Result<Shown, Fault> {
    let blobs = entry.body.blobs.iter();
    let media_types = blobs.map(|blob| MediaType::of_stored(view, *blob));
    Ok(Shown {
        hearts: view.hearts_of(entry.id)? as u64,
        media_types: media_types.collect::<Result<_, _>>()?,
        entry,
    })
}

pub(crate) async fn feed(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let limit = params.number("limit")?.unwrap_or(50);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::usage(format!("a page has 1 to {PAGE_MAX} posts")));
    }
    let before = params.parsed::<FeedCursor>("before")?;
    let page = host.view(move |view| {
        let page = view.feed(before, limit as usize)?;
        let entries = page.entries.into_iter().map(|entry| shown(&view, entry));
        entries.collect::<Result<Vec<_>, _>>()
    });
    Ok(page.await?.iter().map(shapes::entry).collect())
}

pub(crate) async fn show(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let id: PostId = params.required_parsed("post_id")?;
    let entry = host.view(move |view| {
        let entry = view.post(id)?;
        entry.map(|entry| shown(&view, entry)).transpose()
    });
    let entry = entry.await?;
    let entry = entry.ok_or_else(|| ApiError::not_found("that post is not stored here"))?;
    Ok(shapes::entry(&entry))
}

/// An act that may have been done before; what was so before it tells.
async fn change(
    host: &Host,
    params: &mut Params,
    will_be: bool,
    was: impl FnOnce(&View, PostId) -> Result<bool, Fault> + Send + 'static,
    call: impl FnOnce(PostId) -> Call,
) -> Result<Value, ApiError> {
    let post: PostId = params.required_parsed("post_id")?;
    let was = host.view(move |view| was(&view, post)).await?;
    expected!(host.call(call(post)).await, Reply::Done => ());
    Ok(json!({"post_id": post.to_string(), "changed": was != will_be}))
}

async fn set_heart(host: &Host, params: &mut Params, given: bool) -> Result<Value, ApiError> {
    let own = host.node_id();
    let was = move |view: &View, post| view.has_heart_of(post, own);
    change(host, params, given, was, |post| Call::Heart { post, given }).await
}

pub(crate) async fn heart(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    set_heart(host, params, true).await
}

pub(crate) async fn unheart(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    set_heart(host, params, false).await
}

async fn set_pin(host: &Host, params: &mut Params, is_pinned: bool) -> Result<Value, ApiError> {
    let call = |post| Call::Pin { post, is_pinned };
    change(host, params, is_pinned, View::is_pinned, call).await
}

pub(crate) async fn pin(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    set_pin(host, params, true).await
}

pub(crate) async fn unpin(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    set_pin(host, params, false).await
}

pub(crate) async fn delete(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let post: PostId = params.required_parsed("post_id")?;
    expected!(host.call(Call::Delete(post)).await, Reply::Done => ());
    Ok(json!({"post_id": post.to_string()}))
}
