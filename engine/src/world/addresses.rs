//! Where this node can be reached, and what peers may be told about it (PROTOCOL section 4).

use crate::domain::{Address, AddressRecord, NodeId, Scope};
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;

/// The own addresses as far as known.
#[derive(Resource, Debug, Default)]
pub struct OwnAddresses {
    /// What the machine's interfaces and the socket say, usable ones only.
    pub local: Vec<Address>,
    /// Where peers say they see this node, by peer; bounded by the connections.
    pub observed: BTreeMap<NodeId, Address>,
    /// No peer sees this node at an address of its own: it needs keep-alive, and cannot be dialled.
    pub behind_nat: bool,
    /// The newest signed record for peers in each scope: it names what such a peer may be told.
    pub records: BTreeMap<Scope, AddressRecord>,
    /// The seq of the newest record of any scope.
    pub last_seq: Option<u64>,
}

impl OwnAddresses {
    /// A peer told where it sees this node, or that it cannot tell.
    pub fn observe(&mut self, by: NodeId, observed: Option<Address>) {
        match observed {
            Some(address) => self.observed.insert(by, address),
            None => self.observed.remove(&by),
        };
    }
}
