//! What is here of which blob (PROTOCOL section 7), and which files name it.

use crate::domain::{BlobHash, BlobRef, PostId};
use crate::io::StoredBlob;
use bevy_ecs::prelude::Resource;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A blob that a file names, or that waits for one.
#[derive(Clone, Debug)]
pub struct BlobState {
    /// Which.
    pub blob: BlobRef,
    /// Files that name it.
    pub posts: BTreeSet<PostId>,
    /// Slices that are on the disk, ascending, apart from each other.
    have: Vec<Range<u32>>,
    /// It is kept until then, whether a file names it or not: mono ms.
    pub forget_at_ms: Option<u64>,
    /// No two states of one blob have the same: what was on its way when one was forgotten is no part of the next.
    pub life: u64,
}

impl BlobState {
    fn new(blob: BlobRef, life: u64) -> Self {
        Self {
            blob,
            posts: BTreeSet::new(),
            have: Vec::new(),
            forget_at_ms: None,
            life,
        }
    }

    /// Whether all of it is on the disk.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing().is_none()
    }

    /// The first run of slices that are not on the disk.
    #[must_use]
    pub fn missing(&self) -> Option<Range<u32>> {
        self.missing_from(0)
    }

    /// The first run of slices from one on that are not on the disk.
    #[must_use]
    pub fn missing_from(&self, from: u32) -> Option<Range<u32>> {
        let mut start = from;
        for range in &self.have {
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
        let range = self.have.iter().find(|range| range.contains(&first));
        range.map_or(0, |range| range.end - first)
    }

    /// Bytes of it that are not on the disk.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        let here = self.have.iter().flat_map(Clone::clone);
        let here: u64 = here.map(|slice| self.blob.slice_bytes(slice) as u64).sum();
        self.blob.stored_bytes() - here
    }

    /// Slices are on the disk now.
    pub fn add(&mut self, slices: Range<u32>) {
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
    /// A blob.
    #[must_use]
    pub fn get(&self, hash: &BlobHash) -> Option<&BlobState> {
        self.by_hash.get(hash)
    }

    /// A blob, to change.
    pub fn get_mut(&mut self, hash: &BlobHash) -> Option<&mut BlobState> {
        self.by_hash.get_mut(hash)
    }

    /// A file names it.
    pub fn refer(&mut self, blob: BlobRef, post: PostId) {
        self.entry(blob).posts.insert(post);
    }

    /// A blob that is to come before its file, or is to stay for one until a time, whatever else names it and goes.
    pub fn stage(&mut self, blob: BlobRef, until_ms: u64) -> &mut BlobState {
        self.unstage(&blob.hash);
        self.staged.insert((until_ms, blob.hash));
        let state = self.entry(blob);
        state.forget_at_ms = Some(until_ms);
        state
    }

    /// Its file is there.
    pub fn unstage(&mut self, hash: &BlobHash) {
        let state = self.by_hash.get_mut(hash);
        if let Some(at_ms) = state.and_then(|state| state.forget_at_ms.take()) {
            self.staged.remove(&(at_ms, *hash));
        }
    }

    fn entry(&mut self, blob: BlobRef) -> &mut BlobState {
        let lives = &mut self.lives;
        self.by_hash.entry(blob.hash).or_insert_with(|| {
            *lives += 1;
            BlobState::new(blob, *lives)
        })
    }

    /// A file goes; true where it was the last to name this blob, which then is forgotten here.
    pub fn release(&mut self, hash: &BlobHash, post: &PostId) -> bool {
        let Some(state) = self.by_hash.get_mut(hash) else {
            return false;
        };
        state.posts.remove(post);
        let is_last = state.posts.is_empty() && state.forget_at_ms.is_none();
        if is_last {
            self.by_hash.remove(hash);
        }
        is_last
    }

    /// What a disk held; false for a blob that no file names.
    pub fn restore(&mut self, stored: &StoredBlob) -> bool {
        let Some(state) = self.by_hash.get_mut(&stored.hash) else {
            return false;
        };
        let slices = state.blob.slices();
        for range in &stored.slices {
            state.add(range.start.min(slices)..range.end.min(slices));
        }
        state.have.retain(|range| !range.is_empty());
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
            if state.is_some_and(|state| state.posts.is_empty()) {
                self.by_hash.remove(&hash);
                over.push(hash);
            }
        }
        over
    }

    /// Blobs that wait for their file.
    pub fn staged(&self) -> impl Iterator<Item = &BlobState> {
        let hashes = self.staged.iter();
        let states = hashes.filter_map(|(_, hash)| self.by_hash.get(hash));
        states.filter(|state| state.posts.is_empty())
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

    #[test]
    fn what_is_missing_is_what_is_not_there() {
        let mut state = BlobState::new(blob(10), 1);
        assert_eq!(state.missing(), Some(0..10));
        state.add(2..4);
        state.add(6..7);
        assert_eq!(state.missing(), Some(0..2));
        assert_eq!(state.missing_from(2), Some(4..6));
        assert_eq!((state.run_from(2), state.run_from(4)), (2, 0));
        state.add(0..2);
        state.add(3..7);
        assert_eq!(state.missing(), Some(7..10));
        assert_eq!(state.run_from(0), 7);
        let last: u64 = (7..10)
            .map(|slice| blob(10).slice_bytes(slice) as u64)
            .sum();
        assert_eq!(state.missing_bytes(), last);
        state.add(7..10);
        assert!(state.is_whole());
        assert_eq!(state.missing_bytes(), 0);
    }

    #[test]
    fn a_blob_goes_with_the_last_file_that_names_it() {
        let mut book = BlobBook::default();
        let [one, other] = [1, 2].map(|number| PostId::from_bytes([number; 32]));
        book.refer(blob(3), one);
        book.refer(blob(3), other);
        assert!(!book.release(&blob(3).hash, &one));
        assert!(book.release(&blob(3).hash, &other));
        assert!(book.get(&blob(3).hash).is_none());
    }

    #[test]
    fn a_staged_blob_waits_for_its_file_and_not_for_ever() {
        let mut book = BlobBook::default();
        book.stage(blob(1), 100);
        book.stage(blob(2), 100);
        book.refer(blob(2), PostId::from_bytes([1; 32]));
        assert!(book.take_overdue(99).is_empty());
        assert_eq!(book.take_overdue(100), [blob(1).hash]);
        assert!(book.get(&blob(2).hash).is_some());
    }

    #[test]
    fn what_is_to_stay_for_a_file_outlives_the_posts_of_others() {
        let mut book = BlobBook::default();
        let [other, own] = [1, 2].map(|number| PostId::from_bytes([number; 32]));
        book.refer(blob(3), other);
        book.stage(blob(3), 100).add(0..3);
        assert_eq!(book.staged().count(), 0, "it takes no room of its own");
        assert!(!book.release(&blob(3).hash, &other));
        assert!(book.get(&blob(3).hash).unwrap().is_whole());
        // Another post of somebody else comes and goes.
        book.refer(blob(3), other);
        assert!(!book.release(&blob(3).hash, &other));
        book.refer(blob(3), own);
        book.unstage(&blob(3).hash);
        assert!(book.take_overdue(100).is_empty());
        let life = book.get(&blob(3).hash).unwrap().life;
        assert!(book.release(&blob(3).hash, &own));
        book.refer(blob(3), other);
        let again = book.get(&blob(3).hash).unwrap();
        assert!(again.life != life && !again.is_whole());
    }

    #[test]
    fn what_a_disk_held_counts_only_where_a_file_names_it() {
        let mut book = BlobBook::default();
        let stored = StoredBlob {
            hash: blob(3).hash,
            slices: vec![0..2, 2..9],
        };
        assert!(!book.restore(&stored));
        book.refer(blob(3), PostId::from_bytes([1; 32]));
        assert!(book.restore(&stored));
        assert!(book.get(&blob(3).hash).unwrap().is_whole());
    }
}
