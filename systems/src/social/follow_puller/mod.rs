//! PROTOCOL section 8, follow pull: what followed authors did since, from the author where a connection stands, else from
//! whoever of the peers keeps them. A follow alone never dials for this.

mod choice;

use crate::Installer;
use bevy_ecs::prelude::*;
use choice::{Source, Tried, choose_source, newest_of, retry_pause_ms, without};
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, PostBytes, PostId, Profile};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestFailure, RequestId};
use distsoc_engine::limits;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Packet, PullSyncRequest, PullSyncResponse, Want};
use distsoc_engine::world::authors::{
    Author, AuthorIndex, AuthorsView, KeptProfiles, ListUpdate, ListUpdates, Missing, PullRequests,
    PullWish, PulledPosts, PullsDue,
};
use distsoc_engine::world::deletions::DeletionOffers;
use distsoc_engine::world::files::Wanted;
use distsoc_engine::world::hearts::HeartOffers;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keepers::{Keepers, Lack, Starving};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, PeerChanges, Peers};
use distsoc_engine::world::storage::Storage;
use std::collections::{BTreeMap, BTreeSet};

/// Pulls to one peer under way at once; its own limit is 4.
const PER_PEER_MAX: usize = 3;

/// A request under way.
#[derive(Debug)]
struct Pull {
    peer: NodeId,
    link: LinkId,
    /// Whose lists it asks for.
    authors: BTreeSet<NodeId>,
    /// Which posts, and whose they are.
    posts: Vec<(PostId, NodeId)>,
}

/// Requests under way, and whom each author was asked of in this round.
#[derive(Resource, Debug, Default)]
struct Pulls {
    under_way: BTreeMap<RequestId, Pull>,
    /// Posts that these ask for.
    asked: BTreeSet<PostId>,
    /// Authors for whom somebody is to be asked who is busy: their turn comes when a request ends or somebody comes up.
    waiting: BTreeSet<NodeId>,
    /// Since the last turn of those who wait, that was so.
    is_their_turn: bool,
    tried: BTreeMap<NodeId, Tried>,
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

    /// Whether a peer is asked for lists.
    fn asks_for_lists(&self, peer: &NodeId) -> bool {
        let mut of_peer = self.under_way.values().filter(|pull| pull.peer == *peer);
        of_peer.any(|pull| !pull.authors.is_empty())
    }

    /// Whose turn it is.
    fn take_due(&mut self, due: &mut PullsDue, now: Now) -> BTreeSet<NodeId> {
        let mut turn = match std::mem::take(&mut self.is_their_turn) {
            true => std::mem::take(&mut self.waiting),
            false => BTreeSet::new(),
        };
        turn.extend(due.0.take_due(now.mono_ms));
        turn
    }

    fn end(&mut self, pull: &Pull) {
        for (post, _) in &pull.posts {
            self.asked.remove(post);
        }
        self.is_their_turn = true;
    }

    fn begin(&mut self, id: RequestId, pull: Pull) {
        self.asked.extend(pull.posts.iter().map(|(post, _)| *post));
        self.under_way.insert(id, pull);
    }

    /// Nobody is to be asked for an author now: gives back for how long, ms.
    fn end_round(
        &mut self,
        author: &NodeId,
        is_satisfied: bool,
        strangers: &[NodeId],
        starving: &mut Starving,
    ) -> u64 {
        if is_satisfied {
            self.tried.remove(author);
            self.fruitless.remove(author);
            return limits::FOLLOW_PULL_MS;
        }
        let tried = self.tried.get_mut(author);
        let has_asked = tried.is_some_and(|tried| tried.end_round(strangers));
        let rounds = self.fruitless.entry(*author).or_default();
        *rounds += u32::from(has_asked);
        if *rounds >= limits::FRUITLESS_ROUNDS_BEFORE_WORM && has_asked {
            starving.note(*author, Lack::Content);
        }
        retry_pause_ms(rounds.saturating_sub(1))
    }

    /// The author is kept no more.
    fn forget(&mut self, author: &NodeId) {
        self.waiting.remove(author);
        self.tried.remove(author);
        self.whole.remove(author);
        self.suspect.remove(author);
        self.hints.remove(author);
        self.fruitless.remove(author);
    }

    /// Asks a peer for what is planned, in so many requests at most; gives back how many it took. Whose turn did not come waits.
    fn ask(
        &mut self,
        peer: NodeId,
        link: Option<&Link>,
        plan: &Plan<'_>,
        requests: usize,
        wanted: &Wanted,
        outbox: &mut Outbox,
    ) -> usize {
        let mut lists = plan.lists.chunks(limits::PULL_AUTHORS_MAX);
        let all = plan.lacking.iter().copied();
        let all = all.chain(plan.lists.iter().map(|(_, author)| *author));
        let mut waiting: BTreeSet<NodeId> = all.map(|author| author.node).collect();
        let mut asked = 0;
        while asked < requests {
            let lists = lists.next().unwrap_or_default();
            let with_lists: Vec<&Author> = lists.iter().map(|(_, author)| *author).collect();
            // Lists first: only with all of them is it known which posts are the newest.
            let lacking: &[&Author] = match (with_lists.is_empty(), self.asks_for_lists(&peer)) {
                (true, false) => &plan.lacking,
                (true, true) => &[],
                (false, _) => &with_lists,
            };
            let posts = newest_of(lacking, limits::PULL_POSTS_MAX, |post| {
                !self.asked.contains(post) && wanted.author_of(post).is_some()
            });
            let Some(link) = link.filter(|_| !lists.is_empty() || !posts.is_empty()) else {
                break;
            };
            let request = PullSyncRequest {
                authors: Bounded::truncated(lists.iter().map(|(want, _)| *want).collect()),
                posts: Bounded::truncated(posts.iter().map(|(post, _)| *post).collect()),
            };
            let pull = Pull {
                peer,
                link: link.id,
                authors: with_lists.iter().map(|author| author.node).collect(),
                posts,
            };
            waiting.retain(|author| !pull.authors.contains(author));
            pull.posts
                .iter()
                .for_each(|(_, author)| _ = waiting.remove(author));
            self.begin(outbox.request(link.id, &request.into()), pull);
            asked += 1;
        }
        self.waiting.extend(waiting);
        asked
    }
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
                if let Some(tried) = pulls.tried.get_mut(&author) {
                    tried.renew();
                }
            }
            PullWish::Whole { not_from } => {
                pulls.whole.insert(author);
                let liar = not_from
                    .and_then(|link| links.iter().find(|other| other.id == link))
                    .map(|link| link.node);
                if let Some(liar) = liar {
                    pulls.tried.entry(author).or_default().add(liar);
                }
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
            pulls.forget(&author.node);
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
        pulls.is_their_turn = true;
        for author in authors.iter().filter(|author| author.is_kept()) {
            let starving = author.head.is_none() || !author.missing.is_empty();
            let tried = pulls.tried.get(&author.node);
            if starving && tried.is_none_or(Tried::takes_more) && !pulls.is_asking(&author.node) {
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
        let is_crowded = matches!(result, Err(RequestFailure::NoResponse));
        let response = match result {
            Ok(Packet::PullSyncResponse(response)) => Some(response),
            _ => None,
        };
        let is_answered = response.is_some();
        let mut moved = false;
        if let Some((link, mut peer)) = peers
            .by_node(&pull.peer)
            .and_then(|entity| up.get_mut(entity).ok())
        {
            if is_answered {
                peer.synced_ms = Some(now.mono_ms);
                peer.heard_ms = now.mono_ms;
            } else {
                // The connection was replaced by another under the request: the same peer is asked again.
                moved = link.id != pull.link;
            }
        }
        let outdated: BTreeSet<NodeId> = response
            .iter()
            .flat_map(|response| response.lists.iter())
            .filter(|part| {
                let known = authors.get(&part.head.author);
                let known = known.and_then(|author| author.head.as_ref());
                known.is_some_and(|known| {
                    *known != part.head && part.head.supersedes(known).is_err()
                })
            })
            .map(|part| part.head.author)
            .collect();
        let answer = sort_response(
            &pull,
            response.unwrap_or_default(),
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
        pulls.end(&pull);
        let of_posts = pull.posts.iter().map(|(_, author)| *author);
        let concerned: BTreeSet<NodeId> = of_posts.chain(pull.authors.iter().copied()).collect();
        for author in concerned {
            due.0.set(author, now.mono_ms);
            // One older than what is here is none.
            let has_list = answer.lists.contains(&author) && !outdated.contains(&author);
            if has_list {
                pulls.whole.remove(&author);
                pulls.suspect.remove(&author);
            }
            if moved {
                continue;
            }
            let asked_for_list = pull.authors.contains(&author);
            let is_without = answer.without.contains(&author);
            let has_no_list = asked_for_list && !has_list && !answer.is_cut;
            if has_no_list || (is_without && (asked_for_list || !is_answered)) {
                // Not here: somebody else is asked.
                let tried = pulls.tried.entry(author).or_default();
                match is_crowded {
                    true => tried.put_off(pull.peer),
                    false => tried.add(pull.peer),
                }
            } else if is_without {
                // The list may say why.
                pulls.suspect.insert(author);
            }
        }
    }
}

/// What came of what was asked for.
#[derive(Debug, Default)]
struct Answer {
    /// Whose lists.
    lists: BTreeSet<NodeId>,
    /// Of whom posts were asked for and none came, though there was room for them.
    without: BTreeSet<NodeId>,
    /// Lists may have been left out for lack of room.
    is_cut: bool,
}

/// Hands a response to the features that judge it.
fn sort_response(
    pull: &Pull,
    response: PullSyncResponse,
    updates: &mut ListUpdates,
    pulled: &mut PulledPosts,
    hearts: &mut HeartOffers,
    deletions: &mut DeletionOffers,
    mut keep: impl FnMut(Profile),
) -> Answer {
    let mut answer = Answer::default();
    let mut list_bytes = 0;
    for part in response.lists.into_vec() {
        let author = part.head.author;
        if !pull.authors.contains(&author) || !answer.lists.insert(author) {
            continue;
        }
        list_bytes += part.newest.as_bytes().len();
        if let Some(profile) = part.profile {
            keep(profile);
        }
        updates.0.push(ListUpdate {
            from: pull.link,
            head: part.head,
            newest: part.newest,
            is_pulled: true,
        });
    }
    let list_bytes_max = limits::EVENTS_MAX * limits::EVENT_BYTES;
    answer.is_cut = list_bytes + list_bytes_max > limits::PULL_RESPONSE_BYTES_MAX;
    if response.posts.len() < pull.posts.len() {
        let came = response.posts.iter().map(PostBytes::id);
        let deleted = response.deletions.iter();
        let deleted = deleted.map(|deletion| (deletion.post, deletion.author));
        // Anybody can sign that anything is taken back.
        let deleted = deleted.filter(|deleted| pull.posts.contains(deleted));
        let came: BTreeSet<PostId> = came.chain(deleted.map(|(post, _)| post)).collect();
        answer.without = without(&pull.posts, &came);
    }
    deletions.0.extend(response.deletions.into_vec());
    let liked = response.hearts.into_vec().into_iter();
    hearts.0.extend(liked.map(|heart| (pull.link, heart)));
    let posts = response.posts.into_vec().into_iter();
    pulled.0.extend(posts.map(|post| (pull.link, post)));
    answer
}

/// What one peer is to be asked for.
#[derive(Default)]
struct Plan<'a> {
    /// Lists, and posts of the same authors.
    lists: Vec<(Want, &'a Author)>,
    /// Posts alone.
    lacking: Vec<&'a Author>,
}

/// Peers in the order in which they are asked where nobody is known to have something.
fn strangers(peers: &Peers, keepers: &Keepers, entropy: &mut Entropy) -> Vec<NodeId> {
    let mut strangers: Vec<NodeId> = peers.up().map(|(node, _)| node).collect();
    entropy.shuffle(&mut strangers);
    // Whoever had most of what was looked for is likely to have more of it.
    let most = keepers.richest(&strangers);
    if let Some(place) = strangers.iter().position(|node| Some(*node) == most) {
        strangers.swap(0, place);
    }
    strangers
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
    let turn = pulls.take_due(&mut due, *now);
    if turn.is_empty() {
        if let Some((first_ms, _)) = due.0.first() {
            outbox.wake_at(first_ms);
        }
        return;
    }
    let strangers = strangers(&peers, &keepers, &mut entropy);
    let nobody = Tried::default();
    let mut in_all = limits::PULLS_IN_FLIGHT_MAX.saturating_sub(pulls.under_way.len());
    let free_at_most = PER_PEER_MAX.min(in_all);
    let mut free: BTreeMap<NodeId, usize> =
        strangers.iter().map(|node| (*node, free_at_most)).collect();
    for pull in pulls.under_way.values() {
        if let Some(free) = free.get_mut(&pull.peer) {
            *free = free.saturating_sub(1);
        }
    }
    let mut plans: BTreeMap<NodeId, Plan<'_>> = BTreeMap::new();
    for node in turn {
        let Some(author) = index.get(&node).and_then(|entity| authors.get(entity).ok()) else {
            continue;
        };
        if !author.is_kept() || pulls.is_asking(&node) {
            continue;
        }
        let wants_whole = pulls.whole.contains(&node);
        let wants_list = !is_fresh(author, *now) || wants_whole || pulls.suspect.contains(&node);
        let is_wanted = |missing: &Missing| wanted.author_of(&missing.id).is_some();
        let lacks_posts = author.missing.iter().any(is_wanted);
        let is_satisfied = !wants_list && !lacks_posts;
        let source = match is_satisfied || !storage.takes_more() {
            true => Source::Nobody,
            false => {
                let hint = pulls.hints.get(&node).copied().into_iter();
                let known = hint.chain([node]).chain(keepers.seen(&node));
                let tried = pulls.tried.get(&node).unwrap_or(&nobody);
                choose_source(&strangers, &free, tried, known)
            }
        };
        match source {
            Source::Peer(source) => {
                let plan = plans.entry(source).or_default();
                if wants_list && plan.lists.len() == free[&source] * limits::PULL_AUTHORS_MAX {
                    pulls.waiting.insert(node);
                    continue;
                }
                pulls.hints.remove(&node);
                if wants_list {
                    let known = author.head.as_ref().filter(|_| !wants_whole);
                    let seq = known.map_or(0, |head| head.seq.to_u64());
                    plan.lists.push((Want { author: node, seq }, author));
                } else {
                    plan.lacking.push(author);
                }
            }
            Source::Busy => drop(pulls.waiting.insert(node)),
            Source::Nobody => {
                pulls.hints.remove(&node);
                let tried = pulls.tried.get_mut(&node).filter(|_| !is_satisfied);
                let pause_ms = tried.and_then(Tried::wait_ms).unwrap_or_else(|| {
                    let pause_ms = pulls.end_round(&node, is_satisfied, &strangers, &mut starving);
                    entropy.jittered(pause_ms)
                });
                due.0.set(node, now.after(pause_ms));
            }
        }
    }
    for (peer, plan) in plans {
        let entity = peers.by_node(&peer);
        let link = entity.and_then(|entity| links.get(entity).ok());
        let requests = link.map_or(0, |_| free[&peer].min(in_all));
        in_all -= pulls.ask(peer, link, &plan, requests, &wanted, &mut outbox);
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
    frame.due(
        |glance| match glance.at::<Pulls>().is_their_turn {
            true => Some(AT_ONCE),
            false => glance.at::<PullsDue>().0.first().map(|(at_ms, _)| at_ms),
        },
        Phase::Plan,
        pull,
    );
}
