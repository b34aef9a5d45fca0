//! Blobs on their way here (PROTOCOL section 7).

use crate::domain::{BlobRef, NodeId, SLICE_BYTES};
use crate::io::{BatchId, LinkId, RequestId};
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;
use std::ops::Range;

/// A request for slices.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Of which blob.
    pub blob: BlobRef,
    /// Which slices.
    pub slices: Range<u32>,
    /// Who was asked.
    pub holder: NodeId,
    /// Over which connection.
    pub link: LinkId,
    /// When: mono ms.
    pub asked_ms: u64,
}

/// Requests under way, and slices on their way to the disk.
#[derive(Resource, Debug, Default)]
pub struct Fetches {
    /// By request.
    pub requests: BTreeMap<RequestId, Fetch>,
    /// By batch of writes, with the blob's [`life`](crate::world::blobs::BlobPart::life).
    pub writes: BTreeMap<BatchId, (BlobRef, Range<u32>, u64)>,
}

impl Fetches {
    /// Whether anything of a blob is on its way.
    #[must_use]
    pub fn is_under_way(&self, blob: &BlobRef) -> bool {
        let asked = self.requests.values().any(|fetch| fetch.blob == *blob);
        asked || self.writes.values().any(|(written, ..)| written == blob)
    }

    /// Runs of a blob that are on their way.
    pub fn runs_of<'a>(&'a self, blob: &'a BlobRef) -> impl Iterator<Item = &'a Range<u32>> {
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

    /// Requests for a blob that are not answered: what is on its way to the disk keeps nobody from asking on.
    #[must_use]
    pub fn asked_for(&self, blob: &BlobRef) -> usize {
        let of = |fetch: &&Fetch| fetch.blob == *blob;
        self.requests.values().filter(of).count()
    }

    /// Requests that a holder has not answered.
    #[must_use]
    pub fn asked_of(&self, holder: &NodeId) -> usize {
        let of = |fetch: &&Fetch| fetch.holder == *holder;
        self.requests.values().filter(of).count()
    }

    /// Bytes that were asked for or are on their way to the disk, at most.
    #[must_use]
    pub fn bytes_under_way(&self) -> u64 {
        let asked = self.requests.values().map(|fetch| fetch.slices.len());
        let slices = asked.sum::<usize>() + self.slices_in_flight();
        slices as u64 * SLICE_BYTES as u64
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BlobHash;

    #[test]
    fn what_is_on_its_way_to_the_disk_is_no_request_and_asked_for_no_more() {
        let [blob, other] = [1, 2].map(|length| BlobRef {
            hash: BlobHash::from_bytes([1; 32]),
            length,
        });
        let mut fetches = Fetches::default();
        let fetch = Fetch {
            asked_ms: 0,
            blob,
            slices: 8..16,
            holder: NodeId::from_bytes([2; 32]),
            link: LinkId(3),
        };
        fetches.requests.insert(RequestId(1), fetch);
        for batch in 0..9 {
            fetches.writes.insert(BatchId(batch), (blob, 0..8, 0));
        }
        assert_eq!(fetches.asked_for(&blob), 1);
        assert_eq!(fetches.asked_for(&other), 0);
        assert_eq!(fetches.runs_of(&blob).count(), 10);
        assert_eq!(fetches.slices_in_flight(), 72);
    }
}
