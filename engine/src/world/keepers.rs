//! Who else keeps an author (PROTOCOL section 7): nodes with a swarm link, and those from whom something of the author came.

use crate::domain::{AddressRecord, NodeId, Prefix};
use crate::io::LinkId;
use crate::limits;
use crate::wire::Packet;
use crate::world::outbox::Outbox;
use crate::world::peers::{Link, Peers};
use bevy_ecs::prelude::{Query, Res, Resource};
use bevy_ecs::system::SystemParam;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// What is known of one author's keepers.
#[derive(Debug, Default)]
struct KeepersOf {
    /// Nodes that agreed to tell and to be told, the newest last.
    links: VecDeque<SwarmPlace>,
    /// Nodes from whom something of the author came, the newest last.
    seen: VecDeque<NodeId>,
}

/// A node with a link, and the network in which it was seen when it got that: `None` where networks are not counted.
#[derive(Clone, Copy, Debug)]
struct SwarmPlace {
    node: NodeId,
    seen_in: Option<Prefix>,
}

impl KeepersOf {
    fn is_linked(&self, node: &NodeId) -> bool {
        self.links.iter().any(|linked| linked.node == *node)
    }

    fn unlink(&mut self, node: &NodeId) {
        self.links.retain(|linked| linked.node != *node);
    }

    /// Whether a network has as many places as it may.
    fn is_crowded(&self, seen_in: Option<Prefix>) -> bool {
        let there = self.links.iter().filter(|link| link.seen_in == seen_in);
        seen_in.is_some() && there.count() >= limits::SWARM_LINKS_PER_PREFIX_MAX
    }
}

/// Where a keeper that is no peer can be called.
#[derive(Debug)]
struct Place {
    record: AddressRecord,
    /// Calls in a row that nobody took.
    failures: u32,
}

/// Keepers by author, and where they are.
#[derive(Resource, Debug, Default)]
pub struct Keepers {
    by_author: BTreeMap<NodeId, KeepersOf>,
    places: BTreeMap<NodeId, Place>,
    /// Authors that have lost a link, for whoever looks for others.
    pub bereft: BTreeSet<NodeId>,
}

impl Keepers {
    /// Something of an author came from a node, or it said that it keeps them.
    pub fn saw(&mut self, author: NodeId, node: NodeId) {
        let of = self.by_author.entry(author).or_default();
        of.seen.retain(|known| *known != node);
        of.seen.push_back(node);
        if of.seen.len() > limits::KEEPERS_SEEN_MAX {
            of.seen.pop_front();
        }
    }

    /// Somebody else says that a node keeps an author: remembered while there is room, after all that was seen.
    pub fn heard_of(&mut self, author: NodeId, node: NodeId) {
        let of = self.by_author.entry(author).or_default();
        if of.seen.len() < limits::KEEPERS_SEEN_MAX && !of.seen.contains(&node) {
            of.seen.push_front(node);
        }
    }

    /// Nodes that have or had something of an author, the last to give something first.
    pub fn seen(&self, author: &NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let of = self.by_author.get(author).into_iter();
        of.flat_map(|of| of.seen.iter().rev().copied())
    }

    /// Of these nodes, the one that was the last to give something, or to say that it has it, of most authors; of equals the first. `None`
    /// where none was.
    #[must_use]
    pub fn richest(&self, of: &[NodeId]) -> Option<NodeId> {
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for seen in self.by_author.values().filter_map(|of| of.seen.back()) {
            *counts.entry(*seen).or_default() += 1;
        }
        let count = |node: &NodeId| counts.get(node).copied().unwrap_or_default();
        // Of equals `max_by_key` gives the last.
        let richest = of.iter().rev().max_by_key(|node| count(node))?;
        (count(richest) > 0).then_some(*richest)
    }

    /// A swarm link to a node that is seen at an address; false where an author has [`limits::SWARM_LINKS_MAX`] already, or the network of
    /// that address [`limits::SWARM_LINKS_PER_PREFIX_MAX`] of them.
    pub fn link(&mut self, author: NodeId, node: NodeId, seen_at: IpAddr) -> bool {
        let of = self.by_author.entry(author).or_default();
        let seen_in = Prefix::counted(seen_at);
        let has_place = of.links.len() < limits::SWARM_LINKS_MAX && !of.is_crowded(seen_in);
        let is_linked = of.is_linked(&node);
        if !is_linked && has_place {
            of.links.push_back(SwarmPlace { node, seen_in });
        }
        is_linked || has_place
    }

    /// Whether nobody of an address's network could be given one more link for an author.
    #[must_use]
    pub fn is_crowded(&self, author: &NodeId, seen_at: IpAddr) -> bool {
        let of = self.by_author.get(author);
        of.is_some_and(|of| of.is_crowded(Prefix::counted(seen_at)))
    }

    /// A swarm link to a node, in the last place if there is no other, or the last of its network's where that has as many as it may: gives
    /// back who had that. Who is new would find none among keepers that all have as many as they may, and whoever asks in thousands
    /// moves one.
    pub fn link_in_turn(
        &mut self,
        author: NodeId,
        node: NodeId,
        seen_at: IpAddr,
    ) -> Option<NodeId> {
        if self.link(author, node, seen_at) {
            return None;
        }
        let of = self.by_author.get_mut(&author)?;
        let seen_in = Prefix::counted(seen_at);
        let last = match of.is_crowded(seen_in) {
            true => of.links.iter().rposition(|link| link.seen_in == seen_in),
            false => of.links.len().checked_sub(1),
        };
        let displaced = last.and_then(|last| of.links.remove(last));
        of.links.push_back(SwarmPlace { node, seen_in });
        displaced.map(|link| link.node)
    }

    /// The node has no link for the author any more.
    pub fn unlink(&mut self, author: &NodeId, node: &NodeId) {
        if let Some(of) = self.by_author.get_mut(author) {
            of.unlink(node);
        }
    }

    /// The peer is connected no more: its links stay where it can be called.
    pub fn part(&mut self, node: &NodeId) {
        if !self.places.contains_key(node) {
            self.unlink_all(node);
        }
    }

    fn unlink_all(&mut self, node: &NodeId) {
        for (author, of) in &mut self.by_author {
            let before = of.links.len();
            of.unlink(node);
            if of.links.len() < before {
                self.bereft.insert(*author);
            }
        }
    }

    /// Nodes with a swarm link for an author.
    pub fn links(&self, author: &NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let of = self.by_author.get(author).into_iter();
        of.flat_map(|of| of.links.iter().map(|link| link.node))
    }

    /// The author is kept no more.
    pub fn forget(&mut self, author: &NodeId) {
        self.by_author.remove(author);
    }

    /// Where a node is, by its own record. Past [`limits::KEEPER_PLACES_MAX`] those of nobody's keepers go first, and then no more are taken.
    pub fn learn_place(&mut self, record: AddressRecord) {
        let node = record.node_id;
        if let Some(known) = self.places.get_mut(&node) {
            if record.supersedes(&known.record).is_ok() {
                *known = Place {
                    record,
                    failures: 0,
                };
            }
            return;
        }
        if self.places.len() >= limits::KEEPER_PLACES_MAX {
            let of = self.by_author.values();
            let known: BTreeSet<NodeId> = of
                .flat_map(|of| {
                    let linked = of.links.iter().map(|link| link.node);
                    linked.chain(of.seen.iter().copied())
                })
                .collect();
            self.places.retain(|node, _| known.contains(node));
        }
        if self.places.len() < limits::KEEPER_PLACES_MAX {
            let place = Place {
                record,
                failures: 0,
            };
            self.places.insert(node, place);
        }
    }

    /// The record of a node that can be called.
    #[must_use]
    pub fn place(&self, node: &NodeId) -> Option<&AddressRecord> {
        self.places.get(node).map(|place| &place.record)
    }

    /// A call was taken, or nobody was there: after [`limits::SWARM_CALL_FAILURES_MAX`] of these in a row, the node keeps nothing.
    pub fn called(&mut self, node: &NodeId, was_there: bool) {
        let Some(place) = self.places.get_mut(node) else {
            return;
        };
        place.failures = if was_there { 0 } else { place.failures + 1 };
        if place.failures >= limits::SWARM_CALL_FAILURES_MAX {
            self.places.remove(node);
            self.unlink_all(node);
            for of in self.by_author.values_mut() {
                of.seen.retain(|seen| seen != node);
            }
        }
    }
}

/// What is to be said to a keeper that is no peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmCall {
    /// Authors of whom there is news.
    pub news: BTreeSet<NodeId>,
    /// Authors for whom a link is offered.
    pub offers: BTreeSet<NodeId>,
    /// Authors for whom the link ends, with who has its place.
    pub ends: BTreeMap<NodeId, NodeId>,
}

impl SwarmCall {
    /// More to say in the same call.
    pub fn add(&mut self, more: Self) {
        self.news.extend(more.news);
        self.offers.extend(more.offers);
        self.ends.extend(more.ends);
    }
}

/// Calls that wait to be made, at most [`limits::SWARM_CALLS_WAITING_MAX`]. One call says all that there is for a node.
#[derive(Resource, Debug, Default)]
pub struct SwarmCalls {
    waiting: BTreeMap<NodeId, SwarmCall>,
    /// Whoever was named first is called first.
    order: VecDeque<NodeId>,
}

impl SwarmCalls {
    fn of(&mut self, node: NodeId) -> Option<&mut SwarmCall> {
        if !self.waiting.contains_key(&node) {
            if self.waiting.len() >= limits::SWARM_CALLS_WAITING_MAX {
                return None;
            }
            self.order.push_back(node);
        }
        Some(self.waiting.entry(node).or_default())
    }

    /// Something is new of an author.
    pub fn tell(&mut self, node: NodeId, author: NodeId) {
        if let Some(call) = self.of(node) {
            call.news.insert(author);
        }
    }

    /// A link is offered for an author.
    pub fn offer(&mut self, node: NodeId, author: NodeId) {
        if let Some(call) = self.of(node) {
            call.offers.insert(author);
        }
    }

    /// The link for an author is another's now.
    pub fn end(&mut self, node: NodeId, author: NodeId, other: NodeId) {
        if let Some(call) = self.of(node) {
            call.ends.insert(author, other);
        }
    }

    /// To be asked for what is missing: whoever is connected is.
    pub fn visit(&mut self, node: NodeId) {
        self.of(node);
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<(NodeId, SwarmCall)> {
        let node = self.order.pop_front()?;
        let says = self.waiting.remove(&node);
        Some((node, says.unwrap_or_default()))
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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

/// What an author lacks here that no peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Lists, posts, or blobs.
    Content,
    /// Others to tell each other what is new.
    Links,
}

/// Authors of whom something is missing that no peer has, each once.
#[derive(Resource, Debug, Default)]
pub struct Starving {
    /// Content before links, then whoever was named first.
    order: BTreeSet<(Lack, u64, NodeId)>,
    by_author: BTreeMap<NodeId, (Lack, u64)>,
    named: u64,
}

impl Starving {
    /// Nobody had what is missing of an author, round after round. No more than are kept are here.
    pub fn note(&mut self, author: NodeId, lack: Lack) {
        let known = self.by_author.get(&author).copied();
        if known.is_some_and(|(known, _)| known <= lack) {
            return;
        }
        if let Some((known, at)) = known {
            self.order.remove(&(known, at, author));
        }
        self.named += 1;
        self.order.insert((lack, self.named, author));
        self.by_author.insert(author, (lack, self.named));
    }

    /// Takes so many.
    pub fn take(&mut self, count: usize) -> Vec<NodeId> {
        let taken = std::iter::from_fn(|| self.order.pop_first()).take(count);
        let taken: Vec<NodeId> = taken.map(|(.., author)| author).collect();
        for author in &taken {
            self.by_author.remove(author);
        }
        taken
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Networks do not count in the development scope.
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

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
                keepers.link(author, node(number), HERE),
                number < limits::SWARM_LINKS_MAX
            );
        }
        assert!(keepers.link(author, node(0), HERE), "it has one already");
        let last = node(limits::SWARM_LINKS_MAX - 1);
        assert_eq!(keepers.link_in_turn(author, node(90), HERE), Some(last));
        assert_eq!(keepers.link_in_turn(author, node(91), HERE), Some(node(90)));
        assert_eq!(keepers.link_in_turn(author, node(91), HERE), None);
        assert_eq!(keepers.links(&author).count(), limits::SWARM_LINKS_MAX);
        let seen: Vec<NodeId> = keepers.seen(&author).collect();
        assert_eq!(seen.len(), limits::KEEPERS_SEEN_MAX);
        assert_eq!(seen[0], node(99));
        keepers.part(&node(0));
        assert!(keepers.link(author, node(99), HERE));
        keepers.forget(&author);
        assert_eq!(keepers.seen(&author).count(), 0);
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_has_two_places_of_an_author_and_moves_none_of_the_others() {
        let mut keepers = Keepers::default();
        let (author, others) = (node(200), ["9.9.9.1", "9.9.8.1", "2001:db8:1::1"]);
        // The same networks as somebody else's.
        let attackers = ["9.9.9.9", "2001:db8:1:ffff::9", "::ffff:9.9.9.77"];
        for (number, there) in others.iter().enumerate() {
            assert!(keepers.link(author, node(number), ip(there)));
        }
        for number in 10..40 {
            let there = ip(attackers[number % 3]);
            let (may_link, in_turn) = (keepers.is_crowded(&author, there), node(number + 40));
            assert_eq!(keepers.link(author, node(number), there), !may_link);
            keepers.link_in_turn(author, in_turn, there);
            assert!(keepers.links(&author).any(|linked| linked == in_turn));
        }
        let linked: Vec<NodeId> = keepers.links(&author).collect();
        // Of each network whoever was first, and whoever came last.
        assert_eq!(linked[..3], [0, 1, 2].map(node));
        assert_eq!(linked.len(), 5, "{linked:?}");
        assert!(keepers.link(author, node(0), ip("9.9.9.9")), "it is one");
        // What is free of another author's is theirs to take.
        assert!(keepers.link(node(201), node(10), ip("9.9.9.9")));
        for number in 100..103 {
            let there = IpAddr::from([9, 9, number as u8, 1]);
            assert!(keepers.link(author, node(number), there));
        }
        // All places are taken: the newest is given in turn.
        let displaced = keepers.link_in_turn(author, node(150), ip("9.9.6.1"));
        assert_eq!(displaced, Some(node(102)));
        assert_eq!(keepers.links(&author).count(), limits::SWARM_LINKS_MAX);
    }

    fn record(number: u8) -> AddressRecord {
        let secret = crate::crypto::Secret::from_seed(&[number; 32]);
        let address = crate::domain::Address::new("203.0.114.7:4000".parse().unwrap()).unwrap();
        let body = crate::domain::AddressBody {
            node_id: secret.node_id(),
            addresses: crate::wire::codec::Bounded::truncated(vec![address]),
            is_anchor: 0,
            seq: 1,
            expiry_ms: u64::MAX,
        };
        crate::domain::Signed::sign(body, &secret)
    }

    #[test]
    fn content_is_looked_for_before_links_and_in_turn() {
        let mut starving = Starving::default();
        for (number, lack) in [(3, Lack::Links), (9, Lack::Content), (1, Lack::Content)] {
            starving.note(node(number), lack);
        }
        starving.note(node(9), Lack::Links);
        assert_eq!(starving.take(1), [node(9)]);
        starving.note(node(9), Lack::Content);
        starving.note(node(3), Lack::Content);
        let rest = [node(1), node(9), node(3)];
        assert_eq!(starving.take(5), rest, "whoever was taken waits anew");
        assert!(starving.is_empty() && starving.by_author.is_empty());
    }

    #[test]
    fn a_link_outlives_the_connection_where_its_node_can_be_called() {
        let (author, record) = (node(200), record(1));
        let callable = record.node_id;
        let mut keepers = Keepers::default();
        keepers.learn_place(record);
        for node in [callable, node(2)] {
            keepers.saw(author, node);
            keepers.link(author, node, HERE);
            keepers.part(&node);
        }
        assert_eq!(keepers.links(&author).collect::<Vec<_>>(), [callable]);
        for was_there in [false, false, true, false, false] {
            keepers.called(&callable, was_there);
        }
        assert_eq!(keepers.links(&author).count(), 1);
        keepers.called(&callable, false);
        assert_eq!(keepers.links(&author).count(), 0);
        assert!(keepers.place(&callable).is_none());
        assert!(keepers.seen(&author).all(|seen| seen != callable));
    }

    #[test]
    fn so_many_places_and_those_of_keepers_stay() {
        let mut keepers = Keepers::default();
        let known = record(255);
        keepers.saw(node(200), known.node_id);
        keepers.learn_place(known.clone());
        let template = record(1);
        for number in 0..2 * limits::KEEPER_PLACES_MAX {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let place = Place {
                record: template.clone(),
                failures: 0,
            };
            keepers.places.insert(NodeId::from_bytes(bytes), place);
            if keepers.places.len() > limits::KEEPER_PLACES_MAX {
                keepers.places.remove(&template.node_id);
                keepers.learn_place(template.clone());
                assert_eq!(keepers.places.len(), 2);
            }
        }
        assert!(keepers.place(&known.node_id).is_some());
    }

    #[test]
    fn whoever_tells_of_others_pushes_nobody_out_who_was_seen() {
        let (mut keepers, author) = (Keepers::default(), node(200));
        keepers.saw(author, node(1));
        for number in 2..100 {
            keepers.heard_of(author, node(number));
        }
        assert_eq!(keepers.seen(&author).next(), Some(node(1)));
        assert_eq!(keepers.seen(&author).count(), limits::KEEPERS_SEEN_MAX);
    }

    #[test]
    fn the_richest_has_something_of_most_authors() {
        let mut keepers = Keepers::default();
        let of = [1, 2, 3, 4].map(node);
        assert_eq!(keepers.richest(&of), None);
        for (author, seen) in [(200, 3), (201, 2), (202, 2), (203, 9), (204, 9), (205, 9)] {
            keepers.saw(node(author), node(seen));
        }
        assert_eq!(keepers.richest(&of), Some(node(2)));
        keepers.saw(node(203), node(3));
        assert_eq!(keepers.richest(&of), Some(node(2)), "of equals the first");
        assert_eq!(keepers.richest(&[node(1)]), None);
    }

    #[test]
    fn so_many_calls_wait_and_one_says_all() {
        let mut calls = SwarmCalls::default();
        for number in 0..2 * limits::SWARM_CALLS_WAITING_MAX {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            calls.tell(NodeId::from_bytes(bytes), node(1));
        }
        assert_eq!(calls.len(), limits::SWARM_CALLS_WAITING_MAX);
        let first = NodeId::from_bytes([0; 32]);
        calls.offer(first, node(2));
        calls.end(first, node(3), node(4));
        let (whom, says) = calls.pop().unwrap();
        assert_eq!(whom, first);
        assert_eq!(
            (says.news.len(), says.offers.len(), says.ends.len()),
            (1, 1, 1)
        );
    }
}
