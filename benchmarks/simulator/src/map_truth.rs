//! The maps beside the true graph: who is really within one, two and three hops of whom.

use crate::simulation::Simulation;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::Slot;
use distsoc_engine::world::map::{DiscoveryMap, MapEntry, entries_of};
use distsoc_engine::world::peers::{Peer, Peers};
use std::collections::{BTreeMap, BTreeSet};

/// How well the maps of all running nodes fit the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapTruth {
    /// Pairs of a node and an id that is within three hops of it.
    pub right: u64,
    /// Of those, how many are not on its map, or at another hop.
    pub missing: u64,
    /// Ids on a map that are not within three hops.
    pub surplus: u64,
}

type Ids = BTreeSet<NodeId>;

/// The hop of everybody within three.
fn hops_of(
    own: &NodeId,
    peers: &BTreeMap<NodeId, Ids>,
    second: &BTreeMap<NodeId, Ids>,
) -> BTreeMap<NodeId, u8> {
    let mut hops = BTreeMap::new();
    let none = Ids::new();
    let of =
        |all: &BTreeMap<NodeId, Ids>, node: &NodeId| all.get(node).cloned().unwrap_or_default();
    let first = peers.get(own).unwrap_or(&none);
    hops.extend(first.iter().map(|node| (*node, 1)));
    for node in first.iter().flat_map(|peer| of(peers, peer)) {
        hops.entry(node).or_insert(2);
    }
    for node in first.iter().flat_map(|peer| of(second, peer)) {
        hops.entry(node).or_insert(3);
    }
    hops.remove(own);
    hops
}

impl Simulation {
    /// Compares every map with the graph as it is now.
    #[must_use]
    pub fn map_truth(&self) -> MapTruth {
        let mut peers = BTreeMap::new();
        for host in self.hosts.iter().filter(|host| host.is_on()) {
            let Some(node) = host.node() else { continue };
            let world = node.world();
            let listed = world.resource::<Peers>().up().filter(|(_, entity)| {
                let peer = world.get::<Peer>(*entity);
                peer.is_some_and(|peer| peer.slot != Slot::Visit && !peer.unlisted)
            });
            peers.insert(host.node_id(), listed.map(|(id, _)| id).collect::<Ids>());
        }
        let second_of = |own: &NodeId| -> Ids {
            let hops = hops_of(own, &peers, &BTreeMap::new());
            hops.into_iter()
                .filter(|(_, hop)| *hop == 2)
                .map(|(id, _)| id)
                .collect()
        };
        let second: BTreeMap<NodeId, Ids> =
            peers.keys().map(|own| (*own, second_of(own))).collect();
        let mut truth = MapTruth::default();
        for host in &self.hosts {
            let Some(node) = host.node() else { continue };
            let (map, entries) = (
                node.world().resource::<DiscoveryMap>(),
                entries_of(node.world()),
            );
            let hops = hops_of(&host.node_id(), &peers, &second);
            let at = |id: &NodeId| {
                map.find(id, entries)
                    .and_then(|row| entries[row as usize].hop())
            };
            truth.right += hops.len() as u64;
            truth.missing += hops
                .iter()
                .filter(|(id, hop)| at(id) != Some(**hop))
                .count() as u64;
            let known = entries.iter().filter(|entry| entry.is_known());
            let stray = |entry: &&MapEntry| !hops.contains_key(&entry.node);
            truth.surplus += known.filter(stray).count() as u64;
        }
        truth
    }
}
