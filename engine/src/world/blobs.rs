//! What is here of which blob (PROTOCOL section 7), and which files name it.
//!
//! A file says how long each of its blobs is, and may be wrong: what others say of the same hash stands beside it. Whatever slice was
//! proved against the hash is the blob's own, whoever's length it was asked for with; only the highest says more about the length.

use crate::domain::{BlobHash, BlobRef, PostId};
use crate::io::StoredBlob;
use bevy_ecs::prelude::Resource;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A blob that files name, or that waits for one.
#[derive(Debug)]
struct BlobState {
    /// Files that name it, by the length that they say.
    claims: BTreeMap<u64, BTreeSet<PostId>>,
    /// Slices that are on the disk, ascending, apart from each other.
    have: Vec<Range<u32>>,
    /// Bytes of the highest of them with its proof; 0 where there is none.
    last_bytes: usize,
    /// It is kept with this length until then, whether a file names it or not: mono ms.
    staged: Option<(u64, u64)>,
    life: u64,
}

impl BlobState {
    fn new(life: u64) -> Self {
        Self {
            claims: BTreeMap::new(),
            have: Vec::new(),
            last_bytes: 0,
            staged: None,
            life,
        }
    }

    /// Slices are on the disk now, with so many bytes in the last of them.
    fn add(&mut self, slices: Range<u32>, last_bytes: usize) {
        if slices.is_empty() {
            return;
        }
        if self.have.last().is_none_or(|last| last.end < slices.end) {
            self.last_bytes = last_bytes;
        }
        self.have.push(slices);
        self.have.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u32>> = Vec::with_capacity(self.have.len());
        for range in self.have.drain(..) {
            match merged.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => merged.push(range),
            }
        }
        self.have = merged;
    }
}

/// A blob as some files name it, with what is here of it.
#[derive(Clone, Copy, Debug)]
pub struct BlobPart<'a> {
    blob: BlobRef,
    state: &'a BlobState,
}

impl<'a> BlobPart<'a> {
    /// Which, as long as it is said to be.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Files that name it so.
    pub fn posts(&self) -> impl Iterator<Item = &'a PostId> {
        let posts = self.state.claims.get(&self.blob.length);
        posts.into_iter().flatten()
    }

    /// No two states of one blob have the same: what was on its way when one was forgotten is no part of the next.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.state.life
    }

    /// Whether it may be as long as it is said to be, by what is here. The highest slice decides: the last of a blob has as many
    /// bytes and neighbours on its way to the hash as no slice of a longer or shorter one.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.state.have.last().is_none_or(|last| {
            last.end <= self.blob.slices()
                && self.blob.slice_bytes(last.end - 1) == self.state.last_bytes
        })
    }

    /// Whether all of it is on the disk.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_possible() && self.missing_from(0).is_none()
    }

    /// The first run of slices from one on that are not on the disk.
    #[must_use]
    pub fn missing_from(&self, from: u32) -> Option<Range<u32>> {
        let mut start = from;
        for range in &self.state.have {
            if start < range.start {
                return Some(start..range.start);
            }
            start = start.max(range.end);
        }
        let end = self.blob.slices();
        (start < end).then_some(start..end)
    }

    /// How many slices from one on are on the disk, without a gap.
    #[must_use]
    pub fn run_from(&self, first: u32) -> u32 {
        let mut ranges = self.state.have.iter().filter(|_| self.is_possible());
        let range = ranges.find(|range| range.contains(&first));
        range.map_or(0, |range| range.end - first)
    }

    /// Bytes that what of it is not on the disk will take there.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        let all = self.blob.disk_bytes();
        if !self.is_possible() {
            return all;
        }
        let here = self.state.have.iter().flat_map(Clone::clone);
        let here: u64 = here.map(|slice| self.blob.slice_disk_bytes(slice)).sum();
        all - here
    }
}

/// Blobs by hash.
#[derive(Resource, Debug, Default)]
pub struct BlobBook {
    by_hash: BTreeMap<BlobHash, BlobState>,
    /// Blobs that wait for a file of the person's, by until when.
    staged: BTreeSet<(u64, BlobHash)>,
    lives: u64,
    /// Files that came with blobs, for whoever fetches these.
    pub news: Vec<PostId>,
}

impl BlobBook {
    /// A blob, where a file names it with this length or it waits for one.
    #[must_use]
    pub fn get(&self, blob: &BlobRef) -> Option<BlobPart<'_>> {
        let state = self.by_hash.get(&blob.hash)?;
        let is_staged = state
            .staged
            .is_some_and(|(_, length)| length == blob.length);
        let is_named = is_staged || state.claims.contains_key(&blob.length);
        is_named.then_some(BlobPart { blob: *blob, state })
    }

    /// Whether anything names a blob of this hash.
    #[must_use]
    pub fn contains(&self, hash: &BlobHash) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// A file names it.
    pub fn refer(&mut self, blob: BlobRef, post: PostId) {
        let claims = &mut self.entry(blob.hash).claims;
        claims.entry(blob.length).or_default().insert(post);
    }

    /// A blob that is to come before its file, or is to stay for one until a time, whatever else names it and goes.
    pub fn stage(&mut self, blob: BlobRef, until_ms: u64) -> BlobPart<'_> {
        self.unstage(&blob.hash);
        self.staged.insert((until_ms, blob.hash));
        let state = self.entry(blob.hash);
        state.staged = Some((until_ms, blob.length));
        BlobPart { blob, state }
    }

    /// Its file is there.
    pub fn unstage(&mut self, hash: &BlobHash) {
        let state = self.by_hash.get_mut(hash);
        if let Some((at_ms, _)) = state.and_then(|state| state.staged.take()) {
            self.staged.remove(&(at_ms, *hash));
        }
    }

    fn entry(&mut self, hash: BlobHash) -> &mut BlobState {
        let lives = &mut self.lives;
        self.by_hash.entry(hash).or_insert_with(|| {
            *lives += 1;
            BlobState::new(*lives)
        })
    }

    /// Slices of a blob are on the disk now, proved with this length. Where it is forgotten or in another life, these went with it,
    /// though somebody names it again.
    pub fn add(&mut self, blob: &BlobRef, slices: Range<u32>, life: u64) {
        let state = self.by_hash.get_mut(&blob.hash);
        if let Some(state) = state.filter(|state| state.life == life) {
            let last_bytes = blob.slice_bytes(slices.end.saturating_sub(1));
            state.add(slices, last_bytes);
        }
    }

    /// A file goes; true where it was the last to name this blob, which then is forgotten here.
    pub fn release(&mut self, blob: &BlobRef, post: &PostId) -> bool {
        let Some(state) = self.by_hash.get_mut(&blob.hash) else {
            return false;
        };
        if let Some(posts) = state.claims.get_mut(&blob.length) {
            posts.remove(post);
            if posts.is_empty() {
                state.claims.remove(&blob.length);
            }
        }
        let is_last = state.claims.is_empty() && state.staged.is_none();
        if is_last {
            self.by_hash.remove(&blob.hash);
        }
        is_last
    }

    /// What a disk held; false for a blob that no file names.
    pub fn restore(&mut self, stored: &StoredBlob) -> bool {
        let Some(state) = self.by_hash.get_mut(&stored.hash) else {
            return false;
        };
        for range in &stored.slices {
            state.add(range.clone(), stored.last_bytes as usize);
        }
        true
    }

    /// Takes out the staged blobs whose time is over and that no file names.
    pub fn take_overdue(&mut self, now_ms: u64) -> Vec<BlobHash> {
        let mut over = Vec::new();
        while let Some((at_ms, hash)) = self.staged.first().copied()
            && at_ms <= now_ms
        {
            self.unstage(&hash);
            let state = self.by_hash.get(&hash);
            if state.is_some_and(|state| state.claims.is_empty()) {
                self.by_hash.remove(&hash);
                over.push(hash);
            }
        }
        over
    }

    /// Blobs that wait for their file.
    pub fn staged(&self) -> impl Iterator<Item = BlobRef> {
        self.staged.iter().filter_map(|(_, hash)| {
            let state = self.by_hash.get(hash)?;
            let (_, length) = state.staged.filter(|_| state.claims.is_empty())?;
            Some(BlobRef {
                hash: *hash,
                length,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SLICE_BYTES;

    fn blob(slices: u32) -> BlobRef {
        BlobRef {
            hash: BlobHash::from_bytes([slices as u8; 32]),
            length: u64::from(slices) * SLICE_BYTES as u64,
        }
    }

    fn post(number: u8) -> PostId {
        PostId::from_bytes([number; 32])
    }

    /// A book in which a post names a blob, and its life.
    fn book_of(blob: BlobRef) -> (BlobBook, u64) {
        let mut book = BlobBook::default();
        book.refer(blob, post(1));
        let life = book.get(&blob).unwrap().life();
        (book, life)
    }

    #[test]
    fn what_is_missing_is_what_is_not_there() {
        let blob = blob(10);
        let (mut book, life) = book_of(blob);
        let missing = |book: &BlobBook, from| book.get(&blob).unwrap().missing_from(from);
        assert_eq!(missing(&book, 0), Some(0..10));
        book.add(&blob, 2..4, life);
        book.add(&blob, 6..7, life);
        assert_eq!(missing(&book, 0), Some(0..2));
        assert_eq!(missing(&book, 2), Some(4..6));
        let run_from = |book: &BlobBook, first| book.get(&blob).unwrap().run_from(first);
        assert_eq!((run_from(&book, 2), run_from(&book, 4)), (2, 0));
        book.add(&blob, 0..2, life);
        book.add(&blob, 3..7, life);
        assert_eq!(missing(&book, 0), Some(7..10));
        assert_eq!(run_from(&book, 0), 7);
        let last: u64 = (7..10).map(|slice| blob.slice_disk_bytes(slice)).sum();
        assert_eq!(book.get(&blob).unwrap().missing_bytes(), last);
        book.add(&blob, 7..10, life + 1);
        assert!(!book.get(&blob).unwrap().is_whole(), "of another life");
        book.add(&blob, 7..10, life);
        let whole = book.get(&blob).unwrap();
        assert!(whole.is_whole() && whole.missing_bytes() == 0);
    }

    #[test]
    fn a_wrong_length_takes_the_blob_from_nobody_before_or_after_a_start() {
        let hash = BlobHash::from_bytes([7; 32]);
        let of = |length| BlobRef { hash, length };
        let slice = SLICE_BYTES as u64;
        for length in [
            5,
            slice - 1,
            slice,
            slice + 9,
            5 * slice,
            8 * slice + 40_000,
        ] {
            let right = of(length);
            let wrong = [
                1,
                4,
                slice,
                slice + 10,
                5 * slice + 1,
                9 * slice,
                length + 1,
                length - 1,
            ];
            let wrong = wrong.map(of);
            let mut book = BlobBook::default();
            for (number, wrong) in (0..).zip(wrong) {
                book.refer(wrong, post(number));
            }
            book.refer(right, post(200));
            let life = book.get(&right).unwrap().life();
            for number in 0..right.slices() {
                assert!(!book.get(&right).unwrap().is_whole());
                book.add(&right, number..number + 1, life);
                assert!(book.get(&right).unwrap().is_possible());
            }
            let last = right.slices() - 1;
            let stored = StoredBlob {
                hash,
                slices: std::iter::once(0..right.slices()).collect(),
                last_bytes: right.slice_bytes(last) as u32,
            };
            let mut restarted = BlobBook::default();
            for (number, wrong) in (0..).zip(wrong) {
                restarted.refer(wrong, post(number));
            }
            restarted.refer(right, post(200));
            assert!(restarted.restore(&stored));
            for book in [&book, &restarted] {
                let right = book.get(&right).unwrap();
                assert!(right.is_whole() && right.missing_bytes() == 0 && right.run_from(0) > 0);
                for wrong in wrong.iter().filter(|wrong| wrong.length != length) {
                    assert!(
                        !book.get(wrong).unwrap().is_whole(),
                        "{length} as {wrong:?}"
                    );
                }
            }
            assert!(book.get(&of(77)).is_none(), "nobody says so");
            // The wrong ones go: it stays.
            for (number, wrong) in (0..).zip(wrong) {
                assert!(!book.release(&wrong, &post(number)));
            }
            assert!(book.get(&right).unwrap().is_whole());
            assert!(book.release(&right, &post(200)));
        }
    }

    #[test]
    fn a_blob_goes_with_the_last_file_that_names_it() {
        let mut book = BlobBook::default();
        book.refer(blob(3), post(1));
        book.refer(blob(3), post(2));
        assert!(!book.release(&blob(3), &post(1)));
        assert!(book.release(&blob(3), &post(2)));
        assert!(!book.contains(&blob(3).hash) && book.get(&blob(3)).is_none());
    }

    #[test]
    fn a_staged_blob_waits_for_its_file_and_not_for_ever() {
        let mut book = BlobBook::default();
        book.stage(blob(1), 100);
        book.stage(blob(2), 100);
        book.refer(blob(2), post(1));
        assert_eq!(book.staged().collect::<Vec<_>>(), [blob(1)]);
        assert!(book.take_overdue(99).is_empty());
        assert_eq!(book.take_overdue(100), [blob(1).hash]);
        assert!(book.get(&blob(2)).is_some());
    }

    #[test]
    fn what_is_to_stay_for_a_file_outlives_the_posts_of_others() {
        let mut book = BlobBook::default();
        let [other, own] = [1, 2].map(post);
        // It names the same bytes, and says that there are more.
        let longer = BlobRef {
            length: blob(3).length + 1,
            ..blob(3)
        };
        book.refer(longer, other);
        let life = book.stage(blob(3), 100).life();
        book.add(&blob(3), 0..3, life);
        assert_eq!(book.staged().count(), 0, "it takes no room of its own");
        assert!(!book.release(&longer, &other));
        assert!(book.get(&blob(3)).unwrap().is_whole());
        // Another post of somebody else comes and goes.
        book.refer(blob(3), other);
        assert!(!book.release(&blob(3), &other));
        book.refer(blob(3), own);
        book.unstage(&blob(3).hash);
        assert!(book.take_overdue(100).is_empty());
        assert!(book.release(&blob(3), &own));
        book.refer(blob(3), other);
        let again = book.get(&blob(3)).unwrap();
        assert!(again.life() != life && !again.is_whole());
    }

    #[test]
    fn what_a_disk_held_counts_only_where_a_file_names_it() {
        let mut book = BlobBook::default();
        let stored = StoredBlob {
            hash: blob(3).hash,
            slices: vec![0..2, 2..3],
            last_bytes: blob(3).slice_bytes(2) as u32,
        };
        assert!(!book.restore(&stored));
        book.refer(blob(3), post(1));
        assert!(book.restore(&stored));
        assert!(book.get(&blob(3)).unwrap().is_whole());
    }
}
