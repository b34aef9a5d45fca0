//! Hearts: one per person and post, given or taken back (PROTOCOL sections 4, 7 and 9).

use super::record::{RecordBody, Signed};
use super::{NodeId, PostId};
use crate::refusal::Refusal;
use crate::wire::codec::as_array;

/// The body of a [`Heart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartBody {
    /// Who gives it, and signs.
    pub person: NodeId,
    /// Whose post it is.
    pub author: NodeId,
    /// To which post.
    pub post: PostId,
    /// ms since the epoch, higher with each change.
    pub seq: u64,
    /// 1 for given, 0 for taken back.
    pub given: u8,
}

as_array!(HeartBody {
    person: NodeId,
    author: NodeId,
    post: PostId,
    seq: u64,
    given: u8,
});

impl HeartBody {
    /// Whether it is given, not taken back.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.given == 1
    }
}

impl RecordBody for HeartBody {
    const TYPE: &'static str = "heart";
    const BYTES_MAX: usize = 128;

    #[allow(
        clippy::misnamed_getters,
        reason = "whoever signs a heart is not the author of the post"
    )]
    fn author(&self) -> NodeId {
        self.person
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn check(&self) -> Result<(), Refusal> {
        (self.given <= 1).then_some(()).ok_or(Refusal::OutOfRange)
    }
}

/// A person's word that they like a post, or do no more.
pub type Heart = Signed<HeartBody>;
