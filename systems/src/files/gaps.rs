//! PROTOCOL section 7, kept authors: what a stored list names and is not here is wanted again, after a start, a follow, or once there is
//! room for what had to go. A list that comes in is gone through where it is adopted.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, RecentPosts};
use distsoc_engine::io::{ReadId, ReadQuery, ReadResult};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::world::authors::{Author, AuthorIndex, AuthorsView, ListRechecks, PullsDue};
use distsoc_engine::world::deletions::Deletions;
use distsoc_engine::world::files::{Archive, FileIndex, KeepFloor, Wanted};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;
use std::collections::BTreeMap;

/// Lists that are being read.
#[derive(Resource, Debug, Default)]
struct Reading(BTreeMap<ReadId, NodeId>);

fn go_through(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut reading: ResMut<Reading>,
    mut archive: Archive,
    mut deletions: ResMut<Deletions>,
    floor: Res<KeepFloor>,
    mut wanted: ResMut<Wanted>,
    mut rechecks: ResMut<ListRechecks>,
    mut pulls_due: ResMut<PullsDue>,
    mut outbox: ResMut<Outbox>,
) {
    if reading.0.is_empty() {
        return;
    }
    for (node, result) in inbox.take_reads(|read| reading.0.remove(&read)) {
        // What cannot be read is brought by the next list.
        let Ok(ReadResult::RecentPosts(Some(stored))) = result else {
            continue;
        };
        let known = archive
            .author(&node)
            .and_then(|author| author.head.as_ref());
        if known != Some(&stored.head) {
            continue;
        }
        let Ok(list) = RecentPosts::verify(stored.head, stored.list) else {
            continue;
        };
        // A start knows the records of deletions, and of the others the list alone.
        for write in archive.bury(&list, &mut deletions) {
            outbox.store(write);
        }
        let lacking = archive.lacking(&list, &deletions, &floor);
        let Some(mut author) = archive.author_mut(&node) else {
            continue;
        };
        if !wanted.want(&mut author, lacking) {
            rechecks.0.insert(node);
        }
        if !author.missing.is_empty() {
            pulls_due.0.at(node, now.mono_ms);
        }
    }
}

fn look_up(
    storage: Res<Storage>,
    profile: Res<NodeProfile>,
    index: Res<FileIndex>,
    wanted: Res<Wanted>,
    mut rechecks: ResMut<ListRechecks>,
    mut reading: ResMut<Reading>,
    authors: AuthorsView,
    mut outbox: ResMut<Outbox>,
) {
    // What is missing could not be taken in.
    let has_room = storage.has_room_for_rows() && index.len() < profile.files_max;
    if !storage.takes_more() || !has_room || !wanted.has_room() {
        return;
    }
    while !rechecks.0.is_empty() && reading.0.len() < limits::LIST_RECHECKS_IN_FLIGHT_MAX {
        let Some(node) = rechecks.0.pop_first() else {
            return;
        };
        let author = authors.get(&node).filter(|author| author.is_kept());
        if author.is_some_and(|author| author.head.is_some()) {
            let read = outbox.read(ReadQuery::RecentPosts(node));
            reading.0.insert(read, node);
        }
    }
}

/// What stored lists name and is not here.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let authors: Vec<(NodeId, Entity)> = frame.world.resource::<AuthorIndex>().iter().collect();
    let kept = authors.into_iter().filter(|(_, entity)| {
        let author = frame.world.get::<Author>(*entity);
        author.is_some_and(Author::is_kept)
    });
    let kept = kept.map(|(node, _)| node).collect();
    frame.world.insert_resource(ListRechecks(kept));
    frame.world.insert_resource(Reading::default());
    frame.on(Occasions::READ, Phase::Ingest, go_through);
    frame.due(
        |glance| at_once_if(!glance.at::<ListRechecks>().0.is_empty()),
        Phase::Plan,
        look_up,
    );
}
