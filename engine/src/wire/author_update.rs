//! 0x34 AuthorUpdatePush: along the file chain, that an author did something (PROTOCOL section 7).

use super::codec::{Bounded, as_array};
use super::{Check, Example};
use crate::domain::{NodeId, RecentPostsHead};
use crate::limits;
use crate::refusal::Refusal;

/// Which version of an author's list somebody has. A hint, proved by nothing: it allows one question to whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListDigest {
    /// Whose list.
    pub author: NodeId,
    /// Its version.
    pub seq: u64,
    /// The first four bytes of its root, big-endian: two versions with one seq show.
    pub root: u32,
}

as_array!(ListDigest {
    author: NodeId,
    seq: u64,
    root: u32,
});

impl ListDigest {
    /// Of a list.
    #[must_use]
    pub fn of(head: &RecentPostsHead) -> Self {
        let [a, b, c, d, ..] = head.root;
        Self {
            author: head.author,
            seq: head.seq.to_u64(),
            root: u32::from_be_bytes([a, b, c, d]),
        }
    }
}

/// What is new of some authors.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorUpdatePush {
    /// A digest of each.
    pub digests: Bounded<ListDigest, { limits::PUSH_AUTHORS_MAX }>,
}

as_array!(AuthorUpdatePush {
    digests: Bounded<ListDigest, { limits::PUSH_AUTHORS_MAX }>,
});

impl Check for AuthorUpdatePush {
    fn check(&self) -> Result<(), Refusal> {
        let says = !self.digests.is_empty();
        says.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for AuthorUpdatePush {
    fn example() -> Self {
        let (list, _) = super::pull_sync::example_list();
        Self {
            digests: Bounded::truncated(vec![ListDigest::of(list.head())]),
        }
    }
}
