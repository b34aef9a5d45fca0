//! The maps beside the true graph: who is really within one, two and three hops of whom.
//!
//! Peers come and go while the news of it travels, so a map is held against two graphs: what has stood for longer than news
//! takes must be on it, and what it says must have stood at some time since then.

use crate::host::Host;
use crate::queue::HostNumber;
use crate::simulation::Simulation;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::Slot;
use distsoc_engine::world::gossip::{MapSyncs, SyncStep};
use distsoc_engine::world::map::{DiscoveryMap, MapEntry, entries_of};
use distsoc_engine::world::peers::{Peer, Peers};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// News of a peer that came or went is everywhere within three hops after this, µs (PROTOCOL section 6).
pub const NEWS_US: u64 = 360_000_000;
/// A map of before a restart is out of use this long after it, µs.
const RESTORED_US: u64 = NEWS_US + distsoc_engine::limits::REMEMBERED_MS * 1_000;

/// A sync under way may have failed so often, and still be about to end well.
const FAILURES_EXCUSED: u32 = 2;

/// How well the maps of all running nodes fit the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapTruth {
    /// Pairs of a node and an id that has been within three hops of it for longer than news takes.
    pub settled: u64,
    /// Of those, how many are not on its map, or at a farther hop.
    pub missing: u64,
    /// Ids on a map that have not been within so many hops at any time since.
    pub surplus: u64,
    /// Reports that a map takes in part or without their hop 2, for lack of room, or that are being synced: what they alone would tell is
    /// not counted.
    pub capped: u64,
    /// One of what is missing.
    pub example: Option<Missing>,
}

/// An id that is not on a map where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Whose map.
    pub of: HostNumber,
    /// Who is missing.
    pub id: HostNumber,
    /// Within how many hops it is.
    pub hop: u8,
    /// A peer who should have told of it, how far the sync with that peer has come, and at which hop that peer has it.
    pub told_by: Option<(HostNumber, SyncStep, Option<u8>)>,
}

impl MapTruth {
    /// What is missing or too much, in a million of what is settled; a part of one counts as one.
    #[must_use]
    pub fn wrong_per_million(&self) -> u64 {
        ((self.missing + self.surplus) * 1_000_000).div_ceil(self.settled.max(1))
    }
}

/// Whom a machine's node has told of as its peers, and for how long.
#[derive(Debug, Default)]
pub struct Listed {
    /// Peers that are listed now and since when, µs.
    now: BTreeMap<NodeId, u64>,
    /// Peers that no longer are, and when they ceased to be, µs.
    gone: BTreeMap<NodeId, u64>,
    /// When the node last changed its peers, by its world's ticks.
    as_of: Option<u32>,
}

impl Listed {
    fn follow(&mut self, peers: &[NodeId], at_us: u64) {
        if self.now.len() == peers.len() && self.now.keys().eq(peers) {
            return;
        }
        self.gone.retain(|_, gone_us| *gone_us + NEWS_US >= at_us);
        let before = std::mem::take(&mut self.now);
        for peer in peers {
            let since_us = before.get(peer).copied().unwrap_or(at_us);
            self.now.insert(*peer, since_us);
        }
        for peer in before.into_keys() {
            if !self.now.contains_key(&peer) {
                self.gone.insert(peer, at_us);
            }
        }
    }
}

/// Whom the node of a machine tells of as its peers.
fn listed_of(host: &Host) -> Vec<NodeId> {
    let Some(node) = host.node() else {
        return Vec::new();
    };
    let world = node.world();
    let listed = world.resource::<Peers>().up().filter(|(_, entity)| {
        let peer = world.get::<Peer>(*entity);
        peer.is_some_and(|peer| peer.slot != Slot::Visit && !peer.unlisted)
    });
    let mut listed: Vec<NodeId> = listed.map(|(id, _)| id).collect();
    listed.sort_unstable();
    listed
}

/// Who is within one, two and three hops of each machine.
struct Graph {
    peers: Vec<RoaringBitmap>,
    second: Vec<RoaringBitmap>,
}

impl Graph {
    fn new(peers: Vec<RoaringBitmap>) -> Self {
        let reached = |own: u32, first: &RoaringBitmap| {
            let mut second = RoaringBitmap::new();
            first
                .iter()
                .for_each(|peer| second |= &peers[peer as usize]);
            second -= first;
            second.remove(own);
            second
        };
        let second = (0..).zip(&peers).map(|(own, first)| reached(own, first));
        Self {
            second: second.collect(),
            peers,
        }
    }

    /// Everybody within one, within two and within three hops, without the node itself; the third only by peers that the closure
    /// accepts.
    fn within(
        &self,
        own: HostNumber,
        tells_all: impl Fn(HostNumber) -> bool,
    ) -> [RoaringBitmap; 3] {
        let first = &self.peers[own as usize];
        let two = first | &self.second[own as usize];
        let mut three = two.clone();
        for peer in first.iter().filter(|peer| tells_all(*peer)) {
            three |= &self.second[peer as usize];
        }
        three.remove(own);
        [first.clone(), two, three]
    }
}

impl Simulation {
    /// Notes whom a node tells of as its peers, where that may have changed.
    pub fn note_listed(&mut self, number: HostNumber) {
        let host = &mut self.hosts[number as usize];
        let ticks = host
            .node()
            .and_then(|node| node.world().get_resource_change_ticks::<Peers>());
        let as_of = ticks.map(|ticks| ticks.changed.get());
        if host.listed.as_of == as_of {
            return;
        }
        let listed = listed_of(host);
        host.listed.follow(&listed, self.now_us);
        host.listed.as_of = as_of;
    }

    fn graph(&self, is_in: impl Fn(&Listed) -> Vec<NodeId>) -> Graph {
        let numbers_of = |host: &Host| -> RoaringBitmap {
            let ids = is_in(&host.listed);
            ids.iter()
                .filter_map(|id| self.numbers.get(id).copied())
                .collect()
        };
        Graph::new(self.hosts.iter().map(numbers_of).collect())
    }

    /// At which hop a machine's node has another.
    fn hop_on_map_of(&self, of: HostNumber, other: HostNumber) -> Option<u8> {
        let world = self.hosts[of as usize].node()?.world();
        self.hop_on(world.resource(), entries_of(world), other)
    }

    fn hop_on(&self, map: &DiscoveryMap, entries: &[MapEntry], other: HostNumber) -> Option<u8> {
        let row = map.find(&self.hosts[other as usize].node_id(), entries)?;
        entries[row as usize].hop()
    }

    /// Compares every map with the graph as it is now, and as it was while news travelled.
    #[must_use]
    pub fn map_truth(&self) -> MapTruth {
        let settled_us = self.now_us.saturating_sub(NEWS_US);
        let stood = self.graph(|listed| {
            let settled = listed.now.iter().filter(|(_, us)| **us <= settled_us);
            settled.map(|(id, _)| *id).collect()
        });
        let seen = self.graph(|listed| {
            let gone = listed.gone.iter().filter(|(_, us)| **us >= settled_us);
            let all = listed.now.iter().chain(gone);
            all.map(|(id, _)| *id).collect()
        });
        let mut truth = MapTruth::default();
        for (number, host) in (0..).zip(&self.hosts) {
            let Some(node) = host.node() else { continue };
            let (map, entries) = (node.world().resource(), entries_of(node.world()));
            let syncs = &node.world().resource::<MapSyncs>().by_node;
            let tells_all = |peer: HostNumber| {
                let sync = syncs.get(&self.hosts[peer as usize].node_id());
                sync.is_none_or(|sync| {
                    // Whether there is room for all of it shows at the end of a sync; one that never ends well is no excuse.
                    let is_under_way = sync.step != SyncStep::Standing;
                    let is_excused = is_under_way && sync.failures <= FAILURES_EXCUSED;
                    sync.with_hop_2 && !sync.is_capped && !is_excused
                })
            };
            let [one, two, three] = stood.within(number, tells_all);
            truth.settled += three.len();
            truth.capped += one.iter().filter(|peer| !tells_all(*peer)).count() as u64;
            for other in &three {
                let most = match () {
                    () if one.contains(other) => 1,
                    () if two.contains(other) => 2,
                    () => 3,
                };
                let hop = self.hop_on(map, entries, other);
                let is_missing = hop.is_none_or(|hop| hop > most);
                truth.missing += u64::from(is_missing);
                if is_missing && truth.example.is_none() {
                    let tells = |peer: &HostNumber| {
                        let second = &stood.second[*peer as usize];
                        stood.peers[*peer as usize].contains(other)
                            || most == 3 && tells_all(*peer) && second.contains(other)
                    };
                    let by = one.iter().find(tells);
                    let step_of = |peer: HostNumber| {
                        let sync = syncs.get(&self.hosts[peer as usize].node_id())?;
                        Some((peer, sync.step, self.hop_on_map_of(peer, other)))
                    };
                    truth.example = Some(Missing {
                        of: number,
                        id: other,
                        hop: most,
                        told_by: by.and_then(step_of),
                    });
                }
            }
            if host.starts > 1 && self.now_us < host.booted_us + RESTORED_US {
                continue;
            }
            let within = seen.within(number, |_| true);
            let is_seen = |entry: &MapEntry| {
                let number = self.numbers.get(&entry.node);
                let hop = usize::from(entry.hop().unwrap_or(3));
                number.is_some_and(|number| within[hop - 1].contains(*number))
            };
            let known = entries.iter().filter(|entry| entry.is_known());
            truth.surplus += known.filter(|entry| !is_seen(entry)).count() as u64;
        }
        truth
    }
}
