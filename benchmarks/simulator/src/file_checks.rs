//! What must hold of files: no disk is above its budget, and what an author took back stays gone.

use crate::queue::HostNumber;
use crate::simulation::Simulation;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::Write;
use std::collections::BTreeSet;

impl Simulation {
    /// What a node hands to its disk: slices alone, and no post that its author took back, nor a blob of one.
    pub fn check_deletions(&mut self, number: HostNumber, writes: &[Write]) {
        let slices = writes
            .iter()
            .filter(|write| matches!(write, Write::Slice(_)))
            .count();
        if slices > 0 && slices < writes.len() {
            self.violate(
                Some(number),
                "hands in slices among other writes".to_owned(),
            );
        }
        let mut deleted: BTreeSet<(NodeId, PostId)> = BTreeSet::new();
        for write in writes {
            let disk = &self.hosts[number as usize].disk;
            let what = match write {
                Write::Deletion(deletion) => {
                    deleted.insert((deletion.author, deletion.post));
                    continue;
                }
                Write::Post { post, .. } => {
                    let (author, id) = (post.body().author, post.id());
                    let is_gone = deleted.contains(&(author, id)) || disk.is_deleted(&author, &id);
                    is_gone.then(|| format!("stores {}, which was taken back", id.short()))
                }
                Write::Slice(slice) => disk
                    .is_taken_back(&slice.blob().hash)
                    .then(|| format!("stores {slice:?} of a post that was taken back")),
                _ => None,
            };
            if let Some(what) = what {
                self.violate(Some(number), what);
            }
        }
    }

    /// A disk after a commit: within both shares of its budget, unless it shrinks.
    pub fn check_disk(&mut self, number: HostNumber) {
        let usage = self.hosts[number as usize].disk.usage();
        let is_above = usage.file_bytes > usage.budget_bytes
            || usage.row_bytes > usage.row_room_bytes
            || usage.blob_bytes > usage.blob_room_bytes;
        if is_above && !usage.is_shrinking {
            self.violate(
                Some(number),
                format!("its disk is above its budget: {usage:?}"),
            );
        }
    }
}
