//! PROTOCOL section 6, InitialMapSync: hop 3 on request, slowly, to a node that is bootstrapping and whose samples do not fill its
//! slots: candidates to connect to, looked up one by one, forgotten once its own view stands.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Address, NodeId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestId, Slot};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Glance, Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{AddressRequest, OuterMap, OuterMapRequest, Packet};
use distsoc_engine::world::candidates::Candidates;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::map::{MapEntry, MapView};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, Peers, usable_address};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// For ids.
    Ids,
    /// For the address of this one.
    Whereabouts(NodeId),
}

/// The search beyond the samples.
#[derive(Resource, Debug, Default)]
struct Outer {
    /// Since when there have been peers: mono ms.
    since_ms: Option<u64>,
    asked: Option<(RequestId, LinkId, Question)>,
    /// Who named the ids, and where the next ones begin.
    source: Option<(LinkId, u32)>,
    /// Ids not looked up yet, at most [`limits::OUTER_IDS_MAX`].
    ids: Vec<NodeId>,
    /// More ids are asked for no sooner: mono ms.
    more_ms: u64,
    /// Nothing is asked sooner: mono ms.
    next_ms: u64,
}

fn take_answers(
    now: Res<Now>,
    identity: Res<Identity>,
    mut inbox: ResMut<Inbox>,
    mut outer: ResMut<Outer>,
    mut candidates: ResMut<Candidates>,
    mut entropy: ResMut<Entropy>,
    peers: Res<Peers>,
    links: Query<&Link>,
) {
    let Some((asked, link, question)) = outer.asked else {
        return;
    };
    for ((), response) in inbox.take_responses(|request| (request == asked).then_some(())) {
        outer.asked = None;
        match (question, response) {
            (Question::Ids, Ok(Packet::OuterMap(answer))) => {
                outer.source = Some((link, answer.next));
                outer.ids = answer.ids.to_vec();
                outer.ids.retain(|node| *node != identity.node_id());
                entropy.shuffle(&mut outer.ids);
            }
            (Question::Whereabouts(node), Ok(Packet::AddressResponse(answer))) => {
                let near = peers
                    .by_link(link)
                    .and_then(|entity| links.get(entity).ok());
                let address = answer.record.zip(near).and_then(|(record, near)| {
                    let socket = usable_address(&record, &node, near.remote, *now)?;
                    Address::new(socket).ok()
                });
                if let Some(address) = address {
                    candidates.hint(node, address);
                }
            }
            _ => {}
        }
    }
}

/// Some of the ids at hop 3, from a row on, and the row after them.
fn some_of(entries: &[MapEntry], from: u32) -> OuterMap {
    let count = entries.len();
    if count == 0 {
        return OuterMap::default();
    }
    let first = from as usize % count;
    let rows = (first..count).chain(0..first);
    let at_hop_3 = rows.filter(|row| entries[*row].hop() == Some(3));
    let rows: Vec<usize> = at_hop_3.take(limits::OUTER_IDS_MAX).collect();
    let next = rows.last().map_or(first, |last| (last + 1) % count);
    let ids = rows.into_iter().map(|row| entries[row].node).collect();
    OuterMap {
        next: next as u32,
        ids: Bounded::truncated(ids),
    }
}

fn serve(
    mut arrivals: ResMut<Arrivals<OuterMapRequest>>,
    peers: Res<Peers>,
    map: MapView,
    mut outbox: ResMut<Outbox>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let is_up = peers.up_behind(arrival.link).is_some();
        let answer = is_up.then(|| some_of(map.entries(), arrival.packet.from).into());
        outbox.respond(stream, answer.as_ref());
    }
}

/// Whether a node still looks for its first full set of connections.
fn is_bootstrapping(seated: usize, slots: usize, running_ms: u64) -> bool {
    seated * 4 < slots * 3 && running_ms < limits::BOOTSTRAP_MS_MAX
}

/// From the first peer on, while a node is young.
fn look_due(glance: &Glance<'_>) -> Option<u64> {
    let outer = glance.at::<Outer>();
    let Some(since_ms) = outer.since_ms else {
        return at_once_if(glance.at::<Peers>().up_count() > 0);
    };
    let is_young = glance.at::<Now>().mono_ms < since_ms + limits::BOOTSTRAP_MS_MAX;
    (outer.asked.is_none() && is_young).then_some(outer.next_ms)
}

fn look_farther(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    peers: Res<Peers>,
    candidates: Res<Candidates>,
    mut outer: ResMut<Outer>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Link, &Peer)>,
) {
    let may_begin = outer.since_ms.is_none() && peers.up_count() > 0;
    if may_begin {
        outer.since_ms = Some(now.mono_ms);
        outer.next_ms = now.after(entropy.jittered(limits::OUTER_PAUSE_MS));
    }
    let Some(since_ms) = outer.since_ms.filter(|_| outer.asked.is_none()) else {
        return;
    };
    if now.mono_ms >= since_ms + limits::BOOTSTRAP_MS_MAX {
        return;
    }
    if now.mono_ms < outer.next_ms {
        outbox.wake_at(outer.next_ms);
        return;
    }
    let seated: Vec<LinkId> = up
        .iter()
        .filter(|(_, peer)| peer.slot != Slot::Visit)
        .map(|(link, _)| link.id)
        .collect();
    outer.next_ms = now.after(entropy.jittered(limits::OUTER_PAUSE_MS));
    let running_ms = now.mono_ms - since_ms;
    if seated.is_empty() || !is_bootstrapping(seated.len(), profile.slots(), running_ms) {
        outer.ids = Vec::new();
        outbox.wake_at(outer.next_ms);
        return;
    }
    let source = outer.source.filter(|(link, _)| seated.contains(link));
    let is_new = |node: &NodeId| candidates.get(node).is_none() && !peers.is_linked(node);
    let next = std::iter::from_fn(|| outer.ids.pop()).find(is_new);
    if next.is_none() && now.mono_ms < outer.more_ms {
        outer.next_ms = outer.more_ms;
        outbox.wake_at(outer.next_ms);
        return;
    }
    let (link, question, request) = match (source, next) {
        (Some((link, _)), Some(target)) => {
            let request = AddressRequest { target, relays: 2 };
            (link, Question::Whereabouts(target), Packet::from(request))
        }
        _ => {
            outer.more_ms = outer.next_ms;
            // Each time somebody else, so that no single one decides whom this node meets.
            let link = seated[entropy.below(seated.len() as u64) as usize];
            let from = match source {
                Some((last, next)) if last == link => next,
                _ => entropy.next_u64() as u32,
            };
            (link, Question::Ids, OuterMapRequest { from }.into())
        }
    };
    outer.asked = Some((outbox.request(link, &request), link, question));
    outer.next_ms = now.after(entropy.jittered(limits::OUTER_LOOKUP_MS));
    outbox.wake_at(outer.next_ms);
}

/// Whom to look for beyond the samples.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Outer::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.on(
        Occasions::packet(&OuterMapRequest::SPEC),
        Phase::Judge,
        serve,
    );
    frame.due(look_due, Phase::Plan, look_farther);
}
