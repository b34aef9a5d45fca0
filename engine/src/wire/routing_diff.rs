//! 0x01: what changed on the sender's map in two minutes (PROTOCOL section 6).

use super::codec::as_array;
use super::map_items::{MapChanges, MapItem, Named, Number};
use super::{Check, Example};
use crate::domain::NodeId;

/// Changes of the sender's own view; never forwarded. Sent even where nothing changed: it says so, and that the sender lives.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingDiff {
    /// One more than in the diff before.
    pub seq: u64,
    /// The sum of the keyed hashes of all that the sender reports, after the changes.
    pub digest: u64,
    /// The changes; none where they would not fit, and the digest then differs.
    pub changes: MapChanges,
}

as_array!(RoutingDiff {
    seq: u64,
    digest: u64,
    changes: MapChanges
});

impl Check for RoutingDiff {}

pub(super) fn example_item(number: usize, is_new: bool) -> MapItem {
    let number = Number::new(number).expect("a small number");
    let named = match is_new {
        true => Named::New(number, NodeId::from_bytes([number.index() as u8; 32])),
        false => Named::Known(number),
    };
    MapItem {
        named,
        is_anchor: number.index() == 7,
    }
}

impl Example for RoutingDiff {
    fn example() -> Self {
        Self {
            seq: 12,
            digest: 0x0123_4567_89ab_cdef,
            changes: MapChanges {
                hop_1_added: vec![example_item(7, true)],
                hop_1_removed: vec![example_item(5, false)],
                hop_1_moved: Vec::new(),
                hop_2_added: vec![example_item(300, true), example_item(301, false)],
                hop_2_removed: vec![MapItem {
                    named: Named::Bare(NodeId::from_bytes([0xee; 32])),
                    is_anchor: false,
                }],
            },
        }
    }
}
