//! Whom the fetcher asks: who is known to have something, answers in time, and is asked no more often than it takes.

use super::Lacking;
use bevy_ecs::prelude::Resource;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::LinkId;
use distsoc_engine::limits;
use distsoc_engine::wire::FileRequest;
use distsoc_engine::world::fetches::Fetches;
use distsoc_engine::world::keepers::Keepers;
use distsoc_engine::world::pace::Pace;
use std::collections::{BTreeMap, BTreeSet};

/// Peers asked for one blob that are not known to keep its author, in one round.
const STRANGERS_PER_ROUND_MAX: usize = 4;
/// Holders remembered for letting requests time out, at most; the one whose pause ends first leaves first.
const STALLED_MAX: usize = 256;
/// Holders remembered for having been asked of late, at most.
const PACED_MAX: usize = 256;
/// A holder takes one request more after this.
const ASKED_EVERY_MS: u64 = FileRequest::SPEC.every_ms();
/// An answer that takes no longer than this is a quick one.
const QUICK_MS: u64 = 2_000;
/// Requests that it takes at once, with some left for whatever else asks.
const ASKED_AT_ONCE: u64 = FileRequest::SPEC.at_once();

/// Holders that let a request time out, or had no room for an answer: asked for nothing until a pause is over, which doubles with
/// each time. They may be asleep, slow or wanted by many, so it costs them nothing else; what they gave counts again from the first
/// slice on.
#[derive(Resource, Debug, Default)]
pub(super) struct Stalled(BTreeMap<NodeId, Pause>);

#[derive(Debug)]
struct Pause {
    until_ms: u64,
    /// How long it is.
    ms: u64,
}

impl Stalled {
    /// Until when it is asked for nothing: mono ms.
    pub(super) fn until_ms(&self, node: &NodeId, now: Now) -> Option<u64> {
        let until_ms = self.0.get(node)?.until_ms;
        (until_ms > now.mono_ms).then_some(until_ms)
    }

    /// It gave something.
    pub(super) fn forgive(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    /// A request had no answer: the first pause is so long, ms. Requests that were under way beside it count as the same time.
    pub(super) fn note(&mut self, node: NodeId, first_ms: u64, now: Now) {
        if self.until_ms(&node, now).is_some() {
            return;
        }
        if self.0.len() >= STALLED_MAX && !self.0.contains_key(&node) {
            let first = self.0.iter().min_by_key(|(_, pause)| pause.until_ms);
            let first = *first.expect("there are many").0;
            self.0.remove(&first);
        }
        let last_ms = self.0.get(&node).map_or(0, |pause| pause.ms);
        let ms = first_ms.max(2 * last_ms).min(limits::FOLLOW_PULL_MS);
        let until_ms = now.after(ms);
        self.0.insert(node, Pause { until_ms, ms });
    }
}

/// The pause after so many rounds in vain: doubling up to the pull cycle.
pub(super) fn pause_ms(rounds: u32) -> u64 {
    (limits::FETCH_PAUSE_MS << rounds.min(7)).min(limits::FOLLOW_PULL_MS)
}

/// How far each holder was asked ahead, and how much at once: what goes past its rate is refused, as if it had no room, and one whose
/// answers take long is asked for one run at a time, so that its line has room for those who ask for others.
#[derive(Resource, Debug, Default)]
pub(super) struct Paced(BTreeMap<NodeId, Asked>);

#[derive(Debug, Default)]
struct Asked {
    pace: Pace,
    /// Its last answer did not take long.
    is_quick: bool,
}

impl Paced {
    /// When a holder may be asked next: mono ms; `None` means at once.
    pub(super) fn next_ms(&self, node: &NodeId, now: Now) -> Option<u64> {
        let pace = self
            .0
            .get(node)
            .map_or_else(Pace::default, |asked| asked.pace);
        pace.next_ms(now.mono_ms, ASKED_EVERY_MS, ASKED_AT_ONCE)
    }

    /// How many requests a holder is sent before the first of them is answered.
    pub(super) fn in_flight_max(&self, node: &NodeId) -> usize {
        match self.0.get(node).is_some_and(|asked| asked.is_quick) {
            true => limits::FETCHES_PER_PEER_MAX,
            false => 1,
        }
    }

    /// A holder was asked.
    pub(super) fn asked(&mut self, node: NodeId, now: Now) {
        if self.0.len() >= PACED_MAX && !self.0.contains_key(&node) {
            self.0.retain(|_, asked| !asked.pace.is_rested(now.mono_ms));
        }
        if self.0.len() < PACED_MAX || self.0.contains_key(&node) {
            let asked = self.0.entry(node).or_default();
            asked.pace.spend(now.mono_ms, ASKED_EVERY_MS);
        }
    }

    /// It answered after so long.
    pub(super) fn answered(&mut self, node: &NodeId, after_ms: u64) {
        if let Some(asked) = self.0.get_mut(node) {
            asked.is_quick = after_ms <= QUICK_MS;
        }
    }
}

/// Whom to ask for a run of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Ask {
        node: NodeId,
        link: LinkId,
        is_stranger: bool,
    },
    /// Whoever may have it was asked as often as they take: mono ms of when one takes more.
    Wait(u64),
    /// Whoever may have it is being asked for as much as they take at once: the next answer comes first.
    Busy,
    /// All others were asked, and one who may have it is left alone for a little while yet: mono ms of when it is asked again.
    Later(u64),
    /// All that may have it were asked.
    Nobody,
}

/// Who is known to have an author's files: the author, who keeps them by a link, and whoever gave something of them.
pub(super) fn known_holders(author: NodeId, keepers: &Keepers) -> BTreeSet<NodeId> {
    let kept_by = keepers.links(&author).chain(keepers.seen(&author));
    kept_by.chain([author]).collect()
}

/// Whom to ask: of those known to have it, else of a few strangers, whoever is asked for least.
pub(super) fn choose_holder(
    lacking: &Lacking,
    known: &BTreeSet<NodeId>,
    fetches: &Fetches,
    connected: &[(NodeId, LinkId)],
    stalled: &Stalled,
    paced: &Paced,
    now: Now,
) -> Choice {
    let mut later_ms: Option<u64> = None;
    let mut choose = |is_stranger: bool| {
        let mut best: Option<(usize, NodeId, LinkId)> = None;
        let (mut next_ms, mut is_busy): (Option<u64>, bool) = (None, false);
        for (node, link) in connected {
            if known.contains(node) == is_stranger || lacking.tried.contains(node) {
                continue;
            }
            let asked = fetches.asked_of(node);
            if let Some(at_ms) = stalled.until_ms(node, now) {
                later_ms = earlier(later_ms, at_ms);
            } else if asked >= paced.in_flight_max(node) {
                is_busy = true;
            } else if let Some(at_ms) = paced.next_ms(node, now) {
                next_ms = earlier(next_ms, at_ms);
            } else if best.is_none_or(|(least, ..)| asked < least) {
                best = Some((asked, *node, *link));
            }
        }
        match best {
            Some((_, node, link)) => Choice::Ask {
                node,
                link,
                is_stranger,
            },
            None if is_busy => Choice::Busy,
            None => next_ms.map_or(Choice::Nobody, Choice::Wait),
        }
    };
    let choice = match choose(false) {
        Choice::Nobody if lacking.strangers < STRANGERS_PER_ROUND_MAX => choose(true),
        choice => choice,
    };
    match (choice, later_ms) {
        (Choice::Nobody, Some(at_ms)) if at_ms < now.after(limits::FETCH_PAUSE_MS) => {
            Choice::Later(at_ms)
        }
        _ => choice,
    }
}

fn earlier(first_ms: Option<u64>, at_ms: u64) -> Option<u64> {
    Some(first_ms.map_or(at_ms, |ms| ms.min(at_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::domain::{BlobHash, BlobRef, PostId};
    use distsoc_engine::world::fetches::Fetch;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            wall_ms: mono_ms,
        }
    }

    fn node(number: usize) -> NodeId {
        NodeId::from_bytes(distsoc_engine::crypto::hash(&number.to_be_bytes()))
    }

    #[test]
    fn a_pause_is_twice_the_last_or_as_long_as_its_reason_has_it() {
        let (mut stalled, mut now_ms, mut pauses) = (Stalled::default(), 1_000, Vec::new());
        for first_ms in [1_000, 1_000, 30_000, 1_000] {
            stalled.note(node(1), first_ms, at(now_ms));
            let until_ms = stalled.until_ms(&node(1), at(now_ms)).unwrap();
            pauses.push(until_ms - now_ms);
            now_ms = until_ms;
        }
        assert_eq!(pauses, [1_000, 2_000, 30_000, 60_000]);
    }

    #[test]
    fn whoever_stalls_again_and_again_is_asked_less_and_less() {
        let mut stalled = Stalled::default();
        let (mut now_ms, mut pauses) = (1_000, Vec::new());
        for _ in 0..9 {
            stalled.note(node(1), limits::FETCH_PAUSE_MS, at(now_ms));
            stalled.note(node(1), limits::FETCH_PAUSE_MS, at(now_ms + 5));
            let until_ms = stalled.0[&node(1)].until_ms;
            let until = |number, now_ms| stalled.until_ms(&node(number), at(now_ms));
            assert_eq!(until(1, until_ms - 1), Some(until_ms));
            assert_eq!(until(1, until_ms), None);
            assert_eq!(until(2, now_ms), None);
            pauses.push((until_ms - now_ms) / 1_000);
            now_ms = until_ms;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        for number in 0..2 * STALLED_MAX {
            let now = at(now_ms + number as u64);
            stalled.note(node(number), limits::FETCH_PAUSE_MS, now);
        }
        assert_eq!(stalled.0.len(), STALLED_MAX);
        let newest = node(2 * STALLED_MAX - 1);
        assert!(stalled.0.contains_key(&newest));
    }

    #[test]
    fn a_paused_holder_is_passed_over_for_one_that_is_not() {
        let (author, idle, busy) = (node(1), node(2), node(3));
        let lacking = Lacking {
            post: PostId::from_bytes([1; 32]),
            author,
            written_s: 0,
            first: 0,
            tried: BTreeSet::new(),
            swapped_ms: 0,
            strangers: 0,
            crowded: 0,
            is_put_off: false,
            fruitless: 0,
            from_ms: None,
        };
        let mut keepers = Keepers::default();
        keepers.saw(author, busy);
        keepers.saw(author, idle);
        let known = known_holders(author, &keepers);
        let connected = [(idle, LinkId(2)), (busy, LinkId(3))];
        let mut fetches = Fetches::default();
        let fetch = Fetch {
            blob: BlobRef {
                hash: BlobHash::from_bytes([1; 32]),
                length: 1,
            },
            slices: 0..1,
            holder: busy,
            link: LinkId(3),
            asked_ms: 0,
        };
        fetches
            .requests
            .insert(distsoc_engine::io::RequestId(1), fetch);
        let (mut stalled, mut paced) = (Stalled::default(), Paced::default());
        let choose = |stalled: &Stalled, paced: &Paced| {
            choose_holder(
                &lacking,
                &known,
                &fetches,
                &connected,
                stalled,
                paced,
                at(1_000),
            )
        };
        let asks = |node, link| Choice::Ask {
            node,
            link: LinkId(link),
            is_stranger: false,
        };
        assert_eq!(choose(&stalled, &paced), asks(idle, 2));
        stalled.note(idle, limits::FETCH_PAUSE_MS, at(1_000));
        assert_eq!(choose(&stalled, &paced), Choice::Busy);
        paced.asked(busy, at(1_000));
        for (took_ms, choice) in [(QUICK_MS, asks(busy, 3)), (QUICK_MS + 1, Choice::Busy)] {
            paced.answered(&busy, took_ms);
            assert_eq!(choose(&stalled, &paced), choice);
        }
        paced.answered(&busy, 0);
        while paced.next_ms(&busy, at(1_000)).is_none() {
            paced.asked(busy, at(1_000));
        }
        assert!(matches!(choose(&stalled, &paced), Choice::Wait(at_ms) if at_ms > 1_000));
        let crowded = limits::CROWDED_PAUSE_MS;
        stalled.note(busy, crowded, at(1_000));
        assert_eq!(choose(&stalled, &paced), Choice::Later(1_000 + crowded));
        stalled.forgive(&busy);
        stalled.note(busy, limits::FETCH_PAUSE_MS, at(1_000));
        assert_eq!(choose(&stalled, &paced), Choice::Nobody);
    }

    #[test]
    fn a_holder_is_asked_no_more_often_than_it_answers() {
        let (mut paced, mut asked) = (Paced::default(), 0u64);
        for second in 0..60 {
            for ms in 0..1_000 {
                let now = at(second * 1_000 + ms);
                while paced.next_ms(&node(1), now).is_none() {
                    paced.asked(node(1), now);
                    asked += 1;
                }
            }
        }
        let allowed = u64::from(FileRequest::SPEC.per_minute + FileRequest::SPEC.burst);
        assert!(asked <= allowed && asked * 10 > allowed * 9, "{asked}");
        for number in 0..2 * PACED_MAX {
            paced.asked(node(number), at(60_000));
        }
        assert_eq!(paced.0.len(), PACED_MAX);
    }
}
