//! What this node can say about a target of a worm by itself, and which of its connections lead towards it (PROTOCOL section 6).

use crate::clock::Now;
use crate::domain::{Address, AddressRecord, Distance, NodeId, Scope};
use crate::io::{LinkId, Slot};
use crate::wire::WormTarget;
use crate::world::addresses::OwnAddresses;
use crate::world::authors::{Author, AuthorIndex};
use crate::world::files::FileIndex;
use crate::world::identity::Identity;
use crate::world::left_records::LeftRecords;
use crate::world::map::{HopCounts, MapView, ReportedHop};
use crate::world::peers::{Link, Peer, Peers, is_tellable, tellable_record};
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use std::net::SocketAddr;

/// A connection that leads towards a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// How close the bearing is to the target.
    pub distance: Distance,
    /// The id that lies at the end of the way: the closest known.
    pub bearing: NodeId,
    /// Over which connection.
    pub via: LinkId,
    /// Whether the bearing is the very peer at its other end.
    pub arrives: bool,
}

/// Everything that a node can answer from.
#[derive(SystemParam)]
pub struct Knowledge<'w, 's> {
    now: Res<'w, Now>,
    identity: Res<'w, Identity>,
    map: MapView<'w, 's>,
    peers: Res<'w, Peers>,
    own: Res<'w, OwnAddresses>,
    left: Res<'w, LeftRecords>,
    files: Res<'w, FileIndex>,
    authors: Res<'w, AuthorIndex>,
    kept: Query<'w, 's, &'static Author>,
    up: Query<'w, 's, (&'static Link, &'static Peer)>,
}

impl Knowledge<'_, '_> {
    /// The time of this frame.
    #[must_use]
    pub fn now(&self) -> Now {
        *self.now
    }

    /// How many ids are known at which hop.
    #[must_use]
    pub fn counts(&self) -> HopCounts {
        self.map.map.counts()
    }

    /// The own id.
    #[must_use]
    pub fn own(&self) -> NodeId {
        self.identity.node_id()
    }

    /// Whether something about the own addresses is new in this frame.
    #[must_use]
    pub fn own_addresses_changed(&self) -> bool {
        self.own.is_changed()
    }

    /// A peer that is up, by its connection or another to the same node.
    #[must_use]
    pub fn peer(&self, link: LinkId) -> Option<(&Link, &Peer)> {
        let entity = self.peers.up_behind(link)?;
        self.up.get(entity).ok()
    }

    /// A peer that is up, by its id.
    #[must_use]
    pub fn peer_by_node(&self, node: &NodeId) -> Option<(&Link, &Peer)> {
        self.up.get(self.peers.by_node(node)?).ok()
    }

    /// All peers that are up, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = (&Link, &Peer)> {
        let up = self.peers.up();
        up.filter_map(|(_, entity)| self.up.get(entity).ok())
    }

    /// The own record, as far as somebody seen at this address may be told.
    #[must_use]
    pub fn own_record(&self, asker: SocketAddr) -> Option<&AddressRecord> {
        self.own.records.get(&Scope::of(asker.ip()))
    }

    /// The seq of the newest own record, whoever it is for.
    #[must_use]
    pub fn own_record_seq(&self) -> Option<u64> {
        self.own.records.values().map(|record| record.seq).max()
    }

    /// Where whoever is far away can dial this node, if anybody can.
    #[must_use]
    pub fn own_address(&self) -> Option<Address> {
        let mut records = self.own.records.iter().rev();
        let (_, record) = records.find(|_| !self.own.behind_nat)?;
        record.addresses.first().copied()
    }

    /// The record of a connected peer, for somebody seen at this address.
    #[must_use]
    pub fn record_of(&self, node: &NodeId, asker: SocketAddr) -> Option<AddressRecord> {
        let (link, peer) = self.up.get(self.peers.by_node(node)?).ok()?;
        tellable_record(link, peer, asker, *self.now)
    }

    /// Whether the posts of this author are kept, for whatever reason: followed and hosted ones are told of alike.
    fn keeps(&self, author: &NodeId) -> bool {
        let known = self.authors.get(author);
        let known = known.and_then(|entity| self.kept.get(entity).ok());
        *author == self.own()
            || known.is_some_and(|author| author.is_kept() && author.head.is_some())
    }

    /// What answers for a target, if this node has it.
    #[must_use]
    pub fn find(&self, target: WormTarget, asker: SocketAddr) -> Option<AddressRecord> {
        let is_here = match target {
            WormTarget::Node(node) if node != self.own() => {
                let left = || {
                    let left = self.left.get(&node, *self.now);
                    left.filter(|record| is_tellable(record, asker, *self.now))
                };
                // Who is connected is told of as seen here, or not at all.
                return match self.peers.by_node(&node) {
                    Some(_) => self.record_of(&node, asker),
                    None => left().cloned(),
                };
            }
            WormTarget::Node(_) => true,
            WormTarget::Post(post) => self.files.contains(&post),
            WormTarget::Author(author) => self.keeps(&author),
        };
        self.own_record(asker).filter(|_| is_here).cloned()
    }

    /// The ids closest to a target that are on the map, the asker's left out.
    #[must_use]
    pub fn closest(&self, target: &NodeId, count: usize, asker: Option<NodeId>) -> Vec<NodeId> {
        let entries = self.map.entries();
        self.map
            .map
            .closest(target, count, entries, |entry| Some(entry.node) != asker)
    }

    /// The connected peers whose ids are closest to a target, visits left out.
    #[must_use]
    pub fn closest_peers(&self, target: &NodeId, count: usize) -> Vec<NodeId> {
        let peers = self.peers().filter(|(_, peer)| peer.slot != Slot::Visit);
        let mut nodes: Vec<NodeId> = peers.map(|(link, _)| link.node).collect();
        nodes.sort_unstable_by_key(|node| target.distance(node));
        nodes.truncate(count);
        nodes
    }

    /// Whether a reporter names this id as a peer of its own.
    #[must_use]
    pub fn reports(&self, reporter: &NodeId, node: &NodeId) -> bool {
        let row = self.map.map.find(node, self.map.entries());
        row.is_some_and(|row| {
            let entries = self.map.entries();
            let mut who = self.map.map.who(ReportedHop::One, row, entries);
            who.any(|one| one == *reporter)
        })
    }

    /// The connections that lead to the `count` known ids closest to a target, the closest first.
    #[must_use]
    pub fn ways(&self, target: &NodeId, count: usize) -> Vec<Way> {
        let mut ways = Vec::new();
        for bearing in self.closest(target, count, None) {
            let distance = target.distance(&bearing);
            let mut add = |node: NodeId, arrives| {
                let entity = self.peers.by_node(&node);
                if let Some((link, _)) = entity.and_then(|entity| self.up.get(entity).ok()) {
                    ways.push(Way {
                        distance,
                        bearing,
                        via: link.id,
                        arrives,
                    });
                }
            };
            if self.peers.by_node(&bearing).is_some() {
                add(bearing, true);
                continue;
            }
            let Some(row) = self.map.map.find(&bearing, self.map.entries()) else {
                continue;
            };
            for hop in [ReportedHop::One, ReportedHop::Two] {
                for node in self.map.map.who(hop, row, self.map.entries()) {
                    add(node, false);
                }
            }
        }
        ways
    }
}
