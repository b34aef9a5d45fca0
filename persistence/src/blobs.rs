//! Blobs on the disk, slice by slice (PROTOCOL section 7): in several environments, so that what is freed in one can be given back
//! to the system while the others go on.
//!
//! What always holds: the files together never pass the bytes they may have, since LMDB itself ends each at its share; a slice
//! is there whole or not at all; a blob lies in one environment. Which blobs are worth their place is decided elsewhere.

use crate::fault::{Fault, trouble_of};
use crate::store::open_env_of;
use crate::tables::{Lmdb, Raw};
use distsoc_engine::domain::{BlobHash, Slice, Verified};
use distsoc_engine::io::StorageTrouble;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Environments; each has at most a sixteenth of a budget, and a quarter of it is for everything else (PROTOCOL section 7, quota).
pub const SHELVES: usize = 12;
/// The share of a budget that a shelf has.
const SHARE: u64 = 16;
/// LMDB's page on every system that this runs on.
const PAGE_BYTES: u64 = 4096;
/// LMDB's head of a page, and what it takes beside a value in it.
const PAGE_HEAD_BYTES: u64 = 16;
/// Pages of a shelf that no slice gets: for its tree, its list of free pages, and the copies that a change is made in. Without
/// them nothing could be deleted from a full one.
const SPARE_PAGES: u64 = 64;
/// A shelf is no smaller than this: below, the spare pages would be most of it.
pub const SHELF_BYTES_MIN: u64 = 4 * SPARE_PAGES * PAGE_BYTES;

/// A key that is no slice's.
const TURN_KEY: &[u8] = &[0];

/// A blob that lies here, in part or whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Which.
    pub hash: BlobHash,
    /// The slices that are there.
    pub slices: Vec<Range<u32>>,
}

/// The pages that a value takes.
fn pages_of(value_bytes: usize) -> u64 {
    (PAGE_HEAD_BYTES + value_bytes as u64).div_ceil(PAGE_BYTES)
}

fn key_of(hash: &BlobHash, slice: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(hash.as_bytes());
    key[32..].copy_from_slice(&slice.to_be_bytes());
    key
}

fn parts_of(key: &[u8]) -> Option<(BlobHash, u32)> {
    let (hash, slice) = key.split_first_chunk::<32>()?;
    let slice = u32::from_be_bytes(slice.try_into().ok()?);
    Some((BlobHash::from_bytes(*hash), slice))
}

/// One environment.
struct Shelf {
    env: Lmdb,
    slices: Raw,
    path: PathBuf,
    /// Pages that slices take.
    used: u64,
    /// Pages that slices may take.
    room: u64,
}

impl Shelf {
    fn open(dir: &Path, bytes: u64) -> Result<Self, Fault> {
        let pages = bytes.max(SHELF_BYTES_MIN) / PAGE_BYTES;
        let env = open_env_of(dir, (pages * PAGE_BYTES) as usize, 1)?;
        let fault = |error| Fault::lmdb(dir.join("data.mdb"), error);
        let slices = crate::tables::open_one(&env, "slices").map_err(fault)?;
        Ok(Self {
            env,
            slices,
            path: dir.join("data.mdb"),
            used: 0,
            room: pages - SPARE_PAGES.max(pages / 16),
        })
    }

    /// Stores slices, all or none; false where they have no room.
    fn put_all(&self, slices: &[&Verified<Slice>]) -> heed::Result<bool> {
        let put_all = || {
            let mut txn = self.env.write_txn()?;
            for slice in slices {
                let key = key_of(&slice.blob().hash, slice.number());
                self.slices.put(&mut txn, &key, slice.bytes())?;
            }
            txn.commit()
        };
        match put_all() {
            Ok(()) => Ok(true),
            Err(heed::Error::Mdb(heed::MdbError::MapFull)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A transaction that changes next to nothing.
    fn turn(&self) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        self.slices.put(&mut txn, TURN_KEY, &[])?;
        self.slices.delete(&mut txn, TURN_KEY)?;
        txn.commit()
    }

    /// Reads which slices are there, without their bytes.
    fn index(&mut self, number: u8, places: &mut BTreeMap<BlobHash, Place>) -> Result<(), Fault> {
        let fault = |error| Fault::lmdb(&self.path, error);
        let txn = self.env.read_txn().map_err(fault)?;
        for row in self.slices.iter(&txn).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            let (hash, slice) = parts_of(key).ok_or(Fault::Corrupt { table: "blobs" })?;
            let place = places.entry(hash).or_insert_with(|| Place::on(number));
            let pages = pages_of(value.len());
            self.used += pages;
            place.add(slice, pages);
        }
        Ok(())
    }
}

/// Where a blob lies, and how much of it.
#[derive(Clone, Debug)]
struct Place {
    shelf: u8,
    pages: u64,
    slices: Vec<Range<u32>>,
}

impl Place {
    fn on(shelf: u8) -> Self {
        Self {
            shelf,
            pages: 0,
            slices: Vec::new(),
        }
    }

    fn has(&self, slice: u32) -> bool {
        self.slices.iter().any(|range| range.contains(&slice))
    }

    fn add(&mut self, slice: u32, pages: u64) {
        if self.has(slice) {
            return;
        }
        self.pages += pages;
        let at = self.slices.partition_point(|range| range.end < slice);
        match self.slices.get_mut(at) {
            Some(range) if range.end == slice => range.end += 1,
            Some(range) if range.start == slice + 1 => range.start = slice,
            _ => self.slices.insert(at, slice..slice + 1),
        }
        if let Some([left, right]) = self.slices.get(at..at + 2)
            && left.end == right.start
        {
            self.slices[at].end = right.end;
            self.slices.remove(at + 1);
        }
    }
}

/// All environments, open.
pub struct Blobs {
    shelves: Vec<Shelf>,
    places: BTreeMap<BlobHash, Place>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blobs({} in {})", self.places.len(), self.shelves.len())
    }
}

impl Blobs {
    /// Opens them in a folder, made if it is not there, for a budget of so many bytes for the whole node.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open(dir: &Path, budget_bytes: u64) -> Result<Self, Fault> {
        let mut places = BTreeMap::new();
        let mut shelves = Vec::with_capacity(SHELVES);
        for number in 0..SHELVES {
            let dir = dir.join(format!("{number:02}"));
            std::fs::create_dir_all(&dir).map_err(|source| Fault::io(&dir, source))?;
            let mut shelf = Shelf::open(&dir, budget_bytes / SHARE)?;
            shelf.index(number as u8, &mut places)?;
            shelves.push(shelf);
        }
        Ok(Self { shelves, places })
    }

    /// What lies here, in the order of the hashes.
    pub fn stored(&self) -> impl Iterator<Item = StoredBlob> {
        self.places.iter().map(|(hash, place)| StoredBlob {
            hash: *hash,
            slices: place.slices.clone(),
        })
    }

    /// Bytes of the files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let bytes_of = |shelf: &Shelf| std::fs::metadata(&shelf.path).map_or(0, |file| file.len());
        self.shelves.iter().map(bytes_of).sum()
    }

    /// Bytes that slices take, in whole pages.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shelves.iter().map(|shelf| shelf.used).sum::<u64>() * PAGE_BYTES
    }

    /// Bytes that slices may take, in whole pages.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        self.shelves.iter().map(|shelf| shelf.room).sum::<u64>() * PAGE_BYTES
    }

    /// The stored bytes of a slice: its proof and its part of the blob.
    ///
    /// # Errors
    /// [`StorageTrouble`].
    pub fn get(&self, hash: &BlobHash, slice: u32) -> Result<Option<Arc<[u8]>>, StorageTrouble> {
        let Some(place) = self.places.get(hash) else {
            return Ok(None);
        };
        let shelf = &self.shelves[usize::from(place.shelf)];
        let trouble = |error| trouble_of(&error);
        let txn = shelf.env.read_txn().map_err(trouble)?;
        let found = shelf.slices.get(&txn, &key_of(hash, slice));
        Ok(found.map_err(trouble)?.map(Arc::from))
    }

    /// Stores slices and forgets blobs, each environment at once; what was not stored for lack of room is given back.
    ///
    /// # Errors
    /// [`StorageTrouble`] where the disk failed: environments that had been committed before stay so, which is known.
    pub fn apply<'a>(
        &mut self,
        forget: &[BlobHash],
        store: &'a [Verified<Slice>],
    ) -> Result<Vec<&'a Verified<Slice>>, StorageTrouble> {
        let mut refused = Vec::new();
        let mut by_shelf: BTreeMap<u8, Work<'a>> = BTreeMap::new();
        for hash in forget {
            if let Some(place) = self.places.get(hash) {
                by_shelf.entry(place.shelf).or_default().forget.push(*hash);
            }
        }
        let mut planned: BTreeMap<BlobHash, (u8, u64)> = BTreeMap::new();
        for slice in store {
            let is_forgotten = forget.contains(&slice.blob().hash);
            match self.shelf_for(slice, is_forgotten, &mut planned) {
                Some(shelf) => by_shelf.entry(shelf).or_default().store.push(slice),
                None => refused.push(slice),
            }
        }
        for (shelf, work) in by_shelf {
            let missed = self.apply_to(shelf, &work)?;
            refused.extend(missed);
        }
        Ok(refused)
    }

    /// Where a slice goes: beside the others of its blob, else where most is free, if the whole blob has room there.
    fn shelf_for(
        &self,
        slice: &Slice,
        is_forgotten: bool,
        planned: &mut BTreeMap<BlobHash, (u8, u64)>,
    ) -> Option<u8> {
        let blob = slice.blob();
        let known = self.places.get(&blob.hash).filter(|_| !is_forgotten);
        if let Some(place) = known {
            return Some(place.shelf);
        }
        if let Some((shelf, _)) = planned.get(&blob.hash) {
            return Some(*shelf);
        }
        let whole = (0..blob.slices()).map(|number| pages_of(blob.slice_bytes(number)));
        let whole: u64 = whole.sum();
        let taken = |number: u8| {
            let planned = planned.values().filter(|(shelf, _)| *shelf == number);
            planned.map(|(_, pages)| pages).sum::<u64>()
        };
        let free = |(number, shelf): (u8, &Shelf)| {
            let used = shelf.used + taken(number);
            (shelf.room.saturating_sub(used), number)
        };
        let (free, number) = (0..).zip(&self.shelves).map(free).max()?;
        if free < whole {
            return None;
        }
        planned.insert(blob.hash, (number, whole));
        Some(number)
    }

    fn apply_to<'a>(
        &mut self,
        number: u8,
        work: &Work<'a>,
    ) -> Result<Vec<&'a Verified<Slice>>, StorageTrouble> {
        let trouble = |error| trouble_of(&error);
        let shelf = &mut self.shelves[usize::from(number)];
        if !work.forget.is_empty() {
            // On its own: what it frees may be used by the next transaction only.
            let mut txn = shelf.env.write_txn().map_err(trouble)?;
            for hash in &work.forget {
                let (first, last) = (key_of(hash, 0), key_of(hash, u32::MAX));
                let all = (
                    std::ops::Bound::Included(&first[..]),
                    std::ops::Bound::Included(&last[..]),
                );
                shelf.slices.delete_range(&mut txn, &all).map_err(trouble)?;
            }
            txn.commit().map_err(trouble)?;
            for hash in &work.forget {
                let gone = self.places.remove(hash);
                shelf.used -= gone.map_or(0, |place| place.pages);
            }
        }
        if work.store.is_empty() {
            return Ok(Vec::new());
        }
        let mut is_stored = shelf.put_all(&work.store).map_err(trouble)?;
        if !is_stored {
            // What the last transaction freed may be used by the next but one.
            shelf.turn().map_err(trouble)?;
            is_stored = shelf.put_all(&work.store).map_err(trouble)?;
        }
        if !is_stored {
            // What is free lies too far apart: nothing of this is stored, and nothing is lost.
            return Ok(work.store.clone());
        }
        for slice in &work.store {
            let place = self
                .places
                .entry(slice.blob().hash)
                .or_insert_with(|| Place::on(number));
            if !place.has(slice.number()) {
                let pages = pages_of(slice.bytes().len());
                place.add(slice.number(), pages);
                shelf.used += pages;
            }
        }
        Ok(Vec::new())
    }
}

/// What is to be done in one environment.
#[derive(Default)]
struct Work<'a> {
    forget: Vec<BlobHash>,
    store: Vec<&'a Verified<Slice>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::domain::Cut;
    use distsoc_engine::entropy::Entropy;

    const BUDGET: u64 = 16 * 8 * 1024 * 1024;

    fn blob_of(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|place| (place / 11) as u8 ^ seed).collect()
    }

    fn slices_of(bytes: &[u8]) -> Vec<Verified<Slice>> {
        Cut::new(bytes).unwrap().slices().collect()
    }

    #[test]
    fn what_was_stored_is_there_after_a_start_and_what_was_forgotten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::open(dir.path(), BUDGET).unwrap();
        let (whole, partial, gone) = (blob_of(300_000, 1), blob_of(500_000, 2), blob_of(5, 3));
        let [whole, mut partial, gone] = [whole, partial, gone].map(|bytes| slices_of(&bytes));
        partial.retain(|slice| ![2, 5].contains(&slice.number()));
        for slices in [&whole, &partial, &gone] {
            assert!(blobs.apply(&[], slices).unwrap().is_empty());
        }
        let forgotten = gone[0].blob().hash;
        assert!(blobs.apply(&[forgotten], &[]).unwrap().is_empty());
        let (used, before) = (blobs.used_bytes(), blobs.stored().collect::<Vec<_>>());
        drop(blobs);
        let blobs = Blobs::open(dir.path(), BUDGET).unwrap();
        assert_eq!(blobs.stored().collect::<Vec<_>>(), before);
        assert_eq!(blobs.used_bytes(), used);
        let of = |slices: &[Verified<Slice>]| {
            let hash = slices[0].blob().hash;
            let stored = blobs.stored().find(|one| one.hash == hash);
            stored.map(|one| one.slices)
        };
        assert_eq!(of(&whole), Some(std::iter::once(0..5).collect()));
        assert_eq!(of(&partial), Some(vec![0..2, 3..5, 6..8]));
        assert_eq!(of(&gone), None);
        for slice in whole.iter().chain(&partial) {
            let there = blobs.get(&slice.blob().hash, slice.number()).unwrap();
            assert_eq!(there.as_deref(), Some(&slice.bytes()[..]));
        }
        assert_eq!(blobs.get(&partial[0].blob().hash, 2).unwrap(), None);
        assert_eq!(blobs.get(&forgotten, 0).unwrap(), None);
    }

    #[test]
    fn slices_in_any_order_make_ranges() {
        let mut place = Place::on(0);
        for slice in [5, 3, 4, 0, 9, 1, 2, 7, 3] {
            place.add(slice, 1);
        }
        assert_eq!(place.slices, vec![0..6, 7..8, 9..10]);
        assert_eq!(place.pages, 8);
    }

    /// The files of random blobs that come and go never pass the share of the budget, and room that was freed is used again.
    #[test]
    fn the_files_never_pass_their_share_and_freed_room_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::open(dir.path(), BUDGET).unwrap();
        let most = BUDGET / SHARE * SHELVES as u64;
        let mut entropy = Entropy::from_seed([7; 32]);
        let mut there: Vec<BlobHash> = Vec::new();
        let mut stored_bytes = 0u64;
        for number in 0..600u32 {
            let length = 1 + entropy.below(if number % 5 == 0 { 2_000_000 } else { 200_000 });
            let mut bytes = blob_of(length as usize, 0);
            let head = number.to_be_bytes();
            let head_bytes = head.len().min(bytes.len());
            bytes[..head_bytes].copy_from_slice(&head[..head_bytes]);
            let slices = slices_of(&bytes);
            loop {
                let refused = blobs.apply(&[], &slices).unwrap();
                assert!(blobs.file_bytes() <= most);
                if refused.is_empty() {
                    break;
                }
                assert!(!there.is_empty(), "a blob has room in an empty store");
                let place = entropy.below(there.len() as u64) as usize;
                let hash = there.swap_remove(place);
                blobs.apply(&[hash], &[]).unwrap();
            }
            stored_bytes += length;
            there.push(slices[0].blob().hash);
        }
        assert!(stored_bytes > most / 2, "enough to fill it");
        assert!(blobs.used_bytes() <= blobs.room_bytes());
        // Down to nothing, and full again.
        blobs.apply(&there, &[]).unwrap();
        assert_eq!((blobs.used_bytes(), blobs.stored().count()), (0, 0));
        let mut filled = 0;
        for seed in 0..=255u8 {
            let slices = slices_of(&blob_of(1_000_000, seed));
            if !blobs.apply(&[], &slices).unwrap().is_empty() {
                break;
            }
            filled += 1_000_000;
        }
        assert!(filled * 100 > most * 80, "{filled} of {most}");
        assert!(blobs.file_bytes() <= most);
    }
}
