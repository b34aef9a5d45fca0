//! Ids by how they begin: a screen shows the first digits, and a person types what they see.

use crate::error::{ApiError, ErrorCode};
use crate::methods::expected;
use crate::params::Params;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{Call, Reply};
use distsoc_host::Host;
use distsoc_persistence::IdPrefix;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Of each kind, at most: two are too many already, and a few more help to tell them apart.
const FOUND_MAX: usize = 4;

pub(crate) async fn lookup(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let prefix: IdPrefix = params.required_parsed("prefix")?;
    let of = params.text("of")?;
    let (posts, nodes) = match of.as_deref() {
        None => (true, true),
        Some("post") => (true, false),
        Some("node") => (false, true),
        Some(_) => return Err(ApiError::usage("'of' must be post or node")),
    };
    let mut found = Vec::new();
    if posts {
        let ids = posts_beginning(host, prefix.clone()).await?;
        found.extend(
            ids.iter()
                .map(|id| json!({"id": id.to_string(), "of": "post"})),
        );
    }
    if nodes {
        let ids = nodes_beginning(host, prefix).await?;
        found.extend(
            ids.iter()
                .map(|id| json!({"id": id.to_string(), "of": "node"})),
        );
    }
    Ok(found.into())
}

async fn posts_beginning(host: &Host, prefix: IdPrefix) -> Result<Vec<PostId>, ApiError> {
    let ids = host.view(move |view| view.posts_beginning(&prefix, FOUND_MAX));
    Ok(ids.await?)
}

/// Those who are connected, followed, or stored in whatever way. The map knows many more, whom nobody was shown.
pub(crate) async fn nodes_beginning(
    host: &Host,
    prefix: IdPrefix,
) -> Result<BTreeSet<NodeId>, ApiError> {
    let peers = expected!(host.call(Call::Peers).await, Reply::Peers(peers) => peers);
    let follows = expected!(host.call(Call::Follows).await, Reply::Follows(nodes) => nodes);
    let near = peers.into_iter().map(|peer| peer.node_id).chain(follows);
    let near = near.chain([host.node_id()]);
    let mut ids: BTreeSet<NodeId> = near.filter(|id| prefix.is_of(id.as_bytes())).collect();
    let stored = host.view(move |view| view.nodes_beginning(&prefix, FOUND_MAX));
    ids.extend(stored.await?);
    Ok(ids.into_iter().take(FOUND_MAX).collect())
}
