//! Nodes that go by the protocol in everything but searches: there they name each other, and say nothing of anybody honest
//! (PROTOCOL section 6, a lookup against liars).

use crate::cargo::Cargo;
use crate::host::Host;
use crate::queue::HostNumber;
use crate::simulation::Simulation;
use crate::slots::Key;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{AddressRecord, NodeId, Scope};
use distsoc_engine::io::LinkId;
use distsoc_engine::limits;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    AddressRequest, AddressResponse, DirectoryGet, Expected, Packet, PacketBytes, WormNear,
    WormResponse, WormTarget, admit,
};
use distsoc_engine::world::addresses::OwnAddresses;

impl Host {
    /// What its node says of itself to those far away.
    fn record(&self) -> Option<&AddressRecord> {
        let own = self.node()?.world().resource::<OwnAddresses>();
        own.records.get(&Scope::Global)
    }
}

impl Simulation {
    /// A machine whose node has the key that is made from this, off.
    pub fn add_host_of(&mut self, key_seed: [u8; 32]) -> HostNumber {
        let number = self.add_host();
        let host = &mut self.hosts[number as usize];
        self.numbers.remove(&host.node_id());
        host.id.0 = Secret::from_seed(&key_seed).node_id();
        host.key_seed = Some(key_seed);
        self.numbers
            .insert(self.hosts[number as usize].node_id(), number);
        number
    }

    /// The liars closest to a target that are up.
    fn closest_liars(&self, target: &NodeId) -> Vec<AddressRecord> {
        let liars = self.hosts.iter().filter(|host| host.lies);
        let mut records: Vec<&AddressRecord> = liars.filter_map(Host::record).collect();
        records.sort_by_key(|record| target.distance(&record.node_id));
        records.truncate(usize::from(limits::WORM_NEAR_MAX));
        records.into_iter().cloned().collect()
    }

    fn lie(&self, target: WormTarget, place: u8) -> Vec<WormNear> {
        let WormTarget::Node(target) = target else {
            return Vec::new();
        };
        let near = |record: AddressRecord| WormNear {
            target: place,
            node: record.node_id,
            record: Some(record),
        };
        self.closest_liars(&target).into_iter().map(near).collect()
    }

    /// Answers a search in a liar's way; whether it was one.
    pub fn answers_falsely(
        &mut self,
        number: HostNumber,
        link: LinkId,
        bytes: &PacketBytes,
        exchange: Key,
    ) -> bool {
        let is_directory = bytes.first() == Some(&DirectoryGet::SPEC.code);
        let keeps_silent = is_directory && !self.scenario.directory;
        if !self.hosts[number as usize].lies && !keeps_silent {
            return false;
        }
        let Ok(packet) = admit(bytes, Expected::Request) else {
            return false;
        };
        let targets = match packet.into_inner() {
            Packet::WormQuery(query) => query.targets,
            Packet::WormRequest(request) => request.targets,
            Packet::AddressRequest(AddressRequest { target, .. })
            | Packet::DirectoryGet(DirectoryGet { target, .. }) => {
                let liar = self.numbers.get(&target);
                let liar = liar.map(|liar| &self.hosts[*liar as usize]);
                let record = liar
                    .filter(|host| host.lies)
                    .and_then(Host::record)
                    .cloned();
                let answer = Packet::from(AddressResponse { record }).encode();
                self.ship(number, link, Cargo::Response(Some(answer), exchange));
                return true;
            }
            _ => return false,
        };
        let near = (0u8..).zip(targets.iter());
        let near = near.flat_map(|(place, target)| self.lie(*target, place));
        let answer = WormResponse {
            near: Bounded::truncated(near.collect()),
            ..WormResponse::default()
        };
        let answer = Packet::from(answer).encode();
        self.ship(number, link, Cargo::Response(Some(answer), exchange));
        true
    }
}
