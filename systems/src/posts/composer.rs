//! PROTOCOL sections 4, 7 and 10.1: a person's own post is signed, listed and durable before anybody hears of it; then
//! every connection does at once.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    BlobRef, Content, Event, EventKind, MediaDescription, PostBody, PostId, PostText,
    PublicContent, RecentPosts, SignedPost, Verified,
};
use distsoc_engine::io::{BatchId, Call, CallError, CallId, Notice, Reply, Write};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Packet, PostNotification};
use distsoc_engine::world::files::{FileIndex, StoredFile};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, PeerChanges};
use std::collections::VecDeque;

/// Posts that wait for the one before them to be durable, at most.
const WAITING_MAX: usize = 1024;
/// Posts made durable in one batch, at most.
const BATCH_MAX: usize = 64;

/// The own list, and posts on their way to it.
#[derive(Resource, Debug, Default)]
pub(crate) struct OwnPosts {
    /// The newest durable version.
    pub(crate) list: Option<Verified<RecentPosts>>,
    waiting: VecDeque<Draft>,
    under_way: Option<Batch>,
}

#[derive(Debug)]
struct Draft {
    call: CallId,
    text: PostText,
    parent: Option<PostId>,
    media: Vec<(BlobRef, MediaDescription)>,
}

/// A post and the list that it made.
#[derive(Debug)]
struct Made {
    call: CallId,
    post: SignedPost,
    list: Verified<RecentPosts>,
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    made: Vec<Made>,
}

/// What every connection hears: the new head, the event, and the post where it is small.
fn notification(post: &SignedPost, list: &RecentPosts) -> PostNotification {
    let inline = post.bytes().body.len() <= limits::POST_INLINE_BYTES_MAX;
    PostNotification {
        head: list.head().clone(),
        newest: list.list().newest(1),
        post: inline.then(|| post.clone()),
    }
}

fn body_of(draft: &Draft, identity: &Identity, now: Now) -> PostBody {
    let (blobs, descriptions) = draft.media.iter().cloned().unzip();
    PostBody {
        author: identity.node_id(),
        created_at_ms: now.wall_ms,
        content: Content::Public(PublicContent {
            text: draft.text.clone(),
            parent: draft.parent,
            descriptions: Bounded::truncated(descriptions),
        }),
        blobs: Bounded::truncated(blobs),
    }
}

fn take_drafts(mut inbox: ResMut<Inbox>, mut own: ResMut<OwnPosts>, mut outbox: ResMut<Outbox>) {
    let drafts = inbox.take_calls(|call| match call {
        Call::Post {
            text,
            parent,
            media,
        } => Some((text.clone(), *parent, media.clone())),
        _ => None,
    });
    for (call, (text, parent, media)) in drafts {
        if own.waiting.len() >= WAITING_MAX {
            outbox.reply(
                call,
                Err(CallError::Refused(
                    "too many posts at once: try again in a moment",
                )),
            );
        } else {
            own.waiting.push_back(Draft {
                call,
                text,
                parent,
                media,
            });
        }
    }
}

fn compose(
    now: Res<Now>,
    identity: Res<Identity>,
    profile: Res<NodeProfile>,
    files: Res<FileIndex>,
    mut own: ResMut<OwnPosts>,
    mut outbox: ResMut<Outbox>,
) {
    if own.waiting.is_empty() || own.under_way.is_some() {
        return;
    }
    let own = &mut *own;
    let (mut made, mut writes): (Vec<Made>, Vec<Write>) = (Vec::new(), Vec::new());
    while let Some(draft) = own.waiting.pop_front() {
        if files.len() + made.len() >= profile.files_max {
            let full = "this node stores as many posts as its profile allows";
            outbox.reply(draft.call, Err(CallError::Refused(full)));
            continue;
        }
        let post = match SignedPost::sign(body_of(&draft, &identity, *now), identity.secret()) {
            Ok(post) => post,
            Err(_) => {
                outbox.reply(
                    draft.call,
                    Err(CallError::Refused("a post must say something")),
                );
                continue;
            }
        };
        let known = made.last().map(|made| &made.list).or(own.list.as_ref());
        let already =
            |list: &Verified<RecentPosts>| list.list().iter().any(|event| event.id == post.id());
        if known.is_some_and(already) {
            // The same text in the same millisecond is the same post.
            outbox.reply(
                draft.call,
                Err(CallError::Refused("this was posted just now")),
            );
            continue;
        }
        let seconds = (now.wall_ms / 1000) as u32;
        let event = Event {
            id: post.id(),
            created_at_s: seconds,
            kind: EventKind::Public,
        };
        let list = RecentPosts::append(known, event, seconds, now.wall_ms, identity.secret());
        writes.push(Write::Post {
            post: Box::new(post.clone()),
            arrived_ms: now.wall_ms,
        });
        made.push(Made {
            call: draft.call,
            post,
            list,
        });
        if made.len() == BATCH_MAX {
            break;
        }
    }
    if let Some(last) = made.last() {
        writes.push(Write::RecentPosts {
            head: last.list.head().clone(),
            list: last.list.list().clone(),
        });
        let id = outbox.store_durable(writes);
        own.under_way = Some(Batch { id, made });
    }
}

fn publish(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut own: ResMut<OwnPosts>,
    mut files: ResMut<FileIndex>,
    mut outbox: ResMut<Outbox>,
    mut commands: Commands,
    mut peers: Query<(&Link, &mut Peer)>,
) {
    if own.under_way.is_none() {
        return;
    }
    let own = &mut *own;
    let under_way = &mut own.under_way;
    let ends = inbox.take_batches(|batch| under_way.take_if(|waiting| waiting.id == batch));
    for (batch, result) in ends {
        for made in batch.made {
            if let Err(trouble) = result {
                outbox.reply(made.call, Err(CallError::Storage(trouble)));
                continue;
            }
            let (id, body) = (made.post.id(), made.post.body());
            let file = StoredFile {
                id,
                author: body.author,
                created_at_s: (body.created_at_ms / 1000) as u32,
                bytes: made.post.bytes().body.len() as u32,
            };
            files.insert(id, commands.spawn(file).id());
            let bytes = Packet::from(notification(&made.post, &made.list)).encode();
            for (link, mut peer) in &mut peers {
                outbox.send_bytes(link.id, bytes.clone());
                peer.spoke_ms = now.mono_ms;
            }
            outbox.reply(made.call, Ok(Reply::Posted(id)));
            outbox.notify(Notice::Post {
                id,
                author: body.author,
            });
            own.list = Some(made.list);
        }
    }
}

/// Whoever comes up hears how new the own list is: a notification may have been lost with the connection before.
fn introduce(own: Res<OwnPosts>, changes: Res<PeerChanges>, mut outbox: ResMut<Outbox>) {
    let Some(list) = &own.list else { return };
    for (_, link, _) in changes.came_up() {
        let newest = PostNotification {
            head: list.head().clone(),
            newest: list.list().newest(1),
            post: None,
        };
        outbox.send(link, &newest.into());
    }
}

/// The person's own posts.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let stored = frame.restored.own_list.take();
    let list = stored.and_then(|stored| RecentPosts::verify(stored.head, stored.list).ok());
    frame.world.insert_resource(OwnPosts {
        list,
        ..OwnPosts::default()
    });
    frame.on(Occasions::BATCH, Phase::Ingest, publish);
    frame.on(Occasions::CALL, Phase::Judge, take_drafts);
    frame.add(Phase::Plan, compose);
    frame.add(Phase::Emit, introduce);
}
