//! How the disk is doing.

use crate::io::{BatchId, DiskUsage, OwnBytes, StorageTrouble, Write};
use crate::limits;
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;

/// Learned writes on their way to the disk, and why it does not take them, if so.
#[derive(Resource, Debug, Default)]
pub struct Storage {
    /// Handed out and not acknowledged.
    pub in_flight: BTreeMap<BatchId, Vec<Write>>,
    /// Refused by the disk, in order, to be handed out again.
    pub retry: Vec<Write>,
    /// When to hand them out again: mono ms.
    pub retry_at_ms: Option<u64>,
    /// No more of them at once than this; `None` for all. What has no room as a whole may have some in parts.
    pub retry_max: Option<usize>,
    /// How full the disk is, as of its last commit.
    pub usage: DiskUsage,
    /// How often that was told, and whether again in the last frame that heard of the disk, after every batch that ended in it.
    pub usage_told: (u64, bool),
    /// Bytes of a blob of the person's own that waits for room, for which something of others goes.
    pub own_blob_bytes: u64,
    /// Slices had no room at last.
    pub blobs_refused: bool,
    /// The newest trouble, until a batch gets through.
    pub trouble: Option<StorageTrouble>,
}

impl Storage {
    /// Whether it refuses writes for lack of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.blobs_refused || self.trouble.is_some_and(StorageTrouble::lacks_room)
    }

    /// What own content may take.
    #[must_use]
    pub fn own_bytes_max(&self) -> OwnBytes {
        OwnBytes::max_of(self.usage.budget_bytes)
    }

    /// Whether what lists name and is not here would find room among the rows, or be refused there as long as eviction makes none.
    #[must_use]
    pub fn has_room_for_rows(&self) -> bool {
        let usage = &self.usage;
        let used = u128::from(usage.row_bytes) * 100;
        let mark = u128::from(usage.row_room_bytes) * u128::from(limits::EVICTION_BEGINS_PERCENT);
        // Nothing is known of the disk yet, or it is below.
        usage.row_room_bytes == 0 || used < mark
    }

    /// Bytes of rows that have room.
    #[must_use]
    pub fn row_bytes_left(&self) -> u64 {
        let usage = &self.usage;
        match usage.row_room_bytes {
            // Nothing is known of the disk yet.
            0 => u64::MAX,
            room => room.saturating_sub(usage.row_bytes),
        }
    }

    /// Bytes that must go so that a blob of the person's own has room.
    #[must_use]
    pub fn own_blob_bytes_lacking(&self) -> u64 {
        let free = self
            .usage
            .blob_room_bytes
            .saturating_sub(self.usage.blob_bytes);
        match self.usage.blob_room_bytes {
            // Nothing is known of the disk yet.
            0 => 0,
            _ => self.own_blob_bytes.saturating_sub(free),
        }
    }

    /// Bytes of blobs that have room: past the mark where eviction begins, what comes would be refused or push out what is there.
    #[must_use]
    pub fn blob_bytes_left(&self) -> u64 {
        let DiskUsage {
            blob_bytes,
            blob_room_bytes,
            ..
        } = self.usage;
        if blob_room_bytes == 0 {
            // Nothing is known of the disk yet.
            return u64::MAX;
        }
        let mark = u128::from(blob_room_bytes) * u128::from(limits::EVICTION_BEGINS_PERCENT) / 100;
        (mark as u64).saturating_sub(blob_bytes)
    }

    /// Whether anything from the network may be taken in now: not while the disk refuses writes or lags behind.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.trouble.is_none() && self.in_flight.len() < crate::limits::PERSIST_IN_FLIGHT_MAX
    }
}
