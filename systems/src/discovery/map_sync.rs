//! PROTOCOL section 6, InitialMapSync and MapReconcile: the reports of a new peer are asked for cell by cell, at most four peers at
//! once; those of one that comes back, or whose diffs went missing, only where the cells differ.

use crate::Installer;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestFailure, Slot};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase, at_once_if};
use distsoc_engine::wire::{
    CELLS, GoodbyeReason, InitialMapSync, MapCell, MapCells, MapItem, MapReconcile, Named, Packet,
};
use distsoc_engine::world::gossip::{
    GoneReporters, MapListener, MapSync, MapSyncs, Report, ReportContent, ReportQueue, Reported,
    SyncStep,
};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::map::{
    DiscoveryMap, MapEdit, MapEntry, MapView, ReportedHop, Reporter, ReporterSets, Row, SetHash,
};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Offences, Peer, PeerChange, PeerChanges, Peers, peers_changed};
use std::collections::BTreeMap;

/// Syncs under way at once: they come after everything else.
const ASKED_MAX: usize = 4;

/// What a peer's reports go into.
#[derive(SystemParam)]
struct Listening<'w, 's> {
    now: Res<'w, Now>,
    entropy: ResMut<'w, Entropy>,
    syncs: ResMut<'w, MapSyncs>,
    gone: ResMut<'w, GoneReporters>,
    queue: ResMut<'w, ReportQueue>,
    profile: Res<'w, NodeProfile>,
    map: MapEdit<'w, 's>,
}

impl Listening<'_, '_> {
    /// Whether one more may report.
    fn has_place(&self) -> bool {
        self.syncs.by_node.len() < ReporterSets::REPORTERS_MAX
    }

    /// A peer has come up; false where too many report.
    fn begin(&mut self, node: NodeId, link: LinkId) -> bool {
        let (map, entries) = self.map.parts();
        let Some(reporter) = map.add_reporter(node) else {
            return false;
        };
        let reporters = map.reporters();
        let mut known = [ReportedHop::One, ReportedHop::Two].into_iter();
        let has_any = known.any(|hop| {
            reporters
                .rows(reporter, hop)
                .is_some_and(|rows| !rows.is_empty())
        });
        let room = self
            .profile
            .map_entries_max
            .saturating_sub(map.counts().total());
        let remembered = self.gone.take(&node);
        let remembered = remembered.filter(|named| !has_any && named.len() <= room);
        let salt = self.entropy.next_u64();
        map.begin_connection(reporter, SetHash::new(salt), entries);
        let sync = MapSync {
            link: Some(link),
            heard_ms: self.now.mono_ms,
            salt,
            with_hop_2: false,
            step: match remembered {
                Some(_) => SyncStep::Answered,
                None => SyncStep::Due {
                    at_ms: self.now.mono_ms,
                    first_cell: 0,
                },
            },
            ..MapSync::standing(reporter)
        };
        self.syncs.by_node.insert(node, sync);
        if let Some(named) = remembered {
            self.queue.0.push_back(Report {
                node,
                link,
                content: ReportContent::Remembered(named),
            });
        }
        true
    }
}

/// Peers that are up and do not report, for too many do.
#[derive(Resource, Debug, Default)]
struct Unheard(BTreeMap<NodeId, LinkId>);

/// Peers that have come up report, those that went do no more. Where too many do, the others wait until one is forgotten.
fn follow_peers(changes: Res<PeerChanges>, mut listening: Listening, mut unheard: ResMut<Unheard>) {
    let unheard = &mut unheard.0;
    for change in &changes.0 {
        match *change {
            PeerChange::Up {
                slot: Slot::Visit, ..
            } => {}
            PeerChange::Up { node, link, .. } => {
                unheard.remove(&node);
                if !listening.begin(node, link) {
                    unheard.insert(node, link);
                }
            }
            PeerChange::Down { node, .. } => {
                unheard.remove(&node);
                let now_ms = listening.now.mono_ms;
                if let Some(sync) = listening.syncs.by_node.get_mut(&node) {
                    sync.link = None;
                    sync.gone_ms = now_ms;
                }
            }
        }
    }
    while listening.has_place()
        && let Some((node, link)) = unheard.pop_first()
    {
        if !listening.begin(node, link) {
            unheard.insert(node, link);
            break;
        }
    }
}

/// All that a reporter names, this node itself excepted.
fn named_by(
    reporter: Reporter,
    map: &DiscoveryMap,
    entries: &[MapEntry],
) -> Vec<(ReportedHop, MapItem)> {
    let of_hop = |hop| {
        let rows = map.reporters().rows(reporter, hop).into_iter().flatten();
        rows.map(move |row| (hop, &entries[row as usize]))
    };
    let named = of_hop(ReportedHop::One).chain(of_hop(ReportedHop::Two));
    let item = |entry: &MapEntry| MapItem {
        named: Named::Bare(entry.node),
        is_anchor: entry.is_anchor(),
    };
    named.map(|(hop, entry)| (hop, item(entry))).collect()
}

/// When somebody who has gone is to be forgotten: mono ms.
#[derive(Resource, Debug, Default)]
struct NextForgetting(Option<u64>);

/// When a reporter goes, whatever only it reported goes: after a while, since it may be back, and in slices.
fn forget_the_gone(
    now: Res<Now>,
    mut syncs: ResMut<MapSyncs>,
    mut gone: ResMut<GoneReporters>,
    mut map: MapEdit,
    mut outbox: ResMut<Outbox>,
    mut next: ResMut<NextForgetting>,
) {
    let due_ms = &mut next.0;
    *due_ms = None;
    if syncs.by_node.values().all(|sync| sync.link.is_some()) {
        return;
    }
    let (map, entries) = map.parts();
    let mut forgotten = false;
    let mut wake_at = |at_ms: u64| {
        outbox.wake_at(at_ms);
        *due_ms = Some(due_ms.map_or(at_ms, |due_ms| due_ms.min(at_ms)));
    };
    syncs.by_node.retain(|node, sync| {
        let gone_for_good_ms = sync.gone_ms + limits::REPORTER_GRACE_MS;
        if sync.link.is_some() {
            return true;
        }
        if now.mono_ms < gone_for_good_ms || forgotten {
            wake_at(gone_for_good_ms.max(now.mono_ms));
            return true;
        }
        forgotten = true;
        if sync.step != SyncStep::Forgetting {
            gone.remember(*node, named_by(sync.reporter, map, entries));
            sync.step = SyncStep::Forgetting;
        }
        let is_gone = map.forget(sync.reporter, limits::MAP_SLICE_IDS, entries);
        if !is_gone {
            wake_at(now.mono_ms);
        }
        !is_gone
    });
}

/// The sums of what a reporter names, by cell; `None` where it names nobody.
fn sums_of(
    reporter: Reporter,
    map: &DiscoveryMap,
    entries: &[MapEntry],
) -> Option<Box<[u64; CELLS]>> {
    let reporters = map.reporters();
    let hash = reporters.hash(reporter);
    let mut sums = Box::new([0u64; CELLS]);
    let mut has_any = false;
    let mut add = |hop, node: &NodeId| {
        let sum = &mut sums[hash.cell(node)];
        *sum = sum.wrapping_add(hash.of(hop, node));
        has_any = true;
    };
    for hop in [ReportedHop::One, ReportedHop::Two] {
        for row in reporters.rows(reporter, hop).into_iter().flatten() {
            add(hop, &entries[row as usize].node);
        }
        if reporters.names_us(reporter, hop) {
            add(hop, map.own());
        }
    }
    has_any.then_some(sums)
}

/// When to ask this peer, and from which cell on. Of one that stands but is silent, for the last cell: does it live?
fn next_question(sync: &MapSync) -> Option<(u64, u16)> {
    match sync.step {
        SyncStep::Due { at_ms, first_cell } => Some((at_ms, first_cell)),
        SyncStep::Standing => Some((sync.heard_ms + limits::SILENT_MS, CELLS as u16 - 1)),
        SyncStep::Asked(_) | SyncStep::Answered | SyncStep::Forgetting => None,
    }
}

/// When somebody is to be asked: mono ms.
#[derive(Resource, Debug, Default)]
struct NextQuestion(Option<u64>);

fn ask(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    map: MapView,
    mut syncs: ResMut<MapSyncs>,
    mut outbox: ResMut<Outbox>,
    mut next: ResMut<NextQuestion>,
) {
    let due_ms = &mut next.0;
    *due_ms = None;
    let is_asked = |sync: &&MapSync| matches!(sync.step, SyncStep::Asked(_) | SyncStep::Answered);
    let mut asked = syncs.by_node.values().filter(is_asked).count();
    let mut taken = map.map.counts().total();
    let MapSyncs {
        by_node,
        asked: asked_of,
    } = &mut *syncs;
    // Who has waited longest is first: who answers slowly and little must not hold up the others.
    let mut due: Vec<(u64, NodeId)> = Vec::new();
    for (node, sync) in by_node.iter() {
        let (Some(_), Some((at_ms, _))) = (sync.link, next_question(sync)) else {
            continue;
        };
        if at_ms > now.mono_ms {
            outbox.wake_at(at_ms);
            *due_ms = Some(due_ms.map_or(at_ms, |due_ms| due_ms.min(at_ms)));
        } else {
            due.push((at_ms, *node));
        }
    }
    due.sort_unstable();
    for (_, node) in due {
        let sync = by_node.get_mut(&node).expect("listed from by_node");
        let (Some(link), Some((_, first_cell))) = (sync.link, next_question(sync)) else {
            continue;
        };
        if asked >= ASKED_MAX {
            // The end of one of those under way makes the next frame.
            break;
        }
        let reporters = map.map.reporters();
        let sums = sums_of(sync.reporter, &map.map, map.entries());
        let has_any = sums.is_some();
        let sums = sums.unwrap_or_else(|| Box::new([0; CELLS]));
        let sums = MapReconcile::sums_of(&sums, first_cell, has_any);
        let knows_hop_2 = reporters
            .rows(sync.reporter, ReportedHop::Two)
            .is_some_and(|rows| !rows.is_empty());
        let with_hop_2 =
            knows_hop_2 || taken + limits::REPORT_IDS_TYPICAL <= profile.map_entries_max;
        if !with_hop_2 && asked > 0 {
            // There may be room for its hop 2 once it is known how much the others told.
            continue;
        }
        if with_hop_2 && !knows_hop_2 {
            taken += limits::REPORT_IDS_TYPICAL;
        }
        sync.with_hop_2 = with_hop_2;
        if first_cell == 0 {
            // What there was no room for may have it now.
            sync.is_capped = false;
            sync.is_hop_1_capped = false;
        }
        let request = MapReconcile {
            salt: sync.salt,
            with_hop_2,
            afresh: first_cell == 0 && sync.failures >= limits::RECONCILES_BEFORE_DUMP,
            first_cell,
            sums,
        };
        let request = outbox.request(link, &request.into());
        sync.step = SyncStep::Asked(request);
        asked_of.insert(request, (node, link, first_cell));
        asked += 1;
    }
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut syncs: ResMut<MapSyncs>,
    mut queue: ResMut<ReportQueue>,
    mut outbox: ResMut<Outbox>,
) {
    let MapSyncs { by_node, asked } = &mut *syncs;
    for ((request, (node, link, first_cell)), response) in
        inbox.take_responses(|request| Some((request, asked.remove(&request)?)))
    {
        let current = by_node.get_mut(&node);
        let Some(sync) = current.filter(|sync| sync.step == SyncStep::Asked(request)) else {
            continue;
        };
        match response {
            Ok(Packet::InitialMapSync(answer)) if answer.next_cell > first_cell => {
                sync.step = SyncStep::Answered;
                let content = ReportContent::Cells {
                    first_cell,
                    sync: answer,
                };
                queue.0.push_back(Report {
                    node,
                    link,
                    content,
                });
            }
            Err(RequestFailure::TimedOut) if now.mono_ms > sync.heard_ms + limits::SILENT_MS => {
                outbox.close(link, GoodbyeReason::Silent);
            }
            _ => {
                sync.failures += 1;
                sync.step = SyncStep::Due {
                    at_ms: now.after(sync.retry_ms()),
                    first_cell,
                };
            }
        }
    }
}

/// The cells of what is reported that differ from the asker's, from the first one asked for on, as many as fit.
fn cells_for(
    request: &MapReconcile,
    listener: &mut MapListener,
    reported: &Reported,
    entries: &[MapEntry],
) -> (MapCells, u16) {
    let hash = listener.hash;
    let mut cells: Vec<Vec<(ReportedHop, Row)>> = vec![Vec::new(); CELLS];
    let mut sums = [0u64; CELLS];
    for (hop, row) in reported.all(request.with_hop_2) {
        let node = &entries[row as usize].node;
        let cell = hash.cell(node);
        cells[cell].push((hop, row));
        sums[cell] = sums[cell].wrapping_add(hash.of(hop, node));
    }
    let (mut told, mut ids) = (Vec::new(), 0);
    for number in usize::from(request.first_cell)..CELLS {
        if request.agrees(number, sums[number]) {
            continue;
        }
        ids += cells[number].len() + 1;
        if ids * MapItem::BYTES_MAX > limits::SYNC_ITEMS_BYTES_MAX && !told.is_empty() {
            return (MapCells::new(told).expect("in order"), number as u16);
        }
        let mut cell = MapCell {
            number: number as u16,
            hop_1: Vec::new(),
            hop_2: Vec::new(),
        };
        for (hop, row) in &cells[number] {
            let item = listener.name(*row, &entries[*row as usize], &reported.book);
            match hop {
                ReportedHop::One => cell.hop_1.push(item),
                ReportedHop::Two => cell.hop_2.push(item),
            }
        }
        told.push(cell);
    }
    (MapCells::new(told).expect("in order"), CELLS as u16)
}

fn serve(
    peers: Res<Peers>,
    reported: Res<Reported>,
    map: MapView,
    mut arrivals: ResMut<Arrivals<MapReconcile>>,
    mut listeners: Query<&mut MapListener>,
    up: Query<&Peer>,
    mut offences: ResMut<Offences>,
    mut outbox: ResMut<Outbox>,
    mut commands: Commands,
) {
    for arrival in arrivals.take() {
        let (Some(stream), Some(entity)) = (arrival.stream, peers.up_behind(arrival.link)) else {
            continue;
        };
        if up.get(entity).is_ok_and(|peer| peer.slot == Slot::Visit) {
            // Visits get no diffs (PROTOCOL section 3).
            offences.note(arrival.link, Refusal::NotWanted, "MapReconcile");
            outbox.respond(stream, None);
            continue;
        }
        let request = arrival.packet;
        let mut fresh = MapListener::new(request.salt, request.with_hop_2);
        let mut standing = listeners.get_mut(entity).ok();
        let is_same = standing.as_ref().is_some_and(|listener| {
            !request.afresh
                && listener.hash == fresh.hash
                && listener.with_hop_2 == request.with_hop_2
        });
        let listener = match &mut standing {
            Some(listener) if is_same => &mut **listener,
            _ => &mut fresh,
        };
        if !is_same {
            let hash = listener.hash;
            let hashes = reported
                .all(request.with_hop_2)
                .map(|(hop, row)| hash.in_digest(hop, &map.entries()[row as usize].node));
            listener.digest = hashes.fold(0, u64::wrapping_add);
        }
        let (cells, next_cell) = cells_for(&request, listener, &reported, map.entries());
        let answer = InitialMapSync {
            seq: reported.seq,
            digest: listener.digest,
            next_cell,
            cells,
        };
        outbox.respond(stream, Some(&answer.into()));
        if !is_same {
            match standing {
                Some(mut listener) => *listener = fresh,
                None => drop(commands.entity(entity).insert(fresh)),
            }
        }
    }
}

/// What is asked of peers about their maps, and answered.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(MapSyncs::default());
    frame.world.insert_resource(ReportQueue::default());
    frame.world.insert_resource(GoneReporters::default());
    frame.world.insert_resource(Unheard::default());
    frame.world.insert_resource(NextForgetting::default());
    frame.world.insert_resource(NextQuestion::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.due(
        |glance| {
            let waits = !glance.at::<Unheard>().0.is_empty();
            at_once_if(waits).or_else(|| peers_changed(glance))
        },
        Phase::Judge,
        follow_peers,
    );
    frame.on(Occasions::packet(&MapReconcile::SPEC), Phase::Judge, serve);
    frame.due(
        |glance| match glance.has_changed::<MapSyncs>() {
            true => Some(AT_ONCE),
            false => glance.at::<NextForgetting>().0,
        },
        Phase::Plan,
        forget_the_gone,
    );
    frame.due(
        |glance| match glance.has_changed::<MapSyncs>() {
            true => Some(AT_ONCE),
            false => glance.at::<NextQuestion>().0,
        },
        Phase::Plan,
        ask,
    );
}
