//! 0x20, 0x21: where a node is (PROTOCOL section 6, the address resolution chain).

use super::codec::as_array;
use super::{Check, Example};
use crate::domain::{AddressRecord, NodeId};
use crate::refusal::Refusal;

/// Asks for the addresses of a node that the asked one reported.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressRequest {
    /// Whose.
    pub target: NodeId,
    /// How many may ask on their side, one after the other: 1 if the target is a peer of the asked one's peers, 2 if it lies one hop
    /// farther; 0 where the asked one is to answer by itself.
    pub relays: u8,
}

as_array!(AddressRequest {
    target: NodeId,
    relays: u8
});

impl Check for AddressRequest {
    fn check(&self) -> Result<(), Refusal> {
        (self.relays <= 2).then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for AddressRequest {
    fn example() -> Self {
        Self {
            target: NodeId::from_bytes([4; 32]),
            relays: 1,
        }
    }
}

/// The target's own record, by whoever completed a handshake with it at an address that stands in it; nothing where there is
/// none to give.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressResponse {
    /// Signed by the target.
    pub record: Option<AddressRecord>,
}

as_array!(AddressResponse {
    record: Option<AddressRecord>
});

impl Check for AddressResponse {}

impl Example for AddressResponse {
    fn example() -> Self {
        Self {
            record: super::hello::example_record(),
        }
    }
}
