//! Stored files in the order in which they would go (PROTOCOL section 7, keep priority): the least worth first, of equals the smaller
//! PostId.
//!
//! Files worth the same stand together, unsorted: there are few priorities, so that whoever looks for the least worth reads these
//! and no others. A file moves when something about it changes or a window of its age ends; nothing is ever scored twice. Own
//! files are not in here: they are no candidates.

use crate::domain::{
    AgeWindow, AuthorStanding, KeepClass, KeepFacts, KeepPriority, PAGE_BYTES, PostId,
};
use bevy_ecs::prelude::{Entity, Resource};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

/// A place in the order, for as long as the file is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeepRow(u32);

/// A file that could be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: PostId,
    /// Its entity.
    pub entity: Entity,
    /// Bytes that its going would free.
    pub bytes: u64,
    /// Its author.
    pub standing: AuthorStanding,
    /// When it was written: seconds since the epoch.
    pub written_s: u32,
    /// When it got its newest heart that counts.
    pub hearted_s: Option<u32>,
    /// Counted holders.
    pub copies: u8,
    /// Pinned by the person.
    pub is_pinned: bool,
}

impl Candidate {
    /// What its priority follows from at a time.
    #[must_use]
    pub fn facts(&self, now_s: u32) -> KeepFacts {
        let since = |at_s: u32| AgeWindow::of(now_s.saturating_sub(at_s));
        KeepFacts {
            standing: self.standing,
            hearted: self.hearted_s.map_or(AgeWindow::LAST, since),
            written: since(self.written_s),
            copies: self.copies,
            is_pinned: self.is_pinned,
        }
    }

    /// When its facts change by themselves, if ever.
    fn turns_at_s(&self, facts: &KeepFacts) -> Option<u32> {
        let hearted = self
            .hearted_s
            .and_then(|at_s| facts.hearted.ends_at_s(at_s));
        let written = facts.written.ends_at_s(self.written_s);
        hearted.into_iter().chain(written).min()
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    candidate: Candidate,
    rank: u16,
    /// Its place among those of its rank.
    place: u32,
    /// When it is looked at again: seconds since the epoch.
    turns_at_s: u32,
}

/// A file among those of its rank: what choosing reads of each, side by side.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The first bytes of its id.
    id_head: u64,
    row: u32,
    /// Disk pages that its going would free.
    pages: u32,
}

impl Entry {
    fn of(row: u32, candidate: &Candidate) -> Self {
        let head = candidate.id.as_bytes().first_chunk::<8>();
        let pages = candidate.bytes.div_ceil(PAGE_BYTES);
        Self {
            id_head: u64::from_be_bytes(*head.expect("an id is longer")),
            row,
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
        }
    }
}

/// The order.
#[derive(Resource, Debug)]
pub struct KeepOrder {
    ranks: &'static Ranks,
    /// Rank → files; empty before the first.
    by_rank: Box<[Vec<Entry>]>,
    slots: Vec<Option<Slot>>,
    vacant: Vec<u32>,
    /// When to look at a file again; what does not stand in its slot any more says nothing.
    turns: BinaryHeap<Reverse<(u32, u32)>>,
}

/// Which priorities there are: the same for every node.
#[derive(Debug)]
struct Ranks {
    /// Class → rank: classes of the same priority share one.
    of_class: Box<[u16]>,
    /// Rank → priority, ascending.
    priorities: Box<[KeepPriority]>,
}

impl Ranks {
    fn all() -> &'static Self {
        static RANKS: OnceLock<Ranks> = OnceLock::new();
        RANKS.get_or_init(Self::new)
    }

    fn new() -> Self {
        let of_class: Vec<KeepPriority> = KeepClass::all()
            .map(|class| class.facts().priority())
            .collect();
        let mut priorities = of_class.clone();
        priorities.sort_unstable();
        priorities.dedup();
        let rank = |priority| {
            let rank = priorities.binary_search(priority);
            rank.expect("every priority is listed") as u16
        };
        Self {
            of_class: of_class.iter().map(rank).collect(),
            priorities: priorities.into(),
        }
    }
}

impl Default for KeepOrder {
    fn default() -> Self {
        Self {
            ranks: Ranks::all(),
            by_rank: Box::default(),
            slots: Vec::new(),
            vacant: Vec::new(),
            turns: BinaryHeap::new(),
        }
    }
}

impl KeepOrder {
    /// How many files are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// When the newest of them was written: seconds since the epoch; 0 where there is none.
    #[must_use]
    pub fn newest_written_s(&self) -> u32 {
        let files = self.slots.iter().flatten();
        files
            .map(|slot| slot.candidate.written_s)
            .max()
            .unwrap_or(0)
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a file.
    pub fn insert(&mut self, candidate: Candidate, now_s: u32) -> KeepRow {
        let row = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.put(row, candidate, now_s);
        KeepRow(row)
    }

    /// Takes a file out.
    pub fn remove(&mut self, row: KeepRow) -> Option<Candidate> {
        let slot = self.take(row.0)?;
        self.vacant.push(row.0);
        Some(slot.candidate)
    }

    /// Something about a file has changed.
    pub fn update(&mut self, row: KeepRow, now_s: u32, change: impl FnOnce(&mut Candidate)) {
        if let Some(slot) = self.take(row.0) {
            let mut candidate = slot.candidate;
            change(&mut candidate);
            self.put(row.0, candidate, now_s);
        }
    }

    /// A file.
    #[must_use]
    pub fn get(&self, row: KeepRow) -> Option<&Candidate> {
        let slot = self.slots.get(row.0 as usize)?.as_ref()?;
        Some(&slot.candidate)
    }

    /// What a file is worth, as of the last [`turn`](Self::turn).
    #[must_use]
    pub fn priority(&self, row: KeepRow) -> Option<KeepPriority> {
        let slot = self.slots.get(row.0 as usize)?.as_ref()?;
        Some(self.ranks.priorities[usize::from(slot.rank)])
    }

    /// Lets the windows end that have ended.
    pub fn turn(&mut self, now_s: u32) {
        while let Some(Reverse((at_s, row))) = self.turns.peek().copied() {
            if at_s > now_s {
                break;
            }
            self.turns.pop();
            let slot = self.slots[row as usize].as_ref();
            if slot.is_some_and(|slot| slot.turns_at_s == at_s) {
                self.update(KeepRow(row), now_s, |_| {});
            }
        }
    }

    /// The files whose going frees so many bytes, in whole pages: those that go first of those that may, in no order.
    pub fn choose(&self, bytes: u64, mut may_go: impl FnMut(KeepRow) -> bool) -> Vec<KeepRow> {
        let mut lacking = bytes.div_ceil(PAGE_BYTES);
        let mut chosen = Vec::new();
        for entries in self.by_rank.iter().filter(|entries| !entries.is_empty()) {
            if lacking == 0 {
                break;
            }
            let first = chosen.len();
            let going = entries.iter().filter(|entry| may_go(KeepRow(entry.row)));
            let mut pages = 0;
            chosen.extend(going.map(|entry| {
                pages += u64::from(entry.pages);
                KeepRow(entry.row)
            }));
            if pages > lacking {
                self.keep_first(&mut chosen, first, lacking);
                break;
            }
            lacking -= pages;
        }
        chosen
    }

    /// Of equals, those from a place on, only as many as it takes, by their ids.
    fn keep_first(&self, chosen: &mut Vec<KeepRow>, from: usize, pages: u64) {
        let entry_of = |row: &KeepRow| {
            let candidate = self.get(*row).expect("rows of a rank stand for files");
            Entry::of(row.0, candidate)
        };
        let mut equals: Vec<Entry> = chosen[from..].iter().map(entry_of).collect();
        chosen.truncate(from);
        let order = |one: &Entry, other: &Entry| {
            let id = |entry: &Entry| self.get(KeepRow(entry.row)).map(|file| file.id);
            (one.id_head.cmp(&other.id_head)).then_with(|| id(one).cmp(&id(other)))
        };
        // As many as it would take if all were of the same size, then more: most need no order at all.
        let all_pages: u64 = equals.iter().map(|entry| u64::from(entry.pages)).sum();
        let share = equals.len() as u64 * pages / all_pages.max(1);
        let (mut lacking, mut sorted, mut count) = (pages, 0, share as usize + 8);
        while lacking > 0 && sorted < equals.len() {
            count = count.min(equals.len() - sorted);
            let rest = &mut equals[sorted..];
            if count < rest.len() {
                rest.select_nth_unstable_by(count, order);
            }
            rest[..count].sort_unstable_by(order);
            for entry in &rest[..count] {
                if lacking == 0 {
                    break;
                }
                chosen.push(KeepRow(entry.row));
                lacking = lacking.saturating_sub(u64::from(entry.pages));
            }
            (sorted, count) = (sorted + count, count * 2);
        }
    }

    /// The files that would go first, until the closure has had enough: it is given each in the order of its going, and says false when it
    /// wants no more.
    pub fn least_worth(&self, mut wants_more: impl FnMut(KeepRow, &Candidate) -> bool) {
        let slot_of = |row: u32| self.slots[row as usize].as_ref();
        for entries in self.by_rank.iter().filter(|entries| !entries.is_empty()) {
            let ids = entries
                .iter()
                .filter_map(|entry| Some(Reverse((slot_of(entry.row)?.candidate.id, entry.row))));
            let mut heap: BinaryHeap<_> = ids.collect();
            while let Some(Reverse((_, row))) = heap.pop() {
                let slot = slot_of(row).expect("rows of a rank stand for files");
                if !wants_more(KeepRow(row), &slot.candidate) {
                    return;
                }
            }
        }
    }

    fn put(&mut self, row: u32, candidate: Candidate, now_s: u32) {
        let facts = candidate.facts(now_s);
        let rank = self.ranks.of_class[facts.class().index()];
        if self.by_rank.is_empty() {
            self.by_rank = vec![Vec::new(); self.ranks.priorities.len()].into();
        }
        let rows = &mut self.by_rank[usize::from(rank)];
        let turns_at_s = candidate.turns_at_s(&facts);
        self.slots[row as usize] = Some(Slot {
            candidate,
            rank,
            place: rows.len() as u32,
            turns_at_s: turns_at_s.unwrap_or(u32::MAX),
        });
        rows.push(Entry::of(row, &candidate));
        self.turns
            .extend(turns_at_s.map(|at_s| Reverse((at_s, row))));
        self.drop_stale_turns();
    }

    fn take(&mut self, row: u32) -> Option<Slot> {
        let slot = self.slots.get_mut(row as usize)?.take()?;
        let rows = &mut self.by_rank[usize::from(slot.rank)];
        rows.swap_remove(slot.place as usize);
        if let Some(moved) = rows.get(slot.place as usize) {
            let moved = self.slots[moved.row as usize].as_mut();
            moved.expect("rows of a rank stand for files").place = slot.place;
        }
        Some(slot)
    }

    /// Files that change often leave turns behind that mean nothing: never more than there are files, and a few.
    fn drop_stale_turns(&mut self) {
        if self.turns.len() < 2 * self.slots.len() + 64 {
            return;
        }
        let slots = &self.slots;
        let mut kept: Vec<_> = std::mem::take(&mut self.turns).into_vec();
        kept.sort_unstable();
        kept.dedup();
        kept.retain(|Reverse((at_s, row))| {
            let slot = slots[*row as usize].as_ref();
            slot.is_some_and(|slot| slot.turns_at_s == *at_s)
        });
        self.turns = kept.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NOW_S: u32 = 1_700_000_000;

    fn id(number: u16) -> PostId {
        PostId::from_bytes(crate::crypto::hash(&number.to_be_bytes()))
    }

    fn candidate(number: u16) -> Candidate {
        Candidate {
            id: id(number),
            entity: Entity::PLACEHOLDER,
            bytes: 1 + u64::from(number % 7) * 3_000,
            standing: AuthorStanding::Unknown,
            written_s: NOW_S,
            hearted_s: None,
            copies: 0,
            is_pinned: false,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, usize, u32, Option<u32>, u8, bool),
        Remove(u16),
        Heart(u16),
        Standing(u16, usize),
        Copies(u16, u8),
        Pass(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = 0..40u16;
        let ago = 0..200_000_000u32;
        let step = prop_oneof![
            4 => (number.clone(), 0..6usize, ago.clone(), proptest::option::of(ago), 0..25u8, any::<bool>())
                .prop_map(|(a, b, c, d, e, f)| Step::Insert(a, b, c, d, e, f)),
            1 => number.clone().prop_map(Step::Remove),
            1 => number.clone().prop_map(Step::Heart),
            1 => (number.clone(), 0..6usize).prop_map(|(a, b)| Step::Standing(a, b)),
            1 => (number, 0..25u8).prop_map(|(a, b)| Step::Copies(a, b)),
            2 => (0..50_000_000u32).prop_map(Step::Pass),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        /// Whatever happens in whatever order, the order is that of all files scored anew and sorted.
        #[test]
        fn the_order_is_that_of_the_rule(steps in steps()) {
            let mut order = KeepOrder::default();
            let mut naive: BTreeMap<u16, (KeepRow, Candidate)> = BTreeMap::new();
            let mut now_s = NOW_S;
            for step in steps {
                let mut change = |order: &mut KeepOrder, number: u16, change: &dyn Fn(&mut Candidate)| {
                    if let Some((row, known)) = naive.get_mut(&number) {
                        change(known);
                        order.update(*row, now_s, change);
                    }
                };
                match step {
                    Step::Heart(number) => change(&mut order, number, &|one| one.hearted_s = Some(now_s)),
                    Step::Standing(number, standing) => {
                        change(&mut order, number, &|one| one.standing = AuthorStanding::ALL[standing]);
                    }
                    Step::Copies(number, copies) => change(&mut order, number, &|one| one.copies = copies),
                    Step::Pass(seconds) => {
                        now_s = now_s.saturating_add(seconds);
                        order.turn(now_s);
                    }
                    Step::Remove(number) => {
                        let known = naive.remove(&number);
                        let removed = known.and_then(|(row, _)| order.remove(row));
                        prop_assert_eq!(removed, known.map(|(_, one)| one));
                    }
                    Step::Insert(number, standing, written_ago, hearted_ago, copies, is_pinned) => {
                        if naive.contains_key(&number) {
                            continue;
                        }
                        let one = Candidate {
                            standing: AuthorStanding::ALL[standing],
                            written_s: now_s - written_ago,
                            hearted_s: hearted_ago.map(|ago| now_s - ago),
                            copies,
                            is_pinned,
                            ..candidate(number)
                        };
                        naive.insert(number, (order.insert(one, now_s), one));
                    }
                }
                let mut sorted: Vec<Candidate> = naive.values().map(|(_, one)| *one).collect();
                sorted.sort_by_key(|one| (one.facts(now_s).priority(), one.id));
                let mut found = Vec::new();
                order.least_worth(|_, one| {
                    found.push(*one);
                    true
                });
                prop_assert_eq!(&found, &sorted);
                // Those that free so many pages are the first of the order, whoever may not go left out.
                let is_busy = |id: &PostId| id.as_bytes()[0].is_multiple_of(5);
                let mut wanted = (sorted.len() as u64 / 3) * 5;
                let free = sorted.iter().filter(|one| !is_busy(&one.id));
                let expected: Vec<PostId> = free
                    .take_while(|one| {
                        let is_wanted = wanted > 0;
                        wanted = wanted.saturating_sub(one.bytes.div_ceil(PAGE_BYTES));
                        is_wanted
                    })
                    .map(|one| one.id)
                    .collect();
                let id_of = |row: &KeepRow| order.get(*row).unwrap().id;
                let chosen = order.choose((sorted.len() as u64 / 3) * 5 * PAGE_BYTES, |row| !is_busy(&id_of(&row)));
                let mut chosen: Vec<PostId> = chosen.iter().map(id_of).collect();
                let mut expected = expected;
                chosen.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(chosen, expected);
                prop_assert_eq!(order.len(), naive.len());
                for (row, one) in naive.values() {
                    prop_assert_eq!(order.priority(*row), Some(one.facts(now_s).priority()));
                }
            }
        }
    }

    #[test]
    fn files_that_change_often_leave_no_turns_behind() {
        let mut order = KeepOrder::default();
        let row = order.insert(candidate(1), NOW_S);
        for later_s in 0..10_000 {
            order.update(row, NOW_S + later_s, |one| {
                one.hearted_s = Some(NOW_S + later_s)
            });
        }
        assert!(order.turns.len() < 100);
    }

    #[test]
    fn of_many_equals_as_many_go_as_it_takes() {
        let mut order = KeepOrder::default();
        let rows: Vec<KeepRow> = (0..2_000)
            .map(|number| {
                let one = Candidate {
                    bytes: 1 + u64::from(number % 50) * 10_000,
                    ..candidate(number)
                };
                order.insert(one, NOW_S)
            })
            .collect();
        for bytes in [0, 1, 4_097, 1_000_000, 100_000_000, u64::MAX / 2] {
            let chosen = order.choose(bytes, |_| true);
            let mut freed = 0;
            let mut first: Vec<KeepRow> = Vec::new();
            order.least_worth(|row, one| {
                let more = freed < bytes.div_ceil(PAGE_BYTES);
                if more {
                    first.push(row);
                    freed += one.bytes.div_ceil(PAGE_BYTES);
                }
                more
            });
            let sorted = |mut rows: Vec<KeepRow>| {
                rows.sort_unstable();
                rows
            };
            assert_eq!(sorted(chosen), sorted(first), "{bytes} bytes");
        }
        assert_eq!(order.choose(u64::MAX, |row| row == rows[7]), [rows[7]]);
    }

    #[test]
    fn who_has_enough_is_told_no_more() {
        let mut order = KeepOrder::default();
        for number in 0..100 {
            order.insert(candidate(number), NOW_S);
        }
        let mut ids: Vec<PostId> = (0..100).map(id).collect();
        ids.sort_unstable();
        let mut told = Vec::new();
        order.least_worth(|_, one| {
            told.push(one.id);
            told.len() < 10
        });
        assert_eq!(told, ids[..10]);
    }
}
