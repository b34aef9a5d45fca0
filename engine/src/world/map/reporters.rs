//! What each peer reports (PROTOCOL section 6): two sets of rows a reporter, its hop 1 and its hop 2.

use super::ReportedHop;
use super::index::Row;
use super::set_hash::SetHash;
use crate::domain::NodeId;
use crate::wire::Number;
use roaring::RoaringBitmap;

/// A reporter's number: small, and given again once it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reporter(u8);

#[derive(Clone, Debug)]
struct Sets {
    node: NodeId,
    hop_1: RoaringBitmap,
    hop_2: RoaringBitmap,
    /// Whether it names this node itself, which has no row.
    names_us: [bool; 2],
    hash: SetHash,
    digest: u64,
    /// The row of each number it gave on this connection.
    numbers: Vec<Row>,
    /// The rows that have one.
    numbered: RoaringBitmap,
    /// What is other than on the disk; `None` where the reporter is not on it.
    unwritten: Option<Unwritten>,
}

/// What of a reporter's sets is other than on the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Unwritten {
    /// Rows that are in a set here and not there, or the other way about.
    pub(super) hops: [RoaringBitmap; 2],
    /// Whether it names this node has changed.
    pub(super) names_us: bool,
}

impl Sets {
    fn hop_mut(&mut self, hop: ReportedHop) -> &mut RoaringBitmap {
        match hop {
            ReportedHop::One => &mut self.hop_1,
            ReportedHop::Two => &mut self.hop_2,
        }
    }

    /// A row has come into a set or gone from it: twice is not at all.
    fn note(&mut self, hop: ReportedHop, row: Row) {
        if let Some(unwritten) = &mut self.unwritten {
            let rows = &mut unwritten.hops[hop as usize];
            if !rows.remove(row) {
                rows.insert(row);
            }
        }
    }
}

/// Stands for a number that was not given.
const NO_ROW: Row = Row::MAX;
/// Stands for this node itself.
const OWN_ROW: Row = Row::MAX - 1;

/// What a reporter's number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// The id of this row.
    Row(Row),
    /// This node itself.
    Us,
}

/// The sets of all reporters.
#[derive(Clone, Debug, Default)]
pub struct ReporterSets(Vec<Option<Sets>>);

impl ReporterSets {
    /// Reporters at once: an entry counts them in one byte.
    pub const REPORTERS_MAX: usize = 255;

    /// Who reports, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Reporter, NodeId)> {
        let all = self.0.iter().enumerate();
        all.filter_map(|(number, sets)| Some((Reporter(number as u8), sets.as_ref()?.node)))
    }

    /// The number of a node, if it reports.
    #[must_use]
    pub fn by_node(&self, node: &NodeId) -> Option<Reporter> {
        self.iter()
            .find(|(_, other)| other == node)
            .map(|(reporter, _)| reporter)
    }

    /// Who is behind a number.
    #[must_use]
    pub fn node(&self, reporter: Reporter) -> Option<NodeId> {
        self.sets(reporter).map(|sets| sets.node)
    }

    /// The rows it names at this hop.
    #[must_use]
    pub fn rows(&self, reporter: Reporter, hop: ReportedHop) -> Option<&RoaringBitmap> {
        self.sets(reporter).map(|sets| match hop {
            ReportedHop::One => &sets.hop_1,
            ReportedHop::Two => &sets.hop_2,
        })
    }

    /// Who names this row at this hop.
    pub fn who(&self, hop: ReportedHop, row: Row) -> impl Iterator<Item = NodeId> {
        self.iter().filter_map(move |(reporter, node)| {
            self.rows(reporter, hop)?.contains(row).then_some(node)
        })
    }

    /// Bytes of the sets, nearly: what they take when written down.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let bytes = |sets: &Sets| {
            let numbers = sets.numbers.capacity() * size_of::<Row>();
            let unwritten = sets.unwritten.iter().flat_map(|unwritten| &unwritten.hops);
            let unwritten: usize = unwritten.map(RoaringBitmap::serialized_size).sum();
            sets.hop_1.serialized_size() + sets.hop_2.serialized_size() + numbers + unwritten
        };
        self.0.iter().flatten().map(bytes).sum()
    }

    /// The sum of the hashes of all it reports, this node itself included.
    #[must_use]
    pub fn digest(&self, reporter: Reporter) -> u64 {
        self.sets(reporter).map_or(0, |sets| sets.digest)
    }

    /// The hash of its connection.
    #[must_use]
    pub fn hash(&self, reporter: Reporter) -> SetHash {
        self.sets(reporter)
            .map_or_else(SetHash::default, |sets| sets.hash)
    }

    /// Whether it names this node itself at this hop.
    #[must_use]
    pub fn names_us(&self, reporter: Reporter, hop: ReportedHop) -> bool {
        self.sets(reporter)
            .is_some_and(|sets| sets.names_us[hop as usize])
    }

    /// What a number of its stands for.
    #[must_use]
    pub fn numbered(&self, reporter: Reporter, number: Number) -> Option<Numbered> {
        match *self.sets(reporter)?.numbers.get(number.index())? {
            NO_ROW => None,
            OWN_ROW => Some(Numbered::Us),
            row => Some(Numbered::Row(row)),
        }
    }

    fn sets(&self, reporter: Reporter) -> Option<&Sets> {
        self.0.get(usize::from(reporter.0))?.as_ref()
    }

    pub(super) fn add(&mut self, node: NodeId) -> Option<Reporter> {
        if let Some(reporter) = self.by_node(&node) {
            return Some(reporter);
        }
        let number = match self.0.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.0.len() < Self::REPORTERS_MAX => {
                self.0.push(None);
                self.0.len() - 1
            }
            None => return None,
        };
        self.0[number] = Some(Sets {
            node,
            hop_1: RoaringBitmap::new(),
            hop_2: RoaringBitmap::new(),
            names_us: [false; 2],
            hash: SetHash::default(),
            digest: 0,
            numbers: Vec::new(),
            numbered: RoaringBitmap::new(),
            unwritten: None,
        });
        Some(Reporter(number as u8))
    }

    pub(super) fn insert(&mut self, reporter: Reporter, hop: ReportedHop, row: Row) -> bool {
        let Some(sets) = self.sets_mut(reporter) else {
            return false;
        };
        let is_new = sets.hop_mut(hop).insert(row);
        if is_new {
            sets.note(hop, row);
        }
        is_new
    }

    pub(super) fn remove(&mut self, reporter: Reporter, hop: ReportedHop, row: Row) -> bool {
        let Some(sets) = self.sets_mut(reporter) else {
            return false;
        };
        let was_in = sets.hop_mut(hop).remove(row);
        if was_in {
            sets.note(hop, row);
        }
        was_in
    }

    /// What of it is other than on the disk; `None` where it is not on it.
    pub(super) fn unwritten(&self, reporter: Reporter) -> Option<&Unwritten> {
        self.sets(reporter)?.unwritten.as_ref()
    }

    /// It is on the disk as it is now, or not on it.
    pub(super) fn set_written(&mut self, reporter: Reporter, is_written: bool) {
        if let Some(sets) = self.sets_mut(reporter) {
            sets.unwritten = is_written.then(Unwritten::default);
        }
    }

    /// It names this node itself, or no more. Whether that is new.
    pub(super) fn set_names_us(
        &mut self,
        reporter: Reporter,
        hop: ReportedHop,
        names: bool,
        own: &NodeId,
    ) -> bool {
        let Some(sets) = self.sets_mut(reporter) else {
            return false;
        };
        if std::mem::replace(&mut sets.names_us[hop as usize], names) == names {
            return false;
        }
        if let Some(unwritten) = &mut sets.unwritten {
            unwritten.names_us = true;
        }
        self.count(reporter, hop, own, names);
        true
    }

    /// Takes an id into the digest, or out of it.
    pub(super) fn count(
        &mut self,
        reporter: Reporter,
        hop: ReportedHop,
        node: &NodeId,
        is_in: bool,
    ) {
        if let Some(sets) = self.sets_mut(reporter) {
            let hash = sets.hash.in_digest(hop, node);
            sets.digest = match is_in {
                true => sets.digest.wrapping_add(hash),
                false => sets.digest.wrapping_sub(hash),
            };
        }
    }

    /// Another connection, another hash.
    pub(super) fn set_hash(&mut self, reporter: Reporter, hash: SetHash, digest: u64) {
        if let Some(sets) = self.sets_mut(reporter) {
            sets.hash = hash;
            sets.digest = digest;
        }
    }

    /// A number stands for something else from now on. Whether its row had none before, and the row that has none now.
    pub(super) fn set_number(
        &mut self,
        reporter: Reporter,
        number: Number,
        stands_for: Numbered,
    ) -> (bool, Option<Row>) {
        let Some(sets) = self.sets_mut(reporter) else {
            return (false, None);
        };
        let row = match stands_for {
            Numbered::Row(row) => row,
            Numbered::Us => OWN_ROW,
        };
        if sets.numbers.len() <= number.index() {
            sets.numbers.resize(number.index() + 1, NO_ROW);
        }
        if sets.numbers[number.index()] == row {
            return (false, None);
        }
        let is_new = row == OWN_ROW || sets.numbered.insert(row);
        if !is_new {
            // One number for an id: the older is free at the sender's.
            for older in sets.numbers.iter_mut().filter(|older| **older == row) {
                *older = NO_ROW;
            }
        }
        let before = std::mem::replace(&mut sets.numbers[number.index()], row);
        let freed = sets.numbered.remove(before).then_some(before);
        (is_new && row != OWN_ROW, freed)
    }

    /// Forgets its numbers; the rows they stood for.
    pub(super) fn take_numbers(&mut self, reporter: Reporter) -> Vec<Row> {
        let Some(sets) = self.sets_mut(reporter) else {
            return Vec::new();
        };
        sets.numbers = Vec::new();
        std::mem::take(&mut sets.numbered).iter().collect()
    }

    fn sets_mut(&mut self, reporter: Reporter) -> Option<&mut Sets> {
        self.0.get_mut(usize::from(reporter.0))?.as_mut()
    }

    pub(super) fn first_rows(
        &self,
        reporter: Reporter,
        rows_max: usize,
    ) -> Vec<(ReportedHop, Row)> {
        let hops = [ReportedHop::One, ReportedHop::Two];
        let named = hops.into_iter().flat_map(|hop| {
            let rows = self.rows(reporter, hop).into_iter().flatten();
            rows.map(move |row| (hop, row))
        });
        named.take(rows_max).collect()
    }

    pub(super) fn remove_if_empty(&mut self, reporter: Reporter) -> bool {
        let is_empty = self
            .sets(reporter)
            .is_none_or(|sets| sets.hop_1.is_empty() && sets.hop_2.is_empty());
        if is_empty && let Some(place) = self.0.get_mut(usize::from(reporter.0)) {
            *place = None;
        }
        is_empty
    }
}
