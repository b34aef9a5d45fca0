//! Reads slices for peers on a thread of its own: serving waits for no commit, and no commit waits for it.

use crate::disk::Disk;
use distsoc_engine::domain::BlobHash;
use distsoc_engine::io::{Input, ReadId, ReadResult};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// A run of slices.
pub(crate) struct SlicesAsked {
    pub(crate) read: ReadId,
    pub(crate) blob: BlobHash,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Answers until nobody can ask any more, or is told to end by `None`.
pub(crate) fn run(
    disk: &Arc<Disk>,
    asked: &Receiver<Option<SlicesAsked>>,
    deliver: &impl Fn(Input),
) {
    while let Ok(Some(asked)) = asked.recv() {
        let slices = disk.blobs.run_of(&asked.blob, asked.first, asked.count);
        deliver(Input::Read {
            read: asked.read,
            result: slices.map(ReadResult::Slices),
        });
    }
}
