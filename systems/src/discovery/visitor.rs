//! PROTOCOL section 6, a lookup against liars: where worms have found nothing, the searcher itself dials those close to the target, one
//! after the other, and asks each who is closer. What somebody names counts only once it was dialled. In which order they are
//! visited is the itinerary's; what counts as found is the target's own signed record.
//!
//! Whoever is visited learns who looks for whom: so these are searches that a person asked for, never those on behalf of a follow.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, Distance, Itinerary, NodeId};
use distsoc_engine::io::{DialTarget, LinkId, RequestId, Slot};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    AddressRequest, GoodbyeReason, Packet, Purpose, WormNear, WormQuery, WormResponse, WormTarget,
};
use distsoc_engine::world::candidates::Dialling;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Partings, Peers, is_tellable};
use distsoc_engine::world::searches::{Ended, Errand, Errands, Finding, SearchId, Tour, Tours};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Questions of an address that one peer takes at once.
const ASKED_AT_ONCE: usize = AddressRequest::SPEC.in_flight_max as usize;

/// Where too many connections wait to be dialled, visits wait as well.
const ERRANDS_FULL_MS: u64 = 50;

/// Somebody who is being asked.
#[derive(Debug)]
struct Visit {
    until_ms: u64,
    /// The connection and where it leads, once the question was sent.
    asked: Option<(LinkId, SocketAddr)>,
    /// Not there before: it ends with the visit.
    is_dialled: bool,
    /// Questions without an answer.
    open: usize,
    /// Whom it has named, and where they are is still to be asked.
    unknown: Vec<NodeId>,
}

/// A search under way.
#[derive(Debug)]
struct Walk {
    id: SearchId,
    target: NodeId,
    until_ms: u64,
    itinerary: Itinerary<NodeId, Distance>,
    /// The records of places to visit that are no peers.
    records: BTreeMap<NodeId, AddressRecord>,
    visits: BTreeMap<NodeId, Visit>,
    /// Questions of own peers for the first places, without an answer.
    open: usize,
    found: Option<AddressRecord>,
}

/// What was asked on behalf of a search.
#[derive(Clone, Copy, Debug)]
struct Question {
    of: SearchId,
    /// Who was visited; nobody where an own peer was asked for a first place.
    by: Option<NodeId>,
    /// Where this node is; `None`: who is near the target.
    whereabouts: Option<NodeId>,
    /// Where whoever was asked is seen: what they may name.
    told_by: SocketAddr,
}

/// All searches by visits.
#[derive(Resource, Debug, Default)]
struct Visitor {
    walks: Vec<Walk>,
    questions: BTreeMap<RequestId, Question>,
}

fn address_request(target: NodeId, relays: u8) -> Packet {
    AddressRequest { target, relays }.into()
}

impl Walk {
    fn begin(id: SearchId, target: NodeId, now: Now) -> Self {
        Self {
            id,
            target,
            until_ms: now.after(limits::TOUR_MS_MAX),
            itinerary: Itinerary::new(limits::VISITS_PER_SEARCH_MAX),
            records: BTreeMap::new(),
            visits: BTreeMap::new(),
            open: 0,
            found: None,
        }
    }

    /// The first places: the own peers, and whoever is closest to the target on the own map.
    fn set_out(
        &mut self,
        questions: &mut BTreeMap<RequestId, Question>,
        outbox: &mut Outbox,
        knowledge: &Knowledge<'_, '_>,
    ) {
        for (link, _) in knowledge
            .peers()
            .filter(|(_, peer)| peer.slot != Slot::Visit)
        {
            let distance = self.target.distance(&link.node);
            self.itinerary.name(None, link.node, distance);
        }
        let mut vias: BTreeMap<NodeId, BTreeSet<LinkId>> = BTreeMap::new();
        let near = usize::from(limits::WORM_NEAR_MAX);
        for way in knowledge.ways(&self.target, near) {
            let of = vias.entry(way.bearing).or_default();
            if !way.arrives && of.len() < limits::ADDRESS_WAYS_MAX {
                of.insert(way.via);
            }
        }
        let mut asked: BTreeMap<LinkId, usize> = BTreeMap::new();
        for (node, vias) in vias {
            for via in vias {
                let asked = asked.entry(via).or_default();
                *asked += 1;
                if *asked > ASKED_AT_ONCE {
                    continue;
                }
                let Some((link, _)) = knowledge.peer(via) else {
                    continue;
                };
                let request = outbox.request(via, &address_request(node, 1));
                let question = Question {
                    of: self.id,
                    by: None,
                    whereabouts: Some(node),
                    told_by: link.remote,
                };
                questions.insert(request, question);
                self.open += 1;
            }
        }
    }

    /// Somebody's own record has come.
    fn take_record(
        &mut self,
        by: Option<NodeId>,
        record: AddressRecord,
        told_by: SocketAddr,
        now: Now,
    ) {
        let node = record.node_id;
        if !is_tellable(&record, told_by, now) {
            return;
        }
        if node == self.target {
            self.found = Some(record);
            return;
        }
        self.itinerary.name(by, node, self.target.distance(&node));
        self.records.insert(node, record);
        if self.records.len() > 2 * distsoc_engine::domain::STOPS_MAX {
            self.records.retain(|node, _| self.itinerary.is_open(node));
        }
    }

    /// What somebody who was visited knows.
    fn take_near(
        &mut self,
        by: NodeId,
        response: WormResponse,
        own: NodeId,
        told_by: SocketAddr,
        now: Now,
    ) -> Vec<NodeId> {
        let mut unknown = Vec::new();
        for finding in response.found.into_vec() {
            if finding.record.node_id == self.target {
                self.take_record(Some(by), finding.record, told_by, now);
            }
        }
        let named = response.near.into_vec().into_iter();
        for WormNear { node, record, .. } in named.filter(|near| near.node != own) {
            match record {
                Some(record) => self.take_record(Some(by), record, told_by, now),
                None if self.itinerary.knows(&node) => {
                    let distance = self.target.distance(&node);
                    self.itinerary.name(Some(by), node, distance);
                }
                None => unknown.push(node),
            }
        }
        unknown
    }

    /// An answer has come, or will not.
    fn settle(&mut self, by: Option<NodeId>) {
        let open = match by {
            None => Some(&mut self.open),
            Some(node) => self.visits.get_mut(&node).map(|visit| &mut visit.open),
        };
        if let Some(open) = open {
            *open = open.saturating_sub(1);
        }
    }

    /// Goes on to the next places while there are any.
    fn set_forth(
        &mut self,
        now: Now,
        in_flight_max: usize,
        errands: &mut Errands,
        outbox: &mut Outbox,
        knowledge: &Knowledge<'_, '_>,
    ) {
        while self.visits.len() < in_flight_max {
            if !errands.has_room() {
                outbox.wake_at(now.after(ERRANDS_FULL_MS));
                return;
            }
            let Some(node) = self.itinerary.next() else {
                return;
            };
            let is_dialled = knowledge.peer_by_node(&node).is_none();
            if is_dialled {
                let Some(record) = self.records.get(&node) else {
                    continue;
                };
                let errand = Errand {
                    target: DialTarget::Addresses(record.addresses.to_vec()),
                    purpose: Purpose::Visit,
                };
                let has_room = errands.want(node, errand);
                assert!(has_room, "that was just looked at");
                outbox.wake_at(now.mono_ms);
            }
            let visit = Visit {
                until_ms: now.after(limits::VISIT_MS_MAX),
                asked: None,
                is_dialled,
                open: 0,
                unknown: Vec::new(),
            };
            self.visits.insert(node, visit);
        }
    }

    /// Asks those who are there now, and takes leave of those who have answered or are late.
    fn attend(
        &mut self,
        now: Now,
        questions: &mut BTreeMap<RequestId, Question>,
        partings: &mut Partings,
        outbox: &mut Outbox,
        knowledge: &Knowledge<'_, '_>,
        is_coming: impl Fn(&NodeId) -> bool,
    ) {
        let query: Packet = WormQuery {
            targets: Bounded::truncated(vec![WormTarget::Node(self.target)]),
            near: limits::WORM_NEAR_MAX,
        }
        .into();
        for (node, visit) in &mut self.visits {
            if visit.asked.is_none()
                && let Some((link, _)) = knowledge.peer_by_node(node)
            {
                let request = outbox.request(link.id, &query);
                let question = Question {
                    of: self.id,
                    by: Some(*node),
                    whereabouts: None,
                    told_by: link.remote,
                };
                questions.insert(request, question);
                (visit.asked, visit.open) = (Some((link.id, link.remote)), 1);
            }
            let Some((link, told_by)) = visit.asked else {
                continue;
            };
            let more = ASKED_AT_ONCE.saturating_sub(visit.open);
            for named in visit.unknown.drain(..more.min(visit.unknown.len())) {
                let request = outbox.request(link, &address_request(named, 2));
                let question = Question {
                    of: self.id,
                    by: Some(*node),
                    whereabouts: Some(named),
                    told_by,
                };
                questions.insert(request, question);
                visit.open += 1;
            }
        }
        self.visits.retain(|node, visit| {
            let is_over = match visit.asked {
                Some(_) => visit.open == 0 && visit.unknown.is_empty(),
                None => !is_coming(node),
            } || now.mono_ms >= visit.until_ms;
            if is_over {
                take_leave(node, visit, partings, knowledge);
            }
            !is_over
        });
    }
}

/// Ends the connection of a visit, unless it was there before or has become something else.
fn take_leave(
    node: &NodeId,
    visit: &Visit,
    partings: &mut Partings,
    knowledge: &Knowledge<'_, '_>,
) {
    if let Some((link, peer)) = knowledge.peer_by_node(node)
        && visit.is_dialled
        && peer.slot == Slot::Visit
        && link.dialled()
    {
        partings.from(link.id, GoodbyeReason::VisitOver);
    }
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut visitor: ResMut<Visitor>,
    knowledge: Knowledge<'_, '_>,
) {
    if visitor.questions.is_empty() {
        return;
    }
    let Visitor { walks, questions } = &mut *visitor;
    let answers = inbox.take_responses(|request| questions.remove(&request));
    for (question, response) in answers {
        let Some(walk) = walks.iter_mut().find(|walk| walk.id == question.of) else {
            continue;
        };
        match (question.whereabouts, response) {
            (Some(node), Ok(Packet::AddressResponse(answer))) => {
                let record = answer.record.filter(|record| record.node_id == node);
                if let Some(record) = record {
                    walk.take_record(question.by, record, question.told_by, *now);
                }
            }
            (None, Ok(Packet::WormResponse(answer))) => {
                let Some(by) = question.by else { continue };
                let unknown = walk.take_near(by, answer, knowledge.own(), question.told_by, *now);
                if let Some(visit) = walk.visits.get_mut(&by) {
                    visit.unknown = unknown;
                }
            }
            // Whoever says nothing is not asked again.
            _ => {}
        }
        walk.settle(question.by);
    }
}

fn go_on(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    mut visitor: ResMut<Visitor>,
    mut tours: ResMut<Tours>,
    dialling: Res<Dialling>,
    peers: Res<Peers>,
    mut errands: ResMut<Errands>,
    mut partings: ResMut<Partings>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    if tours.has_ended() {
        tours.drop_ended();
    }
    if visitor.walks.is_empty() && !tours.has_wanted() {
        return;
    }
    let Visitor { walks, questions } = &mut *visitor;
    let cancelled = tours.take_cancelled();
    for (id, Tour { target }) in tours.take_wanted() {
        let mut walk = Walk::begin(id, target, *now);
        match walks.len() < limits::TOURS_MAX {
            true => walk.set_out(questions, &mut outbox, &knowledge),
            false => walk.until_ms = now.mono_ms,
        }
        walks.push(walk);
    }
    // All together take no more than half of the places for visits.
    let in_flight_max = (profile.visits_max / 2 / walks.len().max(1)).max(1);
    let in_flight_max = in_flight_max.min(limits::VISITS_IN_FLIGHT_MAX);
    walks.retain_mut(|walk| {
        let is_wanted = !cancelled.contains(&walk.id);
        if is_wanted && walk.found.is_none() && now.mono_ms < walk.until_ms {
            let is_coming = |node: &NodeId, errands: &Errands| {
                errands.has(node) || dialling.is_dialling(node) || peers.is_linked(node)
            };
            // Once more behind those who set out: whoever is there already is asked at once.
            for sets_forth in [true, false] {
                walk.attend(
                    *now,
                    questions,
                    &mut partings,
                    &mut outbox,
                    &knowledge,
                    |node| is_coming(node, &errands),
                );
                if sets_forth {
                    walk.set_forth(*now, in_flight_max, &mut errands, &mut outbox, &knowledge);
                }
            }
            if walk.open > 0 || !walk.visits.is_empty() {
                let next_ms = walk.visits.values().map(|visit| visit.until_ms).min();
                outbox.wake_at(next_ms.unwrap_or(walk.until_ms).min(walk.until_ms));
                return true;
            }
        }
        for (node, visit) in &walk.visits {
            take_leave(node, visit, &mut partings, &knowledge);
        }
        if is_wanted {
            let found = walk.found.take().map(|record| Finding {
                target: WormTarget::Node(walk.target),
                jumps: walk.itinerary.visits(),
                record,
            });
            tours.end(Ended {
                id: walk.id,
                found: found.into_iter().collect(),
                near: Vec::new(),
            });
            outbox.wake_at(now.mono_ms);
        }
        false
    });
}

/// Searches by visits.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Visitor::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.due(
        |glance| {
            let tours = glance.at::<Tours>();
            let walks = !glance.at::<Visitor>().walks.is_empty();
            at_once_if(walks || tours.has_ended() || tours.has_wanted())
        },
        Phase::Plan,
        go_on,
    );
}
