//! What is kept here and why: storage, its budget, explanations.

use crate::error::{ApiError, ErrorCode};
use crate::methods::expected;
use crate::params::{Params, parse};
use crate::shapes;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{Call, CallError, Reply};
use distsoc_host::Host;
use distsoc_persistence::IdPrefix;
use serde_json::Value;

/// What is said of an id that may be a node's or a post's.
const UNKNOWN: &str = "nothing is known here of that id: no post is stored under it, and no node of that name is connected, followed or within three hops; 'find' looks for a node further away";
/// Posts of a preview where no number is given.
const PREVIEW: u64 = 10;
/// And at most.
const PREVIEW_MAX: u64 = 500;

pub(crate) async fn storage(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let preview = params.number("preview")?.unwrap_or(PREVIEW);
    if preview > PREVIEW_MAX {
        let sentence = format!("a preview has at most {PREVIEW_MAX} posts");
        return Err(ApiError::usage(sentence));
    }
    storage_of(host, preview as usize).await
}

async fn storage_of(host: &Host, preview: usize) -> Result<Value, ApiError> {
    let storage = host.call(Call::Storage { preview }).await;
    let storage = expected!(storage, Reply::Storage(storage) => storage);
    Ok(shapes::storage(host, &storage))
}

pub(crate) async fn storage_set(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let bytes = params.number("budget_bytes")?;
    let bytes = bytes.ok_or_else(|| ApiError::usage("'budget_bytes' is missing"))?;
    if bytes == 0 {
        return Err(ApiError::usage("a budget of nothing keeps nothing"));
    }
    expected!(host.call(Call::SetBudget(bytes)).await, Reply::Done => ());
    storage_of(host, PREVIEW as usize).await
}

/// Of a node or of a post: both are 32 bytes, and an `id` is a post where one is stored here under it.
pub(crate) async fn explain(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let given = ["id", "node_id", "post_id"].map(|name| params.text(name).map(|id| (name, id)));
    let mut one = None;
    for id in given {
        match id? {
            (_, None) => {}
            (name, Some(id)) if one.is_none() => one = Some((name, id)),
            _ => return Err(ApiError::usage("one id is explained at a time")),
        }
    }
    match one {
        None => Err(ApiError::usage("'id' is missing")),
        Some(("node_id", id)) => explain_node(host, parse(&id)?).await,
        Some(("post_id", id)) => explain_post(host, parse(&id)?).await,
        Some((_, id)) => {
            let post: PostId = parse(&id)?;
            let is_post = host.view(move |view| view.post(post)).await?.is_some();
            match is_post {
                true => explain_post(host, post).await,
                false => explain_node(host, parse(&id)?).await,
            }
        }
    }
}

async fn explain_post(host: &Host, post: PostId) -> Result<Value, ApiError> {
    let entry = host.view(move |view| view.post(post)).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found("that post is not stored here"))?;
    let kept = expected!(host.call(Call::ExplainPost(post)).await, Reply::Kept(kept) => kept);
    Ok(shapes::kept_explained(&kept, entry.author_name.as_deref()))
}

async fn explain_node(host: &Host, node: NodeId) -> Result<Value, ApiError> {
    let peers = expected!(host.call(Call::Peers).await, Reply::Peers(peers) => peers);
    let follows = expected!(host.call(Call::Follows).await, Reply::Follows(nodes) => nodes);
    let on_map = match host.call(Call::Map(Some(node))).await {
        Err(CallError::NotFound(_)) => None,
        reply => Some(expected!(reply, Reply::Map(view) => view)),
    };
    let peer = peers.iter().find(|peer| peer.node_id == node);
    let is_own = node == host.node_id();
    let is_followed = follows.contains(&node);
    if !is_own && !is_followed && peer.is_none() && on_map.is_none() {
        let whole: IdPrefix = parse(&node.to_string())?;
        let stored = host.view(move |view| view.nodes_beginning(&whole, 1));
        if stored.await?.is_empty() {
            return Err(ApiError::not_found(UNKNOWN));
        }
    }
    Ok(shapes::explanation(
        host,
        &node,
        is_own,
        is_followed,
        peer,
        on_map.as_ref(),
    ))
}
