//! Who else keeps an author (PROTOCOL section 7): peers with a swarm link, and those from whom something of the author came.

use crate::domain::NodeId;
use crate::io::LinkId;
use crate::limits;
use crate::wire::Packet;
use crate::world::outbox::Outbox;
use crate::world::peers::{Link, Peers};
use bevy_ecs::prelude::{Query, Res, Resource};
use bevy_ecs::system::SystemParam;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is known of one author's keepers.
#[derive(Debug, Default)]
pub struct KeepersOf {
    /// Peers that agreed to tell and to be told.
    links: BTreeSet<NodeId>,
    /// Nodes from whom something of the author came, the newest last.
    seen: VecDeque<NodeId>,
}

/// Keepers by author.
#[derive(Resource, Debug, Default)]
pub struct Keepers(BTreeMap<NodeId, KeepersOf>);

impl Keepers {
    /// Something of an author came from a node, or it said that it keeps them.
    pub fn saw(&mut self, author: NodeId, node: NodeId) {
        let of = self.0.entry(author).or_default();
        of.seen.retain(|known| *known != node);
        of.seen.push_back(node);
        if of.seen.len() > limits::KEEPERS_SEEN_MAX {
            of.seen.pop_front();
        }
    }

    /// Nodes that have or had something of an author, the last to give something first.
    pub fn seen(&self, author: &NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let of = self.0.get(author).into_iter();
        of.flat_map(|of| of.seen.iter().rev().copied())
    }

    /// A swarm link to a peer; false where an author has [`limits::SWARM_LINKS_MAX`] already.
    pub fn link(&mut self, author: NodeId, node: NodeId) -> bool {
        let of = self.0.entry(author).or_default();
        let has_room = of.links.len() < limits::SWARM_LINKS_MAX;
        if has_room {
            of.links.insert(node);
        }
        has_room || of.links.contains(&node)
    }

    /// The peer has no link for the author any more.
    pub fn unlink(&mut self, author: &NodeId, node: &NodeId) {
        if let Some(of) = self.0.get_mut(author) {
            of.links.remove(node);
        }
    }

    /// The peer is connected no more.
    pub fn part(&mut self, node: &NodeId) {
        for of in self.0.values_mut() {
            of.links.remove(node);
        }
    }

    /// Peers with a swarm link for an author.
    pub fn links(&self, author: &NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let of = self.0.get(author).into_iter();
        of.flat_map(|of| of.links.iter().copied())
    }

    /// The author is kept no more.
    pub fn forget(&mut self, author: &NodeId) {
        self.0.remove(author);
    }
}

/// Who else keeps an author, with the connections to them.
#[derive(SystemParam)]
pub struct Swarm<'w, 's> {
    keepers: Res<'w, Keepers>,
    peers: Res<'w, Peers>,
    links: Query<'w, 's, &'static Link>,
}

impl Swarm<'_, '_> {
    /// Who is at the other end of a connection.
    #[must_use]
    pub fn behind(&self, link: LinkId) -> Option<NodeId> {
        let link = self.links.iter().find(|other| other.id == link)?;
        Some(link.node)
    }

    /// Tells something on, once, to those with a swarm link for its author: neither to whom it came from nor to whom it is by.
    pub fn relay(
        &self,
        author: &NodeId,
        packet: &Packet,
        not_to: [Option<NodeId>; 2],
        outbox: &mut Outbox,
    ) {
        let bytes = packet.encode();
        let nodes = self.keepers.links(author);
        for node in nodes.filter(|node| !not_to.contains(&Some(*node))) {
            let entity = self.peers.by_node(&node);
            if let Some(link) = entity.and_then(|entity| self.links.get(entity).ok()) {
                outbox.send_bytes(link.id, bytes.clone());
            }
        }
    }
}

/// Authors whose list here is newer than it was, with who brought it: to be told along the chain.
#[derive(Resource, Debug, Default)]
pub struct ListNews(pub Vec<(NodeId, Option<NodeId>)>);

/// Authors of whom something is missing that no peer has.
#[derive(Resource, Debug, Default)]
pub struct Starving(BTreeSet<NodeId>);

impl Starving {
    /// Nobody had what is missing of an author, round after round. No more than are kept are here.
    pub fn note(&mut self, author: NodeId) {
        self.0.insert(author);
    }

    /// Takes so many.
    pub fn take(&mut self, count: usize) -> Vec<NodeId> {
        let some: Vec<NodeId> = self.0.iter().take(count).copied().collect();
        for author in &some {
            self.0.remove(author);
        }
        some
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        NodeId::from_bytes([number as u8; 32])
    }

    #[test]
    fn so_many_links_and_so_many_remembered() {
        let mut keepers = Keepers::default();
        let author = node(200);
        for number in 0..100 {
            keepers.saw(author, node(number));
            assert_eq!(
                keepers.link(author, node(number)),
                number < limits::SWARM_LINKS_MAX
            );
        }
        assert!(keepers.link(author, node(0)), "it has one already");
        assert_eq!(keepers.links(&author).count(), limits::SWARM_LINKS_MAX);
        let seen: Vec<NodeId> = keepers.seen(&author).collect();
        assert_eq!(seen.len(), limits::KEEPERS_SEEN_MAX);
        assert_eq!(seen[0], node(99));
        keepers.part(&node(0));
        assert!(keepers.link(author, node(99)));
        keepers.forget(&author);
        assert_eq!(keepers.seen(&author).count(), 0);
    }
}
