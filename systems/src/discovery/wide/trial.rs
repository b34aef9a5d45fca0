//! PROTOCOL section 6: every ten minutes one candidate is visited and asked for a sample of what it reports. If that is clearly worth
//! more than the least diverse wide peer, random ids of it resolve, and some of those answer a dial, it takes that one's place.
//! Evaluations that change nothing become rarer: needless swaps cost everybody diffs.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    Address, AddressRecord, IdPrefix, Network, NodeId, is_sampled, is_worth_a_swap, sample_bits,
    score_of,
};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{DialTarget, LinkId, RequestId, Slot, WideRole};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::ByteVec;
use distsoc_engine::wire::{
    AddressRequest, BootstrapSampleRequest, GoodbyeReason, Packet, Purpose, WideProbe, WideSample,
    prefixes_in,
};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::map::{MapView, ReportedHop, SetHash};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Link, Partings, Peer, PeerChange, PeerChanges, Peers, is_tellable, peers_changed,
};
use distsoc_engine::world::searches::{Errand, Errands, SearchId, WormSearch, WormSearches};
use distsoc_engine::world::wide::{WidePlan, WideSwap};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Ids of a sample that are asked for to find one candidate.
const SAMPLE_ASKED: u16 = 16;

/// How far the trial of a candidate has come.
#[derive(Debug)]
enum Step {
    /// An anchor was asked for candidates.
    Sampling(RequestId),
    /// Or a random place in the order of ids is looked for.
    Searching(SearchId),
    /// It is being dialled, for a visit.
    Visiting,
    /// It was asked for its sample.
    Probing(RequestId),
    /// And who some of those are.
    Naming(RequestId, BTreeSet<IdPrefix>),
    /// And where they are.
    Resolving {
        asked: BTreeMap<RequestId, NodeId>,
        records: Vec<AddressRecord>,
        needed: usize,
    },
    /// Some of them are dialled.
    Dialling(BTreeMap<NodeId, bool>),
    /// The visit ends, so that it can come for good.
    Leaving,
    /// It is being dialled for the slot.
    Coming,
}

/// Which ids are in the sample of this trial.
#[derive(Clone, Copy, Debug)]
struct Sample {
    salt: u64,
    hash: SetHash,
    bits: u8,
}

impl Sample {
    fn has(&self, node: &NodeId) -> bool {
        is_sampled(self.hash.of(ReportedHop::Two, node), self.bits)
    }

    fn probe(&self, whose: Vec<u8>) -> WideProbe {
        WideProbe {
            salt: self.salt,
            bits: self.bits,
            whose: ByteVec(whose),
        }
    }
}

/// A candidate on trial.
#[derive(Debug)]
struct Trial {
    /// Who; until that is known, whoever would leave.
    node: NodeId,
    addresses: Vec<Address>,
    /// Whose place it would take.
    leaves: NodeId,
    sample: Sample,
    step: Step,
    until_ms: u64,
}

/// Trials, one at a time.
#[derive(Resource, Debug, Default)]
struct Trials {
    trial: Option<Trial>,
    next_ms: Option<u64>,
    pause_ms: u64,
    last_anchor: Option<NodeId>,
    tried: BTreeMap<NodeId, u64>,
    /// Requests without an answer yet, also those of trials that have ended.
    asked: BTreeSet<RequestId>,
}

impl Trials {
    /// The trial is over; the next one comes later if nothing came of this one.
    fn end(&mut self, won: bool, now: Now, profile: &NodeProfile, entropy: &mut Entropy) {
        if let Some(trial) = self.trial.take() {
            if self.tried.len() >= limits::WIDE_TRIED_MAX {
                self.tried.retain(|_, until_ms| now.mono_ms < *until_ms);
            }
            let is_known = trial.node != trial.leaves;
            if is_known && self.tried.len() < limits::WIDE_TRIED_MAX {
                let until_ms = now.after(limits::WIDE_TRIED_MS);
                self.tried.insert(trial.node, until_ms);
            }
        }
        self.pause_ms = match won {
            true => profile.wide_evaluation_ms,
            false => (2 * self.pause_ms)
                .clamp(profile.wide_evaluation_ms, limits::WIDE_EVALUATION_MS_MAX),
        };
        self.next_ms = Some(now.after(entropy.jittered(self.pause_ms)));
    }

    fn was_tried(&self, node: &NodeId, now: Now) -> bool {
        self.tried
            .get(node)
            .is_some_and(|until_ms| now.mono_ms < *until_ms)
    }
}

/// Diverse peers whose place may be given away: dialled, safe no more, and no anchor that is needed.
fn replaceable<'a>(
    up: impl Iterator<Item = (&'a Link, &'a Peer)>,
    anchors: usize,
    profile: &NodeProfile,
    now: Now,
) -> Vec<NodeId> {
    up.filter(|(link, peer)| {
        link.dialled()
            && peer.role == Some(WideRole::Diverse)
            && now.mono_ms >= peer.up_since_ms + limits::INCUMBENT_SAFE_MS
            && (!peer.is_anchor() || anchors > profile.wide_anchor_slots)
    })
    .map(|(link, _)| link.node)
    .collect()
}

/// How many sampled ids only this peer reports.
fn sole_of(node: &NodeId, sample: Option<Sample>, map: &MapView<'_, '_>) -> u64 {
    let rows = map.map.sole_rows(node, map.entries());
    let has = |row: &u32| {
        let entry = &map.entries()[*row as usize];
        sample.is_none_or(|sample| sample.has(&entry.node))
    };
    rows.filter(has).count() as u64
}

/// Of a candidate's sample, the ids that nobody else reports but the peer that would leave.
fn sole_in(
    sample: &WideSample,
    of: Sample,
    leaves: &NodeId,
    map: &MapView<'_, '_>,
) -> Vec<IdPrefix> {
    let leaving: RoaringBitmap = map.map.sole_rows(leaves, map.entries()).collect();
    let mut known: BTreeMap<IdPrefix, bool> = BTreeMap::new();
    for (row, entry) in (0u32..).zip(map.entries()) {
        if entry.is_known() && of.has(&entry.node) {
            known.insert(entry.node.prefix(), leaving.contains(row));
        }
    }
    known.insert(map.map.own().prefix(), false);
    let mut prefixes = prefixes_in(&sample.prefixes);
    prefixes.retain(|prefix| known.get(prefix).copied().unwrap_or(true));
    prefixes
}

fn take_answers(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    peers: Res<Peers>,
    mut inbox: ResMut<Inbox>,
    mut trials: ResMut<Trials>,
    mut errands: ResMut<Errands>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    map: MapView,
    up: Query<(&Link, &Peer)>,
) {
    if trials.asked.is_empty() {
        return;
    }
    let trials = &mut *trials;
    let asked = &mut trials.asked;
    let answers = inbox.take_responses(|request| asked.remove(&request).then_some(request));
    for (request, result) in answers {
        let Some(mut trial) = trials.trial.take() else {
            continue;
        };
        let scored = |sample: Sample| {
            let diverse = up
                .iter()
                .filter(|(_, peer)| peer.role == Some(WideRole::Diverse));
            diverse
                .map(|(link, _)| sole_of(&link.node, Some(sample), &map))
                .collect::<Vec<u64>>()
        };
        let of_trial = trial.sample;
        let remote = trial.remote(&peers, &up);
        let goes_on = match (&mut trial.step, result) {
            (Step::Sampling(of), Ok(Packet::BootstrapSampleResponse(sample))) if *of == request => {
                let wide: Vec<Network> = up
                    .iter()
                    .filter(|(_, peer)| peer.slot == Slot::Wide)
                    .filter_map(|(link, _)| Network::of(link.remote.ip()))
                    .collect();
                let mut hints = sample.hints.into_vec();
                entropy.shuffle(&mut hints);
                let fits = |node: &NodeId, address: &Address| {
                    let network = Network::of(address.socket().ip());
                    !peers.is_linked(node)
                        && node != map.map.own()
                        && !trials.was_tried(node, *now)
                        && network.is_none_or(|network| !wide.contains(&network))
                };
                let found = hints
                    .into_iter()
                    .find(|hint| fits(&hint.node_id, &hint.address));
                found.is_some_and(|hint| {
                    trial.visit(hint.node_id, vec![hint.address], *now, &mut errands)
                })
            }
            (Step::Probing(of), Ok(Packet::WideSample(sample))) if *of == request => {
                let mut sole = sole_in(&sample, of_trial, &trial.leaves, &map);
                let new = score_of(sole.len() as u64, scored(of_trial));
                let old = sole_of(&trial.leaves, Some(of_trial), &map);
                entropy.shuffle(&mut sole);
                sole.truncate(limits::WIDE_MEMBERS_MAX);
                is_worth_a_swap(new, old)
                    && trial.ask_members(sole, *now, &peers, &up, &mut outbox, &mut trials.asked)
            }
            (Step::Naming(of, prefixes), Ok(Packet::WideSample(sample))) if *of == request => {
                let is_asked_for =
                    |node: &&NodeId| prefixes.contains(&node.prefix()) && of_trial.has(node);
                let members: BTreeSet<NodeId> = sample
                    .members
                    .iter()
                    .filter(is_asked_for)
                    .copied()
                    .collect();
                let needed = prefixes.len().saturating_sub(limits::WIDE_MEMBERS_GONE_MAX);
                let needed = needed.max(limits::WIDE_MEMBERS_DIALLED.min(prefixes.len()));
                trial.ask_where(
                    members,
                    needed,
                    *now,
                    &peers,
                    &up,
                    &mut outbox,
                    &mut trials.asked,
                )
            }
            (
                Step::Resolving {
                    asked,
                    records,
                    needed,
                },
                result,
            ) => match asked.remove(&request) {
                None => true,
                Some(node) => {
                    if let Ok(Packet::AddressResponse(answer)) = result
                        && let Some(record) = answer.record
                        && record.node_id == node
                        && remote.is_some_and(|remote| is_tellable(&record, remote, *now))
                    {
                        records.push(record);
                    }
                    let (is_last, needed) = (asked.is_empty(), *needed);
                    !is_last || trial.dial_some(needed, *now, &peers, &mut errands, &mut entropy)
                }
            },
            // The answer to a question of a trial before, or of a step that is over.
            (step, _) if !step.waits_for(request) => true,
            _ => false,
        };
        trials.trial = Some(trial);
        if !goes_on {
            trials.end(false, *now, &profile, &mut entropy);
        }
    }
}

impl Step {
    fn waits_for(&self, request: RequestId) -> bool {
        match self {
            Self::Sampling(of) | Self::Probing(of) | Self::Naming(of, _) => *of == request,
            _ => false,
        }
    }
}

impl Trial {
    fn set(&mut self, step: Step, now: Now) -> bool {
        self.step = step;
        self.until_ms = now.after(limits::WIDE_STEP_MS_MAX);
        true
    }

    fn visit(
        &mut self,
        node: NodeId,
        addresses: Vec<Address>,
        now: Now,
        errands: &mut Errands,
    ) -> bool {
        self.node = node;
        self.addresses.clone_from(&addresses);
        let errand = Errand {
            target: DialTarget::Addresses(addresses),
            purpose: Purpose::Visit,
        };
        errands.want(node, errand) && self.set(Step::Visiting, now)
    }

    /// Where the candidate is seen, on whose word others are dialled.
    fn remote(&self, peers: &Peers, up: &Query<'_, '_, (&Link, &Peer)>) -> Option<SocketAddr> {
        let entity = peers.by_node(&self.node)?;
        up.get(entity).ok().map(|(link, _)| link.remote)
    }

    fn link(&self, peers: &Peers, up: &Query<'_, '_, (&Link, &Peer)>) -> Option<LinkId> {
        let entity = peers.by_node(&self.node)?;
        up.get(entity).ok().map(|(link, _)| link.id)
    }

    fn ask_members(
        &mut self,
        sole: Vec<IdPrefix>,
        now: Now,
        peers: &Peers,
        up: &Query<'_, '_, (&Link, &Peer)>,
        outbox: &mut Outbox,
        asked: &mut BTreeSet<RequestId>,
    ) -> bool {
        let Some(link) = self.link(peers, up) else {
            return false;
        };
        let probe = self.sample.probe(sole.concat());
        let request = outbox.request(link, &probe.into());
        asked.insert(request);
        self.set(Step::Naming(request, sole.into_iter().collect()), now)
    }

    fn ask_where(
        &mut self,
        members: BTreeSet<NodeId>,
        needed: usize,
        now: Now,
        peers: &Peers,
        up: &Query<'_, '_, (&Link, &Peer)>,
        outbox: &mut Outbox,
        asked: &mut BTreeSet<RequestId>,
    ) -> bool {
        let Some(link) = self.link(peers, up) else {
            return false;
        };
        if members.len() < needed || members.is_empty() {
            return false;
        }
        let mut of = BTreeMap::new();
        for target in members {
            let question = AddressRequest { target, relays: 1 };
            let request = outbox.request(link, &question.into());
            asked.insert(request);
            of.insert(request, target);
        }
        let step = Step::Resolving {
            asked: of,
            records: Vec::new(),
            needed,
        };
        self.set(step, now)
    }

    /// Dials two of those that were found, unless too few were, or too many in one network.
    fn dial_some(
        &mut self,
        needed: usize,
        now: Now,
        peers: &Peers,
        errands: &mut Errands,
        entropy: &mut Entropy,
    ) -> bool {
        let Step::Resolving { records, .. } = &mut self.step else {
            return false;
        };
        let mut found = std::mem::take(records);
        let mut networks: BTreeMap<Network, usize> = BTreeMap::new();
        found.retain(|record| {
            let network = record
                .addresses
                .first()
                .map(|address| address.socket().ip());
            network.and_then(Network::of).is_none_or(|network| {
                let count = networks.entry(network).or_default();
                *count += 1;
                *count <= limits::WIDE_MEMBERS_PER_NETWORK_MAX
            })
        });
        if found.len() < needed || found.is_empty() {
            return false;
        }
        entropy.shuffle(&mut found);
        let mut dialled = BTreeMap::new();
        for record in found.into_iter().take(limits::WIDE_MEMBERS_DIALLED) {
            let is_up = peers.is_linked(&record.node_id);
            let errand = Errand {
                target: DialTarget::Addresses(record.addresses.to_vec()),
                purpose: Purpose::Visit,
            };
            let _ = is_up || errands.want(record.node_id, errand);
            dialled.insert(record.node_id, is_up);
        }
        self.set(Step::Dialling(dialled), now)
    }
}

fn go_on(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    peers: Res<Peers>,
    changes: Res<PeerChanges>,
    mut trials: ResMut<Trials>,
    mut plan: ResMut<WidePlan>,
    mut searches: ResMut<WormSearches>,
    mut errands: ResMut<Errands>,
    mut partings: ResMut<Partings>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Link, &Peer)>,
) {
    let trials = &mut *trials;
    let Some(mut trial) = trials.trial.take() else {
        return;
    };
    let is_late = now.mono_ms >= trial.until_ms;
    let mut won = false;
    let goes_on = match &mut trial.step {
        _ if is_late => false,
        Step::Searching(search) => {
            let of = *search;
            let mut ends = searches.take_ended(|id| (id == of).then_some(()));
            match ends.pop() {
                None => true,
                Some(((), ended)) => {
                    let fits = |record: &&AddressRecord| {
                        !peers.is_linked(&record.node_id)
                            && !trials.was_tried(&record.node_id, *now)
                    };
                    let found = ended.near.iter().find(fits);
                    found.is_some_and(|record| {
                        let addresses = record.addresses.to_vec();
                        trial.visit(record.node_id, addresses, *now, &mut errands)
                    })
                }
            }
        }
        Step::Visiting => match trial.link(&peers, &up) {
            None => true,
            Some(link) => {
                let probe = trial.sample.probe(Vec::new());
                let request = outbox.request(link, &probe.into());
                trials.asked.insert(request);
                trial.set(Step::Probing(request), *now)
            }
        },
        Step::Dialling(nodes) => {
            for (node, _, _) in changes.came_up() {
                nodes.entry(node).and_modify(|answered| *answered = true);
            }
            let all = nodes.values().all(|answered| *answered);
            match (all, trial.link(&peers, &up)) {
                (false, _) => true,
                (true, None) => false,
                (true, Some(link)) => {
                    partings.from(link, GoodbyeReason::VisitOver);
                    trial.set(Step::Leaving, *now)
                }
            }
        }
        Step::Leaving if peers.is_linked(&trial.node) => true,
        Step::Leaving => {
            let errand = Errand {
                target: DialTarget::Addresses(trial.addresses.clone()),
                purpose: Purpose::Wide,
            };
            plan.swap = Some(WideSwap {
                comes: trial.node,
                leaves: trial.leaves,
            });
            errands.want(trial.node, errand) && trial.set(Step::Coming, *now)
        }
        Step::Coming => {
            won = peers.by_node(&trial.node).is_some();
            !won
        }
        Step::Sampling(_) | Step::Probing(_) | Step::Naming(..) | Step::Resolving { .. } => true,
    };
    outbox.wake_at(trial.until_ms);
    trials.trial = Some(trial);
    if !goes_on {
        plan.swap = None;
        trials.end(won, *now, &profile, &mut entropy);
    }
}

fn begin(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    changes: Res<PeerChanges>,
    mut trials: ResMut<Trials>,
    mut searches: ResMut<WormSearches>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    map: MapView,
    up: Query<(&Link, &Peer)>,
) {
    let trials = &mut *trials;
    if trials.trial.is_some() {
        return;
    }
    let went = |change: &PeerChange| {
        matches!(
            change,
            PeerChange::Down {
                slot: Slot::Wide,
                ..
            }
        )
    };
    let evaluation_ms = profile.wide_evaluation_ms;
    if changes.0.iter().any(went) {
        trials.pause_ms = evaluation_ms;
    }
    let first_ms = || now.after(entropy.jittered(evaluation_ms));
    let next_ms = *trials.next_ms.get_or_insert_with(first_ms);
    if now.mono_ms < next_ms {
        outbox.wake_at(next_ms);
        return;
    }
    let anchors: Vec<&Link> = up
        .iter()
        .filter(|(_, peer)| peer.is_anchor() && peer.slot != Slot::Visit)
        .map(|(link, _)| link)
        .collect();
    let replaceable = replaceable(up.iter(), anchors.len(), &profile, *now);
    let weakest = replaceable
        .into_iter()
        .min_by_key(|node| (sole_of(node, None, &map), *node));
    let Some(leaves) = weakest else {
        trials.end(false, *now, &profile, &mut entropy);
        outbox.wake_at(trials.next_ms.unwrap_or(next_ms));
        return;
    };
    // Never the same anchor twice in a row, so that none gives more than half of the candidates.
    let mut others: Vec<&&Link> = anchors
        .iter()
        .filter(|link| Some(link.node) != trials.last_anchor)
        .collect();
    others.sort_unstable_by_key(|link| link.node);
    entropy.shuffle(&mut others);
    let step = match others.first() {
        Some(link) => {
            trials.last_anchor = Some(link.node);
            let question = BootstrapSampleRequest {
                count: SAMPLE_ASKED,
            };
            let request = outbox.request(link.id, &question.into());
            trials.asked.insert(request);
            Step::Sampling(request)
        }
        None => {
            trials.last_anchor = None;
            let place = NodeId::from_bytes(entropy.bytes32());
            Step::Searching(searches.begin(WormSearch::quiet(place)))
        }
    };
    let (until_ms, salt) = (now.after(limits::WIDE_STEP_MS_MAX), entropy.next_u64());
    trials.trial = Some(Trial {
        node: leaves,
        addresses: Vec::new(),
        leaves,
        sample: Sample {
            salt,
            hash: SetHash::new(salt),
            bits: sample_bits(map.map.hop_2().len() as usize),
        },
        step,
        until_ms,
    });
    outbox.wake_at(until_ms);
}

pub(super) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Trials::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.due(
        |glance| at_once_if(glance.at::<Trials>().trial.is_some()),
        Phase::Judge,
        go_on,
    );
    frame.due(
        |glance| match glance.at::<Trials>() {
            trials if trials.trial.is_some() => None,
            trials => peers_changed(glance).or(trials.next_ms).or(Some(AT_ONCE)),
        },
        Phase::Plan,
        begin,
    );
}
