//! What a node does next with a search: look by itself, ask its peers, hand it on, try another way, ask the region of the target.

use super::search::{Asker, Open, Stage, Worm, is_disjoint, node_targets, wait_until_ms};
use distsoc_engine::domain::{AddressRecord, Network, NodeId, worm_share};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestId, Slot};
use distsoc_engine::limits;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Packet, PacketBytes, WormFinding, WormQuery, WormRequest, WormTarget};
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Of which worm.
    pub(super) number: u64,
    /// To whom.
    pub(super) via: LinkId,
    /// A query, not the search itself.
    pub(super) is_query: bool,
}

/// All requests under way.
pub(super) type Requests = BTreeMap<RequestId, Sent>;

/// What each peer was handed: no more than it takes of searches (PROTOCOL section 6: 10 a minute, 2 at once) and of queries. Who
/// sent more would be taken for a flooder.
#[derive(Debug, Default)]
pub(super) struct With(BTreeMap<(LinkId, bool), Handed>);

/// How many a peer takes at once, and in a minute.
const fn taken(is_query: bool) -> (usize, usize) {
    let spec = match is_query {
        true => &WormQuery::SPEC,
        false => &WormRequest::SPEC,
    };
    // What it takes at once it takes in any minute, whatever came before.
    let a_minute = if spec.burst < spec.per_minute {
        spec.burst
    } else {
        spec.per_minute
    };
    (spec.in_flight_max as usize, a_minute as usize)
}

#[derive(Debug, Default)]
struct Handed {
    /// Without an answer yet.
    open: usize,
    /// When, those of the last minute.
    at_ms: VecDeque<u64>,
}

impl With {
    fn hand(&mut self, via: LinkId, is_query: bool, now_ms: u64) {
        let handed = self.0.entry((via, is_query)).or_default();
        handed.open += 1;
        handed.at_ms.push_back(now_ms);
        if handed.at_ms.len() > taken(is_query).1 {
            handed.at_ms.pop_front();
        }
    }

    pub(super) fn release(&mut self, sent: Sent) {
        if let Some(handed) = self.0.get_mut(&(sent.via, sent.is_query)) {
            handed.open = handed.open.saturating_sub(1);
        }
    }

    /// Connections that are no more are forgotten.
    pub(super) fn retain(&mut self, is_up: impl Fn(LinkId) -> bool) {
        self.0
            .retain(|(via, _), handed| handed.open > 0 || is_up(*via));
    }

    fn is_busy(&self, via: LinkId, is_query: bool, now_ms: u64) -> bool {
        let (at_once, a_minute) = taken(is_query);
        self.0.get(&(via, is_query)).is_some_and(|handed| {
            let is_full = handed.at_ms.len() == a_minute;
            let first_ms = handed.at_ms.front().copied().unwrap_or_default();
            handed.open >= at_once || is_full && now_ms < first_ms + 60_000
        })
    }
}

/// What sending needs.
pub(super) struct Sender<'a> {
    pub(super) requests: &'a mut Requests,
    /// What each peer was handed.
    pub(super) with: &'a mut With,
    pub(super) outbox: &'a mut Outbox,
    /// Of the worm.
    pub(super) number: u64,
    pub(super) now_ms: u64,
    pub(super) fan_out_ms: u64,
}

impl Sender<'_> {
    /// Asks peers what they know by themselves, as many as the budget allows.
    fn query(&mut self, worm: &mut Worm, vias: Vec<LinkId>) -> u64 {
        let (places, targets): (Vec<u8>, Vec<WormTarget>) = worm.unfound().unzip();
        let bytes = Packet::from(WormQuery {
            targets: Bounded::truncated(targets),
            near: 1,
        })
        .encode();
        let (with, now_ms) = (&*self.with, self.now_ms);
        let free = vias
            .into_iter()
            .filter(|via| !with.is_busy(*via, true, now_ms));
        let free: Vec<LinkId> = free.take(usize::from(worm.budget)).collect();
        for via in free {
            worm.budget -= 1;
            let timeout_ms = self.fan_out_ms * 2;
            self.send(worm, via, bytes.clone(), timeout_ms, true, places.clone());
        }
        self.now_ms + self.fan_out_ms
    }

    /// Hands a part of the search to a peer.
    fn hand_on(&mut self, worm: &mut Worm, via: LinkId, places: Vec<u8>, arrives: bool) {
        let targets = places.iter().map(|place| worm.targets[usize::from(*place)]);
        let targets: Vec<WormTarget> = targets.collect();
        let budget = worm_share(worm.budget, worm.is_own(), worm.attempts);
        let left_ms = worm.until_ms.saturating_sub(self.now_ms);
        let patience_ms = (worm.patience_ms * 3 / 4).min(left_ms);
        let path = match worm.is_own() {
            true => worm.attempts % limits::WORM_PATHS,
            false => worm.path,
        };
        let packet = Packet::from(WormRequest {
            search: worm.search,
            path,
            ttl: worm.ttl - u8::from(arrives),
            budget,
            patience_ms: patience_ms as u16,
            targets: Bounded::truncated(targets),
            origin: worm.origin.clone(),
        });
        worm.budget -= 1 + budget;
        worm.tried.extend(places.iter().map(|place| (*place, via)));
        self.send(worm, via, packet.encode(), left_ms.max(1), false, places);
    }

    /// Sends a request of a worm's, and notes that it is open and what the peer was handed.
    fn send(
        &mut self,
        worm: &mut Worm,
        via: LinkId,
        bytes: PacketBytes,
        timeout_ms: u64,
        is_query: bool,
        targets: Vec<u8>,
    ) {
        let request = self.outbox.request_within(via, bytes, timeout_ms);
        let number = self.number;
        let sent = Sent {
            number,
            via,
            is_query,
        };
        self.requests.insert(request, sent);
        self.with.hand(via, is_query, self.now_ms);
        worm.open.push(Open {
            request,
            via,
            is_query,
            targets,
        });
    }
}

/// Whom to hand the search to next: for every target the best way not tried, targets with the same way together.
fn next_ways(
    worm: &Worm,
    with: &With,
    now_ms: u64,
    begun: &[(Slot, Option<Network>)],
    knowledge: &Knowledge<'_, '_>,
    entropy: &mut Entropy,
) -> BTreeMap<LinkId, (Vec<u8>, bool)> {
    let usable = |place: u8, via: LinkId| {
        let back = matches!(worm.asker, Asker::Peer { link, .. } if link == via);
        let busy = with.is_busy(via, false, now_ms);
        let disjoint = || {
            let starts = worm.is_own() && worm.attempts < limits::WORM_PATHS;
            let peer = knowledge.peer(via);
            peer.is_some_and(|(link, peer)| {
                !starts || is_disjoint(begun, peer.slot, Network::of(link.remote.ip()))
            })
        };
        !back && !busy && !worm.tried.contains(&(place, via)) && disjoint()
    };
    let mut next: BTreeMap<LinkId, (Vec<u8>, bool)> = BTreeMap::new();
    for (place, target) in worm.unfound() {
        let way = match target {
            WormTarget::Node(_) => {
                let ways = worm.ways(place, target, knowledge).into_iter();
                ways.filter(|way| worm.ttl > 0 || !way.arrives)
                    .map(|way| (way.via, way.arrives))
                    .find(|(via, _)| usable(place, *via))
            }
            WormTarget::Post(_) | WormTarget::Author(_) if worm.ttl > 0 => {
                let wide = knowledge
                    .peers()
                    .filter(|(_, peer)| peer.slot == Slot::Wide);
                let mut vias: Vec<LinkId> = wide.map(|(link, _)| link.id).collect();
                entropy.shuffle(&mut vias);
                let via = vias.into_iter().find(|via| usable(place, *via));
                via.map(|via| (via, true))
            }
            WormTarget::Post(_) | WormTarget::Author(_) => None,
        };
        if let Some((via, arrives)) = way {
            let (places, any_arrives) = next.entry(via).or_default();
            places.push(place);
            *any_arrives |= arrives;
        }
    }
    next
}

/// Whether this node asks all of its peers: for an own search always, on behalf of others for content only, which no id leads to.
fn fans_out(worm: &Worm) -> bool {
    let is_content = |(_, target): (u8, WormTarget)| !matches!(target, WormTarget::Node(_));
    worm.is_own() && !worm.is_quiet || worm.ttl > 0 && worm.unfound().any(is_content)
}

/// The next step of a worm; whether it has ended.
pub(super) fn advance(
    worm: &mut Worm,
    sender: &mut Sender<'_>,
    knowledge: &Knowledge<'_, '_>,
    entropy: &mut Entropy,
) -> bool {
    if worm.stage == Stage::Begun {
        check_locally(worm, knowledge);
    }
    if worm.has_found_all() || sender.now_ms >= worm.until_ms {
        return true;
    }
    if worm.stage == Stage::Begun {
        worm.stage = Stage::HandedOn;
        if fans_out(worm) {
            let vias = all_but_asker(worm, knowledge);
            let until_ms = sender.query(worm, vias);
            worm.stage = Stage::FannedOut {
                since_ms: sender.now_ms,
                until_ms,
                asked: worm.open.len(),
            };
        }
    }
    if let Stage::FannedOut { until_ms, .. } | Stage::InRegion { until_ms } = worm.stage {
        let open = worm.open.iter().filter(|open| open.is_query).count();
        let until_ms = match &mut worm.stage {
            Stage::FannedOut {
                since_ms,
                until_ms,
                asked,
            } => {
                *until_ms = wait_until_ms(*since_ms, *until_ms, *asked, open, sender.now_ms);
                *until_ms
            }
            _ => until_ms,
        };
        if open > 0 && sender.now_ms < until_ms {
            worm.due_ms = until_ms.min(worm.until_ms);
            return false;
        }
        worm.stage = match worm.stage {
            Stage::InRegion { .. } => Stage::Last,
            _ => Stage::HandedOn,
        };
    }
    hand_on_more(worm, sender, knowledge, entropy)
}

fn check_locally(worm: &mut Worm, knowledge: &Knowledge<'_, '_>) {
    for (place, target) in worm.unfound().collect::<Vec<_>>() {
        let record = knowledge.find(target, worm.asker_remote);
        // An own search for content looks for other holders.
        let is_news = |record: &AddressRecord| !worm.is_own() || record.node_id != knowledge.own();
        worm.found[usize::from(place)] = record.filter(is_news).map(|record| WormFinding {
            target: place,
            links: 0,
            record,
        });
    }
}

fn all_but_asker(worm: &Worm, knowledge: &Knowledge<'_, '_>) -> Vec<LinkId> {
    let is_asker =
        |link: LinkId| matches!(worm.asker, Asker::Peer { link: asker, .. } if asker == link);
    let peers = knowledge.peers();
    peers
        .filter(|(link, peer)| peer.slot != Slot::Visit && !is_asker(link.id))
        .map(|(link, _)| link.id)
        .collect()
}

fn hand_on_more(
    worm: &mut Worm,
    sender: &mut Sender<'_>,
    knowledge: &Knowledge<'_, '_>,
    entropy: &mut Entropy,
) -> bool {
    let mut missing = worm.paths().saturating_sub(worm.waits_for());
    if sender.now_ms >= worm.hedge_ms {
        missing = missing.max(1);
        worm.hedge_ms = sender.now_ms + (worm.patience_ms / 2).max(sender.fan_out_ms);
    }
    let mut begun = Vec::new();
    for _ in 0..missing {
        let next = next_ways(worm, sender.with, sender.now_ms, &begun, knowledge, entropy);
        for (via, (places, arrives)) in next {
            if worm.budget == 0 {
                break;
            }
            let peer = knowledge.peer(via);
            begun.extend(peer.map(|(link, peer)| (peer.slot, Network::of(link.remote.ip()))));
            sender.hand_on(worm, via, places, arrives);
        }
        worm.attempts = worm.attempts.saturating_add(1);
    }
    if !begun.is_empty() || worm.waits_for() > 0 {
        worm.due_ms = worm.hedge_ms.min(worm.until_ms);
        return false;
    }
    // Nobody leads closer. Whoever is near the target may have its record, or know somebody nearer.
    if worm.is_own() || worm.stage == Stage::Last {
        return true;
    }
    let nearest = |target: NodeId| knowledge.closest_peers(&target, limits::WORM_REGION_MAX);
    let nearest: BTreeSet<NodeId> = node_targets(&worm.targets).flat_map(nearest).collect();
    let mut vias = all_but_asker(worm, knowledge);
    let is_near = |via: &LinkId| {
        let peer = knowledge.peer(*via);
        peer.is_some_and(|(link, _)| nearest.contains(&link.node))
    };
    vias.retain(is_near);
    vias.truncate(limits::WORM_REGION_MAX);
    if vias.is_empty() || worm.budget == 0 {
        return true;
    }
    let until_ms = sender.query(worm, vias);
    worm.stage = Stage::InRegion { until_ms };
    worm.due_ms = until_ms.min(worm.until_ms);
    false
}
