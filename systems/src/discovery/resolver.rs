//! PROTOCOL section 6, the address resolution chain: the connection itself, then a peer that reports the target at its hop 1, then
//! one that reports it at its hop 2 and asks on its side. Each step has its time; the answer says which one it was. What comes back is
//! the target's own signed record, which only somebody who reached it there hands on.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{
    Call, CallError, CallId, Found, FoundBy, LinkId, Reply, RequestId, StreamToken,
};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::Phase;
use distsoc_engine::wire::{AddressRequest, AddressResponse, Packet};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::map::{MapView, ReportedHop};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, Peers, proved_address};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Peers asked at once in a step.
const ASKED_AT_ONCE: usize = 3;
/// Searches of persons at once.
const SEARCHES_MAX: usize = 64;

/// A person's search.
#[derive(Debug)]
struct Search {
    call: CallId,
    target: NodeId,
    since_ms: u64,
    step: FoundBy,
    /// The step is over at this mono time.
    until_ms: u64,
    /// Requests that have no answer yet, each with its step: a late answer is one still.
    open: Vec<(RequestId, FoundBy)>,
}

impl Search {
    fn waits(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms && self.open.iter().any(|(_, step)| *step == self.step)
    }
}

/// A question of a peer's that this node asks on.
#[derive(Clone, Copy, Debug)]
struct Relay {
    stream: StreamToken,
    link: LinkId,
    target: NodeId,
}

/// Searches and relays under way.
#[derive(Resource, Debug, Default)]
struct Resolving {
    searches: Vec<Search>,
    relays: BTreeMap<RequestId, Relay>,
    /// Requests of searches that have ended.
    late: BTreeSet<RequestId>,
}

/// What of a record may be used: the target's own, not expired, with an address in our scope.
fn usable(
    record: &AddressRecord,
    target: &NodeId,
    near: SocketAddr,
    now: Now,
) -> Option<SocketAddr> {
    let fits = record.node_id == *target && record.expiry_ms > now.wall_ms;
    let address = record
        .addresses
        .iter()
        .find(|address| address.fits_scope_of(near.ip()));
    address.filter(|_| fits).map(|address| address.socket())
}

/// The record of a connected peer, if it was reached where the record says and the asker may be told.
fn record_of(peer: &Peer, link: &Link, asker: SocketAddr, now: Now) -> Option<AddressRecord> {
    let record = peer.record.as_ref()?;
    let proved = proved_address(link, peer)?;
    let tellable = !peer.unlisted
        && record.expiry_ms > now.wall_ms
        && record.addresses.contains(&proved)
        && record
            .addresses
            .iter()
            .all(|address| address.fits_scope_of(asker.ip()));
    tellable.then(|| record.clone())
}

/// Some of the connected peers that report the target at this hop.
fn reporters_of(
    target: &NodeId,
    hop: ReportedHop,
    map: &MapView<'_, '_>,
    peers: &Peers,
    links: &Query<(&Link, &Peer)>,
    entropy: &mut Entropy,
) -> Vec<LinkId> {
    let Some(row) = map.map.find(target, map.entries()) else {
        return Vec::new();
    };
    let link = |node: NodeId| {
        let (link, _) = links.get(peers.by_node(&node)?).ok()?;
        Some(link.id)
    };
    let mut found: Vec<LinkId> = map.map.reporters().who(hop, row).filter_map(link).collect();
    entropy.shuffle(&mut found);
    found.truncate(ASKED_AT_ONCE);
    found
}

fn take_calls(
    now: Res<Now>,
    identity: Res<Identity>,
    peers: Res<Peers>,
    mut inbox: ResMut<Inbox>,
    mut resolving: ResMut<Resolving>,
    mut outbox: ResMut<Outbox>,
    links: Query<(&Link, &Peer)>,
) {
    if inbox.calls.is_empty() {
        return;
    }
    let calls = inbox.take_calls(|call| match call {
        Call::Find(node) => Some(*node),
        _ => None,
    });
    for (call, target) in calls {
        let direct = peers
            .by_node(&target)
            .and_then(|entity| links.get(entity).ok());
        if target == identity.node_id() {
            outbox.reply(call, Err(CallError::Refused("this is your own node")));
        } else if let Some((link, _)) = direct {
            let found = Found {
                node_id: target,
                found_by: FoundBy::Direct,
                address: link.remote,
                jumps: 0,
                ms: 0,
            };
            outbox.reply(call, Ok(Reply::Found(found)));
        } else if resolving.searches.len() >= SEARCHES_MAX {
            outbox.reply(
                call,
                Err(CallError::Refused("too many searches are under way")),
            );
        } else {
            resolving.searches.push(Search {
                call,
                target,
                since_ms: now.mono_ms,
                step: FoundBy::Direct,
                until_ms: now.mono_ms,
                open: Vec::new(),
            });
        }
    }
}

/// The next step of every search whose last one gave nothing, or is over.
fn go_on(
    now: Res<Now>,
    map: MapView,
    peers: Res<Peers>,
    mut resolving: ResMut<Resolving>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    links: Query<(&Link, &Peer)>,
) {
    if resolving.searches.is_empty() {
        return;
    }
    let Resolving { searches, late, .. } = &mut *resolving;
    searches.retain_mut(|search| {
        while !search.waits(now.mono_ms) {
            let (step, hop, relays, ms) = match search.step {
                FoundBy::Direct => (
                    FoundBy::Reporter,
                    ReportedHop::One,
                    0,
                    limits::ASK_REPORTER_MS_MAX,
                ),
                FoundBy::Reporter => (
                    FoundBy::Closer,
                    ReportedHop::Two,
                    1,
                    limits::ASK_CLOSER_MS_MAX,
                ),
                FoundBy::Closer => {
                    let why = "nobody within three hops knows where that node is";
                    outbox.reply(search.call, Err(CallError::NotFound(why)));
                    late.extend(search.open.iter().map(|(request, _)| *request));
                    return false;
                }
            };
            search.step = step;
            search.until_ms = now.after(ms);
            let asked = reporters_of(&search.target, hop, &map, &peers, &links, &mut entropy);
            let request = AddressRequest {
                target: search.target,
                relays,
            };
            let request = Packet::from(request);
            let requests = asked
                .into_iter()
                .map(|link| (outbox.request(link, &request), step));
            search.open.extend(requests);
        }
        outbox.wake_at(search.until_ms);
        true
    });
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut resolving: ResMut<Resolving>,
    mut outbox: ResMut<Outbox>,
    links: Query<&Link>,
) {
    if inbox.responses.is_empty() {
        return;
    }
    let near = links.iter().next().map(|link| link.remote);
    let Resolving {
        searches,
        relays,
        late,
    } = &mut *resolving;
    let answers = inbox.take_responses(|request| {
        let is_search = searches
            .iter()
            .any(|search| search.open.iter().any(|(open, _)| *open == request));
        (is_search || relays.contains_key(&request) || late.contains(&request)).then_some(request)
    });
    for (request, response) in answers {
        late.remove(&request);
        let record = match response {
            Ok(Packet::AddressResponse(response)) => response.record,
            _ => None,
        };
        if let Some(relay) = relays.remove(&request) {
            let asker = links
                .iter()
                .find(|link| link.id == relay.link)
                .map(|link| link.remote);
            let record = record.filter(|record| {
                asker.is_some_and(|asker| usable(record, &relay.target, asker, *now).is_some())
            });
            outbox.respond(relay.stream, Some(&AddressResponse { record }.into()));
            continue;
        }
        let asked_by = |search: &Search| search.open.iter().position(|(open, _)| *open == request);
        let found = searches
            .iter()
            .enumerate()
            .find_map(|(number, search)| Some((number, asked_by(search)?)));
        let Some((number, at)) = found else { continue };
        let search = &mut searches[number];
        let (_, found_by) = search.open.remove(at);
        let address = record
            .zip(near)
            .and_then(|(record, near)| usable(&record, &search.target, near, *now));
        if let Some(address) = address {
            let found = Found {
                node_id: search.target,
                found_by,
                address,
                jumps: if found_by == FoundBy::Closer { 2 } else { 1 },
                ms: now.mono_ms - search.since_ms,
            };
            outbox.reply(search.call, Ok(Reply::Found(found)));
            let search = searches.remove(number);
            late.extend(search.open.into_iter().map(|(request, _)| request));
        }
    }
}

fn serve(
    now: Res<Now>,
    map: MapView,
    peers: Res<Peers>,
    mut arrivals: ResMut<Arrivals<AddressRequest>>,
    mut resolving: ResMut<Resolving>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
    links: Query<(&Link, &Peer)>,
) {
    for arrival in arrivals.take() {
        let asker = peers
            .up_behind(arrival.link)
            .and_then(|entity| links.get(entity).ok());
        let (Some(stream), Some((asker, _))) = (arrival.stream, asker) else {
            continue;
        };
        let AddressRequest { target, relays } = arrival.packet;
        let peer = peers
            .by_node(&target)
            .and_then(|entity| links.get(entity).ok());
        let record = peer.and_then(|(link, peer)| record_of(peer, link, asker.remote, *now));
        let closer = match (&record, relays) {
            (None, 1) => reporters_of(
                &target,
                ReportedHop::One,
                &map,
                &peers,
                &links,
                &mut entropy,
            ),
            _ => Vec::new(),
        };
        let Some(closer) = closer.into_iter().find(|link| *link != asker.id) else {
            outbox.respond(stream, Some(&AddressResponse { record }.into()));
            continue;
        };
        if resolving.relays.len() >= limits::ADDRESS_RELAYS_MAX {
            offences.note(arrival.link, Refusal::Full, "AddressRequest");
            outbox.respond(stream, None);
            continue;
        }
        let request = outbox.request(closer, &AddressRequest { target, relays: 0 }.into());
        let relay = Relay {
            stream,
            link: arrival.link,
            target,
        };
        resolving.relays.insert(request, relay);
    }
}

/// Searches by persons, and answers for peers.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Resolving::default());
    frame.add(Phase::Ingest, take_answers);
    frame.add(Phase::Judge, serve);
    frame.add(Phase::Judge, take_calls);
    frame.add(Phase::Plan, go_on);
}
