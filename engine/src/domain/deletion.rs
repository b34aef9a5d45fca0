//! Deletions: an author takes a post back, for good (PROTOCOL sections 7 and 9).

use super::record::{RecordBody, Signed};
use super::{NodeId, PostId};
use crate::wire::codec::as_array;

/// The body of a [`Deletion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionBody {
    /// Whose post it was, and who signs: it suppresses that author's post alone.
    pub author: NodeId,
    /// Which.
    pub post: PostId,
    /// When: ms since the epoch.
    pub seq: u64,
}

as_array!(DeletionBody {
    author: NodeId,
    post: PostId,
    seq: u64,
});

impl RecordBody for DeletionBody {
    const TYPE: &'static str = "delete";
    const BYTES_MAX: usize = 96;

    fn author(&self) -> NodeId {
        self.author
    }

    fn seq(&self) -> u64 {
        self.seq
    }
}

/// An author's word that a post of theirs is gone.
pub type Deletion = Signed<DeletionBody>;
