//! 0x22, 0x23, 0x24: records left with others (PROTOCOL section 6): with the nodes whose ids are closest, and with anchors.

use super::codec::as_array;
use super::{Check, Example};
use crate::domain::{AddressRecord, NodeId};
use crate::refusal::Refusal;

/// Leaves the sender's record, or passes on one that was left, with a node whose id is near.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressAnnounce {
    /// Signed by whom it is about.
    pub record: AddressRecord,
    /// 1 where it is the sender's own, to be passed on to others near; 0 where it was.
    pub passes: u8,
}

as_array!(AddressAnnounce {
    record: AddressRecord,
    passes: u8
});

impl Check for AddressAnnounce {
    fn check(&self) -> Result<(), Refusal> {
        (self.passes <= 1).then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for AddressAnnounce {
    fn example() -> Self {
        Self {
            record: super::hello::example_record().expect("the example has one"),
            passes: 1,
        }
    }
}

/// Leaves the sender's own record with an anchor, for those whom worms do not reach.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryPut {
    /// Signed by the sender.
    pub record: AddressRecord,
}

as_array!(DirectoryPut {
    record: AddressRecord
});

impl Check for DirectoryPut {}

impl Example for DirectoryPut {
    fn example() -> Self {
        Self {
            record: super::hello::example_record().expect("the example has one"),
        }
    }
}

/// Asks an anchor for a record that was left with it; answered by AddressResponse.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryGet {
    /// Whose.
    pub target: NodeId,
    /// How often it may still be passed on to an anchor whose id is closer.
    pub passes: u8,
}

as_array!(DirectoryGet {
    target: NodeId,
    passes: u8
});

impl DirectoryGet {
    /// [`DirectoryGet::passes`] at most.
    pub const PASSES_MAX: u8 = 2;
}

impl Check for DirectoryGet {
    fn check(&self) -> Result<(), Refusal> {
        let fits = self.passes <= Self::PASSES_MAX;
        fits.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for DirectoryGet {
    fn example() -> Self {
        Self {
            target: NodeId::from_bytes([4; 32]),
            passes: 2,
        }
    }
}
