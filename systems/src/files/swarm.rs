//! PROTOCOL section 7, swarm links: who keeps an author agrees with a few others who do to tell each other what is new. They are found
//! among those from whom something of the author came, by what these say of others, and by worms. Whoever is no peer is called.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId, RecentPostsHead};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, Slot};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{AT_ONCE, Glance, Occasions, Phase};
use distsoc_engine::wire::{ListDigest, SwarmLink, SwarmWish};
use distsoc_engine::world::agenda::Agenda;
use distsoc_engine::world::authors::{AuthorIndex, KeptLists, ListHints, OwnHead};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::keepers::{Keepers, Lack, ListNews, Starving, SwarmCalls};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::pace::Pace;
use distsoc_engine::world::peers::{
    Link, Neighbours, Offences, Peer, PeerChanges, Peers, is_tellable, peers_changed,
    tellable_record,
};
use std::collections::BTreeMap;

/// Nobody is offered a link for the same author again before this.
const OFFER_MS: u64 = 10 * 60 * 1000;
/// And no peer that is not known to keep the author before this.
const BLIND_OFFER_MS: u64 = limits::FOLLOW_PULL_MS;
/// Offers remembered, at most.
const OFFERS_MAX: usize = 4_096;

/// When links are looked for, and who was offered one.
#[derive(Resource, Debug, Default)]
struct Looking {
    due: Agenda,
    pace: Pace,
    /// Author → times in a row that nobody was left to be offered one.
    fruitless: BTreeMap<NodeId, u32>,
    /// Author and node → until when no other offer is made: mono ms.
    offers: BTreeMap<(NodeId, NodeId), u64>,
}

impl Looking {
    /// Whether an offer may be made, which then is remembered.
    fn may_offer(&mut self, author: NodeId, node: NodeId, again_ms: u64, now: Now) -> bool {
        if self.offers.len() >= OFFERS_MAX {
            self.offers.retain(|_, until_ms| *until_ms > now.mono_ms);
        }
        let known = self.offers.get(&(author, node));
        let may =
            known.is_none_or(|until_ms| *until_ms <= now.mono_ms) && self.offers.len() < OFFERS_MAX;
        if may {
            self.offers.insert((author, node), now.after(again_ms));
        }
        may
    }

    /// Whether a node was offered a link for an author of late.
    fn has_offered(&self, author: NodeId, node: NodeId, now: Now) -> bool {
        let known = self.offers.get(&(author, node));
        known.is_some_and(|until_ms| *until_ms > now.mono_ms)
    }

    /// The author whose links are looked for now; else when that is, if at all: mono ms.
    fn next(&self, now: Now) -> Result<NodeId, Option<u64>> {
        let (at_ms, author) = self.due.first().ok_or(None)?;
        let may_ms = self.pace.next_ms(
            now.mono_ms,
            limits::SWARM_LOOK_EVERY_MS,
            limits::SWARM_LOOKS_AT_ONCE,
        );
        let at_ms = at_ms.max(may_ms.unwrap_or_default());
        match at_ms > now.mono_ms {
            true => Err(Some(at_ms)),
            false => Ok(author),
        }
    }

    /// Links of an author were looked for, of which there are enough or not: how long until the next look.
    fn looked(&mut self, author: NodeId, is_linked: bool) -> u64 {
        if is_linked {
            self.fruitless.remove(&author);
            return limits::SWARM_LOOK_MS_MAX;
        }
        let fruitless = self.fruitless.entry(author).or_default();
        *fruitless += 1;
        let pause_ms = limits::SWARM_LOOK_MS.saturating_mul(1 << (*fruitless).min(16));
        pause_ms.min(limits::SWARM_LOOK_MS_MAX)
    }
}

/// Others who keep an author, for somebody who is told of them: first who brought the newest list, then any.
fn others(
    author: &NodeId,
    asker: &Link,
    now: Now,
    keepers: &Keepers,
    neighbours: &Neighbours,
    entropy: &mut Entropy,
) -> Vec<AddressRecord> {
    let mut linked: Vec<NodeId> = keepers.links(author).collect();
    entropy.shuffle(&mut linked);
    let next_hop = keepers.seen(author).next();
    let mut records: Vec<AddressRecord> = Vec::new();
    for node in next_hop.into_iter().chain(linked) {
        let is_told = records.iter().any(|record| record.node_id == node);
        if node == asker.node || is_told {
            continue;
        }
        let record = match neighbours.by_node(&node) {
            Some((link, peer)) => tellable_record(link, peer, asker.remote, now),
            None => {
                let known = keepers.place(&node);
                known
                    .filter(|record| is_tellable(record, asker.remote, now))
                    .cloned()
            }
        };
        records.extend(record);
        if records.len() == limits::SWARM_REFERRALS_MAX {
            break;
        }
    }
    records
}

/// Somebody names a keeper of an author: gives back whether it is to be offered a link.
fn hear_of(
    author: NodeId,
    record: AddressRecord,
    now: Now,
    keepers: &mut Keepers,
    looking: &mut Looking,
) -> bool {
    let other = record.node_id;
    keepers.learn_place(record);
    keepers.heard_of(author, other);
    let lacks = keepers.links(&author).count() < limits::SWARM_LINKS_WANTED;
    let is_new = keepers.links(&author).all(|linked| linked != other);
    lacks && is_new && looking.may_offer(author, other, OFFER_MS, now)
}

/// Where the sender can be called, if it can: else a link to it ends with the connection.
fn note_place(link: &Link, peer: &Peer, now: Now, keepers: &mut Keepers) {
    if let Some(record) = tellable_record(link, peer, link.remote, now) {
        keepers.learn_place(record);
    }
}

fn take_links(
    now: Res<Now>,
    identity: Res<Identity>,
    mut arrivals: ResMut<Arrivals<SwarmLink>>,
    lists: KeptLists,
    neighbours: Neighbours,
    mut keepers: ResMut<Keepers>,
    mut looking: ResMut<Looking>,
    mut calls: ResMut<SwarmCalls>,
    mut hints: ListHints,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let Some((link, peer)) = neighbours.behind(arrival.link) else {
            continue;
        };
        let (node, packet) = (link.node, arrival.packet);
        let author = packet.digest.author;
        let Some(head) = lists.head(&author) else {
            if lists.keeps(&author) && packet.wish() != SwarmWish::End {
                // Nothing of the author is here yet, and the peer says to have something.
                keepers.saw(author, node);
                hints.hear(
                    author,
                    lists.author(&author),
                    packet.digest.seq,
                    (link.id, node),
                );
            }
            // Whoever asks is told no more than that there is no place.
            if packet.wish() == SwarmWish::Offer {
                let end = SwarmLink::new(packet.digest, SwarmWish::End);
                outbox.send(link.id, &end.into());
            }
            continue;
        };
        note_place(link, peer, *now, &mut keepers);
        let may_be_told = peer.slot != Slot::Visit || keepers.place(&node).is_some();
        let wish = packet.wish();
        // Whoever was neither asked nor has a link is not heard on others.
        let may_refer = looking.has_offered(author, node, *now)
            || keepers.links(&author).any(|linked| linked == node);
        match wish {
            // Whoever was neither asked nor has a link makes nobody look for others.
            SwarmWish::End if !may_refer => {}
            SwarmWish::End => {
                keepers.unlink(&author, &node);
                let soon_ms = entropy.jittered(limits::SWARM_LOOK_MS);
                looking.due.at(author, now.after(soon_ms));
            }
            SwarmWish::Offer | SwarmWish::Accept => {
                keepers.saw(author, node);
                let has_place = match wish {
                    SwarmWish::Offer if may_be_told => {
                        if let Some(displaced) =
                            keepers.link_in_turn(author, node, link.remote.ip())
                        {
                            calls.end(displaced, author, node);
                        }
                        true
                    }
                    _ => may_be_told && keepers.link(author, node, link.remote.ip()),
                };
                let answer = match (wish, has_place) {
                    (SwarmWish::Offer, true) => Some(SwarmWish::Accept),
                    (_, false) => Some(SwarmWish::End),
                    _ => None,
                };
                if let Some(answer) = answer {
                    let told = others(&author, link, *now, &keepers, &neighbours, &mut entropy);
                    let answer = SwarmLink::new(ListDigest::of(head), answer);
                    outbox.send(link.id, &answer.naming(told).into());
                }
            }
        }
        hints.hear(
            author,
            lists.author(&author),
            packet.digest.seq,
            (link.id, node),
        );
        let named = packet.others.into_vec().into_iter();
        for record in named.filter(|_| may_refer) {
            let other = record.node_id;
            if other == identity.node_id() {
                continue;
            }
            if !is_tellable(&record, link.remote, *now) {
                offences.note(link.id, Refusal::NotWanted, "SwarmLink");
                continue;
            }
            if hear_of(author, record, *now, &mut keepers, &mut looking) {
                calls.offer(other, author);
            }
        }
    }
}

/// Offers links for an author to whoever is known to keep them, while there are too few; false where nobody is left.
fn offer(
    head: &RecentPostsHead,
    now: Now,
    neighbours: &Neighbours,
    keepers: &Keepers,
    looking: &mut Looking,
    calls: &mut SwarmCalls,
    outbox: &mut Outbox,
) -> bool {
    let author = head.author;
    let linked: Vec<NodeId> = keepers.links(&author).collect();
    let mut lacking = limits::SWARM_LINKS_WANTED.saturating_sub(linked.len());
    let mut is_known = lacking == 0;
    for node in keepers.seen(&author) {
        if lacking == 0 {
            break;
        }
        let neighbour = neighbours.by_node(&node);
        let there = match neighbour {
            Some((link, _)) => Some(link.remote.ip()),
            None => keepers
                .place(&node)
                .and_then(|record| Some(record.addresses.first()?.socket().ip())),
        };
        let is_of_use = there.is_some_and(|there| !keepers.is_crowded(&author, there));
        if linked.contains(&node) || !is_of_use || !looking.may_offer(author, node, OFFER_MS, now) {
            continue;
        }
        match neighbour {
            Some((link, _)) => {
                let offer = SwarmLink::new(ListDigest::of(head), SwarmWish::Offer);
                outbox.send(link.id, &offer.into());
            }
            None => calls.offer(node, author),
        }
        lacking -= 1;
        is_known = true;
    }
    is_known
}

/// Offers links to peers that may keep an author; false where all were asked of late.
fn offer_blindly(
    head: &RecentPostsHead,
    peers: &[(NodeId, LinkId)],
    now: Now,
    keepers: &Keepers,
    looking: &mut Looking,
    outbox: &mut Outbox,
) -> bool {
    let author = head.author;
    let linked: Vec<NodeId> = keepers.links(&author).collect();
    let mut lacking = limits::SWARM_LINKS_WANTED.saturating_sub(linked.len());
    let mut is_offered = false;
    for (node, link) in peers {
        // The author tells everybody by itself.
        let is_other = *node != author && !linked.contains(node);
        if lacking == 0 {
            break;
        }
        if is_other && looking.may_offer(author, *node, BLIND_OFFER_MS, now) {
            let offer = SwarmLink::new(ListDigest::of(head), SwarmWish::Offer);
            outbox.send(*link, &offer.into());
            lacking -= 1;
            is_offered = true;
        }
    }
    is_offered
}

fn look_due(glance: &Glance<'_>) -> Option<u64> {
    let has_news = !glance.at::<ListNews>().0.is_empty();
    if has_news || !glance.at::<Keepers>().bereft.is_empty() || peers_changed(glance).is_some() {
        return Some(AT_ONCE);
    }
    match glance.at::<Looking>().next(*glance.at::<Now>()) {
        Ok(_) => Some(AT_ONCE),
        Err(at_ms) => at_ms,
    }
}

fn look(
    now: Res<Now>,
    news: Res<ListNews>,
    changes: Res<PeerChanges>,
    peers: Res<Peers>,
    identity: Res<Identity>,
    lists: KeptLists,
    neighbours: Neighbours,
    mut keepers: ResMut<Keepers>,
    mut looking: ResMut<Looking>,
    mut calls: ResMut<SwarmCalls>,
    mut starving: ResMut<Starving>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
) {
    for (node, _) in changes.went_down() {
        keepers.part(&node);
    }
    for (author, _) in &news.0 {
        if keepers.links(author).count() < limits::SWARM_LINKS_WANTED {
            looking.due.at(*author, now.mono_ms);
        }
    }
    for author in std::mem::take(&mut keepers.bereft) {
        looking
            .due
            .at(author, now.after(entropy.jittered(limits::SWARM_LOOK_MS)));
    }
    let first = match looking.next(*now) {
        Ok(author) => author,
        Err(at_ms) => {
            at_ms.into_iter().for_each(|at_ms| outbox.wake_at(at_ms));
            return;
        }
    };
    let lasting = peers.up().filter_map(|(node, _)| {
        let (link, peer) = neighbours.by_node(&node)?;
        (peer.slot != Slot::Visit).then_some((node, link.id))
    });
    let mut lasting: Vec<(NodeId, LinkId)> = lasting.collect();
    entropy.shuffle(&mut lasting);
    let mut next = Ok(first);
    while let Ok(author) = next {
        // Not all at once, or whoever keeps hundreds would be charged by those it offers links to.
        looking.pace.spend(now.mono_ms, limits::SWARM_LOOK_EVERY_MS);
        looking.due.remove(&author);
        if let Some(head) = lists.head(&author) {
            let is_known = offer(
                head,
                *now,
                &neighbours,
                &keepers,
                &mut looking,
                &mut calls,
                &mut outbox,
            );
            let is_known = is_known
                || offer_blindly(head, &lasting, *now, &keepers, &mut looking, &mut outbox);
            if !is_known && author != identity.node_id() && !lasting.is_empty() {
                starving.note(author, Lack::Links);
            }
            let is_linked = keepers.links(&author).count() >= limits::SWARM_LINKS_WANTED;
            let pause_ms = looking.looked(author, is_linked);
            let at_ms = now.after(entropy.jittered(pause_ms));
            looking.due.set(author, at_ms);
        } else {
            looking.fruitless.remove(&author);
        }
        next = looking.next(*now);
    }
    if let Err(Some(at_ms)) = next {
        outbox.wake_at(at_ms);
    }
}

/// Links between those who keep an author.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let kept = frame.world.resource::<AuthorIndex>().iter();
    let own = frame.world.resource::<OwnHead>().0.as_ref();
    let own = own.map(|head| head.author);
    let kept: Vec<NodeId> = kept.map(|(node, _)| node).chain(own).collect();
    let mut looking = Looking::default();
    let mut entropy = frame.world.resource_mut::<Entropy>();
    for node in kept {
        looking.due.at(node, entropy.below(limits::SWARM_LOOK_MS));
    }
    frame.world.insert_resource(looking);
    frame.on(
        Occasions::packet(&SwarmLink::SPEC),
        Phase::Judge,
        take_links,
    );
    frame.due(look_due, Phase::Plan, look);
}
