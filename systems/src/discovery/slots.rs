//! PROTOCOL section 6, connection slots: who gets one, and whose place a better peer takes (open question 1). Of two
//! connections between the same nodes one stays (section 5).

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{CallError, LinkId, Notice, Slot};
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::Phase;
use distsoc_engine::wire::{GoodbyeReason, Purpose};
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::candidates::{Candidates, CoolOffs, Dialling, Lost};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Link, Partings, Peer, PeerChange, PeerChanges, Peers, proved_address, take_down,
};
use distsoc_engine::world::slots::{SeatRequest, SeatRequests, Worth, worth_of};

/// Somebody who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Incumbent {
    node: NodeId,
    link: LinkId,
    slot: Slot,
    worth: Worth,
    is_anchor: bool,
    /// Dialled in, and one has nothing to do with them.
    is_stranger: bool,
    up_since_ms: u64,
}

/// Somebody who wants a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Challenger {
    purpose: Purpose,
    worth: Worth,
    is_anchor: bool,
}

/// What a challenger gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    /// A free slot.
    Free(Slot),
    /// The slot of this incumbent, who has to go.
    InsteadOf(Incumbent),
    /// None.
    Full,
}

/// Finds a seat. `swap_allowed` says that the last swap was long enough ago.
fn seat(
    challenger: Challenger,
    incumbents: &[Incumbent],
    profile: &NodeProfile,
    swap_allowed: bool,
    now_ms: u64,
) -> Seat {
    let used = |slot| {
        incumbents
            .iter()
            .filter(|incumbent| incumbent.slot == slot)
            .count()
    };
    if challenger.purpose == Purpose::Visit {
        return match used(Slot::Visit) < profile.visits_max {
            true => Seat::Free(Slot::Visit),
            false => Seat::Full,
        };
    }
    let wide_others = incumbents
        .iter()
        .filter(|incumbent| incumbent.slot == Slot::Wide && !incumbent.is_anchor)
        .count();
    let social_free = used(Slot::Social) < profile.social_slots;
    let wide_free = used(Slot::Wide) < profile.wide_slots
        && (challenger.is_anchor || wide_others < profile.wide_slots - profile.wide_anchor_slots);
    let prefers_wide = challenger.worth == Worth::Anybody
        && (challenger.is_anchor || challenger.purpose == Purpose::Wide);
    match (social_free, wide_free) {
        (_, true) if prefers_wide => Seat::Free(Slot::Wide),
        (true, _) => Seat::Free(Slot::Social),
        (false, true) => Seat::Free(Slot::Wide),
        (false, false) if swap_allowed => {
            weakest_beaten(challenger, incumbents, now_ms).map_or(Seat::Full, Seat::InsteadOf)
        }
        (false, false) => Seat::Full,
    }
}

/// The weakest social incumbent, if the challenger beats it by the margin and it is not safe.
fn weakest_beaten(
    challenger: Challenger,
    incumbents: &[Incumbent],
    now_ms: u64,
) -> Option<Incumbent> {
    let is_safe = |incumbent: &&Incumbent| {
        !incumbent.is_stranger && now_ms < incumbent.up_since_ms + limits::INCUMBENT_SAFE_MS
    };
    let weakest = incumbents
        .iter()
        .filter(|incumbent| incumbent.slot == Slot::Social && !is_safe(incumbent))
        .min_by_key(|incumbent| {
            (
                incumbent.worth,
                std::cmp::Reverse(incumbent.up_since_ms),
                incumbent.node,
            )
        })?;
    let beaten =
        challenger.worth.points() * 100 >= weakest.worth.points() * limits::SWAP_MARGIN_PERCENT;
    beaten.then_some(*weakest)
}

/// When the last swap was.
#[derive(Resource, Debug, Default)]
struct Swaps {
    last_ms: Option<u64>,
}

impl Swaps {
    fn allowed(&self, now_ms: u64) -> bool {
        self.last_ms
            .is_none_or(|last| now_ms >= last + limits::SWAP_PAUSE_MS)
    }
}

/// Everybody who has a slot, in the order of their ids.
fn incumbents(world: &World, now_ms: u64) -> Vec<Incumbent> {
    let up: Vec<(NodeId, Entity)> = world.resource::<Peers>().up().collect();
    up.into_iter()
        .filter_map(|(node, entity)| {
            let (link, peer) = (world.get::<Link>(entity)?, world.get::<Peer>(entity)?);
            let worth = worth_of(world, &node, peer.synced_ms, now_ms);
            Some(Incumbent {
                node,
                link: link.id,
                slot: peer.slot,
                worth,
                is_anchor: peer.is_anchor(),
                is_stranger: !link.dialled() && worth == Worth::Anybody,
                up_since_ms: peer.up_since_ms,
            })
        })
        .collect()
}

/// Seats a challenger, sending away whoever has to go; `None` where there is no place.
fn take_seat(world: &mut World, challenger: Challenger) -> Option<Slot> {
    let now = *world.resource::<Now>();
    let incumbents = incumbents(world, now.mono_ms);
    let swap_allowed = world.resource::<Swaps>().allowed(now.mono_ms);
    match seat(
        challenger,
        &incumbents,
        world.resource::<NodeProfile>(),
        swap_allowed,
        now.mono_ms,
    ) {
        Seat::Free(slot) => Some(slot),
        Seat::Full => None,
        Seat::InsteadOf(incumbent) => {
            world.resource_mut::<Swaps>().last_ms = Some(now.mono_ms);
            world
                .resource_mut::<CoolOffs>()
                .drop_peer(incumbent.node, now.mono_ms);
            world
                .resource_mut::<Partings>()
                .from(incumbent.link, GoodbyeReason::Swapped);
            take_down(world, incumbent.node);
            Some(incumbent.slot)
        }
    }
}

/// Two connections between the same nodes cross if they began within this time; further apart, the newer one stays,
/// since the older may be dead on the other side.
const CROSSING_MS: u64 = 5_000;

/// A connection between two nodes, for deciding which of two stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rival {
    dialled: bool,
    since_ms: u64,
}

/// PROTOCOL section 5: of two that cross, the one dialled by the smaller NodeId stays; a newer one by the same dialler
/// replaces the older.
fn newer_stays(own: &NodeId, peer: &NodeId, older: Rival, newer: Rival) -> bool {
    let crossing = older.dialled != newer.dialled && newer.since_ms < older.since_ms + CROSSING_MS;
    if !crossing {
        return true;
    }
    newer.dialled == (own < peer)
}

fn give_seats(world: &mut World) {
    if world.resource::<SeatRequests>().0.is_empty() {
        return;
    }
    for request in std::mem::take(&mut world.resource_mut::<SeatRequests>().0) {
        give_seat(world, request);
    }
}

fn give_seat(world: &mut World, request: SeatRequest) {
    let now = *world.resource::<Now>();
    let entity = request.entity;
    let link = world
        .get::<Link>(entity)
        .expect("an entity in Peers has its Link");
    let (node, dialled) = (link.node, link.dialled());
    let newer = Rival {
        dialled,
        since_ms: link.since_ms,
    };
    let Some((slot, up_since_ms)) = find_seat(world, node, newer, &request) else {
        refuse_seat(world, entity, request.link, node, dialled);
        return;
    };
    let SeatRequest {
        link,
        hello,
        record,
        ..
    } = request;
    world.entity_mut(entity).insert(Peer {
        slot,
        profile: hello.profile(),
        behind_nat: hello.behind_nat(),
        unlisted: hello.unlisted(),
        record,
        person: None,
        up_since_ms: up_since_ms.unwrap_or(now.mono_ms),
        heard_ms: now.mono_ms,
        spoke_ms: now.mono_ms,
        synced_ms: None,
    });
    world
        .resource_mut::<OwnAddresses>()
        .observe(node, hello.observed);
    world.resource_mut::<Peers>().insert_up(node, entity);
    remember(world, node, entity, now);
    world
        .resource_mut::<PeerChanges>()
        .0
        .push(PeerChange::Up { node, link, slot });
    if up_since_ms.is_none() {
        world
            .resource_mut::<Outbox>()
            .notify(Notice::PeerUp { node, slot });
    }
}

/// The slot for a connection whose Hello came, and since when the peer is up if this one replaces another.
fn find_seat(
    world: &mut World,
    node: NodeId,
    newer: Rival,
    request: &SeatRequest,
) -> Option<(Slot, Option<u64>)> {
    let now = *world.resource::<Now>();
    let own = world.resource::<Identity>().node_id();
    if let Some(older_entity) = world.resource::<Peers>().by_node(&node) {
        let older_link = world
            .get::<Link>(older_entity)
            .expect("an entity in Peers has its Link");
        let older = Rival {
            dialled: older_link.dialled(),
            since_ms: older_link.since_ms,
        };
        let older_id = older_link.id;
        if !newer_stays(&own, &node, older, newer) {
            return None;
        }
        world
            .resource_mut::<Outbox>()
            .close(older_id, GoodbyeReason::Duplicate);
        world.resource_mut::<Peers>().remove_up(node);
        let replaced = world
            .entity_mut(older_entity)
            .take::<Peer>()
            .expect("a peer that is up");
        return Some((replaced.slot, Some(replaced.up_since_ms)));
    }
    let wants = match (newer.dialled, request.hello.purpose()) {
        (_, Purpose::Visit) => Purpose::Visit,
        (true, _) => request.purpose,
        (false, purpose) => purpose,
    };
    let challenger = Challenger {
        purpose: wants,
        worth: worth_of(world, &node, None, now.mono_ms),
        is_anchor: request.hello.profile() == ProfileKind::Anchor,
    };
    take_seat(world, challenger).map(|slot| (slot, None))
}

fn refuse_seat(world: &mut World, entity: Entity, link: LinkId, node: NodeId, dialled: bool) {
    let duplicate = world
        .resource::<Peers>()
        .by_node(&node)
        .is_some_and(|up| up != entity);
    if duplicate {
        world
            .resource_mut::<Outbox>()
            .close(link, GoodbyeReason::Duplicate);
        return;
    }
    if dialled {
        let until_ms = world.resource::<Now>().after(limits::COOL_OFF_MS_MIN);
        world.resource_mut::<Candidates>().postpone(&node, until_ms);
        let why = CallError::Refused(
            "all connection slots of this node are taken, and nobody in them is worth less",
        );
        let lost = Lost {
            node,
            remote: None,
            why,
        };
        world.resource_mut::<Dialling>().lost.push(lost);
    } else {
        world
            .resource_mut::<RefusalCounts>()
            .count(Refusal::Full, "connection");
    }
    world
        .resource_mut::<Partings>()
        .from(link, GoodbyeReason::Full);
}

/// What a handshake proved is worth remembering: for dialling again, and for telling others.
fn remember(world: &mut World, node: NodeId, entity: Entity, now: Now) {
    let link = world
        .get::<Link>(entity)
        .expect("an entity in Peers has its Link");
    let peer = world.get::<Peer>(entity).expect("a peer that is up");
    let (address, is_anchor) = (proved_address(link, peer), peer.is_anchor());
    world
        .resource_mut::<Candidates>()
        .proved(node, address, is_anchor, now.mono_ms);
}

/// Slots.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Swaps::default());
    frame.add(Phase::Ingest, give_seats);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incumbent(number: u8, slot: Slot, worth: Worth) -> Incumbent {
        Incumbent {
            node: NodeId::from_bytes([number; 32]),
            link: LinkId(u64::from(number)),
            slot,
            worth,
            is_anchor: false,
            is_stranger: false,
            up_since_ms: 0,
        }
    }

    fn full(worth: Worth) -> Vec<Incumbent> {
        let social = (0..10).map(|number| incumbent(number, Slot::Social, worth));
        let wide = (10..15).map(|number| incumbent(number, Slot::Wide, Worth::Anybody));
        social.chain(wide).collect()
    }

    fn challenger(worth: Worth) -> Challenger {
        Challenger {
            purpose: Purpose::Social,
            worth,
            is_anchor: false,
        }
    }

    const LATER_MS: u64 = limits::INCUMBENT_SAFE_MS;

    #[test]
    fn free_slots_take_anybody_and_two_wide_ones_wait_for_anchors() {
        let profile = NodeProfile::of(ProfileKind::Mobile);
        let mut seated: Vec<Incumbent> = Vec::new();
        for number in 0..20 {
            if let Seat::Free(slot) = seat(challenger(Worth::Anybody), &seated, &profile, true, 0) {
                seated.push(incumbent(number, slot, Worth::Anybody));
            }
        }
        let count = |slot| seated.iter().filter(|one| one.slot == slot).count();
        assert_eq!((count(Slot::Social), count(Slot::Wide)), (10, 3));
        let anchor = Challenger {
            is_anchor: true,
            ..challenger(Worth::Anybody)
        };
        assert_eq!(
            seat(anchor, &seated, &profile, true, 0),
            Seat::Free(Slot::Wide)
        );
    }

    #[test]
    fn a_challenger_must_beat_the_weakest_by_the_margin() {
        let profile = NodeProfile::of(ProfileKind::Mobile);
        let strangers = full(Worth::Anybody);
        let taken = seat(
            challenger(Worth::Followed),
            &strangers,
            &profile,
            true,
            LATER_MS,
        );
        assert_eq!(taken, Seat::InsteadOf(strangers[0]));
        let equal = seat(
            challenger(Worth::Anybody),
            &strangers,
            &profile,
            true,
            LATER_MS,
        );
        assert_eq!(equal, Seat::Full);
        let friends = full(Worth::Followed);
        assert_eq!(
            seat(
                challenger(Worth::Followed),
                &friends,
                &profile,
                true,
                LATER_MS
            ),
            Seat::Full
        );
    }

    #[test]
    fn incumbents_are_safe_for_ten_minutes_but_strangers_who_dialled_in_are_not() {
        let profile = NodeProfile::of(ProfileKind::Mobile);
        let mut all = full(Worth::Anybody);
        let early = seat(
            challenger(Worth::Followed),
            &all,
            &profile,
            true,
            LATER_MS - 1,
        );
        assert_eq!(early, Seat::Full);
        all[7].is_stranger = true;
        let early = seat(
            challenger(Worth::Followed),
            &all,
            &profile,
            true,
            LATER_MS - 1,
        );
        assert_eq!(early, Seat::InsteadOf(all[7]));
    }

    #[test]
    fn swaps_are_rare_and_visits_bounded() {
        let profile = NodeProfile::of(ProfileKind::Mobile);
        let all = full(Worth::Anybody);
        assert_eq!(
            seat(challenger(Worth::Followed), &all, &profile, false, LATER_MS),
            Seat::Full
        );
        let visitor = Challenger {
            purpose: Purpose::Visit,
            ..challenger(Worth::Anybody)
        };
        assert_eq!(
            seat(visitor, &all, &profile, true, 0),
            Seat::Free(Slot::Visit)
        );
        let visits: Vec<Incumbent> = (0..8)
            .map(|number| incumbent(number, Slot::Visit, Worth::Anybody))
            .collect();
        assert_eq!(seat(visitor, &visits, &profile, true, 0), Seat::Full);
        let swaps = Swaps {
            last_ms: Some(1000),
        };
        assert!(
            !swaps.allowed(1000 + limits::SWAP_PAUSE_MS - 1)
                && swaps.allowed(1000 + limits::SWAP_PAUSE_MS)
        );
    }
    #[test]
    fn of_two_that_cross_both_sides_keep_the_same() {
        let (small, large) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let by_small = |own: &NodeId, since_ms| Rival {
            dialled: own == &small,
            since_ms,
        };
        let by_large = |own: &NodeId, since_ms| Rival {
            dialled: own == &large,
            since_ms,
        };
        for (own, peer) in [(small, large), (large, small)] {
            // Whichever a side sees first, the one dialled by the smaller id stays.
            assert!(newer_stays(
                &own,
                &peer,
                by_large(&own, 0),
                by_small(&own, 5)
            ));
            assert!(!newer_stays(
                &own,
                &peer,
                by_small(&own, 0),
                by_large(&own, 5)
            ));
            // A newer one by the same dialler replaces the older, and so does one that does not cross.
            assert!(newer_stays(
                &own,
                &peer,
                by_small(&own, 0),
                by_small(&own, 5)
            ));
            assert!(newer_stays(
                &own,
                &peer,
                by_large(&own, 0),
                by_large(&own, 5)
            ));
            assert!(newer_stays(
                &own,
                &peer,
                by_small(&own, 0),
                by_large(&own, CROSSING_MS)
            ));
        }
    }
}
