//! PROTOCOL section 6, worm lookup: whoever is not on the map is looked for by asking all peers at once, then along the
//! connections that lead to the ids closest to the target, each node choosing the next by its own map.
//!
//! A search has a budget of requests, which every node splits among those it hands the search to and never gets back: so what
//! one request can cause is bounded whatever the others on the path say. Answers come back along the path, on the streams of the
//! requests. What counts as found is the target's own signed record, so that a liar can keep silent and nothing else: therefore
//! three paths, and at every node another way once the first has been silent for long.

mod direct;
mod search;
mod steps;

use crate::Installer;
use bevy_ecs::prelude::*;
use direct::DirectAnswers;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    Packet, WormAnswer, WormFinding, WormNear, WormQuery, WormRequest, WormResponse, WormTarget,
};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Offences, is_tellable};
use distsoc_engine::world::searches::{Ended, Finding, WormSearch, WormSearches};
use search::{Asker, Worm};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use steps::{Requests, Sender, With, advance};

/// Nodes near a target that an answer names.
const NEAR_TOLD: usize = 4;

/// All searches that pass through here.
#[derive(Resource, Debug, Default)]
struct Worms {
    worms: BTreeMap<u64, Worm>,
    last: u64,
    /// Whose answer it is, and who was handed the search; also of worms that have ended, until it has come.
    requests: Requests,
    /// What each peer was handed.
    with: With,
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
        let known = self.seen.get(&(search, path));
        if known.is_some_and(|until_ms| *until_ms > now_ms) {
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
    if worms.requests.is_empty() {
        return;
    }
    let Worms {
        worms,
        requests,
        with,
        ..
    } = &mut *worms;
    let answers = inbox.take_responses(|request| Some((request, requests.remove(&request)?)));
    for ((request, sent), result) in answers {
        with.release(sent);
        let Some(worm) = worms.get_mut(&sent.number) else {
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

/// What this node knows of the targets, and of who is close to the others.
fn answer_of(
    WormQuery {
        targets,
        near: near_max,
    }: &WormQuery,
    asker_remote: SocketAddr,
    asker: NodeId,
    knowledge: &Knowledge<'_, '_>,
) -> WormResponse {
    let (mut found, mut near) = (Vec::new(), Vec::new());
    for (place, target) in (0u8..).zip(targets.iter()) {
        if let Some(record) = knowledge.find(*target, asker_remote) {
            found.push(WormFinding {
                target: place,
                links: 0,
                record,
            });
        } else if let WormTarget::Node(node) = target {
            let fair = limits::WORM_TARGETS_MAX / targets.len();
            let count = usize::from(*near_max).min(fair.max(1));
            let closest = knowledge.closest(node, count, Some(asker));
            near.extend(closest.into_iter().map(|node| WormNear {
                target: place,
                node,
                record: knowledge.find(WormTarget::Node(node), asker_remote),
            }));
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
        let response = knowledge
            .peer(arrival.link)
            .map(|(link, _)| answer_of(&arrival.packet, link.remote, link.node, &knowledge).into());
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
        let asker = Asker::Peer {
            link: link.id,
            stream,
        };
        worms.add(Worm::new(asker, link.remote, request, *now));
    }
}

fn begin_own(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    mut searches: ResMut<WormSearches>,
    mut worms: ResMut<Worms>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    identity: Res<Identity>,
    knowledge: Knowledge<'_, '_>,
) {
    if searches.has_ended() {
        searches.drop_ended();
    }
    for (id, wanted) in searches.take_wanted() {
        let budget = wanted.budget();
        let WormSearch {
            targets,
            is_quiet,
            names_us,
        } = wanted;
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
        let request = WormRequest {
            search,
            path: 0,
            ttl: profile.worm_ttl_max,
            budget,
            patience_ms: limits::WORM_PATIENCE_MS,
            targets: Bounded::truncated(targets),
            origin: direct::origin(search, &identity, &knowledge).filter(|_| names_us),
        };
        let mut worm = Worm::new(Asker::Own(id), link.remote, request, *now);
        worm.is_quiet = is_quiet;
        worms.add(worm);
    }
}

/// Tells the asker what came of it.
fn end(
    worm: Worm,
    searches: &mut WormSearches,
    direct: &mut DirectAnswers,
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
            direct.note(&worm, knowledge);
            let near = near_of(&worm, knowledge);
            let found = worm.found.into_iter().flatten();
            let now = knowledge.now();
            let found = found.filter(|found| is_tellable(&found.record, worm.asker_remote, now));
            let response = WormResponse {
                found: Bounded::truncated(found.collect()),
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
        records.retain(|record| is_tellable(record, worm.asker_remote, knowledge.now()));
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
    mut direct: ResMut<DirectAnswers>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
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
    if !ended.is_empty() {
        with.retain(|via| knowledge.peer(via).is_some());
    }
    for number in ended {
        let worm = worms.remove(&number).expect("just listed");
        end(worm, &mut searches, &mut direct, &mut outbox, &knowledge);
    }
}

/// Worm lookups, own and others'.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Worms::default());
    frame.world.insert_resource(DirectAnswers::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.on(
        Occasions::packet(&WormAnswer::SPEC),
        Phase::Judge,
        direct::take,
    );
    frame.on(
        Occasions::packet(&WormQuery::SPEC),
        Phase::Judge,
        answer_queries,
    );
    frame.on(
        Occasions::packet(&WormRequest::SPEC),
        Phase::Judge,
        take_requests,
    );
    frame.due(
        |glance| {
            let searches = glance.at::<WormSearches>();
            at_once_if(searches.has_ended() || searches.has_wanted())
        },
        Phase::Plan,
        begin_own,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<Worms>().worms.is_empty()),
        Phase::Plan,
        go_on,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<DirectAnswers>().is_empty()),
        Phase::Plan,
        direct::tell,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_searches_are_remembered_each_on_its_path_and_for_a_while() {
        let mut worms = Worms::default();
        assert_eq!(worms.see(1, 0, 0), Ok(true));
        assert_eq!(worms.see(1, 0, limits::WORM_SEEN_MS - 1), Ok(false));
        assert_eq!(worms.see(1, 1, 0), Ok(true));
        for search in 2..2 * limits::WORMS_MAX as u64 {
            let _ = worms.see(search, 0, 0);
        }
        assert_eq!(worms.seen.len(), limits::WORMS_MAX);
        assert_eq!(worms.see(u64::MAX, 0, 0), Err(Refusal::Full));
        assert_eq!(worms.see(u64::MAX, 0, limits::WORM_SEEN_MS), Ok(true));
        assert_eq!(worms.seen.len(), 1);
    }
}
