//! Batches that go to the disk in one commit.

use distsoc_engine::domain::BlobHash;
use distsoc_engine::io::{BatchId, ReadId, ReadQuery, StorageTrouble, Write};
use std::collections::BTreeSet;
use std::time::Instant;

/// A group of so many posts is large, and one of so many slices.
const LARGE_POSTS: usize = 256;
/// See [`LARGE_POSTS`].
const LARGE_SLICES: usize = 16;
/// Batches in one commit at most.
const BATCHES_PER_COMMIT_MAX: usize = 512;
/// Slices in one group at most.
const SLICES_PER_COMMIT_MAX: usize = 128;

/// A batch of a group, and how it ended if it has.
pub(crate) struct Taken {
    pub(crate) batch: BatchId,
    pub(crate) writes: Vec<Write>,
    pub(crate) result: Option<Result<(), StorageTrouble>>,
}

/// Batches that are committed together, in the order they came.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) taken: Vec<Taken>,
    pub(crate) forgotten: BTreeSet<BlobHash>,
    /// Files or blobs go: whoever lets them go waits to hear how full the disk is then.
    pub(crate) is_deleting: bool,
    pub(crate) posts: usize,
    /// When the first of these came.
    pub(crate) posts_since: Option<Instant>,
    pub(crate) slices: usize,
    /// Reads that came after what a person did: an act of theirs is told to nobody before it is durable.
    pub(crate) reads: Vec<(ReadId, ReadQuery)>,
}

pub(crate) fn has_slices(writes: &[Write]) -> bool {
    writes.iter().any(|write| matches!(write, Write::Slice(_)))
}

pub(crate) fn forgotten(writes: &[Write]) -> impl Iterator<Item = BlobHash> {
    writes.iter().filter_map(|write| match write {
        Write::ForgetBlob(hash) => Some(*hash),
        _ => None,
    })
}

impl Group {
    pub(crate) fn is_full(&self) -> bool {
        self.taken.len() >= BATCHES_PER_COMMIT_MAX || self.slices >= SLICES_PER_COMMIT_MAX
    }

    /// Whether it is worth a commit of its own.
    pub(crate) fn is_large(&self) -> bool {
        self.posts >= LARGE_POSTS || self.slices >= LARGE_SLICES
    }

    /// Whether a batch must wait for the next group: it brings what this one is about to forget.
    pub(crate) fn is_against(&self, writes: &[Write]) -> bool {
        writes.iter().any(|write| match write {
            Write::Slice(slice) => self.forgotten.contains(&slice.blob().hash),
            _ => false,
        })
    }
}
