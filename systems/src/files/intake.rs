//! PROTOCOL sections 7 and 13: what is stored. Only posts of kept authors, only proved ones, each once.

use crate::Installer;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemState;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{SignedPost, check_time};
use distsoc_engine::io::{Notice, StoredFileRow, Write};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Phase, at_once_if};
use distsoc_engine::world::authors::{ListRechecks, PostOffers, PulledPosts};
use distsoc_engine::world::copies::Holder;
use distsoc_engine::world::deletions::Deletions;
use distsoc_engine::world::files::{Archive, KeepFloor, Wanted, row_bytes};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::keepers::Keepers;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences};
use distsoc_engine::world::storage::Storage;

/// What decides whether a proved post is stored.
#[derive(bevy_ecs::system::SystemParam)]
struct Shelf<'w, 's> {
    now: Res<'w, Now>,
    profile: Res<'w, NodeProfile>,
    storage: Res<'w, Storage>,
    floor: Res<'w, KeepFloor>,
    deletions: Res<'w, Deletions>,
    archive: Archive<'w, 's>,
    wanted: ResMut<'w, Wanted>,
    keepers: ResMut<'w, Keepers>,
    rechecks: ResMut<'w, ListRechecks>,
    outbox: ResMut<'w, Outbox>,
    /// Bytes of rows that have room in this frame, beside what is on its way to the disk.
    row_room: Local<'s, u64>,
}

impl Shelf<'_, '_> {
    /// Reckons what room there is. What has none on the disk would be refused there, with what came in the same batch.
    fn look_for_room(&mut self) {
        let under_way = self.storage.in_flight.values().flatten();
        let under_way = under_way
            .chain(&self.storage.retry)
            .map(|write| match write {
                Write::Post { post, .. } => row_bytes(post.bytes().body.len() as u32),
                _ => 0,
            });
        let left = self.storage.row_bytes_left();
        *self.row_room = left.saturating_sub(under_way.sum());
    }

    fn store(&mut self, post: SignedPost, from: Option<&Link>) -> Result<(), Refusal> {
        let row = StoredFileRow::of(&post);
        let (id, author) = (row.id, row.author);
        let known = self.archive.author(&author).filter(|known| known.is_kept());
        let is_followed = known.ok_or(Refusal::NotKept)?.is_followed();
        if self.deletions.contains(&author, &id) {
            return Err(Refusal::Deleted);
        }
        if self.archive.index.contains(&id) {
            return Err(Refusal::Stale);
        }
        let is_missing = self.wanted.remove(&id).is_some();
        if is_missing && let Some(mut known) = self.archive.author_mut(&author) {
            known.no_longer_missing(&id);
        }
        check_time(post.body().created_at_ms, *self.now)?;
        let bytes = row_bytes(row.bytes);
        let has_room = bytes <= *self.row_room && self.archive.index.len() < self.profile.files_max;
        if !self.storage.takes_more() || !has_room {
            if is_missing {
                // It is wanted again once there is room.
                self.rechecks.0.insert(author);
            }
            return Err(Refusal::Full);
        }
        let worth = self.archive.worth_of(&author, row.created_at_s);
        if !self.floor.admits(&id, worth, row.created_at_s) {
            return Err(Refusal::Full);
        }
        if let Some(link) = from {
            let holder = Holder::of(link.node, link.remote.ip());
            let now_s = (self.now.wall_ms / 1000) as u32;
            self.archive.copies.saw(id, holder, now_s);
            self.keepers.saw(author, link.node);
        }
        *self.row_room -= bytes;
        self.archive.add(row);
        if is_followed {
            self.outbox.notify(Notice::Post { id, author });
        }
        self.outbox.store(Write::Post {
            post: Box::new(post),
            arrived_ms: self.now.wall_ms,
        });
        Ok(())
    }
}

fn take_in(
    mut offers: ResMut<PostOffers>,
    mut pulled: ResMut<PulledPosts>,
    mut offences: ResMut<Offences>,
    mut shelf: Shelf,
    links: Query<&Link>,
) {
    shelf.look_for_room();
    let by_id = |from| links.iter().find(|link| link.id == from);
    for offer in std::mem::take(&mut offers.0) {
        if let Err(refusal) = shelf.store(offer.post, by_id(offer.from)) {
            offences.note(offer.from, refusal, "Post");
        }
    }
    for (from, bytes) in std::mem::take(&mut pulled.0) {
        let wanted = &shelf.wanted;
        let proved = bytes.authenticate(|id| wanted.author_of(&id));
        let stored = proved.and_then(|post| shelf.store(post.into_inner(), by_id(from)));
        if let Err(refusal) = stored {
            offences.note(from, refusal, "Post");
        }
    }
}

/// What is stored.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let files = std::mem::take(&mut frame.restored.files);
    let hearts = std::mem::take(&mut frame.restored.hearts);
    let mut state = SystemState::<(Archive, Res<Identity>)>::new(frame.world);
    let (mut archive, identity) = state
        .get_mut(frame.world)
        .expect("every resource of an archive is there");
    for (heart, hash) in &hearts {
        let author = archive.authors.get(&heart.person);
        let is_known = author.is_some() || heart.person == identity.node_id();
        archive.hearts.restore(heart, hash, is_known);
    }
    for row in files {
        if row.author != identity.node_id() {
            archive.copies.restore(row.id, row.created_at_s);
        }
        archive.add(row);
    }
    state.apply(frame.world);
    frame.due(
        |glance| {
            let is_offered = !glance.at::<PostOffers>().0.is_empty();
            at_once_if(is_offered || !glance.at::<PulledPosts>().0.is_empty())
        },
        Phase::Judge,
        take_in,
    );
}
