//! Blobs on their way here (PROTOCOL section 7).

use crate::domain::{BlobHash, NodeId};
use crate::io::{BatchId, LinkId, RequestId};
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;
use std::ops::Range;

/// A request for slices.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Of which blob.
    pub blob: BlobHash,
    /// Which slices.
    pub slices: Range<u32>,
    /// Who was asked.
    pub holder: NodeId,
    /// Over which connection.
    pub link: LinkId,
}

/// Requests under way, and slices on their way to the disk.
#[derive(Resource, Debug, Default)]
pub struct Fetches {
    /// By request.
    pub requests: BTreeMap<RequestId, Fetch>,
    /// By batch of writes, with the blob's [`life`](crate::world::blobs::BlobState::life).
    pub writes: BTreeMap<BatchId, (BlobHash, Range<u32>, u64)>,
}

impl Fetches {
    /// Whether anything of a blob is on its way.
    #[must_use]
    pub fn is_under_way(&self, blob: &BlobHash) -> bool {
        let asked = self.requests.values().any(|fetch| fetch.blob == *blob);
        asked || self.writes.values().any(|(written, ..)| written == blob)
    }

    /// Runs of a blob that are on their way.
    pub fn runs_of<'a>(&'a self, blob: &'a BlobHash) -> impl Iterator<Item = &'a Range<u32>> {
        let asked = self.requests.values();
        let asked = asked
            .filter(move |fetch| fetch.blob == *blob)
            .map(|fetch| &fetch.slices);
        let written = self.writes.values();
        asked.chain(
            written
                .filter(move |(of, ..)| of == blob)
                .map(|(_, slices, _)| slices),
        )
    }

    /// Requests that a holder has not answered.
    #[must_use]
    pub fn asked_of(&self, holder: &NodeId) -> usize {
        let of = |fetch: &&Fetch| fetch.holder == *holder;
        self.requests.values().filter(of).count()
    }

    /// Slices on their way to the disk.
    #[must_use]
    pub fn slices_in_flight(&self) -> usize {
        self.writes
            .values()
            .map(|(_, slices, _)| slices.len())
            .sum()
    }
}
