//! PROTOCOL section 7, swarm links: keepers that are no peers are called for what there is to say, so many times an hour, and left
//! once nothing more is said. Whoever is called asks for what is new over the same connection.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{DialTarget, Slot};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    AuthorUpdatePush, GoodbyeReason, ListDigest, Purpose, SwarmLink, SwarmWish,
};
use distsoc_engine::world::authors::KeptLists;
use distsoc_engine::world::keepers::{Keepers, SwarmCall, SwarmCalls};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::pace::Pace;
use distsoc_engine::world::peers::{Link, Neighbours, Partings, is_tellable};
use distsoc_engine::world::searches::{Errand, Errands};
use std::collections::BTreeMap;

const HOUR_MS: u64 = 60 * 60 * 1000;
/// One more call may be made after this.
const CALL_EVERY_MS: u64 = HOUR_MS / limits::SWARM_CALLS_PER_HOUR;
/// Offers in one call, at most: a peer takes so many a minute.
const OFFERS_PER_CALL: usize = 32;

/// A call under way.
#[derive(Debug)]
enum Calling {
    /// Being dialled, until when: mono ms.
    Dialled(SwarmCall, u64),
    /// Said, at which time.
    Said(u64),
}

/// Calls under way, and how many more may be made.
#[derive(Resource, Debug, Default)]
struct Line {
    under_way: BTreeMap<NodeId, Calling>,
    pace: Pace,
}

impl Line {
    /// When one more call may be made; `None` means at once.
    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.pace
            .next_ms(now_ms, CALL_EVERY_MS, limits::SWARM_CALLS_PER_HOUR / 4)
    }

    /// A call is made.
    fn call(&mut self, now_ms: u64) {
        self.pace.spend(now_ms, CALL_EVERY_MS);
    }
}

fn say(
    link: &Link,
    call: &SwarmCall,
    lists: &KeptLists,
    keepers: &Keepers,
    now: Now,
    outbox: &mut Outbox,
) {
    let heads = call.news.iter().filter_map(|author| lists.head(author));
    let digests: Vec<ListDigest> = heads.map(ListDigest::of).collect();
    for some in digests.chunks(limits::PUSH_AUTHORS_MAX) {
        let digests = Bounded::truncated(some.to_vec());
        outbox.send(link.id, &AuthorUpdatePush { digests }.into());
    }
    let offers = call.offers.iter().filter_map(|author| lists.head(author));
    for head in offers.take(OFFERS_PER_CALL) {
        let offer = SwarmLink::new(ListDigest::of(head), SwarmWish::Offer);
        outbox.send(link.id, &offer.into());
    }
    for (author, other) in call.ends.iter().take(OFFERS_PER_CALL) {
        let Some(head) = lists.head(author) else {
            continue;
        };
        // Whoever has the place has one for the other in turn.
        let other = keepers.place(other);
        let other = other.filter(|record| is_tellable(record, link.remote, now));
        let end = SwarmLink::new(ListDigest::of(head), SwarmWish::End);
        let end = end.naming(other.cloned().into_iter().collect());
        outbox.send(link.id, &end.into());
    }
}

fn call(
    now: Res<Now>,
    lists: KeptLists,
    neighbours: Neighbours,
    mut keepers: ResMut<Keepers>,
    mut calls: ResMut<SwarmCalls>,
    mut line: ResMut<Line>,
    mut errands: ResMut<Errands>,
    mut outbox: ResMut<Outbox>,
) {
    while line.under_way.len() < limits::SWARM_CALLS_IN_FLIGHT_MAX && errands.has_room() {
        if let Some(at_ms) = line.next_ms(now.mono_ms) {
            outbox.wake_at(at_ms);
            break;
        }
        let Some((node, says)) = calls.pop() else {
            break;
        };
        if let Some((link, _)) = neighbours.by_node(&node) {
            say(link, &says, &lists, &keepers, *now, &mut outbox);
            continue;
        }
        if let Some(Calling::Dialled(waiting, _)) = line.under_way.get_mut(&node) {
            waiting.add(says);
            continue;
        }
        // What cannot be said now is not: others say it too, and links are looked for again.
        let Some(record) = keepers
            .place(&node)
            .filter(|record| record.is_current(*now))
        else {
            keepers.called(&node, false);
            continue;
        };
        let addresses = record.addresses.to_vec();
        line.call(now.mono_ms);
        let errand = Errand {
            target: DialTarget::Addresses(addresses),
            purpose: Purpose::Visit,
        };
        let has_room = errands.want(node, errand);
        assert!(has_room, "that was just looked at");
        let until_ms = now.after(limits::VISIT_MS_MAX);
        line.under_way
            .insert(node, Calling::Dialled(says, until_ms));
        outbox.wake_at(now.mono_ms);
    }
}

fn attend(
    now: Res<Now>,
    lists: KeptLists,
    neighbours: Neighbours,
    mut keepers: ResMut<Keepers>,
    mut line: ResMut<Line>,
    mut errands: ResMut<Errands>,
    mut partings: ResMut<Partings>,
    mut outbox: ResMut<Outbox>,
) {
    line.under_way.retain(|node, calling| {
        let up = neighbours.by_node(node);
        match (&*calling, up) {
            (Calling::Dialled(says, _), Some((link, _))) => {
                keepers.called(node, true);
                say(link, says, &lists, &keepers, *now, &mut outbox);
                *calling = Calling::Said(now.mono_ms);
                outbox.wake_at(now.after(limits::SWARM_CALL_QUIET_MS));
                true
            }
            // What was not dialled was said to nobody: others say it too.
            (Calling::Dialled(..), None) if errands.take_declined(node) => false,
            (Calling::Dialled(_, until_ms), None)
                if *until_ms <= now.mono_ms && errands.give_up(node) =>
            {
                false
            }
            (Calling::Dialled(_, until_ms), None) => {
                let is_late = *until_ms <= now.mono_ms;
                match is_late {
                    true => keepers.called(node, false),
                    false => outbox.wake_at(*until_ms),
                }
                !is_late
            }
            (Calling::Said(at_ms), Some((link, peer))) => {
                let last_ms = peer.heard_ms.max(peer.spoke_ms).max(*at_ms);
                let quiet_ms = last_ms + limits::SWARM_CALL_QUIET_MS;
                let quiet_ms = quiet_ms.min(*at_ms + limits::SWARM_CALL_MS_MAX);
                if now.mono_ms < quiet_ms {
                    outbox.wake_at(quiet_ms);
                    return true;
                }
                // It may have become something else.
                if peer.slot == Slot::Visit && link.dialled() {
                    partings.from(link.id, GoodbyeReason::VisitOver);
                }
                false
            }
            (Calling::Said(_), None) => false,
        }
    });
}

/// Calls.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Line::default());
    frame.due(
        |glance| at_once_if(!glance.at::<Line>().under_way.is_empty()),
        Phase::Plan,
        attend,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<SwarmCalls>().is_empty()),
        Phase::Plan,
        call,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_calls_an_hour_and_a_quarter_of_them_at_once() {
        let mut line = Line::default();
        let mut calls = |now_ms| {
            let mut count = 0;
            while line.next_ms(now_ms).is_none() {
                line.call(now_ms);
                count += 1;
            }
            count
        };
        assert_eq!(calls(HOUR_MS), limits::SWARM_CALLS_PER_HOUR / 4);
        assert_eq!(calls(HOUR_MS), 0);
        assert_eq!(calls(2 * HOUR_MS), limits::SWARM_CALLS_PER_HOUR / 4);
    }
}
