//! What a node leaves with anchors, and asks them for.

use super::keeping::Directory;
use super::{AnchorBook, record_in};
use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{DialTarget, RequestId};
use distsoc_engine::limits;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase, at_once_if};
use distsoc_engine::wire::{DirectoryGet, DirectoryPut, Packet, Purpose, WormTarget};
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{PeerChanges, peers_changed};
use distsoc_engine::world::searches::{
    DirectorySearches, Ended, Errand, Errands, Finding, SearchId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Once an anchor has answered, the others have this long to know a newer record.
const NEWER_MS: u64 = 500;
/// Records are first left this long after the start: by then other nodes have said what they see.
const FIRST_PUT_MS: u64 = 20_000;

/// The anchors that are to have this node's record, and what is asked of anchors.
#[derive(Resource, Debug, Default)]
struct Asking {
    next_put_ms: Option<u64>,
    /// The newest record that was left with anybody.
    left_seq: Option<u64>,
    /// Rounds in a row in which none was left.
    fruitless: u32,
    /// Dialled for leaving the record.
    putting: BTreeSet<NodeId>,
    searches: Vec<Asked>,
    requests: BTreeMap<RequestId, SearchId>,
}

impl Asking {
    /// Whether there is a newer record than any that was left.
    fn is_outdated(&self, knowledge: &Knowledge<'_, '_>) -> bool {
        knowledge.own_record_seq() > self.left_seq
    }
}

/// A question of anchors under way.
#[derive(Debug)]
struct Asked {
    id: SearchId,
    target: NodeId,
    until_ms: u64,
    /// Dialled for this.
    dialled: BTreeSet<NodeId>,
    open: usize,
    best: Option<AddressRecord>,
}

/// Leaves the own record with its anchors, every six hours.
fn leave_own(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    book: AnchorBook<'_>,
    mut asking: ResMut<Asking>,
    mut errands: ResMut<Errands>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    for (node, _, _) in changes.came_up() {
        if asking.putting.remove(&node) {
            let left = put(&node, &knowledge, &mut outbox);
            asking.left_seq = asking.left_seq.max(left);
        }
    }
    let mut soon_ms = || now.after(entropy.jittered(FIRST_PUT_MS));
    let mut next_ms = *asking.next_put_ms.get_or_insert_with(&mut soon_ms);
    if knowledge.own_addresses_changed() && asking.is_outdated(&knowledge) {
        // What the anchors have says where one is no longer.
        next_ms = next_ms.min(soon_ms());
        asking.next_put_ms = Some(next_ms);
    }
    if next_ms > now.mono_ms {
        outbox.wake_at(next_ms);
        return;
    }
    asking.putting.clear();
    let own = knowledge.own();
    for anchor in book.for_target(&own, own, &mut entropy) {
        if knowledge.peer_by_node(&anchor.node).is_some() {
            let left = put(&anchor.node, &knowledge, &mut outbox);
            asking.left_seq = asking.left_seq.max(left);
        } else if errands.want(anchor.node, visit(anchor.target)) {
            asking.putting.insert(anchor.node);
        }
    }
    // Where there is no record yet, or nobody to leave it with, there may be soon; ever more rarely, since anchors may be none.
    let pause_ms = match asking.left_seq {
        Some(_) if !asking.is_outdated(&knowledge) => limits::DIRECTORY_REFRESH_MS,
        _ => {
            asking.fruitless += 1;
            (FIRST_PUT_MS << asking.fruitless.min(16)).min(limits::DIRECTORY_REFRESH_MS)
        }
    };
    let again_ms = now.after(entropy.jittered(pause_ms));
    asking.next_put_ms = Some(again_ms);
    outbox.wake_at(again_ms);
}

fn visit(target: DialTarget) -> Errand {
    Errand {
        target,
        purpose: Purpose::Visit,
    }
}

/// Leaves the own record with an anchor that is up; its seq, where there is one to leave.
fn put(anchor: &NodeId, knowledge: &Knowledge<'_, '_>, outbox: &mut Outbox) -> Option<u64> {
    let up = knowledge.peer_by_node(anchor);
    let (link, _) = up.filter(|(_, peer)| peer.is_anchor())?;
    let record = knowledge.own_record(link.remote)?.clone();
    let seq = record.seq;
    outbox.send(link.id, &DirectoryPut { record }.into());
    Some(seq)
}

fn ask(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    book: AnchorBook<'_>,
    directory: Res<Directory>,
    mut directory_searches: ResMut<DirectorySearches>,
    mut asking: ResMut<Asking>,
    mut errands: ResMut<Errands>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    if directory_searches.has_ended() {
        directory_searches.drop_ended();
    }
    let Asking {
        searches, requests, ..
    } = &mut *asking;
    for (id, target) in directory_searches.take_wanted() {
        let mut asked = Asked {
            id,
            target,
            until_ms: now.after(limits::ASK_ANCHORS_MS_MAX),
            dialled: BTreeSet::new(),
            open: 0,
            best: directory
                .get(&target)
                .filter(|record| record.is_current(*now))
                .cloned(),
        };
        for anchor in book.for_target(&target, knowledge.own(), &mut entropy) {
            if knowledge.peer_by_node(&anchor.node).is_some() {
                get(&mut asked, &anchor.node, requests, &knowledge, &mut outbox);
            } else if errands.want(anchor.node, visit(anchor.target)) {
                asked.dialled.insert(anchor.node);
            }
        }
        searches.push(asked);
    }
    for (node, _, _) in changes.came_up() {
        for asked in searches.iter_mut() {
            if asked.dialled.remove(&node) {
                get(asked, &node, requests, &knowledge, &mut outbox);
            }
        }
    }
    searches.retain_mut(|asked| {
        let is_over = asked.open == 0 && asked.dialled.is_empty() || now.mono_ms >= asked.until_ms;
        if is_over {
            let found = asked.best.take().map(|record| Finding {
                target: WormTarget::Node(asked.target),
                jumps: 1,
                record,
            });
            directory_searches.end(Ended {
                id: asked.id,
                found: found.into_iter().collect(),
                near: Vec::new(),
            });
            outbox.wake_at(now.mono_ms);
        } else {
            outbox.wake_at(asked.until_ms);
        }
        !is_over
    });
}

fn get(
    asked: &mut Asked,
    anchor: &NodeId,
    requests: &mut BTreeMap<RequestId, SearchId>,
    knowledge: &Knowledge<'_, '_>,
    outbox: &mut Outbox,
) {
    let Some((link, _)) = knowledge.peer_by_node(anchor) else {
        return;
    };
    let packet = Packet::from(DirectoryGet {
        target: asked.target,
        passes: DirectoryGet::PASSES_MAX,
    });
    let bytes = packet.encode();
    let request = outbox.request_within(link.id, bytes, limits::ASK_ANCHORS_MS_MAX);
    requests.insert(request, asked.id);
    asked.open += 1;
}

fn take_answers(now: Res<Now>, mut inbox: ResMut<Inbox>, mut asking: ResMut<Asking>) {
    let Asking {
        searches, requests, ..
    } = &mut *asking;
    for (id, result) in inbox.take_responses(|request| requests.remove(&request)) {
        let Some(asked) = searches.iter_mut().find(|asked| asked.id == id) else {
            continue;
        };
        asked.open -= 1;
        if let Some(record) = record_in(result)
            && record.node_id == asked.target
            && record.is_current(*now)
            && asked
                .best
                .as_ref()
                .is_none_or(|best| record.supersedes(best).is_ok())
        {
            asked.best = Some(record);
            asked.until_ms = asked.until_ms.min(now.after(NEWER_MS));
        }
    }
}

/// What every node does.
pub(super) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Asking::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.due(
        |glance| {
            let is_changed =
                peers_changed(glance).is_some() || glance.has_changed::<OwnAddresses>();
            match glance.at::<Asking>().next_put_ms {
                Some(next_ms) if !is_changed => Some(next_ms),
                _ => Some(AT_ONCE),
            }
        },
        Phase::Plan,
        leave_own,
    );
    frame.due(
        |glance| {
            let searches = glance.at::<DirectorySearches>();
            let is_asking = !glance.at::<Asking>().searches.is_empty();
            at_once_if(is_asking || searches.has_ended() || searches.has_wanted())
        },
        Phase::Plan,
        ask,
    );
}
