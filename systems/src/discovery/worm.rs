//! PROTOCOL section 6, worm lookup: whoever is not on the map is looked for by asking all peers at once, then along the
//! connections that lead to the ids closest to the target, each node choosing the next by its own map.
//!
//! A search has a budget of requests, which every node splits among those it hands the search to and never gets back: so what
//! one request can cause is bounded whatever the others on the path say. Answers come back along the path, on the streams of the
//! requests. What counts as found is the target's own signed record, so that a liar can keep silent and nothing else: therefore
//! three paths, and at every node another way once the first has been silent for long.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId, Scope};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestId, Slot, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::Phase;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    Packet, WormFinding, WormNear, WormQuery, WormRequest, WormResponse, WormTarget,
};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::knowledge::{Knowledge, Way};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Offences;
use distsoc_engine::world::searches::{Ended, Finding, SearchId, WormSearches};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Known ids closest to a target that a node considers as bearings.
const BEARINGS: usize = 8;
/// Nodes near a target that an answer names.
const NEAR_TOLD: usize = 4;
/// Nodes near the targets that a search remembers.
const NEAR_KEPT: usize = 16;

/// Who is told what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Own(SearchId),
    Peer { link: LinkId, stream: StreamToken },
}

/// A request of a worm's that has no answer yet.
#[derive(Debug)]
struct Open {
    request: RequestId,
    via: LinkId,
    is_query: bool,
    /// The places of its targets in the worm's own list.
    targets: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was asked yet.
    Begun,
    /// All peers were asked what they know.
    FannedOut { until_ms: u64 },
    /// The search is with others.
    HandedOn,
    /// Nobody leads closer: the peers nearest to the target were asked.
    InRegion { until_ms: u64 },
    /// They have answered.
    Last,
}

/// A search as this node sees it.
#[derive(Debug)]
struct Worm {
    asker: Asker,
    asker_remote: SocketAddr,
    search: u64,
    path: u8,
    ttl: u8,
    budget: u16,
    patience_ms: u64,
    until_ms: u64,
    targets: Vec<WormTarget>,
    found: Vec<Option<WormFinding>>,
    near: Vec<AddressRecord>,
    leads: Vec<(u8, Way)>,
    open: Vec<Open>,
    tried: BTreeSet<(u8, LinkId)>,
    stage: Stage,
    attempts: u8,
    /// Another way is tried then, though the one before may still answer: mono ms.
    hedge_ms: u64,
    /// Nothing is to be done before: mono ms.
    due_ms: u64,
}

/// How much of its budget a node gives to the next attempt, beside the request itself.
///
/// An own search keeps a quarter for each of its three paths and one for what comes after; on the way, three quarters go on.
fn share_of(budget: u16, is_own: bool, attempts: u8) -> u16 {
    let rest = budget.saturating_sub(1);
    match (is_own, attempts) {
        (true, before @ 0..limits::WORM_PATHS) => {
            rest / (u16::from(limits::WORM_PATHS - before) + 1)
        }
        (true, _) => rest / 2,
        (false, _) => rest / 4 * 3 + rest % 4 * 3 / 4,
    }
}

/// The first three paths of a search begin in different networks (/16, IPv6 /32), and one of them at a social peer.
fn is_disjoint(begun: &[(Slot, [u8; 4])], slot: Slot, network: [u8; 4]) -> bool {
    let is_local = network[0] == 0;
    let is_new = is_local || begun.iter().all(|(_, other)| *other != network);
    let is_last = begun.len() + 1 == usize::from(limits::WORM_PATHS);
    let needs_social = is_last && begun.iter().all(|(slot, _)| *slot != Slot::Social);
    is_new && (!needs_social || slot == Slot::Social)
}

/// What makes two addresses count as one network; zeros in local scopes, where prefix rules do not apply.
fn network_of(address: SocketAddr) -> [u8; 4] {
    if Scope::of(address.ip()).is_local() {
        return [0; 4];
    }
    match address.ip().to_canonical() {
        std::net::IpAddr::V4(v4) => [4, v4.octets()[0], v4.octets()[1], 0],
        std::net::IpAddr::V6(v6) => std::array::from_fn(|i| v6.octets()[i].max(1)),
    }
}

impl Worm {
    fn is_own(&self) -> bool {
        matches!(self.asker, Asker::Own(_))
    }

    fn unfound(&self) -> impl Iterator<Item = (u8, WormTarget)> {
        let all = self.targets.iter().zip(&self.found).enumerate();
        all.filter(|(_, (_, found))| found.is_none())
            .map(|(place, (target, _))| (place as u8, *target))
    }

    fn has_found_all(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }

    /// How many who were handed the search may still answer.
    fn waits_for(&self) -> usize {
        self.open.iter().filter(|open| !open.is_query).count()
    }

    /// How many are to have it at once.
    fn paths(&self) -> usize {
        match self.is_own() {
            true => usize::from(limits::WORM_PATHS),
            false => 1,
        }
    }

    /// Takes in what one of those asked has answered. Refuses what names nobody who was looked for.
    fn take(
        &mut self,
        request: RequestId,
        response: WormResponse,
        knowledge: &Knowledge<'_, '_>,
    ) -> Result<(), (LinkId, Refusal)> {
        let Some(at) = self.open.iter().position(|open| open.request == request) else {
            return Ok(());
        };
        let open = self.open.swap_remove(at);
        let now = knowledge.now();
        let place_of = |target: u8| {
            let place = open.targets.get(usize::from(target)).copied();
            place.ok_or((open.via, Refusal::OutOfRange))
        };
        for finding in response.found.into_vec() {
            let place = place_of(finding.target)?;
            let target = self.targets[usize::from(place)];
            let is_it = match target {
                WormTarget::Node(node) => finding.record.node_id == node,
                WormTarget::Post(_) | WormTarget::Author(_) => true,
            };
            if !is_it {
                return Err((open.via, Refusal::WrongAuthor));
            }
            if finding.record.expiry_ms <= now.wall_ms {
                continue;
            }
            let links = finding.links.saturating_add(1);
            let found = &mut self.found[usize::from(place)];
            if found.as_ref().is_none_or(|known| links < known.links) {
                *found = Some(WormFinding {
                    target: place,
                    links,
                    record: finding.record,
                });
            }
        }
        for near in response.near.into_vec() {
            let place = place_of(near.target)?;
            self.take_near(place, near, &open, knowledge);
        }
        Ok(())
    }

    fn take_near(&mut self, place: u8, near: WormNear, open: &Open, knowledge: &Knowledge<'_, '_>) {
        let WormTarget::Node(target) = self.targets[usize::from(place)] else {
            return;
        };
        let peer = knowledge.peer(open.via).map(|(link, _)| link.node);
        if open.is_query && near.node != knowledge.own() {
            let way = Way {
                distance: target.distance(&near.node),
                bearing: near.node,
                via: open.via,
                arrives: peer == Some(near.node),
            };
            self.leads.push((place, way));
        }
        if let Some(record) = near.record
            && record.expiry_ms > knowledge.now().wall_ms
        {
            self.note_near(record);
        }
    }

    /// Remembers who is near one of the targets.
    fn note_near(&mut self, record: AddressRecord) {
        if self
            .near
            .iter()
            .any(|known| known.node_id == record.node_id)
        {
            return;
        }
        let targets: Vec<NodeId> = node_targets(&self.targets).collect();
        self.near.push(record);
        self.near.sort_by_key(|record| {
            let distances = targets
                .iter()
                .map(|target| target.distance(&record.node_id));
            distances.min()
        });
        self.near.truncate(NEAR_KEPT);
    }

    /// The ways to go on with a target, best first: those of the own map, and those that peers named.
    fn ways(&self, place: u8, target: WormTarget, knowledge: &Knowledge<'_, '_>) -> Vec<Way> {
        let WormTarget::Node(target) = target else {
            return Vec::new();
        };
        let own = target.distance(&knowledge.own());
        let mut ways = knowledge.ways(&target, BEARINGS);
        let of_place = self.leads.iter().filter(|(other, _)| *other == place);
        ways.extend(of_place.map(|(_, way)| *way));
        // Every node on a path must be closer than the one that chose it: so no path goes round.
        ways.retain(|way| way.distance < own || self.is_own());
        ways.sort_by_key(|way| (way.distance, !way.arrives));
        ways
    }
}

fn node_targets(targets: &[WormTarget]) -> impl Iterator<Item = NodeId> {
    targets.iter().filter_map(|target| match target {
        WormTarget::Node(node) => Some(*node),
        WormTarget::Post(_) | WormTarget::Author(_) => None,
    })
}

/// All searches that pass through here.
#[derive(Resource, Debug, Default)]
struct Worms {
    worms: BTreeMap<u64, Worm>,
    last: u64,
    /// Whose answer it is, and who was handed the search; also of worms that have ended, until it has come.
    requests: BTreeMap<RequestId, (u64, Option<LinkId>)>,
    /// How many searches are with each peer.
    with: BTreeMap<LinkId, usize>,
    /// Searches and paths taken, until when they are remembered.
    seen: BTreeMap<(u64, u8), u64>,
}

impl Worms {
    fn add(&mut self, worm: Worm) {
        self.last += 1;
        self.worms.insert(self.last, worm);
    }

    /// Whether a search is new on this path, and there is room to remember it.
    fn see(&mut self, search: u64, path: u8, now_ms: u64) -> Result<bool, Refusal> {
        if self.seen.contains_key(&(search, path)) {
            return Ok(false);
        }
        if self.seen.len() >= limits::WORMS_MAX {
            self.seen.retain(|_, until_ms| *until_ms > now_ms);
        }
        if self.seen.len() >= limits::WORMS_MAX || self.worms.len() >= limits::WORMS_MAX {
            return Err(Refusal::Full);
        }
        self.seen
            .insert((search, path), now_ms + limits::WORM_SEEN_MS);
        Ok(true)
    }
}

fn take_answers(
    mut inbox: ResMut<Inbox>,
    mut worms: ResMut<Worms>,
    mut offences: ResMut<Offences>,
    knowledge: Knowledge<'_, '_>,
) {
    if inbox.responses.is_empty() || worms.requests.is_empty() {
        return;
    }
    let Worms {
        worms,
        requests,
        with,
        ..
    } = &mut *worms;
    let answers = inbox.take_responses(|request| Some((request, requests.remove(&request)?)));
    for ((request, (number, handed_to)), result) in answers {
        if let Some(via) = handed_to {
            release(with, via);
        }
        let Some(worm) = worms.get_mut(&number) else {
            continue;
        };
        worm.due_ms = 0;
        let response = match result {
            Ok(Packet::WormResponse(response)) => response,
            _ => WormResponse::default(),
        };
        if let Err((link, refusal)) = worm.take(request, response, &knowledge) {
            offences.note(link, refusal, "WormResponse");
        }
    }
}

fn release(with: &mut BTreeMap<LinkId, usize>, via: LinkId) {
    if let Some(count) = with.get_mut(&via) {
        *count -= 1;
        if *count == 0 {
            with.remove(&via);
        }
    }
}

/// What this node knows of the targets, and of who is close to the others.
fn answer_of(
    targets: &[WormTarget],
    asker_remote: SocketAddr,
    asker: NodeId,
    knowledge: &Knowledge<'_, '_>,
) -> WormResponse {
    let (mut found, mut near) = (Vec::new(), Vec::new());
    for (place, target) in (0u8..).zip(targets) {
        if let Some(record) = knowledge.find(*target, asker_remote) {
            found.push(WormFinding {
                target: place,
                links: 0,
                record,
            });
        } else if let WormTarget::Node(node) = target
            && let Some(closest) = knowledge.closest(node, 1, Some(asker)).first()
        {
            near.push(WormNear {
                target: place,
                node: *closest,
                record: knowledge.record_of(closest, asker_remote),
            });
        }
    }
    WormResponse {
        found: Bounded::truncated(found),
        near: Bounded::truncated(near),
    }
}

fn answer_queries(
    mut arrivals: ResMut<Arrivals<WormQuery>>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let response = knowledge.peer(arrival.link).map(|(link, _)| {
            let targets = &arrival.packet.targets;
            answer_of(targets, link.remote, link.node, &knowledge).into()
        });
        outbox.respond(stream, response.as_ref());
    }
}

fn take_requests(
    now: Res<Now>,
    mut arrivals: ResMut<Arrivals<WormRequest>>,
    mut worms: ResMut<Worms>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
    knowledge: Knowledge<'_, '_>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let Some((link, _)) = knowledge.peer(arrival.link) else {
            outbox.respond(stream, None);
            continue;
        };
        let request = arrival.packet;
        match worms.see(request.search, request.path, now.mono_ms) {
            Ok(true) => {}
            Ok(false) => {
                outbox.respond(stream, Some(&WormResponse::default().into()));
                continue;
            }
            Err(refusal) => {
                offences.note(arrival.link, refusal, "WormRequest");
                outbox.respond(stream, None);
                continue;
            }
        }
        let targets = request.targets.into_vec();
        worms.add(Worm {
            asker: Asker::Peer {
                link: link.id,
                stream,
            },
            asker_remote: link.remote,
            search: request.search,
            path: request.path,
            ttl: request.ttl,
            budget: request.budget,
            patience_ms: u64::from(request.patience_ms),
            until_ms: now.after(u64::from(request.patience_ms)),
            found: vec![None; targets.len()],
            targets,
            near: Vec::new(),
            leads: Vec::new(),
            open: Vec::new(),
            tried: BTreeSet::new(),
            stage: Stage::Begun,
            attempts: 0,
            hedge_ms: 0,
            due_ms: 0,
        });
    }
}

fn begin_own(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    mut searches: ResMut<WormSearches>,
    mut worms: ResMut<Worms>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    if searches.has_ended() {
        searches.drop_ended();
    }
    if !searches.has_wanted() {
        return;
    }
    for (id, targets) in searches.take_wanted() {
        let Some((link, _)) = knowledge.peers().next() else {
            searches.end(Ended {
                id,
                found: Vec::new(),
                near: Vec::new(),
            });
            outbox.wake_at(now.mono_ms);
            continue;
        };
        assert!(
            targets.len() <= limits::WORM_TARGETS_MAX,
            "own searches keep their bound"
        );
        let search = entropy.next_u64();
        for path in 0..limits::WORM_PATHS {
            // What comes round again is not taken; past the bound of what is remembered it costs a little more.
            let _ = worms.see(search, path, now.mono_ms);
        }
        worms.add(Worm {
            asker: Asker::Own(id),
            asker_remote: link.remote,
            search,
            path: 0,
            ttl: profile.worm_ttl_max,
            budget: limits::WORM_BUDGET,
            patience_ms: u64::from(limits::WORM_PATIENCE_MS),
            until_ms: now.after(u64::from(limits::WORM_PATIENCE_MS)),
            found: vec![None; targets.len()],
            targets,
            near: Vec::new(),
            leads: Vec::new(),
            open: Vec::new(),
            tried: BTreeSet::new(),
            stage: Stage::Begun,
            attempts: 0,
            hedge_ms: 0,
            due_ms: 0,
        });
    }
}

/// What sending needs.
struct Sender<'a> {
    requests: &'a mut BTreeMap<RequestId, (u64, Option<LinkId>)>,
    with: &'a mut BTreeMap<LinkId, usize>,
    outbox: &'a mut Outbox,
    number: u64,
    now_ms: u64,
    fan_out_ms: u64,
}

impl Sender<'_> {
    /// Asks peers what they know by themselves, as many as the budget allows.
    fn query(&mut self, worm: &mut Worm, vias: Vec<LinkId>) -> u64 {
        let (places, targets): (Vec<u8>, Vec<WormTarget>) = worm.unfound().unzip();
        let bytes = Packet::from(WormQuery {
            targets: Bounded::truncated(targets),
        })
        .encode();
        for via in vias.into_iter().take(usize::from(worm.budget)) {
            let timeout_ms = self.fan_out_ms * 2;
            let request = self.outbox.request_within(via, bytes.clone(), timeout_ms);
            self.requests.insert(request, (self.number, None));
            worm.budget -= 1;
            worm.open.push(Open {
                request,
                via,
                is_query: true,
                targets: places.clone(),
            });
        }
        self.now_ms + self.fan_out_ms
    }

    /// Hands a part of the search to a peer.
    fn hand_on(&mut self, worm: &mut Worm, via: LinkId, places: Vec<u8>, arrives: bool) {
        let targets = places.iter().map(|place| worm.targets[usize::from(*place)]);
        let targets: Vec<WormTarget> = targets.collect();
        let budget = share_of(worm.budget, worm.is_own(), worm.attempts);
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
        });
        worm.budget -= 1 + budget;
        let request = self
            .outbox
            .request_within(via, packet.encode(), left_ms.max(1));
        self.requests.insert(request, (self.number, Some(via)));
        *self.with.entry(via).or_default() += 1;
        worm.tried.extend(places.iter().map(|place| (*place, via)));
        worm.open.push(Open {
            request,
            via,
            is_query: false,
            targets: places,
        });
    }
}

/// Whom to hand the search to next: for every target the best way not tried, targets with the same way together.
fn next_ways(
    worm: &Worm,
    with: &BTreeMap<LinkId, usize>,
    begun: &[(Slot, [u8; 4])],
    knowledge: &Knowledge<'_, '_>,
    entropy: &mut Entropy,
) -> BTreeMap<LinkId, (Vec<u8>, bool)> {
    let usable = |place: u8, via: LinkId| {
        let back = matches!(worm.asker, Asker::Peer { link, .. } if link == via);
        let busy = with
            .get(&via)
            .is_some_and(|count| *count >= limits::WORMS_PER_PEER_MAX);
        let disjoint = || {
            let starts = worm.is_own() && worm.attempts < limits::WORM_PATHS;
            let peer = knowledge.peer(via);
            peer.is_some_and(|(link, peer)| {
                !starts || is_disjoint(begun, peer.slot, network_of(link.remote))
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
    worm.is_own() || worm.ttl > 0 && worm.unfound().any(is_content)
}

/// The next step of a worm; whether it has ended.
fn advance(
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
            worm.stage = Stage::FannedOut { until_ms };
        }
    }
    if let Stage::FannedOut { until_ms } | Stage::InRegion { until_ms } = worm.stage {
        let has_queries = worm.open.iter().any(|open| open.is_query);
        if has_queries && sender.now_ms < until_ms {
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
        let next = next_ways(worm, sender.with, &begun, knowledge, entropy);
        for (via, (places, arrives)) in next {
            if worm.budget == 0 {
                break;
            }
            let peer = knowledge.peer(via);
            begun.extend(peer.map(|(link, peer)| (peer.slot, network_of(link.remote))));
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

/// Tells the asker what came of it.
fn end(
    worm: Worm,
    searches: &mut WormSearches,
    outbox: &mut Outbox,
    knowledge: &Knowledge<'_, '_>,
) {
    match worm.asker {
        Asker::Own(id) => {
            let found = worm.found.into_iter().flatten();
            let found = found.map(|finding| Finding {
                target: worm.targets[usize::from(finding.target)],
                jumps: u32::from(finding.links),
                record: finding.record,
            });
            searches.end(Ended {
                id,
                found: found.collect(),
                near: worm.near,
            });
            outbox.wake_at(knowledge.now().mono_ms);
        }
        Asker::Peer { stream, .. } => {
            let near = near_of(&worm, knowledge);
            let response = WormResponse {
                found: Bounded::truncated(worm.found.into_iter().flatten().collect()),
                near: Bounded::truncated(near),
            };
            outbox.respond(stream, Some(&response.into()));
        }
    }
}

/// Who is near the targets that were not found: this node itself, its peers, and those it heard of.
fn near_of(worm: &Worm, knowledge: &Knowledge<'_, '_>) -> Vec<WormNear> {
    let mut near = Vec::new();
    for (place, target) in worm.unfound() {
        let WormTarget::Node(target) = target else {
            continue;
        };
        let mut records: Vec<AddressRecord> = worm.near.clone();
        let peers = knowledge.closest_peers(&target, NEAR_TOLD).into_iter();
        records.extend(peers.filter_map(|node| knowledge.record_of(&node, worm.asker_remote)));
        records.extend(knowledge.own_record(worm.asker_remote).cloned());
        records.sort_by_key(|record| target.distance(&record.node_id));
        records.dedup_by_key(|record| record.node_id);
        let told = records.into_iter().take(NEAR_TOLD).map(|record| WormNear {
            target: place,
            node: record.node_id,
            record: Some(record),
        });
        near.extend(told);
    }
    near
}

fn go_on(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    mut worms: ResMut<Worms>,
    mut searches: ResMut<WormSearches>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    if worms.worms.is_empty() {
        return;
    }
    let Worms {
        worms,
        requests,
        with,
        ..
    } = &mut *worms;
    let mut ended = Vec::new();
    for (number, worm) in worms.iter_mut() {
        if worm.due_ms > now.mono_ms {
            outbox.wake_at(worm.due_ms);
            continue;
        }
        let mut sender = Sender {
            requests: &mut *requests,
            with: &mut *with,
            outbox: &mut outbox,
            number: *number,
            now_ms: now.mono_ms,
            fan_out_ms: profile.worm_fan_out_ms,
        };
        if advance(worm, &mut sender, &knowledge, &mut entropy) {
            ended.push(*number);
        } else {
            worm.due_ms = worm.due_ms.max(now.mono_ms + 1);
            outbox.wake_at(worm.due_ms);
        }
    }
    for number in ended {
        let worm = worms.remove(&number).expect("just listed");
        end(worm, &mut searches, &mut outbox, &knowledge);
    }
}

/// Worm lookups, own and others'.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Worms::default());
    frame.add(Phase::Ingest, take_answers);
    frame.add(Phase::Judge, answer_queries);
    frame.add(Phase::Judge, take_requests);
    frame.add(Phase::Plan, begin_own);
    frame.add(Phase::Plan, go_on);
}
