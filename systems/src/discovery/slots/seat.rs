//! Who gets which slot, and whose place a better peer takes (PROTOCOL section 6): decided from values alone.

use distsoc_engine::domain::{Network, NodeId};
use distsoc_engine::io::{LinkId, Slot, WideRole};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::wire::Purpose;
use distsoc_engine::world::slots::Worth;
use distsoc_engine::world::wide::WideSwap;

/// A slot, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: Slot,
    /// Of wide slots.
    pub(super) role: Option<WideRole>,
}

impl Place {
    const SOCIAL: Self = Self {
        slot: Slot::Social,
        role: None,
    };
    const VISIT: Self = Self {
        slot: Slot::Visit,
        role: None,
    };

    const fn wide(role: WideRole) -> Self {
        Self {
            slot: Slot::Wide,
            role: Some(role),
        }
    }
}

/// Somebody who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incumbent {
    pub(super) node: NodeId,
    pub(super) link: LinkId,
    pub(super) place: Place,
    pub(super) worth: Worth,
    pub(super) is_anchor: bool,
    pub(super) dialled: bool,
    pub(super) network: Option<Network>,
    /// Dialled in, and one has nothing to do with them.
    pub(super) is_stranger: bool,
    pub(super) up_since_ms: u64,
}

/// Somebody who wants a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Challenger {
    pub(super) node: NodeId,
    pub(super) purpose: Purpose,
    pub(super) worth: Worth,
    pub(super) is_anchor: bool,
    pub(super) dialled: bool,
    pub(super) network: Option<Network>,
}

/// What a challenger gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// A free slot.
    Free(Place),
    /// The slot of this incumbent, who has to go.
    InsteadOf(Incumbent),
    /// None.
    Full,
}

/// What a seat is decided by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) own: NodeId,
    pub(super) profile: &'a NodeProfile,
    /// The last social swap was long enough ago.
    pub(super) swap_allowed: bool,
    /// A wide peer that is to give way.
    pub(super) swap: Option<WideSwap>,
    /// The least diverse of those who dialled in, if one of them may go again.
    pub(super) yields: Option<NodeId>,
    /// Nodes in the network, estimated.
    pub(super) size: f64,
    pub(super) now_ms: u64,
}

/// PROTOCOL section 6, "each role half dialled, half accepted": of so many slots, those for this side. A single one is for whoever
/// comes first.
fn half(slots: usize, dialled: bool) -> usize {
    match dialled || slots == 1 {
        true => slots.div_ceil(2),
        false => slots / 2,
    }
}

impl Rules<'_> {
    /// Finds a seat.
    pub(super) fn seat(&self, challenger: Challenger, incumbents: &[Incumbent]) -> Seat {
        let used = |place: Place| count(incumbents, |one| one.place == place);
        if challenger.purpose == Purpose::Visit {
            // Half of the places are for own errands.
            let inbound = |one: &Incumbent| one.place == Place::VISIT && !one.dialled;
            let may_come = challenger.dialled
                || count(incumbents, inbound) < self.profile.visits_max.div_ceil(2);
            return match may_come && used(Place::VISIT) < self.profile.visits_max {
                true => Seat::Free(Place::VISIT),
                false => Seat::Full,
            };
        }
        if let Some(leaving) = self.leaving(&challenger, incumbents) {
            return Seat::InsteadOf(leaving);
        }
        let by_id = match challenger.purpose {
            Purpose::Ring => self.ring_seat(&challenger, incumbents),
            Purpose::Finger => self.finger_seat(&challenger, incumbents),
            _ => None,
        };
        if let Some(seat) = by_id {
            return seat;
        }
        let is_covered = self.has_cover(&challenger, incumbents);
        let social_free = used(Place::SOCIAL) < self.profile.social_slots && is_covered;
        let wide_free = self.has_diverse_slot(&challenger, incumbents);
        let prefers_wide = challenger.worth == Worth::Anybody
            && (challenger.is_anchor || challenger.purpose == Purpose::Wide);
        if let (false, false, Some(yielding)) = (
            social_free,
            wide_free,
            self.yielding(&challenger, incumbents),
        ) {
            return Seat::InsteadOf(yielding);
        }
        match (social_free, wide_free) {
            (_, true) if prefers_wide => Seat::Free(Place::wide(WideRole::Diverse)),
            (true, _) => Seat::Free(Place::SOCIAL),
            // The places for the most different are no way around cover.
            (false, true)
                if !is_related(challenger.worth) || challenger.purpose == Purpose::Wide =>
            {
                Seat::Free(Place::wide(WideRole::Diverse))
            }
            _ if self.swap_allowed => self
                .weakest_beaten(challenger, incumbents)
                .map_or(Seat::Full, Seat::InsteadOf),
            _ => Seat::Full,
        }
    }

    /// PROTOCOL section 6, cover: whom one has to do with may fill two thirds of the social slots, so that a connection proves no
    /// relationship. Whether the challenger may take a place that somebody else had.
    fn has_cover(&self, challenger: &Challenger, incumbents: &[Incumbent]) -> bool {
        let shows = |one: &Incumbent| one.place == Place::SOCIAL && is_related(one.worth);
        let related_max = self.profile.social_slots - self.profile.cover_slots();
        !is_related(challenger.worth) || count(incumbents, shows) < related_max
    }

    /// Whom the challenger was chosen to replace.
    fn leaving(&self, challenger: &Challenger, incumbents: &[Incumbent]) -> Option<Incumbent> {
        let swap = self.swap.filter(|swap| swap.comes == challenger.node)?;
        let leaves = |one: &&Incumbent| one.node == swap.leaves && one.place.slot == Slot::Wide;
        let leaving = incumbents.iter().find(leaves).copied()?;
        self.has_room_without(&leaving, challenger, incumbents)
            .then_some(leaving)
    }

    /// Whether nobody but the one who leaves is of the challenger's network.
    fn has_room_without(
        &self,
        leaving: &Incumbent,
        challenger: &Challenger,
        incumbents: &[Incumbent],
    ) -> bool {
        let others = incumbents.iter().filter(|one| one.node != leaving.node);
        let others: Vec<Incumbent> = others.copied().collect();
        !self.is_crowded(challenger, &others)
    }

    /// Whoever dials in for a wide slot has found this node to be worth more than another. Since everybody dials as many as they
    /// accept, hardly a place is free: now and then the least diverse gives way.
    fn yielding(&self, challenger: &Challenger, incumbents: &[Incumbent]) -> Option<Incumbent> {
        let is_chosen = challenger.purpose == Purpose::Wide && !challenger.dialled;
        let node = self.yields.filter(|_| is_chosen)?;
        let yielding = incumbents.iter().find(|one| one.node == node).copied()?;
        self.has_room_without(&yielding, challenger, incumbents)
            .then_some(yielding)
    }

    /// PROTOCOL section 6: at most one wide peer of a /16 (IPv6 /32).
    fn is_crowded(&self, challenger: &Challenger, others: &[Incumbent]) -> bool {
        let same =
            |one: &Incumbent| one.place.slot == Slot::Wide && one.network == challenger.network;
        challenger.network.is_some() && others.iter().any(same)
    }

    /// Anchors have slots that wait for them; of the others, half are dialled.
    fn has_diverse_slot(&self, challenger: &Challenger, incumbents: &[Incumbent]) -> bool {
        let slots = self.profile.wide_diverse_slots();
        let diverse = |one: &Incumbent| one.place.role == Some(WideRole::Diverse);
        let other = |one: &Incumbent| diverse(one) && !one.is_anchor;
        let on_side = |one: &Incumbent| other(one) && one.dialled == challenger.dialled;
        let has_room = count(incumbents, diverse) < slots
            && (challenger.is_anchor
                || (count(incumbents, other) < slots - self.profile.wide_anchor_slots
                    && count(incumbents, on_side) < half(slots, challenger.dialled)));
        has_room && !self.is_crowded(challenger, incumbents)
    }

    fn finger_seat(&self, challenger: &Challenger, incumbents: &[Incumbent]) -> Option<Seat> {
        let place = Place::wide(WideRole::Finger);
        let on_side = |one: &Incumbent| one.place == place && one.dialled == challenger.dialled;
        let slots = half(self.profile.wide_finger_slots, challenger.dialled);
        // A newer connection may have been dialled by the other side than the one whose place it has.
        let has_room = count(incumbents, |one| one.place == place) < self.profile.wide_finger_slots
            && count(incumbents, on_side) < slots;
        let fits = has_room && !self.is_crowded(challenger, incumbents);
        fits.then_some(Seat::Free(place))
    }

    /// A ring slot that is free on this side, or that of the farthest neighbour if the challenger is closer.
    ///
    /// Keys can be ground near a victim: so at most one neighbour lies closer than 1/16 of the expected spacing, and whoever has been
    /// a neighbour for a day gives way only where two others have been.
    fn ring_seat(&self, challenger: &Challenger, incumbents: &[Incumbent]) -> Option<Seat> {
        let place = Place::wide(WideRole::Ring);
        let ring: Vec<&Incumbent> = incumbents.iter().filter(|one| one.place == place).collect();
        let slots = half(self.profile.wide_ring_slots, challenger.dialled);
        let on_side = |one: &&&Incumbent| one.dialled == challenger.dialled;
        let is_free = ring.len() < self.profile.wide_ring_slots;
        if is_free && ring.iter().filter(on_side).count() < slots {
            let is_second = ring.iter().any(|one| self.is_too_close(&one.node));
            let is_ground = is_second && self.is_too_close(&challenger.node);
            let fits = !is_ground && !self.is_crowded(challenger, incumbents);
            return fits.then_some(Seat::Free(place));
        }
        let old = ring.iter().filter(|one| self.is_old(one)).count();
        let farthest = ring
            .iter()
            .filter(on_side)
            .filter(|one| !self.is_old(one) || old > limits::RING_OLD_MIN)
            .max_by_key(|one| self.own.distance(&one.node))?;
        let is_closer = self.own.distance(&challenger.node) < self.own.distance(&farthest.node);
        let others: Vec<Incumbent> = incumbents
            .iter()
            .filter(|one| one.node != farthest.node)
            .copied()
            .collect();
        let too_close = self.is_too_close(&challenger.node)
            && others
                .iter()
                .any(|one| one.place == place && self.is_too_close(&one.node));
        let fits = is_closer && !too_close && !self.is_crowded(challenger, &others);
        fits.then_some(Seat::InsteadOf(**farthest))
    }

    fn is_old(&self, one: &Incumbent) -> bool {
        self.now_ms >= one.up_since_ms + limits::RING_OLD_MS
    }

    fn is_too_close(&self, node: &NodeId) -> bool {
        self.own.distance(node).share() * self.size * limits::RING_CROWDING < 1.0
    }

    /// The weakest social incumbent, if the challenger beats it by the margin and it is not safe.
    fn weakest_beaten(
        &self,
        challenger: Challenger,
        incumbents: &[Incumbent],
    ) -> Option<Incumbent> {
        let is_safe = |incumbent: &&Incumbent| {
            !incumbent.is_stranger
                && self.now_ms < incumbent.up_since_ms + limits::INCUMBENT_SAFE_MS
        };
        // Cover stays: of so many one has to do with, only another gives way.
        let is_covered = self.has_cover(&challenger, incumbents);
        let weakest = incumbents
            .iter()
            .filter(|incumbent| incumbent.place == Place::SOCIAL && !is_safe(incumbent))
            .filter(|incumbent| is_covered || is_related(incumbent.worth))
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
}

/// Whether a connection to a peer of this worth shows what a person has to do with whom.
fn is_related(worth: Worth) -> bool {
    worth >= Worth::Followed
}

fn count(incumbents: &[Incumbent], which: impl Fn(&Incumbent) -> bool) -> usize {
    incumbents.iter().filter(|one| which(one)).count()
}
