//! What a machine can give: the desktop, mobile and anchor columns of PROTOCOL section 3.

use crate::limits;
use bevy_ecs::prelude::Resource;

/// Which column of PROTOCOL section 3 a node runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ProfileKind {
    /// A machine that is mostly on, with a disk.
    #[default]
    Desktop,
    /// A phone: few connections, little traffic.
    Mobile,
    /// A rented server with a public address.
    Anchor,
}

impl ProfileKind {
    /// All kinds, in the order of their wire numbers.
    pub const ALL: [ProfileKind; 3] = [Self::Desktop, Self::Mobile, Self::Anchor];

    /// The number that stands for it on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The kind with this wire number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The word used in the command line and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Anchor => "anchor",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Every number of PROTOCOL section 3 that differs between profiles. A test may change any of them.
#[derive(Resource, Clone, Debug, PartialEq, Eq)]
pub struct NodeProfile {
    /// The column this was made from.
    pub kind: ProfileKind,
    /// Slots for people one has to do with.
    pub social_slots: usize,
    /// Slots for peers that differ from each other as much as possible.
    pub wide_slots: usize,
    /// Of the wide slots, how many are for neighbours in the order of ids.
    pub wide_ring_slots: usize,
    /// And how many for nodes at harmonically drawn distances of ids. The rest is for diversity.
    pub wide_finger_slots: usize,
    /// Of the rest, how many are kept for anchors.
    pub wide_anchor_slots: usize,
    /// Connections beside the slots, declared in Hello.
    pub visits_max: usize,
    /// Entries of the 3-hop map in memory.
    pub map_entries_max: usize,
    /// Bytes that everything on disk may take.
    pub file_budget_bytes: u64,
    /// Posts and blobs kept, whatever their size.
    pub files_max: usize,
    /// Authors kept for others, at least.
    pub hosted_min: usize,
    /// Cached social routes.
    pub social_routes_max: usize,
    /// Budget of layer 1 traffic a day, bytes.
    pub discovery_bytes_per_day: u64,
    /// Budget of layer 2 traffic a day, bytes.
    pub files_bytes_per_day: u64,
    /// Budget of layer 3 traffic a day, bytes.
    pub social_bytes_per_day: u64,
    /// Budget of connection keeping (handshakes, keep-alive) a day, bytes.
    pub connection_bytes_per_day: u64,
    /// QUIC keep-alive where either side is behind NAT.
    pub keep_alive_ms: u64,
    /// QUIC idle timeout where either side is behind NAT.
    pub idle_timeout_ms: u64,
    /// QUIC idle timeout where neither is: the diffs, every 2 min, keep it alive.
    pub open_idle_timeout_ms: u64,
    /// Routing diff period.
    pub routing_diff_ms: u64,
    /// Wide peers are evaluated again after this.
    pub wide_evaluation_ms: u64,
    /// An author's list counts as stale this long after it was last confirmed newest.
    pub list_stale_ms: u64,
    /// Social routes are validated after this.
    pub route_validation_ms: u64,
    /// A social route counts as stale after this without verification.
    pub route_stale_ms: u64,
    /// Worm fan-out timeout at one hop.
    pub worm_fan_out_ms: u64,
    /// Worm TTL for near targets.
    pub worm_ttl_near: u8,
    /// Worm TTL at most for what this node starts.
    pub worm_ttl_max: u8,
}

impl NodeProfile {
    /// The column of PROTOCOL section 3 for this kind.
    #[must_use]
    pub fn of(kind: ProfileKind) -> Self {
        const MINUTE_MS: u64 = 60 * 1000;
        const MB: u64 = 1_000_000;
        let desktop = Self {
            kind,
            social_slots: 81,
            wide_slots: 20,
            wide_ring_slots: 4,
            wide_finger_slots: 8,
            wide_anchor_slots: 2,
            visits_max: 32,
            map_entries_max: 600_000 + 7_700 + 101,
            file_budget_bytes: 10_000 * MB,
            files_max: 40_000,
            hosted_min: limits::HOSTED_MIN,
            social_routes_max: 500,
            discovery_bytes_per_day: 122 * MB,
            files_bytes_per_day: 100 * MB,
            social_bytes_per_day: 20 * MB,
            connection_bytes_per_day: 22 * MB,
            keep_alive_ms: 20_000,
            idle_timeout_ms: 60_000,
            open_idle_timeout_ms: 180_000,
            routing_diff_ms: 2 * MINUTE_MS,
            wide_evaluation_ms: 10 * MINUTE_MS,
            list_stale_ms: 60 * MINUTE_MS,
            route_validation_ms: 30 * MINUTE_MS,
            route_stale_ms: 120 * MINUTE_MS,
            worm_fan_out_ms: 500,
            worm_ttl_near: 3,
            worm_ttl_max: 5,
        };
        match kind {
            ProfileKind::Desktop => desktop,
            ProfileKind::Mobile => Self {
                social_slots: 10,
                wide_slots: 5,
                wide_ring_slots: 1,
                wide_finger_slots: 2,
                visits_max: 8,
                map_entries_max: 15_000,
                file_budget_bytes: 1_000 * MB,
                files_max: 5_000,
                discovery_bytes_per_day: 8 * MB,
                files_bytes_per_day: 30 * MB,
                social_bytes_per_day: 10 * MB,
                connection_bytes_per_day: 3_200_000,
                worm_ttl_max: 8,
                ..desktop
            },
            ProfileKind::Anchor => Self {
                wide_slots: 120,
                wide_ring_slots: 24,
                wide_finger_slots: 48,
                wide_anchor_slots: 12,
                visits_max: 200,
                map_entries_max: 500_000,
                // The review's ~170 MB column: diffs, worms and address lookups; content relay; the rest.
                discovery_bytes_per_day: (10 + 5 + 2) * MB,
                files_bytes_per_day: 100 * MB,
                social_bytes_per_day: 31 * MB,
                ..desktop
            },
        }
    }

    /// Wide slots for peers that report what no other does.
    #[must_use]
    pub fn wide_diverse_slots(&self) -> usize {
        self.wide_slots - self.wide_ring_slots - self.wide_finger_slots
    }

    /// Of those, how many a node dials that are no anchors.
    #[must_use]
    pub fn diverse_slots_for_others(&self) -> usize {
        let slots = self.wide_diverse_slots();
        slots
            .saturating_sub(self.wide_anchor_slots)
            .min(slots.div_ceil(2))
    }

    /// PROTOCOL section 6: about a third of the social slots are cover.
    #[must_use]
    pub fn cover_slots(&self) -> usize {
        self.social_slots / 3
    }

    /// Connections in all slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.social_slots + self.wide_slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_section_3() {
        let slots = |kind| {
            let profile = NodeProfile::of(kind);
            (
                profile.social_slots,
                profile.wide_slots,
                profile.slots(),
                profile.visits_max,
            )
        };
        assert_eq!(slots(ProfileKind::Desktop), (81, 20, 101, 32));
        assert_eq!(slots(ProfileKind::Mobile), (10, 5, 15, 8));
        assert_eq!(slots(ProfileKind::Anchor), (81, 120, 201, 200));
        let roles = |kind| {
            let profile = NodeProfile::of(kind);
            let (ring, fingers) = (profile.wide_ring_slots, profile.wide_finger_slots);
            (profile.wide_diverse_slots(), ring, fingers)
        };
        assert_eq!(roles(ProfileKind::Desktop), (8, 4, 8));
        assert_eq!(roles(ProfileKind::Mobile), (2, 1, 2));
        assert_eq!(roles(ProfileKind::Anchor), (48, 24, 48));
        assert_eq!(NodeProfile::of(ProfileKind::Mobile).worm_ttl_max, 8);
    }

    #[test]
    fn wire_numbers_and_names_round_trip() {
        for kind in ProfileKind::ALL {
            assert_eq!(ProfileKind::from_wire(kind.to_wire()), Some(kind));
            assert_eq!(ProfileKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(ProfileKind::from_wire(3), None);
        assert_eq!(ProfileKind::from_name("server"), None);
    }
}
