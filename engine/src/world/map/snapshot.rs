//! How the map lies on the disk (PROTOCOL section 12, `discovery_map`): a snapshot and a journal of what changed since, both of
//! the same records over rows. An id is written once, where its row is first named; sets of rows are lists of gaps and runs.
//!
//! A value is bound to its place, its owner and its generation by a checksum, so that bytes that are damaged or another's are
//! refused as a whole. Values up to the last one that says "complete to here" make the image; those after it do not count, and
//! a generation without one is no image at all. This is a cache: nothing in here is trusted further than a peer's report is.

use super::{MapEntry, ReporterSets, Row};
use crate::crypto::hash;
use crate::domain::NodeId;
use crate::io::MapRow;
use crate::limits;
use crate::refusal::Refusal;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};

/// A value is handed out once it is as long as this.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Keys of the journal follow those of the snapshot.
pub const JOURNAL_BIT: u32 = 1 << 31;

const VERSION: u8 = 1;
/// Version, whether it is complete to here, and of how many chunks the snapshot is.
const HEADER_BYTES: usize = 6;
const CHECKSUM_BYTES: usize = 8;

const IDS: u8 = 1;
const REPORTER: u8 = 2;
const CHANGED: u8 = 3;
const GONE: u8 = 4;

/// What a reporter names, by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReporterImage {
    /// Whether it names this node itself, at its hop 1 and 2.
    pub names_us: [bool; 2],
    /// The rows of its hop 1 and 2.
    pub hops: [RoaringBitmap; 2],
}

/// What changed of a reporter's sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReporterChanges {
    /// Whether it names this node itself, at its hop 1 and 2.
    pub names_us: [bool; 2],
    /// Rows it names now, at its hop 1 and 2.
    pub added: [RoaringBitmap; 2],
    /// Rows it names no more.
    pub removed: [RoaringBitmap; 2],
}

fn put_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Rows as gaps, each with a bit that says whether the length of a run follows.
fn put_rows(bytes: &mut Vec<u8>, rows: &RoaringBitmap) {
    put_number(bytes, rows.len() as u32);
    let (mut next, mut rows) = (0, rows.iter().peekable());
    while let Some(first) = rows.next() {
        let mut last = first;
        while rows.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        let is_run = last > first;
        put_number(bytes, (first - next) << 1 | u32::from(is_run));
        if is_run {
            put_number(bytes, last - first);
        }
        next = last + 1;
    }
}

fn put_flags(bytes: &mut Vec<u8>, names_us: [bool; 2]) {
    bytes.push(u8::from(names_us[0]) | u8::from(names_us[1]) << 1);
}

fn checksum(own: &NodeId, generation: u32, chunk: u32, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let place = [
        own.as_bytes().as_slice(),
        &generation.to_be_bytes(),
        &chunk.to_be_bytes(),
        &hash(body),
    ];
    let sum = hash(&place.concat());
    std::array::from_fn(|i| sum[i])
}

/// A value in the making.
#[derive(Clone, Debug)]
pub struct Chunk(Vec<u8>);

impl Default for Chunk {
    fn default() -> Self {
        Self(vec![0; HEADER_BYTES])
    }
}

impl Chunk {
    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no record is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER_BYTES
    }

    /// Which ids these rows stand for from here on.
    pub fn ids(&mut self, rows: &RoaringBitmap, entries: &[MapEntry]) {
        let anchors = rows
            .iter()
            .filter(|row| entries[*row as usize].is_anchor())
            .collect();
        self.0.push(IDS);
        put_rows(&mut self.0, rows);
        put_rows(&mut self.0, &anchors);
        for row in rows {
            self.0.extend(entries[row as usize].node.as_bytes());
        }
    }

    /// All that a reporter names; what was said of it before is void.
    pub fn reporter(&mut self, node: &NodeId, names_us: [bool; 2], hops: [&RoaringBitmap; 2]) {
        self.0.push(REPORTER);
        self.0.extend(node.as_bytes());
        put_flags(&mut self.0, names_us);
        hops.iter().for_each(|rows| put_rows(&mut self.0, rows));
    }

    /// What changed of it.
    pub fn changed(&mut self, node: &NodeId, changes: &ReporterChanges) {
        self.0.push(CHANGED);
        self.0.extend(node.as_bytes());
        put_flags(&mut self.0, changes.names_us);
        for rows in changes.added.iter().chain(&changes.removed) {
            put_rows(&mut self.0, rows);
        }
    }

    /// It reports no more.
    pub fn gone(&mut self, node: &NodeId) {
        self.0.push(GONE);
        self.0.extend(node.as_bytes());
    }

    /// The value for its place. `complete` where the image is whole at its end: of how many chunks the snapshot is.
    #[must_use]
    pub fn seal(
        mut self,
        own: &NodeId,
        generation: u32,
        chunk: u32,
        complete: Option<u32>,
    ) -> MapRow {
        self.0[0] = VERSION;
        self.0[1] = u8::from(complete.is_some());
        self.0[2..HEADER_BYTES].copy_from_slice(&complete.unwrap_or_default().to_be_bytes());
        let sum = checksum(own, generation, chunk, &self.0);
        self.0.extend(sum);
        MapRow {
            generation,
            chunk,
            bytes: self.0.into(),
        }
    }
}

/// The records of a value that lies where it belongs, and what its header says.
fn open<'a>(row: &'a MapRow, own: &NodeId) -> Result<(Option<u32>, &'a [u8]), Refusal> {
    let (body, sum) = row
        .bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(Refusal::Malformed)?;
    if checksum(own, row.generation, row.chunk, body) != *sum {
        return Err(Refusal::ListMismatch);
    }
    let (header, records) = body
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(Refusal::Malformed)?;
    let [VERSION, complete, chunks @ ..] = *header else {
        return Err(Refusal::WrongVersion);
    };
    let chunks = u32::from_be_bytes(chunks);
    Ok(((complete == 1).then_some(chunks), records))
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Refusal> {
        let (first, rest) = self.0.split_first().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u32, Refusal> {
        let mut number = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(number).map_err(|_| Refusal::OutOfRange);
            }
        }
        Err(Refusal::OutOfRange)
    }

    fn node(&mut self) -> Result<NodeId, Refusal> {
        let (id, rest) = self.0.split_first_chunk::<32>().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(NodeId::from_bytes(*id))
    }

    fn flags(&mut self) -> Result<[bool; 2], Refusal> {
        match self.byte()? {
            flags @ 0..4 => Ok([flags & 1 != 0, flags & 2 != 0]),
            _ => Err(Refusal::OutOfRange),
        }
    }

    /// At most so many rows, all below `rows_max`.
    fn rows(&mut self, count_max: u64, rows_max: Row) -> Result<RoaringBitmap, Refusal> {
        let count = self.number()?;
        if u64::from(count) > count_max.min(u64::from(rows_max)) {
            return Err(Refusal::OutOfRange);
        }
        let mut rows: Vec<Row> = Vec::with_capacity((count as usize).min(self.0.len()));
        let (mut next, mut left) = (0u64, u64::from(count));
        while left > 0 {
            let token = self.number()?;
            let more = match token & 1 {
                1 => u64::from(self.number()?),
                _ => 0,
            };
            let first = next + u64::from(token >> 1);
            next = first + more + 1;
            if more >= left || next > u64::from(rows_max) {
                return Err(Refusal::OutOfRange);
            }
            left -= more + 1;
            rows.extend(first as Row..next as Row);
        }
        RoaringBitmap::from_sorted_iter(rows).map_err(|_| Refusal::Malformed)
    }

    fn hops(&mut self, rows_max: Row) -> Result<[RoaringBitmap; 2], Refusal> {
        Ok([
            self.rows(2 * limits::REPORTED_HOP_1_MAX, rows_max)?,
            self.rows(limits::REPORTED_HOP_2_MAX, rows_max)?,
        ])
    }
}

/// The map as it lay on the disk: who reported what, over rows of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MapImage {
    /// Which generation it is of.
    pub generation: u32,
    /// Who reported what.
    pub reporters: BTreeMap<NodeId, ReporterImage>,
    /// The id of each row.
    ids: Vec<NodeId>,
    /// The rows that have one.
    defined: RoaringBitmap,
    anchors: RoaringBitmap,
}

impl MapImage {
    /// The newest whole image among these values, in whatever order they come; `None` where none is whole. Rows at or past
    /// `rows_max` are refused.
    ///
    /// # Errors
    /// Why the newest one is none, where no older one is whole.
    pub fn decode(rows: &[MapRow], own: &NodeId, rows_max: Row) -> Result<Option<Self>, Refusal> {
        let mut sorted: Vec<&MapRow> = rows.iter().collect();
        sorted.sort_by_key(|row| (row.generation, row.chunk));
        let mut refusal = None;
        for generation in sorted.chunk_by(|a, b| a.generation == b.generation).rev() {
            match Self::decode_generation(generation, own, rows_max) {
                Ok(Some(image)) => return Ok(Some(image)),
                Ok(None) => {}
                Err(error) => _ = refusal.get_or_insert(error),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    fn decode_generation(
        rows: &[&MapRow],
        own: &NodeId,
        rows_max: Row,
    ) -> Result<Option<Self>, Refusal> {
        let split = rows.partition_point(|row| row.chunk < JOURNAL_BIT);
        let (snapshot, journal) = rows.split_at(split);
        // The journal counts as far as it is whole, and then up to where it was complete.
        let mut complete = None;
        let mut opened = Vec::new();
        for (seq, row) in journal.iter().enumerate() {
            let is_next = row.chunk == JOURNAL_BIT | seq as u32;
            let value = open(row, own).ok().filter(|_| is_next);
            let Some((chunks, records)) = value else {
                break;
            };
            opened.push(records);
            complete = chunks.map(|chunks| (opened.len(), chunks)).or(complete);
        }
        let Some((journal_values, chunks)) = complete else {
            // What was cut off in writing is no damage; a first journal value that cannot be read is.
            let refused = journal.first().and_then(|first| open(first, own).err());
            return refused.map_or(Ok(None), Err);
        };
        if snapshot.len() != chunks as usize {
            return Err(Refusal::Malformed);
        }
        let mut image = Self::default();
        for (number, row) in snapshot.iter().enumerate() {
            let (_, records) = open(row, own)?;
            if row.chunk != number as u32 {
                return Err(Refusal::Malformed);
            }
            image.take(records, own, rows_max)?;
        }
        for records in &opened[..journal_values] {
            image.take(records, own, rows_max)?;
        }
        image.generation = rows[0].generation;
        image.check()?;
        Ok(Some(image))
    }

    fn take(&mut self, records: &[u8], own: &NodeId, rows_max: Row) -> Result<(), Refusal> {
        let mut reader = Reader(records);
        while !reader.0.is_empty() {
            match reader.byte()? {
                IDS => self.take_ids(&mut reader, own, rows_max)?,
                REPORTER => {
                    let node = reader.node()?;
                    if node == *own {
                        return Err(Refusal::WrongAuthor);
                    }
                    let image = ReporterImage {
                        names_us: reader.flags()?,
                        hops: reader.hops(rows_max)?,
                    };
                    self.reporters.insert(node, image);
                }
                CHANGED => {
                    let node = reader.node()?;
                    let image = self.reporters.get_mut(&node).ok_or(Refusal::Malformed)?;
                    image.names_us = reader.flags()?;
                    let added = reader.hops(rows_max)?;
                    let removed = reader.hops(rows_max)?;
                    for (rows, (added, removed)) in
                        image.hops.iter_mut().zip(added.iter().zip(&removed))
                    {
                        *rows |= added;
                        *rows -= removed;
                    }
                }
                GONE => drop(self.reporters.remove(&reader.node()?)),
                _ => return Err(Refusal::Malformed),
            }
            if self.reporters.len() > ReporterSets::REPORTERS_MAX {
                return Err(Refusal::TooLarge);
            }
        }
        Ok(())
    }

    fn take_ids(
        &mut self,
        reader: &mut Reader<'_>,
        own: &NodeId,
        rows_max: Row,
    ) -> Result<(), Refusal> {
        let rows = reader.rows(u64::from(rows_max), rows_max)?;
        let anchors = reader.rows(rows.len(), rows_max)?;
        if !anchors.is_subset(&rows) {
            return Err(Refusal::Malformed);
        }
        if let Some(last) = rows.max()
            && self.ids.len() <= last as usize
        {
            self.ids.resize(last as usize + 1, MapEntry::VACANT.node);
        }
        for row in &rows {
            let node = reader.node()?;
            if node == *own {
                return Err(Refusal::WrongAuthor);
            }
            self.ids[row as usize] = node;
        }
        self.anchors -= &rows;
        self.anchors |= anchors;
        self.defined |= rows;
        Ok(())
    }

    /// Every row that is named has an id, nobody names more than a reporter may, and this node is not one of them.
    fn check(&self) -> Result<(), Refusal> {
        let caps = [2 * limits::REPORTED_HOP_1_MAX, limits::REPORTED_HOP_2_MAX];
        for image in self.reporters.values() {
            for (rows, cap) in image.hops.iter().zip(caps) {
                if rows.len() > cap {
                    return Err(Refusal::TooLarge);
                }
                if !rows.is_subset(&self.defined) {
                    return Err(Refusal::Malformed);
                }
            }
        }
        Ok(())
    }

    /// The rows that somebody names.
    #[must_use]
    pub fn rows(&self) -> RoaringBitmap {
        let mut rows = RoaringBitmap::new();
        for set in self.reporters.values().flat_map(|image| &image.hops) {
            rows |= set;
        }
        rows
    }

    /// Past the highest row that has an id.
    #[must_use]
    pub fn rows_end(&self) -> usize {
        self.ids.len()
    }

    /// The id of a row that somebody names, and whether it serves as an anchor.
    #[must_use]
    pub fn id(&self, row: Row) -> (NodeId, bool) {
        (self.ids[row as usize], self.anchors.contains(row))
    }

    /// What a reporter named: the ids at its hop 1 and 2.
    #[must_use]
    pub fn named_by(&self, node: &NodeId) -> Option<[BTreeSet<NodeId>; 2]> {
        let image = self.reporters.get(node)?;
        let ids = |rows: &RoaringBitmap| rows.iter().map(|row| self.id(row).0).collect();
        Some([ids(&image.hops[0]), ids(&image.hops[1])])
    }
}

#[cfg(test)]
mod tests;
