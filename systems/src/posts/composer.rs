//! PROTOCOL sections 4, 7 and 10.1: a person's own post is signed, listed and durable before anybody hears of it; then
//! every connection does at once.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    BlobRef, Content, Deletion, DeletionBody, Event, EventKind, MediaDescription, PostBody, PostId,
    PostText, PublicContent, RecentPosts, Signed, SignedPost, Verified,
};
use distsoc_engine::io::{
    BatchId, Call, CallError, CallId, Notice, OwnBytes, Reply, StoredFileRow, Write,
};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{AT_ONCE, Glance, Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{DeleteRecord, Packet, PacketSpec, PostNotification};
use distsoc_engine::world::authors::{OwnHead, Succession};
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::deletions::{Deletions, Proof};
use distsoc_engine::world::files::{Archive, Tally, row_bytes};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keepers::ListNews;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::pace::Pace;
use distsoc_engine::world::peers::{EveryPeer, PeerChanges, peers_changed};
use distsoc_engine::world::storage::Storage;
use std::collections::VecDeque;

/// Posts that wait for the one before them to be durable, at most.
const WAITING_MAX: usize = 1024;
/// Posts made durable in one batch, at most.
const BATCH_MAX: usize = 64;
/// Deletions, at most: so many have room with what is kept back for them where the disk is full.
const DELETIONS_MAX: usize = 16;

/// The own list, and posts on their way to it.
#[derive(Resource, Debug, Default)]
pub(crate) struct OwnPosts {
    /// The newest durable version.
    pub(crate) list: Option<Verified<RecentPosts>>,
    waiting: VecDeque<Draft>,
    under_way: Option<Batch>,
    said: Said,
}

/// How often peers were told of late: no more than they take.
#[derive(Debug, Default)]
struct Said {
    lists: Pace,
    deletions: Pace,
    /// The newest list was not told of yet.
    is_behind: bool,
}

impl Said {
    /// Whether a new list is told of now; else it is as soon as peers take it.
    fn tells_list(&mut self, now: Now) -> bool {
        let may = may_say(&mut self.lists, &PostNotification::SPEC, now.mono_ms);
        self.is_behind = !may;
        may
    }
}

/// Whether one more of this kind may be told, which then is.
fn may_say(pace: &mut Pace, spec: &PacketSpec, now_ms: u64) -> bool {
    let may = pace
        .next_ms(now_ms, spec.every_ms(), spec.at_once())
        .is_none();
    if may {
        pace.spend(now_ms, spec.every_ms());
    }
    may
}

/// What a person wants to have in their list.
#[derive(Debug)]
enum Act {
    Post {
        text: PostText,
        parent: Option<PostId>,
        media: Vec<(BlobRef, MediaDescription)>,
    },
    Delete(PostId),
}

impl Act {
    /// Whether it needs no room, and so must not fail for lack of it with others.
    fn is_deletion(&self) -> bool {
        matches!(self, Self::Delete(_))
    }
}

#[derive(Debug)]
struct Draft {
    call: CallId,
    act: Act,
}

/// What became of a draft.
#[derive(Debug)]
enum Deed {
    Post(SignedPost),
    Deletion(Deletion),
}

/// A deed and the list that it made.
#[derive(Debug)]
struct Made {
    call: CallId,
    deed: Deed,
    list: Verified<RecentPosts>,
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    made: Vec<Made>,
}

/// What every connection hears: the new head, the event, and the post where it is small.
fn notification(post: Option<&SignedPost>, list: &RecentPosts) -> PostNotification {
    let inline = post.filter(|post| post.bytes().body.len() <= limits::POST_INLINE_BYTES_MAX);
    PostNotification {
        head: list.head().clone(),
        newest: list.list().newest(1),
        post: inline.cloned(),
    }
}

fn take_drafts(
    succession: Res<Succession>,
    mut inbox: ResMut<Inbox>,
    mut own: ResMut<OwnPosts>,
    mut outbox: ResMut<Outbox>,
) {
    let drafts = inbox.take_calls(|call| match call {
        Call::Post {
            text,
            parent,
            media,
        } => Some(Act::Post {
            text: text.clone(),
            parent: *parent,
            media: media.clone(),
        }),
        Call::Delete(post) => Some(Act::Delete(*post)),
        _ => None,
    });
    for (call, act) in drafts {
        if let Err(refused) = succession.check() {
            outbox.reply(call, Err(refused));
        } else if own.waiting.len() >= WAITING_MAX {
            outbox.reply(
                call,
                Err(CallError::Refused(
                    "too many posts at once: try again in a moment",
                )),
            );
        } else {
            own.waiting.push_back(Draft { call, act });
        }
    }
}

/// What own content takes.
#[derive(Default)]
struct OwnContent {
    tally: Tally,
    bytes: OwnBytes,
}

impl OwnContent {
    /// With one more post.
    fn with(&self, row: &StoredFileRow, blobs: &BlobBook) -> OwnBytes {
        let mut bytes = self.bytes;
        bytes += OwnBytes {
            all: self.tally.of(row, blobs),
            rows: row_bytes(row.bytes),
        };
        bytes
    }
}

/// What deeds are made from.
#[derive(bevy_ecs::system::SystemParam)]
struct Desk<'w, 's> {
    now: Res<'w, Now>,
    identity: Res<'w, Identity>,
    profile: Res<'w, NodeProfile>,
    storage: Res<'w, Storage>,
    archive: Archive<'w, 's>,
}

impl Desk<'_, '_> {
    /// `own`: what own content takes, with what was made before.
    fn make(&self, act: Act, made: &[Made], own: &OwnContent) -> Result<(Deed, Event), CallError> {
        match act {
            Act::Post {
                text,
                parent,
                media,
            } => self.make_post(text, parent, media, made.len(), own),
            Act::Delete(post) => self.make_deletion(post, made),
        }
    }

    fn make_post(
        &self,
        text: PostText,
        parent: Option<PostId>,
        media: Vec<(BlobRef, MediaDescription)>,
        made: usize,
        own: &OwnContent,
    ) -> Result<(Deed, Event), CallError> {
        if self.archive.index.len() + made >= self.profile.files_max {
            return Err(CallError::Refused(
                "this node stores as many posts as its profile allows",
            ));
        }
        if media.len() > limits::POST_BLOBS_MAX {
            return Err(CallError::Refused("a post has 16 pictures at most"));
        }
        let (blobs, descriptions): (Vec<_>, Vec<_>) = media.into_iter().unzip();
        for blob in &blobs {
            let part = self.archive.blobs.get(blob);
            if !part.is_some_and(|part| part.is_whole()) {
                return Err(CallError::NotFound(
                    "a picture of this post is not stored here: upload it first",
                ));
            }
        }
        let body = PostBody {
            author: self.identity.node_id(),
            created_at_ms: self.now.wall_ms,
            content: Content::Public(PublicContent {
                text,
                parent,
                descriptions: Bounded::truncated(descriptions),
            }),
            blobs: Bounded::truncated(blobs),
        };
        let post = SignedPost::sign(body, self.identity.secret())
            .map_err(|_| CallError::Refused("a post must say something"))?;
        let most = self.storage.own_bytes_max();
        let own = own.with(&StoredFileRow::of(&post), &self.archive.blobs);
        if own.all > most.all {
            return Err(CallError::Refused(
                "own posts may take a quarter of the budget, and this one is past it: delete some, or raise the budget",
            ));
        }
        if own.rows > most.rows {
            return Err(CallError::Refused(
                "texts of own posts may take a sixth of the budget, and this one is past it: delete some, or raise the budget",
            ));
        }
        let event = Event {
            id: post.id(),
            created_at_s: (self.now.wall_ms / 1000) as u32,
            kind: EventKind::Public,
        };
        Ok((Deed::Post(post), event))
    }

    fn make_deletion(&self, post: PostId, made: &[Made]) -> Result<(Deed, Event), CallError> {
        let file = self.archive.get(&post);
        let is_gone = made
            .iter()
            .any(|made| matches!(&made.deed, Deed::Deletion(deletion) if deletion.post == post));
        let file = file
            .filter(|_| !is_gone)
            .ok_or(CallError::NotFound("that post is not stored here"))?;
        if file.row.author != self.identity.node_id() {
            return Err(CallError::Refused("only its author can take a post back"));
        }
        let body = DeletionBody {
            author: file.row.author,
            post,
            seq: self.now.wall_ms,
        };
        let event = Event {
            id: post,
            created_at_s: (self.now.wall_ms / 1000) as u32,
            kind: EventKind::Delete,
        };
        let deletion = Signed::sign(body, self.identity.secret());
        Ok((Deed::Deletion(deletion), event))
    }
}

fn compose(mut desk: Desk, mut own: ResMut<OwnPosts>, mut outbox: ResMut<Outbox>) {
    let own = &mut *own;
    let now = *desk.now;
    let (mut made, mut writes): (Vec<Made>, Vec<Write>) = (Vec::new(), Vec::new());
    let mut content = OwnContent::default();
    content.bytes = desk.archive.count_own(&mut content.tally);
    let deletes = own
        .waiting
        .front()
        .is_some_and(|draft| draft.act.is_deletion());
    let most = if deletes { DELETIONS_MAX } else { BATCH_MAX };
    let of_a_kind = |draft: &mut Draft| draft.act.is_deletion() == deletes;
    while let Some(Draft { call, act }) = own.waiting.pop_front_if(of_a_kind) {
        let (deed, event) = match desk.make(act, &made, &content) {
            Ok(made) => made,
            Err(error) => {
                outbox.reply(call, Err(error));
                continue;
            }
        };
        let known = made.last().map(|made| &made.list).or(own.list.as_ref());
        let already = |list: &Verified<RecentPosts>| {
            let mut events = list.list().iter();
            events.any(|known| known.id == event.id && known.kind == event.kind)
        };
        if known.is_some_and(already) {
            // The same text in the same millisecond is the same post.
            let again = CallError::Refused("this was posted just now");
            outbox.reply(call, Err(again));
            continue;
        }
        let seconds = (now.wall_ms / 1000) as u32;
        let secret = desk.identity.secret();
        let list = RecentPosts::append(known, event, seconds, now.wall_ms, secret);
        match &deed {
            Deed::Post(post) => {
                let row = StoredFileRow::of(post);
                content.bytes = content.with(&row, &desk.archive.blobs);
                content.tally.count(&row, &desk.archive.blobs);
                // A post of somebody else that names one may go before this one counts.
                for blob in post.body().blobs.iter() {
                    let until_ms = now.after(limits::STAGED_MS);
                    desk.archive.blobs.stage(*blob, until_ms);
                }
                writes.push(Write::Post {
                    post: Box::new(post.clone()),
                    arrived_ms: now.wall_ms,
                });
            }
            Deed::Deletion(deletion) => {
                writes.push(Write::Deletion(deletion.clone()));
                writes.push(Write::ForgetPost(deletion.post));
            }
        }
        made.push(Made { call, deed, list });
        if made.len() == most {
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
    mut archive: Archive,
    mut deletions: ResMut<Deletions>,
    mut own_head: ResMut<OwnHead>,
    mut news: ResMut<ListNews>,
    mut outbox: ResMut<Outbox>,
    mut everybody: EveryPeer,
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
            let mut packets = Vec::new();
            let reply = match made.deed {
                Deed::Post(post) => {
                    let (id, author) = (post.id(), post.body().author);
                    archive.add(StoredFileRow::of(&post));
                    for blob in post.body().blobs.iter() {
                        archive.blobs.unstage(&blob.hash);
                    }
                    if own.said.tells_list(*now) {
                        packets.push(Packet::from(notification(Some(&post), &made.list)));
                    }
                    outbox.notify(Notice::Post { id, author });
                    Reply::Posted(id)
                }
                Deed::Deletion(deletion) => {
                    // The list says so too, where no more are remembered.
                    let _ = deletions.insert(deletion.author, deletion.post, Proof::Record);
                    // The row went with the batch; blobs that no other post names go now.
                    for write in archive.forget(&deletion.post) {
                        outbox.store(write);
                    }
                    if own.said.tells_list(*now) {
                        packets.push(notification(None, &made.list).into());
                    }
                    // Whoever hears of the list alone asks for it.
                    if may_say(&mut own.said.deletions, &DeleteRecord::SPEC, now.mono_ms) {
                        let list_seq = made.list.head().seq.to_u64();
                        packets.push(DeleteRecord { deletion, list_seq }.into());
                    }
                    Reply::Done
                }
            };
            for packet in packets {
                everybody.send(&packet, &mut outbox);
            }
            outbox.reply(made.call, Ok(reply));
            own_head.0 = Some(made.list.head().clone());
            own.list = Some(made.list);
        }
        // Peers have heard it; others with a swarm link are called.
        news.0.push((archive.own(), None));
    }
}

/// Whoever comes up hears how new the own list is: a notification may have been lost with the connection before.
fn introduce(own: Res<OwnPosts>, changes: Res<PeerChanges>, mut outbox: ResMut<Outbox>) {
    let Some(list) = &own.list else { return };
    for (_, link, _) in changes.came_up() {
        outbox.send(link, &notification(None, list).into());
    }
}

fn catch_up_due(glance: &Glance<'_>) -> Option<u64> {
    let said = &glance.at::<OwnPosts>().said;
    let (spec, now_ms) = (PostNotification::SPEC, glance.at::<Now>().mono_ms);
    let next_ms = said.lists.next_ms(now_ms, spec.every_ms(), spec.at_once());
    said.is_behind.then_some(next_ms.unwrap_or(AT_ONCE))
}

/// The newest list is told of, where it was not for lack of room: whoever hears of it asks for what it names.
fn catch_up(
    now: Res<Now>,
    mut own: ResMut<OwnPosts>,
    mut outbox: ResMut<Outbox>,
    mut everybody: EveryPeer,
) {
    let OwnPosts { list, said, .. } = &mut *own;
    let Some(list) = list.as_ref().filter(|_| said.tells_list(*now)) else {
        return;
    };
    everybody.send(&notification(None, list).into(), &mut outbox);
}

/// The person's own posts.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let stored = frame.restored.own_list.take();
    let list = stored.and_then(|stored| RecentPosts::verify(stored.head, stored.list).ok());
    let head = list.as_ref().map(|list| list.head().clone());
    frame.world.insert_resource(OwnHead(head));
    frame.world.insert_resource(OwnPosts {
        list,
        ..OwnPosts::default()
    });
    frame.on(Occasions::BATCH, Phase::Ingest, publish);
    frame.on(Occasions::CALL, Phase::Judge, take_drafts);
    frame.due(
        |glance| {
            let own = glance.at::<OwnPosts>();
            at_once_if(!own.waiting.is_empty() && own.under_way.is_none())
        },
        Phase::Plan,
        compose,
    );
    frame.due(catch_up_due, Phase::Plan, catch_up);
    frame.due(peers_changed, Phase::Emit, introduce);
}
