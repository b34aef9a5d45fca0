//! What happens, as JSON.

use distsoc_engine::io::Notice;
use futures_lite::StreamExt;
use serde_json::{Value, json};

fn to_json(notice: &Notice) -> Value {
    match notice {
        Notice::PeerUp { node, slot } => {
            json!({"event": "peer_up", "node_id": node.to_string(), "slot": slot.name()})
        }
        Notice::PeerDown { node } => json!({"event": "peer_down", "node_id": node.to_string()}),
        Notice::Post { id, author } => {
            json!({"event": "post", "post_id": id.to_string(), "author": author.to_string()})
        }
        Notice::Profile { node } => json!({"event": "profile", "node_id": node.to_string()}),
        Notice::Standing(standing) => json!({"event": "state", "state": standing.name()}),
        Notice::Storage(trouble) => {
            json!({"event": "storage", "trouble": trouble.map(|trouble| trouble.to_string())})
        }
    }
}

/// Notices as JSON objects.
pub(crate) fn stream(
    notices: async_channel::Receiver<Notice>,
) -> impl futures_lite::Stream<Item = Value> + Send + 'static {
    Box::pin(notices).map(|notice| to_json(&notice))
}
