//! 0x35 PostNotification: the author tells every connection that something was posted (PROTOCOL section 7).

use super::codec::as_array;
use super::{Check, Example};
use crate::domain::{EventList, RecentPostsHead, SignedPost};
use crate::limits;
use crate::refusal::Refusal;

/// The new head of the author's list, its newest events, and the post itself where it is small.
#[derive(Clone, Debug, PartialEq)]
pub struct PostNotification {
    /// The new head.
    pub head: RecentPostsHead,
    /// The newest events of the list, at most 64.
    pub newest: EventList,
    /// The post, up to 4 KiB, if it is public or sealed for anybody to hold.
    pub post: Option<SignedPost>,
}

as_array!(PostNotification {
    head: RecentPostsHead,
    newest: EventList,
    post: Option<SignedPost>,
});

impl PostNotification {
    /// Events in one notification at most; who lacks more asks.
    pub const EVENTS_MAX: usize = 64;
}

impl Check for PostNotification {
    fn check(&self) -> Result<(), Refusal> {
        if self.newest.is_empty() || self.newest.len() > Self::EVENTS_MAX {
            return Err(Refusal::OutOfRange);
        }
        if let Some(post) = &self.post {
            if post.body().author != self.head.author {
                return Err(Refusal::WrongAuthor);
            }
            if post.bytes().body.len() > limits::POST_INLINE_BYTES_MAX {
                return Err(Refusal::TooLarge);
            }
            if !self.newest.iter().any(|event| event.id == post.id()) {
                return Err(Refusal::NotWanted);
            }
        }
        Ok(())
    }
}

impl Example for PostNotification {
    fn example() -> Self {
        let (posts, post) = super::pull_sync::example_list();
        Self {
            head: posts.head().clone(),
            newest: posts.list().newest(1),
            post: Some(post),
        }
    }
}
