//! PROTOCOL sections 7 and 9, deletion: what an author took back is dropped wherever it is seen, and nothing brings it back, neither
//! a holder that has not heard of it, nor an old notification.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::domain::Deletion;
use distsoc_engine::io::{LinkId, Write};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::DeleteRecord;
use distsoc_engine::world::authors::ListHints;
use distsoc_engine::world::deletions::{DeletionOffers, Deletions, Proof};
use distsoc_engine::world::files::{Archive, Wanted};
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::keepers::Swarm;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Offences;

fn bury(
    mut arrivals: ResMut<Arrivals<DeleteRecord>>,
    mut offers: ResMut<DeletionOffers>,
    mut deletions: ResMut<Deletions>,
    mut wanted: ResMut<Wanted>,
    mut archive: Archive,
    swarm: Swarm,
    mut hints: ListHints,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    if arrivals.is_empty() && offers.0.is_empty() {
        return;
    }
    let pushed = arrivals.take().into_iter();
    let pushed = pushed.map(|arrival| {
        (
            Some((arrival.link, arrival.packet.list_seq)),
            arrival.packet.deletion,
        )
    });
    let pulled = std::mem::take(&mut offers.0);
    let all: Vec<(Option<(LinkId, u64)>, Deletion)> = pushed
        .chain(pulled.into_iter().map(|deletion| (None, deletion)))
        .collect();
    for (from, deletion) in all {
        let (author, post) = (deletion.author, deletion.post);
        let refusal = match archive.author_mut(&author) {
            Some(mut known) if known.is_kept() => {
                if wanted.author_of(&post) == Some(author) {
                    wanted.remove(&post);
                    known.no_longer_missing(&post);
                }
                deletions.insert(author, post, Proof::Record).err()
            }
            _ => Some(Refusal::NotKept),
        };
        if let Some(refusal) = refusal {
            if let Some((link, _)) = from {
                offences.note(link, refusal, "DeleteRecord");
            }
            continue;
        }
        outbox.store(Write::Deletion(deletion.clone()));
        // It suppresses that author's post alone.
        if archive
            .get(&post)
            .is_some_and(|file| file.row.author == author)
        {
            for write in archive.forget(&post) {
                outbox.store(write);
            }
        }
        let Some((from, list_seq)) = from else {
            continue;
        };
        let not_to = swarm.behind(from);
        if let Some(reporter) = not_to {
            hints.hear(author, archive.author(&author), list_seq, (from, reporter));
        }
        let list_seq = hints.version(&author, archive.author(&author));
        let packet = DeleteRecord { deletion, list_seq }.into();
        swarm.relay(&author, &packet, [not_to, Some(author)], &mut outbox);
    }
}

/// What authors took back.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let mut deletions = frame.world.resource_mut::<Deletions>();
    for (author, post) in std::mem::take(&mut frame.restored.deletions) {
        // The disk holds no more than may be remembered.
        let _ = deletions.insert(author, post, Proof::Record);
    }
    let mut brought = Occasions::packet(&DeleteRecord::SPEC);
    brought.add(Occasions::RESPONSE);
    frame.on(brought, Phase::Judge, bury);
}
