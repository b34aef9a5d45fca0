//! 0x40, 0x41: what an author did since, from the author or from whoever keeps them (PROTOCOL sections 7 and 8).

use super::codec::{Bounded, as_array};
use super::{Check, Example};
use crate::domain::{
    Deletion, EventList, Heart, NodeId, PostBytes, PostId, Profile, RecentPosts, RecentPostsHead,
    Seq, SignedPost, Verified,
};
use crate::limits;
use crate::refusal::Refusal;

/// An author and the newest version of their list that the asker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whose list.
    pub author: NodeId,
    /// The asker's version; 0 for none.
    pub seq: u64,
}

as_array!(Want {
    author: NodeId,
    seq: u64
});

impl Want {
    /// The asker's version, if it has one.
    #[must_use]
    pub fn known(&self) -> Option<Seq> {
        (self.seq != 0).then(|| Seq::from_u64(self.seq))
    }

    /// How many of the newest events the asker lacks, of `count` in the list under this head.
    #[must_use]
    pub fn lacks(&self, head: &RecentPostsHead, count: usize) -> usize {
        head.seq.events_since(self.known(), count)
    }
}

/// Asks for what is newer of some authors, and for posts by id.
#[derive(Clone, Debug, PartialEq)]
pub struct PullSyncRequest {
    /// Lists wanted.
    pub authors: Bounded<Want, { limits::PULL_AUTHORS_MAX }>,
    /// Posts wanted, newest first.
    pub posts: Bounded<PostId, { limits::PULL_POSTS_MAX }>,
}

as_array!(PullSyncRequest {
    authors: Bounded<Want, { limits::PULL_AUTHORS_MAX }>,
    posts: Bounded<PostId, { limits::PULL_POSTS_MAX }>,
});

impl Check for PullSyncRequest {
    fn check(&self) -> Result<(), Refusal> {
        let asks = !self.authors.is_empty() || !self.posts.is_empty();
        asks.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for PullSyncRequest {
    fn example() -> Self {
        let (posts, post) = example_list();
        Self {
            authors: Bounded::truncated(vec![Want {
                author: posts.head().author,
                seq: 0,
            }]),
            posts: Bounded::truncated(vec![post.id()]),
        }
    }
}

/// What is newer of one author.
#[derive(Clone, Debug, PartialEq)]
pub struct ListPart {
    /// The newest head the sender has.
    pub head: RecentPostsHead,
    /// The events the asker lacks, or the whole list; empty where the asker is as new.
    pub newest: EventList,
    /// The author's profile.
    pub profile: Option<Profile>,
}

as_array!(ListPart {
    head: RecentPostsHead,
    newest: EventList,
    profile: Option<Profile>,
});

/// Lists and posts, newest first, as many as fit; what is missing is asked for again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PullSyncResponse {
    /// For each author asked for that the sender keeps.
    pub lists: Bounded<ListPart, { limits::PULL_AUTHORS_MAX }>,
    /// For each post asked for that the sender holds, while they fit. Proved by the list that names them.
    pub posts: Bounded<PostBytes, { limits::PULL_POSTS_MAX }>,
    /// Hearts of those posts.
    pub hearts: Bounded<Heart, { limits::PULL_HEARTS_MAX }>,
    /// Why posts that were asked for are not here: their authors took them back.
    pub deletions: Bounded<Deletion, { limits::PULL_DELETIONS_MAX }>,
}

as_array!(PullSyncResponse {
    lists: Bounded<ListPart, { limits::PULL_AUTHORS_MAX }>,
    posts: Bounded<PostBytes, { limits::PULL_POSTS_MAX }>,
    hearts: Bounded<Heart, { limits::PULL_HEARTS_MAX }>,
    deletions: Bounded<Deletion, { limits::PULL_DELETIONS_MAX }>,
});

impl Check for PullSyncResponse {
    fn check(&self) -> Result<(), Refusal> {
        let right_profiles = self.lists.iter().all(|part| {
            let of_author = |profile: &Profile| profile.author == part.head.author;
            part.profile.as_ref().is_none_or(of_author)
        });
        right_profiles.then_some(()).ok_or(Refusal::WrongAuthor)
    }
}

impl Example for PullSyncResponse {
    fn example() -> Self {
        let (posts, post) = example_list();
        let part = ListPart {
            head: posts.head().clone(),
            newest: posts.list().clone(),
            profile: Some(super::ProfileUpdate::example().profile),
        };
        Self {
            lists: Bounded::truncated(vec![part]),
            posts: Bounded::truncated(vec![post.bytes().clone()]),
            hearts: Bounded::truncated(vec![super::HeartRecord::example().heart]),
            deletions: Bounded::truncated(vec![super::DeleteRecord::example().deletion]),
        }
    }
}

/// A list of one post, by the example identity.
pub(super) fn example_list() -> (Verified<RecentPosts>, SignedPost) {
    use crate::domain::{Content, Event, EventKind, PostBody, PostText, PublicContent};
    let secret = crate::crypto::Secret::from_seed(&[1; 32]);
    let body = PostBody {
        author: secret.node_id(),
        created_at_ms: 1_700_000_000_000,
        content: Content::Public(PublicContent {
            text: PostText::new("hello").expect("a text"),
            parent: Some(PostId::from_bytes([9; 32])),
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::default(),
    };
    let post = SignedPost::sign(body, &secret).expect("a valid post");
    let event = Event {
        id: post.id(),
        created_at_s: 1_700_000_000,
        kind: EventKind::Public,
    };
    let list = RecentPosts::append(None, event, 1_600_000_000, 1_700_000_000_000, &secret);
    (list, post)
}
