//! 0x53 HeartRecord: somebody likes a post, or does no more (PROTOCOL section 7).

use super::codec::as_array;
use super::{Check, Example};
use crate::domain::Heart;

/// A heart, the sender's own or one it keeps with the post.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartRecord {
    /// The heart.
    pub heart: Heart,
    /// The version of the list of the post's author that the sender has; 0 for none. A hint.
    pub list_seq: u64,
}

as_array!(HeartRecord {
    heart: Heart,
    list_seq: u64,
});

impl Check for HeartRecord {}

impl Example for HeartRecord {
    fn example() -> Self {
        use crate::domain::{HeartBody, Signed};
        let secret = crate::crypto::Secret::from_seed(&[2; 32]);
        let (list, post) = super::pull_sync::example_list();
        let body = HeartBody {
            person: secret.node_id(),
            author: list.head().author,
            post: post.id(),
            seq: 1_700_000_000_000,
            given: 1,
        };
        Self {
            heart: Signed::sign(body, &secret),
            list_seq: list.head().seq.to_u64(),
        }
    }
}
