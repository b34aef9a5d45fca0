//! PROTOCOL section 6, the address resolution chain: the connection itself, then a peer that reports the target at its hop 1, then
//! one that reports it at its hop 2 and asks on its side, then a worm, then the anchors. Each step has its time; the answer says
//! which one it was. What comes back is the target's own signed record. Who was not found is not searched for again at once.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::PublicKey;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{
    Call, CallError, CallId, Found, FoundBy, LinkId, Reply, RequestId, StreamToken,
};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::{AddressRequest, AddressResponse, Packet, WormTarget};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::map::{MapView, ReportedHop};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, Peers, tellable_record, usable_address};
use distsoc_engine::world::searches::{
    DirectorySearches, Ended, SearchId, Tour, Tours, WormSearch, WormSearches,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Searches of persons at once.
const SEARCHES_MAX: usize = 64;

/// Calls that one search may answer.
const CALLS_PER_SEARCH_MAX: usize = 64;

/// A search for a node; there is one for each.
#[derive(Debug)]
struct Search {
    /// Who waits for it.
    calls: Vec<CallId>,
    target: NodeId,
    since_ms: u64,
    /// The steps before this one, and how long each took.
    taken: Vec<(FoundBy, u64)>,
    step: FoundBy,
    /// When the step began.
    step_ms: u64,
    /// The step is over at this mono time.
    until_ms: u64,
    /// Requests that have no answer yet, each with its step: a late answer is one still.
    open: Vec<(RequestId, FoundBy)>,
    /// The worm or the question of anchors under way.
    search: Option<SearchId>,
    /// The search by visits, beside the anchors.
    tour: Option<SearchId>,
}

impl Search {
    fn begin_step(&mut self, step: FoundBy, ms_max: u64, now: Now) {
        self.taken.push((self.step, now.mono_ms - self.step_ms));
        (self.step, self.step_ms, self.until_ms) = (step, now.mono_ms, now.after(ms_max));
        self.search = None;
    }

    /// It is over: whoever waits is told, nobody is asked any more, and answers that come mean nothing.
    fn settle(
        self,
        reply: &Result<Reply, CallError>,
        tours: &mut Tours,
        late: &mut BTreeSet<RequestId>,
        outbox: &mut Outbox,
    ) {
        let calls = self.calls.into_iter();
        calls.for_each(|call| outbox.reply(call, reply.clone()));
        self.tour.into_iter().for_each(|tour| tours.cancel(tour));
        late.extend(self.open.into_iter().map(|(request, _)| request));
    }

    /// What the person is told.
    fn found(&self, found_by: FoundBy, place: Place, jumps: u32, now: Now) -> Reply {
        let mut steps = self.taken.clone();
        steps.push((self.step, now.mono_ms - self.step_ms));
        Reply::Found(Found {
            node_id: self.target,
            found_by,
            address: place.address,
            as_of_ms: place.as_of_ms,
            jumps,
            ms: now.mono_ms - self.since_ms,
            steps,
        })
    }

    fn waits(&self, now_ms: u64) -> bool {
        let is_open = || self.open.iter().any(|(_, step)| *step == self.step);
        let is_under_way = self.search.is_some() || self.tour.is_some();
        now_ms < self.until_ms && (is_under_way || is_open())
    }
}

/// Where somebody is, and since when they say so.
#[derive(Clone, Copy, Debug)]
struct Place {
    address: SocketAddr,
    as_of_ms: u64,
}

/// A question of a peer's that this node asks on.
#[derive(Clone, Copy, Debug)]
struct Relay {
    link: LinkId,
    target: NodeId,
    /// Those asked who have not answered.
    open: usize,
}

/// Searches and relays under way.
#[derive(Resource, Debug, Default)]
struct Resolving {
    searches: Vec<Search>,
    relays: BTreeMap<StreamToken, Relay>,
    /// Requests on behalf of relays.
    relayed: BTreeMap<RequestId, StreamToken>,
    /// Requests of searches that have ended.
    late: BTreeSet<RequestId>,
    /// Nodes that were not found, until when that counts.
    not_found: BTreeMap<NodeId, u64>,
}

impl Resolving {
    /// A search for this node, or the one that is under way.
    fn begin_or_join(
        &mut self,
        call: CallId,
        target: NodeId,
        now: Now,
    ) -> Result<(), &'static str> {
        const TOO_MANY: &str = "too many searches are under way";
        let has_room = self.searches.len() < SEARCHES_MAX;
        let mut searches = self.searches.iter_mut();
        match searches.find(|search| search.target == target) {
            Some(search) if search.calls.len() >= CALLS_PER_SEARCH_MAX => return Err(TOO_MANY),
            Some(search) => search.calls.push(call),
            None if !has_room => return Err(TOO_MANY),
            None => self.searches.push(Search {
                calls: vec![call],
                target,
                since_ms: now.mono_ms,
                taken: Vec::new(),
                step: FoundBy::Direct,
                step_ms: now.mono_ms,
                until_ms: now.mono_ms,
                open: Vec::new(),
                search: None,
                tour: None,
            }),
        }
        Ok(())
    }
}

/// Whether a node was not found a moment ago.
fn is_hopeless(not_found: &BTreeMap<NodeId, u64>, node: &NodeId, now_ms: u64) -> bool {
    let until_ms = not_found.get(node);
    until_ms.is_some_and(|until_ms| now_ms < *until_ms)
}

fn note_not_found(not_found: &mut BTreeMap<NodeId, u64>, node: NodeId, now: Now) {
    not_found.retain(|_, until_ms| *until_ms > now.mono_ms);
    if not_found.len() < limits::NOT_FOUND_MAX {
        not_found.insert(node, now.after(limits::NOT_FOUND_MS));
    }
}

const NOBODY_TO_ASK: &str = "this node is connected to nobody, so there is nobody to ask; `distsoc doctor` says \
     what to do";

const NOT_FOUND: &str = "nobody knows where that node is: neither those within three hops, nor a search beyond them, nor \
     the anchors; it may be offline";

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
    let who = map.map.who(hop, row, map.entries());
    let mut found: Vec<LinkId> = who.filter_map(link).collect();
    entropy.shuffle(&mut found);
    found.truncate(limits::ADDRESS_WAYS_MAX);
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
        } else if PublicKey::check(target).is_err() {
            outbox.reply(
                call,
                Err(CallError::Refused(
                    "that id is not a key that anyone could hold",
                )),
            );
        } else if let Some((link, _)) = direct {
            let found = Found {
                node_id: target,
                found_by: FoundBy::Direct,
                address: link.remote,
                as_of_ms: now.wall_ms,
                jumps: 0,
                ms: 0,
                steps: vec![(FoundBy::Direct, 0)],
            };
            outbox.reply(call, Ok(Reply::Found(found)));
        } else if peers.up_count() == 0 {
            outbox.reply(call, Err(CallError::NotFound(NOBODY_TO_ASK)));
        } else if let Err(refused) = resolving.begin_or_join(call, target, *now) {
            outbox.reply(call, Err(CallError::Refused(refused)));
        }
    }
}

/// What a step may take, and at which hop those asked by it report the target.
fn step_after(step: FoundBy) -> Option<(FoundBy, u64)> {
    match step {
        FoundBy::Direct => Some((FoundBy::Reporter, limits::ASK_REPORTER_MS_MAX)),
        FoundBy::Reporter => Some((FoundBy::Closer, limits::ASK_CLOSER_MS_MAX)),
        FoundBy::Closer => Some((FoundBy::Worm, limits::ASK_WORM_MS_MAX)),
        FoundBy::Worm => Some((FoundBy::Anchor, limits::ASK_ANCHORS_AND_VISIT_MS_MAX)),
        FoundBy::Anchor => None,
    }
}

/// The next step of every search whose last one gave nothing, or is over.
fn go_on(
    now: Res<Now>,
    map: MapView,
    peers: Res<Peers>,
    mut resolving: ResMut<Resolving>,
    mut worms: ResMut<WormSearches>,
    mut directory: ResMut<DirectorySearches>,
    mut tours: ResMut<Tours>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    links: Query<(&Link, &Peer)>,
) {
    let Resolving {
        searches,
        late,
        not_found,
        ..
    } = &mut *resolving;
    let mut going_on = Vec::new();
    for mut search in std::mem::take(searches) {
        let mut is_over = false;
        while !search.waits(now.mono_ms) {
            let hopeless = search.step == FoundBy::Closer
                && is_hopeless(not_found, &search.target, now.mono_ms);
            let Some((step, ms)) = step_after(search.step).filter(|_| !hopeless) else {
                if !hopeless {
                    note_not_found(not_found, search.target, *now);
                }
                is_over = true;
                break;
            };
            search.begin_step(step, ms, *now);
            let (hop, relays) = match step {
                FoundBy::Worm => {
                    let targets = vec![WormTarget::Node(search.target)];
                    search.search = Some(worms.begin(WormSearch::urgent(targets)));
                    continue;
                }
                FoundBy::Anchor => {
                    let target = search.target;
                    search.search = Some(directory.begin(target));
                    search.tour = Some(tours.begin(Tour { target }));
                    continue;
                }
                FoundBy::Closer => (ReportedHop::Two, 1),
                FoundBy::Direct | FoundBy::Reporter => (ReportedHop::One, 0),
            };
            let asked = reporters_of(&search.target, hop, &map, &peers, &links, &mut entropy);
            let target = search.target;
            let request = Packet::from(AddressRequest { target, relays });
            let requests = asked.into_iter();
            let requests = requests.map(|link| (outbox.request(link, &request), step));
            search.open.extend(requests);
        }
        if is_over {
            let reply = Err(CallError::NotFound(NOT_FOUND));
            search.settle(&reply, &mut tours, late, &mut outbox);
        } else {
            outbox.wake_at(search.until_ms);
            going_on.push(search);
        }
    }
    *searches = going_on;
}

/// What worms, anchors and visits have found.
fn take_ended(
    now: Res<Now>,
    mut worms: ResMut<WormSearches>,
    mut directory: ResMut<DirectorySearches>,
    mut tours: ResMut<Tours>,
    mut resolving: ResMut<Resolving>,
    mut outbox: ResMut<Outbox>,
    links: Query<&Link>,
) {
    let Some(near) = links.iter().next().map(|link| link.remote) else {
        return;
    };
    let Resolving { searches, late, .. } = &mut *resolving;
    let target_of = |is_it: &dyn Fn(&Search) -> bool| {
        let search = searches.iter().find(|search| is_it(search))?;
        Some(search.target)
    };
    let of_step = |step: FoundBy, id: SearchId| {
        target_of(&|search: &Search| search.step == step && search.search == Some(id))
    };
    let of_worms = worms.take_ended(|id| of_step(FoundBy::Worm, id));
    let of_anchors = directory.take_ended(|id| of_step(FoundBy::Anchor, id));
    let of_tours = tours.take_ended(|id| target_of(&|search: &Search| search.tour == Some(id)));
    let ends = [
        (FoundBy::Worm, of_worms, false),
        (FoundBy::Anchor, of_anchors, false),
        // Whoever was visited was asked as a worm asks.
        (FoundBy::Worm, of_tours, true),
    ];
    for (found_by, ended, is_tour) in ends {
        for (target, Ended { found, .. }) in ended {
            let is_it = |search: &Search| search.target == target;
            let Some(place) = searches.iter().position(is_it) else {
                continue;
            };
            let search = &mut searches[place];
            match is_tour {
                true => search.tour = None,
                false => search.search = None,
            }
            let found = found.into_iter().find_map(|finding| {
                let address = usable_address(&finding.record, &search.target, near, *now)?;
                let there = Place {
                    address,
                    as_of_ms: finding.record.seq,
                };
                Some((finding.jumps, there))
            });
            let Some((jumps, there)) = found else {
                continue;
            };
            let reply = Ok(search.found(found_by, there, jumps, *now));
            searches
                .remove(place)
                .settle(&reply, &mut tours, late, &mut outbox);
        }
    }
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut tours: ResMut<Tours>,
    mut resolving: ResMut<Resolving>,
    mut outbox: ResMut<Outbox>,
    links: Query<&Link>,
) {
    let near = links.iter().next().map(|link| link.remote);
    let Resolving {
        searches,
        relays,
        relayed,
        late,
        ..
    } = &mut *resolving;
    let answers = inbox.take_responses(|request| {
        let is_search = searches
            .iter()
            .any(|search| search.open.iter().any(|(open, _)| *open == request));
        (is_search || relayed.contains_key(&request) || late.contains(&request)).then_some(request)
    });
    for (request, response) in answers {
        late.remove(&request);
        let record = match response {
            Ok(Packet::AddressResponse(response)) => response.record,
            _ => None,
        };
        if let Some(stream) = relayed.remove(&request) {
            // The first good answer is handed back; the others find no relay any more.
            let Some(relay) = relays.get_mut(&stream) else {
                continue;
            };
            relay.open -= 1;
            let asker = links
                .iter()
                .find(|link| link.id == relay.link)
                .map(|link| link.remote);
            let record = record.filter(|record| {
                asker.is_some_and(|asker| {
                    usable_address(record, &relay.target, asker, *now).is_some()
                })
            });
            if record.is_some() || relay.open == 0 {
                relays.remove(&stream);
                outbox.respond(stream, Some(&AddressResponse { record }.into()));
            }
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
        let place = record.zip(near).and_then(|(record, near)| {
            let address = usable_address(&record, &search.target, near, *now)?;
            let as_of_ms = record.seq;
            Some(Place { address, as_of_ms })
        });
        if let Some(place) = place {
            let jumps = if found_by == FoundBy::Closer { 2 } else { 1 };
            let reply = Ok(search.found(found_by, place, jumps, *now));
            searches
                .remove(number)
                .settle(&reply, &mut tours, late, &mut outbox);
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
        let record = peer.and_then(|(link, peer)| tellable_record(link, peer, asker.remote, *now));
        // The nearest ways: over peers of the target's, and only else over those who know one.
        let mut closer = |hop, relays| {
            let all = reporters_of(&target, hop, &map, &peers, &links, &mut entropy);
            let others = all.into_iter().filter(|link| *link != asker.id);
            others.map(|link| (link, relays)).collect::<Vec<_>>()
        };
        let mut ways = Vec::new();
        if record.is_none() && relays > 0 {
            ways = closer(ReportedHop::One, 0);
        }
        if record.is_none() && relays > 1 && ways.is_empty() {
            ways = closer(ReportedHop::Two, 1);
        }
        if ways.is_empty() {
            outbox.respond(stream, Some(&AddressResponse { record }.into()));
            continue;
        }
        if resolving.relayed.len() + ways.len() > limits::ADDRESS_RELAYS_MAX {
            offences.note(arrival.link, Refusal::Full, "AddressRequest");
            outbox.respond(stream, None);
            continue;
        }
        let relay = Relay {
            link: arrival.link,
            target,
            open: ways.len(),
        };
        resolving.relays.insert(stream, relay);
        for (link, relays) in ways {
            let request = outbox.request(link, &AddressRequest { target, relays }.into());
            resolving.relayed.insert(request, stream);
        }
    }
}

/// Searches by persons, and answers for peers.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Resolving::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.on(
        Occasions::packet(&AddressRequest::SPEC),
        Phase::Judge,
        serve,
    );
    frame.on(Occasions::CALL, Phase::Judge, take_calls);
    frame.due(
        |glance| {
            let has_ended = glance.at::<WormSearches>().has_ended()
                || glance.at::<DirectorySearches>().has_ended()
                || glance.at::<Tours>().has_ended();
            at_once_if(has_ended)
        },
        Phase::Judge,
        take_ended,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<Resolving>().searches.is_empty()),
        Phase::Plan,
        go_on,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::crypto::hash;

    const NOW: Now = Now {
        mono_ms: 1_000,
        wall_ms: 1_700_000_000_000,
    };

    fn node(number: u64) -> NodeId {
        NodeId::from_bytes(hash(&number.to_be_bytes()))
    }

    #[test]
    fn calls_for_the_same_node_share_one_search() {
        let mut resolving = Resolving::default();
        let mut begin = |call: usize, target: u64| {
            resolving
                .begin_or_join(CallId(call as u64), node(target), NOW)
                .is_ok()
        };
        let joined = (0..2 * CALLS_PER_SEARCH_MAX).filter(|call| begin(*call, 0));
        assert_eq!(joined.count(), CALLS_PER_SEARCH_MAX);
        let begun = (0..2 * SEARCHES_MAX).filter(|call| begin(1_000 + call, *call as u64 + 1));
        assert_eq!(begun.count(), SEARCHES_MAX - 1);
        assert_eq!(resolving.searches.len(), SEARCHES_MAX);
        assert_eq!(resolving.searches[0].calls.len(), CALLS_PER_SEARCH_MAX);
    }

    #[test]
    fn so_many_that_were_not_found_are_remembered_and_each_for_a_minute() {
        let mut not_found = BTreeMap::new();
        for number in 0..2 * limits::NOT_FOUND_MAX as u64 {
            note_not_found(&mut not_found, node(number), NOW);
        }
        assert_eq!(not_found.len(), limits::NOT_FOUND_MAX);
        let until_ms = NOW.mono_ms + limits::NOT_FOUND_MS;
        assert!(is_hopeless(&not_found, &node(0), until_ms - 1));
        assert!(!is_hopeless(&not_found, &node(0), until_ms));
        let later = Now {
            mono_ms: until_ms,
            ..NOW
        };
        note_not_found(&mut not_found, node(7_777), later);
        assert_eq!(not_found.len(), 1);
    }
}
