//! Whoever began a search told directly what was found: where the search has come far, a dial is shorter than the way back, which is
//! gone all the same. The one who began it has signed, for this search alone, that it wants to be told and where: nobody can make others
//! dial a third under its own name. Keys are free, so what a made-up one could cause is bounded: by peer here, by address and prefix where
//! it is dialled.

use super::Worms;
use super::search::{Asker, Worm};
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::domain::Signed;
use distsoc_engine::io::{DialTarget, LinkId, Slot};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{
    GoodbyeReason, Purpose, WormAnswer, WormFinding, WormOrigin, WormOriginBody, WormTarget,
};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Offences, Partings, is_tellable};
use distsoc_engine::world::searches::{Errand, Errands};
use std::collections::BTreeMap;

/// The own word for a search, where this node can be dialled.
pub(super) fn origin(
    search: u64,
    identity: &Identity,
    knowledge: &Knowledge<'_, '_>,
) -> Option<WormOrigin> {
    let address = knowledge.own_address()?;
    let expiry_ms = knowledge.now().wall_ms + 2 * u64::from(limits::WORM_PATIENCE_MS);
    let body = WormOriginBody {
        node_id: identity.node_id(),
        search,
        address,
        expiry_ms,
    };
    Some(Signed::sign(body, identity.secret()))
}

/// Somebody who is to be told.
#[derive(Debug)]
struct Telling {
    answer: WormAnswer,
    until_ms: u64,
    /// From whom the search came.
    asker: LinkId,
}

/// Those who are to be told, at most [`limits::WORM_DIRECT_MAX`].
#[derive(Resource, Debug, Default)]
pub(super) struct DirectAnswers {
    waiting: BTreeMap<NodeId, Telling>,
    /// Still to be dialled.
    new: Vec<WormOrigin>,
}

impl DirectAnswers {
    /// Whether nobody is to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A search of somebody else's has ended here: what this node itself has found is told directly, if that is the shorter way.
    pub(super) fn note(&mut self, worm: &Worm, knowledge: &Knowledge<'_, '_>) {
        let now = knowledge.now();
        let (Some(origin), Asker::Peer { link: asker, .. }) = (&worm.origin, worm.asker) else {
            return;
        };
        let of_asker = self.waiting.values().filter(|one| one.asker == asker);
        let own = worm.found.iter().flatten().find(|found| found.links == 0);
        let is_next = knowledge
            .peer(asker)
            .is_some_and(|(link, _)| link.node == origin.node_id);
        let is_fresh = now.wall_ms < origin.expiry_ms
            && origin.expiry_ms <= now.wall_ms + limits::FUTURE_MS_MAX
            && origin.address.fits_scope_of(worm.asker_remote.ip())
            && origin.node_id != knowledge.own();
        if is_next || !is_fresh || worm.patience_ms > limits::WORM_DIRECT_PATIENCE_MS {
            return;
        }
        if let Some(WormFinding { target, record, .. }) = own
            && self.waiting.len() < limits::WORM_DIRECT_MAX
            && of_asker.count() < limits::WORM_DIRECT_PER_PEER_MAX
        {
            let answer = WormAnswer {
                search: worm.search,
                target: worm.targets[usize::from(*target)],
                record: record.clone(),
            };
            let until_ms = now.after(u64::from(limits::WORM_PATIENCE_MS));
            let telling = Telling {
                answer,
                until_ms,
                asker,
            };
            self.waiting.insert(origin.node_id, telling);
            self.new.push(origin.clone());
        }
    }
}

/// Dials those who are to be told, and tells those who are there.
pub(super) fn tell(
    now: Res<Now>,
    mut direct: ResMut<DirectAnswers>,
    mut errands: ResMut<Errands>,
    mut partings: ResMut<Partings>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    let DirectAnswers { waiting, new } = &mut *direct;
    for origin in new.drain(..) {
        if knowledge.peer_by_node(&origin.node_id).is_none() {
            let errand = Errand {
                target: DialTarget::Addresses(vec![origin.address]),
                purpose: Purpose::Visit,
            };
            if !errands.want(origin.node_id, errand) {
                waiting.remove(&origin.node_id);
            }
            outbox.wake_at(now.mono_ms);
        }
    }
    waiting.retain(|node, telling| {
        let Telling {
            answer, until_ms, ..
        } = telling;
        let Some((link, peer)) = knowledge.peer_by_node(node) else {
            outbox.wake_at(*until_ms);
            return now.mono_ms < *until_ms;
        };
        outbox.send(link.id, &answer.clone().into());
        if peer.slot == Slot::Visit && link.dialled() {
            partings.from(link.id, GoodbyeReason::VisitOver);
        }
        false
    });
}

/// What others tell directly of own searches.
pub(super) fn take(
    mut arrivals: ResMut<Arrivals<WormAnswer>>,
    mut worms: ResMut<Worms>,
    mut offences: ResMut<Offences>,
    knowledge: Knowledge<'_, '_>,
) {
    for arrival in arrivals.take() {
        let WormAnswer {
            search,
            target,
            record,
        } = arrival.packet;
        let mut own = worms.worms.values_mut();
        let worm = own.find(|worm| worm.is_own() && worm.search == search);
        // One that comes after the end is nobody's fault.
        let told_by = knowledge.peer(arrival.link).map(|(link, _)| link.remote);
        let is_good = told_by.is_some_and(|by| is_tellable(&record, by, knowledge.now()));
        let Some(worm) = worm.filter(|_| is_good) else {
            continue;
        };
        let place = worm.targets.iter().position(|of| *of == target);
        let is_it = match target {
            WormTarget::Node(node) => record.node_id == node,
            WormTarget::Post(_) | WormTarget::Author(_) => true,
        };
        let Some(place) = place.filter(|_| is_it) else {
            offences.note(arrival.link, Refusal::NotWanted, "WormAnswer");
            continue;
        };
        worm.found[place].get_or_insert(WormFinding {
            target: place as u8,
            links: 1,
            record,
        });
        worm.due_ms = 0;
    }
}
