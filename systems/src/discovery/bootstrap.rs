//! PROTOCOL section 11: from anchors.json and the last good peers to a full set of connections, by lightweight samples.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{GoodPeer, LinkId, Notice, RequestId, Slot, Standing, Write};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{AT_ONCE, Glance, Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{BootstrapSampleRequest, BootstrapSampleResponse, Packet};
use distsoc_engine::world::candidates::{Candidates, CurrentStanding, Dialling};
use distsoc_engine::world::hints::hints_for;
use distsoc_engine::world::identity::{Anchors, Identity};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Link, Offences, Peer, PeerChanges, Peers, peers_changed, proved_address,
};
use std::collections::BTreeMap;

/// Where the search for peers stands.
#[derive(Resource, Debug)]
struct Bootstrap {
    asked: BTreeMap<RequestId, LinkId>,
    /// All slots were taken when that was last looked at, and no peer came or went since.
    is_full: bool,
    next_sample_ms: u64,
    pause_ms: u64,
    started_ms: Option<u64>,
    written_ms: BTreeMap<NodeId, u64>,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            asked: BTreeMap::new(),
            is_full: false,
            next_sample_ms: 0,
            pause_ms: limits::SAMPLE_PAUSE_MS_MIN,
            started_ms: None,
            written_ms: BTreeMap::new(),
        }
    }
}

/// How well a node with so many peers stands.
fn standing(up: usize, slots: usize, still_dialling: bool, running_ms: u64) -> Standing {
    match up {
        0 if running_ms >= limits::ANCHOR_SILENCE_MS => Standing::Offline,
        0 => Standing::Connecting,
        _ if up < slots.div_ceil(4) && still_dialling => Standing::Growing,
        _ => Standing::Connected,
    }
}

fn take_samples(
    now: Res<Now>,
    identity: Res<Identity>,
    mut entropy: ResMut<Entropy>,
    mut inbox: ResMut<Inbox>,
    mut bootstrap: ResMut<Bootstrap>,
    mut candidates: ResMut<Candidates>,
    mut offences: ResMut<Offences>,
    peers: Res<Peers>,
    links: Query<&Link>,
) {
    let asked = &mut bootstrap.asked;
    let answers = inbox.take_responses(|request| asked.remove(&request));
    for (link, result) in answers {
        let Ok(Packet::BootstrapSampleResponse(sample)) = result else {
            continue;
        };
        let Some(remote) = peers
            .by_link(link)
            .and_then(|entity| links.get(entity).ok())
            .map(|link| link.remote)
        else {
            continue;
        };
        let mut news = 0;
        for hint in sample.hints.iter() {
            if !hint.address.fits_scope_of(remote.ip()) {
                offences.note(link, Refusal::BadAddress, "BootstrapSampleResponse");
            } else if hint.node_id != identity.node_id()
                && candidates.hint(hint.node_id, hint.address)
            {
                news += 1;
                if identity.node_id() > hint.node_id {
                    // They may have heard of us in the same second: the smaller id dials first, whose connection would
                    // be the one to stay.
                    let until_ms = now.after(entropy.jittered(limits::CROSSING_PAUSE_MS));
                    candidates.postpone(&hint.node_id, until_ms);
                }
            }
        }
        bootstrap.pause_ms = match news {
            0 => (bootstrap.pause_ms * 2).min(limits::SAMPLE_PAUSE_MS_MAX),
            _ => limits::SAMPLE_PAUSE_MS_MIN,
        };
    }
}

/// A sample of connected peers, as many as asked for.
fn serve_samples(world: &mut World) {
    for arrival in world
        .resource_mut::<Arrivals<BootstrapSampleRequest>>()
        .take()
    {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let is_up = world.resource::<Peers>().up_behind(arrival.link).is_some();
        let response = is_up.then(|| {
            let hints = hints_for(world, arrival.link, usize::from(arrival.packet.count));
            BootstrapSampleResponse {
                hints: Bounded::truncated(hints),
                peers: world.resource::<Peers>().up_count() as u32,
            }
        });
        let mut outbox = world.resource_mut::<Outbox>();
        outbox.respond(stream, response.map(Packet::from).as_ref());
    }
}

/// Nothing to ask while nobody is up, an answer is on its way, or all slots are taken.
fn sample_due(glance: &Glance<'_>) -> Option<u64> {
    if peers_changed(glance).is_some() {
        return Some(AT_ONCE);
    }
    let (bootstrap, now) = (glance.at::<Bootstrap>(), glance.at::<Now>());
    let up = glance.at::<Peers>().up_count();
    match bootstrap.next_sample_ms > now.mono_ms {
        _ if up == 0 => None,
        true => (up < glance.at::<NodeProfile>().slots()).then_some(bootstrap.next_sample_ms),
        false => at_once_if(bootstrap.asked.is_empty() && !bootstrap.is_full),
    }
}

/// Asks for a sample when slots are free and the last one was long enough ago; anchors first.
fn ask_for_samples(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    peers: Res<Peers>,
    changes: Res<PeerChanges>,
    mut bootstrap: ResMut<Bootstrap>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Link, &Peer)>,
) {
    bootstrap.is_full &= changes.0.is_empty();
    if changes
        .came_up()
        .any(|(node, ..)| is_first_anchor(&node, &peers, &up))
    {
        bootstrap.next_sample_ms = now.mono_ms;
    }
    if bootstrap.next_sample_ms > now.mono_ms {
        if peers.up_count() < profile.slots() && peers.up_count() > 0 {
            outbox.wake_at(bootstrap.next_sample_ms);
        }
        return;
    }
    let free = profile.slots().saturating_sub(
        up.iter()
            .filter(|(_, peer)| peer.slot != Slot::Visit)
            .count(),
    );
    bootstrap.is_full = free == 0;
    if free == 0 || peers.up_count() == 0 || !bootstrap.asked.is_empty() {
        return;
    }
    let mut askable: Vec<(bool, u64, LinkId)> = peers
        .up()
        .filter_map(|(_, entity)| up.get(entity).ok())
        .map(|(link, peer)| (!peer.is_anchor(), entropy.next_u64(), link.id))
        .collect();
    askable.sort_unstable();
    // Usually an anchor; now and then anybody, so that no single one decides whom this node meets.
    let index = match entropy.below(4) {
        0 => entropy.below(askable.len() as u64) as usize,
        _ => 0,
    };
    let (_, _, link) = askable[index];
    let count = limits::SAMPLE_HINTS_MAX as u16;
    let request = outbox.request(link, &BootstrapSampleRequest { count }.into());
    bootstrap.asked.insert(request, link);
    let pause_ms = entropy.jittered(bootstrap.pause_ms);
    bootstrap.next_sample_ms = now.after(pause_ms);
    outbox.wake_at(bootstrap.next_sample_ms);
}

/// Whether this peer is an anchor and no other one is up.
fn is_first_anchor(node: &NodeId, peers: &Peers, up: &Query<(&Link, &Peer)>) -> bool {
    let is_anchor = |entity| up.get(entity).is_ok_and(|(_, peer)| peer.is_anchor());
    peers.by_node(node).is_some_and(is_anchor)
        && peers.up().filter(|(_, entity)| is_anchor(*entity)).count() == 1
}

/// Peers of this run are the first to be dialled in the next one.
fn remember_good_peers(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    peers: Res<Peers>,
    mut bootstrap: ResMut<Bootstrap>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Link, &Peer)>,
) {
    for (node, _, slot) in changes.came_up() {
        let written = bootstrap.written_ms.get(&node);
        let recently = written.is_some_and(|at| now.mono_ms < at + limits::GOOD_PEER_WRITE_MS);
        let Some((link, peer)) = peers.by_node(&node).and_then(|entity| up.get(entity).ok()) else {
            continue;
        };
        let Some(address) = proved_address(link, peer) else {
            continue;
        };
        if recently || slot == Slot::Visit {
            continue;
        }
        if bootstrap.written_ms.len() >= limits::GOOD_PEERS_MAX {
            let oldest = bootstrap
                .written_ms
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(node, _)| *node);
            if let Some(oldest) = oldest {
                bootstrap.written_ms.remove(&oldest);
                outbox.store(Write::ForgetPeer(oldest));
            }
        }
        bootstrap.written_ms.insert(node, now.mono_ms);
        // What it claims beside is not proved, and would be dialled as if it were.
        let addresses = vec![address];
        outbox.store(Write::GoodPeer(GoodPeer {
            node,
            addresses,
            is_anchor: peer.is_anchor(),
            last_up_ms: now.wall_ms,
        }));
    }
}

/// How a node stands changes with its peers and dials, and while it has none, with time.
fn standing_due(glance: &Glance<'_>) -> Option<u64> {
    let is_connecting = glance.at::<CurrentStanding>().0 == Standing::Connecting;
    at_once_if(is_connecting || glance.has_changed::<Peers>() || glance.has_changed::<Dialling>())
}

fn judge_standing(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    peers: Res<Peers>,
    dialling: Res<Dialling>,
    mut bootstrap: ResMut<Bootstrap>,
    mut current: ResMut<CurrentStanding>,
    mut outbox: ResMut<Outbox>,
) {
    let started_ms = *bootstrap
        .bypass_change_detection()
        .started_ms
        .get_or_insert(now.mono_ms);
    let running_ms = now.mono_ms - started_ms;
    let new = standing(
        peers.up_count(),
        profile.slots(),
        dialling.count() > 0,
        running_ms,
    );
    if new != current.0 {
        current.0 = new;
        outbox.notify(Notice::Standing(new));
    }
    if new == Standing::Connecting {
        outbox.wake_at(started_ms + limits::ANCHOR_SILENCE_MS);
    }
}

/// Where candidates come from.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let own = frame.world.resource::<Identity>().node_id();
    let anchors: Vec<_> = frame.world.resource::<Anchors>().0.clone();
    let good_peers = std::mem::take(&mut frame.restored.good_peers);
    let mut bootstrap = Bootstrap::default();
    let mut candidates = frame.world.resource_mut::<Candidates>();
    for peer in good_peers
        .iter()
        .take(limits::GOOD_PEERS_MAX)
        .filter(|peer| peer.node != own)
    {
        bootstrap.written_ms.insert(peer.node, 0);
        for address in peer.addresses.iter().rev() {
            candidates.proved(peer.node, Some(*address), peer.is_anchor, 0);
        }
    }
    for anchor in anchors.iter().filter(|anchor| anchor.node_id() != own) {
        candidates.want(anchor.node_id(), Some(anchor), true);
    }
    frame.world.insert_resource(bootstrap);
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_samples);
    frame.on(
        Occasions::packet(&BootstrapSampleRequest::SPEC),
        Phase::Judge,
        serve_samples,
    );
    frame.due(sample_due, Phase::Plan, ask_for_samples);
    frame.due(peers_changed, Phase::Plan, remember_good_peers);
    frame.due(standing_due, Phase::Emit, judge_standing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_so_when_nobody_answers_for_ten_seconds() {
        assert_eq!(standing(0, 101, true, 9_999), Standing::Connecting);
        assert_eq!(standing(0, 101, true, 10_000), Standing::Offline);
        assert_eq!(standing(1, 101, true, 0), Standing::Growing);
        assert_eq!(standing(1, 101, false, 0), Standing::Connected);
        assert_eq!(standing(26, 101, true, 0), Standing::Connected);
    }
}
