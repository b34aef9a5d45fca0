//! Connections and who is at the other end.

use crate::clock::Now;
use crate::domain::{Address, AddressRecord, NodeId, Profile};
use crate::entropy::Entropy;
use crate::io::Notice;
use crate::io::{CallError, DialFailure, LinkId, Origin, Slot, WideRole};
use crate::limits;
use crate::profile::ProfileKind;
use crate::refusal::Refusal;
use crate::schedule::{Glance, at_once_if};
use crate::wire::{GoodbyeReason, Packet, Purpose};
use crate::world::addresses::OwnAddresses;
use crate::world::candidates::{Candidates, Dialling, Lost};
use crate::world::outbox::Outbox;
use bevy_ecs::prelude::{Component, Entity, Mut, Query, Res, Resource, World};
use bevy_ecs::system::SystemParam;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A connection whose peer's Hello has not come yet.
#[derive(Component, Debug)]
pub struct Greeting {
    /// Closed at this mono time.
    pub deadline_ms: u64,
    /// What we want it for.
    pub purpose: Purpose,
}

/// A connection, from the moment its handshake proved the peer's key.
#[derive(Component, Debug)]
pub struct Link {
    /// Its name in the driver.
    pub id: LinkId,
    /// Whose key was proved.
    pub node: NodeId,
    /// Where the peer is seen.
    pub remote: SocketAddr,
    /// Who began.
    pub origin: Origin,
    /// Since when: mono ms.
    pub since_ms: u64,
    /// Points of misconduct, in thousandths, at `conduct_at_ms`.
    conduct_milli: u64,
    conduct_at_ms: u64,
}

impl Link {
    /// A new connection.
    #[must_use]
    pub fn new(id: LinkId, node: NodeId, remote: SocketAddr, origin: Origin, now_ms: u64) -> Self {
        Self {
            id,
            node,
            remote,
            origin,
            since_ms: now_ms,
            conduct_milli: 0,
            conduct_at_ms: now_ms,
        }
    }

    /// Whether we dialled.
    #[must_use]
    pub fn dialled(&self) -> bool {
        matches!(self.origin, Origin::Dialled(_))
    }

    /// Charges the peer for something refused; true once it went too far (PROTOCOL section 5).
    pub fn charge(&mut self, refusal: Refusal, count: u32, now_ms: u64) -> bool {
        let forgiven = now_ms.saturating_sub(self.conduct_at_ms)
            * limits::MISCONDUCT_FORGIVEN_MILLI_PER_S
            / 1000;
        let added = u64::from(refusal.points()) * u64::from(count) * 1000;
        self.conduct_milli = self.conduct_milli.saturating_sub(forgiven) + added;
        self.conduct_at_ms = now_ms;
        self.too_far()
    }

    /// Whether the peer is past [`limits::MISCONDUCT_POINTS_MAX`] as of its last offence.
    #[must_use]
    pub fn too_far(&self) -> bool {
        self.conduct_milli >= u64::from(limits::MISCONDUCT_POINTS_MAX) * 1000
    }
}

/// A peer that is up: both Hellos were seen.
#[derive(Component, Debug)]
pub struct Peer {
    /// The slot it has here.
    pub slot: Slot,
    /// What for, where it is a wide one.
    pub role: Option<WideRole>,
    /// By which profile it runs.
    pub profile: ProfileKind,
    /// It says that it is behind NAT.
    pub behind_nat: bool,
    /// One end asked to keep the link out of routing diffs.
    pub unlisted: bool,
    /// Its newest record.
    pub record: Option<AddressRecord>,
    /// Its profile as a person.
    pub person: Option<Profile>,
    /// Up since: mono ms.
    pub up_since_ms: u64,
    /// Last packet from it: mono ms.
    pub heard_ms: u64,
    /// Last packet to it: mono ms.
    pub spoke_ms: u64,
    /// When it last answered a pull or we answered one of its: mono ms.
    pub synced_ms: Option<u64>,
}

impl Peer {
    /// Whether it says that it serves as an anchor.
    #[must_use]
    pub fn is_anchor(&self) -> bool {
        self.profile == ProfileKind::Anchor
    }
}

/// Where a peer was reached by a handshake, which is what may be handed on (PROTOCOL section 4).
#[must_use]
pub fn proved_address(link: &Link, peer: &Peer) -> Option<Address> {
    let seen = Address::new(link.remote).ok()?;
    let claimed = peer
        .record
        .as_ref()
        .is_some_and(|record| record.addresses.contains(&seen));
    (link.dialled() || claimed).then_some(seen)
}

/// The record of a connected peer, if it was reached where the record says and somebody seen at `asker` may be told (PROTOCOL
/// section 4).
#[must_use]
pub fn tellable_record(
    link: &Link,
    peer: &Peer,
    asker: SocketAddr,
    now: Now,
) -> Option<AddressRecord> {
    let record = peer.record.as_ref()?;
    let proved = proved_address(link, peer)?;
    let tellable =
        !peer.unlisted && record.addresses.contains(&proved) && is_tellable(record, asker, now);
    tellable.then(|| record.clone())
}

/// Whether a record is good still, and names nothing that somebody seen at `asker` may not be told.
#[must_use]
pub fn is_tellable(record: &AddressRecord, asker: SocketAddr, now: Now) -> bool {
    record.is_current(now) && record.fits(asker)
}

/// Where a node is, by a record that somebody seen at `near` told: its own, good still, with nothing that they may not name.
#[must_use]
pub fn usable_address(
    record: &AddressRecord,
    target: &NodeId,
    near: SocketAddr,
    now: Now,
) -> Option<SocketAddr> {
    let is_its = record.node_id == *target && is_tellable(record, near, now);
    let address = record.addresses.first().filter(|_| is_its)?;
    Some(address.socket())
}

/// Entities of connections by name and by peer. Ordered, so that the same run visits them in the same order.
#[derive(Resource, Debug, Default)]
pub struct Peers {
    links: BTreeMap<LinkId, (NodeId, Entity)>,
    linked: BTreeMap<NodeId, u32>,
    up: BTreeMap<NodeId, Entity>,
}

impl Peers {
    /// A connection came.
    pub fn insert_link(&mut self, link: LinkId, node: NodeId, entity: Entity) {
        self.links.insert(link, (node, entity));
        *self.linked.entry(node).or_default() += 1;
    }

    /// A connection went; forgets the peer too if it was this entity's.
    pub fn remove_link(&mut self, link: LinkId) -> Option<Entity> {
        let (node, entity) = self.links.remove(&link)?;
        if let Some(count) = self.linked.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.linked.remove(&node);
            }
        }
        self.up.retain(|_, up| *up != entity);
        Some(entity)
    }

    /// The peer is up on this connection.
    pub fn insert_up(&mut self, node: NodeId, entity: Entity) {
        self.up.insert(node, entity);
    }

    /// The peer is no longer up.
    pub fn remove_up(&mut self, node: NodeId) -> Option<Entity> {
        self.up.remove(&node)
    }

    /// The entity of a connection.
    #[must_use]
    pub fn by_link(&self, link: LinkId) -> Option<Entity> {
        self.links.get(&link).map(|(_, entity)| *entity)
    }

    /// The entity of the peer at the other end of a connection, if it is up, be it on another connection: what was sent on one
    /// of two that cross still counts.
    #[must_use]
    pub fn up_behind(&self, link: LinkId) -> Option<Entity> {
        let (node, _) = self.links.get(&link)?;
        self.by_node(node)
    }

    /// The entity of a peer that is up.
    #[must_use]
    pub fn by_node(&self, node: &NodeId) -> Option<Entity> {
        self.up.get(node).copied()
    }

    /// Whether any connection to this node stands, up or greeting or closing.
    #[must_use]
    pub fn is_linked(&self, node: &NodeId) -> bool {
        self.linked.contains_key(node)
    }

    /// Peers that are up, in the order of their ids.
    pub fn up(&self) -> impl Iterator<Item = (NodeId, Entity)> + '_ {
        self.up.iter().map(|(node, entity)| (*node, *entity))
    }

    /// How many are up.
    #[must_use]
    pub fn up_count(&self) -> usize {
        self.up.len()
    }

    /// How many connections there are, up or greeting.
    #[must_use]
    pub fn link_count(&self) -> usize {
        self.links.len()
    }
}

/// Peers that are up, with their connections.
#[derive(SystemParam)]
pub struct Neighbours<'w, 's> {
    peers: Res<'w, Peers>,
    up: Query<'w, 's, (&'static Link, &'static Peer)>,
}

impl Neighbours<'_, '_> {
    /// A peer, by its id.
    #[must_use]
    pub fn by_node(&self, node: &NodeId) -> Option<(&Link, &Peer)> {
        self.up.get(self.peers.by_node(node)?).ok()
    }

    /// The peer at the other end of a connection.
    #[must_use]
    pub fn behind(&self, link: LinkId) -> Option<(&Link, &Peer)> {
        self.up.get(self.peers.up_behind(link)?).ok()
    }
}

/// Every peer that is up, to be told something.
#[derive(SystemParam)]
pub struct EveryPeer<'w, 's> {
    now: Res<'w, Now>,
    up: Query<'w, 's, (&'static Link, &'static mut Peer)>,
}

impl EveryPeer<'_, '_> {
    /// Sends all of them the same.
    pub fn send(&mut self, packet: &Packet, outbox: &mut Outbox) {
        let bytes = packet.encode();
        for (link, mut peer) in &mut self.up {
            outbox.send_bytes(link.id, bytes.clone());
            peer.spoke_ms = self.now.mono_ms;
        }
    }
}

/// A peer came up or went, in this frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Both Hellos were seen and it has a slot.
    Up {
        /// Who.
        node: NodeId,
        /// On which connection.
        link: LinkId,
        /// In which slot.
        slot: Slot,
    },
    /// It has no connection any more.
    Down {
        /// Who.
        node: NodeId,
        /// The slot it had.
        slot: Slot,
    },
}

/// Changes of this frame, for every feature to read; emptied when the frame ends.
#[derive(Resource, Debug, Default)]
pub struct PeerChanges(pub Vec<PeerChange>);

impl PeerChanges {
    /// Peers that came up in this frame.
    pub fn came_up(&self) -> impl Iterator<Item = (NodeId, LinkId, Slot)> + '_ {
        self.0.iter().filter_map(|change| match change {
            PeerChange::Up { node, link, slot } => Some((*node, *link, *slot)),
            PeerChange::Down { .. } => None,
        })
    }

    /// Peers that went in this frame.
    pub fn went_down(&self) -> impl Iterator<Item = (NodeId, Slot)> + '_ {
        self.0.iter().filter_map(|change| match change {
            PeerChange::Down { node, slot } => Some((*node, *slot)),
            PeerChange::Up { .. } => None,
        })
    }
}

/// Due where a peer came up or went in this frame.
#[must_use]
pub fn peers_changed(glance: &Glance<'_>) -> Option<u64> {
    at_once_if(!glance.at::<PeerChanges>().0.is_empty())
}

/// Something a peer sent was refused in this frame; judged, counted and emptied before the frame ends.
#[derive(Resource, Debug, Default)]
pub struct Offences(Vec<Offence>);

/// One kind of refused thing from one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offence {
    /// From which connection.
    pub link: LinkId,
    /// Why.
    pub refusal: Refusal,
    /// The name of what was refused.
    pub what: &'static str,
    /// How often.
    pub count: u32,
}

impl Offences {
    /// Notes one.
    pub fn note(&mut self, link: LinkId, refusal: Refusal, what: &'static str) {
        self.note_many(link, refusal, what, 1);
    }

    /// Notes several of the same.
    pub fn note_many(&mut self, link: LinkId, refusal: Refusal, what: &'static str, count: u32) {
        self.0.push(Offence {
            link,
            refusal,
            what,
            count,
        });
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes them all.
    pub fn take(&mut self) -> Vec<Offence> {
        std::mem::take(&mut self.0)
    }
}

/// Connections to take leave of: with a Goodbye, then a close (PROTOCOL section 6).
#[derive(Resource, Debug, Default)]
pub struct Partings(Vec<(LinkId, GoodbyeReason)>);

impl Partings {
    /// Takes leave of a connection at the end of this frame.
    pub fn from(&mut self, link: LinkId, reason: GoodbyeReason) {
        self.0.push((link, reason));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes them all.
    pub fn take(&mut self) -> Vec<(LinkId, GoodbyeReason)> {
        std::mem::take(&mut self.0)
    }
}

/// The peer is not up any more; its connection may still be closing.
pub fn take_down(world: &mut World, node: NodeId) {
    let Some(entity) = world.resource_mut::<Peers>().remove_up(node) else {
        return;
    };
    let Some(peer) = world.entity_mut(entity).take::<Peer>() else {
        return;
    };
    let now_ms = world.resource::<Now>().mono_ms;
    world.resource_mut::<OwnAddresses>().observed.remove(&node);
    world.resource_scope(|world, mut candidates: Mut<Candidates>| {
        candidates.failed(&node, now_ms, &mut world.resource_mut::<Entropy>());
    });
    world
        .resource_mut::<PeerChanges>()
        .0
        .push(PeerChange::Down {
            node,
            slot: peer.slot,
        });
    world
        .resource_mut::<Outbox>()
        .notify(Notice::PeerDown { node });
}

/// A connection went, or was refused, before its peer was up: unless another to the same node stands, the dial has failed.
pub fn failed_to_greet(world: &mut World, entity: Entity, node: NodeId) {
    // Of two that cross, one goes before the other is up: that is no failure.
    let mut links = world.query::<(Entity, &Link)>();
    if links
        .iter(world)
        .any(|(other, link)| other != entity && link.node == node)
    {
        return;
    }
    let now_ms = world.resource::<Now>().mono_ms;
    if let Some(link) = world.get::<Link>(entity).filter(|link| link.dialled()) {
        let lost = Lost {
            node,
            remote: Some(link.remote),
            why: CallError::Dial(DialFailure::Refused),
        };
        world.resource_mut::<Dialling>().lost.push(lost);
    }
    world.resource_scope(|world, mut candidates: Mut<Candidates>| {
        candidates.failed(&node, now_ms, &mut world.resource_mut::<Entropy>());
    });
}
