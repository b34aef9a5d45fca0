//! What things look like in JSON: the field names of the command line's contract.

use crate::posts::Shown;
use distsoc_engine::domain::{
    AgeWindow, AuthorStanding, BlobRef, Content, NodeId, PIN_BONUS, Profile,
};
use distsoc_engine::io::{
    Found, FoundBy, KeptView, MapCounts, MapView, PeerView, Slot, Status, StorageView, WideRole,
};
use distsoc_host::Host;
use distsoc_host::media::MediaType;
use distsoc_net::TrafficRow;
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
        "responses_dropped": host.responses_dropped(),
        "storage_trouble": status.storage_trouble.map(|trouble| trouble.to_string()),
        "anchors": status.anchors,
        "read_only": status.is_superseded,
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
        Some(2) if reporters.len() == 1 => {
            reasons.push("1 of your peers is connected to it".to_owned());
        }
        Some(3) if reporters.len() == 1 => {
            reasons.push("1 of your peers has a peer that is connected to it".to_owned());
        }
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

pub(crate) fn entry(shown: &Shown) -> Value {
    let entry = &shown.entry;
    let (visibility, text, reply_to, descriptions) = match &entry.body.content {
        Content::Public(content) => {
            let text = Some(content.text.as_str());
            ("public", text, content.parent, &content.descriptions[..])
        }
        Content::Sealed(_) => ("sealed", None, None, &[][..]),
    };
    let picture = |(index, (blob, media_type)): (usize, (&BlobRef, &Option<MediaType>))| {
        json!({
            "blob": blob.hash.to_string(),
            "length": blob.length,
            "alt": descriptions.get(index).map_or("", |alt| alt.as_str()),
            "media_type": media_type.map(MediaType::name),
            "url": format!("/v1/blobs/{}/{index}", entry.id),
            "thumbnail_url": format!("/v1/thumbnails/{}/{index}", entry.id),
        })
    };
    let blobs = entry.body.blobs.iter().zip(&shown.media_types);
    json!({
        "post_id": entry.id.to_string(),
        "author": entry.body.author.to_string(),
        "author_name": entry.author_name,
        "text": text,
        "created_at_ms": entry.body.created_at_ms,
        "arrived_at_ms": entry.arrived_ms,
        "visibility": visibility,
        "reply_to": reply_to.map(|id| id.to_string()),
        "hearts": shown.hearts,
        "pictures": blobs.enumerate().map(picture).collect::<Vec<_>>(),
        "cursor": entry.cursor.to_string(),
    })
}

pub(crate) fn storage(host: &Host, storage: &StorageView) -> Value {
    let usage = &storage.usage;
    json!({
        "budget_bytes": usage.budget_bytes,
        "disk_bytes": host.disk_bytes(),
        "file_bytes": usage.file_bytes,
        "row_bytes": usage.row_bytes,
        "row_room_bytes": usage.row_room_bytes,
        "blob_bytes": usage.blob_bytes,
        "blob_room_bytes": usage.blob_room_bytes,
        "is_shrinking": usage.is_shrinking,
        "own_bytes": storage.own.all,
        "own_bytes_max": storage.own_max.all,
        "own_row_bytes": storage.own.rows,
        "own_row_bytes_max": storage.own_max.rows,
        "pinned_bytes": storage.pinned_bytes,
        "followed_bytes": storage.followed_bytes,
        "hosted_bytes": storage.hosted_bytes,
        "files": storage.files,
        "authors": storage.authors,
        "next_to_go": storage.next_to_go.iter().map(kept).collect::<Vec<_>>(),
    })
}

/// The word for what one has to do with an author.
fn standing(standing: AuthorStanding) -> &'static str {
    match standing {
        AuthorStanding::Unknown => "none",
        AuthorStanding::Noticed => "more than 2 hearts",
        AuthorStanding::Liked => "more than 3 hearts",
        AuthorStanding::Popular => "more than 10 hearts",
        AuthorStanding::Followed => "followed",
        AuthorStanding::Audience => "audience",
    }
}

/// A stored post, its priority taken apart (PROTOCOL section 7).
pub(crate) fn kept(kept: &KeptView) -> Value {
    let facts = kept.worth.map(|(facts, _)| facts);
    let factors = facts.map(|facts| {
        json!({
            "relationship": facts.standing.factor(),
            "heart_recency": facts.hearted.factor(),
            "post_age": facts.written.factor(),
            "peer_copies": facts.copies,
            "pin_bonus": if facts.is_pinned { PIN_BONUS } else { 0 },
        })
    });
    json!({
        "post_id": kept.post.to_string(),
        "author": kept.author.to_string(),
        "bytes": kept.bytes,
        "missing_bytes": kept.missing_bytes,
        "is_own": kept.worth.is_none(),
        "is_pinned": facts.map(|facts| facts.is_pinned),
        "relationship": facts.map(|facts| standing(facts.standing)),
        "factors": factors,
        "priority": kept.worth.map(|(_, priority)| priority.to_f64()),
        "rank": kept.rank,
    })
}

/// The same with its reasons in sentences.
pub(crate) fn kept_explained(view: &KeptView, author_name: Option<&str>) -> Value {
    let mut reasons: Vec<String> = Vec::new();
    if view.author_is_equivocal {
        reasons.push(
            "its author signed two different lists with one number: two machines write under their key, or somebody else has it".to_owned(),
        );
    }
    match view.worth {
        None => reasons.push("this is your own post: it never goes to make room".to_owned()),
        Some((facts, priority)) => {
            if facts.is_pinned {
                reasons.push(format!("you pinned it, which adds {PIN_BONUS}"));
            }
            let why = match facts.standing {
                AuthorStanding::Audience => "you are in its author's audience",
                AuthorStanding::Followed => "you follow its author",
                AuthorStanding::Popular => "its author has more than 10 hearts from the network",
                AuthorStanding::Liked => "its author has more than 3 hearts from the network",
                AuthorStanding::Noticed => "its author has more than 2 hearts from the network",
                AuthorStanding::Unknown => "you have nothing to do with its author",
            };
            let factor = facts.standing.factor();
            reasons.push(format!("{why}, which counts {factor}"));
            let hearted = match facts.hearted {
                AgeWindow::LAST => "nobody whose heart counts gave it one of late",
                _ => "somebody whose heart counts gave it one lately enough",
            };
            let factor = facts.hearted.factor();
            reasons.push(format!("{hearted}, which counts {factor}"));
            let factor = facts.written.factor();
            reasons.push(format!("its age counts {factor}"));
            reasons.push(match facts.copies {
                0 => "no other copy is known nearby, so nothing is divided".to_owned(),
                1 => "1 other copy is known nearby, so it is divided by 2".to_owned(),
                copies => format!(
                    "{copies} other copies are known nearby, so it is divided by {}",
                    u32::from(copies) + 1
                ),
            });
            reasons.push(format!("its priority is {:.2}", priority.to_f64()));
        }
    }
    if let Some(rank) = view.rank {
        reasons.push(match rank {
            0 => "it would be the first to go".to_owned(),
            1 => "1 other would go before it".to_owned(),
            before => format!("{before} others would go before it"),
        });
    }
    if view.missing_bytes > 0 {
        let bytes = view.missing_bytes;
        reasons.push(format!(
            "{bytes} bytes of its pictures have not arrived yet"
        ));
    }
    let mut shown = kept(view);
    shown["author_name"] = json!(author_name);
    shown["reasons"] = json!(reasons);
    shown
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
