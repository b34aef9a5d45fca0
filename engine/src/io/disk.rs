//! What a node stores and reads, and what it starts from.

use crate::domain::{
    Address, BlobHash, BlobRef, ConnectString, Deletion, EventList, Heart, HeartBody, NodeId,
    PostBytes, PostId, Profile, RecentPostsHead, SignedPost, Slice, Verified,
};
use crate::limits;
use crate::wire::{ListPart, Want};
use std::ops::Range;
use std::sync::Arc;

/// Why the disk did not do it. [`std::fmt::Display`] is the sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageTrouble {
    /// No space left.
    #[error("the disk is full: free some space, nothing that was acknowledged is lost")]
    Full,
    /// What the budget leaves for it is used up.
    #[error(
        "the storage budget is used up: some of what is kept of others goes for it; if this stays, raise it or delete some of your posts; nothing that was acknowledged is lost"
    )]
    Budget,
    /// The folder cannot be written.
    #[error("the data folder cannot be written")]
    ReadOnly,
    /// What is stored does not make sense.
    #[error("the stored data is damaged")]
    Corrupt,
    /// Reading or writing failed.
    #[error("reading or writing the disk failed")]
    Failed,
}

impl StorageTrouble {
    /// Whether it is for lack of room: then it is tried again once something has gone.
    #[must_use]
    pub fn lacks_room(self) -> bool {
        matches!(self, Self::Full | Self::Budget)
    }
}

/// One change of what is stored; persistence turns it into rows without knowing what it means.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A verified post.
    Post {
        /// The post, whose id, author and time make its rows.
        post: Box<SignedPost>,
        /// When it came: ms since the epoch.
        arrived_ms: u64,
    },
    /// An author's verified list.
    RecentPosts {
        /// The head.
        head: RecentPostsHead,
        /// The list.
        list: EventList,
    },
    /// When an author's list was last received or confirmed newest.
    Checked {
        /// Whose.
        author: NodeId,
        /// ms since the epoch.
        checked_at_ms: u64,
    },
    /// A person's profile.
    Profile(Profile),
    /// What one has to do with somebody; `None` for nothing any more.
    Relationship {
        /// With whom.
        node: NodeId,
        /// What.
        relationship: Option<Relationship>,
    },
    /// A peer worth dialling at the next start.
    GoodPeer(GoodPeer),
    /// No longer worth it.
    ForgetPeer(NodeId),
    /// A post is kept no more: its row, its place in the feed and its hearts.
    ForgetPost(PostId),
    /// A proved part of a blob. A batch with one holds nothing but slices: each is stored or not, and all are there before it
    /// counts as persisted; where one has no room, the batch fails with [`StorageTrouble::Budget`], or [`StorageTrouble::Full`].
    Slice(Verified<Slice>),
    /// A blob is kept no more, whatever is there of it.
    ForgetBlob(BlobHash),
    /// A heart, given or taken back, in the place of that person's last for the post.
    Heart(Heart),
    /// An author took a post back: nothing resurrects it.
    Deletion(Deletion),
    /// Whether the person wants to keep a post by all means.
    Pin {
        /// Which.
        post: PostId,
        /// Whether.
        is_pinned: bool,
    },
    /// Two heads of one author with one number and different roots: the proof that they signed both.
    Equivocation(Box<[RecentPostsHead; 2]>),
    /// An author is kept no more: list, checks, profile, deletions. Posts are forgotten one by one.
    ForgetAuthor(NodeId),
    /// A piece of the map's snapshot or journal.
    MapRow(MapRow),
    /// Pieces of other generations are needed no more.
    MapOnly {
        /// The generation that stays.
        generation: u32,
    },
}

/// A piece of the map as it lies on the disk; [`crate::world::map::snapshot`] says what its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRow {
    /// Of which snapshot.
    pub generation: u32,
    /// Its place in it.
    pub chunk: u32,
    /// What it says.
    pub bytes: Arc<[u8]>,
}

/// What one has to do with somebody. Private: never on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relationship {
    /// Since when one follows them: ms since the epoch; `None` for not.
    pub followed_since_ms: Option<u64>,
    /// Since when their posts are kept without following them (PROTOCOL section 7, kept authors); `None` for not.
    pub hosted_since_ms: Option<u64>,
    /// Where they were said to be.
    pub place: Option<ConnectString>,
}

/// A peer that was up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodPeer {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<Address>,
    /// Whether it serves as an anchor.
    pub is_anchor: bool,
    /// When it was last up: ms since the epoch.
    pub last_up_ms: u64,
}

/// What a node reads from its disk while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadQuery {
    /// An author's list.
    RecentPosts(NodeId),
    /// For a peer: what it lacks of lists, and profiles, then posts, until `bytes_max` is full. No more is read than is answered.
    ForPeer {
        /// Whose lists and profiles, each author once.
        wants: Vec<Want>,
        /// Which posts, in order, each once.
        posts: Vec<PostId>,
        /// Bytes of lists and posts at most.
        bytes_max: usize,
    },
    /// A run of slices of one blob.
    Slices {
        /// Of which.
        blob: BlobHash,
        /// The first.
        first: u32,
        /// How many at most.
        count: u32,
    },
}

/// What was there. Rows hold what was verified before it was stored.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one lives for one frame, a box would cost more than it saves"
)]
pub enum ReadResult {
    /// An author's list, if there is one.
    RecentPosts(Option<StoredList>),
    /// Lists with profiles, and posts, in the order asked for, absent ones left out.
    ForPeer {
        /// Of lists that are there, the newest events that were wanted, if all of them fit.
        lists: Vec<ListPart>,
        /// Posts that are there, up to the first that does not fit beside the lists.
        posts: Vec<PostBytes>,
        /// Hearts of those posts, the newest of each, as many as fit [`crate::limits::PULL_HEARTS_MAX`].
        hearts: Vec<Heart>,
        /// Deletions of posts that were asked for, as many as fit [`crate::limits::PULL_DELETIONS_MAX`].
        deletions: Vec<Deletion>,
    },
    /// Slices from the first on, as they were stored, up to the first that is not there.
    Slices(Vec<Arc<[u8]>>),
}

/// An author's list as it lies on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredList {
    /// The head.
    pub head: RecentPostsHead,
    /// The list.
    pub list: EventList,
}

/// What a node needs from its disk before its first frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Everybody one has to do with.
    pub relationships: Vec<(NodeId, Relationship)>,
    /// The head and `checked_at_ms` of every author whose list is stored.
    pub authors: Vec<(RecentPostsHead, u64)>,
    /// Every stored post.
    pub files: Vec<StoredFileRow>,
    /// Every blob that lies here, in part or whole.
    pub blobs: Vec<StoredBlob>,
    /// What every stored heart says, with the hash of its body.
    pub hearts: Vec<(HeartBody, [u8; 32])>,
    /// Authors who signed two lists with one number.
    pub equivocal: Vec<NodeId>,
    /// Author and post of every stored deletion.
    pub deletions: Vec<(NodeId, PostId)>,
    /// How full the disk is.
    pub usage: DiskUsage,
    /// Peers worth dialling, best first.
    pub good_peers: Vec<GoodPeer>,
    /// The own list.
    pub own_list: Option<StoredList>,
    /// The own profile.
    pub own_profile: Option<Profile>,
    /// The profiles of others.
    pub profiles: Vec<Profile>,
    /// The map's snapshot and journal, unchecked, in any order.
    pub map: Vec<MapRow>,
}

/// One stored post, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFileRow {
    /// Which.
    pub id: PostId,
    /// By whom.
    pub author: NodeId,
    /// When written: seconds since the epoch.
    pub created_at_s: u32,
    /// Bytes of its body.
    pub bytes: u32,
    /// The blobs that it names.
    pub blobs: Box<[BlobRef]>,
    /// Whether the person pinned it.
    pub is_pinned: bool,
}

impl StoredFileRow {
    /// Of a post.
    #[must_use]
    pub fn of(post: &SignedPost) -> Self {
        let body = post.body();
        Self {
            id: post.id(),
            author: body.author,
            created_at_s: (body.created_at_ms / 1000) as u32,
            bytes: post.bytes().body.len() as u32,
            blobs: body.blobs.iter().copied().collect(),
            is_pinned: false,
        }
    }

    /// Its blobs, each once, however often it names one.
    pub fn distinct_blobs(&self) -> impl Iterator<Item = &BlobRef> {
        let places = self.blobs.iter().enumerate();
        let first = places.filter(|(place, blob)| !self.blobs[..*place].contains(blob));
        first.map(|(_, blob)| blob)
    }
}

/// A blob that lies on the disk, in part or whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Which.
    pub hash: BlobHash,
    /// The slices that are there, ascending.
    pub slices: Vec<Range<u32>>,
    /// Bytes of the highest of them with its proof.
    pub last_bytes: u32,
}

/// How full the disk is, as of the last commit (PROTOCOL section 7, quota).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that everything may take.
    pub budget_bytes: u64,
    /// Bytes that the files take, free pages and all: never more than the budget, except while they shrink.
    pub file_bytes: u64,
    /// Bytes in use in the tables.
    pub row_bytes: u64,
    /// Bytes that the tables may take.
    pub row_room_bytes: u64,
    /// Bytes in use for blobs.
    pub blob_bytes: u64,
    /// Bytes that blobs may take.
    pub blob_room_bytes: u64,
    /// A lowered budget is not reached yet: files are being written anew, one at a time.
    pub is_shrinking: bool,
}

/// Bytes of the person's own content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OwnBytes {
    /// All of it.
    pub all: u64,
    /// Of that what is in rows, in whole pages.
    pub rows: u64,
}

impl OwnBytes {
    /// What a budget has for it (PROTOCOL section 7, quota).
    #[must_use]
    pub fn max_of(budget_bytes: u64) -> Self {
        match budget_bytes {
            // Nothing is known of the disk yet.
            0 => Self {
                all: u64::MAX,
                rows: u64::MAX,
            },
            _ => Self {
                all: budget_bytes / limits::OWN_SHARE,
                rows: budget_bytes / limits::OWN_ROWS_SHARE,
            },
        }
    }
}

impl std::ops::AddAssign for OwnBytes {
    fn add_assign(&mut self, more: Self) {
        self.all += more.all;
        self.rows += more.rows;
    }
}
