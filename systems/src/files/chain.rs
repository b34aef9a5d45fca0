//! PROTOCOL section 7, the file chain: who keeps an author has a few swarm links to others who do, and tells them within seconds that
//! something is new. A digest proves nothing: it allows one question to whoever sent it.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, Seq};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, Slot};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{AuthorUpdatePush, ListDigest, SwarmLink, SwarmWish};
use distsoc_engine::world::authors::{Author, AuthorIndex, AuthorsView, PullRequests, PullWish};
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::keepers::{Keepers, ListNews};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, PeerChanges, Peers};
use std::collections::{BTreeMap, BTreeSet};

/// Offers that were not answered are remembered so long, so that nobody is asked over and over.
const OFFER_MS: u64 = 10 * 60 * 1000;
/// Offers remembered, at most.
const OFFERS_MAX: usize = 4_096;
/// Links are looked for this often, at random, while an author has too few.
const SEEK_MS: u64 = 60_000;
/// Offers in one round to peers that are not known to keep the author.
const BLIND_OFFERS: usize = 8;
/// And to each of them for one author no more often than this.
const BLIND_OFFER_MS: u64 = limits::FOLLOW_PULL_MS;

/// What is to be told, and who was offered a link.
#[derive(Resource, Debug, Default)]
struct Chain {
    /// Author → who need not be told, having told.
    news: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// When: mono ms.
    due_ms: Option<u64>,
    /// Author and peer → until when no other offer is made: mono ms.
    offers: BTreeMap<(NodeId, NodeId), u64>,
    /// When links are looked for next: mono ms.
    seek_ms: u64,
}

impl Chain {
    /// Whether an offer may be made, which then is remembered.
    fn may_offer(&mut self, author: NodeId, peer: NodeId, again_ms: u64, now: Now) -> bool {
        if self.offers.len() >= OFFERS_MAX {
            self.offers.retain(|_, until_ms| *until_ms > now.mono_ms);
        }
        let is_known = self
            .offers
            .get(&(author, peer))
            .is_some_and(|until_ms| *until_ms > now.mono_ms);
        let may = !is_known && self.offers.len() < OFFERS_MAX;
        if may {
            self.offers.insert((author, peer), now.after(again_ms));
        }
        may
    }
}

/// Peers as the chain sees them.
#[derive(bevy_ecs::system::SystemParam)]
struct Neighbours<'w, 's> {
    peers: Res<'w, Peers>,
    up: Query<'w, 's, (&'static Link, &'static Peer)>,
}

impl Neighbours<'_, '_> {
    fn link_to(&self, node: &NodeId) -> Option<LinkId> {
        let (link, peer) = self.up.get(self.peers.by_node(node)?).ok()?;
        (peer.slot != Slot::Visit).then_some(link.id)
    }

    /// Everybody who is up in a slot.
    fn lasting(&self) -> Vec<(NodeId, LinkId)> {
        let nodes = self.peers.up().map(|(node, _)| node);
        nodes
            .filter_map(|node| Some((node, self.link_to(&node)?)))
            .collect()
    }

    fn behind(&self, link: LinkId) -> Option<NodeId> {
        let (link, peer) = self.up.get(self.peers.up_behind(link)?).ok()?;
        (peer.slot != Slot::Visit).then_some(link.node)
    }
}

fn take_links(
    mut arrivals: ResMut<Arrivals<SwarmLink>>,
    authors: AuthorsView,
    neighbours: Neighbours,
    mut keepers: ResMut<Keepers>,
    mut pulls: ResMut<PullRequests>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let Some(node) = neighbours.behind(arrival.link) else {
            offences.note(arrival.link, Refusal::NotWanted, "SwarmLink");
            continue;
        };
        let digest = arrival.packet.digest;
        let author = authors
            .get(&digest.author)
            .filter(|author| author.is_kept());
        let Some((author, head)) = author.and_then(|author| Some((author, author.head.as_ref()?)))
        else {
            if author.is_some() && arrival.packet.wish() != SwarmWish::End {
                // Nothing of the author is here yet, and the peer says to have something.
                keepers.saw(digest.author, node);
                pulls.wish_from(digest.author, PullWish::Newer, node);
            }
            // Whoever asks is told no more than that there is no place.
            if arrival.packet.wish() == SwarmWish::Offer {
                let end = SwarmLink::new(digest, SwarmWish::End);
                outbox.send(arrival.link, &end.into());
            }
            continue;
        };
        match arrival.packet.wish() {
            SwarmWish::End => keepers.unlink(&digest.author, &node),
            wish => {
                keepers.saw(digest.author, node);
                let has_place = keepers.link(digest.author, node);
                let answer = match (wish, has_place) {
                    (SwarmWish::Offer, true) => Some(SwarmWish::Accept),
                    (_, false) => Some(SwarmWish::End),
                    _ => None,
                };
                if let Some(answer) = answer {
                    let own = ListDigest::of(head);
                    outbox.send(arrival.link, &SwarmLink::new(own, answer).into());
                }
                if is_newer(author, &digest) {
                    pulls.wish_from(digest.author, PullWish::Newer, node);
                }
            }
        }
    }
}

/// Whether a digest is of a version that is not here.
fn is_newer(author: &Author, digest: &ListDigest) -> bool {
    let known = author.head.as_ref();
    known.is_none_or(|known| known.seq < Seq::from_u64(digest.seq))
}

fn take_pushes(
    mut arrivals: ResMut<Arrivals<AuthorUpdatePush>>,
    authors: AuthorsView,
    neighbours: Neighbours,
    mut keepers: ResMut<Keepers>,
    mut pulls: ResMut<PullRequests>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let Some(node) = neighbours.behind(arrival.link) else {
            offences.note(arrival.link, Refusal::NotWanted, "AuthorUpdatePush");
            continue;
        };
        for digest in arrival.packet.digests.iter() {
            let author = authors.get(&digest.author);
            match author.filter(|author| author.is_kept()) {
                Some(author) if is_newer(author, digest) => {
                    keepers.saw(digest.author, node);
                    pulls.wish_from(digest.author, PullWish::Newer, node);
                }
                Some(_) => keepers.saw(digest.author, node),
                None => offences.note(arrival.link, Refusal::NotKept, "AuthorUpdatePush"),
            }
        }
    }
}

fn tell(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    authors: AuthorsView,
    neighbours: Neighbours,
    mut news: ResMut<ListNews>,
    mut chain: ResMut<Chain>,
    mut keepers: ResMut<Keepers>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
) {
    for (node, _) in changes.went_down() {
        keepers.part(&node);
    }
    for (author, from) in std::mem::take(&mut news.0) {
        chain.news.entry(author).or_default().extend(from);
        look_for_links(
            &author,
            &authors,
            &neighbours,
            &keepers,
            &mut chain,
            *now,
            &mut outbox,
        );
    }
    if chain.news.is_empty() {
        return;
    }
    let due_ms = *chain
        .due_ms
        .get_or_insert_with(|| now.after(entropy.below(limits::CHAIN_DELAY_MS)));
    if now.mono_ms < due_ms {
        outbox.wake_at(due_ms);
        return;
    }
    chain.due_ms = None;
    let mut by_peer: BTreeMap<NodeId, Vec<ListDigest>> = BTreeMap::new();
    for (author, told) in std::mem::take(&mut chain.news) {
        let Some(head) = authors.get(&author).and_then(|author| author.head.as_ref()) else {
            continue;
        };
        // Once: whoever hears it tells it on.
        for node in keepers.links(&author) {
            if !told.contains(&node) && node != author {
                by_peer.entry(node).or_default().push(ListDigest::of(head));
            }
        }
    }
    for (node, digests) in by_peer {
        let Some(link) = neighbours.link_to(&node) else {
            continue;
        };
        for some in digests.chunks(limits::PUSH_AUTHORS_MAX) {
            let digests = Bounded::truncated(some.to_vec());
            outbox.send(link, &AuthorUpdatePush { digests }.into());
        }
    }
}

/// Offers links to connected nodes that are known to keep an author, while there are too few.
fn look_for_links(
    node: &NodeId,
    authors: &AuthorsView,
    neighbours: &Neighbours,
    keepers: &Keepers,
    chain: &mut Chain,
    now: Now,
    outbox: &mut Outbox,
) {
    let author = authors.get(node).filter(|author| author.is_kept());
    let Some(head) = author.and_then(|author| author.head.as_ref()) else {
        return;
    };
    let linked: BTreeSet<NodeId> = keepers.links(node).collect();
    let lacking = limits::SWARM_LINKS_WANTED.saturating_sub(linked.len());
    let seen: Vec<NodeId> = keepers.seen(node).collect();
    let candidates = seen.into_iter().filter(|keeper| !linked.contains(keeper));
    let reachable = candidates.filter_map(|keeper| Some((keeper, neighbours.link_to(&keeper)?)));
    for (keeper, link) in reachable.take(lacking) {
        if chain.may_offer(*node, keeper, OFFER_MS, now) {
            let offer = SwarmLink::new(ListDigest::of(head), SwarmWish::Offer);
            outbox.send(link, &offer.into());
        }
    }
}

/// Offers links to peers that may keep an author, as long as too few are known to: news come to nobody who has none, and whoever was asked
/// for the author's list may have as many as it takes.
fn seek(
    now: Res<Now>,
    index: Res<AuthorIndex>,
    authors: AuthorsView,
    neighbours: Neighbours,
    keepers: Res<Keepers>,
    mut chain: ResMut<Chain>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
) {
    if now.mono_ms < chain.seek_ms {
        return;
    }
    let has_few = |node: &NodeId| {
        let author = authors.get(node).filter(|author| author.is_kept());
        let is_known = author.is_some_and(|author| author.head.is_some());
        is_known && keepers.links(node).count() < limits::SWARM_LINKS_WANTED
    };
    let mut lacking: Vec<NodeId> = index.iter().map(|(node, _)| node).filter(has_few).collect();
    if lacking.is_empty() {
        chain.seek_ms = now.after(SEEK_MS);
        return;
    }
    chain.seek_ms = now.after(entropy.jittered(SEEK_MS));
    // Whoever comes up later is asked in a later round.
    outbox.wake_at(chain.seek_ms);
    entropy.shuffle(&mut lacking);
    let mut peers = neighbours.lasting();
    entropy.shuffle(&mut peers);
    let mut left = BLIND_OFFERS;
    for node in lacking {
        look_for_links(
            &node,
            &authors,
            &neighbours,
            &keepers,
            &mut chain,
            *now,
            &mut outbox,
        );
        let Some(head) = authors.get(&node).and_then(|author| author.head.as_ref()) else {
            continue;
        };
        let linked: BTreeSet<NodeId> = keepers.links(&node).collect();
        let wanted = limits::SWARM_LINKS_WANTED.saturating_sub(linked.len());
        let others = peers.iter();
        // The author tells everybody by itself.
        let others = others.filter(|(peer, _)| *peer != node && !linked.contains(peer));
        let mut offered = 0;
        for (peer, link) in others {
            if left == 0 || offered >= wanted {
                break;
            }
            if chain.may_offer(node, *peer, BLIND_OFFER_MS, *now) {
                let offer = SwarmLink::new(ListDigest::of(head), SwarmWish::Offer);
                outbox.send(*link, &offer.into());
                (left, offered) = (left - 1, offered + 1);
            }
        }
    }
}

/// News of authors from keeper to keeper.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Chain::default());
    frame.on(
        Occasions::packet(&SwarmLink::SPEC),
        Phase::Judge,
        take_links,
    );
    frame.on(
        Occasions::packet(&AuthorUpdatePush::SPEC),
        Phase::Judge,
        take_pushes,
    );
    frame.add(Phase::Plan, tell);
    frame.add(Phase::Plan, seek);
}
