//! The discovery map (PROTOCOL section 6): who is where, within three hops.
//!
//! Every id is one entity with one packed component. It never changes archetype and is never despawned: a row whose id is known
//! no more is vacant until the next new id takes it. So the rows of the one table are a dense numbering of the ids, which the
//! indexes and the reporters' sets go by.
//!
//! An entry counts how many reporters name its id at which hop; the hop follows from that alone ([`MapEntry::hop`]), so it does
//! not matter in which order reports come. The own id never enters.

pub mod access;
mod changes;
pub mod derive;
pub mod index;
mod journal;
pub mod nearest;
pub mod numbers;
mod reporters;
pub mod set_hash;
pub mod snapshot;

pub(crate) use access::make_room;
pub use access::{MapEdit, MapView, NEW_IDS_PER_FRAME, entries_of, spawn_vacant};
pub use changes::RowChanges;
pub use derive::{Derived, RowBits};
pub use index::{KeyedIndex, Row};
pub use journal::{Written, remember};
pub use nearest::NearestIndex;
pub use numbers::{NumberBook, Told};
pub use reporters::{Numbered, Reporter, ReporterSets};
pub use set_hash::{SetHash, same_at_hop_1};
pub use snapshot::{Chunk, MapImage};

use crate::domain::NodeId;
use crate::entropy::Entropy;
use crate::refusal::Refusal;
use crate::wire::Number;
use bevy_ecs::prelude::{Component, Resource};
use roaring::RoaringBitmap;

/// One id on the map, or a vacant row.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MapEntry {
    /// Who.
    pub node: NodeId,
    /// By [`Self::BY_HOP_1`], [`Self::BY_HOP_2`], [`Self::NUMBERED`] and [`Self::FLAGS`].
    marks: [u8; 4],
}

impl MapEntry {
    /// A row without an id.
    pub const VACANT: Self = Self {
        node: NodeId::from_bytes([0; 32]),
        marks: [0; 4],
    };
    /// How many reporters are connected to it.
    const BY_HOP_1: usize = 0;
    /// How many reporters have it at their hop 2.
    const BY_HOP_2: usize = 1;
    /// How many reporters have a number for it.
    const NUMBERED: usize = 2;
    const FLAGS: usize = 3;
    const CONNECTED: u8 = 1;
    const ANCHOR: u8 = 2;
    const WIDE: u8 = 4;
    const TAKEN: u8 = 8;
    /// It is in the list of rows to look at when sweeping.
    const LAPSED: u8 = 16;

    /// 1, 2 or 3, the smallest at which the id is known; `None` where it is known no more.
    #[must_use]
    pub fn hop(&self) -> Option<u8> {
        match self.marks {
            [.., flags] if flags & Self::CONNECTED != 0 => Some(1),
            [1..=u8::MAX, ..] => Some(2),
            [_, 1..=u8::MAX, ..] => Some(3),
            _ => None,
        }
    }

    /// Whether it is known at any hop.
    #[must_use]
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        // One read and one test: what waits for an entry from memory holds up the lookups behind it.
        const KNOWN: u32 = u32::from_ne_bytes([0xff, 0xff, 0, MapEntry::CONNECTED]);
        u32::from_ne_bytes(self.marks) & KNOWN != 0
    }

    /// How many reporters name it, at either hop.
    #[must_use]
    pub fn reporters(&self) -> u32 {
        u32::from(self.marks[Self::BY_HOP_1]) + u32::from(self.marks[Self::BY_HOP_2])
    }

    /// How many reporters name it at this hop.
    #[must_use]
    pub fn reporters_at(&self, hop: ReportedHop) -> usize {
        usize::from(match hop {
            ReportedHop::One => self.marks[Self::BY_HOP_1],
            ReportedHop::Two => self.marks[Self::BY_HOP_2],
        })
    }

    /// It serves as an anchor (known at hop 1 and 2).
    #[must_use]
    pub fn is_anchor(&self) -> bool {
        self.marks[Self::FLAGS] & Self::ANCHOR != 0
    }

    /// It has a wide slot here.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.marks[Self::FLAGS] & Self::WIDE != 0
    }

    /// Whether the row stands for an id, be it one that is about to go.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.marks[Self::FLAGS] & Self::TAKEN != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        match on {
            true => self.marks[Self::FLAGS] |= flag,
            false => self.marks[Self::FLAGS] &= !flag,
        }
    }
}

/// What a connected peer is, for its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// See [`MapEntry::is_anchor`].
    pub is_anchor: bool,
    /// See [`MapEntry::is_wide`].
    pub is_wide: bool,
}

/// At which of its own hops a reporter has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReportedHop {
    /// It is connected to it: our hop 2.
    One,
    /// It heard of it from those: our hop 3.
    Two,
}

/// How many ids at which hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopCounts {
    /// Connected peers.
    pub hop_1: usize,
    /// Their peers.
    pub hop_2: usize,
    /// And theirs.
    pub hop_3: usize,
}

impl HopCounts {
    /// All together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.hop_1 + self.hop_2 + self.hop_3
    }
}

/// Everything about the map but the entries themselves, which every method is lent: all rows of the table, in their order.
#[derive(Resource, Debug)]
pub struct DiscoveryMap {
    own: NodeId,
    entries_max: usize,
    index: KeyedIndex,
    nearest: NearestIndex,
    vacant: Vec<Row>,
    room_wanted: usize,
    /// Rows whose id was known at no hop at some time since the last sweep.
    lapsed: Vec<Row>,
    connected: RoaringBitmap,
    hop_2: RoaringBitmap,
    hop_3: usize,
    reporters: ReporterSets,
    journal: journal::Journal,
}

impl DiscoveryMap {
    /// An empty map of this node, of at most so many ids.
    #[must_use]
    pub fn new(own: NodeId, entries_max: usize, entropy: &mut Entropy) -> Self {
        Self {
            own,
            entries_max,
            index: KeyedIndex::new(entropy),
            nearest: NearestIndex::default(),
            vacant: Vec::new(),
            room_wanted: 0,
            lapsed: Vec::new(),
            connected: RoaringBitmap::new(),
            hop_2: RoaringBitmap::new(),
            hop_3: 0,
            reporters: ReporterSets::default(),
            journal: journal::Journal::default(),
        }
    }

    /// Rows that new ids can take.
    #[must_use]
    pub fn vacant(&self) -> usize {
        self.vacant.len()
    }

    /// The next frame is to have so many vacant rows at least.
    pub fn ask_for_room(&mut self, ids: usize) {
        self.room_wanted = self.room_wanted.max(ids);
    }

    /// New vacant rows have been added to the table, behind the ones before.
    pub fn add_rows(&mut self, rows: std::ops::Range<Row>) {
        self.vacant.extend(rows.rev());
    }

    /// Makes room in the index for so many ids in all: cheaper than growing there.
    pub fn reserve(&mut self, ids: usize, entries: &[MapEntry]) {
        self.index.reserve(ids, entries);
    }

    /// How many ids at which hop.
    #[must_use]
    pub fn counts(&self) -> HopCounts {
        HopCounts {
            hop_1: self.connected.len() as usize,
            hop_2: self.hop_2.len() as usize,
            hop_3: self.hop_3,
        }
    }

    /// Bytes of the indexes and sets; the entries themselves are the world's.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.nearest.memory_bytes() + self.reporters.memory_bytes()
    }

    /// The reporters and their sets.
    #[must_use]
    pub fn reporters(&self) -> &ReporterSets {
        &self.reporters
    }

    /// Who names this row at this hop. An entry knows how many there are: once those are found, nobody else is asked.
    pub fn who(
        &self,
        hop: ReportedHop,
        row: Row,
        entries: &[MapEntry],
    ) -> impl Iterator<Item = NodeId> {
        let count = entries[row as usize].reporters_at(hop);
        self.reporters.who(hop, row).take(count)
    }

    /// The rows of connected peers.
    #[must_use]
    pub fn hop_1(&self) -> &RoaringBitmap {
        &self.connected
    }

    /// The rows at hop 2.
    #[must_use]
    pub fn hop_2(&self) -> &RoaringBitmap {
        &self.hop_2
    }

    /// The row of an id that is known at some hop.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, node: &NodeId, entries: &[MapEntry]) -> Option<Row> {
        self.index.find_if(node, entries, MapEntry::is_known)
    }

    /// The rows of many ids at once, in their order; those known at no hop are `None`.
    pub fn find_all(
        &self,
        nodes: &[NodeId],
        entries: &[MapEntry],
        found: impl FnMut(usize, Option<Row>),
    ) {
        self.index
            .find_all(nodes, entries, MapEntry::is_known, found);
    }

    /// Up to `count` ids that the closure accepts, closest (XOR) to the target first.
    #[must_use]
    pub fn closest(
        &self,
        target: &NodeId,
        count: usize,
        entries: &[MapEntry],
        mut accepts: impl FnMut(&MapEntry) -> bool,
    ) -> Vec<NodeId> {
        let rows = self.nearest.closest(target, count, entries, |row| {
            let entry = &entries[row as usize];
            entry.hop().is_some() && accepts(entry)
        });
        rows.into_iter()
            .map(|row| entries[row as usize].node)
            .collect()
    }

    /// A peer has come up, or has become something else.
    ///
    /// # Errors
    /// [`Refusal::Full`] where no row is vacant; the own id is a [`Refusal::WrongAuthor`].
    pub fn connect(
        &mut self,
        node: NodeId,
        facts: PeerFacts,
        entries: &mut [MapEntry],
    ) -> Result<(), Refusal> {
        let row = self.take_row(node, usize::MAX, entries)?;
        self.change(row, entries, |entry| {
            entry.set(MapEntry::CONNECTED, true);
            entry.set(MapEntry::ANCHOR, facts.is_anchor);
            entry.set(MapEntry::WIDE, facts.is_wide);
        });
        Ok(())
    }

    /// A peer has gone. What it reported stays until [`Self::forget`].
    pub fn disconnect(&mut self, node: &NodeId, entries: &mut [MapEntry]) {
        if let Some(row) = self.index.find(node, entries) {
            self.change(row, entries, |entry| {
                entry.set(MapEntry::CONNECTED, false);
                entry.set(MapEntry::WIDE, false);
            });
        }
    }

    /// A reporter names an id. Whether that is new. The own id counts in its digest and makes no entry.
    ///
    /// # Errors
    /// [`Refusal::Full`] where the map is.
    pub fn report(
        &mut self,
        reporter: Reporter,
        hop: ReportedHop,
        node: NodeId,
        is_anchor: bool,
        entries: &mut [MapEntry],
    ) -> Result<bool, Refusal> {
        if node == self.own {
            return Ok(self.reporters.set_names_us(reporter, hop, true, &node));
        }
        let room = match hop {
            ReportedHop::One => usize::MAX,
            ReportedHop::Two => self.entries_max,
        };
        let row = self.take_row(node, room, entries)?;
        let is_new = self.report_row(reporter, hop, row, is_anchor, entries);
        if !entries[row as usize].is_known() {
            self.lapse(row, entries);
        }
        Ok(is_new)
    }

    /// The same for an id whose row is known.
    pub fn report_row(
        &mut self,
        reporter: Reporter,
        hop: ReportedHop,
        row: Row,
        is_anchor: bool,
        entries: &mut [MapEntry],
    ) -> bool {
        if !self.reporters.insert(reporter, hop, row) {
            return false;
        }
        self.reporters
            .count(reporter, hop, &entries[row as usize].node, true);
        self.change(row, entries, |entry| {
            match hop {
                ReportedHop::One => entry.marks[MapEntry::BY_HOP_1] += 1,
                ReportedHop::Two => entry.marks[MapEntry::BY_HOP_2] += 1,
            }
            if is_anchor && entry.marks[MapEntry::FLAGS] & MapEntry::CONNECTED == 0 {
                entry.set(MapEntry::ANCHOR, true);
            }
        });
        true
    }

    /// A reporter takes an id back. Whether it had named it.
    pub fn withdraw_row(
        &mut self,
        reporter: Reporter,
        hop: ReportedHop,
        row: Row,
        entries: &mut [MapEntry],
    ) -> bool {
        if !self.reporters.remove(reporter, hop, row) {
            return false;
        }
        self.reporters
            .count(reporter, hop, &entries[row as usize].node, false);
        self.change(row, entries, |entry| match hop {
            ReportedHop::One => entry.marks[MapEntry::BY_HOP_1] -= 1,
            ReportedHop::Two => entry.marks[MapEntry::BY_HOP_2] -= 1,
        });
        true
    }

    /// See [`Self::withdraw_row`].
    pub fn withdraw(
        &mut self,
        reporter: Reporter,
        hop: ReportedHop,
        node: &NodeId,
        entries: &mut [MapEntry],
    ) -> bool {
        if *node == self.own {
            return self.reporters.set_names_us(reporter, hop, false, node);
        }
        let row = self.index.find(node, entries);
        row.is_some_and(|row| self.withdraw_row(reporter, hop, row, entries))
    }

    /// The rows that this reporter alone names, at its hop 2: what would go with it (PROTOCOL section 6, wide peers).
    pub fn sole_rows<'a>(
        &'a self,
        node: &NodeId,
        entries: &'a [MapEntry],
    ) -> impl Iterator<Item = Row> + 'a {
        let reporter = self.reporters.by_node(node);
        let rows = reporter.and_then(|reporter| self.reporters.rows(reporter, ReportedHop::Two));
        rows.into_iter().flatten().filter(|row| {
            let entry = &entries[*row as usize];
            entry.hop() == Some(3) && entry.reporters() == 1
        })
    }

    /// Begins to take in the reports of a peer. `None` past [`ReporterSets::REPORTERS_MAX`].
    pub fn add_reporter(&mut self, node: NodeId) -> Option<Reporter> {
        self.reporters.add(node)
    }

    /// A reporter has a new connection: other numbers, and another hash for its digest.
    pub fn begin_connection(
        &mut self,
        reporter: Reporter,
        hash: SetHash,
        entries: &mut [MapEntry],
    ) {
        self.forget_numbers(reporter, entries);
        let mut digest = 0u64;
        for hop in [ReportedHop::One, ReportedHop::Two] {
            for row in self.reporters.rows(reporter, hop).into_iter().flatten() {
                digest = digest.wrapping_add(hash.in_digest(hop, &entries[row as usize].node));
            }
            if self.reporters.names_us(reporter, hop) {
                digest = digest.wrapping_add(hash.in_digest(hop, &self.own));
            }
        }
        self.reporters.set_hash(reporter, hash, digest);
    }

    /// A reporter gives an id a number, whether it reports it or not.
    ///
    /// # Errors
    /// [`Refusal::Full`] where the map is.
    pub fn number(
        &mut self,
        reporter: Reporter,
        number: Number,
        node: NodeId,
        entries: &mut [MapEntry],
    ) -> Result<Numbered, Refusal> {
        let stands_for = match node == self.own {
            true => Numbered::Us,
            false => Numbered::Row(self.take_row(node, self.entries_max, entries)?),
        };
        let (is_new, freed) = self.reporters.set_number(reporter, number, stands_for);
        if let Numbered::Row(row) = stands_for {
            entries[row as usize].marks[MapEntry::NUMBERED] += u8::from(is_new);
            if !entries[row as usize].is_known() {
                self.lapse(row, entries);
            }
        }
        if let Some(row) = freed {
            entries[row as usize].marks[MapEntry::NUMBERED] -= 1;
        }
        Ok(stands_for)
    }

    fn forget_numbers(&mut self, reporter: Reporter, entries: &mut [MapEntry]) {
        for row in self.reporters.take_numbers(reporter) {
            entries[row as usize].marks[MapEntry::NUMBERED] -= 1;
        }
    }

    /// The own id.
    #[must_use]
    pub fn own(&self) -> &NodeId {
        &self.own
    }

    /// Takes back what a reporter named, at most so many ids; whether all of it is gone, and the reporter with it.
    pub fn forget(&mut self, reporter: Reporter, ids_max: usize, entries: &mut [MapEntry]) -> bool {
        self.forget_numbers(reporter, entries);
        for (hop, row) in self.reporters.first_rows(reporter, ids_max) {
            self.withdraw_row(reporter, hop, row, entries);
        }
        self.note_forgetting(reporter);
        self.reporters.remove_if_empty(reporter)
    }

    /// Takes in what changed, so that [`Self::closest`] sees it.
    pub fn settle(&mut self, entries: &[MapEntry]) {
        self.nearest.settle(entries);
    }

    /// Gives up the rows whose ids are known no more and that nobody has a number for; the closure says of which rows this node
    /// has one itself. Until then they keep them: an id that comes back soon finds its own.
    pub fn sweep(&mut self, entries: &mut [MapEntry], is_held: impl Fn(Row) -> bool) {
        let mut lapsed = std::mem::take(&mut self.lapsed);
        let still_held =
            |row: &Row| entries[*row as usize].marks[MapEntry::NUMBERED] > 0 || is_held(*row);
        let known = |row: &Row| entries[*row as usize].is_known();
        self.lapsed = lapsed
            .extract_if(.., |row| !known(row) && still_held(row))
            .collect();
        let mut gone = Vec::with_capacity(lapsed.len());
        for row in lapsed {
            entries[row as usize].set(MapEntry::LAPSED, false);
            let entry = entries[row as usize];
            if !entry.is_known() {
                self.index.remove(&entry.node, entries);
                self.nearest.remove(row);
                entries[row as usize].set(MapEntry::TAKEN, false);
                self.journal.vacate(row);
                gone.push(row);
            }
        }
        self.nearest.settle(entries);
        for row in &gone {
            entries[*row as usize] = MapEntry::VACANT;
        }
        self.vacant.append(&mut gone);
        self.vacant.shrink_to(2 * self.vacant.len());
    }

    /// The row of an id, a vacant one if it had none.
    fn take_row(
        &mut self,
        node: NodeId,
        entries_max: usize,
        entries: &mut [MapEntry],
    ) -> Result<Row, Refusal> {
        if node == self.own {
            return Err(Refusal::WrongAuthor);
        }
        if let Some(row) = self.index.find(&node, entries) {
            return Ok(row);
        }
        if self.index.len() >= entries_max {
            return Err(Refusal::Full);
        }
        let row = self.vacant.pop().ok_or(Refusal::Full)?;
        let entry = &mut entries[row as usize];
        *entry = MapEntry {
            node,
            ..MapEntry::VACANT
        };
        entry.set(MapEntry::TAKEN, true);
        self.index.insert(row, entries);
        self.nearest.insert(row);
        Ok(row)
    }

    /// Has the next sweep look at a row whose id is known no more.
    fn lapse(&mut self, row: Row, entries: &mut [MapEntry]) {
        let entry = &mut entries[row as usize];
        if entry.marks[MapEntry::FLAGS] & MapEntry::LAPSED == 0 {
            entry.set(MapEntry::LAPSED, true);
            self.lapsed.push(row);
        }
    }

    /// Changes an entry and whatever depends on its hop.
    fn change(&mut self, row: Row, entries: &mut [MapEntry], change: impl FnOnce(&mut MapEntry)) {
        let entry = &mut entries[row as usize];
        let before = entry.hop();
        change(entry);
        let after = entry.hop();
        if before == after {
            return;
        }
        match before {
            Some(1) => drop(self.connected.remove(row)),
            Some(2) => drop(self.hop_2.remove(row)),
            Some(_) => self.hop_3 -= 1,
            None => {}
        }
        match after {
            Some(1) => drop(self.connected.insert(row)),
            Some(2) => drop(self.hop_2.insert(row)),
            Some(_) => self.hop_3 += 1,
            None => {
                entry.set(MapEntry::ANCHOR, false);
                self.lapse(row, entries);
            }
        }
    }
}

#[cfg(test)]
mod tests;
