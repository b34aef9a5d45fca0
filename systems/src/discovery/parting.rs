//! PROTOCOL sections 5 and 6: Goodbye, said and heard.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::{Goodbye, GoodbyeReason};
use distsoc_engine::world::candidates::{Candidates, cool_off_ms};
use distsoc_engine::world::hints::hints_for;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrival, Arrivals};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Greeting, Link, Partings, Peers, failed_to_greet, take_down};

/// PROTOCOL section 6: a full node answers Goodbye with peers to try, of whom at most 2 are dialled.
fn part(world: &mut World) {
    let arrivals = world.resource_mut::<Arrivals<Goodbye>>().take();
    for Arrival { link, packet, .. } in arrivals {
        let Some(entity) = world.resource::<Peers>().by_link(link) else {
            continue;
        };
        let (node, remote) = {
            let link = world
                .get::<Link>(entity)
                .expect("an entity in Peers has its Link");
            (link.node, link.remote)
        };
        let own = world.resource::<Identity>().node_id();
        let reason = packet.reason();
        let was_up = world.resource::<Peers>().by_node(&node) == Some(entity);
        if was_up {
            take_down(world, node);
        } else if world.entity_mut(entity).take::<Greeting>().is_some() {
            failed_to_greet(world, entity, node);
        }
        let candidate = world.resource::<Candidates>().get(&node);
        let is_anchor = candidate.is_some_and(|candidate| candidate.is_anchor);
        let failures = candidate.map_or(0, |candidate| candidate.failures);
        let lonely = world.resource::<Peers>().up_count() == 0;
        let pause_ms = match reason {
            GoodbyeReason::Full if is_anchor && lonely => limits::REDIAL_MS_MIN,
            // Who is full once is mostly full again.
            GoodbyeReason::Full | GoodbyeReason::Swapped | GoodbyeReason::Misconduct => {
                cool_off_ms(failures.saturating_sub(1))
            }
            GoodbyeReason::VisitOver => limits::REDIAL_MS_MAX,
            GoodbyeReason::Stopping | GoodbyeReason::Duplicate | GoodbyeReason::Silent => 0,
        };
        let pause_ms = world.resource_mut::<Entropy>().jittered(pause_ms);
        let until_ms = world.resource::<Now>().after(pause_ms);
        let mut hints = packet.try_instead.to_vec();
        world.resource_mut::<Entropy>().shuffle(&mut hints);
        let mut candidates = world.resource_mut::<Candidates>();
        candidates.postpone(&node, until_ms);
        let usable = hints
            .into_iter()
            .filter(|hint| hint.node_id != own && hint.address.fits_scope_of(remote.ip()));
        for hint in usable.take(limits::GOODBYE_HINTS_DIALLED_MAX) {
            candidates.hint(hint.node_id, hint.address);
        }
        world.resource_mut::<Outbox>().close(link, reason);
    }
}

/// Goodbye with peers to try where that helps, then the close.
fn take_leave(world: &mut World) {
    for (link, reason) in world.resource_mut::<Partings>().take() {
        let hints = match reason {
            GoodbyeReason::Full | GoodbyeReason::Swapped => {
                hints_for(world, link, limits::GOODBYE_HINTS_MAX)
            }
            _ => Vec::new(),
        };
        let mut outbox = world.resource_mut::<Outbox>();
        outbox.send(link, &Goodbye::new(reason, hints).into());
        outbox.close(link, reason);
    }
}

/// PROTOCOL section 10: whoever stops says so.
fn stop(mut outbox: ResMut<Outbox>, links: Query<&Link>) {
    for link in &links {
        outbox.send(
            link.id,
            &Goodbye::new(GoodbyeReason::Stopping, Vec::new()).into(),
        );
        outbox.close(link.id, GoodbyeReason::Stopping);
    }
}

/// Goodbyes heard.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::packet(&Goodbye::SPEC), Phase::Ingest, part);
}

/// Goodbyes said, after every feature decided whom to leave.
pub(crate) fn install_last(frame: &mut Installer<'_>) {
    frame.due(
        |glance| at_once_if(!glance.at::<Partings>().is_empty()),
        Phase::Emit,
        take_leave,
    );
    frame.on(Occasions::STOP, Phase::Emit, stop);
}
