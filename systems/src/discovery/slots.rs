//! PROTOCOL section 6, connection slots: who gets one, and whose place a better peer takes (open question 1).

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{LinkId, Slot};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::wire::{Goodbye, GoodbyeReason, Hint, Purpose};
use distsoc_engine::world::authors::{Author, AuthorIndex};
use distsoc_engine::world::candidates::CoolOffs;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, Peers, proved_address};

/// A sync partner counts as recent for this long.
const SYNC_PARTNER_MS: u64 = 60 * 60 * 1000;

/// How much a social peer is worth, in the order of PROTOCOL section 6. Mutual and granted audience come with layer 3
/// and rank above these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// Anybody.
    Anybody,
    /// Synchronised with us lately.
    SyncPartner,
    /// Somebody one follows, or asked to be connected to.
    Followed,
}

impl Worth {
    fn points(self) -> u64 {
        match self {
            Self::Anybody => 10,
            Self::SyncPartner => 100,
            Self::Followed => 250,
        }
    }
}

/// Somebody who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incumbent {
    pub(crate) node: NodeId,
    pub(crate) link: LinkId,
    pub(crate) slot: Slot,
    pub(crate) worth: Worth,
    pub(crate) is_anchor: bool,
    /// Dialled in, and one has nothing to do with them.
    pub(crate) is_stranger: bool,
    pub(crate) up_since_ms: u64,
}

/// Somebody who wants a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Challenger {
    pub(crate) purpose: Purpose,
    pub(crate) worth: Worth,
    pub(crate) is_anchor: bool,
}

/// What a challenger gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// A free slot.
    Free(Slot),
    /// The slot of this incumbent, who has to go.
    InsteadOf(Incumbent),
    /// None.
    Full,
}

/// Finds a seat. `swap_allowed` says that the last swap was long enough ago.
pub(crate) fn seat(
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
pub(crate) struct Swaps {
    last_ms: Option<u64>,
}

impl Swaps {
    fn allowed(&self, now_ms: u64) -> bool {
        self.last_ms
            .is_none_or(|last| now_ms >= last + limits::SWAP_PAUSE_MS)
    }
}

/// What this node has to do with another, as far as slots go.
pub(crate) fn worth_of(world: &World, node: &NodeId, synced_ms: Option<u64>, now_ms: u64) -> Worth {
    let author = world
        .resource::<AuthorIndex>()
        .get(node)
        .and_then(|entity| world.get::<Author>(entity));
    let wanted = world
        .resource::<distsoc_engine::world::candidates::Candidates>()
        .get(node)
        .is_some_and(|candidate| candidate.wanted);
    if wanted || author.is_some_and(Author::is_followed) {
        Worth::Followed
    } else if synced_ms.is_some_and(|at| now_ms < at + SYNC_PARTNER_MS) {
        Worth::SyncPartner
    } else {
        Worth::Anybody
    }
}

/// Everybody who has a slot, in the order of their ids.
pub(crate) fn incumbents(world: &World, now_ms: u64) -> Vec<Incumbent> {
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
pub(crate) fn take_seat(world: &mut World, challenger: Challenger) -> Option<Slot> {
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
            say_goodbye(world, incumbent.link, GoodbyeReason::Swapped);
            super::greeting::take_down(world, incumbent.node);
            Some(incumbent.slot)
        }
    }
}

/// Goodbye with peers to try, then closes.
pub(crate) fn say_goodbye(world: &mut World, link: LinkId, reason: GoodbyeReason) {
    let hints = match reason {
        GoodbyeReason::Full | GoodbyeReason::Swapped => hints_for(world, link),
        _ => Vec::new(),
    };
    let mut outbox = world.resource_mut::<Outbox>();
    outbox.send(link, &Goodbye::new(reason, hints).into());
    outbox.close(link, reason);
}

/// Connected peers whose address a handshake proved, for a peer in the same scope.
fn hints_for(world: &mut World, link: LinkId) -> Vec<Hint> {
    let Some(remote) = world
        .resource::<Peers>()
        .by_link(link)
        .and_then(|entity| world.get::<Link>(entity))
        .map(|link| (link.node, link.remote.ip()))
    else {
        return Vec::new();
    };
    let mut hints: Vec<Hint> = Vec::new();
    for (node_id, entity) in world.resource::<Peers>().up() {
        if let (Some(link), Some(peer)) = (world.get::<Link>(entity), world.get::<Peer>(entity))
            && let Some(address) = proved_address(link, peer)
            && address.fits_scope_of(remote.1)
            && node_id != remote.0
            && !peer.unlisted
        {
            hints.push(Hint { node_id, address });
        }
    }
    world
        .resource_mut::<distsoc_engine::entropy::Entropy>()
        .shuffle(&mut hints);
    hints.truncate(limits::GOODBYE_HINTS_MAX);
    hints
}

/// Slots.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Swaps::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::profile::ProfileKind;

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
}
