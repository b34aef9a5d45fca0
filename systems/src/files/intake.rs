//! PROTOCOL sections 7 and 13: what is stored. Only posts of kept authors, only proved ones, each once.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{SignedPost, check_time};
use distsoc_engine::io::{LinkId, Notice, Write};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::Phase;
use distsoc_engine::world::authors::{Author, AuthorIndex, PostOffers, PulledPosts};
use distsoc_engine::world::files::{FileIndex, StoredFile, Wanted};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Offences;
use distsoc_engine::world::storage::Storage;

/// What decides whether a proved post is stored.
#[derive(bevy_ecs::system::SystemParam)]
struct Shelf<'w, 's> {
    now: Res<'w, Now>,
    profile: Res<'w, NodeProfile>,
    storage: Res<'w, Storage>,
    index: Res<'w, AuthorIndex>,
    authors: Query<'w, 's, &'static mut Author>,
    files: ResMut<'w, FileIndex>,
    wanted: ResMut<'w, Wanted>,
    outbox: ResMut<'w, Outbox>,
    commands: Commands<'w, 's>,
}

impl Shelf<'_, '_> {
    fn store(&mut self, post: SignedPost) -> Result<(), Refusal> {
        let (id, body) = (post.id(), post.body());
        let author = self
            .index
            .get(&body.author)
            .and_then(|entity| self.authors.get_mut(entity).ok());
        let mut author = author
            .filter(|author| author.is_kept())
            .ok_or(Refusal::NotKept)?;
        if self.files.contains(&id) {
            return Err(Refusal::Stale);
        }
        check_time(body.created_at_ms, *self.now)?;
        if !self.storage.takes_more() || self.files.len() >= self.profile.files_max {
            return Err(Refusal::Full);
        }
        if self.wanted.remove(&id).is_some() {
            author.missing.retain(|missing| *missing != id);
        }
        let file = StoredFile {
            id,
            author: body.author,
            created_at_s: (body.created_at_ms / 1000) as u32,
            bytes: post.bytes().body.len() as u32,
        };
        self.files.insert(id, self.commands.spawn(file).id());
        self.outbox.notify(Notice::Post {
            id,
            author: file.author,
        });
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
) {
    if offers.0.is_empty() && pulled.0.is_empty() {
        return;
    }
    let mut refused: Vec<(LinkId, Refusal)> = Vec::new();
    for offer in std::mem::take(&mut offers.0) {
        if let Err(refusal) = shelf.store(offer.post) {
            refused.push((offer.from, refusal));
        }
    }
    for (from, bytes) in std::mem::take(&mut pulled.0) {
        let wanted = &shelf.wanted;
        let proved = bytes.authenticate(|id| wanted.author_of(&id));
        if let Err(refusal) = proved.and_then(|post| shelf.store(post.into_inner())) {
            refused.push((from, refusal));
        }
    }
    for (from, refusal) in refused {
        offences.note(from, refusal, "Post");
    }
}

/// What is stored.
pub(crate) fn install(frame: &mut Installer<'_>) {
    for row in std::mem::take(&mut frame.restored.files) {
        let file = StoredFile {
            id: row.id,
            author: row.author,
            created_at_s: row.created_at_s,
            bytes: row.bytes,
        };
        let entity = frame.world.spawn(file).id();
        frame
            .world
            .resource_mut::<FileIndex>()
            .insert(row.id, entity);
    }
    frame.add(Phase::Judge, take_in);
}
