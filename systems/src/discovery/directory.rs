//! PROTOCOL section 6, global lookup (open question 6): every node leaves its record with a few anchors, which answer for it where
//! worms fail. A directory of address records, nothing more.
//!
//! An anchor keeps a record only of the node that brings it, and only at an address where a handshake has reached that node: on
//! the very connection, or by dialling back once it has gone.

use crate::Installer;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Address, AddressRecord, ConnectString, Host, NodeId, Prefix};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{DialTarget, LinkId, RequestId, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::Phase;
use distsoc_engine::wire::WormTarget;
use distsoc_engine::wire::{AddressResponse, DirectoryGet, DirectoryPut, Packet, Purpose};
use distsoc_engine::world::candidates::Candidates;
use distsoc_engine::world::identity::{Anchors, OwnProfile};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Offences, PeerChange, PeerChanges, is_tellable, usable_address,
};
use distsoc_engine::world::searches::{
    DirectorySearches, Ended, Errand, Errands, Finding, SearchId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Once an anchor has answered, the others have this long to know a newer record.
const NEWER_MS: u64 = 500;
/// Records are first left this long after the start: by then other nodes have said what they see.
const FIRST_PUT_MS: u64 = 20_000;
/// A dial back that led nowhere is forgotten after this.
const DIAL_BACK_MS: u64 = 10 * 60 * 1000;

/// What an anchor keeps.
#[derive(Resource, Debug, Default)]
struct Directory {
    records: BTreeMap<NodeId, AddressRecord>,
    /// Brought over a connection that does not prove the address; until when they wait to be dialled back.
    unproved: BTreeMap<NodeId, (AddressRecord, u64)>,
    /// Questions passed on.
    passed_on: BTreeMap<RequestId, (StreamToken, LinkId)>,
}

impl Directory {
    fn keep(&mut self, record: AddressRecord, now: Now) -> Result<(), Refusal> {
        if let Some(known) = self.records.get(&record.node_id) {
            record.supersedes(known)?;
        } else {
            self.records.retain(|_, known| known.is_current(now));
            if self.records.len() >= limits::DIRECTORY_RECORDS_MAX || self.is_crowded(&record) {
                return Err(Refusal::Full);
            }
        }
        self.records.insert(record.node_id, record);
        Ok(())
    }

    /// Whether so many others live in the same /24 (IPv6 /48) that one more is refused.
    fn is_crowded(&self, record: &AddressRecord) -> bool {
        let prefix = |record: &AddressRecord| -> Option<Prefix> {
            let first = record.addresses.first()?;
            (!first.scope().is_local()).then(|| first.prefix())
        };
        let Some(own) = prefix(record) else {
            return false;
        };
        let others = self
            .records
            .values()
            .filter(|other| prefix(other) == Some(own));
        others.count() >= limits::DIRECTORY_PER_PREFIX_MAX
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

/// The anchors that are to have this node's record, and what is asked of anchors.
#[derive(Resource, Debug, Default)]
struct Asking {
    next_put_ms: Option<u64>,
    /// Dialled for leaving the record.
    putting: BTreeSet<NodeId>,
    searches: Vec<Asked>,
    requests: BTreeMap<RequestId, SearchId>,
}

/// A question of anchors under way.
#[derive(Debug)]
struct Asked {
    id: SearchId,
    target: NodeId,
    until_ms: u64,
    /// Dialled for this.
    dialled: BTreeSet<NodeId>,
    open: usize,
    best: Option<AddressRecord>,
}

/// Somebody who serves as an anchor, and where.
#[derive(Clone, Debug, PartialEq)]
struct KnownAnchor {
    node: NodeId,
    target: DialTarget,
    network: Option<Prefix>,
}

fn listed(place: &ConnectString) -> KnownAnchor {
    let target = match (place.host(), place.address()) {
        (Host::Name(name), _) => DialTarget::Host {
            name: name.clone(),
            port: place.port(),
        },
        (Host::Ip(_), address) => DialTarget::Addresses(address.into_iter().collect()),
    };
    KnownAnchor {
        node: place.node_id(),
        target,
        network: None,
    }
}

/// PROTOCOL section 6: the anchors of the profile, two of anchors.json, the 3 closest (XOR) known ones of distinct prefix.
fn anchors_for(
    target: &NodeId,
    of_profile: Vec<KnownAnchor>,
    of_file: Vec<KnownAnchor>,
    mut known: Vec<KnownAnchor>,
) -> Vec<KnownAnchor> {
    let mut chosen = of_profile;
    chosen.extend(of_file.into_iter().take(limits::DIRECTORY_LISTED));
    known.sort_by_key(|anchor| target.distance(&anchor.node));
    let mut networks = BTreeSet::new();
    let distinct = known.into_iter().filter(|anchor| {
        anchor
            .network
            .is_none_or(|network| networks.insert(network))
    });
    chosen.extend(distinct.take(limits::DIRECTORY_CLOSEST));
    let mut seen = BTreeSet::new();
    chosen.retain(|anchor| seen.insert(anchor.node));
    chosen
}

/// Who serves as an anchor, as far as known.
#[derive(SystemParam)]
struct AnchorBook<'w> {
    anchors: Res<'w, Anchors>,
    profile: Res<'w, OwnProfile>,
    candidates: Res<'w, Candidates>,
}

impl AnchorBook<'_> {
    fn for_target(&self, target: &NodeId, own: NodeId, entropy: &mut Entropy) -> Vec<KnownAnchor> {
        let own_profile = self.profile.0.as_ref().filter(|_| *target == own);
        let of_profile = own_profile
            .into_iter()
            .flat_map(|profile| profile.anchors.iter());
        let mut of_file: Vec<KnownAnchor> = self.anchors.0.iter().map(listed).collect();
        entropy.shuffle(&mut of_file);
        let known = self.candidates.iter().filter(|(_, one)| one.is_anchor);
        let known = known.filter_map(|(node, one)| {
            let network = one
                .addresses
                .first()
                .filter(|first| !first.scope().is_local());
            Some(KnownAnchor {
                node: *node,
                target: one.target()?,
                network: network.map(|first| first.prefix()),
            })
        });
        let of_profile = of_profile.map(listed).collect();
        let mut anchors = anchors_for(target, of_profile, of_file, known.collect());
        anchors.retain(|anchor| anchor.node != own);
        anchors
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
    if arrivals.is_empty() {
        return;
    }
    for arrival in arrivals.take() {
        let Some((link, _)) = knowledge.peer(arrival.link) else {
            continue;
        };
        let record = arrival.packet.record;
        let is_here = |address: &Address| address.socket() == link.remote;
        let judged = if profile.kind != ProfileKind::Anchor {
            Err(Refusal::NotWanted)
        } else if record.node_id != link.node {
            Err(Refusal::WrongAuthor)
        } else if usable_address(&record, &link.node, link.remote, *now).is_none() {
            Err(Refusal::BadAddress)
        } else if record.addresses.iter().any(is_here) {
            directory.keep(record, *now)
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
                    && record
                        .addresses
                        .iter()
                        .any(|address| address.socket() == remote)
                {
                    // Full or stale: then it is not kept, as if it had been brought here.
                    let _ = directory.keep(record, *now);
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

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut directory: ResMut<Directory>,
    mut asking: ResMut<Asking>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    if inbox.responses.is_empty() {
        return;
    }
    let Asking {
        searches, requests, ..
    } = &mut *asking;
    let record_in = |result| match result {
        Ok(Packet::AddressResponse(response)) => response.record,
        _ => None,
    };
    let passed_on = inbox.take_responses(|request| directory.passed_on.remove(&request));
    for ((stream, asker), result) in passed_on {
        let remote = knowledge.peer(asker).map(|(link, _)| link.remote);
        let record: Option<AddressRecord> = record_in(result);
        let record =
            record.filter(|record| remote.is_some_and(|remote| is_tellable(record, remote, *now)));
        outbox.respond(stream, Some(&AddressResponse { record }.into()));
    }
    for (id, result) in inbox.take_responses(|request| requests.remove(&request)) {
        let Some(asked) = searches.iter_mut().find(|asked| asked.id == id) else {
            continue;
        };
        asked.open -= 1;
        let record: Option<AddressRecord> = record_in(result);
        if let Some(record) = record
            && record.node_id == asked.target
            && record.is_current(*now)
            && asked
                .best
                .as_ref()
                .is_none_or(|best| record.supersedes(best).is_ok())
        {
            asked.best = Some(record);
            asked.until_ms = asked.until_ms.min(now.after(NEWER_MS));
        }
    }
}

/// Leaves the own record with its anchors, every six hours.
fn leave_own(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    book: AnchorBook<'_>,
    mut asking: ResMut<Asking>,
    mut errands: ResMut<Errands>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    for (node, _, _) in changes.came_up() {
        if asking.putting.remove(&node) {
            put(&node, &knowledge, &mut outbox);
        }
    }
    let first_ms = || now.after(entropy.jittered(FIRST_PUT_MS));
    let next_ms = *asking.next_put_ms.get_or_insert_with(first_ms);
    if next_ms > now.mono_ms {
        outbox.wake_at(next_ms);
        return;
    }
    let again_ms = match knowledge.peers().next() {
        Some(_) => limits::DIRECTORY_REFRESH_MS,
        None => FIRST_PUT_MS,
    };
    let again_ms = now.after(entropy.jittered(again_ms));
    asking.next_put_ms = Some(again_ms);
    outbox.wake_at(again_ms);
    asking.putting.clear();
    let own = knowledge.own();
    for anchor in book.for_target(&own, own, &mut entropy) {
        if knowledge.peer_by_node(&anchor.node).is_some() {
            put(&anchor.node, &knowledge, &mut outbox);
        } else if errands.want(anchor.node, visit(anchor.target)) {
            asking.putting.insert(anchor.node);
        }
    }
}

fn visit(target: DialTarget) -> Errand {
    Errand {
        target,
        purpose: Purpose::Visit,
    }
}

fn put(anchor: &NodeId, knowledge: &Knowledge<'_, '_>, outbox: &mut Outbox) {
    let Some((link, peer)) = knowledge.peer_by_node(anchor) else {
        return;
    };
    if let Some(record) = knowledge
        .own_record(link.remote)
        .filter(|_| peer.is_anchor())
    {
        let record = record.clone();
        outbox.send(link.id, &DirectoryPut { record }.into());
    }
}

fn ask(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    book: AnchorBook<'_>,
    mut directory_searches: ResMut<DirectorySearches>,
    mut asking: ResMut<Asking>,
    mut errands: ResMut<Errands>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    if directory_searches.has_ended() {
        directory_searches.drop_ended();
    }
    if asking.searches.is_empty() && !directory_searches.has_wanted() {
        return;
    }
    let Asking {
        searches, requests, ..
    } = &mut *asking;
    for (id, target) in directory_searches.take_wanted() {
        let mut asked = Asked {
            id,
            target,
            until_ms: now.after(limits::ASK_ANCHORS_MS_MAX),
            dialled: BTreeSet::new(),
            open: 0,
            best: None,
        };
        for anchor in book.for_target(&target, knowledge.own(), &mut entropy) {
            if knowledge.peer_by_node(&anchor.node).is_some() {
                get(&mut asked, &anchor.node, requests, &knowledge, &mut outbox);
            } else if errands.want(anchor.node, visit(anchor.target)) {
                asked.dialled.insert(anchor.node);
            }
        }
        searches.push(asked);
    }
    for (node, _, _) in changes.came_up() {
        for asked in searches.iter_mut() {
            if asked.dialled.remove(&node) {
                get(asked, &node, requests, &knowledge, &mut outbox);
            }
        }
    }
    searches.retain_mut(|asked| {
        let is_over = asked.open == 0 && asked.dialled.is_empty() || now.mono_ms >= asked.until_ms;
        if is_over {
            let found = asked.best.take().map(|record| Finding {
                target: WormTarget::Node(asked.target),
                jumps: 1,
                record,
            });
            directory_searches.end(Ended {
                id: asked.id,
                found: found.into_iter().collect(),
                near: Vec::new(),
            });
            outbox.wake_at(now.mono_ms);
        } else {
            outbox.wake_at(asked.until_ms);
        }
        !is_over
    });
}

fn get(
    asked: &mut Asked,
    anchor: &NodeId,
    requests: &mut BTreeMap<RequestId, SearchId>,
    knowledge: &Knowledge<'_, '_>,
    outbox: &mut Outbox,
) {
    let Some((link, _)) = knowledge.peer_by_node(anchor) else {
        return;
    };
    let packet = Packet::from(DirectoryGet {
        target: asked.target,
        passes: DirectoryGet::PASSES_MAX,
    });
    let bytes = packet.encode();
    let request = outbox.request_within(link.id, bytes, limits::ASK_ANCHORS_MS_MAX);
    requests.insert(request, asked.id);
    asked.open += 1;
}

/// Records left with anchors, and asked for.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Directory::default());
    frame.world.insert_resource(Asking::default());
    frame.add(Phase::Ingest, take_answers);
    frame.add(Phase::Judge, take_puts);
    frame.add(Phase::Judge, dial_back);
    frame.add(Phase::Judge, serve);
    frame.add(Phase::Plan, leave_own);
    frame.add(Phase::Plan, ask);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(number: u8, network: Option<&str>) -> KnownAnchor {
        let network = network.map(|ip| Prefix::of(ip.parse().unwrap()));
        KnownAnchor {
            node: NodeId::from_bytes([number; 32]),
            target: DialTarget::Addresses(Vec::new()),
            network,
        }
    }

    #[test]
    fn a_record_is_left_with_the_profile_s_anchors_two_of_the_file_and_the_three_closest() {
        let target = NodeId::from_bytes([0; 32]);
        let of_file = vec![anchor(100, None), anchor(101, None), anchor(102, None)];
        let known = vec![
            anchor(8, Some("8.8.8.1")),
            anchor(1, Some("9.9.9.1")),
            anchor(2, Some("9.9.9.2")),
            anchor(4, Some("7.7.7.1")),
            anchor(16, Some("6.6.6.1")),
            anchor(100, None),
        ];
        let chosen = anchors_for(&target, vec![anchor(200, None)], of_file, known);
        let numbers: Vec<u8> = chosen.iter().map(|one| one.node.as_bytes()[0]).collect();
        // 2 lives in the same network as 1.
        assert_eq!(numbers, [200, 100, 101, 1, 4, 8]);
    }
}
