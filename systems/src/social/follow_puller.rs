//! PROTOCOL section 8, follow pull: what followed authors did since, from the author where a connection stands, else from
//! whoever of the peers keeps them. A follow alone never dials for this.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, PostId, Profile};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestId};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Packet, PullSyncRequest, PullSyncResponse, Want};
use distsoc_engine::world::authors::{
    Author, AuthorIndex, AuthorsView, KeptProfiles, ListUpdate, ListUpdates, PullRequests,
    PullWish, PulledPosts, PullsDue,
};
use distsoc_engine::world::deletions::DeletionOffers;
use distsoc_engine::world::files::Wanted;
use distsoc_engine::world::hearts::HeartOffers;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keepers::{Keepers, Starving};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, PeerChanges, Peers};
use distsoc_engine::world::storage::Storage;
use std::collections::{BTreeMap, BTreeSet};

/// Pulls to one peer under way at once; its own limit is 4.
const PER_PEER_MAX: usize = 2;

/// A request under way.
#[derive(Debug)]
struct Pull {
    peer: NodeId,
    link: LinkId,
    authors: Vec<NodeId>,
    posts: Vec<PostId>,
}

/// Requests under way, and whom each author was asked of in this round.
#[derive(Resource, Debug, Default)]
struct Pulls {
    under_way: BTreeMap<RequestId, Pull>,
    tried: BTreeMap<NodeId, Vec<NodeId>>,
    /// Authors whose whole list is wanted.
    whole: BTreeSet<NodeId>,
    /// Authors to ask for, however fresh their list seems: they were away, or we were.
    suspect: BTreeSet<NodeId>,
    /// Who says to have something new of an author.
    hints: BTreeMap<NodeId, NodeId>,
    /// Rounds in which nobody had what is missing of an author.
    fruitless: BTreeMap<NodeId, u32>,
}

impl Pulls {
    fn is_asking(&self, author: &NodeId) -> bool {
        self.under_way
            .values()
            .any(|pull| pull.authors.contains(author))
    }

    fn asked_of(&self, peer: &NodeId) -> usize {
        self.under_way
            .values()
            .filter(|pull| pull.peer == *peer)
            .count()
    }
}

/// Whom to ask: whoever says to have news, the author if connected, those known to keep them, else the first of the shuffled peers
/// not tried yet.
fn choose_source(
    author: &NodeId,
    peers: &[NodeId],
    tried: &[NodeId],
    known: impl Iterator<Item = NodeId>,
) -> Option<NodeId> {
    let untried = |peer: &&NodeId| !tried.contains(peer);
    let mut known = known.filter(|node| peers.contains(node) && !tried.contains(node));
    if let Some(known) = known.next() {
        return Some(known);
    }
    let own = peers.iter().find(|peer| *peer == author).filter(untried);
    if own.is_none() && tried.len() >= limits::PULL_PEERS_PER_ROUND_MAX {
        return None;
    }
    own.or_else(|| peers.iter().find(untried)).copied()
}

/// The pause after so many rounds in which nobody had it: doubling up to the pull cycle.
fn retry_pause_ms(fruitless: u32) -> u64 {
    limits::FOLLOW_PULL_RETRY_MS
        .saturating_mul(1 << fruitless.min(20))
        .min(limits::FOLLOW_PULL_MS)
}

/// Events that make an author due: a follow, the author or anybody new coming up while something is missing, a list
/// that did not fit.
fn note_reasons(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    index: Res<AuthorIndex>,
    mut requests: ResMut<PullRequests>,
    mut pulls: ResMut<Pulls>,
    mut due: ResMut<PullsDue>,
    links: Query<&Link>,
    changed: Query<&Author, Changed<Author>>,
    authors: Query<&Author>,
    storage: Res<Storage>,
    mut was_troubled: Local<bool>,
) {
    for (author, peer) in requests.take_sources() {
        // Whoever says to have something new is asked first.
        pulls.hints.insert(author, peer);
    }
    for (author, wish) in requests.take() {
        match wish {
            PullWish::Newer => {
                pulls.suspect.insert(author);
                pulls.tried.remove(&author);
            }
            PullWish::Whole { not_from } => {
                pulls.whole.insert(author);
                let liar = not_from
                    .and_then(|link| links.iter().find(|other| other.id == link))
                    .map(|link| link.node);
                pulls.tried.entry(author).or_default().extend(liar);
            }
        }
        due.0.at(author, now.mono_ms);
    }
    // What was refused while the disk took nothing is asked for again.
    let troubled = !storage.takes_more();
    if std::mem::replace(&mut *was_troubled, troubled) && !troubled {
        for author in authors.iter().filter(|author| author.is_kept()) {
            pulls.suspect.insert(author.node);
            due.0.at(author.node, now.mono_ms);
        }
    }
    for author in &changed {
        if author.is_kept() && author.checked_at_ms == 0 && !pulls.is_asking(&author.node) {
            due.0.at(author.node, now.mono_ms);
        } else if !author.is_kept() {
            due.0.remove(&author.node);
        }
    }
    for (node, _, _) in changes.came_up() {
        let author = index.get(&node).and_then(|entity| authors.get(entity).ok());
        if author.is_some_and(Author::is_kept) {
            pulls.tried.remove(&node);
            pulls.suspect.insert(node);
            due.0.at(node, now.mono_ms);
        }
    }
    if changes.came_up().next().is_some() {
        for author in authors.iter().filter(|author| author.is_kept()) {
            let starving = author.head.is_none() || !author.missing.is_empty();
            let tried = pulls.tried.get(&author.node).map_or(0, Vec::len);
            if starving
                && tried < limits::PULL_PEERS_PER_ROUND_MAX
                && !pulls.is_asking(&author.node)
            {
                due.0.at(author.node, now.mono_ms);
            }
        }
    }
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut pulls: ResMut<Pulls>,
    mut due: ResMut<PullsDue>,
    mut updates: ResMut<ListUpdates>,
    mut pulled: ResMut<PulledPosts>,
    mut hearts: ResMut<HeartOffers>,
    mut deletions: ResMut<DeletionOffers>,
    mut profiles: ResMut<KeptProfiles>,
    authors: AuthorsView,
    mut outbox: ResMut<Outbox>,
    peers: Res<Peers>,
    mut up: Query<(&Link, &mut Peer)>,
) {
    let under_way = &mut pulls.under_way;
    let ends = inbox.take_responses(|request| under_way.remove(&request));
    for (pull, result) in ends {
        let response = match result {
            Ok(Packet::PullSyncResponse(response)) => Some(response),
            _ => None,
        };
        let mut moved = false;
        if let Some((link, mut peer)) = peers
            .by_node(&pull.peer)
            .and_then(|entity| up.get_mut(entity).ok())
        {
            if response.is_some() {
                peer.synced_ms = Some(now.mono_ms);
                peer.heard_ms = now.mono_ms;
            } else {
                // The connection was replaced by another under the request: the same peer is asked again.
                moved = link.id != pull.link;
            }
        }
        let (with_list, with_posts) = sort_response(
            &pull,
            response,
            &mut updates,
            &mut pulled,
            &mut hearts,
            &mut deletions,
            |profile| {
                let author = authors.get(&profile.author);
                if author.is_some_and(Author::is_kept) {
                    // Whoever holds a list has the profile of then: an older one is no fault.
                    let _ = profiles.keep(profile, *now, &mut outbox);
                }
            },
        );
        for author in &pull.authors {
            if with_list.contains(author) {
                pulls.whole.remove(author);
                pulls.suspect.remove(author);
            }
            if moved {
                due.0.set(*author, now.mono_ms);
                continue;
            }
            if !with_list.contains(author) || (!with_posts && !pull.posts.is_empty()) {
                // Not here: somebody else is asked.
                pulls.tried.entry(*author).or_default().push(pull.peer);
            }
            due.0.set(*author, now.mono_ms);
        }
    }
}

/// Hands a response to the features that judge it; says which lists came, and whether any post did.
fn sort_response(
    pull: &Pull,
    response: Option<PullSyncResponse>,
    updates: &mut ListUpdates,
    pulled: &mut PulledPosts,
    hearts: &mut HeartOffers,
    deletions: &mut DeletionOffers,
    mut keep: impl FnMut(Profile),
) -> (BTreeSet<NodeId>, bool) {
    let mut with_list = BTreeSet::new();
    let Some(response) = response else {
        return (with_list, false);
    };
    for part in response.lists.into_vec() {
        let author = part.head.author;
        if !pull.authors.contains(&author) || !with_list.insert(author) {
            continue;
        }
        if let Some(profile) = part.profile {
            keep(profile);
        }
        updates.0.push(ListUpdate {
            from: pull.link,
            head: part.head,
            newest: part.newest,
        });
    }
    let mut came = !response.deletions.is_empty();
    deletions.0.extend(response.deletions.into_vec());
    let liked = response.hearts.into_vec().into_iter();
    hearts.0.extend(liked.map(|heart| (pull.link, heart)));
    for post in response.posts.into_vec() {
        came = true;
        pulled.0.push((pull.link, post));
    }
    (with_list, came)
}

fn pull(
    now: Res<Now>,
    storage: Res<Storage>,
    peers: Res<Peers>,
    index: Res<AuthorIndex>,
    wanted: Res<Wanted>,
    keepers: Res<Keepers>,
    mut starving: ResMut<Starving>,
    mut pulls: ResMut<Pulls>,
    mut due: ResMut<PullsDue>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    links: Query<&Link, With<Peer>>,
    authors: Query<&Author>,
) {
    let Some((first_ms, _)) = due.0.first() else {
        return;
    };
    if first_ms > now.mono_ms {
        outbox.wake_at(first_ms);
        return;
    }
    let mut shuffled: Vec<NodeId> = peers.up().map(|(node, _)| node).collect();
    entropy.shuffle(&mut shuffled);
    let mut batches: BTreeMap<NodeId, (Vec<Want>, Vec<PostId>)> = BTreeMap::new();
    for node in due.0.take_due(now.mono_ms) {
        let Some(author) = index.get(&node).and_then(|entity| authors.get(entity).ok()) else {
            continue;
        };
        if !author.is_kept() || pulls.is_asking(&node) {
            continue;
        }
        let doubted = pulls.whole.contains(&node) || pulls.suspect.contains(&node);
        let satisfied = is_fresh(author, *now) && author.missing.is_empty() && !doubted;
        let room = |peer: &NodeId| {
            let authors_in_batch = batches.get(peer).map_or(0, |(wants, _)| wants.len());
            authors_in_batch < limits::PULL_AUTHORS_MAX && pulls.asked_of(peer) < PER_PEER_MAX
        };
        let askable: Vec<NodeId> = shuffled.iter().copied().filter(room).collect();
        let source = match satisfied {
            true => None,
            false if !storage.takes_more() => None,
            false if pulls.under_way.len() + batches.len() >= limits::PULLS_IN_FLIGHT_MAX => None,
            false => {
                let hint = pulls.hints.remove(&node).into_iter();
                let known = hint.chain([node]).chain(keepers.seen(&node));
                let tried = pulls.tried.get(&node).map_or(&[][..], Vec::as_slice);
                choose_source(&node, &askable, tried, known)
            }
        };
        match source {
            Some(source) => {
                let seq = match (&author.head, pulls.whole.contains(&node)) {
                    (Some(head), false) => head.seq.to_u64(),
                    _ => 0,
                };
                let (wants, posts) = batches.entry(source).or_default();
                wants.push(Want { author: node, seq });
                let room = limits::PULL_POSTS_MAX - posts.len();
                posts.extend(
                    author
                        .missing
                        .iter()
                        .filter(|id| wanted.author_of(id).is_some())
                        .take(room),
                );
            }
            None => {
                let tried = pulls.tried.get(&node);
                let nobody_left = !satisfied && tried.is_some_and(|tried| !tried.is_empty());
                pulls.tried.remove(&node);
                let pause_ms = if satisfied {
                    pulls.fruitless.remove(&node);
                    limits::FOLLOW_PULL_MS
                } else {
                    let rounds = pulls.fruitless.entry(node).or_default();
                    *rounds += u32::from(nobody_left);
                    if *rounds >= limits::FRUITLESS_ROUNDS_BEFORE_WORM && nobody_left {
                        starving.note(node);
                    }
                    retry_pause_ms(rounds.saturating_sub(1))
                };
                due.0.set(node, now.after(entropy.jittered(pause_ms)));
            }
        }
    }
    for (peer, (wants, posts)) in batches {
        let Some(link) = peers
            .by_node(&peer)
            .and_then(|entity| links.get(entity).ok())
        else {
            continue;
        };
        let asked: Vec<NodeId> = wants.iter().map(|want| want.author).collect();
        let request = PullSyncRequest {
            authors: Bounded::truncated(wants),
            posts: Bounded::truncated(posts.clone()),
        };
        let id = outbox.request(link.id, &request.into());
        let pull = Pull {
            peer,
            link: link.id,
            authors: asked,
            posts,
        };
        pulls.under_way.insert(id, pull);
    }
    if let Some((first_ms, _)) = due.0.first() {
        outbox.wake_at(first_ms);
    }
}

/// Confirmed newest within the pull cycle.
fn is_fresh(author: &Author, now: Now) -> bool {
    author.checked_at_ms != 0 && now.wall_ms < author.checked_at_ms + limits::FOLLOW_PULL_MS * 3 / 4
}

/// Pulls what followed authors did.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Pulls::default());
    let kept: Vec<NodeId> = frame
        .world
        .resource::<AuthorIndex>()
        .iter()
        .map(|(node, _)| node)
        .collect();
    for node in kept {
        frame.world.resource_mut::<PullsDue>().0.at(node, 0);
    }
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.add(Phase::Judge, note_reasons);
    frame.add(Phase::Plan, pull);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn the_author_first_then_others_a_few_a_round() {
        let peers = [node(1), node(2), node(3), node(4), node(5), node(6)];
        assert_eq!(
            choose_source(&node(3), &peers, &[], std::iter::empty()),
            Some(node(3))
        );
        assert_eq!(
            choose_source(&node(3), &peers, &[node(3)], std::iter::empty()),
            Some(node(1))
        );
        assert_eq!(
            choose_source(&node(9), &peers, &[node(1), node(2)], std::iter::empty()),
            Some(node(3))
        );
        let four = [node(1), node(2), node(3), node(4)];
        assert_eq!(
            choose_source(&node(9), &peers, &four, std::iter::empty()),
            None
        );
        assert_eq!(
            choose_source(&node(5), &peers, &four, std::iter::empty()),
            Some(node(5)),
            "the author is always asked"
        );
        assert_eq!(choose_source(&node(9), &[], &[], std::iter::empty()), None);
    }
}
