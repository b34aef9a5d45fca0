//! 0x08, 0x09: ids of a peer's hop 3, for a node that is bootstrapping (PROTOCOL section 6, InitialMapSync): whom to look for, not
//! part of anybody's map.

use super::codec::{Bounded, as_array};
use super::{Check, Example};
use crate::domain::NodeId;
use crate::limits;

/// Asks for some of the ids at the asked one's hop 3.
#[derive(Clone, Debug, PartialEq)]
pub struct OuterMapRequest {
    /// Where to go on: what the last answer named, or anything.
    pub from: u32,
}

as_array!(OuterMapRequest { from: u32 });

impl Check for OuterMapRequest {}

impl Example for OuterMapRequest {
    fn example() -> Self {
        Self { from: 70_000 }
    }
}

/// Some of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OuterMap {
    /// Where the next ones begin; after the last come the first again.
    pub next: u32,
    /// The ids.
    pub ids: Bounded<NodeId, { limits::OUTER_IDS_MAX }>,
}

as_array!(OuterMap {
    next: u32,
    ids: Bounded<NodeId, { limits::OUTER_IDS_MAX }>,
});

impl Check for OuterMap {}

impl Example for OuterMap {
    fn example() -> Self {
        Self {
            next: 70_300,
            ids: Bounded::truncated(vec![NodeId::from_bytes([4; 32])]),
        }
    }
}
