//! Pure decisions of the follow puller: whom to ask, for which posts, and what an answer says of whoever gave it.

use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::limits;
use distsoc_engine::world::authors::Author;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// How often those who have no room for an answer are waited for in one round, before they are taken to have nothing.
const WAITS_PER_ROUND_MAX: u32 = 4;

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Peer(NodeId),
    /// Somebody who is asked for as much as may be already.
    Busy,
    Nobody,
}

/// Whom an author was asked of.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// In this round.
    now: Vec<NodeId>,
    /// In the rounds before: others come first in the next.
    before: BTreeSet<NodeId>,
    /// Who had no room for an answer: asked again once nobody else is left.
    put_off: BTreeSet<NodeId>,
    /// How often that was waited for, in this round.
    waits: u32,
}

impl Tried {
    /// There is news: all may be asked in this round who were asked in it.
    pub(super) fn renew(&mut self) {
        self.before.extend(self.now.drain(..));
    }

    pub(super) fn add(&mut self, peer: NodeId) {
        self.now.push(peer);
    }

    /// It had no room for an answer.
    pub(super) fn put_off(&mut self, peer: NodeId) {
        self.put_off.insert(peer);
        self.before.remove(&peer);
    }

    /// Nobody else is left than those who had no room: for how long to wait before they are asked again, ms; a few times a round.
    pub(super) fn wait_ms(&mut self) -> Option<u64> {
        let waits = self.waits < WAITS_PER_ROUND_MAX && !self.put_off.is_empty();
        self.put_off.clear();
        waits.then(|| {
            self.waits += 1;
            limits::CROWDED_PAUSE_MS << (self.waits - 1)
        })
    }

    fn is_asked(&self, peer: &NodeId) -> bool {
        self.now.contains(peer) || self.put_off.contains(peer)
    }

    /// Whether there are more to ask in this round than those known to have something.
    pub(super) fn takes_more(&self) -> bool {
        self.now.len() + self.put_off.len() < limits::PULL_PEERS_PER_ROUND_MAX
    }

    /// Nobody is left in this round; false where nobody was asked in it. Once all of these were asked, all may be again.
    pub(super) fn end_round(&mut self, peers: &[NodeId]) -> bool {
        let has_asked = !self.now.is_empty() || self.waits > 0;
        self.renew();
        self.waits = 0;
        self.before.retain(|peer| peers.contains(peer));
        if self.before.len() == peers.len() {
            self.before.clear();
        }
        has_asked
    }
}

/// Whom to ask: those known to have something, among them whoever says to have news, and the author; else the first of the
/// peers not tried yet, who are in the order in which strangers are asked. Who is known to have it and busy is waited for.
pub(super) fn choose_source(
    peers: &[NodeId],
    free: &BTreeMap<NodeId, usize>,
    tried: &Tried,
    known: impl Iterator<Item = NodeId>,
) -> Source {
    let mut is_busy = false;
    for node in known.filter(|node| !tried.is_asked(node)) {
        match free.get(&node) {
            Some(0) => is_busy = true,
            Some(_) => return Source::Peer(node),
            None => {}
        }
    }
    if is_busy {
        return Source::Busy;
    }
    if !tried.takes_more() {
        return Source::Nobody;
    }
    let is_untried = |peer: &&NodeId| !tried.is_asked(peer) && !tried.before.contains(*peer);
    let mut untried = peers.iter().filter(is_untried).peekable();
    let is_anybody = untried.peek().is_some();
    match untried.find(|peer| free.get(peer).is_some_and(|free| *free > 0)) {
        Some(peer) => Source::Peer(*peer),
        None if is_anybody => Source::Busy,
        None => Source::Nobody,
    }
}

/// The newest posts that these authors lack, of those that may be asked for.
pub(super) fn newest_of(
    authors: &[&Author],
    count: usize,
    may_ask: impl Fn(&PostId) -> bool,
) -> Vec<(PostId, NodeId)> {
    // The next of each author, as far as it was looked at.
    let next = |author: usize, from: usize| {
        let rest = authors[author].missing.iter().enumerate().skip(from);
        let (place, missing) = rest.into_iter().find(|(_, missing)| may_ask(&missing.id))?;
        Some((missing.created_at_s, Reverse(author), Reverse(place)))
    };
    let firsts = (0..authors.len()).filter_map(|author| next(author, 0));
    let mut newest: BinaryHeap<_> = firsts.collect();
    let mut chosen = Vec::new();
    while chosen.len() < count
        && let Some((_, Reverse(author), Reverse(place))) = newest.pop()
    {
        chosen.push((authors[author].missing[place].id, authors[author].node));
        newest.extend(next(author, place + 1));
    }
    chosen
}

/// The authors none of whose posts came. They come in the order in which they were asked for, as many as fit: what was to come after
/// the last may be there still.
pub(super) fn without(asked: &[(PostId, NodeId)], came: &BTreeSet<PostId>) -> BTreeSet<NodeId> {
    let last = asked.iter().rposition(|(post, _)| came.contains(post));
    let until = last.unwrap_or(asked.len());
    let mut without: BTreeSet<NodeId> = asked[..until].iter().map(|(_, author)| *author).collect();
    for (post, author) in asked {
        if came.contains(post) {
            without.remove(author);
        }
    }
    without
}

/// The pause after so many rounds in which nobody had it: doubling up to the pull cycle.
pub(super) fn retry_pause_ms(fruitless: u32) -> u64 {
    limits::FOLLOW_PULL_RETRY_MS
        .saturating_mul(1 << fruitless.min(20))
        .min(limits::FOLLOW_PULL_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::world::authors::Missing;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn free(peers: impl IntoIterator<Item = (u8, usize)>) -> BTreeMap<NodeId, usize> {
        let peers = peers.into_iter();
        peers.map(|(peer, free)| (node(peer), free)).collect()
    }

    fn round(tried: &[NodeId]) -> Tried {
        Tried {
            now: tried.to_vec(),
            ..Tried::default()
        }
    }

    #[test]
    fn whoever_was_not_asked_in_the_last_rounds_comes_first_until_all_were() {
        let peers: Vec<NodeId> = (1..=10).map(node).collect();
        let free = free((1..=10).map(|peer| (peer, 1)));
        let mut tried = Tried::default();
        let mut asked = Vec::new();
        for _ in 0..4 {
            while let Source::Peer(peer) = choose_source(&peers, &free, &tried, [].into_iter()) {
                tried.add(peer);
                asked.push(peer.as_bytes()[0]);
            }
            assert!(tried.end_round(&peers));
        }
        assert_eq!(asked, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4]);
        assert!(!tried.end_round(&peers), "nobody was asked");
        let known = [node(2)].into_iter();
        let source = choose_source(&peers, &free, &tried, known);
        assert_eq!(source, Source::Peer(node(2)), "in every round");
        assert!(!tried.end_round(&peers[4..]) && tried.before.is_empty());
    }

    #[test]
    fn the_author_first_then_others_a_few_a_round() {
        let peers = [1, 2, 3, 4, 5, 6].map(node);
        let free = free((1..=6).map(|peer| (peer, 1)));
        let ask = |author: u8, tried: &[NodeId]| {
            choose_source(&peers, &free, &round(tried), [node(author)].into_iter())
        };
        assert_eq!(ask(3, &[]), Source::Peer(node(3)));
        assert_eq!(ask(3, &[node(3)]), Source::Peer(node(1)));
        assert_eq!(ask(9, &[node(1), node(2)]), Source::Peer(node(3)));
        let four = [1, 2, 3, 4].map(node);
        assert_eq!(ask(9, &four), Source::Nobody);
        assert_eq!(ask(5, &four), Source::Peer(node(5)), "always asked");
        let none = BTreeMap::new();
        let alone = choose_source(&[], &none, &round(&[]), [node(9)].into_iter());
        assert_eq!(alone, Source::Nobody);
    }

    #[test]
    fn who_is_busy_is_waited_for_and_no_stranger_asked_instead() {
        let peers = [1, 2].map(node);
        let one_busy = free([(1, 0), (2, 1)]);
        let ask = |free, tried: &[NodeId], known: &[u8]| {
            let known: Vec<NodeId> = known.iter().map(|known| node(*known)).collect();
            choose_source(&peers, free, &round(tried), known.into_iter())
        };
        assert_eq!(ask(&one_busy, &[], &[1]), Source::Busy);
        assert_eq!(ask(&one_busy, &[], &[1, 2]), Source::Peer(node(2)));
        assert_eq!(ask(&one_busy, &[node(1)], &[1]), Source::Peer(node(2)));
        assert_eq!(ask(&one_busy, &[], &[]), Source::Peer(node(2)));
        let all_busy = free([(1, 0), (2, 0)]);
        assert_eq!(ask(&all_busy, &[], &[]), Source::Busy);
        assert_eq!(ask(&all_busy, &[node(1), node(2)], &[]), Source::Nobody);
    }

    #[test]
    fn who_has_no_room_for_an_answer_comes_after_all_others_and_a_few_times_a_round() {
        let peers = [1, 2, 3].map(node);
        let free = free((1..=3).map(|peer| (peer, 1)));
        let mut tried = Tried::default();
        for _ in 0..2 {
            let (mut asked, mut waited) = (Vec::new(), Vec::new());
            loop {
                match choose_source(&peers, &free, &tried, [node(3)].into_iter()) {
                    Source::Peer(peer) if peer == node(3) => {
                        asked.push(3);
                        tried.put_off(peer);
                        // What it says to have makes no difference.
                        tried.renew();
                    }
                    Source::Peer(peer) => {
                        asked.push(peer.as_bytes()[0]);
                        tried.add(peer);
                    }
                    _ => match tried.wait_ms() {
                        Some(ms) => waited.push(ms),
                        None => break,
                    },
                }
            }
            assert_eq!(waited, [1_000, 2_000, 4_000, 8_000]);
            assert_eq!(asked, [3, 1, 2, 3, 3, 3, 3]);
            assert!(tried.end_round(&peers));
            tried.before.clear();
        }
    }

    fn post(number: u8) -> PostId {
        PostId::from_bytes([number; 32])
    }

    fn author(number: u8, missing: &[(u8, u32)]) -> Author {
        let missing = missing.iter().map(|(id, created_at_s)| Missing {
            id: post(*id),
            created_at_s: *created_at_s,
        });
        let mut author = Author::new(node(number));
        author.missing = missing.collect();
        author
    }

    #[test]
    fn the_newest_of_all_are_asked_for_first_and_none_twice() {
        let authors = [
            author(1, &[(1, 90), (2, 50), (3, 10)]),
            author(2, &[(4, 70), (5, 60)]),
            author(3, &[]),
        ];
        let authors: Vec<&Author> = authors.iter().collect();
        let newest = |count, asked: u8| {
            let chosen = newest_of(&authors, count, |id| *id != post(asked));
            let ids = chosen.into_iter().map(|(id, _)| id.as_bytes()[0]);
            ids.collect::<Vec<u8>>()
        };
        assert_eq!(newest(4, 0), [1, 4, 5, 2]);
        assert_eq!(newest(9, 4), [1, 5, 2, 3]);
        assert_eq!(newest_of(&authors, 1, |_| true), [(post(1), node(1))]);
    }

    #[test]
    fn who_has_none_of_an_author_is_told_from_who_had_no_room() {
        let asked = [(1, 1), (2, 2), (3, 1), (4, 3)].map(|(id, by)| (post(id), node(by)));
        let lacks = |came: &[u8]| {
            let came = came.iter().map(|id| post(*id)).collect();
            without(&asked, &came)
        };
        let all = [1, 2, 3].map(node);
        assert_eq!(lacks(&[]), all.into());
        assert_eq!(lacks(&[1, 3]), [node(2)].into(), "the fourth had no room");
        assert_eq!(lacks(&[3]), [node(2)].into());
        assert_eq!(lacks(&[4]), [node(1), node(2)].into());
        assert_eq!(lacks(&[1, 2, 4]), BTreeSet::new());
    }
}
