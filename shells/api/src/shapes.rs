//! What things look like in JSON: the field names of the command line's contract.

use distsoc_engine::domain::{Content, NodeId, Profile};
use distsoc_engine::io::{Found, FoundBy, MapCounts, MapView, PeerView, Slot, Status, WideRole};
use distsoc_host::Host;
use distsoc_net::TrafficRow;
use distsoc_persistence::FeedEntry;
use serde_json::{Value, json};

pub(crate) fn status(host: &Host, status: &Status) -> Value {
    json!({
        "node_id": status.node_id.to_string(),
        "profile": status.profile.name(),
        "state": status.standing.name(),
        "peers_social": status.peers_social,
        "peers_wide": status.peers_wide,
        "visits": status.visits,
        "map": map_counts(&status.map),
        "follows": status.follows,
        "posts": status.posts,
        "posts_wanted": status.posts_wanted,
        "addresses": status.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "disk_bytes": host.disk_bytes(),
        "storage_trouble": status.storage_trouble.map(|trouble| trouble.to_string()),
        "anchors": status.anchors,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn map_counts(map: &MapCounts) -> Value {
    json!({"hop1": map.hop1, "hop2": map.hop2, "hop3": map.hop3, "bytes": map.bytes})
}

fn step((step, ms): &(FoundBy, u64)) -> Value {
    json!({"step": step.name(), "ms": ms})
}

pub(crate) fn found(found: &Found) -> Value {
    json!({
        "node_id": found.node_id.to_string(),
        "found_by": found.found_by.name(),
        "address": found.address.to_string(),
        "as_of_ms": found.as_of_ms,
        "jumps": found.jumps,
        "ms": found.ms,
        "steps": found.steps.iter().map(step).collect::<Vec<Value>>(),
    })
}

pub(crate) fn map(view: &MapView) -> Value {
    match view {
        MapView::Counts(counts) => map_counts(counts),
        MapView::Entry {
            node_id,
            hop,
            reporters,
        } => json!({
            "node_id": node_id.to_string(),
            "hop": hop,
            "reporters": reporters.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    }
}

/// Why a node is a peer or on the map, in sentences and in fields.
pub(crate) fn explanation(
    host: &Host,
    node: &NodeId,
    is_own: bool,
    is_followed: bool,
    connected: Option<&PeerView>,
    on_map: Option<&MapView>,
) -> Value {
    let mut reasons: Vec<String> = Vec::new();
    if is_own {
        reasons.push("this is your own node: it never enters its own map".to_owned());
    }
    if is_followed {
        reasons.push("you follow it, so it is worth one of your social slots".to_owned());
    }
    if let Some(peer) = connected {
        let began = if peer.dialled {
            "this node dialled"
        } else {
            "it dialled in"
        };
        let slot = match peer.slot {
            Slot::Social => "a social slot",
            Slot::Wide => match peer.role {
                Some(WideRole::Ring) => "a wide slot, as a neighbour in the order of ids",
                Some(WideRole::Finger) => "a wide slot, as a far point in the order of ids",
                _ => "a wide slot, for reaching far parts of the network",
            },
            Slot::Visit => "no slot: it is visiting and leaves when idle",
        };
        reasons.push(format!("it is connected: {began}, and it has {slot}"));
        if peer.is_anchor {
            reasons.push("it serves as an anchor".to_owned());
        }
    }
    let (hop, reporters) = match on_map {
        Some(MapView::Entry { hop, reporters, .. }) => (Some(*hop), reporters.as_slice()),
        _ => (None, &[][..]),
    };
    match hop {
        Some(2) => reasons.push(format!(
            "{} of your peers are connected to it",
            reporters.len()
        )),
        Some(3) => reasons.push(format!(
            "{} of your peers have a peer that is connected to it",
            reporters.len()
        )),
        _ => {}
    }
    if reasons.is_empty() {
        let why = "it is neither connected nor within three hops; `find` looks for it further away";
        reasons.push(why.to_owned());
    }
    json!({
        "node_id": node.to_string(),
        "reasons": reasons,
        "hop": hop,
        "reporters": reporters.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "peer": connected.map(|connected| peer(host, connected)),
    })
}

pub(crate) fn peer(host: &Host, peer: &PeerView) -> Value {
    let stats = host.link_stats(peer.link).unwrap_or_default();
    json!({
        "node_id": peer.node_id.to_string(),
        "name": peer.name,
        "slot": peer.slot.name(),
        "role": peer.role.map(WideRole::name),
        "direction": if peer.dialled { "out" } else { "in" },
        "address": peer.address.to_string(),
        "is_anchor": peer.is_anchor,
        "followed": peer.followed,
        "rtt_ms": stats.rtt_us as f64 / 1000.0,
        "up_ms": peer.up_ms,
        "heard_ms_ago": peer.heard_ms_ago,
        "in_bytes": stats.in_bytes,
        "out_bytes": stats.out_bytes,
    })
}

pub(crate) fn entry(entry: &FeedEntry) -> Value {
    let (visibility, text, reply_to) = match &entry.body.content {
        Content::Public(content) => ("public", Some(content.text.as_str()), content.parent),
        Content::Sealed(_) => ("sealed", None, None),
    };
    json!({
        "post_id": entry.id.to_string(),
        "author": entry.body.author.to_string(),
        "author_name": entry.author_name,
        "text": text,
        "created_at_ms": entry.body.created_at_ms,
        "arrived_at_ms": entry.arrived_ms,
        "visibility": visibility,
        "reply_to": reply_to.map(|id| id.to_string()),
        "hearts": 0,
        "pictures": entry.body.blobs.iter().map(|blob| json!({
            "hash": blob.hash.to_string(),
            "bytes": blob.length,
        })).collect::<Vec<_>>(),
        "cursor": entry.cursor.to_string(),
    })
}

pub(crate) fn profile(profile: &Profile) -> Value {
    json!({
        "node_id": profile.author.to_string(),
        "name": profile.name.as_str(),
        "bio": profile.bio.as_str(),
        "avatar": profile.avatar.map(|avatar| json!({
            "hash": avatar.hash.to_string(),
            "bytes": avatar.length,
        })),
        "anchors": profile.anchors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "updated_at_ms": profile.seq,
    })
}

pub(crate) fn traffic(day: u64, row: &TrafficRow, budget_bytes: u64) -> Value {
    json!({
        "layer": row.layer.name(),
        "cause": row.cause,
        "in_bytes": row.in_bytes,
        "out_bytes": row.out_bytes,
        "day": day,
        "budget_bytes": budget_bytes,
    })
}
