//! Blobs on the disk, slice by slice (PROTOCOL section 7): in several environments, so that what is freed in one can be given back
//! to the system while the others go on.
//!
//! A blob that is forgotten is so at once for whoever asks, and its room is free; its bytes go with the next slices that come to their
//! shelf, in one commit, or when there is time for it. Until then a crash brings it back, named by no row, as one does that falls
//! between the rows and the blobs: a start forgets it again.
//!
//! What always holds: the files together never pass the bytes they may have, since LMDB itself ends each at its share; a slice
//! is there whole or not at all. The slices of 1 MiB of a blob lie together where there was room. One thread writes, any may
//! read: what is where is looked up under a lock that nobody holds over a commit. Which blobs are worth their place is decided
//! elsewhere.

mod index;
mod shelf;

use crate::budget::bytes_in_folder;
use crate::environment::whole_steps;
use crate::fault::{Fault, trouble_of};
use distsoc_engine::domain::{BlobHash, PAGE_BYTES, Slice, Verified, pages_of};
use distsoc_engine::io::{StorageTrouble, StoredBlob};
use index::Index;
use shelf::{Gone, Shelf, room_of};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Environments; each has at most a sixteenth of a budget, and a quarter of it is for everything else (PROTOCOL section 7, quota).
pub const SHELVES: usize = 12;
/// Slices that are moved at once from a shelf that has too many.
const MOVED_AT_ONCE: usize = 16;
/// Pages of a shelf that wait to go, at most: past this they do, or past a part of what the shelf has room for.
const GONE_PAGES_MAX: u64 = 1_024;
/// See [`GONE_PAGES_MAX`].
const GONE_SHARE: u64 = 4;

/// All environments, open.
pub struct Blobs {
    dir: PathBuf,
    shelves: Vec<Shelf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    index: Index,
    share_bytes: u64,
    /// What lies on a shelf still, and in the index no more, or elsewhere.
    gone: [Vec<Gone>; SHELVES],
    /// A shelf that there was no room to write anew: before that is tried again it gives away what the others take.
    emptied: Option<u8>,
}

impl State {
    fn free(&self, shelf: u8) -> u64 {
        let used = self.index.used()[usize::from(shelf)];
        room_of(self.share_bytes).saturating_sub(used)
    }

    fn gone_pages(&self, shelf: usize) -> u64 {
        self.gone[shelf].iter().map(|gone| gone.pages).sum()
    }
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blobs({})", self.dir.display())
    }
}

/// Where slices go that are to be stored at once.
#[derive(Default)]
struct Plan {
    by_shelf: BTreeMap<u8, Vec<usize>>,
    pages: [u64; SHELVES],
    stripes: BTreeMap<(BlobHash, u32), u8>,
}

/// One step of keeping to a smaller share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shrunk {
    /// Every file is within its share.
    Done,
    /// Something was written anew or moved; there may be more to do.
    Step,
    /// What is left does not fit: something must be forgotten first, or the disk is full.
    Waits,
}

impl Blobs {
    /// Opens them in a folder, made if it is not there, with so many bytes for each environment, in steps of 64 KiB.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open(dir: &Path, share_bytes: u64) -> Result<Self, Fault> {
        let share_bytes = whole_steps(share_bytes);
        let mut index = Index::default();
        let mut gone: [Vec<Gone>; SHELVES] = Default::default();
        let mut shelves = Vec::with_capacity(SHELVES);
        for (number, gone) in gone.iter_mut().enumerate() {
            let dir = dir.join(format!("{number:02}"));
            let shelf = Shelf::open(&dir, share_bytes)?;
            *gone = shelf.load(number as u8, &mut index)?;
            shelves.push(shelf);
        }
        let blobs = Self {
            dir: dir.into(),
            shelves,
            state: Mutex::new(State {
                index,
                share_bytes,
                gone,
                emptied: None,
            }),
        };
        blobs
            .set_share(share_bytes)
            .map_err(|error| Fault::lmdb(dir, error))?;
        Ok(blobs)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies here, in the order of the hashes.
    #[must_use]
    pub fn stored(&self) -> Vec<StoredBlob> {
        self.state().index.stored()
    }

    /// Bytes of the files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let numbers = 0..SHELVES;
        let dirs = numbers.map(|number| self.dir.join(format!("{number:02}")));
        dirs.map(|dir| bytes_in_folder(&dir)).sum()
    }

    /// Bytes that slices take, in whole pages.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().index.used().iter().sum::<u64>() * PAGE_BYTES
    }

    /// Bytes that slices may take, in whole pages.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        room_of(self.state().share_bytes) * PAGE_BYTES * SHELVES as u64
    }

    /// The stored bytes of a slice: its proof and its part of the blob.
    ///
    /// # Errors
    /// [`StorageTrouble`].
    pub fn get(&self, hash: &BlobHash, slice: u32) -> Result<Option<Arc<[u8]>>, StorageTrouble> {
        let mut looked_at = None;
        loop {
            let shelf = self.state().index.shelf_of(hash, slice);
            // It may have been moved since it was looked up.
            let Some(number) = shelf.filter(|_| shelf != looked_at) else {
                return Ok(None);
            };
            let found = self.shelves[usize::from(number)].get(hash, slice);
            if let Some(found) = found.map_err(|error| trouble_of(&error))? {
                return Ok(Some(found));
            }
            looked_at = shelf;
        }
    }

    /// Slices of a blob from one on, up to the first that is not there.
    ///
    /// # Errors
    /// [`StorageTrouble`].
    pub fn run_of(
        &self,
        hash: &BlobHash,
        first: u32,
        count: u32,
    ) -> Result<Vec<Arc<[u8]>>, StorageTrouble> {
        let slices = (first..first.saturating_add(count)).map(|slice| self.get(hash, slice));
        slices.map_while(Result::transpose).collect()
    }

    /// Stores slices, those of each environment in one commit; says of each why it was not stored.
    pub fn store(&self, slices: &[&Verified<Slice>]) -> Vec<Result<(), StorageTrouble>> {
        let mut results = vec![Ok(()); slices.len()];
        let mut same: Vec<(usize, usize)> = Vec::new();
        let mut lacking: BTreeMap<(BlobHash, u32), usize> = BTreeMap::new();
        for (place, slice) in slices.iter().enumerate() {
            let key = (slice.blob().hash, slice.number());
            if self.state().index.shelf_of(&key.0, key.1).is_some() {
                continue;
            }
            match lacking.get(&key) {
                Some(first) => same.push((place, *first)),
                None => drop(lacking.insert(key, place)),
            }
        }
        let mut left: Vec<usize> = lacking.into_values().collect();
        let mut barred = [false; SHELVES];
        while !left.is_empty() {
            let (plan, refused) = self.plan(slices, &left, &barred);
            for place in refused {
                results[place] = Err(StorageTrouble::Budget);
            }
            left.clear();
            for (number, places) in plan.by_shelf {
                let chosen: Vec<_> = places.iter().map(|place| slices[*place]).collect();
                let shelf = usize::from(number);
                let stored = self.with_gone(shelf, |gone| self.shelves[shelf].put(gone, &chosen));
                for (at, place) in places.into_iter().enumerate() {
                    match &stored {
                        Ok(stored) if stored[at] => self.added(slices[place], number),
                        // What is free there lies too far apart.
                        Ok(_) => {
                            barred[usize::from(number)] = true;
                            left.push(place);
                        }
                        Err(trouble) => results[place] = Err(*trouble),
                    }
                }
            }
        }
        for (place, first) in same {
            results[place] = results[first];
        }
        results
    }

    /// A commit of a shelf that takes along what is forgotten there.
    fn with_gone<T>(
        &self,
        shelf: usize,
        commit: impl FnOnce(&[Gone]) -> Result<T, StorageTrouble>,
    ) -> Result<T, StorageTrouble> {
        let gone = std::mem::take(&mut self.state().gone[shelf]);
        let committed = commit(&gone);
        if committed.is_err() {
            self.state().gone[shelf] = gone;
        }
        committed
    }

    fn added(&self, slice: &Slice, shelf: u8) {
        let hash = slice.blob().hash;
        let bytes = slice.bytes().len();
        self.state().index.add(&hash, slice.number(), shelf, bytes);
    }

    /// A place for each slice, and those that have none: beside the others of its stripe, else where most is free.
    fn plan(
        &self,
        slices: &[&Verified<Slice>],
        left: &[usize],
        barred: &[bool; SHELVES],
    ) -> (Plan, Vec<usize>) {
        let (mut plan, mut refused) = (Plan::default(), Vec::new());
        let state = self.state();
        for place in left {
            let slice = slices[*place];
            let (hash, number) = (slice.blob().hash, slice.number());
            let pages = pages_of(slice.bytes().len());
            let free = |shelf: u8| match barred[usize::from(shelf)] {
                true => 0,
                false => state
                    .free(shelf)
                    .saturating_sub(plan.pages[usize::from(shelf)]),
            };
            let stripe = (hash, number / index::STRIPE_SLICES);
            let planned = plan.stripes.get(&stripe).copied();
            let mut beside = planned.into_iter().chain(state.index.beside(&hash, number));
            let beside = beside.find(|shelf| free(*shelf) >= pages);
            let roomiest = || (0..SHELVES as u8).max_by_key(|shelf| free(*shelf));
            let chosen = beside.or_else(roomiest);
            let Some(shelf) = chosen.filter(|shelf| free(*shelf) >= pages) else {
                refused.push(*place);
                continue;
            };
            plan.pages[usize::from(shelf)] += pages;
            plan.stripes.insert(stripe, shelf);
            plan.by_shelf.entry(shelf).or_default().push(*place);
        }
        (plan, refused)
    }

    /// Forgets blobs, whatever is there of them: with the next commit of their shelf, or with [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`StorageTrouble`] where so much waits that it had to go now, and the disk failed: it waits on.
    pub fn forget(&self, hashes: &[BlobHash]) -> Result<(), StorageTrouble> {
        let mut guard = self.state();
        let state = &mut *guard;
        for hash in hashes {
            let pages = state.index.pages_of_blob(hash).into_iter().enumerate();
            for (shelf, pages) in pages.filter(|(_, pages)| *pages > 0) {
                state.index.remove(hash, shelf as u8);
                state.gone[shelf].push(Gone::blob(*hash, pages));
            }
        }
        let most = GONE_PAGES_MAX.min(room_of(state.share_bytes) / GONE_SHARE);
        let has_many = |shelf: &usize| state.gone_pages(*shelf) > most;
        let full: Vec<usize> = (0..SHELVES).filter(has_many).collect();
        drop(guard);
        self.flush_shelves(&full)
    }

    /// Whether there is anything to [`flush`](Self::flush).
    #[must_use]
    pub fn has_gone(&self) -> bool {
        self.state().gone.iter().any(|gone| !gone.is_empty())
    }

    /// Deletes what is forgotten.
    ///
    /// # Errors
    /// [`StorageTrouble`] where the disk failed: what is still there waits on.
    pub fn flush(&self) -> Result<(), StorageTrouble> {
        let has_any = |shelf: &usize| !self.state().gone[*shelf].is_empty();
        let shelves: Vec<usize> = (0..SHELVES).filter(has_any).collect();
        self.flush_shelves(&shelves)
    }

    fn flush_shelves(&self, shelves: &[usize]) -> Result<(), StorageTrouble> {
        let flush = |shelf: usize| self.with_gone(shelf, |gone| self.shelves[shelf].delete(gone));
        // Each is a commit with syncs of its own, which the disk carries out side by side.
        std::thread::scope(|scope| {
            let threads = shelves
                .iter()
                .map(|shelf| scope.spawn(move || flush(*shelf)));
            let threads: Vec<_> = threads.collect();
            let ends = threads.into_iter().map(|thread| match thread.join() {
                Ok(flushed) => flushed,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ends.fold(Ok(()), Result::and)
        })
    }

    /// From now on each environment has so many bytes. What is larger stays so until [`shrink`](Self::shrink) has been there.
    pub(crate) fn set_share(&self, share_bytes: u64) -> heed::Result<()> {
        self.state().share_bytes = share_bytes;
        for (number, shelf) in self.shelves.iter().enumerate() {
            let (used, gone) = {
                let state = self.state();
                (state.index.used()[number], state.gone_pages(number))
            };
            shelf.fit(share_bytes, used + gone)?;
        }
        Ok(())
    }

    /// Whether every file is within its share, and nothing can make it grow past it.
    pub(crate) fn is_within(&self) -> bool {
        let share_bytes = self.state().share_bytes;
        self.shelves
            .iter()
            .all(|shelf| shelf.is_within(share_bytes))
    }

    /// Brings one environment into its share, or nearer to it.
    pub(crate) fn shrink(&self) -> Result<Shrunk, StorageTrouble> {
        self.flush()?;
        let share_bytes = self.state().share_bytes;
        let used = *self.state().index.used();
        let too_large = |number: &usize| !self.shelves[*number].is_within(share_bytes);
        let numbers: Vec<usize> = (0..SHELVES).filter(too_large).collect();
        if numbers.is_empty() {
            return Ok(Shrunk::Done);
        }
        let emptied = self.state().emptied.take().map(usize::from);
        if let Some(number) = emptied.filter(|number| numbers.contains(number))
            && self.empty_some(number as u8)?
        {
            return Ok(Shrunk::Step);
        }
        let fitting = numbers.iter();
        let fitting = fitting.filter(|number| used[**number] <= room_of(share_bytes));
        // What takes least to write anew: where little of the disk is free, that gives room for the others.
        if let Some(number) = fitting.min_by_key(|number| used[**number]) {
            let shelf = &self.shelves[*number];
            if shelf.file_bytes() > share_bytes {
                match shelf.compact(share_bytes) {
                    // The files of the others have free pages.
                    Err(trouble) if trouble.lacks_room() => {
                        return match self.empty_some(*number as u8)? {
                            true => Ok(Shrunk::Step),
                            false => Err(trouble),
                        };
                    }
                    other => other?,
                }
            }
            shelf
                .fit(share_bytes, used[*number])
                .map_err(|error| trouble_of(&error))?;
            return Ok(match shelf.is_within(share_bytes) {
                true => Shrunk::Step,
                false => Shrunk::Waits,
            });
        }
        // Each has too much, but others may have room for it.
        let excess = used[numbers[0]] - room_of(share_bytes);
        Ok(match self.move_some(numbers[0] as u8, excess)? {
            true => Shrunk::Step,
            false => Shrunk::Waits,
        })
    }

    /// Moves slices of a shelf that is to be empty, and remembers that; false where none could be moved.
    fn empty_some(&self, from: u8) -> Result<bool, StorageTrouble> {
        let has_moved = self.move_some(from, u64::MAX)?;
        self.state().emptied = has_moved.then_some(from);
        Ok(has_moved)
    }

    /// Moves slices of a shelf to others until so many pages have gone, but not many at once; false where none could be moved.
    fn move_some(&self, from: u8, pages: u64) -> Result<bool, StorageTrouble> {
        let used = || self.state().index.used()[usize::from(from)];
        let before = used();
        for _ in 0..MOVED_AT_ONCE {
            if before - used() >= pages || !self.move_one(from)? {
                break;
            }
        }
        self.flush_shelves(&[usize::from(from)])?;
        Ok(used() < before)
    }

    /// Moves a slice to the shelf with most room. It lies on both until the other is flushed: a start finds it on either.
    fn move_one(&self, from: u8) -> Result<bool, StorageTrouble> {
        let (found, to, free) = {
            let state = self.state();
            let others = (0..SHELVES as u8).filter(|shelf| *shelf != from);
            let to = others.max_by_key(|shelf| state.free(*shelf));
            let to = to.unwrap_or_default();
            (state.index.any_on(from), to, state.free(to))
        };
        let Some((hash, slice)) = found else {
            return Ok(false);
        };
        let Some(bytes) = self.get(&hash, slice)? else {
            return Ok(false);
        };
        let pages = pages_of(bytes.len());
        let shelf = usize::from(to);
        let take = |gone: &[Gone]| self.shelves[shelf].take(gone, &hash, slice, &bytes);
        if free < pages || !self.with_gone(shelf, take)? {
            return Ok(false);
        }
        let mut state = self.state();
        state.index.moved(&hash, slice, to, bytes.len());
        let left = Gone::slice(hash, slice, bytes.len());
        state.gone[usize::from(from)].push(left);
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
