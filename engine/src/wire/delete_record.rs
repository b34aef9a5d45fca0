//! 0x51 DeleteRecord: an author takes a post back (PROTOCOL section 7).

use super::codec::as_array;
use super::{Check, Example};
use crate::domain::Deletion;

/// A deletion, the sender's own or one it keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteRecord {
    /// The deletion.
    pub deletion: Deletion,
    /// The version of the author's list that the sender has; 0 for none. A hint.
    pub list_seq: u64,
}

as_array!(DeleteRecord {
    deletion: Deletion,
    list_seq: u64,
});

impl Check for DeleteRecord {}

impl Example for DeleteRecord {
    fn example() -> Self {
        use crate::domain::{DeletionBody, PostId, Signed};
        let secret = crate::crypto::Secret::from_seed(&[1; 32]);
        let body = DeletionBody {
            author: secret.node_id(),
            post: PostId::from_bytes([9; 32]),
            seq: 1_700_000_000_000,
        };
        Self {
            deletion: Signed::sign(body, &secret),
            list_seq: (1_700_000_000 << 32) | 7,
        }
    }
}
