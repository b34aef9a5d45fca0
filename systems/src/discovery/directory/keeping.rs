//! What an anchor keeps, and answers from.

use super::record_in;
use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Address, AddressRecord, NodeId, Prefix};
use distsoc_engine::io::{DialTarget, LinkId, RequestId, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::{AddressResponse, DirectoryGet, DirectoryPut, Purpose};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Offences, PeerChange, PeerChanges, is_tellable, peers_changed, usable_address,
};
use distsoc_engine::world::searches::{Errand, Errands};
use std::collections::{BTreeMap, BTreeSet};

/// A dial back that led nowhere is forgotten after this.
const DIAL_BACK_MS: u64 = 10 * 60 * 1000;

/// The records of others, by node and by network.
#[derive(Debug, Default)]
struct Records {
    by_node: BTreeMap<NodeId, Kept>,
    /// Who lives in a /24 (IPv6 /48).
    by_prefix: BTreeMap<Prefix, BTreeSet<NodeId>>,
}

/// A record, and where a handshake reached its node.
#[derive(Debug)]
struct Kept {
    record: AddressRecord,
    proved: Address,
}

impl Kept {
    /// The network in which its node was reached: what else a record names is a claim, and crowds nobody. Local networks have no
    /// limits.
    fn prefix(&self) -> Option<Prefix> {
        (!self.proved.scope().is_local()).then(|| self.proved.prefix())
    }
}

impl Records {
    fn get(&self, node: &NodeId) -> Option<&AddressRecord> {
        self.by_node.get(node).map(|kept| &kept.record)
    }

    fn keep(&mut self, record: AddressRecord, proved: Address, now: Now) -> Result<(), Refusal> {
        if let Some(known) = self.get(&record.node_id) {
            record.supersedes(known)?;
        }
        let node = record.node_id;
        let kept = Kept { record, proved };
        let is_new = !self.by_node.contains_key(&node);
        let is_full = is_new && self.by_node.len() >= limits::DIRECTORY_RECORDS_MAX;
        if is_full || self.is_crowded(&kept) {
            self.forget_expired(now);
        }
        if self.is_crowded(&kept) {
            return Err(Refusal::Full);
        }
        if is_new && self.by_node.len() >= limits::DIRECTORY_RECORDS_MAX {
            self.make_room_for(&kept)?;
        }
        self.remove(&node);
        if let Some(prefix) = kept.prefix() {
            self.by_prefix.entry(prefix).or_default().insert(node);
        }
        self.by_node.insert(node, kept);
        Ok(())
    }

    fn remove(&mut self, node: &NodeId) {
        let prefix = self.by_node.remove(node).and_then(|kept| kept.prefix());
        let Some(prefix) = prefix else { return };
        if let Some(there) = self.by_prefix.get_mut(&prefix) {
            there.remove(node);
            if there.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        }
    }

    fn forget_expired(&mut self, now: Now) {
        let is_over = |kept: &&Kept| !kept.record.is_current(now);
        let expired = self.by_node.values().filter(is_over);
        let expired: Vec<NodeId> = expired.map(|kept| kept.record.node_id).collect();
        expired.iter().for_each(|node| self.remove(node));
    }

    /// How many others live in the same network.
    fn others_near(&self, kept: &Kept) -> usize {
        let there = kept.prefix().and_then(|prefix| self.by_prefix.get(&prefix));
        there.map_or(0, |there| {
            there.len() - usize::from(there.contains(&kept.record.node_id))
        })
    }

    /// Whether so many others live in its network that one more is refused.
    fn is_crowded(&self, kept: &Kept) -> bool {
        self.others_near(kept) >= limits::DIRECTORY_PER_PREFIX_MAX
    }

    /// Of the network with the most records, the one that would end first gives way to one of a network with fewer.
    fn make_room_for(&mut self, kept: &Kept) -> Result<(), Refusal> {
        let fullest = self.by_prefix.values().max_by_key(|there| there.len());
        let fullest = fullest.filter(|there| there.len() > self.others_near(kept) + 1);
        let ends_first = |node: &&NodeId| self.by_node[*node].record.expiry_ms;
        let leaves = fullest.and_then(|there| there.iter().min_by_key(ends_first));
        let leaves = *leaves.ok_or(Refusal::Full)?;
        self.remove(&leaves);
        Ok(())
    }
}

/// What an anchor keeps.
#[derive(Resource, Debug, Default)]
pub(super) struct Directory {
    records: Records,
    /// Brought over a connection that does not prove the address; until when they wait to be dialled back.
    unproved: BTreeMap<NodeId, (AddressRecord, u64)>,
    /// Questions passed on.
    passed_on: BTreeMap<RequestId, (StreamToken, LinkId)>,
}

impl Directory {
    /// What is kept of a node.
    pub(super) fn get(&self, node: &NodeId) -> Option<&AddressRecord> {
        self.records.get(node)
    }

    fn await_proof(&mut self, record: AddressRecord, now: Now) -> Result<(), Refusal> {
        self.unproved
            .retain(|_, (_, until_ms)| *until_ms > now.mono_ms);
        if self.unproved.len() >= limits::DIAL_BACKS_MAX {
            return Err(Refusal::Full);
        }
        let until_ms = now.after(DIAL_BACK_MS);
        self.unproved.insert(record.node_id, (record, until_ms));
        Ok(())
    }
}

fn take_puts(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    mut arrivals: ResMut<Arrivals<DirectoryPut>>,
    mut directory: ResMut<Directory>,
    mut offences: ResMut<Offences>,
    knowledge: Knowledge<'_, '_>,
) {
    for arrival in arrivals.take() {
        let Some((link, _)) = knowledge.peer(arrival.link) else {
            continue;
        };
        let record = arrival.packet.record;
        let is_here = |address: &&Address| address.socket() == link.remote;
        let here = record.addresses.iter().find(is_here).copied();
        let judged = if profile.kind != ProfileKind::Anchor {
            Err(Refusal::NotWanted)
        } else if record.node_id != link.node {
            Err(Refusal::WrongAuthor)
        } else if usable_address(&record, &link.node, link.remote, *now).is_none() {
            Err(Refusal::BadAddress)
        } else if let Some(here) = here {
            directory.records.keep(record, here, *now)
        } else {
            directory.await_proof(record, *now)
        };
        if let Err(refusal) = judged {
            offences.note(arrival.link, refusal, "DirectoryPut");
        }
    }
}

/// Dials back whoever has gone without having been reached where they said, and keeps the record of those who answer there.
fn dial_back(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    mut directory: ResMut<Directory>,
    mut errands: ResMut<Errands>,
    knowledge: Knowledge<'_, '_>,
) {
    if directory.unproved.is_empty() {
        return;
    }
    for change in &changes.0 {
        match change {
            PeerChange::Down { node, .. } => {
                if let Some((record, _)) = directory.unproved.get(node) {
                    let errand = Errand {
                        target: DialTarget::Addresses(record.addresses.to_vec()),
                        purpose: Purpose::Visit,
                    };
                    errands.want(*node, errand);
                }
            }
            PeerChange::Up { node, .. } => {
                let link = knowledge.peer_by_node(node).map(|(link, _)| link);
                let reached = link.filter(|link| link.dialled()).map(|link| link.remote);
                if let Some(remote) = reached
                    && let Some((record, _)) = directory.unproved.remove(node)
                    && let mut addresses = record.addresses.iter()
                    && let Some(there) = addresses.find(|address| address.socket() == remote)
                {
                    let there = *there;
                    // Full or stale: then it is not kept, as if it had been brought here.
                    let _ = directory.records.keep(record, there, *now);
                }
            }
        }
    }
}

fn serve(
    now: Res<Now>,
    mut arrivals: ResMut<Arrivals<DirectoryGet>>,
    mut directory: ResMut<Directory>,
    mut offences: ResMut<Offences>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let Some((asker, _)) = knowledge.peer(arrival.link) else {
            outbox.respond(stream, None);
            continue;
        };
        let DirectoryGet { target, passes } = arrival.packet;
        let kept = directory.records.get(&target);
        let kept = kept.filter(|record| is_tellable(record, asker.remote, *now));
        let record = kept
            .cloned()
            .or_else(|| knowledge.record_of(&target, asker.remote));
        let own = target.distance(&knowledge.own());
        let closer = knowledge
            .peers()
            .filter(|(link, peer)| peer.is_anchor() && link.node != asker.node)
            .map(|(link, _)| (target.distance(&link.node), link.id))
            .filter(|(distance, _)| *distance < own)
            .min();
        match closer {
            Some((_, closer)) if record.is_none() && passes > 0 => {
                if directory.passed_on.len() >= limits::ADDRESS_RELAYS_MAX {
                    offences.note(arrival.link, Refusal::Full, "DirectoryGet");
                    outbox.respond(stream, None);
                    continue;
                }
                let passes = passes - 1;
                let request = outbox.request(closer, &DirectoryGet { target, passes }.into());
                directory.passed_on.insert(request, (stream, asker.id));
            }
            _ => outbox.respond(stream, Some(&AddressResponse { record }.into())),
        }
    }
}

/// What those asked on say goes back to whoever asked.
fn hand_back(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut directory: ResMut<Directory>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    let passed_on = inbox.take_responses(|request| directory.passed_on.remove(&request));
    for ((stream, asker), result) in passed_on {
        let remote = knowledge.peer(asker).map(|(link, _)| link.remote);
        let record = record_in(result)
            .filter(|record| remote.is_some_and(|remote| is_tellable(record, remote, *now)));
        outbox.respond(stream, Some(&AddressResponse { record }.into()));
    }
}

/// What an anchor does.
pub(super) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Directory::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, hand_back);
    frame.on(
        Occasions::packet(&DirectoryPut::SPEC),
        Phase::Judge,
        take_puts,
    );
    frame.due(peers_changed, Phase::Judge, dial_back);
    frame.on(Occasions::packet(&DirectoryGet::SPEC), Phase::Judge, serve);
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{AddressBody, Signed};
    use distsoc_engine::wire::codec::Bounded;

    const NOW: Now = Now {
        mono_ms: 0,
        wall_ms: 1_700_000_000_000,
    };

    fn address(network: u32) -> Address {
        let [_, a, b, c] = network.to_be_bytes();
        Address::new(([20 + a, b, c, 1], 4000).into()).unwrap()
    }

    /// The record of a node in so many networks, numbered from one on.
    fn record(number: u32, networks: std::ops::Range<u32>) -> AddressRecord {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let secret = Secret::from_seed(&seed);
        let body = AddressBody {
            node_id: secret.node_id(),
            addresses: Bounded::truncated(networks.map(address).collect()),
            is_anchor: 0,
            seq: NOW.wall_ms + u64::from(number),
            expiry_ms: NOW.wall_ms + 3_600_000 + u64::from(number),
        };
        Signed::sign(body, &secret)
    }

    /// Keeps a record of a node that was reached in the first of its networks.
    fn keep(records: &mut Records, record: AddressRecord) -> Result<(), Refusal> {
        let proved = record.addresses[0];
        records.keep(record, proved, NOW)
    }

    #[test]
    fn a_network_is_crowded_by_those_who_were_reached_there() {
        let mut records = Records::default();
        let max = limits::DIRECTORY_PER_PREFIX_MAX as u32;
        for number in 0..max {
            assert_eq!(keep(&mut records, record(number, 7..15)), Ok(()));
        }
        let full = Err(Refusal::Full);
        assert_eq!(keep(&mut records, record(max, 7..8)), full);
        // What they claim beside crowds nobody there, and who claims to be here too comes in elsewhere.
        assert_eq!(keep(&mut records, record(max, 8..9)), Ok(()));
        assert_eq!(keep(&mut records, record(max + 1, 6..8)), Ok(()));
        // Who is there may come with a newer one.
        let (node, again) = (record(0, 7..8).node_id, record(0, 7..9));
        records.remove(&node);
        assert_eq!(keep(&mut records, again), Ok(()));
        assert!(records.by_prefix.values().all(|there| !there.is_empty()));
    }

    #[test]
    fn a_full_directory_takes_who_comes_from_where_few_are_for_one_from_where_most_are() {
        let mut records = Records::default();
        let per_network = 8;
        let max = limits::DIRECTORY_RECORDS_MAX as u32;
        // Signing is slow: one record stands for all of those that fill it up.
        let filler = record(0, 1..2);
        for number in per_network..max {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let (record, proved) = (filler.clone(), address(1));
            records
                .by_node
                .insert(NodeId::from_bytes(id), Kept { record, proved });
        }
        for number in 0..per_network {
            assert_eq!(keep(&mut records, record(number, 7..8)), Ok(()));
        }
        assert_eq!(records.by_node.len(), limits::DIRECTORY_RECORDS_MAX);
        let (first, newcomer) = (record(0, 7..8).node_id, record(100, 9..10));
        assert_eq!(keep(&mut records, newcomer.clone()), Ok(()));
        assert_eq!(records.by_node.len(), limits::DIRECTORY_RECORDS_MAX);
        assert!(!records.by_node.contains_key(&first));
        assert!(records.by_node.contains_key(&newcomer.node_id));
        assert_eq!(keep(&mut records, record(101, 7..8)), Err(Refusal::Full));
    }

    #[test]
    fn so_many_wait_to_be_dialled_back_and_no_more() {
        let mut directory = Directory::default();
        let waits = |number| directory.await_proof(record(number, 1..2), NOW).is_ok();
        let taken = (0..2 * limits::DIAL_BACKS_MAX as u32).map(waits);
        assert_eq!(taken.filter(|taken| *taken).count(), limits::DIAL_BACKS_MAX);
    }
}
