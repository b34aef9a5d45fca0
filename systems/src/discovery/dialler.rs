//! PROTOCOL sections 4 and 6: whom this node dials, and when. Wanted peers first, then whoever fills a free slot.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Address, ConnectString, NodeId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Call, CallError, CallId, DialFailure, DialTarget, Reply, Slot, WideRole};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{AT_ONCE, Glance, Occasions, Phase, at_once_if};
use distsoc_engine::wire::Purpose;
use distsoc_engine::world::authors::{Author, AuthorsView};
use distsoc_engine::world::candidates::{
    Attempt, Candidate, Candidates, CoolOffs, DialLimits, Dialling, Lost,
};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Inbox, LinkEvent};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, PeerChange, PeerChanges, Peers, peers_changed};
use distsoc_engine::world::searches::{Errand, Errands};

/// Calls to connect that wait for their dial, at most.
const CONNECTING_MAX: usize = 64;

/// A call to connect is answered within this, whatever becomes of the dial; a dial tries 8 addresses of 4 s.
const CONNECT_MS_MAX: u64 = 50_000;

/// People's calls to connect that wait.
#[derive(Resource, Debug, Default)]
struct Connecting(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    call: CallId,
    place: ConnectString,
    until_ms: u64,
}

/// How dialling strangers for free slots goes: where most are full, hardly anybody is worth another try.
#[derive(Resource, Debug, Default)]
struct Filling {
    /// Dials without a peer, less half of them for each that brought one.
    refused: u32,
    /// The next stranger is not dialled before this: mono ms.
    next_ms: u64,
}

impl Filling {
    /// The pause after another dial, before jitter.
    fn pause_ms(&self, well_connected: bool) -> u64 {
        match self.refused.checked_sub(limits::FILL_REFUSALS) {
            Some(more) => {
                let doublings = more / limits::FILL_REFUSALS_PER_DOUBLING;
                limits::FILL_PAUSE_MS << doublings.min(limits::FILL_DOUBLINGS_MAX)
            }
            None if well_connected => limits::FILL_PAUSE_MS,
            None => 0,
        }
    }
}

impl Connecting {
    /// Answers the calls that the closure says this is the end of.
    fn settle(
        &mut self,
        node: NodeId,
        result: &Result<Reply, CallError>,
        outbox: &mut Outbox,
        is_its_end: impl Fn(&ConnectString) -> bool,
    ) {
        self.0.retain(|waiting| {
            let ends = waiting.place.node_id() == node && is_its_end(&waiting.place);
            if ends {
                outbox.reply(waiting.call, result.clone());
            }
            !ends
        });
    }
}

/// Whether a dial went to the place of a call: one that began before, to somewhere else, says nothing about it.
fn went_to(is_among: impl Fn(Address) -> bool, place: &ConnectString) -> bool {
    place.address().is_none_or(is_among)
}

/// In which order candidates are dialled: wanted ones, anchors while they are needed, proved ones, the rest; lower is
/// sooner.
fn rank(candidate: &Candidate, anchors_needed: bool) -> u32 {
    match candidate {
        Candidate { wanted: true, .. } => 0,
        Candidate {
            is_anchor: true, ..
        } if anchors_needed => 1,
        Candidate {
            proved_ms: Some(_), ..
        } => 2,
        _ => 3,
    }
}

fn learn_failures(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut dialling: ResMut<Dialling>,
    mut candidates: ResMut<Candidates>,
    mut dial_limits: ResMut<DialLimits>,
    mut entropy: ResMut<Entropy>,
    mut connecting: ResMut<Connecting>,
    mut filling: ResMut<Filling>,
    mut outbox: ResMut<Outbox>,
) {
    if inbox.links.is_empty() && dialling.lost.is_empty() {
        return;
    }
    for Lost { node, remote, why } in std::mem::take(&mut dialling.lost) {
        // What this node itself had no place for says nothing about the others.
        filling.refused = filling.refused.saturating_add(u32::from(remote.is_some()));
        let is_there = |address: Address| remote.is_none_or(|remote| address.socket() == remote);
        connecting.settle(node, &Err(why), &mut outbox, |place| {
            went_to(is_there, place)
        });
    }
    inbox.links.retain(|event| {
        let LinkEvent::DialFailed { dial, failure } = event else {
            return true;
        };
        if let Some(attempt) = dialling.finish(*dial) {
            filling.refused = filling.refused.saturating_add(1);
            candidates.failed(&attempt.node, now.mono_ms, &mut entropy);
            for address in &attempt.addresses {
                dial_limits.failed(*address, now.mono_ms);
            }
            let failed = Err(CallError::Dial(*failure));
            connecting.settle(attempt.node, &failed, &mut outbox, |place| {
                went_to(|address| attempt.addresses.contains(&address), place)
            });
        }
        false
    });
}

fn take_connect_calls(
    now: Res<Now>,
    identity: Res<Identity>,
    peers: Res<Peers>,
    mut inbox: ResMut<Inbox>,
    mut candidates: ResMut<Candidates>,
    mut connecting: ResMut<Connecting>,
    mut outbox: ResMut<Outbox>,
) {
    let calls = inbox.take_calls(|call| match call {
        Call::Connect(place) => Some(place.clone()),
        _ => None,
    });
    for (call, place) in calls {
        let node = place.node_id();
        if node == identity.node_id() {
            outbox.reply(
                call,
                Err(CallError::Refused("this is your own connect string")),
            );
        } else if connecting.0.len() >= CONNECTING_MAX {
            outbox.reply(
                call,
                Err(CallError::Refused(
                    "too many connections are being opened at once",
                )),
            );
        } else {
            candidates.want(node, Some(&place), false);
            connecting.0.push(Waiting {
                call,
                place,
                until_ms: now.after(CONNECT_MS_MAX),
            });
            if peers.by_node(&node).is_some() {
                connecting.settle(node, &Ok(Reply::Connected(node)), &mut outbox, |_| true);
            }
        }
    }
}

fn settle_connected(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    mut connecting: ResMut<Connecting>,
    mut filling: ResMut<Filling>,
    mut outbox: ResMut<Outbox>,
) {
    for _ in changes.came_up().filter(|(.., slot)| *slot != Slot::Visit) {
        filling.refused = filling.refused.min(limits::FILL_REFUSALS_MAX) / 2;
    }
    let went = |change: &PeerChange| matches!(change, PeerChange::Down { slot, .. } if *slot != Slot::Visit);
    if changes.0.iter().any(went) {
        // A place is free again, here and at whoever else had that peer.
        filling.refused = filling.refused.min(limits::FILL_REFUSALS);
        filling.next_ms = filling.next_ms.min(now.after(limits::FILL_PAUSE_MS));
    }
    if connecting.0.is_empty() {
        return;
    }
    for (node, _, _) in changes.came_up() {
        connecting.settle(node, &Ok(Reply::Connected(node)), &mut outbox, |_| true);
    }
    connecting.0.retain(|waiting| {
        let late = waiting.until_ms <= now.mono_ms;
        if late {
            outbox.reply(waiting.call, Err(CallError::Dial(DialFailure::NoAnswer)));
        } else {
            outbox.wake_at(waiting.until_ms);
        }
        !late
    });
}

/// When somebody is to be dialled, should nothing change before: mono ms.
#[derive(Resource, Debug, Default)]
struct NextDial(Option<u64>);

/// Who may be dialled changes with these, and with time.
fn dial_due(glance: &Glance<'_>) -> Option<u64> {
    let is_changed = glance.has_changed::<Candidates>()
        || glance.has_changed::<Dialling>()
        || glance.has_changed::<Peers>();
    match is_changed {
        true => Some(AT_ONCE),
        false => glance.at::<NextDial>().0,
    }
}

fn dial(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    peers: Res<Peers>,
    mut candidates: ResMut<Candidates>,
    mut dialling: ResMut<Dialling>,
    mut dial_limits: ResMut<DialLimits>,
    mut cool_offs: ResMut<CoolOffs>,
    mut outbox: ResMut<Outbox>,
    mut entropy: ResMut<Entropy>,
    inbox: Res<Inbox>,
    up: Query<(&Link, &Peer)>,
    connecting: Res<Connecting>,
    authors: AuthorsView,
    mut filling: ResMut<Filling>,
    mut next_dial: ResMut<NextDial>,
) {
    if inbox.stopping {
        if let Some(due_ms) = next_dial.0 {
            outbox.wake_at(due_ms);
        }
        return;
    }
    let seated = |place| {
        up.iter()
            .filter(|(_, peer)| (peer.slot, peer.role) == place)
            .count()
    };
    let social = seated((Slot::Social, None));
    let diverse = seated((Slot::Wide, Some(WideRole::Diverse)));
    let anchors = up.iter().filter(|(_, peer)| peer.is_anchor()).count();
    // Neighbours and fingers are looked for by themselves, and some slots wait for anchors.
    let others = up
        .iter()
        .filter(|(_, peer)| peer.role == Some(WideRole::Diverse) && !peer.is_anchor());
    let slots = profile.social_slots + profile.wide_diverse_slots();
    let for_others = profile.social_slots + profile.diverse_slots_for_others();
    let mut free = for_others.saturating_sub(social + others.count() + dialling.count());
    let anchors_needed = anchors < profile.wide_anchor_slots;
    let well_connected = (social + diverse) * 4 >= slots * 3;
    let fill_pause_ms = match social + diverse {
        0 => 0,
        _ => filling.pause_ms(well_connected),
    };
    // Cover: where as many of those followed are up as may be, no more are dialled, or each would be told that it is chosen only
    // to be sent away.
    let is_followed = |node: &NodeId| authors.get(node).is_some_and(Author::is_followed);
    let social_up = up.iter().filter(|(_, peer)| peer.slot == Slot::Social);
    let mut followed = social_up
        .filter(|(link, _)| is_followed(&link.node))
        .count()
        + dialling.nodes().filter(|node| is_followed(node)).count();
    let followed_max = profile.social_slots - profile.cover_slots();
    let lacks_cover = |node: &NodeId, followed: usize| {
        let is_awaited = || {
            connecting
                .0
                .iter()
                .any(|waiting| waiting.place.node_id() == *node)
        };
        followed >= followed_max && is_followed(node) && !is_awaited()
    };
    let mut due: Vec<(u32, u64, NodeId)> = Vec::new();
    let mut next_ms: Option<u64> = None;
    for (node, candidate) in candidates.iter() {
        let rank = rank(candidate, anchors_needed);
        let useful = rank <= 1 || free > 0;
        if !useful
            || lacks_cover(node, followed)
            || peers.is_linked(node)
            || candidate.target().is_none()
            || dialling.is_dialling(node)
        {
            continue;
        }
        if candidate.not_before_ms > now.mono_ms {
            next_ms = Some(next_ms.map_or(candidate.not_before_ms, |ms| {
                ms.min(candidate.not_before_ms)
            }));
        } else {
            due.push((rank, entropy.next_u64(), *node));
        }
    }
    due.sort_unstable();
    for (rank, _, node) in due {
        if dialling.count() >= limits::DIALS_IN_FLIGHT_MAX {
            break;
        }
        if rank > 1 && free == 0 {
            break;
        }
        if rank > 0 && fill_pause_ms > 0 && now.mono_ms < filling.next_ms {
            next_ms = Some(next_ms.map_or(filling.next_ms, |ms| ms.min(filling.next_ms)));
            break;
        }
        let candidate = candidates.get(&node).expect("listed from the candidates");
        if lacks_cover(&node, followed) {
            continue;
        }
        if rank > 0 && cool_offs.is_cooling(&node, now.mono_ms) {
            postponed(
                &mut candidates,
                &mut next_ms,
                node,
                now.after(limits::COOL_OFF_MS_MIN),
            );
            continue;
        }
        let vouched = candidate.is_vouched();
        let Some(target) = permitted(candidate, vouched, &mut dial_limits, now.mono_ms) else {
            postponed(
                &mut candidates,
                &mut next_ms,
                node,
                now.after(limits::DIAL_FAILED_PAUSE_MS / 10),
            );
            continue;
        };
        let wide_first = candidate.is_anchor && !candidate.wanted;
        // A newcomer whom a full anchor sent away comes back as a visitor, for a sample of others.
        let lonely = social + diverse == 0 && candidate.failures > 0;
        let purpose = match diverse < profile.wide_diverse_slots() {
            _ if wide_first && lonely => Purpose::Visit,
            true if wide_first => Purpose::Wide,
            _ => Purpose::Social,
        };
        let addresses = match &target {
            DialTarget::Addresses(addresses) => addresses.clone(),
            DialTarget::Host { .. } => Vec::new(),
        };
        let id = outbox.dial(node, target);
        dialling.begin(
            id,
            Attempt {
                node,
                purpose,
                addresses,
            },
        );
        free = free.saturating_sub(1);
        followed += usize::from(is_followed(&node));
        if rank > 0 && fill_pause_ms > 0 {
            filling.next_ms = now.after(entropy.jittered(fill_pause_ms));
        }
    }
    next_dial.0 = next_ms;
    if let Some(next_ms) = next_ms {
        outbox.wake_at(next_ms);
    }
}

/// Short connections and seats that other features ask for, beside whatever the candidates give.
fn run_errands(
    now: Res<Now>,
    peers: Res<Peers>,
    inbox: Res<Inbox>,
    mut errands: ResMut<Errands>,
    mut dialling: ResMut<Dialling>,
    mut dial_limits: ResMut<DialLimits>,
    mut cool_offs: ResMut<CoolOffs>,
    mut outbox: ResMut<Outbox>,
) {
    if errands.is_empty() || inbox.stopping {
        return;
    }
    for (node, Errand { target, purpose }) in errands.take() {
        if peers.is_linked(&node) || dialling.is_dialling(&node) {
            continue;
        }
        if cool_offs.is_cooling(&node, now.mono_ms) {
            errands.decline(node);
            continue;
        }
        if dialling.count() >= limits::DIALS_IN_FLIGHT_MAX {
            errands.want(node, Errand { target, purpose });
            continue;
        }
        let (target, addresses) = match target {
            DialTarget::Addresses(all) => {
                let allowed = all.into_iter();
                let allowed = allowed.filter(|one| dial_limits.permit(*one, now.mono_ms));
                let allowed: Vec<Address> = allowed.collect();
                (DialTarget::Addresses(allowed.clone()), allowed)
            }
            host @ DialTarget::Host { .. } => (host, Vec::new()),
        };
        if target == DialTarget::Addresses(Vec::new()) {
            errands.decline(node);
            continue;
        }
        let id = outbox.dial(node, target);
        let attempt = Attempt {
            node,
            purpose,
            addresses,
        };
        dialling.begin(id, attempt);
    }
}

fn postponed(candidates: &mut Candidates, next_ms: &mut Option<u64>, node: NodeId, until_ms: u64) {
    candidates.postpone(&node, until_ms);
    *next_ms = Some(next_ms.map_or(until_ms, |ms| ms.min(until_ms)));
}

/// The addresses of a candidate that may be dialled now.
fn permitted(
    candidate: &Candidate,
    vouched: bool,
    dial_limits: &mut DialLimits,
    now_ms: u64,
) -> Option<DialTarget> {
    match candidate.target()? {
        DialTarget::Addresses(addresses) if !vouched => {
            let allowed: Vec<_> = addresses
                .into_iter()
                .filter(|address| dial_limits.permit(*address, now_ms))
                .collect();
            (!allowed.is_empty()).then_some(DialTarget::Addresses(allowed))
        }
        target => Some(target),
    }
}

/// Whom to dial.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Connecting::default());
    frame.world.insert_resource(Filling::default());
    frame.world.insert_resource(NextDial::default());
    frame.on_or_due(
        Occasions::LINK,
        |glance| at_once_if(!glance.at::<Dialling>().lost.is_empty()),
        Phase::Ingest,
        learn_failures,
    );
    frame.on(Occasions::CALL, Phase::Judge, take_connect_calls);
    frame.due(
        |glance| {
            let waits = !glance.at::<Connecting>().0.is_empty();
            at_once_if(waits).or_else(|| peers_changed(glance))
        },
        Phase::Judge,
        settle_connected,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<Errands>().is_empty()),
        Phase::Plan,
        run_errands,
    );
    frame.due(dial_due, Phase::Plan, dial);
}
