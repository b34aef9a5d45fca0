//! Where this node can be reached, and what peers may be told about it (PROTOCOL section 4).

use crate::domain::{Address, AddressRecord};
use bevy_ecs::prelude::Resource;
use std::net::SocketAddr;

/// The own addresses as far as known.
#[derive(Resource, Debug, Default)]
pub struct OwnAddresses {
    /// What the machine's interfaces and the socket say.
    pub local: Vec<SocketAddr>,
    /// Usable ones of these, and addresses that peers observe.
    pub usable: Vec<Address>,
    /// No peer sees this node at an address of its own: it needs keep-alive, and cannot be dialled.
    pub behind_nat: bool,
    /// The newest signed record.
    pub record: Option<AddressRecord>,
}
