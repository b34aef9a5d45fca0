//! 0x03, 0x04: the lightweight bootstrap sample (PROTOCOL section 11).

use super::codec::{Bounded, as_array};
use super::{Check, Example};
use crate::domain::{Address, NodeId};
use crate::limits;

/// Somebody who may be at an address. A hint, not a fact: what counts is the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    /// Who.
    pub node_id: NodeId,
    /// Where.
    pub address: Address,
}

as_array!(Hint {
    node_id: NodeId,
    address: Address
});

impl Example for Hint {
    fn example() -> Self {
        Self {
            node_id: crate::crypto::Secret::from_seed(&[2; 32]).node_id(),
            address: Address::new("203.0.114.9:4001".parse().expect("a literal"))
                .expect("a usable address"),
        }
    }
}

/// Asks for peers to connect to.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapSampleRequest {
    /// How many hints at most; the answer never has more than [`limits::SAMPLE_HINTS_MAX`].
    pub count: u16,
}

as_array!(BootstrapSampleRequest { count: u16 });

impl Check for BootstrapSampleRequest {}

impl Example for BootstrapSampleRequest {
    fn example() -> Self {
        Self { count: 200 }
    }
}

/// Diverse peers, each reached at its address by the sender within 24 h.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapSampleResponse {
    /// At most [`limits::SAMPLE_HINTS_MAX`].
    pub hints: Bounded<Hint, { limits::SAMPLE_HINTS_MAX }>,
    /// How many nodes the sender is connected to.
    pub peers: u32,
}

as_array!(BootstrapSampleResponse {
    hints: Bounded<Hint, { limits::SAMPLE_HINTS_MAX }>,
    peers: u32,
});

impl Check for BootstrapSampleResponse {}

impl Example for BootstrapSampleResponse {
    fn example() -> Self {
        Self {
            hints: Bounded::truncated(vec![Hint::example(); 3]),
            peers: 101,
        }
    }
}
